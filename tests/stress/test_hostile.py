"""Every argument of everything public, given each of a hundred values that nobody should give, and made-up ones.

What may come of it is a result or a documented error. After an error all is as it was, also what only later calls would
show (open rounds, reports half made, cursors drawn ahead), and the right call still works.
"""

import copy
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from tests.stress.hostile import ANYTHING, VALUES, calls

CALLS = calls()
EVERY = 4  # of the values, in the default suite; which ones differs from argument to argument
MADE_UP = 10  # combinations of arguments


def look(owner):
    """All of an object that may not change when a call of it fails."""
    if owner is None:
        return None
    allocator = getattr(owner, "allocator", owner)
    rounds = [
        (opened.draw.round, opened.draw.items.tolist(), len(opened.reports), reported(opened.context))
        for opened in allocator.rounds
    ]
    ahead = allocator._drawer
    cursors = [ahead._visits.tolist(), ahead._last.tolist(), ahead._clock.tolist(), ahead._data.tolist()]
    shares = allocator.probabilities.tolist()
    return copy.deepcopy(owner.state_dict()), allocator.digest(), allocator.lag, rounds, cursors, shares


def reported(batch):
    """What a face has noted of a batch."""
    return batch is None, getattr(batch, "report", None) is None, getattr(batch, "n", 0)


def attempt(call, arguments):
    """Make the call; return the error if it is one that may come, and fail on any other."""
    owner, target = call.make()
    before, failed = look(owner), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target(**arguments)
    except (ValueError, MemoryError, *call.also) as error:  # memory: a request that is in order, but for its size
        failed = error
    except Exception as error:
        raise AssertionError(f"{call.name}({arguments}) raised {type(error).__name__}: {error}") from error
    if failed is not None:
        assert len(str(failed)) > 10
        assert look(owner) == before, f"{call.name} changed something and then raised {failed!r}"
        target(**call.good)
    return failed


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_good_arguments_are_taken(call):
    assert attempt(call, call.good) is None


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_one_hostile_argument(call):
    refused = 0
    for number, name in enumerate(call.good):
        for value in VALUES[number % EVERY :: EVERY]:
            refused += attempt(call, {**call.good, name: value}) is not None
    assert refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_one_argument_of_every_hostile_value(call):
    for name in call.good:
        for value in VALUES:
            attempt(call, {**call.good, name: value})


def several(call, data):
    """Call it with one to three arguments replaced."""
    strange = data.draw(st.sets(st.sampled_from(sorted(call.good)), min_size=1, max_size=3))
    attempt(call, {**call.good, **{name: data.draw(ANYTHING, label=name) for name in sorted(strange)}})


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@settings(max_examples=MADE_UP)
@given(data=st.data())
def test_hostile_arguments_together(call, data):
    several(call, data)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
@settings(max_examples=1500)
@given(data=st.data())
def test_many_hostile_arguments_together(call, data):
    several(call, data)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_an_unknown_keyword_is_a_type_error(call):
    _, target = call.make()
    with pytest.raises(TypeError):
        target(**call.good, no_such_argument=1)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_it_is_noticed_if_a_call_that_fails_has_changed_something(error):
    call = next(call for call in CALLS if call.name == "Allocator.observe")

    def make():
        owner, _ = call.make()

        def target(**_):
            owner._drawer._visits[0] += 1
            raise error("and it said that nothing was changed")

        return owner, target

    with pytest.raises(AssertionError, match="changed something"):
        attempt(type(call)(call.name, make, call.good, call.also), call.good)
