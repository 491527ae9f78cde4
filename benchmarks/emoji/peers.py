"""Parts that the library does not have: a peer's rule in its terms, and an allocator that was tried and not taken.

`SecondMoment` with `LastLosses` is guided diffusion's second-moment resampler, written from its description; there it
draws timesteps, here regions. Apart from `methods.py` since it shows what parts of one's own take. Online Data Mixing's
Exp3 is in `benchmarks/mixing/methods.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

import aria_sampling as aria
from aria_sampling import Estimate, Feedback
from aria_sampling.estimation.base import fill_unvisited

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class LastLosses(aria.Estimator):
    """The root mean square loss of a region's last `kept` visits; a region's `count` is how many there were."""

    kept: int = 10

    def init(self, n_regions: int) -> Arrays:
        """No visits."""
        recent = {name: np.zeros((n_regions, self.kept)) for name in ("square", "when")}
        return {**recent, "visits": np.zeros(n_regions, np.int64), "clock": np.zeros(1)}

    def update(self, state: Arrays, feedback: Feedback) -> Arrays:
        """One more visit to each region with feedback, in place of the oldest."""
        regions = feedback.regions
        place = regions, state["visits"][regions] % self.kept
        state["clock"] += 1
        state["square"][place] = feedback.mean**2 + feedback.m2 / feedback.count
        state["when"][place] = state["clock"]
        state["visits"][regions] += 1
        return state

    def estimate(self, state: Arrays) -> Estimate:
        """Of a region never visited: what the library does for its own estimators."""
        count = np.minimum(state["visits"], self.kept).astype(float)
        square, when = (state[name].sum(1) / np.maximum(count, 1) for name in ("square", "when"))
        return fill_unvisited(np.sqrt(square), 1.0, count, state["clock"] - when)


@dataclass(frozen=True)
class SecondMoment(aria.Policy):
    """Shares in proportion to `LastLosses`; all alike until every region was visited `warm` times."""

    warm: int = 10

    def init(self, n_regions: int) -> Arrays:
        """All alike."""
        return {"log_phi": np.zeros(n_regions)}

    def update(self, state: Arrays, estimate: Estimate) -> Arrays:
        """Nothing older matters."""
        if estimate.count.min() >= self.warm:
            with np.errstate(divide="ignore"):
                state["log_phi"][:] = np.log(estimate.mean)
        return state

    def log_phi(self, state: Arrays) -> np.ndarray:
        """The logarithm of the root mean square loss, or 0."""
        return state["log_phi"].copy()


@dataclass(frozen=True)
class Pooled(aria.Estimator):
    """Another estimator's means, drawn towards those of groups of regions as if by `strength` losses more.

    For more regions than there are losses: a group of them has enough.
    """

    inner: aria.Estimator
    groups: tuple[int, ...]  # of each region
    strength: float = 8.0

    def init(self, n_regions: int) -> Arrays:
        """Return the state before any feedback."""
        return self.inner.init(n_regions)

    def update(self, state: Arrays, feedback: Feedback) -> Arrays:
        """Return the state one round later."""
        return self.inner.update(state, feedback)

    def estimate(self, state: Arrays) -> Estimate:
        """Return the current `Estimate`."""
        found, groups = self.inner.estimate(state), self._groups
        if not found.count.any():
            return found
        total, weight = np.bincount(groups, found.count * found.mean), np.bincount(groups, found.count)
        overall = total.sum() / weight.sum()
        group = (total + self.strength * overall) / (weight + self.strength)
        mean = (found.count * found.mean + self.strength * group[groups]) / (found.count + self.strength)
        return replace(found, mean=mean)

    @cached_property
    def _groups(self) -> np.ndarray:
        return np.array(self.groups)


@dataclass(frozen=True)
class Regressed(aria.Estimator):
    """How much log losses have grown since the first rounds, by ridge regression on the centres of regions.

    A region's own losses are too few; a plane through all of them is not. The answer is the ratio of two fits, over
    losses of late (weights fall by `rate` a round) and over those of the first `start` rounds, cut at the value that a
    share `top` of the pool is above, so that the best guesses are drawn alike.
    """

    centers: np.ndarray = field(repr=False, compare=False)
    sizes: np.ndarray = field(repr=False, compare=False)
    strength: float = 100.0
    rate: float = 1 / 300
    start: int = 200
    top: float = 0.05

    def init(self, n_regions: int) -> Arrays:
        """Return the state before any feedback."""
        names = ("late_count", "late_sum", "early_count", "early_sum")
        return {**{name: np.zeros(n_regions) for name in names}, "clock": np.zeros(1)}

    def update(self, state: Arrays, feedback: Feedback) -> Arrays:
        """Return the state one round later."""
        early = state["clock"][0] < self.start
        state["clock"] += 1
        for name in ("late_count", "late_sum"):
            state[name] *= 1 - self.rate
        total = feedback.count * np.log(np.maximum(feedback.mean, 1e-12))
        for kind in ("late", "early") if early else ("late",):
            state[f"{kind}_count"][feedback.regions] += feedback.count
            state[f"{kind}_sum"][feedback.regions] += total
        return state

    def estimate(self, state: Arrays) -> Estimate:
        """Return the current `Estimate`."""
        count = state["late_count"]
        if state["clock"][0] < self.start:
            return fill_unvisited(np.ones_like(count), 1.0, count, np.zeros_like(count))
        growth = self._fit(state, "late") - self._fit(state, "early")
        order = np.argsort(-growth)
        mass = np.cumsum(self.sizes[order]) / self.sizes.sum()
        cut = growth[order[int(np.searchsorted(mass, self.top))]]
        found = fill_unvisited(np.ones_like(count), 1.0, count, np.zeros_like(count))
        return replace(found, mean=np.exp(np.minimum(growth, cut) - cut))

    def _fit(self, state: Arrays, kind: str) -> np.ndarray:
        count, x = state[f"{kind}_count"], self._design
        ridge = self.strength * np.eye(x.shape[1])
        ridge[0, 0] = 0
        return x @ np.linalg.solve((x * count[:, None]).T @ x + ridge, x.T @ state[f"{kind}_sum"])

    @cached_property
    def _design(self) -> np.ndarray:
        q = self.sizes / self.sizes.sum()
        centred = self.centers - q @ self.centers
        return np.c_[np.ones(len(q)), centred / np.sqrt((q @ centred**2).mean())]


@dataclass(frozen=True)
class Growth(aria.Policy):
    """φ = (D / what it was after `warm` rounds with feedback)**exponent; 1 until then."""

    exponent: float
    warm: int = 100

    def init(self, n_regions: int) -> Arrays:
        """Return the state before any feedback."""
        return {"log_phi": np.zeros(n_regions), "start": np.zeros(n_regions), "clock": np.zeros(1)}

    def update(self, state: Arrays, estimate: Estimate) -> Arrays:
        """Return the state that follows an estimate."""
        state["clock"] += 1
        now = np.log(np.maximum(estimate.mean, 1e-12))
        if state["clock"][0] == self.warm:
            state["start"][:] = now
        if state["clock"][0] > self.warm:
            state["log_phi"][:] = self.exponent * (now - state["start"])
        return state

    def log_phi(self, state: Arrays) -> np.ndarray:
        """Return log φ."""
        return state["log_phi"].copy()


class NearAllocator(aria.Allocator):
    """An allocator for which the rows of a region that train anyway count for the regions nearest to it, too."""

    def __init__(self, partition: aria.Partition, near: int, **settings: Any) -> None:
        super().__init__(partition, **settings)
        assert partition.centers is not None
        self.nearest = np.argsort(cdist(partition.centers, partition.centers), axis=1, kind="stable")[:, :near]

    def draw(self, n: int, *, present: Any = None) -> aria.Draw:
        """See `aria.Allocator.draw`."""
        return super().draw(n, present=None if present is None else self.nearest[present].ravel())

    def skip(self, *, present: Any = None) -> aria.Draw:
        """See `aria.Allocator.skip`."""
        return super().skip(present=None if present is None else self.nearest[present].ravel())
