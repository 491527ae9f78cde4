"""`Ema`: one exponential moving average a region, with an exact account of what it averages.

The bias-corrected form (theory page, "Tracker"): ``S <- (1-a) S + a Y``, ``W <- (1-a) W + a``, mean ``S / W``, where Y
is the mean loss of the region in the round. Everything is kept per visit, so a region costs nothing in the rounds
that do not visit it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, State
from aria_sampling._check import integer, real, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.estimators.base import TINY, Estimate, Estimator, Feedback, read_out

__all__ = ["Ema"]


@dataclass(frozen=True)
class Ema(Estimator):
    """Exponential moving average of each region's loss.

    Args:
        rate: Weight of the newest observation, in [1e-9, 1].
        per: What an observation is. ``"sample"``: each single loss; n losses in a round give the gain
            ``1 - (1 - rate)**n``, so that n and then m losses forget as much as n + m at once.
            ``"visit"``: each round that visits the region, however many losses it brings; this keeps the
            weights independent of the allocation.

    Raises:
        ValueError: `rate` out of its range, or another `per`.

    A cold region starts from its first losses, not from a prior: the weights are normalised (Adam's bias
    correction). `Estimate.count` is the exact effective sample size ``1 / sum(w_i**2)`` of the weights;
    `Estimate.stderr` combines it with a spread pooled over regions.
    """

    rate: float = 0.02
    per: Literal["sample", "visit"] = "sample"

    def __post_init__(self) -> None:
        """Check the arguments, and keep them as plain floats: equal settings have equal representations."""
        object.__setattr__(self, "rate", real("rate", self.rate, low=1e-9, high=1))
        if not isinstance(self.per, str) or self.per not in ("sample", "visit"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"per={shown(self.per)}: expected 'sample' or 'visit'")

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback; see `Estimator.init`.

        A row of "average" is: total, weight, squares, time, visits, samples. They are sums over visits: of weight times
        mean loss, of weight, of weight² over the number of losses, of weight times round, of 1, and of the number of
        losses. "clock" counts rounds. "cv2" is the spread of losses, see `read_out`.
        """
        n_regions = integer("n_regions", n_regions, low=1)
        return State({"average": np.zeros((n_regions, 6))}, {"clock": np.zeros(1), "cv2": np.ones(2)})

    def update(
        self, rows: dict[str, FloatArray], shared: dict[str, FloatArray], feedback: Feedback
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return the state one round later; see `Estimator.update`."""
        old, clock, count, mean = rows["average"], shared["clock"], feedback.count, feedback.mean
        weight = old[:, 1]
        believed = np.where(weight > 0, old[:, 0] / np.maximum(weight, TINY), np.nan)
        cv2 = _kernel.variation(shared["cv2"], count, mean, feedback.m2, believed)
        new = _kernel.ema_update(old, count, mean, float(clock[0]), self.rate, self.per == "visit")
        return {"average": new}, {"clock": clock + 1, "cv2": cv2}

    def estimate(self, state: State) -> Estimate:
        """Return the current `Estimate`; see `Estimator.estimate`."""
        total, weight, squares, time = state.rows["average"].T[:4]
        positive = np.maximum(weight, TINY)
        count = weight * weight / np.maximum(squares, TINY)
        age = state.shared["clock"] - 1 - time / positive
        return read_out(total / positive, count, age, state.shared["cv2"])
