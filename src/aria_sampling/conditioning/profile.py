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
from typing import Any

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import Arrays, FloatArray, IntArray, take
from aria_sampling._check import as_array, float_vector, integer, real, shown
from aria_sampling.errors import ArgumentError

__all__ = ["TimestepProfile"]


@dataclass(frozen=True)
class TimestepProfile:
    """Expected loss in each of `n_bins` equal ranges of noise levels, tracked by a moving average.

    `RandomConditioning` has one. With a sampler, divide the losses yourself, and keep what is usual with the run:

    >>> import aria_sampling as aria
    >>> profile = aria.TimestepProfile(n_bins=2)
    >>> usual = profile.init()
    >>> noise, losses = [0.1, 0.2, 0.8, 0.9], [1.0, 3.0, 100.0, 300.0]  # noisy rows have a hundred times the loss
    >>> ratios, usual = profile.normalise(usual, noise, losses)
    >>> ratios.tolist()
    [0.5, 1.5, 0.5, 1.5]

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

    def normalise(
        self, state: dict[str, Any], noise: Any, losses: Any, weights: Any = None
    ) -> tuple[FloatArray, Arrays]:
        """Return losses over what is usual at their noise levels, float64 [n], and the state after these losses.

        "Usual" is what came before. For the first losses, before which nothing is known, it is their own mean.

        Args:
            state: From `init` or the last call; not changed. What is saved as lists or tensors may come back as such.
            noise: How noisy each row is, floats [n] in [0, 1], 1 is pure noise: the timestep over the number of
                timesteps, or sigma in flow matching.
            losses: real [n]. Those that are not finite, or of size 1e150 and more, change nothing that is usual.
            weights: Importance weights of the rows, positive [n], such as ``sampler.weights(index)``; default: all 1.
                With them the profile is that of the target, not of the draws.

        Raises:
            ValueError: Another shape, dtype or length; a value out of range; a state of another number of ranges.
        """
        given = as_array("noise", noise, "a one-dimensional array of floats")
        levels = float_vector("noise", given)
        if len(levels) and given.dtype.kind in "iu":
            raise ArgumentError(
                f"noise: expected floats in [0, 1], got integers up to {levels.max():g}; divide timesteps by their "
                "number, or use noise_levels() of aria_sampling.integrations.diffusers",
                remedy="noise = noise / noise_scheduler.config.num_train_timesteps",
            )
        if len(levels) and not (levels.min() >= 0 and levels.max() <= 1):  # NaN included
            raise ArgumentError(f"noise: expected values in [0, 1], got {levels.min()} to {levels.max()}")
        values = float_vector("losses", losses, length=len(levels))
        weight = np.ones(len(levels)) if weights is None else float_vector("weights", weights, length=len(levels))
        if not (weight > 0).all():  # False for NaN
            raise ArgumentError(f"weights: expected positive numbers, got {shown(weight)}")
        before = {
            name: np.ascontiguousarray(
                float_vector(f"state entry {name!r}", take(state, name, object), length=self.n_bins)
            )
            for name in self.init()
        }
        bins = self.bins(levels)
        after = self.update(before, bins, values, weight)
        usual = self.expected(before)
        usual = self.expected(after) if usual is None else usual
        if usual is None:
            return values.copy(), after
        with np.errstate(over="ignore"):  # what is infinite is dropped and counted by who gets it
            return values / usual[bins], after

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
