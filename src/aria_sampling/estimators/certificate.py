"""`Certificate`: how far an `Ema` can be from the truth, by the theorem that fits how it was fed.

The bias-corrected average is ``sum(w_i Y_i)`` with weights that sum to 1, so on the realised path its bias is at
most the drift times the mean age of the weights, and its noise has variance ``sigma**2 sum(w_i**2)``. Both are
carried along exactly (`Estimate.age`, `Estimate.count`). What the radius may be depends on who chose the visits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling import bounds
from aria_sampling._arrays import FloatArray, State
from aria_sampling._check import as_array, real, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.estimators.ema import Ema

__all__ = ["Certificate", "certify"]


@dataclass(frozen=True, eq=False)
class Certificate:
    """Radii within which all regions' discrepancies lie, at all rounds, with probability 1 - alpha.

    Attributes:
        radius: bias + noise, float64 [n_regions]; infinite for a region never visited.
        bias: What drift can have done, drift times mean age, float64 [n_regions].
        noise: What sampling noise can have done, float64 [n_regions].
        theorem: The function of `aria_sampling.bounds` that the radius comes from.
    """

    radius: FloatArray
    bias: FloatArray
    noise: FloatArray
    theorem: str


def certify(ema: Ema, state: State, *, drift: Any, sigma: Any, alpha: float, adaptive: bool) -> Certificate:
    """Return the certificate of an `Ema` in `state`.

    Args:
        ema: The estimator.
        state: Its state, of all regions.
        drift: Bound on the change of the discrepancy in one round, number or [n_regions], not negative.
        sigma: Sub-Gaussian proxy of one loss (Lmax / 2 for losses in [0, Lmax]), number or [n_regions].
        alpha: Probability that any radius ever fails, in (0, 1).
        adaptive: Whether the visits may depend on earlier losses; False for the baseline policies.

    Raises:
        ValueError: `drift` or `sigma` negative, not finite, or of another length; `alpha` out of its range.
    """
    estimate = ema.estimate(state)
    seen = np.flatnonzero(estimate.count > 0)
    n_regions, rounds = len(estimate.count), float(state.shared["clock"][0])
    visits, samples = state.rows["average"][seen, 4:].T
    alpha = real("alpha", alpha, low=0, high=1, open_low=True, open_high=True)
    s = _per_region("sigma", sigma, n_regions)[seen]
    drifts = _per_region("drift", drift, n_regions)[seen]
    drifted = np.where(drifts > 0, drifts * estimate.age[seen], 0.0)
    if not adaptive:
        theorem = "radius_fixed"
        anytime = 6 * alpha / (np.pi * max(rounds, 1.0)) ** 2  # the shares of alpha of all rounds sum to it
        variance = s**2 / estimate.count[seen]
        radius = bounds.radius_fixed(bias=0.0, variance=variance, n_regions=n_regions, rounds=1, alpha=anytime)
    elif ema.per == "visit":
        theorem = "radius_per_visit"
        radius = bounds.radius_per_visit(
            bias=0.0, rate=ema.rate, visits=visits, sigma=s, n_regions=n_regions, alpha=alpha
        )
    else:
        theorem = "radius_adaptive"
        radius = bounds.radius_adaptive(
            bias=0.0, rate=ema.rate, visits=visits, samples=samples, sigma=s, n_regions=n_regions, alpha=alpha
        )
    bias, noise = np.full(n_regions, np.inf), np.full(n_regions, np.inf)
    bias[seen], noise[seen] = drifted, radius
    return Certificate(bias + noise, bias, noise, theorem)


def _per_region(name: str, value: Any, n_regions: int) -> FloatArray:
    """Return `value` as float64 [n_regions]; ValueError unless a number or vector, finite and not negative."""
    array = as_array(name, value, "a number, or one a region")
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"{name}: expected real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64)
    if array.shape not in ((), (n_regions,)):
        raise ArgumentError(f"{name}: expected a number or {n_regions} numbers, one a region, got shape {array.shape}")
    if not (np.isfinite(array) & (array >= 0)).all():
        raise ArgumentError(f"{name}: expected finite numbers that are not negative, got {shown(array)}")
    return np.broadcast_to(array, (n_regions,))
