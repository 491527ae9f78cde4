"""Caps on how often an item may come: the largest shares of regions, and draws that keep to them.

A share is an average. Rows drawn by chance come in bunches, and an item of a small region would then come more often
than its region's share says. So with ``max_repeat`` the rows of a region are paced: they come at equal distances, as
far as shares stand still, and never faster than the cap allows.

It is apart from the other shares because it alone looks at more than one round.
"""

from __future__ import annotations

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling.errors import ArgumentError

__all__ = ["capped", "first_pace", "paced", "repeat_cap"]


def repeat_cap(q: FloatArray, sizes: IntArray, max_repeat: float) -> FloatArray:
    """Return the largest share of each region that draws no item more than `max_repeat` times a pool-size draw.

    Raises:
        ValueError: The regions with a positive target q hold too little of the pool for that.
    """
    cap = np.where(q > 0, max_repeat * sizes / sizes.sum(), 0.0)
    if cap.sum() < 1 - 1e-12:
        raise ArgumentError(
            f"max_repeat={max_repeat}: the regions with a positive target hold a share of {cap.sum() / max_repeat:.3g} "
            f"of the pool, so expected at least {max_repeat / cap.sum():.3g}"
        )
    return cap


def capped(share: FloatArray, cap: FloatArray) -> FloatArray:
    """Return min(c·share, cap) with the scale c at which it sums to 1: what is cut off goes to the others.

    Args:
        share: Not negative, summing to 1, [n_regions].
        cap: Not negative, summing to at least 1, [n_regions]. If the regions with a share cannot take
            all of it, the rest goes to the other ones in proportion to their caps.
    """
    if (share <= cap).all():
        return share
    room = float(cap[share > 0].sum())
    if room <= 1.0:
        out = np.where(share > 0, cap, 0.0)
        spare = np.where(share > 0, 0.0, cap)
        return out + (1.0 - room) * spare / spare.sum() if spare.any() else out / room
    held = np.flatnonzero(share > 0)
    with np.errstate(divide="ignore"):
        order = held[np.argsort(-(share[held] / cap[held]), kind="stable")]
    # if just the first 0, 1, ... regions are cut to their caps, the others share what the caps leave
    cut = np.concatenate(([0.0], np.cumsum(cap[order])[:-1]))
    rest = np.cumsum(share[order][::-1])[::-1]
    fits = (1.0 - cut) * (share[order] / rest) <= cap[order]
    fits[-1] = True  # as room > 1 says, though rounding may not
    first = int(np.argmax(fits))
    out = np.where(share > 0, cap, 0.0)
    out[order[first:]] = (1.0 - cut[first]) * (share[order[first:]] / rest[first])
    return out


def first_pace(seed: int, n_regions: int) -> FloatArray:
    """Return the pace before the first draw, float64 [2, n_regions]: what regions are owed, and what they carry.

    What a region is owed is its shares so far less its rows; it begins anywhere within one row, so that regions of
    equal shares do not all come at once. What it carries are its rows so far less what the cap has allowed since, or 0.
    """
    owed = _kernel.uniforms(_kernel.stream_key(seed, _STREAM, 0), n_regions) - 0.5
    return np.stack([owed, np.zeros(n_regions)])


def paced(p: FloatArray, cap: FloatArray, pace: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """Return how many of n rows each region gets, int64 [n_regions], and the pace after them.

    Rows go where most is owed; no region gets more than leaves it with a load below 2. So over any run of whole draws
    of D rows together, a region gets fewer than ``cap * D + 2`` of them. Inside a region every item comes once before
    any comes again, so no item comes more than ``ceil(max_repeat * D / n_items) + 1`` times.

    Args:
        p: The share of each region, at most its cap, summing to 1, [n_regions]. Regions with 0 get nothing.
        cap: The largest shares, [n_regions].
        pace: Of `first_pace`, or of this function.
        n: Rows.

    If all regions together may not take n rows, those with the most room take more: then a region may get one row more
    than said. Tests have not met it.
    """
    owed, load = pace[0] + n * p, pace[1] - n * cap
    most = np.where(p > 0, np.maximum(np.ceil(_DEPTH - load) - 1, 0.0), 0.0)
    while (short := n - most.sum()) > 0:
        held = np.flatnonzero(p > 0)
        most[held[np.argsort(load[held] + most[held], kind="stable")][: int(short)]] += 1
    rows = np.minimum(np.maximum(np.floor(owed), 0.0), most)
    while (missing := int(n - rows.sum())) != 0:  # by one row a region, those that are owed most, or least, first
        open_ = np.flatnonzero(rows < most if missing > 0 else rows > 0)
        order = open_[np.argsort(np.sign(missing) * (rows - owed)[open_], kind="stable")]
        rows[order[: abs(missing)]] += np.sign(missing)
    return rows.astype(np.int64), np.stack([owed - rows, np.maximum(load + rows, 0.0)])


_STREAM = 3  # of the kernel's streams of random words
_DEPTH = 2 - 1e-9  # a load below it, whatever rounding does
