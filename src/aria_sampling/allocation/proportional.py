"""`Proportional`: effort in proportion to a power of the discrepancy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer, real
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["Proportional"]


@dataclass(frozen=True)
class Proportional(Policy):
    """φ = D ** exponent, D the estimated discrepancy. The default policy.

    Args:
        exponent: How sharply effort follows discrepancy; not negative. 1 suits unweighted training (for
            power-law learning curves effort proportional to what is left to learn is optimal in the long
            run); 1/2 minimises gradient variance when the loss is weighted by q/p; 0 ignores D.

    Raises:
        ValueError: `exponent` negative or not finite.
    """

    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("exponent", self.exponent, low=0)

    def init(self, n_regions: int) -> State:
        """Return φ = 1 for every region."""
        return {"log_phi": np.zeros(integer("n_regions", n_regions, low=1))}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state that follows `estimate`; nothing older matters."""
        if self.exponent > 0:
            with np.errstate(divide="ignore"):
                state["log_phi"][:] = self.exponent * np.log(estimate.mean)
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return exponent * log D, float64 [n_regions]; -inf where D is 0."""
        return state["log_phi"].copy()
