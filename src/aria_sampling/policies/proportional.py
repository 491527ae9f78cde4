"""`Proportional`: effort in proportion to a power of the discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray
from aria_sampling._check import real
from aria_sampling.estimators.base import Estimate
from aria_sampling.policies.base import Policy

__all__ = ["Proportional"]


@dataclass(frozen=True)
class Proportional(Policy):
    """The score is D ** exponent, D the estimated discrepancy. The default policy.

    Args:
        exponent: How sharply effort follows discrepancy, in [0, 1e100]. 1 suits unweighted training (for
            power-law learning curves effort proportional to what is left to learn is optimal in the long
            run); 1/2 minimises gradient variance when the loss is weighted by q/p; 0 ignores D.

    Raises:
        ValueError: `exponent` out of its range.
    """

    local: ClassVar[bool] = True

    exponent: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments, and keep them as plain floats: equal settings have equal representations."""
        object.__setattr__(self, "exponent", real("exponent", self.exponent, low=0, high=1e100))

    def log_score(self, estimate: Estimate, shared: dict[str, FloatArray]) -> FloatArray:
        """Return exponent * log D, float64 [m]; -inf where D is 0; zeros where the exponent is."""
        if self.exponent == 0:
            return np.zeros(len(estimate.mean))
        return self.exponent * _kernel.log(estimate.mean)
