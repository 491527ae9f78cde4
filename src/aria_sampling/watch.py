"""`Watch`: looks at the losses that come in for what would switch the allocation off, and warns once.

Losses may be of the right shape and still say nothing, or something else than a discrepancy. Each check here is a
mistake that was made in public: a mean loss repeated for every row, losses that can be negative, a region whose losses
are never finite or never come, a loss whose unit changes in the middle.

It is apart from the allocator because it only looks: what it counts is no part of a state, and changes no draw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling.estimators.base import LOSS_LIMIT

__all__ = ["Watch"]

Warn = Callable[[str, str], None]


class Watch:
    """Checks of the feedback of one allocator.

    Args:
        names: Names of the regions.
        warn: Called with the name of a warning and its text.
    """

    def __init__(self, names: Sequence[str], warn: Warn) -> None:
        self._names, self._warn = names, warn
        self._equal = self._jumped = 0  # rounds, or looks, running
        self._dropped = self._reported = np.zeros(0)

    def losses(self, regions: IntArray, losses: FloatArray) -> None:
        """Look at the losses of a round, one a row: [n]."""
        if len(losses) < 2 or len(losses) != len(regions):
            return
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
                "equal losses",
                f"all losses of a round were {first:g}, {_RUNNING} rounds running: a mean repeated for every row "
                "says nothing about regions, and the draws stay at the target; report one loss a row, made with "
                "reduction='none'",
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

    def _named(self, regions: IntArray) -> str:
        """Return at most three regions by name."""
        names = ", ".join(repr(self._names[k][:40]) for k in regions[:3].tolist())
        kind = "region" if len(regions) == 1 else f"{len(regions)} regions,"
        return f"{kind} {names}" + (" and others" if len(regions) > _SHOWN else "")


_RUNNING = 3
_MANY = 8
_DRAWN = 50
_JUMP = 4.0
_SHOWN = 3
