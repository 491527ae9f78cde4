"""`Reducible`: effort in proportion to what more effort can still change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, State
from aria_sampling._check import integer, real
from aria_sampling.estimators.base import Estimate
from aria_sampling.policies.base import Policy
from aria_sampling.policies.group_dro import checked_reference

__all__ = ["Reducible"]


@dataclass(frozen=True)
class Reducible(Policy):
    """The score is the reducible part of the discrepancy: D - reference, or what the last halving of time removed.

    A discrepancy has a part that no effort removes: `Proportional` would pour effort into it for ever.
    If that part of each region is known (a reference student, as in RHO-LOSS), pass it. If not, the halving
    difference D(t/2) - D(t) cancels it: for power-law curves it is proportional to what is left (theory page,
    "Reducible discrepancy"). Time is counted in rounds with feedback; D(t/2) is interpolated between values
    kept at powers of two. The difference of two estimates is noisy: keep the allocator's exploration at 0.1 or more.

    Args:
        reference: Irreducible part, a number or a tuple of one a region; default None: halving difference.
        least: The score is at least this share of D, in [0, 1]: what noise alone may not take away.

    Raises:
        ValueError: An argument out of its range; `reference` of another length than the regions.
    """

    reference: float | tuple[float, ...] | None = None
    least: float = 0.05

    def __post_init__(self) -> None:
        """Check the arguments, and keep them as plain floats: equal settings have equal representations."""
        if self.reference is not None:
            object.__setattr__(self, "reference", checked_reference(self.reference))
        object.__setattr__(self, "least", real("least", self.least, low=0, high=1))

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback.

        "score" is the score; "older" and "newer" are the discrepancies at the last two powers of two of "clock", which
        counts rounds with feedback.
        """
        n_regions = integer("n_regions", n_regions, low=1)
        if self.reference is not None:
            checked_reference(self.reference, n_regions)
        rows = {"score": np.ones(n_regions), "older": np.zeros(n_regions), "newer": np.zeros(n_regions)}
        return State(rows, {"clock": np.zeros(1)})

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state that follows `estimate`."""
        now, older, newer = estimate.mean, state.rows["older"], state.rows["newer"]
        clock = state.shared["clock"] + 1
        power, exponent = np.frexp(clock)  # clock = power * 2**exponent, power in [0.5, 1)
        if power[0] == 0.5:
            older, newer = newer, now
        if self.reference is not None:
            part = now - np.asarray(self.reference)
        elif exponent[0] < 2:  # the first round: all of it may be reducible
            part = now
        else:
            between = _kernel.log(2 * power) / _LOG_2  # 0 when t/2 is where `older` was taken, 1 at `newer`
            part = (1 - between) * older + between * newer - now
        score = np.maximum(part, self.least * now)
        return State({"score": score, "older": older.copy(), "newer": newer.copy()}, {"clock": clock})

    def log_score(self, state: State) -> FloatArray:
        """Return the logarithm of the score, float64 [n_regions]; -inf where D is 0."""
        return _kernel.log(state.rows["score"])


_LOG_2 = 0.6931471805599453
