"""Targets, water-filling and caps: the arithmetic between scores and the probabilities of regions.

Pure functions on float64 vectors of one number a region. Sources: the project's theory page, "Allocation" and "Effort
that comes anyway".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling._check import as_array, float_vector, real
from aria_sampling.errors import ArgumentError

__all__ = ["capped", "repeat_cap", "shares", "target_shares", "water_fill"]


def target_shares(target: Any, sizes: Any) -> FloatArray:
    """Return the target q: the share of each region, float64 [n_regions], summing to 1.

    Args:
        target: ``"pool"`` (by size), ``"uniform"`` (all alike), a number tau in [0, 1] (size**tau: between
            the two), or real [n_regions], not negative, not all zero (normalised; 0 is never drawn).
        sizes: Items in each region, [n_regions].

    Raises:
        ValueError: `target` is none of these.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    named = {"pool": 1.0, "uniform": 0.0}
    if isinstance(target, str):
        if target not in named:
            raise ArgumentError(
                f"target={target!r}: expected 'pool', 'uniform', a number in [0, 1], or one share a region"
            )
        target = named[target]
    if as_array("target", target, "a name, a number, or one share a region").ndim == 0:
        raw = _power(sizes, real("target", target, low=0, high=1))
    else:
        raw = float_vector("target", target, length=len(sizes))
        if not (np.isfinite(raw).all() and (raw >= 0).all() and raw.any()):
            raise ArgumentError(
                "target: expected finite shares, none negative and not all 0, got values from "
                f"{raw.min()} to {raw.max()}"
            )
        if raw.max() <= 1 and abs(raw.sum() - 1) <= len(raw) * _EPSILON:
            return raw.copy()  # shares already, as of a saved target: dividing again would change their last bits
        raw = raw / raw.max()
    return raw / raw.sum()


_EPSILON = 2.0**-52


def _power(x: FloatArray, exponent: float) -> FloatArray:
    """Return x**exponent, the same bits on every machine: libraries differ in the last ones of a general power."""
    return x**exponent if exponent in (0.0, 0.5, 1.0) else _kernel.exp(exponent * _kernel.log(x))


def water_fill(u: FloatArray, s: FloatArray, x_total: float = 1.0) -> FloatArray:
    """Return x = max(mu·u - s, 0) with the level mu at which x sums to `x_total`, [n_regions].

    Args:
        u: Wanted shares of all effort, not negative, not all 0; regions with u = 0 get nothing.
        s: Effort that comes anyway, not negative, in the unit of `x_total`.
        x_total: Effort to hand out, positive.

    With s = 0 it is ``x_total * u / sum(u)``. Exact: one sort by s/u finds which regions stay dry.
    """
    x = np.zeros_like(u)
    wet = np.flatnonzero(u > 0)
    with np.errstate(over="ignore"):
        ground = np.minimum(s[wet] / u[wet], 1e300)
    sort = np.argsort(ground, kind="stable")
    order, ground = wet[sort], ground[sort] - ground[sort[0]]  # from the lowest on, so that a huge s cancels exactly
    with np.errstate(over="ignore"):  # a share below 1e-300 in front
        level = (x_total + np.cumsum(u[order] * ground)) / np.cumsum(u[order])  # if just the first 1, 2, ... are filled
    level = np.minimum(level, 1e300)
    fills = int(np.count_nonzero(level > ground))
    x[order[:fills]] = np.maximum(u[order[:fills]] * (level[fills - 1] - ground[:fills]), 0.0)
    return x * (x_total / x.sum())  # rounding only


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


def shares(
    q: FloatArray,
    log_score: FloatArray,
    *,
    exploration: float,
    uncovered: FloatArray | None = None,
    power: float = 0.0,
    effort: FloatArray | None = None,
    cap: FloatArray | None = None,
) -> FloatArray:
    """Return the probability of each region, float64 [n_regions], summing to 1: the whole formula, in one place.

    With u = q * exp(log_score) * uncovered**power, x is u normalised, filled up around `effort`, and cut to `cap`;
    ``p = (1 - exploration) * x + exploration * q``. Where u is 0 everywhere, p = q.

    The compiled kernel computes the same without a vector of all regions; tests compare the two.
    """
    with np.errstate(divide="ignore"):
        log_u = log_score + np.log(q) + (0.0 if uncovered is None else power * np.log(uncovered))
    top = log_u.max()
    if top == -np.inf:
        return q
    x = np.exp(log_u - top)
    x /= x.sum()
    if effort is not None and effort.any():
        x = water_fill(x, effort)
    if cap is not None:
        x = capped(x, cap)
    return (1 - exploration) * x + exploration * q
