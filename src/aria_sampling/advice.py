"""`Advice`: would the pool's own shares, or uniform ones, have done as well? An estimate from one run.

Nothing but the run itself is at hand, so the answer rests on what it shows of every region: how its discrepancy
fell with its own draws. A straight line of log D over log draws is fitted to each, and read off at the draws that
the other allocation would have given it. What makes the answer uncertain, and how it enters:

- *Noise*: the slopes' standard errors, after drawing them towards a line in what is asked of them (empirical Bayes),
  without which a thousand regions with ten losses each would say nothing.
- *The curve is no line*: everything is done twice, with the last half and with the last nine tenths of the draws.
- *Regions learn from each other*: what all regions share in their fall may have come from all draws, and then no
  allocation would have changed it. So everything is done with the whole slopes and with what differs from their
  mean.
- *Noise steered the draws*: a region whose loss seemed high by chance was drawn more, and then fell to its true
  value. That looks like a gain; the lower limit makes an allowance for it.

The interval holds all four 95% intervals. `benchmarks/advice.py` measures how often it holds the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray

__all__ = ["Advice", "Curves", "Gain", "advise"]

_WINDOWS = (0.5, 0.1)  # share of the draws before which nothing is fitted
_AS_GOOD = 0.02  # of the discrepancy: less than this is no reason to allocate
_LEAST_SE = 1e-3  # of the estimate: no record decides alone
_STEEPEST = 2.0  # D falls no faster than one over the draws squared, and a slope with a larger error says nothing
_RECORDS = 64  # that are fitted at most
_VERDICTS = {
    "adaptive": "Neither uniform shares nor the pool's own would have done as well: keep allocating.",
    "pool": "The pool's own shares would have done as well or better: PoolPolicy() is enough here.",
    "uniform": "Uniform shares would have done as well or better: UniformPolicy() is enough here.",
    "undecided": "This run cannot tell whether the allocation helped.",
}


@dataclass(frozen=True)
class Gain:
    """How much higher another allocation would have left the discrepancy, relative to where it is.

    Attributes:
        value: Estimate, if regions learn from their own draws alone; 0.1 is 10% higher. NaN: nothing is known.
        low: Lower limit.
        high: Upper limit.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as text."""
        if np.isnan(self.value):
            return "not known yet"
        return f"{100 * self.value:+.1f}% ({100 * self.low:+.1f}% to {100 * self.high:+.1f}%)"


@dataclass(frozen=True)
class Advice:
    """What to draw by, as far as this run can tell.

    Attributes:
        recommendation: ``"adaptive"``: what was done beat both baselines. ``"pool"`` or ``"uniform"``: that baseline
            would have done as well, to within 2% of the discrepancy, or better. ``"undecided"``: the run cannot tell.
        over_pool: Gain over drawing by the pool's own shares.
        over_uniform: Gain over drawing every region alike.
    """

    recommendation: Literal["adaptive", "pool", "uniform", "undecided"]
    over_pool: Gain
    over_uniform: Gain

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        return _VERDICTS[self.recommendation]

    @property
    def text(self) -> str:
        """The answer, and what it rests on."""
        return (
            f"{self.verdict} Against what it is, the discrepancy would have been: by the pool's own shares "
            f"{self.over_pool}; by uniform shares {self.over_uniform}."
        )


@dataclass(frozen=True, eq=False)
class Curves:
    """What was seen of every region, at T times.

    Attributes:
        draws: Draws so far, [T, n_regions].
        mean: Estimated discrepancy, [T, n_regions].
        stderr: Its standard error, [T, n_regions].
        count: Effective number of losses behind it, [T, n_regions].
    """

    draws: AnyArray
    mean: AnyArray
    stderr: AnyArray
    count: AnyArray

    def of(self, regions: BoolArray) -> Curves:
        """Return those of some regions, at no more than 64 times, in float64."""
        n = len(self.draws)
        times = np.unique(np.linspace(0, n - 1, _RECORDS).round().astype(np.int64))[:n]
        columns = (self.draws, self.mean, self.stderr, self.count)
        return Curves(*(column[times][:, regions].astype(np.float64) for column in columns))


def advise(curves: Curves, target: FloatArray, sizes: IntArray) -> Advice:
    """Return what the curves say of the allocation that made them.

    Args:
        curves: What was seen.
        target: What regions are worth, [n_regions], summing to 1: the discrepancy is the mean under it.
        sizes: Items of each region, [n_regions].
    """
    held = target > 0
    gains: dict[str, Gain] = {}
    for name, shares in (("pool", sizes[held] * 1.0), ("uniform", np.ones(int(held.sum())))):
        gains[name] = _gain(curves.of(held), target[held], shares / shares.sum())
    pool, uniform = gains["pool"], gains["uniform"]
    recommendation = "undecided"
    if min(pool.low, uniform.low) > 0:
        recommendation = "adaptive"
    else:
        better = "uniform" if uniform.value < pool.value else "pool"
        if gains[better].high < _AS_GOOD:
            recommendation = better
    return Advice(recommendation, pool, uniform)


def _gain(seen: Curves, q: FloatArray, shares: FloatArray) -> Gain:
    """Return the gain over drawing by `shares`."""
    unknown = Gain(np.nan, -np.inf, np.inf)
    if len(seen.draws) == 0 or seen.draws[-1].sum() == 0:
        return unknown
    worth = q * seen.mean[-1]
    if not 0 < worth.sum() < np.inf:  # NaN before any loss
        return unknown
    worth /= worth.sum()
    drawn = np.maximum(seen.draws[-1], 1)
    wanted = shares * seen.draws[-1].sum()
    further = np.log(wanted / drawn)  # from where the region is on its curve
    values: list[float] = []
    limits: list[float] = []
    allowance = 0.0
    for window in _WINDOWS:
        slope, variance, noise = _slopes(seen, np.minimum(wanted, window * drawn))
        known = np.isfinite(variance)
        if known.sum() < min(2, len(q)):
            return unknown
        slope, design, common, own = _shrunk(slope, variance, further)
        mean = (worth * slope).sum()
        for shared in (0.0, mean):
            then = worth * np.exp(-(slope - shared) * further)
            lever = then * further
            along = lever @ design
            error = 1.96 * np.sqrt((lever**2 * own).sum() + along @ common @ along)
            values.append(float(then.sum()) - 1)
            limits += [values[-1] - error, values[-1] + error]
        chance = np.sqrt(np.where(known, variance, 0.0)) * np.minimum(noise, np.abs(further))
        allowance += float((worth * chance).sum()) / len(_WINDOWS)
    return Gain((values[0] + values[2]) / 2, min(limits) - allowance, max(limits))


def _slopes(seen: Curves, since: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return how fast log D falls with log draws, its variance (infinite: unknown), and the mean relative noise of D.

    An estimate is of the time when the losses behind it came: half of them ago. Records that share losses are worth
    less than their number says, by the ratio of the losses behind them to the draws in between.
    """
    at = seen.draws - (np.maximum(seen.count, 1) - 1) / 2
    usable = (at > 0) & (at >= since) & (seen.mean > 0) & np.isfinite(seen.mean) & np.isfinite(seen.stderr)
    mean, at = np.where(usable, seen.mean, 1.0), np.where(usable, at, 1.0)
    noise: FloatArray = np.maximum(np.where(usable, seen.stderr, 0.0) / mean, _LEAST_SE)
    weight = usable / noise**2
    x: FloatArray = np.log(at)
    x -= (weight * x).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    spread = (weight * x**2).sum(axis=0)
    records = usable.sum(axis=0)
    known = (records >= 3) & (spread > 0)
    spread = np.where(known, spread, 1.0)
    first = np.where(usable, seen.draws - seen.count, np.inf).min(axis=0)
    span = np.where(known, np.maximum(seen.draws[-1] - first, 1), 1.0)
    repeats = np.maximum((usable * seen.count).sum(axis=0) / span, 1.0)
    slope: FloatArray = np.where(known, -(weight * x * np.log(mean)).sum(axis=0) / spread, 0.0)
    noise = (usable * noise).sum(axis=0) / np.maximum(records, 1)
    variance: FloatArray = repeats / spread
    return slope, np.where(known & (variance < _STEEPEST**2), variance, np.inf), noise


def _shrunk(
    slope: FloatArray, variance: FloatArray, further: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return slopes drawn towards a line in `further`, and what their errors are made of.

    That is ``design @ e + f``, where e has the second covariance and f the last as independent variances. The spread of
    true slopes around the line is estimated by moments (DerSimonian and Laird 1986).
    """
    known = np.isfinite(variance)
    v = np.where(known, variance, 1.0)
    design = np.stack([np.ones_like(further), further], axis=1)

    def fit(spread: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        weight = known / (v + spread)
        covariance = np.asarray(np.linalg.pinv(design.T @ (weight[:, None] * design), hermitian=True), np.float64)
        line: FloatArray = design @ (covariance @ (design.T @ (weight * slope)))
        return weight, covariance, line

    weight, covariance, line = fit(0.0)
    excess = (weight * (slope - line) ** 2).sum() - (known.sum() - 2)
    spread = float(max(excess / max(weight.sum() - (weight**2).sum() / weight.sum(), 1e-300), 0.0))
    weight, covariance, line = fit(spread)
    trust = np.where(known, spread / (spread + v), 0.0)
    shrunk: FloatArray = np.clip(line + trust * (slope - line), -_STEEPEST, _STEEPEST)
    return shrunk, design * (1 - trust)[:, None], covariance, np.where(known, trust * v, spread)
