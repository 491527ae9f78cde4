"""Conformance checks for parts that you write: an estimator, a policy, a partitioner.

Each runs the part through what an `Allocator` will do to it and raises AssertionError, saying which promise
is broken. Call them in your tests; the built-in parts pass them too.

>>> import aria_sampling as aria
>>> from aria_sampling import checks
>>> checks.check_estimator(aria.Ema(rate=0.1))
>>> checks.check_policy(aria.Proportional(exponent=0.5))
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from aria_sampling._state import decode_all, encode_all
from aria_sampling._typing import State
from aria_sampling.allocation import Policy
from aria_sampling.allocator import Allocator
from aria_sampling.estimation import Estimate, Estimator, Feedback
from aria_sampling.partition import Partition

__all__ = ["check_estimator", "check_partitioner", "check_policy"]

_REGIONS = 7
_REPR = "its repr names its settings and no address, since saved states are compared by it: make it a frozen dataclass"
_FIELDS = ("mean", "stderr", "count", "age")


def check_estimator(estimator: Estimator) -> None:
    """Check an estimator: state, cold regions, order of rows, outliers, scale, resuming.

    Raises:
        AssertionError: A promise of `Estimator` is broken; the message says which.
    """
    _require(Estimator in type(estimator).__mro__, f"{estimator!r} is not an Estimator")
    _require(" at 0x" not in repr(estimator), _REPR)
    state = estimator.init(_REGIONS)
    _check_state("init", state)
    cold = estimator.estimate(state)
    _require(bool((cold.count == 0).all()), "before any feedback every count is 0")
    _require(bool(np.isnan(cold.mean).all()), "before any feedback every mean is NaN")
    state = estimator.update(state, _feedback([], []))
    _require(bool((estimator.estimate(state).count == 0).all()), "an empty round leaves every count at 0")
    feedback = _feedback([0, 0, 2], [1.0, 3.0, 5.0])
    given, form = (
        (feedback.regions.copy(), feedback.count.copy(), feedback.mean.copy(), feedback.m2.copy()),
        _form(state),
    )
    state = estimator.update(state, feedback)
    same = zip(given, (feedback.regions, feedback.count, feedback.mean, feedback.m2), strict=True)
    _require(all(np.array_equal(a, b) for a, b in same), "update() does not change the feedback")
    _require(_form(state) == form, "the names, shapes and dtypes of the state never change")
    before = _copy(state)
    one = estimator.estimate(state)
    _require(
        all(np.array_equal(state[k], before[k], equal_nan=True) for k in state), "estimate() does not change the state"
    )
    for name in _FIELDS:
        value = getattr(one, name)
        _require(value.shape == (_REGIONS,) and value.dtype == np.float64, f"Estimate.{name} is float64 [n_regions]")
        shared = any(np.shares_memory(value, array) for array in state.values())
        _require(not shared, f"Estimate.{name} shares no memory with the state")
    _require(bool((one.count[[0, 2]] > 0).all() and (one.count[[1, 3]] == 0).all()), "count is positive where visited")
    _require(bool(np.isfinite(one.mean).all()), "a cold region borrows a finite mean once others are known")
    _require(bool(np.isinf(one.stderr[1]) and np.isinf(one.age[1])), "a cold region has infinite stderr and age")
    _require(np.isclose(one.mean[0], 2) and np.isclose(one.mean[2], 5), "the first visit sets the mean")
    zero = estimator.estimate(estimator.update(estimator.init(_REGIONS), _feedback([3, 3, 3], [0.0, 0.0, 0.0])))
    _require(bool((zero.mean == 0).all()), "losses of 0 give a mean of 0")
    aged = estimator.estimate(estimator.update(_copy(state), _feedback([], [])))
    _require(np.isclose(aged.age[0], one.age[0] + 1), "a round without a visit ages a region by 1")
    _require(np.isclose(aged.mean[0], one.mean[0]), "a round without a visit leaves the mean as it is")
    resumed = decode_all("state", encode_all(state), state)
    for current in (state, resumed):
        for losses in ([0.0, 0.0], [1.0, 2.0], [1e149, 2.0], [-1.0, 4.0]):
            current.update(estimator.update(current, _feedback([0, 1], losses)))
            mean = estimator.estimate(current).mean
            _require(bool(np.isfinite(mean).all()), "no finite losses make the mean infinite or NaN")
    _require_equal(estimator.estimate(state), estimator.estimate(resumed), "a saved state continues bit for bit")


def check_policy(policy: Policy) -> None:
    """Check a policy: state, shape, extremes, resuming, and that it steers an allocator within its floor.

    Raises:
        AssertionError: A promise of `Policy` is broken; the message says which.
    """
    _require(Policy in type(policy).__mro__, f"{policy!r} is not a Policy")
    _require(" at 0x" not in repr(policy), _REPR)
    state = policy.init(_REGIONS)
    _check_state("init", state)
    start, form = policy.log_phi(state), _form(state)
    _require(start.shape == (_REGIONS,) and start.dtype == np.float64, "log_phi is float64 [n_regions]")
    ramp, ones = np.arange(_REGIONS, dtype=np.float64), np.ones(_REGIONS)
    extremes = np.geomspace(1e-150, 1e150, _REGIONS).astype(np.float64)
    for mean in (ones, ramp, np.zeros(_REGIONS), extremes):
        given = Estimate(mean=mean, stderr=ones, count=ramp, age=ones)
        estimate = Estimate(*(getattr(given, name).copy() for name in _FIELDS))
        state = policy.update(state, estimate)
        _require(_form(state) == form, "the names, shapes and dtypes of the state never change")
        log_phi = policy.log_phi(state)
        _require_equal(given, estimate, "update() does not change the estimate")
        _require(bool((log_phi < np.inf).all()), "log φ is neither NaN nor +inf")
        shared = any(np.shares_memory(getattr(estimate, name), array) for name in _FIELDS for array in state.values())
        _require(not shared, "the state keeps no memory of the estimate")
    log_phi[:] = -1e9
    _require(bool((policy.log_phi(state) != -1e9).any()), "log_phi shares no memory with the state")
    resumed = decode_all("state", encode_all(state), state)
    _require(bool((policy.log_phi(resumed) == policy.log_phi(state)).all()), "a saved state continues bit for bit")
    allocator = Allocator(Partition.from_labels([0, 0, 0, 1, 1, 2]), policy=policy, floor=0.2, seed=1)
    for step in range(50):
        draw = allocator.draw(4)
        allocator.observe(draw.regions, 1.0 + draw.regions * (step % 3))
        allocator.step()
        p = allocator.probabilities
        _require(bool(np.isclose(p.sum(), 1) and (p >= 0.2 * allocator.target - 1e-15).all()), "p keeps to the floor")


def check_partitioner(partitioner: Any) -> None:
    """Check a partitioner, an object whose ``fit(embeddings)`` returns a `Partition`.

    Raises:
        AssertionError: Items without a region, two fits that differ, changed inputs, or an `assign` that
            does not put the pool's own embeddings where they are.
    """
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 5)) + 8 * rng.normal(size=(8, 5))[rng.integers(8, size=400)]
    given = embeddings.copy()
    partition = partitioner.fit(embeddings)
    _require(isinstance(partition, Partition), "fit() returns a Partition")
    _require(bool((given == embeddings).all()), "fit() does not change the embeddings")
    _require(partition.n_items == len(embeddings), "every item has a region")
    _require(partition == partitioner.fit(embeddings), "two fits on the same embeddings are equal")
    if partition.centers is not None:
        same = partition.assign(embeddings) == partition.labels
        _require(bool(same.all()), "assign() puts the pool's own embeddings in their regions")


def _require(holds: bool | np.bool_, promise: str) -> None:
    if not holds:
        raise AssertionError(f"broken promise: {promise}")


def _require_equal(one: Estimate, other: Estimate, promise: str) -> None:
    for name in _FIELDS:
        _require(bool(np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)), promise)


def _feedback(regions: list[int], losses: list[float]) -> Feedback:
    return Feedback.from_rows(np.array(regions, np.int64), losses, n_regions=_REGIONS)


def _check_state(what: str, state: Any) -> None:
    _require(isinstance(state, dict), f"{what} returns a dictionary")
    for name, array in cast("dict[str, Any]", state).items():
        kind = f"{type(array).__name__}.{getattr(array, 'dtype', None)}"
        _require(kind in ("ndarray.float64", "ndarray.int64"), f"state entry {name!r} is float64 or int64, not {kind}")


def _form(state: State) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in state.items()}


def _copy(state: State) -> State:
    return {name: array.copy() for name, array in state.items()}
