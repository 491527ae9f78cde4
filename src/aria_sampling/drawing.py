"""From probabilities of regions to items: systematic counts, forced visits, and cursors without replacement.

Three ideas, each exact (theory page, "Drawing"):

- **Systematic counts.** One uniform number places n equally spaced points on the cumulated
  probabilities. Every region gets ``floor(n p)`` or ``ceil(n p)`` draws, n·p on average, n in total.
- **Forced visits.** A region left alone for too long is drawn once for certain, the others share what is
  left of the draw. Seen as a mixture this changes the probabilities a little, and the effective ones are
  those that weights must use.
- **A keyed bijection instead of a shuffled list.** The j-th visit to a region returns the j-th item of a
  pseudo-random permutation that is computed, not stored; so all items of a region come once before any
  comes twice, and the whole state is one cursor a region.

All randomness is a function of (seed, what, round or region): nothing is consumed, so nothing needs to be
replayed to resume.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aria_sampling._errors import StateError
from aria_sampling._typing import FloatArray, IntArray, State
from aria_sampling.partition import Partition

__all__ = [
    "Cursors",
    "Draw",
    "draw_rows",
    "forced_regions",
    "permuted_positions",
    "random_words",
    "systematic_counts",
    "uniforms",
]

_Words = NDArray[np.uint64]
_DRAW_STREAM = 0  # of `random_words`; random conditioning has another
_FEISTEL_ROUNDS = 6  # with four, the successor of an item is visibly not uniform in regions of about 100
_SIZE_RATE = 0.02  # of the moving average of the draw size


def random_words(seed: int, stream: int, round_: int, n: int) -> _Words:
    """Return n random 64-bit words, uint64 [n], a function of the arguments alone (Philox 4x64)."""
    counter, key = np.array([0, 0, round_, 0], np.uint64), np.array([seed, stream], np.uint64)
    _own.philox.state = {**_own.start, "state": {"counter": counter, "key": key}}
    return np.asarray(_own.philox.random_raw(n), dtype=np.uint64)


class _Own(threading.local):
    """A thread's own generator: making one takes longer than using it. Every use sets all of its state."""

    def __init__(self) -> None:
        self.philox: Any = np.random.Philox(0)
        self.start = self.philox.state


_own = _Own()


def uniforms(words: _Words) -> FloatArray:
    """Return each word as a number in [0, 1), float64 of the same shape, from its upper 53 bits."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def systematic_counts(p: FloatArray, n: int, u: float) -> IntArray:
    """Return how often each region is drawn, int64 [n_regions], summing to n.

    Args:
        p: Probabilities, [n_regions], summing to 1.
        n: Number of draws, not negative.
        u: Uniform in [0, 1). Averaged over u, the counts are exactly n·p.
    """
    ends = p.cumsum()
    ends *= n
    np.minimum(ends, n, out=ends)
    # rounding must neither lose the last draw nor hand it to a region with p = 0
    ends[-1 if p[-1] > 0 else p.nonzero()[0][-1] :] = n
    whole = np.floor(ends)
    ends -= whole
    ends += u
    whole += np.floor(ends, out=ends)  # floor(ends + u), but ends + u itself may round up to the next whole number
    ends[0] = whole[0]
    np.subtract(whole[1:], whole[:-1], out=ends[1:])
    return ends.astype(np.int64)


def draw_rows(
    partition: Partition,
    p: FloatArray,
    n: int,
    *,
    forced: IntArray,
    visits: IntArray,
    seed: int,
    round_: int,
    target: FloatArray,
    correction: float,
) -> tuple[Draw, IntArray, IntArray]:
    """Return the draw of n rows, in an order in which any contiguous block is a fair part of it.

    With it the regions that it visits, ascending, int64 [m], and how often it visits each, int64 [m].

    Args:
        partition: The pool.
        p: Probabilities of regions before forced visits, [n_regions].
        n: Number of rows.
        forced: Regions that one row each is given to, distinct, at most n // 2.
        visits: Draws from each region so far, [n_regions].
        seed: Key of all randomness.
        round_: Number of the round.
        target: q of the weights ``(q / p)**correction``, p with forced visits.
        correction: Exponent of the weights.
    """
    words = random_words(seed, _DRAW_STREAM, round_, n + 1)
    counts = systematic_counts(p, n - len(forced), float(uniforms(words[:1])[0]))
    if len(forced):
        counts[forced] += 1
        p = p * ((n - len(forced)) / n)
        p[forced] += 1 / n
    visited = (counts > 0).nonzero()[0]
    times = counts[visited]
    shuffle = words[1:].argsort(kind="stable")  # of rows that were in the order of their regions
    place = np.arange(len(visited)).repeat(times)[shuffle]
    regions = visited[place]
    nth = (visits[visited] - (times.cumsum() - times))[place] + shuffle  # of all visits to the region
    position = permuted_positions(seed, regions, nth, partition.sizes[regions])
    items = partition.order[partition.offsets[regions] + position].astype(np.int64)
    probabilities = p[regions]
    weights = (target[regions] / probabilities) ** correction
    return Draw(items, regions, probabilities, weights, round_, len(forced)), visited, times


def forced_regions(gaps: IntArray, q: FloatArray, *, max_gap: int, most: int) -> IntArray:
    """Return the regions to visit for certain: those with a gap of `max_gap` or more, oldest first, int64 [m].

    At most `most` of them; a region with q = 0 never; of equally old ones the lower numbers first.
    """
    if most < 1 or gaps.max() < max_gap:
        return np.empty(0, np.int64)
    due = np.flatnonzero((gaps >= max_gap) & (q > 0))
    if len(due) > most:
        due = due[np.argsort(-gaps[due], kind="stable")[:most]]
    return due


def permuted_positions(seed: int, regions: IntArray, visits: IntArray, sizes: IntArray) -> IntArray:
    """Return where in its region each visit lands, int64 [n] in ``0..sizes-1``.

    Args:
        seed: Key of the permutations.
        regions: Region of each visit, [n].
        visits: How many visits the region had before, [n]; ``visits // size`` is the cycle. In every
            cycle of a region each position comes exactly once.
        sizes: Size of that region, [n].

    A mixed-radix Feistel network on pairs (left, right) with about the square root of the size each. The
    pairs may be a few more than the positions: those outside are sent through again until they are inside.
    """
    size = sizes.astype(np.uint64)
    cycle, x = np.divmod(visits.astype(np.uint64), size)
    key = _mix(_mix(regions.astype(np.uint64) + _seed_word(seed)) ^ (cycle * _ODD))
    left = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    right = (size + left - _ONE) // left
    x = _feistel(x, left, right, key)
    outside = (x >= size).nonzero()[0]
    while len(outside):
        x[outside] = _feistel(x[outside], left[outside], right[outside], key[outside])
        outside = outside[x[outside] >= size[outside]]
    return x.astype(np.int64)


def _feistel(x: _Words, left: _Words, right: _Words, key: _Words) -> _Words:
    """Return a keyed permutation of ``0..left*right-1``, applied to each x."""
    a, b = np.divmod(x, right)
    for step, salt in enumerate(key + _SALTS):
        if step % 2:
            b += _mix(a * _ODD ^ salt) % right
            np.minimum(b, b - right, out=b)  # b modulo right: what is below 0 wraps to the largest numbers
        else:
            a += _mix(b * _ODD ^ salt) % left
            np.minimum(a, a - left, out=a)
    return a * right + b


def _mix(x: _Words) -> _Words:
    """Return each word with its bits mixed: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> _SHIFTS[0])) * _FACTORS[0]
    x ^= x >> _SHIFTS[1]
    x *= _FACTORS[1]
    x ^= x >> _SHIFTS[2]
    return x


@lru_cache(maxsize=64)
def _seed_word(seed: int) -> _Words:
    """Return the seed, mixed, uint64 [1]."""
    return _mix(np.full(1, seed, np.uint64))


def _word(value: int) -> _Words:
    """Return a constant as uint64 []: NumPy computes with it in two thirds of the time of an np.uint64."""
    return np.array(value % 2**64, np.uint64)


_ONE = _word(1)
_ODD = _word(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio
_SHIFTS = _word(30), _word(27), _word(31)
_FACTORS = _word(0xBF58476D1CE4E5B9), _word(0x94D049BB133111EB)
_SALTS = np.array([[step * 0xD1B54A32D192ED03 % 2**64] for step in range(1, _FEISTEL_ROUNDS + 1)], np.uint64)


@dataclass(frozen=True, eq=False)
class Draw:
    """The rows of one round, in the order in which they are to be used.

    Attributes:
        items: Items of the pool, int64 [n].
        regions: Region of each, int64 [n].
        probabilities: Effective probability of that region in this draw, forced visits included,
            float64 [n]; the region's, not the item's.
        weights: Importance weight target / probability of each row (to the power of `correction`),
            float64 [n]: at most 1/floor, or 2/floor in a draw with forced visits. They make an average over
            the drawn rows an unbiased one over the target; training without them puts the effort where the
            allocator says.
        round: Number of the round, from 0.
        forced: How many regions were visited because they had been left alone for too long.
    """

    items: IntArray
    regions: IntArray
    probabilities: FloatArray
    weights: FloatArray
    round: int
    forced: int = 0


@dataclass(eq=False)
class Cursors:
    """What the draws so far have left behind: O(n_regions), and all that the next draw needs of them.

    Attributes:
        visits: Draws from each region so far, int64 [n_regions].
        last: Number of the non-empty draw that visited each region last, int64 [n_regions]; -1: none.
        draws: Number of non-empty draws so far.
        size: Moving average of their sizes.
        present: Moving average of the rows of each region that came anyway, float64 [n_regions].
        drawn: Moving average of the rows drawn, on the same clock.
        rate: Of these two, in [0, 1]; 0: they are sums over all rounds.
    """

    visits: IntArray
    last: IntArray
    present: FloatArray
    rate: float
    draws: int = 0
    size: float = 0.0
    drawn: float = 0.0

    @classmethod
    def start(cls, n_regions: int, *, rate: float) -> Cursors:
        """Return the cursors before any draw."""
        return cls(np.zeros(n_regions, np.int64), np.full(n_regions, -1, np.int64), np.zeros(n_regions), rate)

    def copy(self) -> Cursors:
        """Return an independent copy."""
        return replace(self, visits=self.visits.copy(), last=self.last.copy(), present=self.present.copy())

    def announce(self, n: int, present: IntArray | None) -> None:
        """Take in what the coming draw consists of: n rows drawn, and rows of the regions `present`."""
        if present is not None and len(present):
            self.present *= 1 - self.rate
            self.present += (self.rate or 1.0) * np.bincount(present, minlength=len(self.present))
        elif self.rate and self.present.any():
            self.present *= 1 - self.rate
        self.drawn += self.rate * (n - self.drawn) if self.rate else n
        if n:
            self.size = float(n) if self.draws == 0 else self.size + _SIZE_RATE * (n - self.size)

    def effort(self) -> FloatArray | None:
        """Return the rows of each region that come anyway, per row drawn, float64 [n_regions]; None: never any."""
        if self.drawn <= 0 or not self.present.any():
            return None
        return self.present / max(self.drawn, 1e-200)  # tiny after thousands of rounds without a draw

    def gaps(self) -> IntArray:
        """Return how many non-empty draws ago each region was visited, the coming draw included, int64 [n_regions]."""
        return self.draws - self.last

    def default_max_gap(self) -> int:
        """Return the gap at which a visit is forced by default: 8 draws' worth of visits for every region."""
        return math.ceil(8 * len(self.last) / self.size) if self.size > 0 else 1

    def advance(self, regions: IntArray, counts: IntArray) -> None:
        """Take in the draw itself: `counts` rows from each of `regions` (distinct)."""
        if len(regions):
            self.visits[regions] += counts
            self.last[regions] = self.draws
            self.draws += 1

    def to_state(self) -> State:
        """Return all of it as named arrays."""
        scalars = np.array([self.draws, self.size, self.drawn], np.float64)
        return {"visits": self.visits, "last": self.last, "present": self.present, "scalars": scalars}

    @classmethod
    def from_state(cls, state: State, *, rate: float) -> Cursors:
        """Return the cursors that `to_state` described; StateError if they hold what cannot be."""
        least = {"visits": 0, "last": -1, "present": 0, "scalars": 0}
        for name, low in least.items():
            if not (np.isfinite(state[name]) & (state[name] >= low)).all():
                raise StateError(f"state entry 'cursors.{name}': expected finite numbers >= {low}, got {state[name]!r}")
        draws, size, drawn = state["scalars"].tolist()
        return cls(state["visits"], state["last"], state["present"], rate, int(draws), size, drawn)
