"""`aria_sampling.bounds` at the edges of its arguments; what the formulas say is in laws/test_theory_*.py."""

import numpy as np
import pytest

from aria_sampling import bounds

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
    "weight_bound": {"exploration": 0.2, "forced": True},
    "ess_fraction": {"p": [0.5, 0.5], "q": [0.1, 0.9]},
    "oscillation": {"log_ratio": [0.0, 1.0]},
    "allocation_change": {"omega": 0.5, "exploration": 0.2},
    "neyman_penalty": {"omega": 0.5, "exploration": 0.2},
    "greedy_allocation": {"curves": lambda k, n: 1 / (1 + n), "n_regions": 2, "budget": 3},
    "minimax_regret": {"n_regions": 3, "rounds": 9, "loss_bound": 1.0, "estimation_error": [0.1]},
    "visit_gap_tail": {"gap": 3, "n": 8, "share": 0.01, "forced": True},
    "forced_gap": {"max_gap": 4, "n_regions": 9, "n": 4},
    "delayed_bias": {"bias": 0.1, "drift": 0.1, "delay": 3},
    "merged_moments": {"count": [1.0, 7.0], "mean": [1.0, 3.0], "m2": [0.0, 2.0]},
}  # fmt: skip
BAD = [
    *[
        (name, "sigma", value)
        for name in GOOD
        if "sigma" in GOOD[name]
        for value in (-1.0, np.nan, np.inf, "1 sd", None)
    ],
    *[(name, "drift", value) for name in GOOD if "drift" in GOOD[name] for value in (-0.1, np.nan, np.inf, "slow")],
    *[(name, "alpha", value) for name in GOOD if "alpha" in GOOD[name] for value in (0, 1, -1, np.nan, "5%")],
    *[(name, "rate", value) for name in GOOD if "rate" in GOOD[name] for value in (0, 1.5, np.nan)],
    *[(name, "gain", value) for name in GOOD if "gain" in GOOD[name] for value in (0, 1.5, np.nan)],
    *[(name, "exploration", value) for name in GOOD if "exploration" in GOOD[name] for value in (-0.1, 1.1)],
    *[(name, "n_regions", value) for name in GOOD if "n_regions" in GOOD[name] for value in (0, 1.5)],
    ("neyman_penalty", "exploration", 1.0),
    ("weight_bound", "exploration", 0.0),
    ("sample_gain", "count", -1),
    ("ema_error", "gains", [0.5, 1.5]),
    ("ema_error", "gains", [0.5]),
    ("ema_error", "counts", [1]),
    ("ema_error", "counts", [0, 1]),
    ("ema_error", "counts", [np.nan, 1]),
    ("ema_error", "drift", [0.1, 0.1, 0.1]),
    ("ema_error", "initial_error", np.nan),
    ("ema_steady_state", "count", 0.5),
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
    ("timestep_ratio_bias", "shares", [0.5, 0.6]),
    ("timestep_ratio_bias", "shares", [-0.5, 1.5]),
    ("ess_fraction", "p", [0.0, 1.0]),
    ("ess_fraction", "p", [np.nan, 1.0]),
    ("ess_fraction", "q", [1.0]),
    ("ess_fraction", "q", [0.0, 0.0]),
    ("ess_fraction", "q", [-0.1, 1.1]),
    ("oscillation", "log_ratio", []),
    ("oscillation", "log_ratio", [0.0, -np.inf]),
    ("oscillation", "log_ratio", [0.0, np.nan]),
    ("greedy_allocation", "budget", -1),
    ("minimax_regret", "estimation_error", -1.0),
    ("visit_gap_tail", "n", 0),
    ("visit_gap_tail", "gap", -1),
    ("visit_gap_tail", "forced", 1),
    ("forced_gap", "n", 1),
    ("forced_gap", "max_gap", 0),
    ("delayed_bias", "delay", -1),
    ("merged_moments", "count", [1.0, -1.0]),
    ("merged_moments", "count", 3.0),
    ("merged_moments", "mean", [1.0]),
    ("merged_moments", "m2", [1.0, -1.0]),
]


def call(function, **changes):
    return getattr(bounds, function)(**{**GOOD[function], **changes})


def test_every_function_is_listed():
    assert set(GOOD) == set(bounds.__all__)
    for name in GOOD:
        assert np.isfinite(call(name)).all()


@pytest.mark.parametrize(("function", "name", "value"), BAD)
def test_bad_input_is_refused(function, name, value):
    with pytest.raises(ValueError, match="expected"):
        call(function, **{name: value})


LENGTHS = [
    ("ema_steady_state", "gap", "drift"), ("variance_limit", "samples", "sigma"), ("variance_start", "visits", "sigma"),
    ("rmse_per_visit", "gap", "drift"), ("radius_fixed", "bias", "variance"), ("radius_per_visit", "bias", "visits"),
    ("radius_adaptive", "samples", "sigma"), ("minimax_risk", "drift", "sigma"), ("visit_gap_tail", "gap", "share"),
    ("delayed_bias", "bias", "drift"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "one", "other"), LENGTHS)
def test_lengths_that_do_not_match(function, one, other):
    """Vectors are broadcast; two of unequal length are a ValueError, like everything else that does not fit."""
    three = call(function, **{one: [1.0, 2.0, 3.0]})
    assert np.shape(three[0] if isinstance(three, tuple) else three) == (3,)
    with pytest.raises(ValueError, match="broadcast"):
        call(function, **{one: [1.0, 2.0, 3.0], other: [0.5, 0.5]})


@pytest.mark.filterwarnings("error")
def test_without_drift_or_noise_nothing_is_left_of_them():
    for name in ("ema_steady_state", "rmse_per_visit", "minimax_risk"):
        assert np.max(call(name, drift=0.0, sigma=0.0)) == 0
    bias, variance = call("ema_error", drift=0.0, sigma=0.0)
    assert not bias.any()
    assert not variance.any()
    for name in ("radius_per_visit", "radius_adaptive"):
        assert call(name, sigma=0.0) == 0.1  # the bias
    assert call("radius_fixed", variance=0.0) == 0.1
    assert call("variance_limit", sigma=0.0) == call("variance_start", sigma=0.0) == 0
    assert call("delayed_bias", drift=0.0) == 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_a_region_never_visited_may_be_anywhere(rate):
    """No visit and no loss: an infinite radius, also beside regions that were visited, and no warning."""
    for visits, radius in (
        ([0, 5], call("radius_per_visit", rate=rate, visits=[0, 5])),
        ([0, 5], call("radius_adaptive", rate=rate, visits=[0, 5], samples=[0, 9])),
        ([0, 5], call("variance_start", rate=rate, visits=[0, 5])),
        ([0, 5], call("variance_start", rate=rate, visits=[0, 5], sigma=0.0)),
    ):
        assert np.isinf(radius).tolist() == [n == 0 for n in visits]
        assert not np.isnan(radius).any()
    assert call("radius_fixed", bias=np.inf) == np.inf
    assert call("sample_gain", rate=rate, count=0) == 0
    assert call("variance_limit", rate=rate, samples=0) == 0


@pytest.mark.filterwarnings("error")
def test_a_single_region():
    """K = 1: nothing to choose, so no regret, no queue, and a radius without a union over regions."""
    assert call("minimax_regret", n_regions=1) == 0.2  # twice the error of the estimates
    assert call("forced_gap", n_regions=1) == 4
    assert call("greedy_allocation", n_regions=1).tolist() == [3]
    assert call("oscillation", log_ratio=[3.0]) == 0
    assert call("ess_fraction", p=[1.0], q=[1.0]) == 1
    assert call("visit_gap_tail", share=1.0) == 0
    for name in ("radius_fixed", "radius_per_visit", "radius_adaptive"):
        assert 0.1 < call(name, n_regions=1) < call(name, n_regions=2)


@pytest.mark.filterwarnings("error")
def test_a_rate_of_one_remembers_the_last_visit():
    assert call("sample_gain", rate=1) == 1
    assert call("variance_limit", rate=1) == call("variance_start", rate=1) == 1
    assert [float(part) for part in call("ema_steady_state", gain=1)] == [0, 1]
    assert call("rmse_per_visit", gain=1) == 1
    assert call("bernoulli_age", gain=1, visit_probability=1) == (0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("drift", "sigma"), [(1e300, 1e-300), (1e-300, 1e300), (1e200, 1.0), (1.0, 1e-200), (1.0, 1e140)]
)
def test_gains_for_drift_and_noise_far_apart(drift, sigma):
    gain = call("optimal_gain", drift=drift, sigma=sigma)
    assert 0 < gain <= 1
    assert gain == pytest.approx(min(1.0, (2 * drift / sigma) ** (2 / 3)), rel=0.01)
    if sigma < 1e150:
        assert np.isfinite(call("optimal_mse", drift=drift, sigma=sigma))


def test_no_draws_to_hand_out():
    assert call("greedy_allocation", budget=0).tolist() == [0, 0]


def test_ranks_without_rows():
    """Their mean counts for nothing, even if it is NaN; no rows at all have no mean."""
    merged = call(
        "merged_moments", count=[[0.0, 0.0], [2.0, 0.0]], mean=[[np.nan, 5.0], [3.0, np.inf]], m2=np.zeros((2, 2))
    )
    np.testing.assert_array_equal(merged, [[2, 0], [3, np.nan], [0, 0]])
