"""`Softmax`: effort exponential in the discrepancy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer, real
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["Softmax"]


@dataclass(frozen=True)
class Softmax(Policy):
    """φ = exp(D / temperature).

    Args:
        temperature: In the unit of the discrepancy, positive: unlike `Proportional` this policy depends on
            that unit. Credited by `RandomConditioning`, discrepancies are ratios around 1.

    Raises:
        ValueError: `temperature` not positive or not finite.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("temperature", self.temperature, low=0, open_low=True)

    def init(self, n_regions: int) -> State:
        """Return φ = 1 for every region."""
        return {"log_phi": np.zeros(integer("n_regions", n_regions, low=1))}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state that follows `estimate`; nothing older matters."""
        # from the largest down: a tiny temperature gives -inf for the others, never an overflow
        state["log_phi"][:] = (estimate.mean - estimate.mean.max()) / self.temperature
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return (D - max D) / temperature, float64 [n_regions]."""
        return state["log_phi"].copy()
