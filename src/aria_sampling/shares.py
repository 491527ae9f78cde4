"""Targets and water-filling: the arithmetic between scores and the probabilities of regions.

Pure functions on float64 vectors of one number a region. Sources: the project's theory page, "Allocation" and "Effort
that comes anyway".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray
from aria_sampling._check import as_array, by_name, float_vector, real, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.pacing import capped

__all__ = ["shares", "target_shares", "water_fill"]


def target_shares(target: Any, sizes: Any, names: Sequence[str] = ()) -> FloatArray:
    """Return the target q: the share of each region, float64 [n_regions], summing to 1.

    Args:
        target: ``"pool"`` (by size), ``"uniform"`` (all alike), a number tau in [0, 1] (size**tau: between
            the two), or real [n_regions], not negative, not all zero (normalised; 0 is never drawn). Shares may also
            come by the names of regions, as a dictionary that has them all.
        sizes: Items in each region, [n_regions]. A region without items gets nothing.
        names: Names of the regions, for a dictionary.

    Raises:
        ValueError: `target` is none of these.
    """
    sizes = np.asarray(sizes, dtype=np.float64)
    named = {"pool": 1.0, "uniform": 0.0}
    if isinstance(target, str):
        if target not in named:
            raise ArgumentError(
                f"target={shown(target)}: expected 'pool', 'uniform', a number in [0, 1], or one share a region"
            )
        target = named[target]
    if isinstance(target, Mapping):
        target = by_name("target", cast("Mapping[Any, Any]", target), names)
    if as_array("target", target, "a name, a number, or one share a region").ndim == 0:
        tau = real("target", target, low=0, high=1)
        raw = np.where(sizes > 0, _power(np.maximum(sizes, 1.0), tau), 0.0)
    else:
        raw = float_vector("target", target, length=len(sizes))
        if not (np.isfinite(raw).all() and (raw >= 0).all() and raw.any()):
            raise ArgumentError(
                "target: expected finite shares, none negative and not all 0, got values from "
                f"{raw.min()} to {raw.max()}"
            )
        if raw[sizes == 0].any():
            raise ArgumentError(
                "target: expected 0 for regions without items, got a share for some",
                remedy="target = np.where(partition.sizes > 0, target, 0.0)",
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
