"""`Watch`: looks at the losses that come in for what would switch the allocation off, and warns once.

Losses may be of the right shape and still say nothing, or something else than a discrepancy. Each check here is a
mistake that was made in public: a mean loss repeated for every row, losses that can be negative, a region whose losses
are never finite or never come, or are so small that half precision makes 0 of them, a loss whose unit changes in the
middle or differs between regions. The last check is of no mistake: the regions may be alike.

It is apart from the allocator because it only looks: what it counts is no part of a state, and changes no draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling.estimators import Estimate
from aria_sampling.estimators.base import LOSS_LIMIT
from aria_sampling.policies import Policy, Proportional
from aria_sampling.state import Progress

__all__ = ["Watch", "alike"]

Warn = Callable[[str, str], None]


class Watch:
    """Checks of the feedback of one allocator.

    Args:
        names: Names of the regions.
        warn: Called with the name of a warning and its text.
        target: What regions are worth, [K].
        policy: What draws by the estimates.
        exploration: Share of the draws that does not follow the policy.
        covered: Whether a coverage steers the draws as well.
    """

    def __init__(
        self, names: Sequence[str], warn: Warn, *, target: FloatArray, policy: Policy, exploration: float, covered: bool
    ) -> None:
        self._names, self._warn, self._target, self._covered = names, warn, target, covered
        self._steers = policy.baseline is None and exploration < 1
        self._exponent = policy.exponent if isinstance(policy, Proportional) and self._steers else 0.0
        self._equal = self._jumped = 0  # rounds, or looks, running
        self._dropped = self._reported = np.zeros(0)
        self._rounds, self._underflown = 0, False
        self._fine = self._tiny = 0  # losses of half precision: unlike bfloat16, and as small as it has them
        self._zeros = self._beside = np.zeros(0)  # by region: losses that are 0, and all losses of such rounds

    def losses(self, regions: IntArray, losses: FloatArray) -> None:
        """Look at the losses of a round, one a row: [n]."""
        if len(losses) < 2 or len(losses) != len(regions):
            return
        self._rounds += 1
        if self._rounds % _SELDOM == 0 and not self._underflown:
            self._underflow(regions, losses)
        first = losses[0]
        if (
            first != losses[1]
            or not 0 < abs(first) < LOSS_LIMIT
            or (losses != first).any()
            or (regions == regions[0]).all()
        ):
            self._equal = 0
            return
        self._equal += 1
        if self._equal == _RUNNING:
            self._warn(
                _EQUAL,
                f"all losses of a round were {first:g}, {_RUNNING} rounds running: a mean repeated for every row "
                "says nothing about regions, and the draws stay at the target; report one loss a row, made with "
                "reduction='none'",
            )

    def _underflow(self, regions: IntArray, losses: FloatArray) -> None:
        """Look for regions whose losses half precision made 0 of.

        That losses have half precision is seen from their values, whatever was made of them since: one loss of float32
        in 8,192 looks so by chance. Some must be unlike bfloat16: they need more bits than it has, or are so small that
        it has seven numbers or more between two of theirs. And some must be as small as half precision gets: where none
        is, a 0 may well be meant, as that of a hinge loss is.
        """
        first = float(losses[0])
        if not -_MOST_HALF <= first <= _MOST_HALF or float(np.float16(first)) != first:  # most often the end of it
            return
        nonzero = losses != 0
        with np.errstate(over="ignore", invalid="ignore"):
            half = losses.astype(np.float16)
            if not (half == losses)[nonzero & np.isfinite(losses)].all():
                return
            bits = half.astype(np.float32).view(np.uint32)
        size = np.abs(losses)
        self._fine += int(np.count_nonzero(nonzero & ((bits & 0xFFFF > 0) | (size < _COARSE))))
        self._tiny += int(np.count_nonzero(nonzero & (size < _LEAST_HALF)))
        if nonzero.all():
            return
        if not len(self._zeros):
            self._zeros, self._beside = np.zeros(len(self._names)), np.zeros(len(self._names))
        k = regions[~nonzero]
        np.add.at(self._zeros, k, 1)
        np.add.at(self._beside, regions, 1)
        if min(self._fine, self._tiny) < _MANY:
            return
        often = np.unique(k[(self._zeros[k] >= _MANY) & (self._zeros[k] > 0.5 * self._beside[k])])
        if len(often):
            self._underflown = True
            self._warn(
                "losses of 0",
                f"most losses of {self._named(often)} are exactly 0, and losses have half precision (fp16), in which "
                "all below 3e-8 become 0: such a region counts as learnt, and exploration alone draws it; compute the "
                "loss in float32 from the start: (prediction.float() - target.float()).square()",
            )

    def dropped(self, regions: IntArray, losses: FloatArray) -> None:
        """Look at a round in which losses were dropped, since they were not finite or too large: [n]."""
        n_regions = len(self._names)
        if not len(self._dropped):
            self._dropped, self._reported = np.zeros(n_regions), np.zeros(n_regions)
        usable = np.abs(losses) < LOSS_LIMIT
        self._dropped += np.bincount(regions[~usable], minlength=n_regions)
        self._reported += np.bincount(regions, minlength=n_regions)  # in such rounds
        often = np.flatnonzero((self._dropped >= _MANY) & (self._dropped > 0.5 * self._reported))
        if len(often):
            self._warn(
                "dropped losses",
                f"most losses of {self._named(often)} were not finite, or as large as 1e150, and were left out: it "
                "draws on from old estimates; look at what its rows do in your loss (fp16 overflow, empty rows)",
            )

    def estimates(self, regions: IntArray, mean: FloatArray, stderr: FloatArray) -> None:
        """Look at the new estimates of some regions, one of them below 0: [m]."""
        below = np.flatnonzero(mean + 2 * stderr < 0)
        if len(below):
            self._warn(
                "negative discrepancy",
                f"the discrepancy of {self._named(regions[below])} is below 0, which counts as 0: it gets the share "
                "that exploration gives it, no more; report a loss that cannot be negative, such as a squared error",
            )

    def level(self, before: FloatArray, mean: FloatArray) -> None:
        """Compare the mean losses of a round, [m], with what was believed of their regions, NaN where nothing was."""
        known = int(np.count_nonzero(before > 0))
        if known < _MANY or 2 * np.count_nonzero(mean > _JUMP * before) <= known:
            self._jumped = 0
            return
        self._jumped += 1
        if self._jumped == _RUNNING:
            self._warn(
                "unit of losses",
                f"most regions have {_JUMP:g} times the loss that was expected of them, all at once, as if losses had "
                "another unit or a new term: until each region was visited again, those that were count as harder; "
                "report what stays comparable, or begin with a new Allocator",
            )

    def visits(self, visits: IntArray, count: FloatArray) -> None:
        """Look for regions that are drawn and never reported: draws from each, and losses behind its estimate, [K]."""
        if not count.any():
            return
        silent = (visits >= _DRAWN) & (count == 0)
        if len(self._dropped):
            silent &= self._dropped == 0  # of these `dropped` speaks
        if len(silent := np.flatnonzero(silent)):
            self._warn(
                "no losses",
                f"no loss was ever reported of {self._named(silent)}, though {visits[silent].min()} rows or more were "
                "drawn of each: it draws on from the mean of the others; report the losses of all rows that were drawn",
            )

    def alike(self, rounds: int, estimate: Callable[[], Estimate]) -> bool | None:
        """Return whether the regions are alike after so many rounds; None if they are not the rounds to look at.

        These are 512, 1024, 2048 and so on, for `Proportional` alone: other policies make more of small differences,
        or of other ones. `estimate` returns what is believed of all regions.
        """
        look = rounds.bit_length() - _FIRST_LOOK.bit_length()
        if look < 0 or rounds != _FIRST_LOOK << look or self._exponent == 0:
            return None
        everywhere, k = estimate(), self._target > 0
        held = Estimate(everywhere.mean[k], everywhere.stderr[k], everywhere.count[k], everywhere.age[k])
        return alike(held, exponent=self._exponent, chance=_WRONGLY * 2.0 ** -max(look, 1))

    def regions(self, progress: Progress, *, alike: bool | None) -> None:
        """Look whether the regions differ by too much for one unit, once, or by too little to draw by.

        Nothing is to be drawn by if they were alike at two looks running. What was seen is noted beside the warnings
        that were given, so that a resumed run knows.
        """
        noted = progress.warned
        if self._steers and not progress.generation and _UNITS not in noted and self._units(progress.belief):
            noted.add(_UNITS)
        if alike is False:
            noted.discard(_WERE_ALIKE)
        elif alike and _WERE_ALIKE not in noted:
            noted.add(_WERE_ALIKE)
        elif alike and _EQUAL not in noted:
            steers, instead = ("the target", "PoolPolicy(), or UniformPolicy() where the target is uniform")
            if self._covered:  # which these two refuse
                steers, instead = "the target and the coverage", "Proportional(exponent=0)"
            self._warn(
                "nothing to allocate",
                f"in {progress.round:,} rounds the discrepancies of the regions were so alike that the shares which "
                f"they ask for differ by less than {_LITTLE:.0%}: draws follow {steers}, as without any losses. If it "
                "stays so, cut the pool along something else that makes items hard, or into fewer regions if many are "
                f"too small to be told apart; or go without: policy={instead} draws the same",
            )

    def _units(self, belief: FloatArray) -> bool:
        """Look for regions whose losses, [K, 2], are of another order than those of all others.

        Return whether the look was taken: nearly all regions must have some losses. Later it would find regions that
        were learnt to the end.
        """
        held = self._target > 0
        known = held & (belief[:, 1] >= _MANY)
        if known.sum() < max(_NEARLY_ALL * held.sum(), 2):
            return False
        k = np.flatnonzero(known & (belief[:, 0] > 0))
        k = k[belief[k, 0].argsort(kind="stable")]
        apart = belief[k[1:], 0] > _ANOTHER_ORDER * belief[k[:-1], 0]
        if apart.any():
            split = int(apart.argmax()) + 1
            self._warn(
                "units of regions",
                f"losses of {self._named(k[split:])} are more than {_ANOTHER_ORDER:,.0f} times those of "
                f"{self._named(k[:split])}: but for the exploration, draws go to the former. If they are of another "
                "kind or in another unit (a cross-entropy beside a squared error), divide each loss by what is usual "
                "for its kind: losses = losses / usual[draw.regions]. If all have one unit, nothing is wrong",
            )
        return True

    def _named(self, regions: IntArray) -> str:
        """Return at most three regions by name."""
        names = ", ".join(repr(self._names[k][:40]) for k in regions[:3].tolist())
        kind = "region" if len(regions) == 1 else f"{len(regions)} regions,"
        return f"{kind} {names}" + (" and others" if len(regions) > _SHOWN else "")


def alike(estimate: Estimate, *, exponent: float, chance: float) -> bool:
    """Return whether regions are so alike that the shares they ask for, D ** exponent, differ by less than 10%.

    "Differ" is the root mean square of log shares about their mean. The answer is a test. If they scatter by 10% or
    more, normally distributed, it is wrongly True with a probability of at most `chance`, for estimates that are normal
    with the standard errors they have: the sum of squares about the mean, each over the variance that it would have
    then, is chi-squared (Q-profile; Viechtbauer, Statistics in Medicine 26, 2007). Standard errors may be up to 22% too
    large. If they are too small, regions look less alike. One region that stands out by 20%, and by more than noise,
    is enough for False.

    Args:
        estimate: Of regions with losses, positive.
        exponent: Above 0.
        chance: In (0, 1).
    """
    from scipy.special import chdtr  # pyright: ignore

    n = len(estimate.mean)
    if n < 2 or not (estimate.mean > 0).all() or not np.isfinite(estimate.stderr).all():  # a mean is NaN: never visited
        return False
    most = _LITTLE / exponent
    log, noise = np.log(estimate.mean), (estimate.stderr / estimate.mean) ** 2
    weight = 1 / (noise / _OVERSTATED + most**2)
    apart = log - (weight * log).sum() / weight.sum()
    if (np.abs(apart) > 2 * most + np.sqrt(2 * np.log(20 * n) * noise)).any():
        return False
    return float(chdtr(n - 1, (weight * apart**2).sum())) < chance


_EQUAL = "equal losses"
_UNITS, _WERE_ALIKE = "units looked at", "alike"  # no warnings, but looks that were taken
_RUNNING = 3
_MANY = 8
_SELDOM = 4  # rounds between two looks at the precision of losses
_MOST_HALF = 65504.0
_LEAST_HALF = 2.0**-14  # of float16, but for numbers that have fewer bits the smaller they are: multiples of 2**-24
_COARSE = 2.0**-19
_NEARLY_ALL = 0.9
_ANOTHER_ORDER = 1000.0
_FIRST_LOOK = 512  # rounds
_WRONGLY = 0.01  # chance that a run is told that its regions are alike where they are not
_LITTLE = 0.1  # root mean square of log shares
_OVERSTATED = 1.5  # that a variance may be, times
_DRAWN = 50
_JUMP = 4.0
_SHOWN = 3
