"""The compiled kernel: makes room for the answers and calls `_core`, which is `kernel.hpp`.

`reference.py` has the same functions in Python. Their meaning is documented there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aria_sampling._arrays import AnyArray, FloatArray, IntArray
from aria_sampling._kernel import _core

__all__ = [
    "aggregate",
    "bank_update",
    "block_sums",
    "borrowed",
    "draw",
    "ema_update",
    "exp",
    "learn_bank",
    "learn_ema",
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

stream_key = _core.stream_key
weigh_all = _core.weigh_all
weigh = _core.weigh
water = _core.water
link = _core.link
borrowed = _core.borrowed
replace = _core.replace
store = _core.store
sum_beliefs = _core.sum_beliefs
usable = _core.usable


def uniforms(key: int, n: int) -> FloatArray:
    out = np.empty(n)
    _core.uniforms(key, out)
    return out


def exp(x: FloatArray) -> FloatArray:
    out = np.empty(x.shape)
    _core.exp(x, out)
    return out


def log(x: FloatArray) -> FloatArray:
    out = np.empty(x.shape)
    _core.log(x, out)
    return out


def positions(seed: int, regions: IntArray, nth: IntArray, sizes: IntArray) -> IntArray:
    out = np.empty(len(regions), np.int64)
    _core.positions(seed, regions, nth, sizes, out)
    return out


def block_sums(padded: FloatArray) -> FloatArray:
    out = np.empty(len(padded) // 64)
    _core.block_sums(padded, out)
    return out


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
    out = np.empty(n_regions)
    _core.probabilities(q, q_sums, x, warm, frozen, cold, exploration, out)
    return out


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
    ints, reals = np.empty((2, n), np.int64), np.empty((2, n))
    forced = _core.draw(
        seed, round_, gap, chosen, last_held, offsets, q, q_sums, x, warm, frozen, cold, exploration,
        visits, last, next_, prev, clock, ints, reals,
    )  # fmt: skip
    ints.flags.writeable = reals.flags.writeable = False
    return ints[0], ints[1], reals[0], reals[1], forced


def aggregate(
    regions: IntArray, losses: FloatArray, n_regions: int
) -> tuple[IntArray, FloatArray, FloatArray, FloatArray, int]:
    visited, sums = np.empty(len(regions), np.int64), np.empty((3, len(regions)))
    m, dropped = _core.aggregate(regions, losses, visited, sums)
    return visited[:m], sums[0, :m], sums[1, :m], sums[2, :m], dropped


def variation(cv2: FloatArray, count: FloatArray, mean: FloatArray, m2: FloatArray, before: FloatArray) -> FloatArray:
    out = cv2.copy()
    _core.variation(count, mean, m2, before, out)
    return out


def ema_update(
    rows: FloatArray, count: FloatArray, mean: FloatArray, clock: float, rate: float, per_visit: bool
) -> FloatArray:
    out = rows.copy()
    _core.ema_update(count, mean, clock, rate, per_visit, out)
    return out


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
    new_rows, new_read, new_cv2 = np.empty(rows.shape), np.empty(read.shape), np.empty(2)
    _core.bank_update(rows, read, count, mean, m2, cv2, clock, decay, tanh, discount, clip, new_rows, new_read, new_cv2)
    return new_rows, new_read, new_cv2


def profile_update(
    total: FloatArray, weight: FloatArray, bins: IntArray, losses: FloatArray, weights: FloatArray, log_keep: float
) -> tuple[FloatArray, FloatArray]:
    total, weight = total.copy(), weight.copy()
    _core.profile_update(bins, losses, weights, log_keep, total, weight)
    return total, weight


def read_out(mean: FloatArray, count: FloatArray, age: FloatArray, cv2: FloatArray) -> FloatArray:
    out = np.empty((3, len(mean)))
    _core.read_out(mean, count, age, cv2, out)
    return out


class Learnt(NamedTuple):
    """What a round of losses makes of m regions: see ``Learnt`` in kernel.hpp."""

    regions: IntArray
    mean: FloatArray  # of the round's losses, [m]
    rows: dict[str, FloatArray]  # of the estimator
    cv2: FloatArray
    belief: FloatArray
    stderr: FloatArray
    scores: FloatArray
    dropped: int
    usable: bool
    lowest: float  # mean
    top: float  # score


def learn_ema(
    regions: IntArray,
    losses: FloatArray,
    rows: dict[str, FloatArray],
    cv2: FloatArray,
    clock: float,
    rate: float,
    per_visit: bool,
    exponent: float,
) -> Learnt:
    n = len(regions)
    visited, reals, belief, new_cv2 = np.empty(n, np.int64), np.empty((5, n)), np.empty((n, 2)), np.empty(2)
    new = np.empty((n, 6))
    m, dropped, usable, lowest, top = _core.learn_ema(
        regions, losses, rows["average"], cv2, clock, rate, per_visit, exponent, visited, reals, belief, new, new_cv2
    )
    _, mean, _, stderr, scores = reals[:, :m]
    return Learnt(
        visited[:m], mean, {"average": new[:m]}, new_cv2, belief[:m], stderr, scores, dropped, usable, lowest, top
    )


def learn_bank(
    regions: IntArray,
    losses: FloatArray,
    rows: dict[str, FloatArray],
    cv2: FloatArray,
    clock: float,
    decay: FloatArray,
    tanh: FloatArray,
    discount: float,
    clip: float,
    exponent: float,
) -> Learnt:
    n = len(regions)
    members, read = rows["members"], rows["read"]
    visited, reals, belief, new_cv2 = np.empty(n, np.int64), np.empty((5, n)), np.empty((n, 2)), np.empty(2)
    new_members, new_read = np.empty((n, members.shape[1])), np.empty((n, 3))
    m, dropped, usable, lowest, top = _core.learn_bank(
        regions, losses, members, read, cv2, clock, decay, tanh, discount, clip, exponent,
        visited, reals, belief, new_members, new_read, new_cv2,
    )  # fmt: skip
    _, mean, _, stderr, scores = reals[:, :m]
    new = {"members": new_members[:m], "read": new_read[:m]}
    return Learnt(visited[:m], mean, new, new_cv2, belief[:m], stderr, scores, dropped, usable, lowest, top)
