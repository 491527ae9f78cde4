"""`TimestepProfile`: how large a loss is to be expected at each noise level, whatever the region.

The distillation loss varies a hundredfold over noise levels, and switched prompts sit at the noisy end. A regional
mean of raw losses would mostly say which noise levels a region happened to draw. Dividing each loss by the profile
at its noise level takes that out: exactly so when regions differ by a factor that is the same at all levels (theory
page, "Timestep confounding"). The ratio is what an allocation should act on.

The state goes by value: `update` returns new arrays. What is expected is a table over a few bins, so a row looks it
up, and it is worked out once a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import Arrays, FloatArray, IntArray
from aria_sampling._check import integer, real

__all__ = ["TimestepProfile"]


@dataclass(frozen=True)
class TimestepProfile:
    """Expected loss in each of `n_bins` equal ranges of noise levels, tracked by a moving average.

    Args:
        n_bins: Number of ranges that [0, 1] is cut into.
        rate: Rate of the average, per loss: n losses in a round have the gain ``1 - (1 - rate)**n``.

    Raises:
        ValueError: An argument out of its range.
    """

    n_bins: int = 20
    rate: float = 0.01

    def __post_init__(self) -> None:
        """Check the arguments."""
        integer("n_bins", self.n_bins, low=1, high=2**16)
        real("rate", self.rate, low=0, high=1, open_low=True)

    def init(self) -> Arrays:
        """Return the state before any loss: ``total`` and ``weight``, float64 [n_bins], whose ratio is the mean."""
        return {"total": np.zeros(self.n_bins), "weight": np.zeros(self.n_bins)}

    def bins(self, noise: FloatArray) -> IntArray:
        """Return the range that each noise level lies in, int64 [n], for float64 [n] in [0, 1]."""
        return np.minimum((noise * self.n_bins).astype(np.int64), self.n_bins - 1)

    def update(self, state: Arrays, bins: IntArray, losses: FloatArray, weights: FloatArray) -> Arrays:
        """Return the state after one round of losses.

        Args:
            state: From `init` or `update`; not changed.
            bins: Range of each row, int64 [n] in ``0..n_bins-1``.
            losses: float64 [n]; non-finite ones, and those of size 1e150 and more, are left out.
            weights: float64 [n], positive: importance weights q/p of the rows, so that the profile is that of the
                target and not of the allocation.
        """
        total, weight = _kernel.profile_update(
            state["total"],
            state["weight"],
            np.ascontiguousarray(bins),
            np.ascontiguousarray(losses),
            np.ascontiguousarray(weights),
            self._log_keep,
        )
        return {"total": total, "weight": weight}

    def expected(self, state: Arrays) -> FloatArray | None:
        """Return the expected loss in each range, float64 [n_bins]; None before any positive loss.

        A range with no positive mean yet borrows from the ranges beside it (log-linear between them).
        """
        mean = state["total"] / np.maximum(state["weight"], _TINY)
        if (positive := mean > 0).all():
            return mean
        known, unknown = positive.nonzero()[0], (~positive).nonzero()[0]
        if not len(known):
            return None
        right = known.searchsorted(unknown)
        left = np.maximum(right - 1, 0)
        right = np.minimum(right, len(known) - 1)
        logs = _kernel.log(mean[known])
        share = (unknown - known[left]) / np.maximum(known[right] - known[left], 1)
        mean[unknown] = _kernel.exp(logs[left] + share * (logs[right] - logs[left]))
        return mean

    @cached_property
    def _log_keep(self) -> float:
        """log(1 - rate); at rate 1 as little as `_kernel.exp` knows, so that 0 losses keep all."""
        return max(float(_kernel.log(np.array([1.0 - self.rate]))[0]), -700.0)


_TINY = 1e-300  # in place of a sum of weights that is 0
