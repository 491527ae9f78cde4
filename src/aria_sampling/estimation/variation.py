"""How much single losses scatter around their region's mean, pooled over regions: one number.

Regions are visited rarely, so a spread of each one's own would be known too late. Losses scatter in
proportion to their mean, so the squared coefficient of variation (cv²) can be pooled: from the spread
inside a batch where a region drew two or more, and from the surprise against the estimate where none did.
"""

from __future__ import annotations

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling.estimation.base import Feedback

__all__ = ["init", "update", "value"]

_RATE = 0.01  # per round with information
_MOST = 100.0  # a single region's cv² counts at most this: one wild loss must not blind the rest


def init() -> State:
    """Return the state before any loss: cv² = 1, to be forgotten like anything else."""
    return {"cv2": np.array([1.0, 1.0])}  # discounted sum of cv², and of the degrees of freedom behind it


def value(state: State) -> float:
    """Return the pooled cv² of a single loss."""
    return float(state["cv2"][0] / state["cv2"][1])


def update(state: State, feedback: Feedback, believed: FloatArray) -> None:
    """Take in one round, in place. `believed` is the estimate before it, NaN where there was none, [m]."""
    freedom = feedback.count - 1
    spread, scale = feedback.m2, feedback.mean**2
    if not freedom.any():
        surprise = np.isfinite(believed)
        freedom, scale = surprise.astype(np.float64), believed**2
        spread = np.where(surprise, (feedback.mean - believed) ** 2, 0.0)
    use = (freedom > 0) & (scale > 0)
    if use.any():
        freedom, spread, scale = freedom[use], spread[use], scale[use]
        with np.errstate(over="ignore"):
            evidence = np.minimum(spread / (scale * freedom), _MOST)
        now = np.array([(evidence * freedom).sum(), freedom.sum()])
        state["cv2"] *= 1 - _RATE
        state["cv2"] += _RATE * now
