"""The deliberate bugs can all be made. That tests notice them takes half an hour: see `mutation/mutate.py`."""

import pytest

from tests.stress.mutation.change import Edit, changed
from tests.stress.mutation.mutants import MUTANTS
from tests.stress.mutation.mutate import check_sources
from tests.stress.mutation.scaled import SCALED

SOURCE = """
def f(x):
    y = g(x) + 1
    return y

class C:
    def f(self):
        self.a = h(1)
        self.b = h(2)
        return self.a
"""


def test_every_bug_can_be_made():
    check_sources([*MUTANTS, *SCALED])


@pytest.mark.parametrize(
    ("where", "old", "new", "made"),
    [
        ("f", "g(A) + B", "g(B) - A", "y = g(1) - x"),
        ("C.f", "self.a = h(A)\nself.b = h(B)", "self.b = h(A)", "self.b = h(1)"),
        ("C.f", "return self.a", "", "pass"),
        ("", "A + 1", "A", "y = g(x)"),
    ],
)
def test_an_edit_changes_what_it_names(where, old, new, made):
    after = changed(SOURCE, Edit(where, old, new))
    assert made in after
    assert len(after.splitlines()) <= len(SOURCE.splitlines())


@pytest.mark.parametrize(
    ("where", "old", "words"),
    [
        ("f", "g(A) + 2", "in f 0 times"),
        ("C.f", "h(A)", "in C.f 2 times"),
        ("C.g", "h(A)", "there is no C.g: g is missing"),
        ("C.f", "A + A", "0 times"),
    ],
)
def test_an_edit_that_is_not_unique_is_an_error(where, old, words):
    with pytest.raises(LookupError, match=words):
        changed(SOURCE, Edit(where, old, "0"))
