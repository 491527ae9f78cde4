"""The kernel's one call for the library's own parts does what asking them by value does."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import _kernel
from aria_sampling.learning import Learner

ESTIMATORS = [
    aria.EmaBank(),
    aria.EmaBank(half_lives=(3.0, 50.0), discount=0.3, clip=1.0),
    aria.Ema(),
    aria.Ema(rate=1.0),
    aria.Ema(rate=0.3, per="visit"),
]


def by_value(estimator: aria.Estimator) -> aria.Estimator:
    """The same, of a subclass that changes nothing: it might, so the kernel's one call is not for it."""
    kind = type(estimator)
    same = type(kind.__name__, (kind,), {"__qualname__": kind.__qualname__})
    return same(**{field.name: getattr(estimator, field.name) for field in dataclasses.fields(estimator)})


def allocator(estimator, **options):
    return aria.Allocator(aria.Partition.from_labels(np.arange(90) % 9), estimator=estimator, seed=3, **options)


losses = st.one_of(
    st.floats(0, 10),
    st.floats(-3, 3),
    st.sampled_from([0.0, np.nan, np.inf, 1e149, 1e-300, 5e-324, 1e-160]),
)


@pytest.mark.skipif(not _kernel.COMPILED, reason="the Python kernel is what the compiled one is compared with")
@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(ESTIMATORS),
    st.sampled_from([0.0, 0.5, 1.0, 4.0, 80.0]),
    st.integers(0, 2),
    st.lists(st.lists(losses, max_size=20), min_size=1, max_size=12),
)
@pytest.mark.filterwarnings("ignore::aria_sampling.AriaWarning")
def test_one_call_gives_the_bits_of_asking_by_value(estimator, exponent, lag, rounds):
    one = allocator(estimator, policy=aria.Proportional(exponent), lag=lag)
    other = allocator(by_value(estimator), policy=aria.Proportional(exponent), lag=lag)
    assert one._learner._at_once is not None
    assert other._learner._at_once is None
    for losses in rounds:
        for each in (one, other):
            draw = each.draw(len(losses))
            each.observe(draw.regions, losses)
            each.step()
        assert one.digest() == other.digest()
        assert (one.probabilities == other.probabilities).all()
        for name in ("mean", "stderr", "count", "age"):
            assert np.array_equal(getattr(one.estimate(), name), getattr(other.estimate(), name), equal_nan=True)


@pytest.mark.skipif(not _kernel.COMPILED, reason="there is one way then")
def test_what_is_asked_by_value():
    class Mine(aria.Proportional):
        """One's own."""

    q = np.ones(2) / 2
    assert Learner(aria.EmaBank(), aria.Proportional(), q)._at_once
    assert Learner(aria.Ema(), aria.Proportional(2.0), q)._at_once
    assert not Learner(aria.Ema(), Mine(), q)._at_once
    assert not Learner(aria.Ema(), aria.Reducible(), q)._at_once
    assert not Learner(by_value(aria.EmaBank()), aria.Proportional(), q)._at_once


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_learns_the_same(copied):
    first = allocator(aria.EmaBank())
    second = copied(first)
    for each in (first, second):
        each.observe(each.draw(8).regions, np.arange(8.0))
        each.step()
    assert first.digest() == second.digest()
