"""`GroupDRO`: exponentiated gradient towards the worst region (Sagawa et al., arXiv 1911.08731)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._arrays import FloatArray, State
from aria_sampling._check import integer, real
from aria_sampling.errors import ArgumentError
from aria_sampling.estimators.base import Estimate
from aria_sampling.policies.base import Policy

__all__ = ["GroupDRO"]


@dataclass(frozen=True)
class GroupDRO(Policy):
    """The log score grows by ``step_size * excess / scale`` in every round with feedback: the worst region takes over.

    Only the allocator's exploration bounds how far, so keep that at 0.1 or more. Regions that cannot be
    learnt further (noise, missing capacity) attract everything unless `reference` says what to expect of them.

    Args:
        step_size: Positive. With `scale` = L, losses in [0, L] and T rounds, ``sqrt(8 log(K) / T)`` gives
            the regret bound of `aria_sampling.bounds.minimax_regret`.
        scale: Unit of the excess, positive; default: the mean of the estimates of that round, which makes
            the policy independent of the unit of the loss.
        reference: Excess is max(D - reference, 0): a discrepancy that no student gets below. A number, or a
            tuple of one a region.

    Raises:
        ValueError: An argument out of its range; `reference` of another length than the regions.
    """

    step_size: float = 0.01
    scale: float | None = None
    reference: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        """Check the arguments, and keep them as plain floats: equal settings have equal representations."""
        object.__setattr__(self, "step_size", real("step_size", self.step_size, low=0, open_low=True))
        if self.scale is not None:
            object.__setattr__(self, "scale", real("scale", self.scale, low=0, open_low=True))
        object.__setattr__(self, "reference", checked_reference(self.reference))

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback: a log score of 0 for every region."""
        checked_reference(self.reference, integer("n_regions", n_regions, low=1))
        return State({"log_score": np.zeros(n_regions)}, {})

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state after one more step towards the regions with the largest excess."""
        excess = np.maximum(estimate.mean - np.asarray(self.reference), 0.0)
        scale = float(estimate.mean.mean()) if self.scale is None else self.scale
        if scale <= 0:
            return state
        with np.errstate(over="ignore"):
            step = np.minimum(self.step_size * (excess / scale), _FAR)
        moved = state.rows["log_score"] + step
        return State({"log_score": np.maximum(moved - moved.max(), -_FAR)}, {})  # only differences matter

    def log_score(self, state: State) -> FloatArray:
        """Return the log score, float64 [n_regions], 0 for the region with most."""
        return state.rows["log_score"].copy()


_FAR = 1e300  # keeps log scores finite, whatever the losses


def checked_reference(reference: float | tuple[float, ...], n_regions: int | None = None) -> float | tuple[float, ...]:
    """Return `reference` in floats; ValueError unless a number or a tuple of numbers (of that length), all >= 0."""
    if not isinstance(reference, tuple):
        return real("reference", reference, low=0)
    if n_regions is not None and len(reference) != n_regions:
        raise ArgumentError(f"reference: expected {n_regions} numbers, one a region, got {len(reference)}")
    return tuple(real(f"reference[{region}]", value, low=0) for region, value in enumerate(reference))
