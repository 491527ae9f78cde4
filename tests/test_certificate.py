"""`Allocator.certificate`: the theorem that fits, exact numbers from the weights, and what it refuses."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import bounds
from tests.helpers import play

POOL = aria.Partition.from_labels([0, 0, 0, 1, 1, 2, 3])
ADAPTIVE = [aria.Proportional(), aria.Softmax(), aria.Minimax(), aria.Reducible(), aria.Mixture((aria.Softmax(),))]
BASELINES = [aria.PoolPolicy(), aria.UniformPolicy()]


def played(ema, policy, rounds=25, **settings):
    allocator = aria.Allocator(POOL, estimator=ema, policy=policy, **settings)
    play(allocator, rounds, n=3)
    return allocator


@pytest.mark.parametrize("per", ["sample", "visit"])
@pytest.mark.parametrize("policy", BASELINES, ids=repr)
def test_baselines_have_a_schedule_fixed_beforehand(policy, per):
    """T2.1 at any time: round t gets the share 6 / (pi t)² of alpha."""
    allocator = played(aria.Ema(rate=0.1, per=per), policy, rounds=25)
    certificate, estimate = allocator.certificate(drift=0.01, sigma=2.0, alpha=0.03), allocator.estimate()
    assert certificate.theorem == "radius_fixed"
    np.testing.assert_allclose(certificate.bias, 0.01 * estimate.age, rtol=1e-12)
    spent = 2 * 4 * np.exp(-(certificate.noise**2) / (2 * 4 / estimate.count))
    np.testing.assert_allclose(spent, 0.03 * 6 / (np.pi * 25) ** 2, rtol=1e-9)
    np.testing.assert_allclose(certificate.radius, certificate.bias + certificate.noise, rtol=1e-15)


@pytest.mark.parametrize("policy", ADAPTIVE, ids=repr)
def test_per_visit_averages_use_the_index_of_the_visit(policy):
    allocator = played(aria.Ema(rate=0.3, per="visit"), policy)
    certificate = allocator.certificate(drift=0.0, sigma=1.5, alpha=0.02)
    assert certificate.theorem == "radius_per_visit"
    assert (certificate.bias == 0).all()
    visits = count_visits(allocator, 25)
    expected = bounds.radius_per_visit(bias=0, rate=0.3, visits=visits, sigma=1.5, n_regions=4, alpha=0.02)
    np.testing.assert_allclose(certificate.noise, expected, rtol=1e-12)


@pytest.mark.parametrize("policy", ADAPTIVE, ids=repr)
def test_per_sample_averages_pay_for_adaptive_counts(policy):
    allocator = played(aria.Ema(rate=0.3), policy)
    certificate = allocator.certificate(drift=0.2, sigma=1.5, alpha=0.02)
    assert certificate.theorem == "radius_adaptive"
    samples = count_visits(allocator, 25, rows=True)
    expected = bounds.radius_adaptive(
        bias=0, rate=0.3, visits=count_visits(allocator, 25), samples=samples, sigma=1.5, n_regions=4, alpha=0.02
    )
    np.testing.assert_allclose(certificate.noise, expected, rtol=1e-12)
    np.testing.assert_allclose(certificate.bias, 0.2 * allocator.estimate().age, rtol=1e-12)


def count_visits(allocator, rounds, *, rows=False):
    """Visits (or rows) of each region so far, by drawing it all again."""
    again = aria.Allocator(POOL, estimator=allocator.estimator, policy=allocator.policy)
    counts = np.array([np.bincount(draw.regions, minlength=4) for draw in play(again, rounds, n=3)])
    return counts.sum(axis=0) if rows else (counts > 0).sum(axis=0)


def test_a_region_never_visited_may_be_anywhere():
    for policy in (aria.PoolPolicy(), aria.Proportional()):
        allocator = aria.Allocator(POOL, estimator=aria.Ema(), policy=policy)
        nothing = allocator.certificate(drift=0.1, sigma=1.0)
        assert np.isinf(nothing.radius).all()
        draw = allocator.draw(1)
        allocator.observe(draw.regions, [1.0])
        allocator.step()
        certificate = allocator.certificate(drift=0.1, sigma=1.0)
        visited = np.arange(4) == draw.regions[0]
        for part in (certificate.radius, certificate.bias, certificate.noise):
            assert part.dtype == np.float64
            assert np.isfinite(part).tolist() == visited.tolist()
        assert certificate.bias[visited] == 0  # of this very round


def test_no_drift_means_no_bias_also_where_the_age_is_infinite():
    allocator = aria.Allocator(POOL, estimator=aria.Ema(), policy=aria.PoolPolicy())
    assert not np.isnan(allocator.certificate(drift=0.0, sigma=1.0).radius).any()


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.Proportional()], ids=repr)
@pytest.mark.parametrize("per", ["sample", "visit"])
def test_drift_and_sigma_of_each_region(policy, per):
    allocator = played(aria.Ema(rate=0.2, per=per), policy)
    drift, sigma = np.array([0.0, 0.1, 0.2, 3.0]), np.array([1.0, 0.0, 0.5, 4.0])
    own = allocator.certificate(drift=drift, sigma=sigma)
    for region in range(4):
        common = allocator.certificate(drift=drift[region], sigma=sigma[region])
        for name in ("radius", "bias", "noise"):
            assert getattr(own, name)[region] == getattr(common, name)[region]
    assert own.noise[1] == 0
    lists = allocator.certificate(drift=drift.tolist(), sigma=sigma.tolist())
    assert np.array_equal(lists.radius, own.radius)


def test_smaller_alpha_wider_radius():
    allocator = played(aria.Ema(), aria.Proportional())
    radii = [allocator.certificate(drift=0.1, sigma=1.0, alpha=alpha).radius for alpha in (0.2, 0.05, 1e-9)]
    assert (radii[0] < radii[1]).all()
    assert (radii[1] < radii[2]).all()
    assert np.array_equal(allocator.certificate(drift=0.1, sigma=1.0).radius, radii[1])  # the default alpha


@pytest.mark.parametrize("estimator", [None, aria.EmaBank(), aria.EmaBank(half_lives=(9.0,))])
def test_the_bank_is_refused(estimator):
    allocator = aria.Allocator(POOL, estimator=estimator)
    with pytest.raises(ValueError, match=r"Ema\b.*EmaBank.*estimator=aria_sampling\.Ema"):
        allocator.certificate(drift=0.1, sigma=1.0)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.Proportional()], ids=repr)
@pytest.mark.parametrize("per", ["sample", "visit"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drift", -0.1), ("drift", np.nan), ("drift", np.inf), ("drift", [0.1, 0.1]), ("drift", [0.1, 0.1, 0.1, -1]),
        ("drift", [[0.1] * 4]), ("sigma", -1), ("sigma", np.nan), ("sigma", [1, 1, 1, np.inf]), ("sigma", [1.0] * 5),
        ("alpha", 0), ("alpha", 1), ("alpha", -0.5), ("alpha", 2), ("alpha", np.nan), ("alpha", True), ("alpha", "a"),
    ],
)  # fmt: skip
def test_bad_input(policy, per, name, value):
    """Also where nothing was visited yet; and nothing is changed."""
    allocator = aria.Allocator(POOL, estimator=aria.Ema(per=per), policy=policy)
    for _ in range(2):
        with pytest.raises(ValueError, match=name):
            allocator.certificate(**{"drift": 0.1, "sigma": 1.0, "alpha": 0.05, name: value})
        play(allocator, 1, n=3)


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, np.nan, np.inf, "0.1", True, None])
def test_bad_rate(rate):
    with pytest.raises(ValueError, match="rate"):
        aria.Ema(rate=rate)


@pytest.mark.parametrize("per", ["sample", "visit"])
def test_rate_one_remembers_the_last_visit(per):
    allocator = played(aria.Ema(rate=1.0, per=per), aria.Proportional())
    certificate = allocator.certificate(drift=0.5, sigma=1.0)
    assert np.isfinite(certificate.radius).all()
    np.testing.assert_allclose(certificate.bias, 0.5 * allocator.estimate().age)


# -- bad input of the functions behind it ------------------------------------------------------------------

GOOD = {
    "sample_gain": {"rate": 0.1, "count": 3},
    "ema_error": {"gains": [0.5, 0.5], "counts": [1, 2], "drift": 0.1, "sigma": 1.0},
    "ema_steady_state": {"gain": 0.1, "gap": 2, "count": 1, "drift": 0.1, "sigma": 1.0},
    "bernoulli_age": {"gain": 0.1, "visit_probability": 0.5},
    "variance_limit": {"rate": 0.1, "samples": 9, "sigma": 1.0},
    "variance_start": {"rate": 0.1, "visits": 9, "sigma": 1.0},
    "rmse_per_visit": {"gain": 0.1, "gap": 3, "drift": 0.1, "sigma": 1.0},
    "radius_fixed": {"bias": 0.1, "variance": 1.0, "n_regions": 3, "rounds": 9, "alpha": 0.05},
    "radius_per_visit": {"bias": 0.1, "rate": 0.1, "visits": 3, "sigma": 1.0, "n_regions": 3, "alpha": 0.05},
    "radius_adaptive": {
        "bias": 0.1, "rate": 0.1, "visits": 3, "samples": 9, "sigma": 1.0, "n_regions": 3, "alpha": 0.05
    },
    "optimal_gain": {"drift": 0.1, "sigma": 1.0},
    "optimal_mse": {"drift": 0.1, "sigma": 1.0},
    "minimax_risk": {"drift": 0.1, "sigma": 1.0},
    "bank_regret": {"members": 7, "eta": 0.5},
    "timestep_ratio_bias": {"shares": [0.5, 0.5], "mean": [1.0, 2.0], "profile": [1.0, 3.0]},
    "ess_fraction": {"p": [0.5, 0.5], "q": [0.1, 0.9]},
    "oscillation": {"log_ratio": [0.0, 1.0]},
    "allocation_change": {"omega": 0.5, "floor": 0.2},
    "neyman_penalty": {"omega": 0.5, "floor": 0.2},
    "greedy_allocation": {"curves": lambda k, n: 1 / (1 + n), "n_regions": 2, "budget": 3},
    "minimax_regret": {"n_regions": 3, "rounds": 9, "loss_bound": 1.0, "estimation_error": [0.1]},
    "visit_gap_tail": {"gap": 3, "n": 8, "share": 0.01},
    "forced_gap": {"max_gap": 4, "n_regions": 9, "n": 4},
    "delayed_bias": {"bias": 0.1, "drift": 0.1, "delay": 3},
}  # fmt: skip
BAD = [
    *[(name, "sigma", -1.0) for name in GOOD if "sigma" in GOOD[name]],
    *[(name, "drift", -0.1) for name in GOOD if "drift" in GOOD[name]],
    *[(name, "drift", np.nan) for name in GOOD if "drift" in GOOD[name]],
    *[(name, "alpha", value) for name in GOOD if "alpha" in GOOD[name] for value in (0, 1, -1, np.nan)],
    *[(name, "rate", value) for name in GOOD if "rate" in GOOD[name] for value in (0, 1.5, np.nan)],
    *[(name, "gain", value) for name in GOOD if "gain" in GOOD[name] for value in (0, 1.5, np.nan)],
    *[(name, "floor", value) for name in GOOD if "floor" in GOOD[name] for value in (-0.1, 1.1)],
    *[(name, "n_regions", value) for name in GOOD if "n_regions" in GOOD[name] for value in (0, 1.5)],
    ("neyman_penalty", "floor", 1.0),
    ("sample_gain", "count", -1),
    ("ema_error", "gains", [0.5, 1.5]),
    ("ema_error", "gains", [0.5]),
    ("ema_error", "counts", [1]),
    ("ema_error", "counts", [0, 1]),
    ("bernoulli_age", "visit_probability", 0.0),
    ("radius_fixed", "rounds", 0),
    ("radius_fixed", "variance", -1.0),
    ("radius_fixed", "bias", np.nan),
    ("optimal_gain", "drift", 0.0),
    ("optimal_gain", "sigma", 0.0),
    ("bank_regret", "members", 0),
    ("bank_regret", "eta", 0.0),
    ("timestep_ratio_bias", "profile", [1.0, 0.0]),
    ("timestep_ratio_bias", "mean", [1.0]),
    ("ess_fraction", "p", [0.0, 1.0]),
    ("ess_fraction", "q", [1.0]),
    ("greedy_allocation", "budget", -1),
    ("minimax_regret", "estimation_error", -1.0),
    ("visit_gap_tail", "n", 0),
    ("visit_gap_tail", "gap", -1),
    ("forced_gap", "n", 1),
    ("forced_gap", "max_gap", 0),
    ("delayed_bias", "delay", -1),
]


def test_every_function_is_listed():
    assert set(GOOD) == set(bounds.__all__)
    for name, arguments in GOOD.items():
        assert np.isfinite(getattr(bounds, name)(**arguments)).all()


@pytest.mark.parametrize(("function", "name", "value"), BAD)
def test_bounds_refuse_bad_input(function, name, value):
    with pytest.raises(ValueError, match="expected"):
        getattr(bounds, function)(**{**GOOD[function], name: value})
