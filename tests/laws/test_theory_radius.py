"""Deviation radii: T2.1 to T2.3 of the theory page. One-step inequalities on grids, inversions, then simulation.

Statistical tests count runs (of 2000) in which a radius at alpha fails at any time. If the theorem holds, more
than 52 at alpha = 0.01 have a chance below 1e-9 (binomial tail).
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import bounds
from tests.feeding import advanced

RUNS, MOST = 2000, 52
ROOT2 = np.sqrt(2)


# -- the inequality behind T2.3 ----------------------------------------------------------------------------


def one_step(power, gain, n, rate, start):
    """Mean of exp(power Z²/2c) after one more visit from Z: Gaussian noise exactly, and Rademacher."""
    limit = rate / (2 - rate)  # lasting variance at sigma = 1; c is twice that
    c = 2 * limit / power
    u = gain**2 / (n * c)
    moved = (1 - gain) * start
    gaussian = np.exp(moved**2 / (2 * c * (1 - u))) / np.sqrt(1 - u)
    step = gain / np.sqrt(n)
    coin = (np.exp((moved + step) ** 2 / (2 * c)) + np.exp((moved - step) ** 2 / (2 * c))) / 2
    return np.exp(start**2 / (2 * c)), gaussian, coin


@pytest.mark.parametrize(("power", "budget"), [(1.0, ROOT2 - 1), (1.75, 2 * ROOT2 - 1)])
def test_potential_grows_by_at_most_its_budget(power, budget):
    """T2.3, D: with power 1 for a fixed horizon; with power 7/4 for the running H (see `radius_adaptive`)."""
    rates = np.concatenate([np.geomspace(1e-6, 0.5, 60), 1 - np.geomspace(0.5, 1e-9, 30)])[:, None, None]
    n = np.array([1, 2, 3, 5, 10, 50, 1000, 10**5])[:, None]
    deviations = np.concatenate([np.linspace(0, 3, 400), np.linspace(3, 20, 200)])  # in lasting sd
    gain = 1 - (1 - rates) ** n
    before, gaussian, coin = one_step(power, gain, n, rates, deviations * np.sqrt(rates / (2 - rates)))
    spent = budget * np.minimum(1, -2 * np.log1p(-rates) * n)
    assert (gaussian <= (before + spent) * (1 + 1e-9)).all()
    assert (coin <= gaussian * (1 + 1e-12)).all()


@pytest.mark.parametrize(("power", "budget"), [(1.0, ROOT2 - 1), (1.75, 2 * ROOT2 - 1)])
def test_potential_grows_by_at_most_its_budget_for_any_noise_and_start(power, budget):
    """The same without grid over starts or counts: A X^k - X with A = (1 - u)^-1/2, k = r / (1 - u), r = (1 - a)² is
    largest at X = (A k)^(1 / (1 - k)), and increases with u, which T1.3 bounds by power (1 - r) / 2."""
    r = np.concatenate([np.geomspace(1e-12, 0.5, 4000), 1 - np.geomspace(1e-7, 0.5, 4000)])
    u = power * (1 - r) / 2
    a, k = 1 / np.sqrt(1 - u), r / (1 - u)
    x = np.maximum((a * k) ** (1 / (1 - k)), 1.0)  # the potential is at least 1
    assert (a * x**k - x <= budget * (1 - r) * (1 + 1e-9)).all()


def test_running_budget_is_enough_below_the_stated_alpha():
    """With X = Psi^(7/4), X (1+H)^(-7/4) + C (4/3)(1+H)^(-3/4) is a supermartingale: Ville gives alpha / K <= 0.076."""
    growth = (2 * ROOT2 - 1) / (ROOT2 - 1)
    assert 0.076 ** (7 / 4) * (1 + growth * 4 / 3) <= 0.076
    assert 0.077 ** (7 / 4) * (1 + growth * 4 / 3) > 0.077


# -- inversions: each radius is where its tail bound spends alpha ------------------------------------------


@given(
    bias=st.floats(0, 2), variance=st.floats(1e-6, 4), k=st.integers(1, 99), t=st.integers(1, 10**5),
    alpha=st.floats(1e-6, 0.99),
)  # fmt: skip
def test_fixed_radius_spends_alpha(bias, variance, k, t, alpha):
    """T2.1: 2 K T exp(-(r - B)² / 2V) = alpha."""
    radius = bounds.radius_fixed(bias=bias, variance=variance, n_regions=k, rounds=t, alpha=alpha)
    assert 2 * k * t * np.exp(-((radius - bias) ** 2) / (2 * variance)) == pytest.approx(alpha, rel=1e-8)


@given(rate=st.floats(0.01, 1), sigma=st.floats(0.1, 3), k=st.integers(1, 99), alpha=st.floats(1e-6, 0.99))
def test_radius_per_visit_spends_alpha(rate, sigma, k, alpha):
    """T2.2: the sum over all visits j of 2 K exp(-(r_j - B)² / 2 V_j) is alpha."""
    visits = np.arange(1, 100_001)
    radius = bounds.radius_per_visit(bias=0.5, rate=rate, visits=visits, sigma=sigma, n_regions=k, alpha=alpha)
    r = 1 - rate
    variance = sigma**2 * rate * (1 + r**visits) / ((1 + r) * (1 - r**visits))  # sum(r^2i) / sum(r^i)²
    spent = (2 * k * np.exp(-((radius - 0.5) ** 2) / (2 * variance))).sum()
    rest = 6 / np.pi**2 / len(visits)
    assert alpha * (1 - 1.001 * rest) <= spent <= alpha * (1 - 0.999 * rest)


@given(
    rate=st.floats(0.01, 0.99), visits=st.integers(1, 99), more=st.integers(0, 500), sigma=st.floats(0.1, 3),
    k=st.integers(1, 99), alpha=st.floats(1e-6, 0.99),
)  # fmt: skip
def test_adaptive_radius_is_where_the_potential_reaches_its_budget(rate, visits, more, sigma, k, alpha):
    """T2.3: exp(Z² / 2c) = (1 + H) K / alpha at Z = W (r - B), alpha / K counted as at most 0.076."""
    samples = visits + more
    radius = bounds.radius_adaptive(
        bias=0.25, rate=rate, visits=visits, samples=samples, sigma=sigma, n_regions=k, alpha=alpha
    )
    z = (radius - 0.25) * (1 - (1 - rate) ** samples)
    potential = np.exp(z**2 / (4 * sigma**2 * rate / (2 - rate)))
    spent = (ROOT2 - 1) * min(visits, -2 * np.log1p(-rate) * samples)
    assert potential == pytest.approx((1 + spent) / min(alpha / k, 0.076), rel=1e-7)


def test_price_of_adaptivity():
    """The example of the notes: K = 64, 1e5 rounds, alpha = 0.01, rate 0.05: 1.04 sigma fixed, 1.33 adaptive."""
    limit = bounds.variance_limit(rate=0.05, samples=10**5)
    fixed = bounds.radius_fixed(bias=0, variance=limit, n_regions=64, rounds=10**5, alpha=0.01)
    adaptive = bounds.radius_adaptive(
        bias=0, rate=0.05, visits=10**5, samples=10**5, sigma=1, n_regions=64, alpha=0.01
    )  # fmt: skip
    assert fixed == pytest.approx(1.04, abs=0.005)
    assert adaptive == pytest.approx(1.33, abs=0.005)


# -- simulation: 2000 runs at once, each a region of one state ---------------------------------------------


def noise_of(kind, rng, n):
    """Mean of n losses' noise, proxy 1 / n: Gaussian, or of a two-point loss in [-1, 1]."""
    if kind == "gaussian":
        return rng.normal(size=len(n)) / np.sqrt(n)
    return (2 * rng.binomial(n.astype(int), 0.5) - n) / n


def schedule(kind, rng, believed, truth, lasting):
    """Losses that each run draws in this round, [RUNS], chosen by what happened to it before."""
    if kind == "fixed":
        return None
    error = np.where(np.isnan(believed), 0.0, np.abs(believed - truth)) / lasting
    if kind == "freeze":  # stop for good where the estimate is far off, see much where it is good
        return np.where(error > 2.5, 0, np.where(error > 1.5, 1, 4))
    if kind == "patient":  # a little at a time near the edge, to cross it by luck
        return np.where(error > 2.0, rng.integers(0, 2, RUNS), rng.integers(1, 9, RUNS))
    return rng.integers(0, 5, RUNS) * ~(believed > truth + lasting)  # "flatter": high estimates rest


def failures(ema, kind, noise, radius_of, rounds, drift, seed):
    """Number of runs whose estimate is ever outside its radius; and the largest ratio of error to radius."""
    rng = np.random.default_rng(seed)
    state, failed, worst = ema.init(RUNS), np.zeros(RUNS, bool), 0.0
    lasting = np.sqrt(ema.rate / (2 - ema.rate))
    common = np.random.default_rng(seed + 1).integers(0, 4, rounds)  # the schedule fixed beforehand
    truth, believed = np.zeros(RUNS), np.full(RUNS, np.nan)
    for t in range(rounds):
        step = drift * np.where(believed > truth, -1.0, 1.0)  # the drift runs away as well
        truth = truth + (step if kind != "fixed" else drift)
        n = schedule(kind, rng, believed, truth, lasting)
        n = np.full(RUNS, common[t]) if n is None else n
        visited = np.flatnonzero(n)
        count = n[visited].astype(float)
        mean = truth[visited] + noise_of(noise, rng, count)
        state = advanced(ema, state, aria.Feedback(visited, count, mean, np.zeros(len(count)), 0))
        estimate = ema.estimate(state)
        believed = np.where(estimate.count > 0, estimate.mean, np.nan)
        seen = np.flatnonzero(estimate.count > 0)
        ratio = np.abs(believed[seen] - truth[seen]) / radius_of(state, estimate, seen, drift, rounds)
        failed[seen] |= ratio > 1
        worst = max(worst, float(ratio.max(initial=0)))
    return int(failed.sum()), worst


def visits_and_samples(state, seen):
    return state.rows["average"][seen, 4:].T


def fixed(state, estimate, seen, drift, rounds):
    return bounds.radius_fixed(
        bias=drift * estimate.age[seen], variance=1 / estimate.count[seen], n_regions=1, rounds=rounds, alpha=0.01
    )


def per_visit(state, estimate, seen, drift, rounds):
    visits, _ = visits_and_samples(state, seen)
    return bounds.radius_per_visit(
        bias=drift * estimate.age[seen], rate=0.2, visits=visits, sigma=1, n_regions=1, alpha=0.01
    )


def adaptive(state, estimate, seen, drift, rounds):
    visits, samples = visits_and_samples(state, seen)
    return bounds.radius_adaptive(
        bias=drift * estimate.age[seen], rate=0.1, visits=visits, samples=samples, sigma=1, n_regions=1, alpha=0.01
    )


@pytest.mark.parametrize("noise", ["gaussian", "two points"])
@pytest.mark.parametrize("drift", [0.0, 0.05])
@pytest.mark.parametrize(
    ("kind", "ema", "radius"),
    [
        ("fixed", aria.Ema(rate=0.1), fixed),
        ("fixed", aria.Ema(rate=0.2, per="visit"), fixed),
        ("freeze", aria.Ema(rate=0.2, per="visit"), per_visit),
        ("flatter", aria.Ema(rate=0.2, per="visit"), per_visit),
        ("freeze", aria.Ema(rate=0.1), adaptive),
        ("patient", aria.Ema(rate=0.1), adaptive),
        ("flatter", aria.Ema(rate=0.1), adaptive),
    ],
)
def test_radii_hold(kind, ema, radius, noise, drift):
    """T2.1-2.3, S: false alarm below 1e-9 each."""
    failed, worst = failures(ema, kind, noise, radius, 80, drift, seed=7)
    assert failed <= MOST
    assert worst > 0.5  # and they are of the size of the errors


def test_the_radius_of_a_fixed_schedule_fails_for_an_adaptive_one():
    """Why T2.3 exists, and that the adversary has teeth: at 2.5 lasting sd it freezes, and stays wrong."""

    def naive(state, estimate, seen, drift, rounds):
        return np.sqrt(2 * np.log(2 / 0.05) / estimate.count[seen])  # right at one time fixed beforehand

    failed, _ = failures(aria.Ema(rate=0.1), "freeze", "gaussian", naive, 400, 0.0, seed=8)
    assert failed > 163  # the 1e-9 cut-off at alpha = 0.05


# -- the same through an allocator -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ema", "policy"),
    [
        (aria.Ema(rate=0.1), aria.PoolPolicy()),
        (aria.Ema(rate=0.1), aria.UniformPolicy()),
        (aria.Ema(rate=0.1), aria.Proportional(2.0)),
        (aria.Ema(rate=0.2, per="visit"), aria.Proportional(2.0)),
        (aria.Ema(rate=0.2, per="visit"), aria.Reducible()),
        (aria.Ema(rate=0.1), aria.GroupDRO(step_size=0.1)),
    ],
)
def test_certificates_hold_in_a_closed_loop(ema, policy):
    """T2, S: losses in [0, 2 D], D drifting; alpha = 1e-9 is the false-alarm rate itself."""
    rng = np.random.default_rng(3)
    k, rounds, drift = 48, 250, 0.004
    truth = rng.uniform(0.5, 1.5, k)
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(6 * k) % k), estimator=ema, policy=policy, seed=2)
    worst = 0.0
    for _ in range(rounds):
        draw = allocator.draw(24)
        allocator.observe(draw.regions, truth[draw.regions] * rng.integers(0, 3, 24))
        allocator.step()
        certificate = allocator.certificate(drift=drift, sigma=2.0, alpha=1e-9)  # losses span at most [0, 4]
        ratio = np.abs(allocator.estimate().mean - truth) / certificate.radius
        assert (ratio <= 1).all()
        worst = max(worst, float(ratio.max()))
        truth = np.clip(truth + rng.choice([-drift, drift], k), 0.2, 2.0)
    assert worst > 0.1
