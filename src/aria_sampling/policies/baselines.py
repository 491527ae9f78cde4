"""The two baselines that every allocation has to beat: by pool mass (random conditioning), and uniform.

Under a baseline the allocator draws exactly from the target: nothing is explored, no visit is forced, and there is no
coverage. So a comparison is with the real thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from aria_sampling._arrays import FloatArray
from aria_sampling.estimators.base import Estimate
from aria_sampling.policies.base import Policy

__all__ = ["PoolPolicy", "UniformPolicy"]


class _Baseline(Policy):
    """The score is 1, whatever was observed."""

    local: ClassVar[bool] = True

    def log_score(self, estimate: Estimate, shared: dict[str, FloatArray]) -> FloatArray:
        """Return zeros [m]. An allocator never asks."""
        return np.zeros(len(estimate.mean))


@dataclass(frozen=True)
class PoolPolicy(_Baseline):
    """Draw every region by its share of the pool, which is every item alike: plain random conditioning."""

    baseline: ClassVar[Literal["pool", "uniform"] | None] = "pool"


@dataclass(frozen=True)
class UniformPolicy(_Baseline):
    """Draw every region alike, whatever its size: stratified sampling."""

    baseline: ClassVar[Literal["pool", "uniform"] | None] = "uniform"
