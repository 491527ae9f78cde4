"""`aria_sampling.testing`: the built-in parts pass, and each way to break a promise is caught by its name."""

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import testing
from aria_sampling.estimators import borrowed

# -- what passes -------------------------------------------------------------------------------------------

ESTIMATORS = [
    aria.Ema(), aria.Ema(rate=1.0), aria.Ema(rate=1e-6), aria.Ema(per="visit"), aria.Ema(rate=1.0, per="visit"),
    aria.EmaBank(), aria.EmaBank(half_lives=(0.1,)), aria.EmaBank(discount=1.0, clip=1e-6),
]  # fmt: skip
POLICIES = [
    aria.Proportional(), aria.Proportional(0.0), aria.Proportional(5.0), aria.GroupDRO(),
    aria.GroupDRO(step_size=2.0, scale=0.1, reference=0.5), aria.Reducible(),
    aria.Reducible(reference=0.5, least=0.0), aria.PoolPolicy(), aria.UniformPolicy(),
]  # fmt: skip


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_estimators_conform(estimator):
    testing.check_estimator(estimator)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_policies_conform(policy):
    testing.check_policy(policy)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_regions": 1},
        {"n_regions": 8},
        {"n_regions": 40, "seed": 3},
        {"n_regions": 8, "spherical": True},
        {"n_regions": 3, "max_size": 70},
        {"n_regions": 90, "points_per_region": 3, "max_iter": 2},
    ],
)
def test_k_means_conforms(settings):
    testing.check_partitioner(aria.KMeansPartitioner(**settings))


class BySign(aria.Partitioner):
    """A partitioner without centres: one region for each pattern of signs."""

    def fit(self, embeddings, *, names=None):
        return aria.Partition.from_labels(self.labels(self.checked(embeddings)), names=names)

    def labels(self, embeddings):
        return (embeddings[:, 0] > 0) + 2 * (embeddings[:, 1] > 0)


def test_a_partitioner_without_centers_conforms():
    testing.check_partitioner(BySign())


# -- broken estimators -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base(aria.Ema):
    """`Ema` to break in one way each."""

    rate: float = 0.1


def changed(state, **rows):
    """`state` with other rows."""
    return aria.State({**state.rows, **rows}, state.shared)


class CountsReads(Base):
    def estimate(self, state):
        state.rows["average"] *= 1.01
        return super().estimate(state)


class LendsItsRows(Base):
    def estimate(self, state):
        return replace(super().estimate(state), count=state.rows["average"][:, 5])


class Borrows(Base):
    def estimate(self, state):
        return borrowed(super().estimate(state))


class Pools(Base):
    """Shrinks every mean to that of all regions."""

    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=estimate.mean * 0.9 + 0.1 * np.nansum(estimate.mean))


class KnowsBefore(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=np.nan_to_num(estimate.mean, nan=1.0))


class FadesOnAMiss(Base):
    """Each mean falls with the age of what is behind it."""

    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=estimate.mean * 0.9**estimate.age)


class StartsFromZero(Base):
    """No bias correction: the first visit moves the mean by `rate` only."""

    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=estimate.mean * state.rows["average"][:, 1])


class NeverAges(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, age=np.where(estimate.cold, np.inf, 0.0))


class SureOfTheUnknown(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, stderr=np.nan_to_num(estimate.stderr, posinf=0.0))


class CountsTheUnknown(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, count=estimate.count + 1)


class ForgetsItsVisits(Base):
    def estimate(self, state):
        unknown = np.full(len(state.rows["average"]), np.inf)
        return aria.Estimate(unknown * np.nan, unknown, 0 / unknown, unknown)


class InfiniteStderr(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, stderr=np.full(len(estimate.mean), np.inf))


class WrongShape(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, stderr=estimate.stderr[:, None])


class WrongDtype(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=estimate.mean.astype(np.float32))


class ListState(Base):
    def init(self, n_regions):
        return changed(super().init(n_regions), history=[])


class Float32State(Base):
    def init(self, n_regions):
        return changed(super().init(n_regions), total=np.zeros(n_regions, np.float32))


class NanState(Base):
    def init(self, n_regions):
        return changed(super().init(n_regions), mean=np.full(n_regions, np.nan))


class NotARowEach(Base):
    def init(self, n_regions):
        return changed(super().init(n_regions), both=np.zeros((2, n_regions)))


class NoState(Base):
    def init(self, n_regions):
        return {"average": np.zeros((n_regions, 6))}


class ListOfRows(Base):
    def init(self, n_regions):
        return aria.State([np.zeros(n_regions)], {})


class InPlace(Base):
    def update(self, rows, shared, feedback):
        rows["average"][:, 5] += feedback.count
        return super().update(rows, shared, feedback)


class ClockInPlace(Base):
    def update(self, rows, shared, feedback):
        shared["clock"] += 1
        return super().update(rows, shared, feedback)


class OneValue(Base):
    def update(self, rows, shared, feedback):
        return super().update(rows, shared, feedback)[0]


class GrowsState(Base):
    def update(self, rows, shared, feedback):
        rows, shared = super().update(rows, shared, feedback)
        return {**rows, "history": feedback.mean}, shared


class ForgetsShared(Base):
    def update(self, rows, shared, feedback):
        return super().update(rows, shared, feedback)[0], {}


class GrowsRows(Base):
    def update(self, rows, shared, feedback):
        rows, shared = super().update(rows, shared, feedback)
        return {"average": np.hstack([rows["average"], rows["average"]])}, shared


class IntegerClock(Base):
    def update(self, rows, shared, feedback):
        rows, shared = super().update(rows, shared, feedback)
        return rows, {**shared, "clock": shared["clock"].astype(np.int64)}


class KeepsFeedback(Base):
    def init(self, n_regions):
        return changed(super().init(n_regions), last=np.zeros(n_regions))

    def update(self, rows, shared, feedback):
        new, shared = super().update(rows, shared, feedback)
        return {**new, "last": feedback.mean}, shared


class SameClock(Base):
    def update(self, rows, shared, feedback):
        rows, new = super().update(rows, shared, feedback)
        return rows, {**new, "clock": shared["clock"]}


class ChangesFeedback(Base):
    def update(self, rows, shared, feedback):
        result = super().update(rows, shared, feedback)
        feedback.mean[:] = 0
        return result


class NeedsRows(Base):
    def update(self, rows, shared, feedback):
        rows, shared = super().update(rows, shared, feedback)
        return rows, {**shared, "cv2": shared["cv2"] + feedback.mean.mean()}


class KeepsMemoryOutside(Base):
    """What it learns is in the object, so that no checkpoint has it."""

    seen: ClassVar[list] = []

    def update(self, rows, shared, feedback):
        self.seen.append(1)
        rows, shared = super().update(rows, shared, feedback)
        return {"average": rows["average"] * (1 + 1e-9 * len(self.seen))}, shared


class NanFromZero(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=np.where(estimate.mean < 1e-3, np.nan, estimate.mean))


class Overflows(Base):
    def update(self, rows, shared, feedback):
        rows, shared = super().update(rows, shared, feedback)
        return {"average": rows["average"] + 0 * feedback.mean.sum() ** 4}, shared


class Address(Base):
    __repr__ = object.__repr__


class NotAnEstimator:
    def init(self, n_regions):
        return aria.State({}, {})


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (CountsReads, r"estimate\(\) does not change the state"),
        (LendsItsRows, "Estimate.count shares no memory"),
        (Borrows, "never visited has mean NaN"),
        (Pools, "row by row"),
        (KnowsBefore, "never visited has mean NaN"),
        (FadesOnAMiss, "without a visit leaves the mean as it is"),
        (StartsFromZero, "the first visit sets the mean"),
        (NeverAges, "adds 1 to the age"),
        (SureOfTheUnknown, "infinite stderr"),
        (CountsTheUnknown, "never visited has count 0"),
        (ForgetsItsVisits, "was visited has a positive count"),
        (InfiniteStderr, "was visited has a finite stderr"),
        (WrongShape, r"Estimate.stderr is float64 \[n_regions\]"),
        (WrongDtype, r"Estimate.mean is float64 \[n_regions\]"),
        (ListState, r"State.rows\['history'\] is a float64 array, not list"),
        (Float32State, r"State.rows\['total'\] is a float64 array, not ndarray.float32"),
        (NanState, r"State.rows\['mean'\] is finite"),
        (NotARowEach, r"State.rows\['both'\] has a row for each region"),
        (NoState, r"init\(\) returns a State"),
        (ListOfRows, "State.rows is a dictionary"),
        (InPlace, r"update\(\) does not change the rows and shared arrays"),
        (ClockInPlace, r"update\(\) does not change the rows and shared arrays"),
        (OneValue, r"update\(\) returns \(rows, shared\)"),
        (GrowsState, "returns the rows that it was given, by name"),
        (ForgetsShared, "returns the shared that it was given, by name"),
        (GrowsRows, r"returns rows\['average'\] as float64\[0, 6\]"),
        (IntegerClock, r"returns shared\['clock'\] as float64\[1\]"),
        (KeepsFeedback, "returns new arrays, and none that it was given"),
        (SameClock, "returns new arrays, and none that it was given"),
        (ChangesFeedback, r"update\(\) does not change the feedback"),
        (NeedsRows, r"returns shared\['cv2'\] with finite numbers"),
        (KeepsMemoryOutside, "nothing is kept outside of the state"),
        (NanFromZero, "losses of 0"),
        (Overflows, "with finite numbers"),
        (Address, "no address"),
        (NotAnEstimator, "is an Estimator"),
    ],
)
def test_broken_estimators_are_caught(broken, promise):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some warn, as they should
        with pytest.raises(AssertionError, match=promise):
            testing.check_estimator(broken())


# -- broken policies ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BasePolicy(aria.GroupDRO):
    """`GroupDRO` to break in one way each."""


class ChangesTheMean(BasePolicy):
    def update(self, state, estimate):
        state = super().update(state, estimate)
        estimate.mean[:] /= 2
        return state


class ChangesTheAge(BasePolicy):
    def update(self, state, estimate):
        estimate.age[:] = 0
        return super().update(state, estimate)


class ChangesItsState(BasePolicy):
    def update(self, state, estimate):
        state.rows["log_score"] += 0.01 * estimate.mean / estimate.mean.max(initial=1)
        return state


class LendsItsState(BasePolicy):
    def log_score(self, state):
        return state.rows["log_score"]


class ScoresInPlace(BasePolicy):
    def log_score(self, state):
        state.rows["log_score"] -= 1
        return state.rows["log_score"].copy()


class LogOfNegative(BasePolicy):
    def log_score(self, state):
        return state.rows["log_score"] * np.nan


class PlusInfinity(BasePolicy):
    def log_score(self, state):
        return np.where(state.rows["log_score"] == 0, np.inf, state.rows["log_score"])


class ScalarScore(BasePolicy):
    def log_score(self, state):
        return np.array(0.0)


class ScoreNotLog(BasePolicy):
    """Integer shares in place of logarithms."""

    def log_score(self, state):
        return np.arange(len(state.rows["log_score"]))


class RandomPolicy(BasePolicy):
    rng: ClassVar = np.random.default_rng(0)

    def log_score(self, state):
        return state.rows["log_score"] + self.rng.random(len(state.rows["log_score"]))


class RandomUpdate(BasePolicy):
    rng: ClassVar = np.random.default_rng(0)

    def update(self, state, estimate):
        return changed(state, log_score=state.rows["log_score"] + self.rng.random(len(estimate.mean)))


class TupleState(BasePolicy):
    def init(self, n_regions):
        return aria.State(super().init(n_regions).rows, {"clock": (0,)})


class InfiniteState(BasePolicy):
    def update(self, state, estimate):
        with np.errstate(divide="ignore"):
            return changed(state, log_score=np.log(estimate.mean))


class GrowingPolicy(BasePolicy):
    def update(self, state, estimate):
        return changed(super().update(state, estimate), **{f"mean {len(state.rows)}": estimate.mean.copy()})


class NotAState(BasePolicy):
    def update(self, state, estimate):
        return super().update(state, estimate).rows


class Shifts(BasePolicy):
    """Hands an array on under another name."""

    def init(self, n_regions):
        return changed(super().init(n_regions), before=np.zeros(n_regions))

    def update(self, state, estimate):
        return changed(super().update(state, estimate), before=state.rows["log_score"])


class KeepsTheEstimate(BasePolicy):
    """Its state is the caller's array."""

    def update(self, state, estimate):
        return changed(state, log_score=estimate.mean)

    def log_score(self, state):
        return -state.rows["log_score"] / 1e150


@dataclass(frozen=True)
class BaseLocal(aria.Proportional):
    """`Proportional` to break in one way each."""


class Normalises(BaseLocal):
    """Not local: a share of all regions' mean."""

    def log_score(self, estimate, shared):
        return super().log_score(estimate, shared) - np.log(estimate.mean.sum() + 1)


class LocalWithRows(BaseLocal):
    def init(self, n_regions):
        return aria.State({"score": np.zeros(n_regions)}, {})


class LocalInPlace(BaseLocal):
    def log_score(self, estimate, shared):
        estimate.mean[:] = np.maximum(estimate.mean, 1e-12)
        return super().log_score(estimate, shared)


class LocalClock(BaseLocal):
    def init(self, n_regions):
        return aria.State({}, {"clock": np.zeros(1)})

    def log_score(self, estimate, shared):
        shared["clock"] += 1
        return super().log_score(estimate, shared)


class LocalLoan(BaseLocal):
    def log_score(self, estimate, shared):
        return estimate.mean


class LocalOverflow(BaseLocal):
    def log_score(self, estimate, shared):
        return estimate.mean / (estimate.mean - estimate.mean)


class LocalColumn(BaseLocal):
    def log_score(self, estimate, shared):
        return super().log_score(estimate, shared)[:, None]


class NotAPolicy:
    pass


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ChangesTheMean, r"update\(\) does not change the estimate"),
        (ChangesTheAge, r"update\(\) does not change the estimate"),
        (ChangesItsState, r"update\(\) does not change the state"),
        (LendsItsState, "shares no memory with the state"),
        (ScoresInPlace, r"log_score\(\) does not change the state"),
        (LogOfNegative, "neither NaN"),
        (PlusInfinity, "neither NaN nor"),
        (ScalarScore, "float64, one number a region"),
        (ScoreNotLog, "float64, one number a region"),
        (RandomPolicy, "gives the same bits"),
        (RandomUpdate, "nothing is kept outside"),
        (TupleState, r"State.shared\['clock'\] is a float64 array, not tuple"),
        (InfiniteState, r"rows\['log_score'\] with finite numbers"),
        (GrowingPolicy, "returns the rows that it was given, by name"),
        (NotAState, r"update\(\) returns a State"),
        (KeepsTheEstimate, "returns new arrays, and none that it was given"),
        (Shifts, "returns new arrays, and none that it was given"),
        (Normalises, "depends on its own row only"),
        (LocalWithRows, "a local policy has no rows"),
        (LocalInPlace, r"log_score\(\) does not change its arguments"),
        (LocalClock, r"log_score\(\) does not change its arguments"),
        (LocalLoan, "shares no memory with the estimate"),
        (LocalOverflow, "neither NaN nor"),
        (LocalColumn, "float64, one number a region"),
        (NotAPolicy, "is a Policy"),
    ],
)
def test_broken_policies_are_caught(broken, promise):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(AssertionError, match=promise):
            testing.check_policy(broken())


# -- broken partitioners -----------------------------------------------------------------------------------


class RandomFit(BySign):
    rng = np.random.default_rng(0)

    def labels(self, embeddings):
        return self.rng.permutation(super().labels(embeddings))


class DropsItems(BySign):
    def fit(self, embeddings, *, names=None):
        return aria.Partition.from_labels(self.labels(embeddings)[:-1])


class ScalesItsInput(BySign):
    def fit(self, embeddings, *, names=None):
        embeddings /= np.abs(embeddings).max()
        return super().fit(embeddings)


class ReturnsLabels(BySign):
    def fit(self, embeddings, *, names=None):
        return self.labels(embeddings)


class WrongCenters(BySign):
    def fit(self, embeddings, *, names=None):
        embeddings = self.checked(embeddings)
        labels = self.labels(embeddings)
        centers = np.stack([embeddings[labels == k].mean(axis=0, dtype=float) for k in range(4)])
        return aria.Partition.from_labels(labels, centers=centers[::-1])


class RoundsWhatIsPrecise(BySign):
    def labels(self, embeddings):
        return super().labels(embeddings if embeddings.dtype == np.float64 else embeddings - 1)


class WritesToWhatItChecked(BySign):
    def labels(self, embeddings):
        if not embeddings.flags.writeable:
            embeddings = -embeddings
        return super().labels(embeddings)


class WantsAnArray(BySign):
    def fit(self, embeddings, *, names=None):
        embeddings = embeddings if isinstance(embeddings, np.ndarray) else -self.checked(embeddings)
        return super().fit(embeddings, names=names)


class ReadsRowByRow(BySign):
    def fit(self, embeddings, *, names=None):
        return super().fit([embeddings[i] for i in range(len(embeddings))], names=names)


class ForgetsNames(BySign):
    def fit(self, embeddings, *, names=None):
        return super().fit(embeddings)


class RefusesSomething(BySign):
    def fit(self, embeddings, *, names=None):
        if names is not None:
            raise ValueError("no")
        return super().fit(embeddings)


class CutsNames(BySign):
    def fit(self, embeddings, *, names=None):
        pool = super().fit(embeddings)
        return pool if names is None else super().fit(embeddings, names=[*names, "x"][: pool.n_regions])


class TakesNaN(BySign):
    def fit(self, embeddings, *, names=None):
        return super().fit(np.nan_to_num(self.read(embeddings)), names=names)

    @staticmethod
    def read(embeddings):
        return embeddings[:] if not isinstance(embeddings, list) else np.array(embeddings)


class TakesOneDimension(TakesNaN):
    def fit(self, embeddings, *, names=None):
        embeddings = self.read(embeddings)
        if embeddings.ndim == 1 and len(embeddings):
            embeddings = np.stack([embeddings, embeddings[::-1]], axis=1)
        return BySign.fit(self, embeddings, names=names)


class TakesNothing(BySign):
    def fit(self, embeddings, *, names=None):
        if len(embeddings) == 0:
            return aria.Partition.from_labels([0])
        return super().fit(embeddings, names=names)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (RandomFit, "two fits"),
        (DropsItems, "every item has a region"),
        (ScalesItsInput, "does not change the embeddings"),
        (ReturnsLabels, "returns a Partition"),
        (WrongCenters, r"assign\(\)"),
        (RoundsWhatIsPrecise, "in float32 that cannot be written to"),
        (WritesToWhatItChecked, "in float32 that cannot be written to"),
        (WantsAnArray, "in a list make the same partition"),
        (ReadsRowByRow, r"fit\(\) reads slices"),
        (ForgetsNames, "names= gives the regions their names"),
        (RefusesSomething, "named in the error"),
        (CutsNames, "fewer names than regions"),
        (TakesNaN, "here a NaN"),
        (TakesOneDimension, "in one dimension"),
        (TakesNothing, "here no items"),
    ],
)
def test_broken_partitioners_are_caught(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        testing.check_partitioner(broken())


class NotAPartitioner:
    def fit(self, embeddings):
        return aria.Partition.from_labels(np.zeros(len(embeddings), int))


def test_a_partitioner_is_a_subclass():
    with pytest.raises(AssertionError, match="is a Partitioner"):
        testing.check_partitioner(NotAPartitioner())
