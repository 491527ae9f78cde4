"""Estimators and `TimestepProfile` at the edges: bad arguments, one region, no visit, equal, zero, infinite losses."""

import numpy as np
import pytest

import aria_sampling as aria

ESTIMATORS = [
    aria.Ema(), aria.Ema(1.0), aria.Ema(0.3, per="visit"), aria.EmaBank(), aria.EmaBank((3.0,), discount=1.0),
]  # fmt: skip
NUMBERS_THAT_ARE_NONE = [np.nan, np.inf, "0.1", None, True]

pytestmark = pytest.mark.filterwarnings("error")


def after(estimator, rounds, k):
    """The estimate after rounds of (regions, losses)."""
    state = estimator.init(k)
    for regions, losses in rounds:
        state = estimator.update(state, aria.Feedback.from_rows(regions, losses, n_regions=k))
    return estimator.estimate(state)


# -- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, -0.1, 1.1, *NUMBERS_THAT_ARE_NONE])
def test_rates(rate):
    for part in (aria.Ema, aria.TimestepProfile):
        with pytest.raises(ValueError, match=r"rate=.*expected a finite number in \(0, 1\]"):
            part(rate=rate)


@pytest.mark.parametrize("per", ["round", None, 1, "Sample"])
def test_per(per):
    with pytest.raises(ValueError, match=r"per=.*expected 'sample' or 'visit'"):
        aria.Ema(per=per)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("half_lives", value) for value in ((), [4.0], 4.0, None, (4.0, 0.0), (-1.0,))],
        *[("half_lives", (value,)) for value in NUMBERS_THAT_ARE_NONE],
        *[("discount", value) for value in (0, -0.1, 1.1, *NUMBERS_THAT_ARE_NONE)],
        *[("clip", value) for value in (0, -1.0, *NUMBERS_THAT_ARE_NONE)],
    ],
)
def test_bank(name, value):
    with pytest.raises(ValueError, match=name):
        aria.EmaBank(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("num_train_timesteps", value) for value in (0, -1, 10.0, "10", None, True)],
        *[("n_bins", value) for value in (0, -1, 1001, 2.5, None, True)],
    ],
)
def test_profile(name, value):
    with pytest.raises(ValueError, match=name):
        aria.TimestepProfile(**{name: value})


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("n_regions", [0, -1, 1.5, "3", None, True])
def test_number_of_regions(estimator, n_regions):
    with pytest.raises(ValueError, match="n_regions"):
        estimator.init(n_regions)


@pytest.mark.parametrize(
    ("regions", "losses", "message"),
    [
        ([0, 1], [1.0], "losses: expected 2 numbers, got 1"),
        ([0], [1.0, 2.0], "losses: expected 1 numbers, got 2"),
        ([0, 3], [1.0, 2.0], "regions"),
        ([-1], [1.0], "regions"),
        ([0.0], [1.0], "regions: expected integers"),
        ([[0]], [1.0], "regions"),
        ([0], 1.0, "losses.*already averaged"),
        ([0], ["1"], "losses"),
    ],
)
def test_rows_that_do_not_fit(regions, losses, message):
    with pytest.raises(ValueError, match=message):
        aria.Feedback.from_rows(regions, losses, n_regions=3)


# -- losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_nothing_observed(estimator):
    """With or without rounds: NaN, infinite, 0, infinite."""
    for rounds in ([], [([], [])] * 3):
        one = after(estimator, rounds, 2)
        assert one.cold.all()
        assert np.isnan(one.mean).all()
        assert np.isinf([one.stderr, one.age]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_single_region(estimator):
    """K = 1 is the same as that region among others."""
    rng = np.random.default_rng(0)
    rounds = [rng.lognormal(size=n) for n in (3, 1, 0, 4, 1)]
    alone = after(estimator, [(np.zeros(len(losses), int), losses) for losses in rounds], 1)
    among = after(estimator, [(np.full(len(losses), 2), losses) for losses in rounds], 5)
    for name in ("mean", "stderr", "count", "age"):
        assert getattr(alone, name)[0] == getattr(among, name)[2]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_region_never_visited(estimator):
    """Region 2 borrows the mean of the others, and says so."""
    one = after(estimator, [([0, 0, 1], [1.0, 1.0, 5.0])] * 4, 3)
    assert one.cold.tolist() == [False, False, True]
    assert 1 < one.mean[2] < 5
    assert one.stderr[2] == one.age[2] == np.inf
    assert np.isfinite([one.stderr[:2], one.age[:2]]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("value", [0.0, 1e-150, 3.0, 1e140])
def test_all_losses_equal(estimator, value):
    """That value, for all regions, the unvisited among them; the standard error only falls."""
    errors = []
    for rounds in (1, 10, 100):
        one = after(estimator, [([0, 0, 1], [value] * 3)] * rounds, 3)
        np.testing.assert_allclose(one.mean, value, rtol=1e-12)
        assert (one.stderr[:2] >= 0).all()
        errors.append(one.stderr[0])
    assert errors == [0.0] * 3 if value == 0 else errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e150])
def test_one_loss_infinite(estimator, bad):
    """It is left out: the same, bit for bit, as if it had not come."""
    good = [([0, 1], [1.0, 2.0])] * 3
    one = after(estimator, [*good, ([0, 0, 1], [3.0, bad, 2.5]), ([1], [bad])], 2)
    other = after(estimator, [*good, ([0, 1], [3.0, 2.5]), ([], [])], 2)
    for name in ("mean", "stderr", "count", "age"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert aria.Feedback.from_rows([0, 0, 1], [3.0, bad, 2.5], n_regions=2).dropped == 1


# -- the profile -------------------------------------------------------------------------------------------

STEPS = np.arange(12)


def profile_after(*rounds, n_bins=4):
    profile = aria.TimestepProfile(12, n_bins)
    state = profile.init()
    for arguments in rounds:
        state = profile.update(state, *arguments)
    return profile, state


def test_profile_of_nothing_leaves_losses_alone():
    """Before any loss, and after nothing but zeros, which no ratio can be taken to."""
    losses = np.linspace(0, 3, 12)
    for rounds in ([], [(STEPS, np.zeros(12))], [(STEPS, np.full(12, np.inf))], [([], [])]):
        profile, state = profile_after(*rounds)
        assert np.isnan(profile.expected(state, STEPS)).all()
        assert profile.ratio(state, STEPS, losses).tolist() == losses.tolist()
        assert profile.control_variate(state, STEPS, losses).tolist() == losses.tolist()


@pytest.mark.parametrize("n_bins", [1, 4, 12])
def test_profile_of_equal_losses_explains_nothing(n_bins):
    profile, state = profile_after((STEPS, np.full(12, 2.5)), n_bins=n_bins)
    losses = np.linspace(0, 3, 12)
    np.testing.assert_allclose(profile.ratio(state, STEPS, losses), losses / 2.5, rtol=1e-12)
    np.testing.assert_allclose(profile.control_variate(state, STEPS, losses), losses, rtol=1e-12, atol=1e-12)


def test_ranges_never_visited_borrow_from_those_beside_them():
    """Log-linear between known ranges, and constant beyond them."""
    profile, state = profile_after(([3, 4, 9], [1.0, 1.0, 16.0]))
    np.testing.assert_allclose(profile.expected(state, [0, 3, 6, 9]), [1, 1, 4, 16], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.inf, np.nan, -np.inf, 1e150])
def test_profile_with_one_loss_infinite(bad):
    profile, state = profile_after((STEPS, np.ones(12)), ([1, 1, 5], [2.0, bad, bad], [1.0, 3.0, 1.0]))
    _, other = profile_after((STEPS, np.ones(12)), ([1], [2.0], [1.0]))
    assert all(np.array_equal(state[name], other[name]) for name in state)
    assert not np.isfinite(profile.ratio(state, [1], [bad])).any() or abs(bad) < np.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1.0]), "losses: expected 2 numbers, got 1"),
        (([1], [1.0], [1.0, 2.0]), "weights: expected 1 numbers, got 2"),
        (([1], [1.0], [-1.0]), "weights"),
        (([1], [1.0], [np.nan]), "weights"),
        (([1], [1.0], [np.inf]), "weights"),
        (([12], [1.0]), "timesteps"),
        (([-1], [1.0]), "timesteps"),
        (([1.0], [1.0]), "timesteps: expected integers"),
        (([1], 1.0), "losses"),
    ],
)
def test_profile_rows_that_do_not_fit(arguments, message):
    """Refused before anything is changed."""
    profile, state = profile_after((STEPS, np.ones(12)))
    before = {name: array.copy() for name, array in state.items()}
    calls = [profile.update, profile.ratio, profile.control_variate] if len(arguments) == 2 else [profile.update]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(state, *arguments)
    assert all(np.array_equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("coefficient", NUMBERS_THAT_ARE_NONE)
def test_coefficients(coefficient):
    profile, state = profile_after((STEPS, np.ones(12)))
    with pytest.raises(ValueError, match="coefficient"):
        profile.control_variate(state, [1], [1.0], coefficient=coefficient)
