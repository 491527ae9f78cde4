"""Every public constructor and method under hostile arguments: a documented error, and nothing changed.

Each call below is right as it stands. One or two of its arguments are replaced by something else. What may come of it
is a result, a ValueError (or a subclass of it), or where an object is used at the wrong moment a RuntimeError.
"""

import contextlib
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning, RegionMixture, lag_for
from tests.helpers import loss_of, small_pool

HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**40]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["", "pool", "0", b"1", object(), ..., 1j, [], {}, (), {1, 2}, [[1], [2, 3]], [None], ["a", "b"]]),
    st.lists(st.one_of(st.integers(-2, 100), st.floats()), max_size=9),
    st.builds(
        lambda shape, dtype, value: np.full(shape, value).astype(dtype),
        st.sampled_from([(), (0,), (1,), (8,), (9,), (8, 1), (2, 4), (60,), (6,)]),
        st.sampled_from(["int64", "int8", "uint64", "float64", "float16", "bool", "complex128", "O", "U3"]),
        st.sampled_from([0, 1, 3, 100]),
    ),
    st.builds(
        lambda n, dtype: torch.ones(n, dtype=dtype), st.integers(0, 9), st.sampled_from([torch.int64, torch.bfloat16])
    ),
)
MODEST = {"n": 10**4, "num_samples": 10**4, "lag": 10**4, "n_regions": 10**4, "n_bins": 10**4}
"""Sizes that are honoured, and would take the memory they ask for, are not asked for."""


def modest(name, value):
    """Whether a value is hostile without being an honest wish for a lot of memory."""
    size = value.item() if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0 else value
    plain = isinstance(size, int | np.integer) and not isinstance(size, bool)
    return not (plain and MODEST.get(name, math.inf) < size < 2**62)


CONSTRUCTORS = {
    "Allocator": (
        aria.Allocator,
        {
            "partition": small_pool(),
            "estimator": aria.Ema(),
            "policy": aria.Proportional(),
            "floor": 0.2,
            "target": "pool",
            "max_gap": 9,
            "max_repeat": 50.0,
            "correction": 1.0,
            "seed": 0,
            "lag": 0,
        },
    ),
    "from_labels": (aria.Partition.from_labels, {"labels": [0, 1, 1], "names": ["a", "b"], "centers": [[0.0], [1.0]]}),
    "KMeansPartitioner": (aria.KMeansPartitioner, {"n_regions": 3, "seed": 0, "points_per_region": 8, "max_iter": 2}),
    "Ema": (aria.Ema, {"rate": 0.1, "per": "visit"}),
    "EmaBank": (aria.EmaBank, {"half_lives": (4.0, 8.0), "discount": 0.01, "clip": 25.0}),
    "TimestepProfile": (aria.TimestepProfile, {"num_train_timesteps": 50, "n_bins": 5, "rate": 0.1}),
    "Proportional": (aria.Proportional, {"exponent": 1.0}),
    "Softmax": (aria.Softmax, {"temperature": 1.0}),
    "Minimax": (aria.Minimax, {"step_size": 0.1, "scale": 1.0, "reference": 0.0}),
    "Reducible": (aria.Reducible, {"reference": 0.0, "least": 0.05}),
    "Mixture": (aria.Mixture, {"policies": (aria.Proportional(),), "weights": (1.0,)}),
    "ExponentialSwitch": (aria.ExponentialSwitch, {"rate": 5.0}),
    "SigmoidSwitch": (aria.SigmoidSwitch, {"steepness": 20.0, "midpoint": 0.7}),
    "ConstantSwitch": (aria.ConstantSwitch, {"probability": 0.5}),
    "RandomConditioning": (
        RandomConditioning,
        {
            "allocator": aria.Allocator(small_pool()),
            "schedule": aria.ConstantSwitch(0.5),
            "num_train_timesteps": 50,
            "normalise": True,
            "check_every": 64,
        },
    ),
    "sampler": (
        aria.Allocator(small_pool()).sampler,
        {"batch_size": 8, "num_samples": 60, "num_replicas": 2, "rank": 1, "check_every": 64},
    ),
    "RegionMixture": (
        RegionMixture,
        {"sources": {"a": [1]}, "allocator": None, "batch_size": 2, "num_samples": 8, "num_replicas": 1, "rank": 0},
    ),
    "lag_for": (lag_for, {"loader": torch.utils.data.DataLoader([1])}),
}


def spoilt(data, arguments):
    """The arguments with one or two of them replaced."""
    names = data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True))
    return arguments | {name: data.draw(HOSTILE.filter(lambda value, name=name: modest(name, value))) for name in names}


@pytest.mark.parametrize("name", CONSTRUCTORS)
@settings(max_examples=150)
@given(st.data())
def test_constructors(name, data):
    make, right = CONSTRUCTORS[name]
    make(**right)
    with contextlib.suppress(ValueError):
        make(**spoilt(data, right))


def allocator():
    """In the middle of a run, with an open round."""
    one = aria.Allocator(small_pool(), estimator=aria.Ema(0.1), seed=3, lag=1)
    for _ in range(3):
        draw = one.draw(8)
        one.observe(draw.regions, loss_of(draw))
        one.step()
    one.draw(8)
    return one


def sampler():
    one = aria.Allocator(small_pool(), estimator=aria.Ema(0.1), seed=3, lag=2).sampler(batch_size=8, num_samples=60)
    stream = iter(one)
    rows = [next(stream) for _ in range(8)]
    one.observe(rows, np.ones(8))
    one.open_rows = [next(stream) for _ in range(8)]
    return one


def conditioning():
    one = RandomConditioning(
        aria.Allocator(small_pool(), seed=3, lag=1), schedule=aria.ConstantSwitch(0.5), num_train_timesteps=50
    )
    one.draw(np.arange(8))
    return one


def mixture():
    one = RegionMixture({"a": range(50), "b": range(50)}, batch_size=8, num_samples=80)
    stream = iter(one)
    one.open_rows = [next(stream)[0] for _ in range(8)]
    return one


METHODS = {
    "draw": (allocator, lambda one: {"n": 8, "present": [0, 1]}),
    "skip": (allocator, lambda one: {"present": [0, 1]}),
    "observe": (allocator, lambda one: {"regions": one.open_rounds[0].regions, "losses": np.ones(8)}),
    "certificate": (allocator, lambda one: {"drift": 0.1, "sigma": 1.0, "alpha": 0.05}),
    "load_state_dict": (allocator, lambda one: {"state": one.state_dict()}),
    "sampler.observe": (sampler, lambda one: {"indices": one.open_rows, "losses": np.ones(8)}),
    "sampler.weights": (sampler, lambda one: {"indices": one.open_rows}),
    "sampler.set_epoch": (sampler, lambda one: {"epoch": 3}),
    "sampler.deal": (sampler, lambda one: {"num_replicas": 1, "rank": 0}),
    "sampler.load_state_dict": (sampler, lambda one: {"state": one.state_dict()}),
    "conditioning.draw": (conditioning, lambda one: {"timesteps": np.arange(8), "paired": np.arange(8)}),
    "conditioning.observe": (conditioning, lambda one: {"losses": np.ones(8)}),
    "conditioning.load_state_dict": (conditioning, lambda one: {"state": one.state_dict()}),
    "mixture.observe": (mixture, lambda one: {"regions": one.open_rows, "losses": np.ones(8)}),
    "mixture.weights": (mixture, lambda one: {"regions": one.open_rows}),
    "mixture.load_state_dict": (mixture, lambda one: {"state": one.state_dict()}),
}


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=60)
@given(st.data())
def test_methods(name, data):
    make, arguments = METHODS[name]
    one = make()
    before = copy.deepcopy(one.state_dict())
    call = getattr(one, name.rpartition(".")[2])
    try:
        call(**spoilt(data, arguments(one)))
        return
    except (ValueError, RuntimeError):
        pass
    assert one.state_dict() == before
    call(**arguments(one))  # the right call still works


ITEMS_METHODS = {
    "items_of": {"region": 1},
    "regions_of": {"items": [0, 1]},
    "assign": {"embeddings": [[0.5]]},
}


@pytest.mark.parametrize("name", ITEMS_METHODS)
@settings(max_examples=60)
@given(st.data())
def test_partitions(name, data):
    pool = aria.Partition.from_labels([0, 1, 1], centers=[[0.0], [1.0]])
    with contextlib.suppress(ValueError):
        getattr(pool, name)(**spoilt(data, ITEMS_METHODS[name]))
    assert getattr(pool, name)(**ITEMS_METHODS[name]) is not None


PROFILE = {"timesteps": [0, 10, 49], "losses": [1.0, 2.0, 3.0]}


@pytest.mark.parametrize("name", ["update", "ratio", "control_variate"])
@settings(max_examples=60)
@given(st.data())
def test_profiles(name, data):
    profile = aria.TimestepProfile(50, n_bins=5)
    state = profile.update(profile.init(), **PROFILE)
    before = {key: array.copy() for key, array in state.items()}
    try:
        getattr(profile, name)(state, **spoilt(data, PROFILE))
        return
    except ValueError:
        pass
    assert all(np.array_equal(state[key], before[key]) for key in before)
