"""`aria_sampling.checks`: the built-in parts pass, and each way to break a promise is caught by its name."""

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import checks

# -- what passes -------------------------------------------------------------------------------------------

ESTIMATORS = [
    aria.Ema(), aria.Ema(rate=1.0), aria.Ema(rate=1e-6), aria.Ema(per="visit"), aria.Ema(rate=1.0, per="visit"),
    aria.EmaBank(), aria.EmaBank(half_lives=(0.1,)), aria.EmaBank(discount=1.0, clip=1e-6),
]  # fmt: skip
POLICIES = [
    aria.Proportional(), aria.Proportional(0.0), aria.Proportional(5.0), aria.Softmax(), aria.Softmax(1e-3),
    aria.Minimax(), aria.Minimax(step_size=2.0, scale=0.1, reference=0.5), aria.Reducible(),
    aria.Reducible(reference=0.5, least=0.0), aria.Mixture((aria.Proportional(), aria.Minimax())),
    aria.PoolPolicy(), aria.UniformPolicy(),
]  # fmt: skip


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_estimators_conform(estimator):
    checks.check_estimator(estimator)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_policies_conform(policy):
    checks.check_policy(policy)


@pytest.mark.parametrize("settings", [{"n_regions": 1}, {"n_regions": 8}, {"n_regions": 40, "seed": 3}])
def test_k_means_conforms(settings):
    pytest.importorskip("sklearn")
    checks.check_partitioner(aria.KMeansPartitioner(**settings))


class BySign:
    """A partitioner without centres: one region for each pattern of signs."""

    def fit(self, embeddings):
        return aria.Partition.from_labels(self.labels(embeddings))

    def labels(self, embeddings):
        return (embeddings[:, 0] > 0) + 2 * (embeddings[:, 1] > 0)


def test_a_partitioner_without_centers_conforms():
    checks.check_partitioner(BySign())


# -- broken estimators -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Base(aria.Ema):
    """`Ema` to break in one way each."""

    rate: float = 0.1


class CountsReads(Base):
    def estimate(self, state):
        state["total"] *= 1.01
        return super().estimate(state)


class SharesMemory(Base):
    shared: ClassVar[str] = "mean"

    def init(self, n_regions):
        return {**super().init(n_regions), "kept": np.full(n_regions, 0.0 if self.shared == "count" else np.nan)}

    def update(self, state, feedback):
        kept = state.pop("kept")
        state = super().update(state, feedback)
        kept[:] = getattr(super().estimate(state), self.shared)
        return {**state, "kept": kept}

    def estimate(self, state):
        return replace(super().estimate(state), **{self.shared: state["kept"]})


class SharesCount(SharesMemory):
    shared = "count"


class SharesStderr(SharesMemory):
    shared = "stderr"


class SharesAge(SharesMemory):
    shared = "age"


class NoBorrowing(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=np.where(estimate.cold, np.nan, estimate.mean))


class KnowsBefore(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=np.nan_to_num(estimate.mean, nan=1.0))


class DecaysOnAMiss(Base):
    def update(self, state, feedback):
        state["total"] *= 0.9
        return super().update(state, feedback)


class StartsFromZero(Base):
    """No bias correction: the first visit moves the mean by `rate` only."""

    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=estimate.mean * np.where(estimate.cold, 1.0, state["weight"]))


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
        return {**super().init(n_regions), "history": []}


class Float32State(Base):
    def init(self, n_regions):
        return {**super().init(n_regions), "total": np.zeros(n_regions, np.float32)}


class NoDict(Base):
    def init(self, n_regions):
        return np.zeros(n_regions)


class GrowsState(Base):
    def update(self, state, feedback):
        state = super().update(state, feedback)
        state["history"] = np.append(state.get("history", np.empty(0)), feedback.mean)
        return state


class ChangesFeedback(Base):
    def update(self, state, feedback):
        state = super().update(state, feedback)
        feedback.mean[:] = 0
        return state


class KeepsMemoryOutside(Base):
    """What it learns is in the object, so that no checkpoint has it."""

    seen: ClassVar[list] = []

    def update(self, state, feedback):
        self.seen.append(1)
        state = super().update(state, feedback)
        state["total"] *= 1 + 1e-9 * len(self.seen)
        return state


class NanFromZero(Base):
    def estimate(self, state):
        estimate = super().estimate(state)
        return replace(estimate, mean=np.where(estimate.mean < 1e-3, np.nan, estimate.mean))


class Overflows(Base):
    def update(self, state, feedback):
        state = super().update(state, feedback)
        state["total"] += 0 * feedback.mean.sum() ** 4
        return state


class NotAnEstimator:
    def init(self, n_regions):
        return {}


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (CountsReads, r"estimate\(\) does not change the state"),
        (SharesMemory, "Estimate.mean shares no memory"),
        (SharesCount, "Estimate.count shares no memory"),
        (SharesStderr, "Estimate.stderr shares no memory"),
        (SharesAge, "Estimate.age shares no memory"),
        (NoBorrowing, "a cold region borrows a finite mean"),
        (KnowsBefore, "before any feedback every mean is NaN"),
        (DecaysOnAMiss, "without a visit leaves the mean as it is"),
        (StartsFromZero, "the first visit sets the mean"),
        (NeverAges, "ages a region by 1"),
        (SureOfTheUnknown, "infinite stderr"),
        (CountsTheUnknown, "before any feedback every count is 0"),
        (WrongShape, r"Estimate.stderr is float64 \[n_regions\]"),
        (WrongDtype, r"Estimate.mean is float64 \[n_regions\]"),
        (ListState, "state entry 'history'"),
        (Float32State, "state entry 'total'"),
        (NoDict, "init returns a dictionary"),
        (GrowsState, "names, shapes and dtypes"),
        (ChangesFeedback, r"update\(\) does not change the feedback"),
        (KeepsMemoryOutside, "bit for bit"),
        (NanFromZero, "losses of 0"),
        (Overflows, "infinite or NaN"),
        (NotAnEstimator, "is not an Estimator"),
    ],
)
def test_broken_estimators_are_caught(broken, promise):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Overflows warns, as it should
        with pytest.raises(AssertionError, match=promise):
            checks.check_estimator(broken())


# -- broken policies ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BasePolicy(aria.Softmax):
    """`Softmax` to break in one way each."""


class ChangesTheMean(BasePolicy):
    def update(self, state, estimate):
        state = super().update(state, estimate)
        estimate.mean[:] /= 2
        return state


class ChangesTheAge(BasePolicy):
    def update(self, state, estimate):
        estimate.age[:] = 0
        return super().update(state, estimate)


class LendsItsState(BasePolicy):
    def log_phi(self, state):
        return state["log_phi"]


class LogOfNegative(BasePolicy):
    def log_phi(self, state):
        return np.where(np.isfinite(state["log_phi"]), state["log_phi"], 0.0) * np.nan


class PlusInfinity(BasePolicy):
    def log_phi(self, state):
        return np.where(state["log_phi"] == 0, np.inf, state["log_phi"])


class ScalarPhi(BasePolicy):
    def log_phi(self, state):
        return np.array(0.0)


class PhiNotLog(BasePolicy):
    """Integer shares in place of logarithms."""

    def log_phi(self, state):
        return np.arange(len(state["log_phi"]))


class RandomPolicy(BasePolicy):
    rng: ClassVar = np.random.default_rng(0)

    def log_phi(self, state):
        return state["log_phi"] + self.rng.random(len(state["log_phi"]))


class TupleState(BasePolicy):
    def init(self, n_regions):
        return {**super().init(n_regions), "clock": (0,)}


class GrowingPolicy(BasePolicy):
    def update(self, state, estimate):
        state = super().update(state, estimate)
        return {**state, "log_phi": state["log_phi"], f"mean {len(state)}": estimate.mean.copy()}


class KeepsTheEstimate(BasePolicy):
    """Its state is the caller's array."""

    def init(self, n_regions):
        return {**super().init(n_regions), "mean": np.zeros(n_regions)}

    def update(self, state, estimate):
        return {**super().update(state, estimate), "mean": estimate.mean}

    def log_phi(self, state):
        return -state["mean"] / 1e150


class NotAPolicy:
    pass


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (ChangesTheMean, r"update\(\) does not change the estimate"),
        (ChangesTheAge, r"update\(\) does not change the estimate"),
        (LendsItsState, "log_phi shares no memory"),
        (LogOfNegative, "neither NaN"),
        (PlusInfinity, "neither NaN nor"),
        (ScalarPhi, r"log_phi is float64 \[n_regions\]"),
        (PhiNotLog, r"log_phi is float64 \[n_regions\]"),
        (RandomPolicy, "bit for bit"),
        (TupleState, "state entry 'clock'"),
        (GrowingPolicy, "names, shapes and dtypes"),
        (KeepsTheEstimate, "keeps no memory of the estimate"),
        (NotAPolicy, "is not a Policy"),
    ],
)
def test_broken_policies_are_caught(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        checks.check_policy(broken())


# -- broken partitioners -----------------------------------------------------------------------------------


class RandomFit(BySign):
    rng = np.random.default_rng(0)

    def labels(self, embeddings):
        return self.rng.permutation(super().labels(embeddings))


class DropsItems(BySign):
    def fit(self, embeddings):
        return aria.Partition.from_labels(self.labels(embeddings)[:-1])


class ScalesItsInput(BySign):
    def fit(self, embeddings):
        embeddings /= np.abs(embeddings).max()
        return super().fit(embeddings)


class ReturnsLabels(BySign):
    def fit(self, embeddings):
        return self.labels(embeddings)


class WrongCenters(BySign):
    def fit(self, embeddings):
        labels = self.labels(embeddings)
        centers = np.stack([embeddings[labels == k].mean(axis=0) for k in range(4)])
        return aria.Partition.from_labels(labels, centers=centers[::-1])


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (RandomFit, "two fits"),
        (DropsItems, "every item has a region"),
        (ScalesItsInput, "does not change the embeddings"),
        (ReturnsLabels, "returns a Partition"),
        (WrongCenters, r"assign\(\)"),
    ],
)
def test_broken_partitioners_are_caught(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        checks.check_partitioner(broken())
