"""`Reducible`: effort in proportion to what more effort can still change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer, real
from aria_sampling.allocation.minimax import check_reference
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["Reducible"]


@dataclass(frozen=True)
class Reducible(Policy):
    """φ = the reducible part of the discrepancy: D - reference, or what the last halving of time removed.

    A discrepancy has a part that no effort removes: `Proportional` would pour effort into it for ever.
    If the floor of each region is known (a reference student, as in RHO-LOSS), pass it. If not, the halving
    difference D(t/2) - D(t) cancels it: for power-law curves it is proportional to what is left (theory page,
    "Reducible discrepancy"). Time is counted in rounds with feedback; D(t/2) is interpolated between values
    kept at powers of two. The difference of two estimates is noisy: keep the allocator's floor at 0.1 or more.

    Args:
        reference: Irreducible part, a number or a tuple of one a region; default None: halving difference.
        least: φ is at least this share of D, in [0, 1]: what noise alone may not take away.

    Raises:
        ValueError: An argument out of its range; `reference` of another length than the regions.
    """

    reference: float | tuple[float, ...] | None = None
    least: float = 0.05

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.reference is not None:
            check_reference(self.reference)
        real("least", self.least, low=0, high=1)

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback."""
        n_regions = integer("n_regions", n_regions, low=1)
        if self.reference is not None:
            check_reference(self.reference, n_regions)
        return {name: np.zeros(n_regions) for name in ("log_phi", "older", "newer")} | {"clock": np.zeros(1)}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state that follows `estimate`."""
        now = estimate.mean
        state["clock"] += 1
        power, exponent = np.frexp(state["clock"][0])  # clock = power * 2**exponent, power in [0.5, 1)
        if power == 0.5:
            state["older"][:], state["newer"][:] = state["newer"], now
        if self.reference is not None:
            part = now - np.asarray(self.reference)
        elif exponent < 2:  # the first round: all of it may be reducible
            part = now
        else:
            between = np.log2(2 * power)  # 0 when t/2 is where `older` was taken, 1 at `newer`
            part = (1 - between) * state["older"] + between * state["newer"] - now
        with np.errstate(divide="ignore"):
            state["log_phi"][:] = np.log(np.maximum(part, self.least * now))
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return log φ, float64 [n_regions]; -inf where D is 0."""
        return state["log_phi"].copy()
