"""`Ema`: one exponential moving average a region, with an exact account of what it averages.

The bias-corrected form (theory page, "Tracker"): ``S <- (1-a) S + a Y``, ``W <- (1-a) W + a``, mean
``S / W``, where Y is the mean loss of the region in the round. Everything is kept per visit, so a region
costs nothing in the rounds that do not visit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer, real
from aria_sampling.estimation import variation
from aria_sampling.estimation.base import Estimate, Estimator, Feedback, fill_unvisited

__all__ = ["Ema"]


@dataclass(frozen=True)
class Ema(Estimator):
    """Exponential moving average of each region's loss.

    Args:
        rate: Weight of the newest observation, in (0, 1].
        per: What an observation is. ``"sample"``: each single loss; n losses in a round give the gain
            ``1 - (1 - rate)**n``, so that n and then m losses forget as much as n + m at once.
            ``"visit"``: each round that visits the region, however many losses it brings; this keeps the
            weights independent of the allocation.

    Raises:
        ValueError: `rate` outside (0, 1], or another `per`.

    A cold region starts from its first losses, not from a prior: the weights are normalised (Adam's bias
    correction). `Estimate.count` is the exact effective sample size ``1 / sum(w_i**2)`` of the weights;
    `Estimate.stderr` combines it with a spread pooled over regions.
    """

    rate: float = 0.02
    per: Literal["sample", "visit"] = "sample"

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("rate", self.rate, low=0, high=1, open_low=True)
        if not isinstance(self.per, str) or self.per not in ("sample", "visit"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"per={self.per!r}: expected 'sample' or 'visit'")

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback."""
        n_regions = integer("n_regions", n_regions, low=1)
        zeros = {name: np.zeros(n_regions) for name in _PER_REGION}
        return {**zeros, "clock": np.zeros(1), **variation.init()}

    def update(self, state: State, feedback: Feedback) -> State:
        """Return the state one round later; see `Estimator.update`."""
        k = feedback.regions
        believed = _ratio(state["total"][k], state["weight"][k])
        variation.update(state, feedback, believed)
        gain = self.gain(feedback.count)
        keep = 1 - gain
        state["total"][k] = keep * state["total"][k] + gain * feedback.mean
        state["weight"][k] = keep * state["weight"][k] + gain
        state["squares"][k] = keep**2 * state["squares"][k] + gain**2 / feedback.count
        state["time"][k] = keep * state["time"][k] + gain * state["clock"]
        state["visits"][k] += 1
        state["samples"][k] += feedback.count
        state["clock"] += 1
        return state

    def estimate(self, state: State) -> Estimate:
        """Return the current `Estimate`; see `Estimator.estimate`."""
        weight = state["weight"]
        count = np.divide(weight**2, state["squares"], out=np.zeros_like(weight), where=weight > 0)
        age = state["clock"] - 1 - _ratio(state["time"], weight)
        return fill_unvisited(_ratio(state["total"], weight), variation.value(state), count, age)

    def gain(self, count: FloatArray) -> FloatArray:
        """Return the gain of a round that brings `count` losses to a region, float64 of the same shape."""
        if self.per == "visit":
            return np.where(count > 0, self.rate, 0.0)
        with np.errstate(divide="ignore"):  # rate 1: log1p(-1) = -inf, and the gain is 1
            return -np.expm1(count * np.log1p(-np.float64(self.rate)))


_PER_REGION = ("total", "weight", "squares", "time", "visits", "samples")


def _ratio(total: FloatArray, weight: FloatArray) -> FloatArray:
    """Return total / weight, NaN where the weight is 0."""
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
