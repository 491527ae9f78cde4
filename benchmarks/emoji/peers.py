"""A peer's rule in the library's terms, written from its description: guided diffusion's second-moment resampler.

There it draws timesteps; here regions. Apart from `methods.py` since an estimator and a policy of one's own show what
it takes. Online Data Mixing's Exp3 is in `benchmarks/mixing/methods.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
