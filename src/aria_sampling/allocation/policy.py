"""What a policy is: a rule that says how much more a region deserves than its target share.

A policy returns log φ, one number a region; the allocator turns it into probabilities
``p = (1 - floor) * q * φ / sum(q * φ) + floor * q``. Multiplying the target q, rather than replacing it,
is what makes the result independent of how finely the pool was cut; the floor bounds every weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from aria_sampling._typing import FloatArray, State
from aria_sampling.estimation.base import Estimate

__all__ = ["Policy"]


class Policy(ABC):
    """A rule that turns estimates into log φ. Subclass it to bring your own.

    Subclasses hold settings only and should be frozen dataclasses (their ``repr`` is stored with a saved
    state, and compared on load). What they learn goes into the state, a dictionary of arrays.

    Attributes:
        baseline: Set by the two baselines, which ignore feedback and draw from that target itself.
    """

    baseline: ClassVar[Literal["pool", "uniform"] | None] = None

    @abstractmethod
    def init(self, n_regions: int) -> State:
        """Return the state before any feedback: arrays whose shapes and dtypes never change."""

    @abstractmethod
    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state after a round that brought feedback. The arrays of `state` may be changed in place.

        `estimate.mean` is not negative here (it was clamped at 0) and not NaN.
        """

    @abstractmethod
    def log_phi(self, state: State) -> FloatArray:
        """Return log φ, float64 [n_regions]; -inf for φ = 0; only differences between regions matter."""
