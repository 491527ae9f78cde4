"""`Drawer`: the working copy of an allocation that draws move, from shares to rows.

A draw goes on from the draw before it, whose round may still be open. So there are two: `Progress` as of the last
closed round, which is saved, and the drawer, which is ahead of it by the open rounds and can be made anew from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling.coverage import Coverage
from aria_sampling.pacing import capped, paced
from aria_sampling.partition import Partition
from aria_sampling.rounds import Draw, OpenRound, Tally
from aria_sampling.state import Change, Progress

__all__ = ["Drawer", "next_tally", "padded"]


class Shares(NamedTuple):
    """What a draw follows, as the kernel takes it; see ``Shares`` in kernel.hpp. Padded arrays, and sums by block."""

    q: FloatArray
    q_sums: FloatArray
    x: FloatArray
    warm: FloatArray
    frozen: FloatArray
    cold: float


_NOTHING = np.empty(0, np.int64)
_SIZE_RATE = 0.02  # of the moving average of the size of a draw
_MOST_SCALE = 1e200  # data rows for each drawn one: beyond, nothing but regions without data is drawn


class Drawer:
    """Draws from the shares of the coming round, and moves the cursors.

    Args:
        partition: The pool.
        target: q, float64 [n_regions].
        base: What the weights of regions are multiplied into, q times a power of the uncovered share, [n_regions].
        coverage: What trains anyway; None: nothing.
        data: Items with data of their own in each region, float64 [n_regions]; with online coverage the rows that
            came, as of the last closed round.
        cap: The most that the share of a region may be, [n_regions]; None: no cap.
        exploration: Share of each draw that follows q.
        forcing: Whether regions that were left alone for too long are visited by force.
        key: Key of all randomness.
        progress: Where it starts.
        open_rounds: Rounds that were drawn since.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        target: FloatArray,
        base: FloatArray,
        coverage: Coverage | None,
        data: FloatArray,
        cap: FloatArray | None,
        exploration: float,
        forcing: bool,
        key: int,
        progress: Progress,
        open_rounds: Iterable[OpenRound] = (),
    ) -> None:
        self._partition, self._coverage, self._cap, self._key = partition, coverage, cap, key
        self._exploration, self._forcing = exploration, forcing
        self._q, self._base = padded(target), padded(base)
        self._q_sums = _kernel.block_sums(self._q)
        held = np.flatnonzero(target > 0)
        self._last_held = int(held[-1])
        n_regions = partition.n_regions
        self._none = np.zeros(len(self._q_sums))
        # weights: see kernel.hpp
        self._score = progress.score.copy()
        self._w, self._warm, self._frozen = self._base.copy(), self._none.copy(), self._none.copy()
        self._applied = -1
        self._shift: float = progress.shift
        self._cold, self._cold_weight = (progress.cold, progress.shift), _cold_weight(progress.cold, progress.shift)
        self._weigh_all(self._shift)
        if coverage is not None or cap is not None:
            self._x, self._x_sums = np.zeros(len(self._q)), self._none.copy()
        self._data = padded(data) if coverage is not None else self._none
        self._n_data = float(data.sum()) if coverage is not None else 0.0
        # cursors
        self._visits, self._last = progress.visits.copy(), progress.last.copy()
        self._clock = np.array([progress.round, progress.draws])
        self._pace = progress.pace.copy()
        for opened in open_rounds:
            self._pass_by(opened)
        self._next, self._prev = np.zeros(n_regions + 1, np.int32), np.zeros(n_regions + 1, np.int32)
        _kernel.link(held, self._visits, self._last, self._next, self._prev)

    def _pass_by(self, opened: OpenRound) -> None:
        """Go past a round that was drawn before."""
        np.add.at(self._visits, opened.draw.regions, 1)
        self._last[opened.draw.regions] = self._clock[1]
        self._clock += (1, len(opened.draw.items) > 0)
        self._pace = opened.pace
        if opened.present is not None:
            self.take_in(opened.present)

    @property
    def round(self) -> int:
        """Number of the round that it draws next."""
        return int(self._clock[0])

    # -- what is known ---------------------------------------------------------------------------------

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in what feedback has made of the scores; what it has already is passed over."""
        for change in changes:
            if change.round <= self._applied:
                continue
            if change.regions is None or change.shift != self._shift:
                self._score[slice(None) if change.regions is None else change.regions] = change.scores
                self._weigh_all(change.shift)
                self._shift = change.shift  # last: if Ctrl-C comes before, all of it is done again
            else:
                _kernel.weigh(
                    self._score, self._w, self._warm, self._frozen, self._base, self._shift,
                    change.regions, change.scores,
                )  # fmt: skip
            if (change.cold, change.shift) != self._cold:
                self._cold, self._cold_weight = (change.cold, change.shift), _cold_weight(change.cold, change.shift)
            self._applied = change.round

    def _weigh_all(self, shift: float) -> None:
        _kernel.weigh_all(self._score, self._w, self._warm, self._frozen, self._base, shift)

    def take_in(self, present: IntArray) -> None:
        """Count the rows that train anyway in the coming round (online coverage)."""
        assert self._coverage is not None
        after = decayed(self._data[: self._partition.n_regions], present, self._coverage)
        self._data[: len(after)] = after

    # -- shares and rows -------------------------------------------------------------------------------

    def _shares(self, tally: Tally) -> tuple[Shares, float]:
        """Return what the coming draw follows, and the water level."""
        cold = self._cold_weight
        x, warm, frozen, level = self._w, self._warm, self._frozen, 0.0
        coverage = self._coverage
        if coverage is not None and (scale := self._scale(coverage, tally)) > 0:
            level = _kernel.water(self._w, cold, self._data, scale, tally.level, self._x, self._x_sums)
            x, warm, frozen, cold = self._x, self._x_sums, self._none, 1.0
        if self._cap is not None:
            n_regions = self._partition.n_regions
            share = _kernel.probabilities(n_regions, self._q, self._q_sums, x, warm, frozen, cold, 0.0)
            self._x = padded(capped(share, self._cap))
            x, warm, frozen, cold = self._x, _kernel.block_sums(self._x), self._none, 1.0
        return Shares(self._q, self._q_sums, x, warm, frozen, cold), level

    def _scale(self, coverage: Coverage, tally: Tally) -> float:
        """Return what one item with data, or with online coverage one row that came, is worth in drawn shares."""
        if coverage.is_online:
            return min(coverage.weight / max(tally.recent, 1e-300), _MOST_SCALE)
        ratio = 1.0 if tally.drawn == tally.data_rows else tally.data_rows / max(tally.drawn, 1e-300)
        return min(coverage.weight * ratio / self._n_data, _MOST_SCALE)

    def probabilities(self, tally: Tally) -> FloatArray:
        """Return what the coming draw follows, before forced visits, float64 [n_regions], summing to 1."""
        shares, _ = self._shares(tally)
        return _kernel.probabilities(self._partition.n_regions, *shares, self._exploration)

    def draw(self, n: int, tally: Tally, present: IntArray | None) -> OpenRound:
        """Draw n rows. `tally`: the sums, this draw included; `present`: what was taken in for it."""
        shares, level = self._shares(tally)
        chosen, pace = _NOTHING, self._pace
        if self._cap is not None and n:
            p = _kernel.probabilities(self._partition.n_regions, *shares, self._exploration)
            rows, pace = paced(p, self._cap, pace, n)
            chosen = np.repeat(np.arange(len(rows)), rows)
        gap = math.ceil(8 * self._partition.n_regions / tally.size) if self._forcing and tally.size > 0 else 0
        round_ = self.round
        places, regions, p, weights, forced = _kernel.draw(
            self._key, round_, n, gap, chosen, self._last_held, self._partition.offsets, *shares, self._exploration,
            self._visits, self._last, self._next, self._prev, self._clock,
        )  # fmt: skip
        pool = self._partition  # an implicit one has its items in order, and makes no array of them
        items = places if pool.is_implicit else pool.order.take(places).astype(np.int64, copy=False)
        items.flags.writeable = False  # the other arrays come so
        self._pace = pace
        draw = Draw(items, regions, p, weights, round_, forced)
        return OpenRound(draw, tally if level == tally.level else tally._replace(level=level), pace, present)


def padded(values: FloatArray) -> FloatArray:
    """Return `values` with zeros behind them, to a whole number of blocks of 64, as float64."""
    return np.concatenate([values, np.zeros(-len(values) % 64)])


def decayed(counts: FloatArray, present: IntArray, coverage: Coverage) -> FloatArray:
    """Return the counts of online coverage one round later, float64 [n_regions]."""
    return counts * coverage.keep + np.bincount(present, minlength=len(counts))


def next_tally(tally: Tally, n: int, data_rows: int | None, coverage: Coverage | None) -> Tally:
    """Return the sums with a draw of n rows, beside which `data_rows` with data train (None: as many as are drawn)."""
    keep = coverage.keep if coverage is not None else 1.0
    size = tally.size
    if n:
        size = float(n) if size == 0 else size + _SIZE_RATE * (n - size)
    return Tally(
        drawn=tally.drawn + n,
        data_rows=tally.data_rows + (n if data_rows is None else data_rows),
        recent=tally.recent * keep + n,
        size=size,
        level=tally.level,
    )


def _cold_weight(cold: float, shift: float) -> float:
    """Return what the base of a region never visited is multiplied by; 1 if nothing is known at all."""
    return 1.0 if math.isnan(cold) else float(_kernel.exp(np.array([cold - shift]))[0])
