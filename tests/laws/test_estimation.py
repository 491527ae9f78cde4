"""Laws of the estimators themselves: scale, order, splitting, cold regions, age; and of the timestep profile.

What a weighted mean weighs, its bounds and the bank's regret are theory 1-3 (`test_theory_tracker.py`,
`test_theory_gain.py`); equality with the slow form is `test_reference.py`. Powers of two make scaling exact.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.estimators import borrowed
from tests import feeding
from tests.feeding import advanced, fed
from tests.helpers import loss_of, same_estimate, small_pool

K = 4
SEEDS = st.integers(0, 2**32)
ESTIMATORS = [
    aria.Ema(),
    aria.Ema(0.3),
    aria.Ema(1.0),
    aria.Ema(0.3, per="visit"),
    aria.EmaBank(),
    aria.EmaBank((2.0, 30.0), discount=0.3, clip=4.0),
    aria.EmaBank((9.0,)),
]
EMAS = [estimator for estimator in ESTIMATORS if isinstance(estimator, aria.Ema)]
some = st.sampled_from(ESTIMATORS)


def history(seed, rounds=12, k=K):
    """Rows of some rounds, some of them empty: a list of (regions, losses)."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 2, 5], rounds)
    return [(rng.integers(0, k, n), rng.lognormal(0, 0.8, n)) for n in sizes.tolist()]


def after(estimator, rounds, k=K):
    return feeding.after(estimator, rounds, k)


def close(a, b, rtol=1e-11, atol=0.0):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------------ splitting and merging


@given(SEEDS, st.floats(0.01, 1), st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 10))
def test_per_sample_n_then_m_losses_are_n_plus_m(seed, rate, n, m, loss):
    """The gains form a semigroup: after any past, n + m equal losses move the mean as n and then m of them do."""
    past = history(seed)
    for estimator in (aria.Ema(rate), aria.EmaBank((1 / rate,))):
        whole = after(estimator, [*past, ([0] * (n + m), [loss] * (n + m))])
        parts = after(estimator, [*past, ([0] * n, [loss] * n), ([0] * m, [loss] * m)])
        close(parts.mean[0], whole.mean[0])
        if isinstance(estimator, aria.EmaBank):  # its effective size is that of single losses, so it splits as well
            close(parts.count[0], whole.count[0])


@given(SEEDS, st.floats(0.01, 1), st.integers(2, 9))
def test_per_visit_only_the_mean_of_a_round_matters(seed, rate, n):
    """n copies of every loss: the same mean and age, n times the effective size."""
    ema, past = aria.Ema(rate, per="visit"), history(seed)
    one = after(ema, past)
    copies = after(ema, [(np.repeat(regions, n), np.repeat(losses, n)) for regions, losses in past])
    seen = one.count > 0
    close(copies.mean[seen], one.mean[seen])
    close(copies.count, n * one.count)
    close(copies.age[seen], one.age[seen], atol=1e-11)


@given(SEEDS, st.integers(1, 50), some)
def test_the_first_round_is_its_mean(seed, n, estimator):
    """No prior: whatever the rate, a cold region starts at the mean of its first losses."""
    losses = np.random.default_rng(seed).lognormal(size=n)
    estimate = after(estimator, [([2] * n, losses)])
    close(estimate.mean[2], losses.mean())
    assert estimate.age[2] == 0
    if isinstance(estimator, aria.Ema):
        close(estimate.count[2], n)
    assert 1 - 1e-12 <= estimate.count[2] <= n * (1 + 1e-12)


def test_rate_one_knows_the_last_round_alone():
    estimate = after(aria.Ema(1.0), [([0, 0, 1], [5.0, 7.0, 1.0]), ([0], [2.0])])
    assert estimate.mean[:2].tolist() == [2.0, 1.0]
    assert estimate.count[:2].tolist() == [1.0, 1.0]
    assert estimate.age[:2].tolist() == [0.0, 1.0]


# ------------------------------------------------------------------------------- units and constants


@given(SEEDS, some, st.integers(-60, 60))
def test_estimates_have_the_unit_of_the_loss(seed, estimator, power):
    """Losses times 2**j: mean and standard error times 2**j, count and age as they are; bit for bit."""
    rounds = history(seed)
    one = after(estimator, rounds)
    scaled = after(estimator, [(regions, losses * 2.0**power) for regions, losses in rounds])
    expected = aria.Estimate(one.mean * 2.0**power, one.stderr * 2.0**power, one.count, one.age)
    assert same_estimate(scaled, expected)


@given(SEEDS, some)
def test_estimates_follow_the_sign(seed, estimator):
    rounds = history(seed)
    one, mirrored = after(estimator, rounds), after(estimator, [(k, -losses) for k, losses in rounds])
    assert same_estimate(mirrored, aria.Estimate(-one.mean, one.stderr, one.count, one.age))


@given(SEEDS, st.sampled_from(EMAS), st.floats(-5, 5))
def test_a_moving_average_follows_an_offset(seed, ema, offset):
    """Its weights do not depend on the losses (the bank's do)."""
    rounds = history(seed)
    one, moved = after(ema, rounds), after(ema, [(regions, losses + offset) for regions, losses in rounds])
    close(moved.mean, one.mean + offset, rtol=1e-9, atol=1e-9)
    assert np.array_equal(one.count, moved.count)
    assert np.array_equal(one.age, moved.age)


@given(SEEDS, some, st.floats(0.01, 100))
def test_constant_losses_give_the_constant(seed, estimator, loss):
    estimate = after(estimator, [(regions, np.full(len(regions), loss)) for regions, _ in history(seed)])
    close(borrowed(estimate).mean, loss if (estimate.count > 0).any() else np.nan)


@given(SEEDS, some)
def test_a_mean_lies_between_its_losses(seed, estimator):
    rounds = history(seed)
    estimate = after(estimator, rounds)
    for k in range(K):
        own = np.concatenate([losses[regions == k] for regions, losses in rounds])
        assert (estimate.count[k] > 0) == (len(own) > 0)
        if len(own):
            assert own.min() * (1 - 1e-12) <= estimate.mean[k] <= own.max() * (1 + 1e-12)
            assert estimate.count[k] <= len(own) * (1 + 1e-12)


@given(SEEDS, st.sampled_from(EMAS), st.floats(0, 10))
def test_a_larger_loss_never_lowers_a_moving_average(seed, ema, more):
    rounds = history(seed)
    filled = [index for index, (regions, _) in enumerate(rounds) if len(regions)]
    if filled:
        raised = [(regions, losses.copy()) for regions, losses in rounds]
        raised[filled[0]][1][0] += more
        higher, lower = after(ema, raised), after(ema, rounds)
        assert (higher.mean >= lower.mean * (1 - 1e-12))[~lower.cold].all()


@given(st.floats(0.01, 0.9), st.integers(1, 60))
def test_standard_error_is_the_pooled_spread_over_the_effective_size(d, rounds):
    """Pairs 1 - d, 1 + d have cv² = 2d². The start, cv² = 1, is forgotten by 1% a round: 0.99^r + (1 - 0.99^r)·2d²."""
    cv2 = 0.99**rounds + (1 - 0.99**rounds) * 2 * d**2
    for estimator in (aria.Ema(0.1), aria.Ema(0.1, per="visit"), aria.EmaBank()):
        estimate = after(estimator, [([1, 1], [1 - d, 1 + d])] * rounds)
        close(estimate.mean[1], 1)
        close(estimate.stderr[1], math.sqrt(cv2 / estimate.count[1]), rtol=1e-9)


# ------------------------------------------------------------------------------ rows and regions


@given(SEEDS, some)
def test_order_of_rows_does_not_matter(seed, estimator):
    rng, rounds = np.random.default_rng(seed), history(seed)
    order = [rng.permutation(len(regions)) for regions, _ in rounds]
    one = after(estimator, rounds)
    other = after(estimator, [(r[o], losses[o]) for (r, losses), o in zip(rounds, order, strict=True)])
    for name in ("mean", "stderr", "count", "age"):
        close(getattr(other, name), getattr(one, name), rtol=1e-9)


@given(SEEDS, some)
def test_numbers_of_regions_do_not_matter(seed, estimator):
    """Regions numbered otherwise: the same estimates, numbered otherwise."""
    rng, rounds = np.random.default_rng(seed), history(seed)
    new = rng.permutation(K)
    one, other = after(estimator, rounds), after(estimator, [(new[regions], losses) for regions, losses in rounds])
    for name in ("mean", "stderr", "count", "age"):
        close(getattr(other, name)[new], getattr(one, name), rtol=1e-9)


@given(SEEDS, st.sampled_from([*EMAS, aria.EmaBank((9.0,))]))
def test_a_region_does_not_see_the_others(seed, estimator):
    """Its mean, count and age are those of its own losses; only the spread behind stderr is pooled. Bit for bit."""
    rounds = history(seed)
    one = after(estimator, rounds)
    for k in range(K):
        alone = after(estimator, [(regions[regions == k], losses[regions == k]) for regions, losses in rounds])
        if one.count[k] > 0:
            for name in ("mean", "count", "age"):
                assert getattr(alone, name)[k] == getattr(one, name)[k]


@given(SEEDS, some)
def test_estimates_go_row_by_row(seed, estimator):
    """The estimate of some regions is that of all regions, bit for bit; also of one, and of none."""
    state = fed(estimator, history(seed), K)
    whole = estimator.estimate(state)
    for regions in ([], [1], [0, 2, 3]):
        rows = {name: array[regions] for name, array in state.rows.items()}
        part = estimator.estimate(aria.State(rows, state.shared))
        expected = aria.Estimate(whole.mean[regions], whole.stderr[regions], whole.count[regions], whole.age[regions])
        assert same_estimate(part, expected)


@given(SEEDS, some)
def test_an_update_is_a_function_of_its_arguments(seed, estimator):
    """By value: the arguments are as they were, and the same arguments give the same bits."""
    state, rng = fed(estimator, history(seed), K), np.random.default_rng(seed)
    feedback = aria.Feedback.from_rows(rng.integers(0, K, 5), rng.lognormal(size=5), n_regions=K)
    rows = {name: array[feedback.regions] for name, array in state.rows.items()}
    arguments = [*rows.values(), *state.shared.values(), feedback.count, feedback.mean, feedback.m2]
    before = [array.copy() for array in arguments]
    for array in arguments:
        array.flags.writeable = False
    one, other = (estimator.update(rows, state.shared, feedback) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(arguments, before, strict=True))
    for new, again, old in zip(one, other, (rows, state.shared), strict=True):
        assert {k: a.shape for k, a in new.items()} == {k: a.shape for k, a in old.items()}
        assert all(np.array_equal(new[name], again[name]) for name in new)
        assert not any(np.shares_memory(new[name], old[name]) for name in new)


@given(SEEDS, some)
def test_one_region(seed, estimator):
    """K = 1 is a region like any other."""
    rounds = history(seed, k=1)
    one, wide = after(estimator, rounds, k=1), after(estimator, rounds)
    for name in ("mean", "stderr", "count", "age"):
        assert getattr(one, name).shape == (1,)
        assert np.array_equal(getattr(one, name)[0], getattr(wide, name)[0], equal_nan=True)


@given(SEEDS, some)
def test_cold_regions_borrow_the_mean_weighted_by_counts(seed, estimator):
    rounds = [(regions % 3, losses) for regions, losses in history(seed, rounds=5)]
    own = after(estimator, rounds)
    estimate, seen = borrowed(own), own.count > 0
    assert np.isnan(own.mean[~seen]).all()
    assert np.array_equal(estimate.mean[seen], own.mean[seen])
    assert all(getattr(estimate, name) is getattr(own, name) for name in ("stderr", "count", "age"))
    assert estimate.cold.tolist() == (~seen).tolist()
    assert estimate.cold[3]
    assert np.isinf(estimate.stderr[~seen]).all()
    assert np.isinf(estimate.age[~seen]).all()
    assert (estimate.stderr[~seen] > 0).all()
    assert np.isfinite(estimate.stderr[seen]).all()
    if seen.any():
        common = math.fsum((estimate.count * estimate.mean)[seen]) / math.fsum(estimate.count[seen])
        close(estimate.mean[~seen], common)
    else:
        assert np.isnan(estimate.mean).all()


# ----------------------------------------------------------------------------------------- time


@given(SEEDS, some, st.integers(1, 30))
def test_empty_rounds_add_to_the_age_and_change_nothing_else(seed, estimator, empty):
    rounds = history(seed)
    one = after(estimator, rounds)
    later = after(estimator, [*rounds, *[([], [])] * empty])
    assert same_estimate(aria.Estimate(one.mean, one.stderr, one.count, later.age), later)
    close(later.age, one.age + empty, atol=1e-11)


@given(SEEDS, some)
def test_dropped_losses_are_as_if_they_had_not_come(seed, estimator):
    rng, rounds = np.random.default_rng(seed), history(seed)
    with_bad = []
    for regions, losses in rounds:
        place = rng.integers(0, len(losses) + 1)
        bad = rng.choice([np.nan, np.inf, -np.inf, 1e150, -1e200])
        with_bad.append((np.insert(regions, place, rng.integers(K)), np.insert(losses, place, bad)))
    assert same_estimate(after(estimator, rounds), after(estimator, with_bad))


@given(some, st.integers(0, 20))
def test_age_of_a_single_visit_is_counted_in_rounds(estimator, wait):
    estimate = after(estimator, [([], [])] * 3 + [([1], [2.0])] + [([], [])] * wait)
    close(estimate.age[1], wait, atol=1e-12)


@given(some, st.integers(1, 40), st.integers(1, 4))
def test_age_of_steady_visits_is_less_than_half_the_time(estimator, rounds, n):
    """Newer rounds never weigh less than older ones, so the mean age is at most that of equal weights."""
    estimate = after(estimator, [([0] * n, [1.0] * n)] * rounds)
    assert -1e-12 <= estimate.age[0] <= (rounds - 1) / 2 + 1e-9


def like(one, other):
    """Whether two estimates are equal: bit for bit, and to rounding where a mean is borrowed."""
    lent = aria.Estimate(np.where(other.cold, one.mean, other.mean), other.stderr, other.count, other.age)
    return same_estimate(one, lent) and np.allclose(one.mean, other.mean, rtol=1e-13, atol=0, equal_nan=True)


@given(SEEDS, some, st.integers(0, 3))
def test_the_estimate_of_an_allocator_covers_all_closed_rounds(seed, estimator, lag):
    """Whatever the lag and whatever is open: it is the estimator fed by hand with the closed ones."""
    allocator = aria.Allocator(small_pool(), estimator=estimator, seed=seed, lag=lag)
    state, closed = estimator.init(6), 0
    while closed < 7:
        while len(allocator.open_rounds) <= lag:
            allocator.draw(5)
        draw = allocator.open_rounds[0]
        allocator.observe(draw.regions, loss_of(draw))
        assert like(allocator.estimate(), borrowed(estimator.estimate(state)))  # not yet
        allocator.step()
        feedback = aria.Feedback.from_rows(draw.regions, loss_of(draw), n_regions=6)
        state = advanced(estimator, state, feedback)
        closed += 1
        assert like(allocator.estimate(), borrowed(estimator.estimate(state)))


# -------------------------------------------------------------------------------------- the profile


def rows(seed, n, bins):
    """Ranges, losses and weights of n rows."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, bins, n), rng.lognormal(size=n), rng.uniform(0.1, 3, n)


def profiled(profile, *rounds):
    """The state after rounds of (bins, losses, weights); without weights, all equal."""
    state = profile.init()
    for bins, losses, *weights in rounds:
        losses = np.array(losses, dtype=np.float64)
        weights = weights[0] if weights else np.ones(len(losses))
        state = profile.update(state, np.array(bins, dtype=np.int64), losses, weights)
    return state


@given(st.integers(1, 200))
def test_ranges_are_of_equal_width_and_in_order(bins):
    """Noise x lies in range floor(x * bins), and 1 in the last."""
    profile = aria.TimestepProfile(bins)
    edges = np.arange(bins) / bins
    assert profile.bins(edges + 0.5 / bins).tolist() == list(range(bins))
    assert profile.bins(np.array([0.0, 1.0])).tolist() == [0, bins - 1]


@given(SEEDS, st.integers(1, 12), st.integers(-40, 40))
def test_profile_has_the_unit_of_the_loss(seed, bins, power):
    """Losses times 2**j: all that is expected, times 2**j; what is borrowed, to rounding."""
    profile = aria.TimestepProfile(bins)
    rounds = [rows(seed + i, 9, bins) for i in range(4)]
    one = profiled(profile, *rounds)
    other = profiled(profile, *[(k, x * 2.0**power, w) for k, x, w in rounds])
    close(profile.expected(other), profile.expected(one) * 2.0**power)
    assert np.array_equal(other["total"], one["total"] * 2.0**power)
    assert np.array_equal(other["weight"], one["weight"])


@given(SEEDS, st.integers(-40, 40))
def test_only_ratios_of_weights_matter(seed, power):
    profile = aria.TimestepProfile(5)
    rounds = [rows(seed + i, 9, 5) for i in range(4)]
    one = profiled(profile, *rounds)
    other = profiled(profile, *[(k, x, w * 2.0**power) for k, x, w in rounds])
    assert np.array_equal(profile.expected(other), profile.expected(one))


@given(SEEDS, st.sampled_from([np.nan, np.inf, -np.inf, 1e150]))
def test_rows_whose_loss_is_dropped_are_as_if_they_had_not_come(seed, bad):
    profile = aria.TimestepProfile(5)
    k, x, w = rows(seed, 9, 5)
    with_bad = (np.append(k, 2), np.append(x, bad), np.append(w, 1.0))
    one, other = profiled(profile, (k, x, w), (k, x, w)), profiled(profile, (k, x, w), with_bad)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@given(SEEDS)
def test_order_of_a_profiles_rows_does_not_matter(seed):
    profile = aria.TimestepProfile(5)
    k, x, w = rows(seed, 30, 5)
    order = np.random.default_rng(seed).permutation(30)
    shuffled = profiled(profile, (k[order], x[order], w[order]))
    close(profile.expected(shuffled), profile.expected(profiled(profile, (k, x, w))))


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_unknown_ranges_borrow_from_their_neighbours(left, right):
    """Known at ranges 1 and 4 of 0..5: geometric between them, flat outside."""
    profile = aria.TimestepProfile(6)
    state = profiled(profile, ([1, 4], [left, right]))
    ratio = right / left
    close(profile.expected(state), [left, left, left * ratio ** (1 / 3), left * ratio ** (2 / 3), right, right])


@pytest.mark.parametrize("losses", [[0.0, 0.0], [-1.0, -2.0], [np.nan, np.inf], []])
def test_nothing_is_expected_before_any_positive_loss(losses):
    profile = aria.TimestepProfile(10)
    assert profile.expected(profiled(profile, ([1, 8][: len(losses)], losses))) is None


@given(SEEDS, st.floats(0.01, 1))
def test_a_range_forgets_by_its_rate_per_loss(seed, rate):
    """n losses of 1, then m of 3, in one range: the moving average of `Ema(rate)`, its own."""
    n, m = np.random.default_rng(seed).integers(1, 8, 2).tolist()
    profile = aria.TimestepProfile(2, rate=rate)
    state = profiled(profile, ([0] * n, [1.0] * n), ([0] * m, [3.0] * m))
    old, new = (1 - (1 - rate) ** n) * (1 - rate) ** m, 1 - (1 - rate) ** m
    close(profile.expected(state)[0], (old + 3 * new) / (old + new), rtol=1e-9)
    ema = after(aria.Ema(rate), [([0] * n, [1.0] * n), ([0] * m, [3.0] * m)])
    close(profile.expected(state)[0], ema.mean[0])


@given(SEEDS)
def test_an_update_of_a_profile_leaves_its_state_alone(seed):
    profile = aria.TimestepProfile(5)
    state = profiled(profile, rows(seed, 9, 5))
    before = {name: array.copy() for name, array in state.items()}
    profile.update(state, *rows(seed + 1, 9, 5))
    profile.expected(state)
    assert all(np.array_equal(state[name], before[name]) for name in state)
