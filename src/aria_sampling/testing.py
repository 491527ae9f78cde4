"""Conformance checks for parts that you write: an estimator, a policy, a partitioner.

Each runs the part through what an `Allocator` will do to it, and raises AssertionError that names the promise which is
broken. Call them in your tests. The built-in parts pass them, too.

>>> import aria_sampling as aria
>>> from aria_sampling import testing
>>> testing.check_estimator(aria.Ema(rate=0.1))
>>> testing.check_policy(aria.Proportional(exponent=0.5))
>>> testing.check_partitioner(aria.KMeansPartitioner(n_regions=4))
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from aria_sampling._arrays import Arrays, FloatArray, State, decode_all, encode_all
from aria_sampling.allocator import Allocator
from aria_sampling.estimators import Estimate, Estimator, Feedback, borrowed
from aria_sampling.partition import Partition, Partitioner
from aria_sampling.policies import Policy

__all__ = ["check_estimator", "check_partitioner", "check_policy"]

_REGIONS = 7
_SUBSETS: tuple[list[int], ...] = ([2], [0, 3, 5], [1, 2, 3, 4, 5, 6], [])
_UNKNOWN = "a region never visited has mean NaN (the allocator lends it one)"
_FIELDS = ("mean", "stderr", "count", "age")
_REPR = "its repr names its settings and no address, since saved states are compared by it: make it a frozen dataclass"


# -- estimators --------------------------------------------------------------------------------------------


def check_estimator(estimator: Estimator) -> None:
    """Check an estimator: state by value, row by row, regions never visited, empty rounds, extreme losses, resuming.

    Raises:
        AssertionError: A promise of `Estimator` is broken; the message says which.
    """
    _require(isinstance(estimator, Estimator), f"{estimator!r} is an Estimator")  # pyright: ignore[reportUnnecessaryIsInstance]
    _require(" at 0x" not in repr(estimator), _REPR)
    state = estimator.init(_REGIONS)
    _check_state(state)
    _check_never_visited(_estimate(estimator, state), np.arange(_REGIONS))
    state = _round(estimator, state, [], [])
    _check_never_visited(_estimate(estimator, state), np.arange(_REGIONS))

    state = _round(estimator, state, [0, 0, 2], [1.0, 3.0, 5.0])
    one = _estimate(estimator, state)
    _check_never_visited(one, np.array([1, 3, 4, 5, 6]))
    visited = np.array([0, 2])
    _require((one.count[visited] > 0).all(), "a region that was visited has a positive count")
    _require(np.allclose(one.mean[visited], [2.0, 5.0]), "the first visit sets the mean")
    _require(
        np.isfinite([one.stderr[visited], one.age[visited]]).all(), "a region that was visited has a finite stderr"
    )
    later = _estimate(estimator, _round(estimator, state, [], []))
    _require(np.allclose(later.mean[visited], one.mean[visited]), "a round without a visit leaves the mean as it is")
    _require(np.allclose(later.age[visited], one.age[visited] + 1), "a round without a visit adds 1 to the age")
    zero = _estimate(estimator, _round(estimator, estimator.init(_REGIONS), [3, 3, 3], [0.0, 0.0, 0.0]))
    _require(zero.mean[3] == 0, "losses of 0 give a mean of 0")

    resumed = _saved(state)
    for losses in ([0.0, 0.0], [1.0, 2.0], [1e149, 2.0], [-1.0, 4.0]):
        state = _round(estimator, state, [0, 1], losses)
        resumed = _round(estimator, resumed, [0, 1], losses)
        _require(np.isfinite(_estimate(estimator, state).mean[:3]).all(), "finite losses give finite means")
    same = _same(state.rows, resumed.rows) and _same(state.shared, resumed.shared)
    _require(same, "a saved state continues bit for bit: all that was learnt is in it")
    _check_run(Allocator(_pool(), estimator=estimator, seed=1), Allocator(_pool(), estimator=estimator, seed=1))


def _round(estimator: Estimator, state: State, regions: list[int], losses: list[float]) -> State:
    """Return the state one round later, as an allocator makes it; check that `update` goes by value."""
    feedback = Feedback.from_rows(np.array(regions, np.int64), losses, n_regions=_REGIONS)
    rows, shared = {name: array[feedback.regions] for name, array in state.rows.items()}, _copy(state.shared)
    summed = {name: getattr(feedback, name) for name in ("regions", "count", "mean", "m2")}
    before = _copy(rows), _copy(shared), _copy(summed)
    result: Any = estimator.update(rows, shared, feedback)
    _require(_same(summed, before[2]), "update() does not change the feedback")
    _require(_same(rows, before[0]) and _same(shared, before[1]), "update() does not change the rows and shared arrays")
    _require(isinstance(result, tuple) and len(cast("tuple[Any, ...]", result)) == 2, "update() returns (rows, shared)")
    new_rows, new_shared = cast("tuple[Arrays, Arrays]", result)
    _check_form("rows", new_rows, before[0])
    _check_form("shared", new_shared, before[1])
    given = (*rows.values(), *shared.values(), *summed.values())
    fresh = not any(_shares_memory(array, State(new_rows, new_shared)) for array in given)
    _require(fresh, "update() returns new arrays, and none that it was given")
    again = estimator.update(_copy(before[0]), _copy(before[1]), feedback)
    same = _same(new_rows, again[0]) and _same(new_shared, again[1])
    _require(same, "update() twice on the same values gives the same bits: nothing is kept outside of the state")
    whole = _copy(state.rows)
    for name, array in whole.items():
        array[feedback.regions] = new_rows[name]
    return State(whole, _copy(new_shared))


def _estimate(estimator: Estimator, state: State) -> Estimate:
    """Return the estimate of all regions; check that it is made row by row and leaves the state alone."""
    before = State(_copy(state.rows), _copy(state.shared))
    whole = estimator.estimate(state)
    same = _same(state.rows, before.rows) and _same(state.shared, before.shared)
    _require(same, "estimate() does not change the state")
    for name in _FIELDS:
        value = getattr(whole, name)
        _require(_is_float(value, (_REGIONS,)), f"Estimate.{name} is float64 [n_regions]")
        _require(not _shares_memory(value, state), f"Estimate.{name} shares no memory with the state")
    _require(np.isnan(whole.mean[whole.count == 0]).all(), _UNKNOWN)
    for subset in _SUBSETS:
        part = estimator.estimate(_part(state, subset))
        same = all(_equal(getattr(part, name), getattr(whole, name)[subset]) for name in _FIELDS)
        _require(same, "estimate() goes row by row: some rows give the same bits as all rows")
    return whole


def _check_never_visited(estimate: Estimate, regions: Any) -> None:
    """Check the conventions for regions never visited."""
    _require((estimate.count[regions] == 0).all(), "a region never visited has count 0")
    _require(np.isnan(estimate.mean[regions]).all(), _UNKNOWN)
    infinite = np.isposinf(estimate.stderr[regions]) & np.isposinf(estimate.age[regions])
    _require(infinite.all(), "a region never visited has an infinite stderr and age")


# -- policies ----------------------------------------------------------------------------------------------


def check_policy(policy: Policy) -> None:
    """Check a policy: state by value, shape, extremes, resuming, and that it steers an allocator.

    Where ``local = True``: that a score depends on the estimate of its own region alone.

    Raises:
        AssertionError: A promise of `Policy` is broken; the message says which.
    """
    _require(isinstance(policy, Policy), f"{policy!r} is a Policy")  # pyright: ignore[reportUnnecessaryIsInstance]
    _require(" at 0x" not in repr(policy), _REPR)
    state = policy.init(_REGIONS)
    _check_state(state)
    if policy.local:
        _require(not state.rows, "a local policy has no rows in its state")
    else:
        _log_score(policy, state)
    for estimate in _estimates():
        if policy.local:
            _local_log_score(policy, state.shared, estimate)
        else:
            state = _policy_update(policy, state, estimate)
            scores = _log_score(policy, state)
            _require(_equal(scores, _log_score(policy, _saved(state))), "a saved state continues bit for bit")
    settings: dict[str, Any] = {} if policy.baseline else {"exploration": 0.2}
    _check_run(*(Allocator(_pool(), policy=policy, seed=1, **settings) for _ in range(2)))


def _estimates() -> list[Estimate]:
    """Return estimates to try a policy on. Region 0 was never visited: its mean is borrowed."""
    unknown = np.where(np.arange(_REGIONS) == 0, np.inf, 1.0)
    means = [
        np.ones(_REGIONS),
        np.arange(_REGIONS, dtype=np.float64),
        np.zeros(_REGIONS),
        np.geomspace(1e-150, 1e150, _REGIONS).astype(np.float64),
    ]
    return [Estimate(mean, unknown.copy(), np.arange(_REGIONS, dtype=np.float64), unknown.copy()) for mean in means]


def _policy_update(policy: Policy, state: State, estimate: Estimate) -> State:
    """Return the state after an estimate; check that `update` goes by value."""
    before, given = State(_copy(state.rows), _copy(state.shared)), _fields(estimate)
    believed = _copy(given)
    new = policy.update(state, estimate)
    _require(_same(given, believed), "update() does not change the estimate")
    same = _same(state.rows, before.rows) and _same(state.shared, before.shared)
    _require(same, "update() does not change the state it is given, but returns another")
    _require(isinstance(new, State), "update() returns a State")  # pyright: ignore[reportUnnecessaryIsInstance]
    _check_form("rows", new.rows, before.rows)
    _check_form("shared", new.shared, before.shared)
    given = (*given.values(), *state.rows.values(), *state.shared.values())
    fresh = new is state or not any(_shares_memory(array, new) for array in given)
    _require(fresh, "update() returns new arrays, and none that it was given; or the very state, if nothing changes")
    again = policy.update(State(before.rows, before.shared), estimate)
    same = _same(new.rows, again.rows) and _same(new.shared, again.shared)
    _require(same, "update() twice on the same values gives the same bits: nothing is kept outside of the state")
    return new


def _log_score(policy: Policy, state: State) -> FloatArray:
    """Return the scores of all regions under a policy that is not local, checked."""
    before = State(_copy(state.rows), _copy(state.shared))
    scores = policy.log_score(state)
    same = _same(state.rows, before.rows) and _same(state.shared, before.shared)
    _require(same, "log_score() does not change the state")
    _check_scores(scores, _REGIONS)
    _require(not _shares_memory(scores, state), "log_score() shares no memory with the state")
    _require(_equal(scores, policy.log_score(before)), "log_score() twice on the same values gives the same bits")
    return scores


def _local_log_score(policy: Policy, shared: dict[str, FloatArray], estimate: Estimate) -> None:
    """Check the scores of a local policy: of all regions, and of some."""
    given, kept = _fields(estimate), _copy(shared)
    believed = _copy(given)
    scores = policy.log_score(estimate, shared)
    _require(_same(given, believed) and _same(shared, kept), "log_score() does not change its arguments")
    _check_scores(scores, _REGIONS)
    _require(
        not any(np.shares_memory(scores, a) for a in given.values()), "log_score() shares no memory with the estimate"
    )
    for subset in _SUBSETS:
        some = policy.log_score(Estimate(**{name: array[subset] for name, array in given.items()}), shared)
        _check_scores(some, len(subset))
        own = "with local = True, a score depends on its own row only: some rows give the same bits as all rows"
        _require(_equal(some, scores[subset]), own)


def _check_scores(scores: Any, n: int) -> None:
    _require(_is_float(scores, (n,)), "log_score() is float64, one number a region")
    _require((scores < np.inf).all(), "log_score() is neither NaN nor +inf")


# -- partitioners ------------------------------------------------------------------------------------------


def check_partitioner(partitioner: Partitioner) -> None:
    """Check a partitioner: the same `Partition` every time, of embeddings of every kind, and errors for bad ones.

    Raises:
        AssertionError: Items without a region, two fits that differ, changed inputs, embeddings or names that are taken
            for others or not refused, or an `assign` that does not put the pool's own embeddings where they are.
    """
    _require(isinstance(partitioner, Partitioner), f"{partitioner!r} is a Partitioner")  # pyright: ignore[reportUnnecessaryIsInstance]
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(400, 5)) + 8 * rng.normal(size=(8, 5))[rng.integers(8, size=400)]
    embeddings = embeddings.astype(np.float16).astype(np.float64)  # the same numbers in every precision
    given = embeddings.copy()
    partition = _fitted(partitioner, embeddings)
    _require((given == embeddings).all(), "fit() does not change the embeddings")
    _require(partition.n_items == len(embeddings), "every item has a region")
    _require(partition == _fitted(partitioner, embeddings), "two fits on the same embeddings are equal")
    for dtype in (np.float32, np.float16):
        other = embeddings.astype(dtype)
        other.flags.writeable = False
        same = _fitted(partitioner, other) == partition
        _require(same, f"the same embeddings in {dtype.__name__} that cannot be written to make the same partition")
    for container, what in ((embeddings.tolist(), "a list"), (_Store(embeddings), "an object with slices")):
        _require(_fitted(partitioner, container) == partition, f"the same embeddings in {what} make the same partition")
    if partition.centers is not None:
        same = partition.assign(embeddings) == partition.labels
        _require(same.all(), "assign() puts the pool's own embeddings in their regions")
    _check_names(partitioner, embeddings, partition)
    bad = embeddings.copy()
    bad[7, 2] = np.nan
    none: list[list[float]] = []
    for wrong, what in ((bad, "a NaN"), (bad[:, 0], "one number an item, in one dimension"), (none, "no items")):
        _require(_refuses(partitioner, wrong), f"fit() refuses embeddings with a ValueError: here {what}")


def _fitted(partitioner: Partitioner, embeddings: Any, names: Any = None) -> Partition:
    """Return what `fit` returns, which is a partition."""
    found: Any = partitioner.fit(embeddings) if names is None else partitioner.fit(embeddings, names=names)
    _require(isinstance(found, Partition), "fit() returns a Partition")
    return cast("Partition", found)


def _check_names(partitioner: Partitioner, embeddings: FloatArray, partition: Partition) -> None:
    """Check that names are taken, or refused by their name; and that others than one a region are refused."""
    names = [f"region {region}" for region in range(partition.n_regions)]
    try:
        named = _fitted(partitioner, embeddings, names)
    except ValueError as error:
        _require("names" in str(error), "names that are refused are named in the error")
    else:
        _require(named == partition and named.names == tuple(names), "names= gives the regions their names, no more")
    _require(_refuses(partitioner, embeddings, names[:-1]), "fit() refuses fewer names than regions with a ValueError")


def _refuses(partitioner: Partitioner, embeddings: Any, names: Any = None) -> bool:
    """Return whether `fit` raises a ValueError."""
    try:
        _fitted(partitioner, embeddings, names)
    except ValueError:
        return True
    return False


class _Store:
    """Embeddings of which slices and sorted rows can be read, and nothing else."""

    def __init__(self, values: FloatArray) -> None:
        self._values = values
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: Any) -> FloatArray:
        sliced = isinstance(rows, slice | np.ndarray)
        _require(sliced, "fit() reads slices and arrays of row numbers of an object that holds rows")
        return self._values[rows]


# -- what they share ---------------------------------------------------------------------------------------


def _pool() -> Partition:
    return Partition.from_labels([0, 0, 0, 1, 1, 2])


def _check_run(one: Allocator, other: Allocator) -> None:
    """Check that an allocator with the part runs, keeps to its exploration, and continues from a saved state."""
    for step in range(50):
        if step == 30:
            other.load_state_dict(one.state_dict())
        for allocator in (one, other) if step >= 30 else (one,):
            draw = allocator.draw(4)
            allocator.observe(draw.regions, 1.0 + draw.regions * (step % 3))
            allocator.step()
        p = one.probabilities
        explored = 1.0 if one.policy.baseline else 0.2
        _require(np.isclose(p.sum(), 1) and (p >= explored * one.target - 1e-12).all(), "p keeps to the exploration")
    _require(_equal(one.probabilities, other.probabilities), "an allocator continues from its state bit for bit")
    _require(_same(_fields(borrowed(one.estimate())), _fields(borrowed(other.estimate()))), "so does its estimate")


def _check_state(state: Any) -> None:
    """Check what `init` returns."""
    _require(isinstance(state, State), "init() returns a State")
    for where in ("rows", "shared"):
        arrays = getattr(state, where)
        _require(isinstance(arrays, dict), f"State.{where} is a dictionary")
        for name, array in cast("dict[str, Any]", arrays).items():
            kind = f"{type(array).__name__}.{getattr(array, 'dtype', None)}"
            _require(kind == "ndarray.float64", f"State.{where}[{name!r}] is a float64 array, not {kind}")
            _require(np.isfinite(array).all(), f"State.{where}[{name!r}] is finite")
    for name, array in state.rows.items():
        _require(array.shape[:1] == (_REGIONS,), f"State.rows[{name!r}] has a row for each region")


def _check_form(where: str, arrays: Arrays, before: Arrays) -> None:
    """Check that arrays have the names, shapes and dtypes that they had before, and are finite."""
    same = isinstance(arrays, dict) and set(arrays) == set(before)  # pyright: ignore[reportUnnecessaryIsInstance]
    _require(same, f"update() returns the {where} that it was given, by name, and no others")
    for name, old in before.items():
        _require(_is_float(arrays[name], old.shape), f"update() returns {where}[{name!r}] as float64{list(old.shape)}")
        _require(np.isfinite(arrays[name]).all(), f"update() returns {where}[{name!r}] with finite numbers")


def _saved(state: State) -> State:
    """Return `state` after it was saved and loaded."""
    rows, shared = encode_all(state.rows), encode_all(state.shared)
    return State(decode_all("rows", rows, state.rows), decode_all("shared", shared, state.shared))


def _part(state: State, regions: list[int]) -> State:
    """Return the state of some regions."""
    return State({name: array[regions] for name, array in state.rows.items()}, _copy(state.shared))


def _fields(estimate: Estimate) -> dict[str, FloatArray]:
    return {name: getattr(estimate, name) for name in _FIELDS}


def _copy(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _is_float(value: Any, shape: tuple[int, ...]) -> bool:
    kind = (type(value).__name__, getattr(value, "dtype", None), getattr(value, "shape", None))
    return kind == ("ndarray", np.dtype(np.float64), shape)


def _equal(one: FloatArray, other: FloatArray) -> bool:
    return np.array_equal(one, other, equal_nan=True)


def _same(one: Arrays, other: Arrays) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


def _shares_memory(array: FloatArray, state: State) -> bool:
    return any(np.shares_memory(array, own) for own in (*state.rows.values(), *state.shared.values()))


def _require(holds: bool | np.bool_, promise: str) -> None:
    if not holds:
        raise AssertionError(f"broken promise: {promise}")
