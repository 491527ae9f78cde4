"""`Minimax`: exponentiated gradient towards the worst region, as in Group DRO (arXiv 1911.08731)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer, real
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["Minimax"]


@dataclass(frozen=True)
class Minimax(Policy):
    """log φ grows by ``step_size * excess / scale`` in every round with feedback: the worst region takes over.

    How far is bounded by the allocator's floor alone, so keep that at 0.1 or more. Regions that cannot be
    learnt further (noise, missing capacity) attract everything unless `reference` says what to expect of them.

    Args:
        step_size: Positive. With `scale` = L, losses in [0, L] and T rounds, ``sqrt(8 log(K) / T)`` gives
            the regret bound of `aria_sampling.bounds.minimax_regret`.
        scale: Unit of the excess, positive; default: the mean of the estimates of that round, which makes
            the policy independent of the unit of the loss.
        reference: Excess is max(D - reference, 0): a floor that no student gets below. A number, or a
            tuple of one a region.

    Raises:
        ValueError: An argument out of its range; `reference` of another length than the regions.
    """

    step_size: float = 0.01
    scale: float | None = None
    reference: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("step_size", self.step_size, low=0, open_low=True)
        if self.scale is not None:
            real("scale", self.scale, low=0, open_low=True)
        check_reference(self.reference)

    def init(self, n_regions: int) -> State:
        """Return φ = 1 for every region."""
        check_reference(self.reference, integer("n_regions", n_regions, low=1))
        return {"log_phi": np.zeros(n_regions)}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state after one more step towards the regions with the largest excess."""
        excess = np.maximum(estimate.mean - np.asarray(self.reference), 0.0)
        scale = float(estimate.mean.mean()) if self.scale is None else self.scale
        if scale > 0:
            state["log_phi"] += self.step_size * (excess / scale)
            state["log_phi"] -= state["log_phi"].max()  # only differences matter; this keeps them finite
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return log φ, float64 [n_regions], 0 for the region with most."""
        return state["log_phi"].copy()


def check_reference(reference: float | tuple[float, ...], n_regions: int | None = None) -> None:
    """Raise ValueError unless `reference` is a number, or a tuple of numbers (of that length), not negative."""
    if not isinstance(reference, tuple):
        real("reference", reference, low=0)
        return
    if n_regions is not None and len(reference) != n_regions:
        raise ValueError(f"reference: expected {n_regions} numbers, one a region, got {len(reference)}")
    for region, value in enumerate(reference):
        real(f"reference[{region}]", value, low=0)
