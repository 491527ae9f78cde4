"""The two baselines that every allocation has to beat: by pool mass (random conditioning), and uniform.

Under a baseline the allocator draws exactly from the target: no floor is needed, no visit is forced, and
effort that comes anyway is ignored, so that a comparison is with the real thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import integer
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["PoolPolicy", "UniformPolicy"]


class _Baseline(Policy):
    """φ = 1, whatever was observed."""

    def init(self, n_regions: int) -> State:
        """Return φ = 1 for every region."""
        return {"log_phi": np.zeros(integer("n_regions", n_regions, low=1))}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return `state` as it is."""
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return zeros [n_regions]."""
        return state["log_phi"].copy()


@dataclass(frozen=True)
class PoolPolicy(_Baseline):
    """Draw every region by its share of the pool, which is every item alike: plain random conditioning."""

    baseline: ClassVar[Literal["pool", "uniform"] | None] = "pool"


@dataclass(frozen=True)
class UniformPolicy(_Baseline):
    """Draw every region alike, whatever its size: stratified sampling."""

    baseline: ClassVar[Literal["pool", "uniform"] | None] = "uniform"
