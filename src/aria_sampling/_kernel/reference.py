"""The kernel in NumPy: what each of its functions means, and the oracle that the compiled one is tested against.

Both give the same bits. So every float here comes from + - * / sqrt in the order in which `kernel.hpp` applies them:
sums that decide something run one by one (`cumsum`, `bincount`, loops), never through `sum`, which adds in pairs. This
module serves where the extension cannot be loaded, and with ``ARIA_KERNEL=reference``.

Shapes: K regions; B = ceil(K / 64) blocks of 64 regions; n rows of a round; m regions that a round visits. An array
called "padded" is float64 [64 B], one number a region and zeros behind. All arrays are C-contiguous, float64 or int64
unless said otherwise; keys and seeds are integers in 0..2**64-1. Arguments are not checked.

What a policy makes of regions is kept as weights, before they are normalised. A region that was visited has the weight
``base * exp(score - shift)``. One that never was ("cold", its score is NaN) has ``base * cold``, where `cold` is one
number for all of them: it can change every round at no cost. It stands as ``-base``: the sign marks it, so that a draw
need not look at the scores. Four arrays hold this:

- score [K]: the log score;
- w, padded: the weight, or of a cold region its base, negative;
- warm [B]: for each block the sum of w over visited regions;
- frozen [B]: for each block the sum of the bases of cold regions.

A sum over a block depends on its 64 members alone, whatever was summed before. So sums do not drift, only the blocks
that changed are summed again, and a resumed run has the same bits.
"""

from __future__ import annotations

import operator
from collections import deque
from itertools import starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aria_sampling._arrays import AnyArray, FloatArray, IntArray

__all__ = [
    "aggregate",
    "bank_update",
    "block_sums",
    "borrowed",
    "draw",
    "ema_update",
    "exp",
    "link",
    "log",
    "positions",
    "probabilities",
    "profile_update",
    "read_out",
    "replace",
    "store",
    "stream_key",
    "sum_beliefs",
    "uniforms",
    "usable",
    "variation",
    "water",
    "weigh",
    "weigh_all",
]

Words = NDArray[np.uint64]  # arithmetic on them wraps around at 2**64
Rows = tuple[IntArray, IntArray, FloatArray, FloatArray]

BLOCK = 64
FEISTEL_ROUNDS = 10
LOSS_LIMIT = 1e150
MOST_EXPONENT = 700.0
TINY = 1e-300
LEAST_WEIGHT = 1e-90  # a sum of weights that is less counts as 0: dividing by it might overflow
GAMMA = np.uint64(0x9E3779B97F4A7C15)
FACTOR_1, FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SALT = 0xD1B54A32D192ED03
LOG2_HIGH, LOG2_LOW = float.fromhex("0x1.62e42fefa0000p-1"), float.fromhex("0x1.cf79abc9e3b3ap-40")


# ---------------------------------------------------------------- random words


def stream_key(seed: int, stream: int, round: int, /) -> int:
    """Return the key of the random words of one round.

    Args:
        seed: Key of all randomness.
        stream: 0 for a draw, 1 for the switch of `RandomConditioning`, 2 for the key after `Allocator.adopt`.
        round: Number of the round.
    """
    return int(_mix(_mix(_mix(_word(seed)) + _word(stream)) + _word(round))[0])


def uniforms(key: int, n: int) -> FloatArray:
    """Return n uniform numbers in [0, 1), multiples of 2**-53, float64 [n]. A longer call begins with the same ones."""
    return _uniform(_words(key, n))


def positions(seed: int, regions: IntArray, nth: IntArray, sizes: IntArray) -> IntArray:
    """Return where in its region a visit lands, int64 [n], each in 0..size-1.

    In every cycle of `size` visits of a region each position comes once. It is a keyed permutation that is computed,
    not stored: a mixed-radix Feistel network on pairs (a, b) of about sqrt(size) each. There may be a few more pairs
    than positions; a pair outside goes through the network again.

    Args:
        seed: Key of all randomness.
        regions: The region of each visit, int64 [n].
        nth: How many visits it had before, int64 [n].
        sizes: Its number of items, at least 1, int64 [n].
    """
    size = sizes.astype(np.uint64)
    left = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.uint64)
    right = (size + left - np.uint64(1)) // left
    cycle, x = np.divmod(nth.astype(np.uint64), size)
    key = _mix(_mix(regions.astype(np.uint64) + _mix(_word(seed))) + cycle * GAMMA)
    outside = np.arange(len(x))
    while len(outside):
        x[outside] = _network(x[outside], key[outside], left[outside], right[outside])
        outside = outside[x[outside] >= size[outside]]
    return x.astype(np.int64)


def _network(x: Words, key: Words, left: Words, right: Words) -> Words:
    """Return a permutation of 0..left*right-1 of each x: ten rounds that move one half by a hash of the other."""
    half = np.uint64(32)
    a, b = np.divmod(x, right)
    for step in range(FEISTEL_ROUNDS):
        odd = step % 2 == 1
        h = ((a if odd else b) + key) ^ np.uint64(SALT * (step + 1) % 2**64)
        h = h * FACTOR_1
        h = (h ^ (h >> half)) * FACTOR_2
        radix = right if odd else left
        move = ((h >> half) * radix) >> half  # a number below radix, from 32 bits
        if odd:
            b = (b + move) % radix
        else:
            a = (a + move) % radix
    return a * right + b


def _mix(x: Words) -> Words:
    """Return the finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection that mixes all bits."""
    x = (x ^ (x >> np.uint64(30))) * FACTOR_1
    x = (x ^ (x >> np.uint64(27))) * FACTOR_2
    return x ^ (x >> np.uint64(31))


def _word(x: int) -> Words:
    return np.array([x], np.uint64)


def _words(key: int, n: int) -> Words:
    """Return the first n random words of a key: each is a function of the key and its number, nothing is consumed."""
    return _mix(_word(key) + np.arange(1, n + 1, dtype=np.uint64) * GAMMA)


def _uniform(words: Words) -> FloatArray:
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # the upper 53 bits


# ---------------------------------------------------------------- exponential and logarithm


@np.errstate(all="ignore")
def exp(x: FloatArray) -> FloatArray:
    """Return e**x, of the shape of x, to within 2 ulp; 0 at -inf. Any other x is taken into [-700, 700]."""
    return np.where(x == -np.inf, 0.0, _exp_clamped(x))


def _exp_clamped(x: FloatArray) -> FloatArray:
    """Return e**x = 2**whole * e**r with x taken into [-700, 700]; `whole` is an integer and abs(r) <= log(2) / 2."""
    x = np.minimum(np.maximum(x, -MOST_EXPONENT), MOST_EXPONENT)
    shift = 2.0**52 + 2.0**51  # adding it rounds to an integer, which then is the lowest bits
    t = np.asarray(x * 1.4426950408889634 + shift)
    whole = t - shift
    r = (x - whole * LOG2_HIGH) - whole * LOG2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + r2 * (0.5 + r * (1.0 / 6))
    middle = (1.0 / 24 + r * (1.0 / 120)) + r2 * (1.0 / 720 + r * (1.0 / 5040))
    high = (1.0 / 40320 + r * (1.0 / 362880)) + r2 * (1.0 / 3628800 + r * (1.0 / 39916800))
    highest = 1.0 / 479001600 + r * (1.0 / 6227020800)
    value = low + r4 * (middle + r4 * (high + r4 * highest))
    power = ((t.view(np.uint64) + np.uint64(1023)) << np.uint64(52)).view(np.float64)
    return value * power


@np.errstate(all="ignore")
def log(x: FloatArray) -> FloatArray:
    """Return the natural logarithm, of the shape of x, to within 2 ulp; -inf at 0, NaN below, inf at inf.

    With x = m * 2**e and m in [sqrt(1/2), sqrt(2)) it is e * log(2) + 2 * atanh((m - 1) / (m + 1)).
    """
    usable = (x > 0) & (x < np.inf)
    subnormal = x < 2.0**-1022
    scaled = np.where(usable, np.where(subnormal, x * 2.0**54, x), 1.0)
    bits = scaled.view(np.uint64)
    e = np.where(subnormal, -54.0, 0.0) + ((bits >> np.uint64(52)).astype(np.int64) - 1023).astype(np.float64)
    m = ((bits & np.uint64(0xFFFFFFFFFFFFF)) | np.uint64(0x3FF0000000000000)).view(np.float64)
    upper = m > 1.4142135623730951
    m, e = np.where(upper, m * 0.5, m), np.where(upper, e + 1, e)
    f = m - 1  # exact, and the rest is small: log(1 + f) = 2s + s R = f - (f*f/2 - s (f*f/2 + R)) as in Sun's fdlibm
    s = f / (m + 1)
    s2 = s * s
    half = 0.5 * f * f
    series = np.full_like(s, 1.0 / 21)
    for odd in range(19, 2, -2):
        series = series * s2 + 1.0 / odd
    value = e * LOG2_HIGH + (f - (half - (s * (half + 2 * s2 * series) + e * LOG2_LOW)))
    return np.where(usable, value, np.where(x == 0, -np.inf, np.where(x == np.inf, np.inf, np.nan)))


# ---------------------------------------------------------------- weights and sums by block


def block_sums(padded: FloatArray) -> FloatArray:
    """Return the sum of each block, float64 [B]: eight lanes (every eighth member), which are then summed in pairs."""
    a, b, c, d, e, f, g, h = np.cumsum(padded.reshape(-1, 8, 8), axis=1)[:, -1].T
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


def weigh_all(
    score: FloatArray, w: FloatArray, warm: FloatArray, frozen: FloatArray, base: FloatArray, shift: float, /
) -> None:
    """Compute all weights and their sums from the scores. `w`, `warm` and `frozen` are filled.

    Args:
        score: Log score of each region, [K]; NaN: never visited.
        w: Padded.
        warm: [B].
        frozen: [B].
        base: What the weight is multiplied into, padded.
        shift: What is subtracted from scores before they are exponentiated.
    """
    n_regions = len(score)
    w[:n_regions] = _weight(base[:n_regions], score, shift)
    _sum_weights(w, warm, frozen, np.arange(len(warm)))


def weigh(
    score: FloatArray,
    w: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    base: FloatArray,
    shift: float,
    regions: IntArray,
    scores: FloatArray,
    /,
) -> None:
    """Take in new scores of some regions; see `weigh_all`. `score`, `w`, `warm` and `frozen` are changed.

    Args:
        score: [K].
        w: Padded.
        warm: [B].
        frozen: [B].
        base: Padded.
        shift: That of the other weights.
        regions: Regions with a new score, ascending, int64 [m].
        scores: Their scores, [m].
    """
    score[regions] = scores
    w[regions] = _weight(base[regions], scores, shift)
    _sum_weights(w, warm, frozen, np.unique(regions // BLOCK))


@np.errstate(all="ignore")
def _weight(base: FloatArray, score: FloatArray, shift: float) -> FloatArray:
    return np.where(np.isnan(score), -base, base * exp(score - shift))


def _sum_weights(w: FloatArray, warm: FloatArray, frozen: FloatArray, blocks: IntArray) -> None:
    """Sum up the weights of some blocks."""
    members = w.reshape(-1, BLOCK)[blocks]
    warm[blocks] = block_sums(np.where(members > 0, members, 0.0))
    frozen[blocks] = block_sums(np.where(members < 0, -members, 0.0))


@np.errstate(all="ignore")
def probabilities(
    n_regions: int,
    q: FloatArray,
    q_sums: FloatArray,
    x: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    cold: float,
    exploration: float,
) -> FloatArray:
    """Return p = (1 - exploration) * x / sum(x) + exploration * q, float64 [K].

    Where every x is 0, or as good as, p = q.

    Args:
        n_regions: K.
        q: The target, padded.
        q_sums: Its sums by block, [B].
        x: Weights, or shares that `water` made of them, padded.
        warm: Sums of x over visited regions by block, [B].
        frozen: Sums of x over cold regions by block, [B].
        cold: What x of a cold region is multiplied with.
        exploration: In [0, 1].
    """
    scale, rest = _mixed(warm, frozen, cold, exploration)
    return scale * _with_cold(x[:n_regions], cold) + rest * q[:n_regions]


def _mixed(warm: FloatArray, frozen: FloatArray, cold: float, exploration: float) -> tuple[float, float]:
    """Return the two factors in p = scale * x + rest * q."""
    total = _in_order(warm + cold * frozen)
    return ((1 - exploration) / total, exploration) if total > LEAST_WEIGHT else (0.0, 1.0)


def _with_cold(x: FloatArray, cold: float) -> FloatArray:
    """Return x with the factor of cold regions."""
    return np.where(x > 0, x, cold * -x)


def _in_order(values: FloatArray) -> float:
    """Return the sum, added one by one from 0 on."""
    return 0.0 + float(np.cumsum(values)[-1]) if len(values) else 0.0


@np.errstate(all="ignore")
def water(
    w: FloatArray,
    cold: float,
    s: FloatArray,
    scale: float,
    guess: float,
    x: FloatArray,
    sums: FloatArray,
    /,
) -> float:
    """Fill `x` with max(level * u - scale * s, 0), where u are the weights and x sums to 1; return the level.

    The sum is convex and piecewise linear in the level, so Newton's method comes to the level from above, and is exact
    once it knows which regions stay dry. The ground is counted from its lowest point on, so that a huge s cancels: the
    level that is returned is counted from there, too. Without any weight, or as good as none, x and the level are 0.

    Args:
        w: Weights, padded.
        cold: What those of cold regions are multiplied with.
        s: Effort that comes anyway, padded, not negative.
        scale: What one unit of it is worth in shares, positive.
        guess: The level of the last round, 0 if there was none. One that is too low costs one more pass.
        x: Padded. It is filled.
        sums: [B]. It is filled with the sums of x by block.
    """
    u = _with_cold(w, cold)
    wet = u > 0
    lowest = np.min(s[wet] / u[wet], initial=np.inf)
    if not lowest < np.inf:
        lowest = 0.0
    ground = (s - lowest * u) * scale
    ground = np.where(ground > 0, ground, 0.0)
    level = np.float64(guess if guess > 0 else np.inf)
    n_wet_before = -1
    for _ in range(200):  # it takes 2 to 10; rounding might go to and fro
        wet = level * u > ground  # the level may be infinite: all that has a weight
        n_wet = int(np.count_nonzero(wet))
        if n_wet == 0:  # the guess lies below all ground, or there is no weight anywhere
            if level == np.inf:
                break
            level = np.float64(np.inf)
            continue
        better = (1 + _in_lanes(np.where(wet, ground, 0.0))) / np.float64(_in_lanes(np.where(wet, u, 0.0)))
        done = n_wet == n_wet_before and not better > level
        n_wet_before, level = n_wet, better
        if done:
            break
    if not level * LEAST_WEIGHT < 1:  # no weight anywhere, or as good as none
        level = np.float64(0.0)
    share = level * u - ground
    x[:] = np.where(share > 0, share, 0.0)
    sums[:] = block_sums(x)
    return float(level)


def _in_lanes(padded: FloatArray) -> float:
    """Return the sum in eight lanes, which are then added one by one."""
    return _in_order(np.cumsum(padded.reshape(-1, 8), axis=0)[-1])


# ---------------------------------------------------------------- a draw


def link(held: IntArray, visits: IntArray, last: IntArray, next_: AnyArray, prev: AnyArray, /) -> None:
    """Link the regions in the order of (last visit, number): those that were left alone for longest come first.

    Args:
        held: Regions with q > 0, ascending, int64.
        visits: Not used: the ring goes with the cursors.
        last: Number of the draw that visited each region last, int64 [K]; -1: none.
        next_: The region after each, int32 [K + 1]. Entry K is where the ring begins and ends. It is filled.
        prev: The region before each, alike.
    """
    n_regions = len(last)
    ring = np.concatenate([[n_regions], held[np.lexsort((held, last[held]))], [n_regions]])
    next_[ring[:-1]] = ring[1:]
    prev[ring[1:]] = ring[:-1]


@np.errstate(all="ignore")
def draw(
    seed: int,
    round_: int,
    n: int,
    gap: int,
    chosen: IntArray,
    last_held: int,
    offsets: IntArray,
    q: FloatArray,
    q_sums: FloatArray,
    x: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    cold: float,
    exploration: float,
    visits: IntArray,
    last: IntArray,
    next_: AnyArray,
    prev: AnyArray,
    clock: IntArray,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray, int]:
    """Draw n rows and move the cursors: `visits`, `last`, `next_`, `prev` and `clock` are changed.

    A region that no draw visited for `gap` draws is visited once for certain: at most n // 2 of them, oldest first. The
    others share what is left, by systematic sampling. So the effective p of a region is p * (n - forced) / n, and 1/n
    more where it was forced: unbiased as a mixture.

    Args:
        seed: Key of all randomness.
        round_: Number of the round.
        n: Rows.
        gap: In draws, at least 1; 0: no visit is forced.
        chosen: The regions of the rows, ascending, int64 [n], where they are decided already (with gap 0); else empty.
        last_held: The last region with q > 0.
        offsets: Where each region begins in the order of the items, int64 [K + 1].
        q: The shares of the draw, in the form of `probabilities`.
        q_sums: As there.
        x: As there.
        warm: As there.
        frozen: As there.
        cold: As there.
        exploration: As there.
        visits: Draws from each region so far, int64 [K].
        last: Number of the draw that visited it last, int64 [K]; -1: none.
        next_: The ring of `link`.
        prev: The ring of `link`.
        clock: Rounds and draws so far (a draw of no row is a round alone), int64 [2].

    Returns:
        Places of the rows in the order of the items, int64 [n]; their regions, int64 [n]; the effective probability of
        the region, float64 [n]; the weight q / p, float64 [n]; and the number of forced visits. None of these arrays
        can be written to.
    """
    if n == 0:
        clock[0] += 1
        nothing = np.empty(0, np.int64)
        return *_read_only(nothing, nothing.copy(), np.empty(0), np.empty(0)), 0
    n_regions, draws = len(visits), int(clock[1])
    key = stream_key(seed, 0, round_)
    due = _due(next_, last, most=n // 2 if gap > 0 else 0, until=draws - gap)
    m = n - len(due)
    p = np.zeros(len(x))
    p[:n_regions] = probabilities(n_regions, q, q_sums, x, warm, frozen, cold, exploration)
    scale, rest = _mixed(warm, frozen, cold, exploration)
    sums = scale * (warm + cold * frozen) + rest * q_sums
    if not len(chosen):
        chosen = _systematic(p, sums, last_held, m, uniforms(key, 1))
    regions = np.concatenate([chosen, due])
    regions.sort()
    for region in np.unique(regions).tolist():
        last[region] = draws
        _touch(next_, prev, region)
    _shuffle(regions, _words(key, n))
    sizes = offsets[regions + 1] - offsets[regions]
    places = offsets[regions] + positions(seed, regions, visits[regions] + _occurrence(regions), sizes)
    np.add.at(visits, regions, 1)
    effective = p[regions] * (m / n)
    effective[np.isin(regions, due)] += 1.0 / n
    clock += 1
    return *_read_only(places, regions, effective, q[regions] / effective), len(due)


def _read_only(places: IntArray, regions: IntArray, p: FloatArray, weights: FloatArray) -> Rows:
    for array in (places, regions, p, weights):
        array.flags.writeable = False
    return places, regions, p, weights


def _due(next_: AnyArray, last: IntArray, *, most: int, until: int) -> IntArray:
    """Return the regions whose last visit was draw `until` or earlier, oldest first, at most `most`."""
    due: list[int] = []
    region = int(next_[len(last)])
    while len(due) < most and region < len(last) and last[region] <= until:
        due.append(region)
        region = int(next_[region])
    return np.array(due, np.int64)


def _systematic(p: FloatArray, sums: FloatArray, last_held: int, m: int, u: FloatArray) -> IntArray:
    """Return which region each of m equally spaced points on the cumulated p lies in, ascending, int64 [m].

    A region gets floor(m p) or ceil(m p) points, m p on average over u. Rounding must not lose a point, nor give it to
    a region with p = 0.

    Args:
        p: Padded.
        sums: Mass of each block, [B]: that of the weights' sums, so it may differ from the sum of its p by rounding.
        last_held: The last region with q > 0.
        m: Number of points.
        u: Where the first one lies, in [0, 1), [1].
    """
    ends = np.cumsum(sums)
    points: FloatArray = (np.arange(m) + u) * (ends[-1] / m)
    begins = np.concatenate([[0.0], ends[:-1]])
    ends[-1] = np.inf
    p = np.where(p > 0, p, 0.0).reshape(-1, BLOCK)
    inner = np.cumsum(np.column_stack([begins, p]), axis=1)[:, 1:]  # where each region ends
    block: IntArray = ends.searchsorted(points, side="right")
    member = np.count_nonzero(inner[block] <= points[:, None], axis=1)
    # a block may have more mass than its regions one by one: its last points are its last region's
    held = np.where(p.any(axis=1), BLOCK * np.arange(len(p)) + BLOCK - 1 - (p[:, ::-1] > 0).argmax(axis=1), last_held)
    return np.where(member < BLOCK, BLOCK * block + member, held[block])


def _touch(next_: AnyArray, prev: AnyArray, region: int) -> None:
    """Move a region to the end of the ring."""
    end = len(next_) - 1
    next_[prev[region]], prev[next_[region]] = next_[region], prev[region]
    tail = prev[end]
    next_[tail], prev[region] = region, tail
    next_[region], prev[end] = end, region


def _shuffle(values: IntArray, words: Words) -> None:
    """Put values in random order (Fisher and Yates), by words 1, 2, ...; so any part of a draw is a fair one."""
    numbers = np.arange(1, len(values) + 1)  # how many places the last, ..., the first swap can choose from
    places = np.minimum((_uniform(words) * numbers.astype(np.float64)).astype(np.int64), numbers - 1).tolist()
    shuffled = values.tolist()
    for j in range(len(shuffled) - 1, 0, -1):
        shuffled[j], shuffled[places[j]] = shuffled[places[j]], shuffled[j]
    values[:] = shuffled


def _occurrence(values: IntArray) -> IntArray:
    """Return how many equal values stand before each, int64 [n]."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    occurrence = np.empty(len(values), np.int64)
    occurrence[order] = np.arange(len(values)) - np.searchsorted(ascending, ascending)
    return occurrence


# ---------------------------------------------------------------- what losses say of their regions


@np.errstate(all="ignore")
def aggregate(
    regions: IntArray, losses: FloatArray, n_regions: int
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, int]:
    """Sum up losses by region, in the order of the rows: so any split of a round into parts gives the same bits.

    Args:
        regions: The region of each row, int64 [n].
        losses: Its loss, [n]. One that is not finite, or of size 1e150 and more, is dropped.
        n_regions: K.

    Returns:
        Regions with losses, ascending, int64 [m]; for each the number of losses, their mean, and the sum of their
        squared deviations from it, float64 [m]; and how many losses were dropped.
    """
    usable = np.abs(losses) < LOSS_LIMIT  # False for NaN
    kept, losses = regions[usable], losses[usable]
    visited, which = np.unique(kept, return_inverse=True)
    m = len(visited)
    count = np.bincount(which, minlength=m).astype(np.float64)
    mean = np.bincount(which, losses, m) / count  # bincount adds in the order of the rows
    off = losses - mean[which]
    squares = np.bincount(which, off * off, m).astype(np.float64)
    return visited.astype(np.int64), count, mean, squares, len(regions) - len(kept)


@np.errstate(all="ignore")
def variation(cv2: FloatArray, count: FloatArray, mean: FloatArray, m2: FloatArray, before: FloatArray) -> FloatArray:
    """Return how much single losses scatter around their region's mean, one round later, float64 [2].

    The first number over the second is the squared coefficient of variation, pooled over regions: discounted sums of
    the evidence, and of the degrees of freedom behind it. The evidence is the spread inside the round if any region has
    two losses or more; else the surprise against the estimate before.

    Args:
        cv2: What this function returned before, [2].
        count: Of `aggregate`, [m].
        mean: Of `aggregate`, [m].
        m2: Of `aggregate`, [m].
        before: Estimated mean of each region before the round, [m]; NaN: there was none.
    """
    rate, most = 0.01, 100.0  # one wild loss must not blind the rest
    if (count > 1).any():
        freedom, scale, square = count - 1, mean * mean, m2
    else:
        off = mean - before
        freedom, scale, square = np.where(np.isnan(before), 0.0, 1.0), before * before, off * off
    use = (freedom > 0) & (scale > 0)
    if not use.any():
        return cv2.copy()
    freedom = freedom[use]
    evidence = np.minimum(square[use] / (scale[use] * freedom), most) * freedom
    return (1 - rate) * cv2 + rate * np.array([_in_order(evidence), _in_order(freedom)])


@np.errstate(all="ignore")
def read_out(mean: FloatArray, count: FloatArray, age: FloatArray, cv2: FloatArray) -> FloatArray:
    """Return mean, standard error and age of regions whose losses scatter in proportion to their mean, [3, m].

    Args:
        mean: Estimated mean, [m].
        count: Effective number of losses, [m]. Where it is 0 the region was never visited: its mean is NaN, its error
            and its age are infinite.
        age: A difference of clocks, [m]: what rounding takes below 0 is 0.
        cv2: Of `variation`, [2].
    """
    error = np.sqrt(cv2[0] / cv2[1] / np.where(count > TINY, count, TINY)) * np.abs(mean)
    age, cold = np.where(age > 0, age, 0.0), count == 0
    return np.stack([np.where(cold, np.nan, mean), np.where(cold, np.inf, error), np.where(cold, np.inf, age)])


def usable(mean: FloatArray, error: FloatArray, count: FloatArray) -> bool:
    """Return whether it can be so of regions with feedback: finite means, errors of at least 0, counts above 0."""
    return bool((np.isfinite(mean) & (error >= 0) & (count > 0)).all())


@np.errstate(all="ignore")
def ema_update(
    rows: FloatArray, count: FloatArray, mean: FloatArray, clock: float, rate: float, per_visit: bool
) -> FloatArray:
    """Return the moving averages of some regions one round later, float64 [m, 6].

    A row is: total, weight, squares, time, visits, losses. These are sums over visits, in which the past decays: of
    weight times mean loss, of weight, of weight² over the number of losses, of weight times round; and two that do not
    decay, of 1 and of the number of losses.

    Args:
        rows: The rows before, [m, 6].
        count: Of `aggregate`, [m].
        mean: Of `aggregate`, [m].
        clock: Number of the round.
        rate: Weight of a loss, or of a visit, in (0, 1].
        per_visit: Whether `rate` is that of a visit, however many losses it brings.
    """
    keep = np.full(len(count), 1 - rate) if per_visit else exp(log(np.array([1 - rate])) * count)
    gain = 1 - keep
    total, weight, squares, time, visits, losses = rows.T
    after = (
        keep * total + gain * mean,
        keep * weight + gain,
        keep * keep * squares + gain * gain / count,
        keep * time + gain * clock,
        visits + 1,
        losses + count,
    )
    return np.stack(after, axis=1)


@np.errstate(all="ignore")
def bank_update(
    rows: FloatArray,
    read: FloatArray,
    count: FloatArray,
    mean: FloatArray,
    m2: FloatArray,
    cv2: FloatArray,
    clock: float,
    decay: FloatArray,
    tanh: FloatArray,
    discount: float,
    clip: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the banks of moving averages of some regions one round later.

    M members of different memory are mixed by exp(-evidence / 2), the evidence against a member being the discounted
    sum of the squared z-scores of the means that it was to predict.

    Args:
        rows: What is known of each region, [m, 4 M]: mean, mean time, weight, and evidence against each member.
        read: What the mixture says of it, [m, 3]: mean, effective number of losses (0: never visited), mean time.
        count: Of `aggregate`, [m].
        mean: Of `aggregate`, [m].
        m2: Of `aggregate`, [m].
        cv2: Of `variation`, whose turn in this round comes first, [2].
        clock: Number of the round.
        decay: Log of what one loss leaves of the past, negative, [M].
        tanh: tanh(-decay / 2), [M].
        discount: How fast evidence is forgotten, per visit, in (0, 1].
        clip: The most that one visit counts against a member.

    Returns:
        The new `rows`, `read` and `cv2`.
    """
    m, members = len(count), len(decay)
    average, time, weight, evidence = rows.reshape(m, 4, members).transpose(1, 2, 0)  # each [M, m]
    before = np.where(read[:, 1] > 0, read[:, 0], np.nan)
    cv2 = variation(cv2, count, mean, m2, before)
    per = count / (cv2[0] / cv2[1] * before * before)  # infinite where the estimate is 0, NaN where there is none
    error = mean - average
    z = error * error * per
    z = np.where(z < clip, z, clip)  # NaN becomes clip, and 0 below
    z = np.where((error != 0) & ~np.isnan(before), z, 0.0)  # 0 where it was exact, or nothing was predicted
    evidence = (1 - discount) * evidence + z
    trust = _exp_clamped((np.fmin.reduce(evidence, axis=0) - evidence) * 0.5)
    keep = _exp_clamped(decay[:, None] * count)
    gain = 1 - keep
    weight = keep * weight + gain
    rate = gain / weight
    average = average + rate * (mean - average)
    time = time + rate * (clock - time)
    # tanh(n rate/2) / tanh(rate/2) is the effective number of n losses
    losses = trust * weight / ((2 - weight) * tanh[:, None])
    total, *mixture = (_over_members(part) for part in (trust, trust * average, losses, trust * time))
    after = np.stack([average, time, weight, evidence]).transpose(2, 0, 1).reshape(m, 4 * members)
    return np.ascontiguousarray(after), np.stack([part / total for part in mixture], axis=1), cv2


def profile_update(
    total: FloatArray, weight: FloatArray, bins: IntArray, losses: FloatArray, weights: FloatArray, log_keep: float
) -> tuple[FloatArray, FloatArray]:
    """Return total and weight of a moving average for each range of noise levels, one round later, float64 [R].

    Args:
        total: Before, [R].
        weight: Before, [R].
        bins: Range of each row, int64 [n] in ``0..R-1``.
        losses: float64 [n]; non-finite ones, and those of size 1e150 and more, are left out.
        weights: What each row counts, float64 [n], positive.
        log_keep: Log of what one loss leaves of the past, at least -700.
    """
    use = np.abs(losses) < LOSS_LIMIT
    bins, losses, weights = bins[use], losses[use], np.minimum(weights[use], 1e100)
    count = np.bincount(bins, minlength=len(total))
    mass = np.bincount(bins, weights, len(total))
    mean = np.bincount(bins, weights * losses, len(total)) / np.where(mass > TINY, mass, TINY)
    keep = exp(count * np.float64(log_keep))
    gain = 1 - keep
    return keep * total + gain * mean, keep * weight + gain


def _over_members(values: FloatArray) -> FloatArray:
    """Return the sum over the first axis, added one by one."""
    return 0.0 + np.cumsum(values, axis=0)[-1]


# ---------------------------------------------------------------- beliefs: mean, and number of losses behind it


def sum_beliefs(belief: FloatArray, sums: FloatArray, /) -> None:
    """Fill `sums`, float64 [B, 2], with the sums by block of number times mean, and of the number.

    Args:
        belief: Of each region the estimated mean and the effective number of losses behind it, [K, 2].
        sums: [B, 2].
    """
    sums[:] = _belief_sums(belief, np.arange(len(sums)))


@np.errstate(all="ignore")
def _belief_sums(belief: FloatArray, blocks: IntArray) -> FloatArray:
    mean, count = np.concatenate([belief, np.zeros((-len(belief) % BLOCK, 2))]).T
    members = np.where(count > 0, count * mean, 0.0), np.where(count > 0, count, 0.0)
    return np.stack([block_sums(values.reshape(-1, BLOCK)[blocks]) for values in members], axis=1)


def _believed(regions: IntArray, news: FloatArray, belief: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the blocks that `news` changes, and what becomes of their sums."""
    touched = np.unique(regions // BLOCK)
    after = belief.copy()
    after[regions] = news
    return touched, _belief_sums(after, touched)


def borrowed(regions: IntArray, news: FloatArray, belief: FloatArray, sums: FloatArray, /) -> float:
    """Return the count-weighted mean of all regions if `news` were stored; NaN if nothing is known.

    It is what regions that were never visited borrow.

    Args:
        regions: Regions with feedback, ascending, int64 [m].
        news: Their new beliefs, [m, 2].
        belief: The beliefs of all regions before, [K, 2].
        sums: What `sum_beliefs` makes of these, [B, 2].
    """
    touched, after = _believed(regions, news, belief)
    sums = sums.copy()
    sums[touched] = after
    total, count = _in_order(sums[:, 0]), _in_order(sums[:, 1])
    return total / count if count > 0 else np.nan


# ---------------------------------------------------------------- what changes a state

Write = tuple[AnyArray, Any, AnyArray | int]  # array, index, values


def replace(pairs: list[tuple[Any, Any]], /) -> None:
    """Fill arrays, all of them or none.

    Args:
        pairs: Pairs of an array and what it becomes, of equal sizes and types.

    Raises:
        ValueError: An array of another size or type than the one that it replaces. Nothing is changed.
    """
    _write([_whole(target, values) for target, values in pairs])


def store(
    regions: IntArray,
    rows: list[tuple[Any, Any]],
    whole: list[tuple[Any, Any]],
    news: FloatArray,
    belief: FloatArray,
    belief_sums: FloatArray,
    drawn: IntArray,
    visits: IntArray,
    last: IntArray,
    counters: IntArray,
    dropped: int,
    forced: int,
    drawn_rows: int,
    data_rows: int,
    scalars: FloatArray,
    recent: float,
    size: float,
    level: float,
    /,
) -> None:
    """Store what closing a round has changed, all of it or nothing; not even Ctrl-C comes between.

    Args:
        regions: Regions with feedback, ascending, int64 [m].
        rows: Pairs of an array [K, ...] and what its rows of these regions become, [m, ...].
        whole: Pairs of an array and what it becomes.
        news: New beliefs of these regions, [m, 2].
        belief: [K, 2]. It is changed, and so is all that follows but for `drawn` and the numbers.
        belief_sums: [B, 2].
        drawn: The region of every row that was drawn, int64 [n].
        visits: Draws from each region, int64 [K].
        last: Number of the draw that visited it last, int64 [K].
        counters: int64 [8]; what its entries are, `state.py` says.
        dropped: Losses dropped in the round.
        forced: Visits forced in it.
        drawn_rows: Rows drawn in all rounds so far.
        data_rows: Rows with data of their own in all rounds so far.
        scalars: float64, the first three are those that follow.
        recent: Rows drawn lately.
        size: Size of a draw.
        level: Water level.

    Raises:
        ValueError: An array of another size or type than the one that it replaces. Nothing is changed.
    """
    n_regions, m = len(visits), len(regions)
    writes: list[Write] = []
    for target, values in rows:
        width = target.size // n_regions
        _check_fit(target, values, width * m)
        writes.append((target.reshape(n_regions, width), regions, values.reshape(m, width)))
    writes += [_whole(target, values) for target, values in whole]
    first = int(np.count_nonzero(belief[regions, 1] == 0))
    touched, sums = _believed(regions, news, belief)
    visited, times = np.unique(drawn, return_counts=True)
    draws = int(counters[1])
    after = counters + np.array([1, len(drawn) > 0, dropped, forced, 0, 0, first, 0])
    after[4:6] = drawn_rows, data_rows
    writes += [(belief, regions, news), (belief_sums, touched, sums)]
    writes += [(visits, visited, visits[visited] + times), (last, visited, draws)]
    writes += [(counters, slice(None), after), (scalars, slice(3), np.array([recent, size, level]))]
    _write(writes)


def _whole(target: AnyArray, values: AnyArray) -> Write:
    _check_fit(target, values, target.size)
    return target.reshape(-1), slice(None), values.reshape(-1).copy()  # it may be a target, too


def _check_fit(target: AnyArray, values: AnyArray, size: int) -> None:
    if values.dtype != target.dtype or values.size != size:
        raise ValueError("expected an array of the target's size and type")


def _write(writes: list[Write]) -> None:
    """Write all in one call in C: a signal, such as Ctrl-C, waits until it is over.

    No value is a list or a tuple, since NumPy looks for signals when it converts one.
    """
    deque(starmap(operator.setitem, writes), maxlen=0)
