"""Errors: only the library's own are raised, each carries `.remedy`, and every remedy works."""

from __future__ import annotations

import ast
import importlib
import pickle
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

import aria_sampling as aria
from aria_sampling import errors
from tests.unit.remedies.case import Case

SRC = Path(aria.__file__).parent
OURS = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}
PYTHONS_OWN = {"AssertionError", "AttributeError", "StopIteration"}  # what Python itself asks for
KERNEL = {"_kernel/__init__.py", "_kernel/reference.py"}  # below the errors, and never reached by a user's argument

CASES = [
    case
    for path in sorted((Path(__file__).parent / "remedies").glob("*.py"))
    if path.stem not in ("case", "__init__")
    for case in importlib.import_module(f"tests.unit.remedies.{path.stem}").CASES
]


def raises() -> list[tuple[str, ast.Raise]]:
    """All `raise` statements of the package that make an error, by file."""
    found = []
    for path in sorted(SRC.rglob("*.py")):
        name = path.relative_to(SRC).as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and name not in KERNEL:
                found.append((name, node))
    return found


def test_only_own_errors_are_raised():
    others = [
        f"{name}:{node.lineno}: {node.exc.func.id}"
        for name, node in raises()
        if isinstance(node.exc.func, ast.Name)
        and node.exc.func.id[0].isupper()
        and node.exc.func.id not in OURS | PYTHONS_OWN
    ]
    assert not others, "raise one of aria_sampling.errors, which carry `.remedy`"


def test_an_error_carries_its_remedy_and_shows_it():
    error = aria.ArgumentError("labels: expected no gaps", remedy="labels = np.unique(labels, return_inverse=True)[1]")
    assert str(error) == "labels: expected no gaps. Try: labels = np.unique(labels, return_inverse=True)[1]"
    assert aria.ArgumentError("n=-1: expected n >= 0").remedy is None
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.remedy) == (type(error), str(error), error.remedy)


def failed(case: Case) -> tuple[dict[str, object], Exception]:
    """The variables of a case and the error that its call ends in."""
    names: dict[str, object] = {"aria": aria, "np": np, "torch": torch}
    exec(case.setup, names)
    with pytest.raises(aria.AriaError) as caught:
        exec(case.call, names)
    return names, caught.value


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_remedy_works(case: Case):
    names, error = failed(case)
    assert error.remedy is not None
    assert len(str(error)) <= 900
    exec(error.remedy, names)
    exec(case.call if case.again is None else case.again, names)


def test_every_remedy_has_a_case():
    """A remedy that no case runs is a promise without a test."""
    written = {
        (name, node.lineno, node.end_lineno)
        for name, node in raises()
        if any(
            keyword.arg == "remedy" and not (isinstance(keyword.value, ast.Name) and keyword.value.id == "remedy")
            for keyword in node.exc.keywords
        )
    }
    reached = set()
    for case in CASES:
        _, error = failed(case)
        for frame in traceback.extract_tb(error.__traceback__):
            reached |= {
                place for place in written if frame.filename.endswith(place[0]) and place[1] <= frame.lineno <= place[2]
            }
    assert not written - reached
