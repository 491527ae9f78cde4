"""`Advice`: would the pool's own shares, or uniform ones, have done as well? An estimate from one run.

Nothing but the run itself is at hand, so the answer rests on what it shows of every region: how its discrepancy
fell with its own draws. A straight line of log D over log draws is fitted to each, and read off at the draws that
the other allocation would have given it. What makes the answer uncertain, and how it enters:

- *Noise*: the slopes' standard errors, after drawing them towards a line in what is asked of them (empirical Bayes),
  without which a thousand regions with ten losses each would say nothing.
- *The curve is no line*: everything is done twice, with the last half and with the last nine tenths of the draws, and
  an allowance is made for the bend that a parabola finds. If curves bend by more than a little, or are steeper than a
  line is trusted with, nothing is said.
- *Regions learn from each other*: no record of one run shows how much of a region's fall came from draws elsewhere.
  Unless the caller says that regions learn alone, the interval holds every share of it, from none to all.
- *Noise steered the draws*: a region whose loss seemed high by chance was drawn more, and then fell to its true
  value. That looks like a gain; the lower limit makes an allowance for it.

The interval holds all of these 95% intervals. `benchmarks/advice` measures how often it holds the truth.
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
_STEEPEST = 2.0  # D falls no faster than one over the draws squared, or no line is trusted
_STRAIGHT = 0.12  # most that log D may bend: its coefficient of the square of log draws
_STAYS = 0.005  # of the logarithm of draws, on average: regions that another allocation would have drawn alike
_NOISE = 4.0  # standard deviations that a sum of squares may exceed what noise makes of it
_ALIKE = 0.1  # standard deviation of discrepancies over their mean that is not worth an allocation
_RECORDS = 64  # that are fitted at most
_VERDICTS = {
    "adaptive": "Neither uniform shares nor the pool's own would have done as well: keep allocating.",
    "pool": "The pool's own shares would have done as well or better: PoolPolicy() is enough here.",
    "uniform": "Uniform shares would have done as well or better: UniformPolicy() is enough here.",
    "undecided": "This run cannot tell whether the allocation helped.",
}
_NOTHING = (
    "There was nothing to allocate: in the whole run the discrepancies of the regions differed by no more than their "
    "own noise, or by less than 10%."
)
_EMPTY = "There are too few records with losses."
_STEEP = "Some discrepancies fall faster than one over the square of the draws, and no line is trusted with that."
_BENT = "Learning curves bend: log discrepancy over log draws is no line, so it cannot be read off elsewhere."
_FEW = "There are too few losses to say whether learning curves bend."
_RATIOS = (
    "Losses were divided by what is usual at their noise level, so they do not show how far a region came; "
    "RandomConditioning(..., normalise=False) would."
)
_TAUGHT = (
    "Regions may have learnt from draws elsewhere, which one run cannot show; if they cannot, ask for "
    "advice(regions_learn_alone=True)."
)


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
        doubts: Why the run cannot tell more, a sentence each.
        nothing_to_allocate: Whether the regions' discrepancies differed by no more than their own noise, or by less
            than 10%, at 19 of 20 records: then an allocation by discrepancy followed noise.
    """

    recommendation: Literal["adaptive", "pool", "uniform", "undecided"]
    over_pool: Gain
    over_uniform: Gain
    doubts: tuple[str, ...] = ()
    nothing_to_allocate: bool = False

    @property
    def verdict(self) -> str:
        """The answer in a sentence; two where there was nothing to allocate."""
        return (f"{_NOTHING} " if self.nothing_to_allocate else "") + _VERDICTS[self.recommendation]

    @property
    def text(self) -> str:
        """The answer, and what it rests on."""
        gains = (
            f"Against what it is, the discrepancy would have been: by the pool's own shares {self.over_pool}; by "
            f"uniform shares {self.over_uniform}."
        )
        return " ".join((self.verdict, gains, *self.doubts))


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


def advise(
    curves: Curves, target: FloatArray, sizes: IntArray, *, regions_learn_alone: bool = False, normalised: bool = False
) -> Advice:
    """Return what the curves say of the allocation that made them.

    Args:
        curves: What was seen.
        target: What regions are worth, [n_regions], summing to 1: the discrepancy is the mean under it.
        sizes: Items of each region, [n_regions].
        regions_learn_alone: Whether a region learns from its own draws alone, but for what all have in common.
        normalised: Whether losses are ratios to what is usual, from which no curve can be read.
    """
    held = target > 0
    seen = curves.of(held)
    if normalised:
        unknown = Gain(np.nan, -np.inf, np.inf)
        return Advice("undecided", unknown, unknown, (_RATIOS,), _only_noise(seen))
    gains: dict[str, Gain] = {}
    doubts: dict[str, None] = {}
    for name, shares in (("pool", sizes[held] * 1.0), ("uniform", np.ones(int(held.sum())))):
        gains[name], doubt = _gain(seen, target[held], shares / shares.sum(), alone=regions_learn_alone)
        if doubt:
            doubts[doubt] = None
    pool, uniform = gains["pool"], gains["uniform"]
    recommendation = "undecided"
    if min(pool.low, uniform.low) > 0:
        recommendation = "adaptive"
    else:
        first = "uniform" if uniform.value < pool.value or np.isnan(pool.value) else "pool"
        for baseline in (first, "pool" if first == "uniform" else "uniform"):
            if recommendation == "undecided" and gains[baseline].high < _AS_GOOD:
                recommendation = baseline
    if recommendation == "undecided" and not regions_learn_alone and not doubts:
        doubts[_TAUGHT] = None
    return Advice(recommendation, pool, uniform, tuple(doubts), _only_noise(seen))


def _only_noise(seen: Curves) -> bool:
    """Return whether the discrepancies differ by no more than their standard errors say, or by next to nothing.

    At 19 of 20 records. The sum of squares of what differs, over its variance, has the number of regions less one for
    a mean; what it has beyond is the square of the spread of the true ones (DerSimonian and Laird 1986).
    """
    known = (seen.count > 0) & np.isfinite(seen.stderr) & (seen.stderr > 0) & np.isfinite(seen.mean)
    weight = np.where(known, 1 / np.where(known, seen.stderr, 1.0) ** 2, 0.0)
    mean = np.where(known, seen.mean, 0.0)
    degrees = known.sum(axis=1) - 1.0
    total = np.maximum(weight.sum(axis=1), 1e-300)
    common = (weight * mean).sum(axis=1) / total
    excess = (weight * (mean - common[:, None]) ** 2).sum(axis=1) - degrees
    spread = np.sqrt(np.maximum(excess, 0.0) / np.maximum(total - (weight**2).sum(axis=1) / total, 1e-300))
    alike = (excess <= _NOISE * np.sqrt(2.0 * np.maximum(degrees, 0.0))) | (spread <= _ALIKE * np.abs(common))
    told = degrees >= 1
    return bool(told.any() and alike[told].mean() >= 0.95 and 2 * known[-1].sum() >= known.shape[1])


def _gain(seen: Curves, q: FloatArray, shares: FloatArray, *, alone: bool) -> tuple[Gain, str]:
    """Return the gain over drawing by `shares`, and what is in doubt, or nothing."""
    unknown = Gain(np.nan, -np.inf, np.inf)
    if len(seen.draws) == 0 or seen.draws[-1].sum() == 0:
        return unknown, _EMPTY
    worth = q * seen.mean[-1]
    if not 0 < worth.sum() < np.inf:  # NaN before any loss
        return unknown, _EMPTY
    worth /= worth.sum()
    drawn = np.maximum(seen.draws[-1], 1)
    wanted = shares * seen.draws[-1].sum()
    further = np.log(wanted / drawn)  # from where the region is on its curve
    moves = float((np.abs(worth) * np.abs(further)).sum()) > _STAYS
    bend, doubt = _bend(seen, np.minimum(wanted, _WINDOWS[1] * drawn)) if moves else (0.0, "")
    if doubt:
        return unknown, doubt
    values: list[float] = []
    limits: list[float] = []
    allowance = 0.0
    for window in _WINDOWS:
        slope, variance, noise = _slopes(seen, np.minimum(wanted, window * drawn))
        known = np.isfinite(variance)
        if known.sum() < min(2, len(q)):
            return unknown, _EMPTY
        slope, design, common, own = _shrunk(slope, variance, further)
        if moves and (np.abs(slope) >= _STEEPEST).any():
            return unknown, _STEEP
        mean = (worth * slope).sum()
        values.append(float((worth * np.exp(-slope * further)).sum()) - 1)
        for change in _changes(slope, further, mean, alone=alone):
            then = worth * np.exp(-change)
            lever = then * np.where(change == 0, 0.0, further)
            along = lever @ design
            error = 1.96 * np.sqrt((lever**2 * own).sum() + along @ common @ along)
            value = float(then.sum()) - 1
            limits += [value - error, value + error]
        chance = np.sqrt(np.where(known, variance, 0.0)) * np.minimum(noise, np.abs(further))
        allowance += float((worth * chance).sum()) / len(_WINDOWS)
    bends = bend * float((np.abs(worth) * further**2).sum())
    return Gain((values[0] + values[1]) / 2, float(min(limits)) - allowance - bends, float(max(limits)) + bends), ""


def _changes(slope: FloatArray, further: FloatArray, mean: float, *, alone: bool) -> tuple[FloatArray, ...]:
    """Return by how much log D would have fallen further in each region: what it may be at most and at least.

    Regions that learn alone: by their whole slopes, and without what all have in common. If not, any part of a slope
    may come from all draws together, which another allocation would not have changed: then at one end all that would
    have been higher stays as it is, and at the other all that would have been lower.
    """
    whole = slope * further
    if alone:
        return whole, whole - mean * further
    return whole, whole - mean * further, np.maximum(whole, 0.0), np.minimum(whole, 0.0)


def _bend(seen: Curves, since: FloatArray) -> tuple[float, str]:
    """Return by how much log D bends over log draws, and what is wrong if that is too much for a line, or nothing.

    Beside the line a parabola is fitted, orthogonal to it. Its coefficient in a region has a mean over regions and a
    spread around it. What is returned is the root of the mean square, less what noise makes of it.
    """
    mean, at, usable, noise = _usable(seen, since)
    weight = usable / noise**2
    total = np.maximum(weight.sum(axis=0), 1e-300)
    x: FloatArray = np.log(at)
    x -= (weight * x).sum(axis=0) / total
    square = np.maximum((weight * x**2).sum(axis=0), 1e-300)
    x = x**2 - (weight * x**3).sum(axis=0) / square * x - square / total
    square = (weight * x**2).sum(axis=0)
    known = (usable.sum(axis=0) >= 4) & (square > 1e-9)
    if not known.any():
        return 0.0, _FEW
    square = np.where(known, square, 1.0)
    bend = np.where(known, (weight * x * np.log(mean)).sum(axis=0) / square, 0.0)
    precision = known * square / _repeats(seen, usable)
    common = (precision * bend).sum() / precision.sum()
    excess = (precision * (bend - common) ** 2).sum() - (known.sum() - 1)
    spread = max(excess / max(precision.sum() - (precision**2).sum() / precision.sum(), 1e-300), 0.0)
    bend = float(np.sqrt(max(common**2 - 1 / precision.sum(), 0.0) + spread))
    return bend, _BENT if bend > _STRAIGHT else _FEW if 1 / precision.sum() > _STRAIGHT**2 else ""


def _usable(seen: Curves, since: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray, FloatArray]:
    """Return estimates, the draws that they are of, which of them can be fitted, and their noise, [T, n].

    An estimate is of the time when the losses behind it came: half of them ago.
    """
    at = seen.draws - (np.maximum(seen.count, 1) - 1) / 2
    usable = (at > 0) & (at >= since) & (seen.mean > 0) & np.isfinite(seen.mean) & np.isfinite(seen.stderr)
    mean, at = np.where(usable, seen.mean, 1.0), np.where(usable, at, 1.0)
    return mean, at, usable, np.maximum(np.where(usable, seen.stderr, 0.0) / mean, _LEAST_SE)


def _repeats(seen: Curves, usable: BoolArray) -> FloatArray:
    """Return how often records tell the same losses: those behind them over the draws in between, at least 1."""
    first = np.where(usable, seen.draws - seen.count, np.inf).min(axis=0)
    span = np.where(usable.any(axis=0), np.maximum(seen.draws[-1] - first, 1), 1.0)
    return np.maximum((usable * seen.count).sum(axis=0) / span, 1.0)


def _slopes(seen: Curves, since: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return how fast log D falls with log draws, its variance (infinite: unknown), and the mean noise of log D."""
    mean, at, usable, noise = _usable(seen, since)
    weight = usable / noise**2
    x: FloatArray = np.log(at)
    x -= (weight * x).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    spread = (weight * x**2).sum(axis=0)
    records = usable.sum(axis=0)
    known = (records >= 3) & (spread > 0)
    spread = np.where(known, spread, 1.0)
    slope: FloatArray = np.where(known, -(weight * x * np.log(mean)).sum(axis=0) / spread, 0.0)
    noise = (usable * noise).sum(axis=0) / np.maximum(records, 1)
    variance: FloatArray = _repeats(seen, usable) / spread
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
