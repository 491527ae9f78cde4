"""`TimestepProfile`: how large a loss is to be expected at each timestep, whatever the region.

The distillation loss varies a hundredfold over timesteps, and switched prompts sit at the noisy end. A
regional mean of raw losses would mostly say which timesteps a region happened to draw. Dividing each loss
by the profile of its timestep takes that out: exactly so when regions differ by a factor that is the same
at all timesteps (theory page, "Timestep confounding"). The ratio is what an allocation should act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling._typing import FloatArray, IntArray, State
from aria_sampling._validation import float_vector, int_vector, integer, real
from aria_sampling.estimation.base import LOSS_LIMIT, Feedback
from aria_sampling.estimation.ema import Ema

__all__ = ["TimestepProfile"]


@dataclass(frozen=True)
class TimestepProfile:
    """Expected loss in each of `n_bins` equal ranges of timesteps, tracked by a moving average.

    Args:
        num_train_timesteps: Number of timesteps T of the noise scheduler.
        n_bins: Number of ranges, at most T.
        rate: Rate of the average, per loss (`Ema`).

    Raises:
        ValueError: An argument out of its range.
    """

    num_train_timesteps: int = 1000
    n_bins: int = 20
    rate: float = 0.01

    def __post_init__(self) -> None:
        """Check the arguments."""
        integer("num_train_timesteps", self.num_train_timesteps, low=1)
        integer("n_bins", self.n_bins, low=1, high=self.num_train_timesteps)
        real("rate", self.rate, low=0, high=1, open_low=True)

    def init(self) -> State:
        """Return the state before any loss."""
        return self._ema.init(self.n_bins)

    def update(self, state: State, timesteps: Any, losses: Any, weights: Any = None) -> State:
        """Return the state after one round of losses.

        Args:
            state: From `init` or `update`; given up.
            timesteps: Integers [n] in ``0..num_train_timesteps-1``.
            losses: Real [n]; non-finite ones are left out.
            weights: Real [n], not negative: importance weights q/p of the rows, so that the profile is
                that of the target and not of the allocation. Default: all equal.
        """
        bins = self._bins(timesteps)
        losses = float_vector("losses", losses, length=len(bins))
        weights = np.ones(len(bins)) if weights is None else float_vector("weights", weights, length=len(bins))
        if not (np.isfinite(weights) & (weights >= 0)).all():
            raise ValueError(
                f"weights: expected finite numbers that are not negative, got {weights.min()} to {weights.max()}"
            )
        use = (np.abs(losses) < LOSS_LIMIT) & (weights > 0)
        bins, losses, weights = bins[use], losses[use], weights[use]
        weight = np.bincount(bins, weights, self.n_bins)
        mean = np.bincount(bins, weights * losses, self.n_bins) / np.where(weight > 0, weight, 1.0)
        plain = Feedback.from_rows(bins, losses, n_regions=self.n_bins)
        weighted = Feedback(plain.regions, plain.count, mean[plain.regions], plain.m2, plain.dropped)
        return self._ema.update(state, weighted)

    def expected(self, state: State, timesteps: Any) -> FloatArray:
        """Return the expected loss at each timestep, float64 [n]; NaN before any positive loss.

        A range with no positive mean yet borrows from the ranges beside it (log-linear between them).
        """
        bins = self._bins(timesteps)
        estimate = self._ema.estimate(state)
        known = np.flatnonzero((estimate.count > 0) & (estimate.mean > 0))
        if len(known) == 0:
            return np.full(len(bins), np.nan)
        return np.exp(np.interp(bins, known, np.log(estimate.mean[known])))

    def ratio(self, state: State, timesteps: Any, losses: Any) -> FloatArray:
        """Return loss / expected loss for each row, float64 [n]: what to credit regions with for an allocation.

        Timesteps of which nothing is known leave the loss as it is.
        """
        expected = self.expected(state, timesteps)
        losses = float_vector("losses", losses, length=len(expected))
        with np.errstate(over="ignore"):  # infinite is not finite: dropped and counted like any such loss
            return losses / np.where(np.isnan(expected), 1.0, expected)

    def control_variate(self, state: State, timesteps: Any, losses: Any, *, coefficient: float = 1.0) -> FloatArray:
        """Return ``loss - coefficient·(expected - mean expected)`` for each row, float64 [n]: what to report.

        Its mean is that of the loss, for timesteps drawn uniformly and any profile fixed beforehand; its
        variance is less by what timesteps explain. Nothing is subtracted before anything is known.
        """
        coefficient = real("coefficient", coefficient, low=-np.inf)
        expected = self.expected(state, timesteps)
        starts = -(-np.arange(self.n_bins + 1) * self.num_train_timesteps // self.n_bins)
        sizes = np.diff(starts) / self.num_train_timesteps  # ranges differ by a timestep where they do not divide T
        centred = expected - (sizes * self.expected(state, starts[:-1])).sum()
        losses = float_vector("losses", losses, length=len(expected))
        return losses - coefficient * np.where(np.isnan(centred), 0.0, centred)

    def _bins(self, timesteps: Any) -> IntArray:
        """Return the range that each timestep lies in, int64 [n]."""
        steps = int_vector("timesteps", timesteps, high=self.num_train_timesteps)
        return steps * self.n_bins // self.num_train_timesteps

    @property
    def _ema(self) -> Ema:
        """The average that tracks the ranges."""
        return Ema(rate=self.rate, per="sample")
