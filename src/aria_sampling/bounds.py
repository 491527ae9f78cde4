"""What a guarantee is worth in numbers: one function a theorem of the theory page, which has the proofs.

Notation throughout: a *region* has discrepancy D_t in round t, which moves by at most ``drift`` a round; a
loss is D_t plus noise with standard deviation ``sigma`` (for the deviation radii: sub-Gaussian with that
proxy, ``Lmax / 2`` for losses in [0, Lmax]). An average with ``rate`` b gives a loss the *gain* a. Everything
takes and returns floats or float64 arrays, broadcast against each other.

None of the statements about averages applies to `EmaBank`, whose weights are chosen by the data (its own guarantee
is `bank_regret`), and the radii do not apply to heavy tails. What else a function leaves out stands under *Not for*.
The statements are this project's own.

>>> float(round(optimal_gain(drift=0.01, sigma=1.0), 4))
0.0702
>>> forced_gap(max_gap=16, n_regions=96, n=32)
21
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

import numpy as np

from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling._check import as_array, float_vector, integer, real, shown
from aria_sampling.errors import ArgumentError

__all__ = [
    "allocation_change",
    "bank_regret",
    "bernoulli_age",
    "delayed_bias",
    "ema_error",
    "ema_steady_state",
    "ess_fraction",
    "forced_gap",
    "greedy_allocation",
    "merged_moments",
    "minimax_regret",
    "minimax_risk",
    "neyman_penalty",
    "optimal_gain",
    "optimal_mse",
    "oscillation",
    "radius_adaptive",
    "radius_fixed",
    "radius_per_visit",
    "rmse_per_visit",
    "sample_gain",
    "timestep_ratio_bias",
    "variance_limit",
    "variance_start",
    "visit_gap_tail",
    "weight_bound",
]


# -- one moving average ------------------------------------------------------------------------------------


def sample_gain(rate: float, count: Any) -> FloatArray:
    """Return the gain ``1 - (1 - rate)**count`` of `count` losses at once (T1.3).

    Two visits of n and m losses retain as much of the past as one of n + m. The linear gain
    ``rate * count`` does not, and exceeds 1. Not for ``Ema(per="visit")``, whose gain is the rate.
    """
    return -np.expm1(-_positive("count", count) * _forgetting(_rate(rate)))


def ema_error(
    gains: Any, counts: Any, *, drift: Any, sigma: Any, initial_error: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Return bounds on the bias and the variance of ``M <- M + a (Y - M)`` after each round (T1.1).

    ``B <- (1 - a)(B + d)`` from `initial_error`, and ``V <- (1 - a)**2 V + a**2 sigma**2 / n`` from 0. Then
    ``|E M - D| <= B``, ``Var M <= V`` and ``MSE <= B**2 + V``; equalities for a ramp that moves away.

    Args:
        gains: Gain of each round, real [T] in [0, 1]; 0 where the region was not visited.
        counts: Losses in each round, [T]; used where the gain is positive, and there at least 1.
        drift: Bound on the change of D before each round, not negative, number or [T].
        sigma: Standard deviation of one loss, not negative.
        initial_error: M - D at the start.

    Not for gains or counts that depend on the losses seen before (an adaptive allocation), where it is false:
    use `radius_adaptive` or `rmse_per_visit`.
    """
    gains = float_vector("gains", gains)
    counts = float_vector("counts", counts, length=len(gains))
    if not ((gains >= 0) & (gains <= 1)).all():
        raise ArgumentError(f"gains: expected values in [0, 1], got {gains.min()} to {gains.max()}")
    if not (counts[gains > 0] >= 1).all():
        raise ArgumentError("counts: expected at least 1 in every round with a positive gain")
    drifts = _finite("drift", drift)
    if drifts.shape not in ((), gains.shape):
        raise ArgumentError(f"drift: expected a number or {len(gains)} numbers, one a round, got shape {drifts.shape}")
    drifts = np.broadcast_to(drifts, gains.shape)
    noise2 = real("sigma", sigma, low=0) ** 2
    bias, variance = np.empty(len(gains)), np.empty(len(gains))
    b, v = abs(real("initial_error", initial_error, low=-np.inf)), 0.0
    for t, (a, n, d) in enumerate(zip(gains.tolist(), counts.tolist(), drifts.tolist(), strict=True)):
        b = (1 - a) * (b + d)
        v = (1 - a) ** 2 * v + (a**2 * noise2 / n if a > 0 else 0.0)
        bias[t], variance[t] = b, v
    return bias, variance


def ema_steady_state(*, gain: Any, gap: Any, count: Any, drift: Any, sigma: Any) -> tuple[FloatArray, FloatArray]:
    """Return the lasting bias and variance right after a visit, one every `gap` rounds of `count` losses (T1.2).

    ``B = (1 - a) gap d / a`` and ``V = a / (2 - a) * sigma**2 / n``. The bias grows by d in every round without
    a visit, up to ``gap d / a - d`` just before the next. Not for schedules that depend on the losses.
    """
    a = _rate(gain)
    gap, count = _positive("gap", gap), _positive("count", count)
    if not (count >= 1).all():
        raise ArgumentError(f"count: expected at least 1 loss a visit, got {count.min()}")
    bias = (1 - a) * gap * _finite("drift", drift) / a
    return bias, a / (2 - a) * _finite("sigma", sigma) ** 2 / count


def bernoulli_age(*, gain: float, visit_probability: float) -> tuple[float, float]:
    """Return mean and mean square of the age of what an average remembers, in rounds (T1.2).

    For visits that happen independently with `visit_probability` v: ``E L = (1 - a v) / (a v)`` and
    ``E L**2 = rho (1 + 2 E L) / (1 - rho)`` with ``rho = v (1 - a)**2 + 1 - v``. On a ramp of slope d the squared
    bias averages ``d**2 E L**2``. Not for visits that an allocation chooses by the losses.
    """
    a = _rate(gain)
    v = real("visit_probability", visit_probability, low=0, high=1, open_low=True)
    mean = (1 - a * v) / (a * v)
    rho = v * (1 - a) ** 2 + 1 - v
    return mean, rho * (1 + 2 * mean) / (1 - rho)


def variance_limit(*, rate: Any, samples: Any, sigma: Any = 1.0) -> FloatArray:
    """Return a bound on the variance of a per-sample average after `samples` losses, batched anyhow (T1.3).

    ``b / (2 - b) * sigma**2 * (1 - (1 - b)**(2 N))``; equality when they came one by one. Of the plain form, which
    starts from a given mean. Not for counts that depend on the losses: there the lasting variance can be exceeded.
    """
    b = _rate(rate)
    forgotten = -np.expm1(-2 * _positive("samples", samples) * _forgetting(b))
    return b / (2 - b) * _finite("sigma", sigma) ** 2 * forgotten


def variance_start(*, rate: Any, visits: Any, sigma: Any = 1.0) -> FloatArray:
    """Return the variance of a bias-corrected average after `visits` single losses (T1.4).

    ``sigma**2 tanh(l / 2) / tanh(visits l / 2)`` with ``l = -log(1 - b)``: sigma**2 after the first, falling to
    ``b / (2 - b)`` of it; infinite before the first. At a visit with that number, whoever timed it. Not at a moment
    that the losses chose, as where an allocation stops visiting.
    """
    b, visits = _rate(rate), _positive("visits", visits)
    noise2 = _finite("sigma", sigma) ** 2
    half = _forgetting(b) / 2
    ratio = np.where(visits > 0, np.tanh(half) / np.tanh(np.where(visits > 0, visits, 1.0) * half), np.inf)
    return np.where(visits > 0, noise2, 1.0) * ratio


def rmse_per_visit(*, gain: float, gap: Any, drift: Any, sigma: Any) -> FloatArray:
    """Return a lasting bound on the root mean squared error at visits, whoever times them (T1.7).

    Constant gain b per visit, gaps of at most `gap` rounds, the timing free to depend on the past:
    ``x = (c g + sqrt(c g**2 + (1 - c) b**2 sigma**2)) / (1 - c)`` with ``c = (1 - b)**2``, ``g = gap * drift``.
    Between visits add the drift since the last. Not for gains that follow the count, nor for the first visits,
    which may err more.
    """
    b = _rate(gain)
    g, s = _finite("gap", gap) * _finite("drift", drift), _finite("sigma", sigma)
    c = (1 - b) ** 2
    return (c * g + np.sqrt(c * g**2 + (1 - c) * b**2 * s**2)) / (1 - c)


# -- high probability --------------------------------------------------------------------------------------


def radius_fixed(*, bias: Any, variance: Any, n_regions: int, rounds: int, alpha: float) -> FloatArray:
    """Return radii that hold for all regions and rounds at once, with probability 1 - alpha (T2.1).

    ``B + sqrt(2 V log(2 K T / alpha))``, B and V from `ema_error`. For a schedule that does not depend on
    losses, as under a baseline policy. Not for an adaptive allocation, nor for heavy tails.
    """
    union = 2 * integer("n_regions", n_regions, low=1) * integer("rounds", rounds, low=1) / _alpha(alpha)
    return _positive("bias", bias) + np.sqrt(2 * _positive("variance", variance) * np.log(union))


def radius_per_visit(*, bias: Any, rate: float, visits: Any, sigma: Any, n_regions: int, alpha: float) -> FloatArray:
    """Return radii for a bias-corrected average with a constant gain per visit, under any allocation (T2.2).

    ``B + sqrt(2 V log(pi**2 K j**2 / (3 alpha)))`` at the j-th visit, V from `variance_start`: the weights depend
    on the index of the visit alone, so a union over j (with shares 6 / (pi j)**2 of alpha) covers all times.
    Infinite before the first visit. Not for gains that follow the count, nor for heavy tails.
    """
    visits = _positive("visits", visits)
    variance = variance_start(rate=rate, visits=visits, sigma=sigma)
    union = np.pi**2 * integer("n_regions", n_regions, low=1) * np.maximum(visits, 1) ** 2 / (3 * _alpha(alpha))
    return _positive("bias", bias) + np.sqrt(2 * variance * np.log(union))


def radius_adaptive(
    *, bias: Any, rate: float, visits: Any, samples: Any, sigma: Any, n_regions: int, alpha: float
) -> FloatArray:
    """Return radii for a per-sample average under any allocation, for all regions and times (T2.3).

    ``B + 2 sigma sqrt(b / (2 - b) log(K (1 + H) / alpha)) / W`` with
    ``H = (sqrt(2) - 1) min(visits, 2 l samples)``, ``l = -log(1 - b)``, and ``W = 1 - (1 - b)**samples`` for the
    bias-corrected start. Counts may depend on everything seen before. About sqrt(2) wider than `radius_fixed`:
    the price of adaptivity. That H may be the one so far, and not that of a horizon, is proved for alpha / K up
    to 0.076; a larger one counts as that. Infinite before the first loss. Not for heavy tails.
    """
    b, samples = _rate(rate), _positive("samples", samples)
    n_regions = integer("n_regions", n_regions, low=1)
    spent = np.minimum(_positive("visits", visits), 2 * _forgetting(b) * samples)
    union = (1 + (np.sqrt(2) - 1) * spent) / min(_alpha(alpha) / n_regions, 0.076)
    noise = 2 * _finite("sigma", sigma) * np.sqrt(b / (2 - b) * np.log(union))
    weight = np.where(samples > 0, sample_gain(b, samples), 1.0)
    return _positive("bias", bias) + np.where(samples > 0, noise / weight, np.inf)


# -- choosing the gain -------------------------------------------------------------------------------------


def optimal_gain(*, drift: float, sigma: float) -> float:
    """Return the gain with the least lasting mean squared error (T3.1).

    The root in (0, 1) of ``x**2 (1 - a)(2 - a)**2 = a**3 s**2``, x the drift from visit to visit, s the standard
    deviation of a visit's mean; about ``(2 x / s)**(2/3)`` where that is small. Too high by a factor c costs
    ``(2 c + c**-2) / 3`` in mean squared error: err on the high side. Not the best for paths that turn or jump:
    it is the worst case, a steady ramp, that it prepares for.
    """
    x = real("drift", drift, low=0, open_low=True)
    s = real("sigma", sigma, low=0, open_low=True)
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        too_low = (x / s) ** (2 / 3) * ((1 - middle) * (2 - middle) ** 2) ** (1 / 3) > middle
        low, high = (middle, high) if too_low else (low, middle)
    return high


def optimal_mse(*, drift: float, sigma: float) -> float:
    """Return that least mean squared error, ``s**2 a (3 - 2 a) / (2 - a)**2`` at the optimal gain a (T3.1).

    Right after a visit, for a steady ramp. Not for a schedule that depends on the losses.
    """
    a = optimal_gain(drift=drift, sigma=sigma)
    return float(sigma) * float(sigma) * a * (3 - 2 * a) / (2 - a) ** 2


def minimax_risk(*, drift: Any, sigma: Any) -> FloatArray:
    """Return a lower bound on the worst mean squared error of any estimator (T3.2).

    Gaussian noise of standard deviation s = sigma a visit, x = drift per visit. The bound is the risk of telling
    two triangular paths ``±m (1 - i x / m)`` apart, the largest over m; for small x / s that is
    ``0.9363 (s**2 x)**(2/3)``, and the tuned average is within 27% of it (38% at x = 0.3 s). Not for noise of
    another shape, which may tell more than its mean does, nor for one path in particular.
    """
    x, s = np.broadcast_arrays(_finite("drift", drift), _finite("sigma", sigma))
    x, s = np.minimum(x, s)[..., None], s[..., None]  # more drift than noise cannot make it easier
    known = np.where((x > 0) & (s > 0), 1.0, 0.0)
    x, s = np.where(known > 0, x, 1.0), np.where(known > 0, s, 1.0)
    m = np.linspace(1.2, 2.4, 121) * (s**2 * x) ** (1 / 3)
    slope = x / m
    n = np.floor(1 / slope) + 1  # observations on the triangle; the sum of (1 - i slope)**2 over them:
    information = n - slope * n * (n - 1) + slope**2 * (n - 1) * n * (2 * n - 1) / 6
    ratio = (m**2 * information / s**2)[..., None]
    z = np.linspace(-9, 9, 289)  # the trapezoidal rule is exact to rounding here
    square = (np.exp(-(z**2) / 2) * np.tanh(ratio + np.sqrt(ratio) * z) ** 2).sum(-1) * (z[1] - z[0])
    return (known * m**2 * (1 - square / np.sqrt(2 * np.pi))).max(-1)


def bank_regret(*, members: int, eta: float) -> float:
    """Return what a mixture of averages can lose against the best of them, ``log(I) / eta`` (T3.5).

    In squared error discounted by 1 - gamma a visit, at every time and for every sequence: if the weights of each
    prediction are ``exp(-eta L)`` with the evidence L before it, ``eta <= (1 - gamma) / (2 R**2)`` for errors of at
    most R, and evidence is not clipped. Not for the default settings of `EmaBank`, which standardise and clip
    the evidence: for them it is the motive and not a promise.
    """
    return float(np.log(integer("members", members, low=1)) / real("eta", eta, low=0, open_low=True))


def timestep_ratio_bias(*, shares: Any, mean: Any, profile: Any) -> float:
    """Return the bias of crediting loss / profile instead of loss: Cov(profile, mean / profile) (T3.6).

    Over timesteps with the given shares; exact, and 0 where the region's mean is a multiple of the profile. Not for
    a profile fitted to the very losses it divides.

    Args:
        shares: Of each timestep, real [T], summing to 1.
        mean: Mean loss of the region at each, real [T].
        profile: What losses are divided by, positive [T]; the ratio is scaled back by its mean.
    """
    pi = float_vector("shares", shares)
    m, mu = float_vector("mean", mean, length=len(pi)), float_vector("profile", profile, length=len(pi))
    if not ((pi >= 0).all() and abs(pi.sum() - 1) < 1e-6):
        raise ArgumentError(f"shares: expected values that are not negative and sum to 1, got a sum of {pi.sum()}")
    if not (mu > 0).all():
        raise ArgumentError(f"profile: expected positive values, got a smallest of {mu.min()}")
    return float((pi * m).sum() - (pi * m / mu).sum() * (pi * mu).sum())


# -- allocation --------------------------------------------------------------------------------------------


def weight_bound(*, exploration: float, forced: bool = False) -> float:
    """Return the largest weight q/p of a row, ``1 / exploration``, and twice that with forced visits (T4.1, T5.4).

    For p of at least exploration·q, as `Allocator` makes it, and at most half of the rows forced. One over it bounds
    the effective sample size per row from below. Not for uniform exploration, exploration / K of each draw, where no
    such bound exists.
    """
    return (2.0 if forced else 1.0) / real("exploration", exploration, low=0, high=1, open_low=True)


def ess_fraction(p: Any, q: Any) -> float:
    """Return the effective sample size per row of weights q/p, ``1 / sum(q**2 / p)`` (T4.1).

    At least the exploration, in expectation over draws; at least half of it in a draw with forced visits. Not for
    unweighted training.
    """
    p = float_vector("p", p)
    q = float_vector("q", q, length=len(p))
    held = q > 0
    if not ((q >= 0).all() and held.any()):
        raise ArgumentError(f"q: expected shares, none negative and not all 0, got {q!r}")
    if not (p[held] > 0).all():
        raise ArgumentError("p: expected positive values wherever q is positive")
    return float(1 / (q[held] ** 2 / p[held]).sum())


def oscillation(log_ratio: Any) -> float:
    """Return half the spread of a log ratio, ``(max - min) / 2``: omega in the two functions below (T4.2).

    Not for a ratio of 0 in some region, where an estimate or the truth is 0: its logarithm is not finite.
    """
    values = float_vector("log_ratio", log_ratio)
    if not (len(values) and np.isfinite(values).all()):
        raise ArgumentError(f"log_ratio: expected finite numbers, at least one, got {values!r}")
    return float((values.max() - values.min()) / 2)


def allocation_change(*, omega: Any, exploration: float) -> FloatArray:
    """Return how far probabilities can move in total: ``2 (1 - exploration) tanh(omega / 2)`` (T4.2).

    omega: half the spread of log(score of the estimate / score of the truth). That is at most the exponent times the
    largest ``|log(estimate / truth)|`` for `Proportional`, and at most the step size times the summed largest
    ``|estimate - truth|`` of all rounds, over the scale, for `GroupDRO`. Equality for two groups. Not for what follows
    the formula of T4: coverage, `max_repeat`, forced visits.
    """
    return 2 * (1 - real("exploration", exploration, low=0, high=1)) * np.tanh(_positive("omega", omega) / 2)


def neyman_penalty(*, omega: Any, exploration: float) -> FloatArray:
    """Return by how much variance can exceed its minimum: ``cosh(omega)**2 / (1 - exploration)`` (T4.3).

    For draws proportional to q·h in place of q·G (the optimum, G the root mean square of the gradient); omega: half
    the spread of log(h / G). Not for unweighted training, whose steps have another mean.
    """
    share = real("exploration", exploration, low=0, high=1, open_high=True)
    return np.cosh(_positive("omega", omega)) ** 2 / (1 - share)


def greedy_allocation(curves: Callable[[int, int], float], *, n_regions: int, budget: int) -> IntArray:
    """Return the exactly optimal split of a budget over separable convex learning curves, int64 [n_regions] (T4.5).

    Not for regions that learn from each other, nor for curves with a slow start, which are not convex.

    Args:
        curves: ``curves(k, n)``: weighted discrepancy of region k after n units, convex and decreasing in n.
        n_regions: Number of regions.
        budget: Units to hand out, one at a time to the region that gains most.
    """
    n_regions, budget = integer("n_regions", n_regions, low=1), integer("budget", budget, low=0)
    given = np.zeros(n_regions, np.int64)
    gains = [(curves(k, 1) - curves(k, 0), k) for k in range(n_regions)]
    heapq.heapify(gains)
    for _ in range(budget):
        _, k = gains[0]
        given[k] += 1
        n = int(given[k])
        heapq.heapreplace(gains, (curves(k, n + 1) - curves(k, n), k))
    return given


def minimax_regret(*, n_regions: int, rounds: int, loss_bound: float, estimation_error: Any = 0.0) -> float:
    """Return the regret of exponentiated gradient with ``eta = sqrt(8 log(K) / T) / L`` (T4.6).

    ``L sqrt(T log(K) / 2)`` plus twice the summed largest estimation errors, against the worst region in
    hindsight. Deterministic; losses and estimates in [0, L]. Not for another step size, nor for `GroupDRO` with its
    default scale, which changes from round to round; exploration adds at most exploration·L·T.
    """
    k, t = integer("n_regions", n_regions, low=1), integer("rounds", rounds, low=1)
    error = float(np.sum(_positive("estimation_error", estimation_error)))
    return real("loss_bound", loss_bound, low=0) * float(np.sqrt(t * np.log(k) / 2)) + 2 * error


# -- drawing, delay ----------------------------------------------------------------------------------------


def visit_gap_tail(*, gap: Any, n: int, share: Any, forced: bool) -> FloatArray:
    """Return a bound on the chance that a region is not drawn in `gap` draws, ``(1 - m share)**gap`` (T5.2).

    For systematic draws of n in which it always has a probability of at least `share`, such as exploration·q. With
    `forced` visits, as an `Allocator` makes them unless it has a baseline policy or `max_repeat`, up to half of the
    rows go to regions that are overdue, and m = n - n // 2 are left; without, m = n. `share` is that of
    `Allocator.probabilities`, before forced visits. Not for independent draws, which miss a region more often:
    ``(1 - share)**(n gap)``.
    """
    if not isinstance(forced, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"forced={shown(forced)}: expected True or False")
    rows = integer("n", n, low=1)
    visited = np.minimum((rows - rows // 2 if forced else rows) * _positive("share", share), 1.0)
    return (1 - visited) ** _positive("gap", gap)


def forced_gap(*, max_gap: int, n_regions: int, n: int) -> int:
    """Return the longest possible gap between two draws of a region under forced visits (T5.4).

    ``max_gap + (K - 1) // (n // 2)``: at most K - 1 regions are ahead in the queue, n // 2 are served a draw. Not for
    draws of one row, which force nothing, nor for regions without a target.
    """
    served = integer("n", n, low=2) // 2
    return integer("max_gap", max_gap, low=1) + (integer("n_regions", n_regions, low=1) - 1) // served


def delayed_bias(*, bias: Any, drift: Any, delay: Any) -> FloatArray:
    """Return the bias bound of an estimate used `delay` rounds late, ``B + delay·d``; the variance stays (T6.2).

    Not for weights: those stay unbiased under any delay only if they use the p that drew the row, as `Draw` does.
    """
    return _positive("bias", bias) + _finite("delay", delay) * _finite("drift", drift)


def merged_moments(count: Any, mean: Any, m2: Any) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return count, mean and sum of squared deviations of all rows, from those of each rank (T6.1).

    ``n = sum n_r``, ``mean = sum(n_r mean_r) / n`` and ``m2 = sum(m2_r + n_r (mean_r - mean)**2)``: sums, so neither
    the number of ranks nor how rows were dealt to them matters, up to rounding. Not for averages over time: the mean of
    the ranks' moving averages is not the moving average of their rows, for ranks that saw unequal counts.

    Args:
        count: Rows of each rank, real [ranks, ...], not negative.
        mean: Their mean, of the same shape; of no account where the count is 0.
        m2: Their sum of squared deviations from it, of the same shape, not negative.

    Returns:
        Three float64 [...]; the mean is NaN where there are no rows at all.
    """
    n, means, squares = _finite("count", count), _numbers("mean", mean), _positive("m2", m2)
    if n.ndim == 0 or means.shape != n.shape or squares.shape != n.shape:
        raise ArgumentError(
            f"count, mean, m2: expected one shape with ranks first, got {n.shape}, {means.shape}, {squares.shape}"
        )
    held = n > 0
    means = np.where(held, means, 0.0)
    total = n.sum(axis=0)
    common = np.divide((n * means).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0)
    apart = np.where(held, squares + n * (means - common) ** 2, 0.0)
    return total, common, apart.sum(axis=0)


def _rate(value: Any) -> float:
    return real("rate", value, low=0, high=1, open_low=True)


def _forgetting(rate: float) -> float:
    """Return l = -log(1 - rate); 800 for a rate of 1, as float64 cannot tell exp(-800) from nothing."""
    return float(-np.log1p(-rate)) if rate < 1 else 800.0


def _alpha(value: Any) -> float:
    return real("alpha", value, low=0, high=1, open_low=True, open_high=True)


def _numbers(name: str, value: Any) -> FloatArray:
    """Return `value` as float64 of any shape; ValueError unless numbers."""
    return as_array(name, value, "a number or an array of numbers", np.float64)


def _positive(name: str, value: Any) -> FloatArray:
    """Return `value` as float64 of any shape; ValueError unless numbers, nowhere negative or NaN."""
    array = _numbers(name, value)
    if not (array >= 0).all():
        raise ArgumentError(f"{name}: expected values that are not negative, got {array.min()}")
    return array


def _finite(name: str, value: Any) -> FloatArray:
    """Return `value` as `_positive` does; ValueError if it is infinite anywhere."""
    array = _positive(name, value)
    if not np.isfinite(array).all():
        raise ArgumentError(f"{name}: expected finite values, got {array.max()}")
    return array
