"""What the averages promise: T1.1 to T1.7, T6.2 of the theory page, exact or over all paths of a tree.

`Ema` is linear in its losses, so feeding one region a unit impulse in one round and zeros otherwise shows the
weight it gives to that round; T regions at once show all of them.
"""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import bounds
from tests.feeding import advanced

RATES = st.one_of(st.floats(0.01, 0.99), st.sampled_from([0.5, 1.0]))
SCHEDULES = st.lists(st.integers(0, 6), min_size=1, max_size=25).filter(any)
SEEDS = st.integers(0, 2**32)
PER = st.sampled_from(["sample", "visit"])


def feed(ema, counts, means):
    """The state after rounds of counts[t] losses with mean means[t] (a vector: one a region)."""
    means = np.atleast_2d(np.asarray(means, dtype=np.float64).T).T
    state = ema.init(means.shape[1])
    everyone = np.arange(means.shape[1])
    for n, mean in zip(counts, means, strict=True):
        visited = everyone if n else everyone[:0]
        size = len(visited)
        feedback = aria.Feedback(visited, np.full(size, float(n)), mean[:size].copy(), np.zeros(size), 0)
        state = advanced(ema, state, feedback)
    return state


def probe(ema, counts):
    """The weight of each round in the estimate, and the estimate itself (of region 0)."""
    estimate = ema.estimate(feed(ema, counts, np.eye(len(counts))))
    return estimate.mean, float(estimate.count[0]), float(estimate.age[0])


def gains_of(ema, counts):
    """The gain of each round for ``M <- M + a (Y - M)``, and the effective one of the bias-corrected start."""
    plain = [ema.rate if ema.per == "visit" else 1 - (1 - ema.rate) ** n for n in counts]
    plain = [a if n else 0.0 for a, n in zip(plain, counts, strict=True)]
    total, corrected = 0.0, []
    for a in plain:
        total = (1 - a) * total + a
        corrected.append(a / total if a else 0.0)
    return np.array(plain), np.array(corrected)


def close(a, b, rtol=1e-11, atol=1e-13):
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- T1.1 --------------------------------------------------------------------------------------------------


@given(rate=RATES, per=PER, counts=SCHEDULES)
def test_weights_of_an_average_are_what_it_says(rate, per, counts):
    """T1.1, E: the weights sum to 1, `count` is 1 / sum(w² / n) and `age` sum(w · age), by impulses."""
    weights, count, age = probe(aria.Ema(rate=rate, per=per), counts)
    n = np.maximum(counts, 1)
    close(weights.sum(), 1)
    assert (weights[np.array(counts) == 0] == 0).all()
    close(count, 1 / (weights**2 / n).sum())
    close(age, (weights * np.arange(len(counts))[::-1]).sum(), atol=1e-10)


@given(rate=RATES, per=PER, counts=SCHEDULES, seed=SEEDS, sigma=st.floats(0, 3))
def test_error_bounds_are_those_of_the_weights(rate, per, counts, seed, sigma):
    """T1.1, E: equality on the ramp that moves away, V = sum(w² s² / n), w0 + sum(w) = 1; never more on any path."""
    ema = aria.Ema(rate=rate, per=per)
    rng = np.random.default_rng(seed)
    plain, corrected = gains_of(ema, counts)
    n, rounds = np.maximum(counts, 1), len(counts)
    drift, error0 = rng.exponential(size=rounds), float(rng.normal())
    relative = probe(ema, counts)[0]
    for gains, w0 in ((plain, float(np.prod(1 - plain))), (corrected, 0.0)):
        w = relative * (1 - w0)  # the plain form's weights are the corrected ones' multiple
        close(w.sum() + w0, 1)
        bias, variance = bounds.ema_error(gains, counts, drift=drift, sigma=sigma, initial_error=error0)
        close(variance[-1], (w**2 * sigma**2 / n).sum())
        away = -np.sign(error0) * np.cumsum(drift)  # D_t, from D_0 = 0; M_0 = error0
        close(abs(w @ away + w0 * error0 - away[-1]), bias[-1], atol=1e-11)
        for _ in range(5):
            path = np.cumsum(rng.choice([-1, 1], rounds) * drift * rng.choice([1, rng.random()], rounds))
            assert abs(w @ path + w0 * error0 - path[-1]) <= bias[-1] + 1e-11
    # the corrected form has no start to remember: its bias bound is drift times age
    bias, variance = bounds.ema_error(corrected, counts, drift=0.7, sigma=sigma, initial_error=1e6)
    estimate = ema.estimate(feed(ema, counts, np.zeros(rounds)))
    close(bias[-1], 0.7 * estimate.age[0], atol=1e-11)
    close(variance[-1], sigma**2 / estimate.count[0])


def test_a_missed_round_costs_its_drift_and_no_variance():
    bias, variance = bounds.ema_error([0.5, 0, 0, 0], [2, 0, 0, 0], drift=0.25, sigma=2, initial_error=-1)
    assert bias.tolist() == [0.625, 0.875, 1.125, 1.375]
    assert variance.tolist() == [0.5] * 4


# -- T1.2 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [0.02, 0.3, 1.0])
@pytest.mark.parametrize(("gap", "count"), [(1, 1), (1, 5), (7, 2)])
def test_steady_state_is_the_recursion_run_long(gain, gap, count):
    visited = np.arange(1, 2100 * gap + 1) % gap == 0
    bias, variance = bounds.ema_error(gain * visited, count * visited, drift=0.3, sigma=1.7, initial_error=5)
    lasting, noise = bounds.ema_steady_state(gain=gain, gap=gap, count=count, drift=0.3, sigma=1.7)
    close(bias[-1], lasting, rtol=1e-9)
    close(variance[-1], noise, rtol=1e-9)
    if gap > 1:  # the worst is just before the visit
        close(bias[-2], gap * 0.3 / gain - 0.3, rtol=1e-9)


def age_moments(gain, chance, rounds):
    """Mean and mean square of L <- (1 - gain)(L + 1) on a visit, L + 1 otherwise, from L = 0."""
    first = second = chance * 0
    for _ in range(rounds):
        one, two = first + 1, second + 2 * first + 1  # moments of L + 1
        first = one * (chance * (1 - gain) + 1 - chance)
        second = two * (chance * (1 - gain) ** 2 + 1 - chance)
    return first, second


@pytest.mark.parametrize(("gain", "chance"), [(Fraction(1, 2), Fraction(1, 4)), (Fraction(1, 8), Fraction(3, 4))])
def test_age_under_chance_visits(gain, chance):
    """T1.2, E: all 2^9 schedules agree with the moment recursion; that one's fixed point is the formula."""
    rounds, first, second = 9, 0.0, 0.0
    for visits in itertools.product([0, 1], repeat=rounds):
        probability = float(chance ** sum(visits) * (1 - chance) ** (rounds - sum(visits)))
        age = bounds.ema_error(float(gain) * np.array(visits), visits, drift=1, sigma=0)[0][-1]
        first, second = first + probability * age, second + probability * age**2
    exact = age_moments(gain, chance, rounds)
    close([first, second], [float(moment) for moment in exact])
    formula = bounds.bernoulli_age(gain=float(gain), visit_probability=float(chance))
    close(formula, age_moments(float(gain), float(chance), 2000), rtol=1e-10)


def test_age_when_every_round_visits_is_the_steady_lag():
    lag = float(bounds.ema_steady_state(gain=0.2, gap=1, count=1, drift=1, sigma=0)[0])
    close(bounds.bernoulli_age(gain=0.2, visit_probability=1), (lag, lag**2))
    assert bounds.bernoulli_age(gain=1, visit_probability=1) == (0, 0)


# -- T1.3, T1.4 --------------------------------------------------------------------------------------------


@given(rate=RATES, counts=SCHEDULES)
def test_variance_of_any_batching(rate, counts):
    """T1.3, E: at most that of one by one, which `variance_limit` gives exactly."""
    ema = aria.Ema(rate=rate)
    total = sum(counts)
    limit = float(bounds.variance_limit(rate=rate, samples=total, sigma=1.3))
    plain, _ = gains_of(ema, counts)
    assert bounds.ema_error(plain, counts, drift=0, sigma=1.3)[1][-1] <= limit * (1 + 1e-12)
    ones = np.ones(total, int)
    singly = bounds.ema_error(gains_of(ema, ones)[0], ones, drift=0, sigma=1.3)[1][-1]
    close(singly, limit)


@given(rate=st.floats(0.01, 0.9), n=st.integers(1, 60))
def test_variance_of_equal_batches(rate, n):
    """T1.3, E: in the long run (s² / n) tanh(n l / 2), from the gain 1 - (1 - b)^n."""
    gain = bounds.sample_gain(rate, n)
    close(gain, 1 - (1 - rate) ** n)
    kept = feed(aria.Ema(rate=rate), [n], [1.0]).rows["average"][0, 1]  # the weight of the first round is its gain
    close(gain, kept)
    half = -n * np.log1p(-rate) / 2
    close(bounds.ema_steady_state(gain=gain, gap=1, count=n, drift=0, sigma=2)[1], 4 / n * np.tanh(half))


@given(rate=RATES, a=st.integers(0, 50), b=st.integers(1, 50))
def test_retention_is_a_semigroup(rate, a, b):
    close((1 - bounds.sample_gain(rate, a or 1)) * (1 - bounds.sample_gain(rate, b)),
          1 - bounds.sample_gain(rate, (a or 1) + b))  # fmt: skip


@given(rate=RATES, visits=st.integers(1, 40))
def test_variance_of_the_start(rate, visits):
    """T1.4, E: sigma² / `Estimate.count` of single losses is `variance_start`, from sigma² down to the limit."""
    _, count, age = probe(aria.Ema(rate=rate), [1] * visits)
    close(bounds.variance_start(rate=rate, visits=visits, sigma=1.5), 1.5**2 / count)
    assert bounds.variance_start(rate=rate, visits=1, sigma=1.5) == pytest.approx(2.25, rel=1e-14)
    limit = bounds.variance_limit(rate=rate, samples=10**9, sigma=1.5)
    close(bounds.variance_start(rate=rate, visits=10**9, sigma=1.5), limit)
    if rate < 1:
        r = 1 - rate
        close(age, r / rate - visits * r**visits / (1 - r**visits), atol=1e-8)


# -- T1.5, 1.6: adaptive allocation ------------------------------------------------------------------------


def adaptive_paths(ema, rounds, truth):
    """All 2^rounds noise paths, where a high estimate (above the median path) draws 4 losses and a low one 1.

    A region a path; the noise of the mean of n losses is ±1/n. Returns the estimate at the end of each path.
    """
    paths = 2**rounds
    state, everyone = ema.init(paths), np.arange(paths)
    high = np.zeros(paths, bool)
    for t in range(rounds):
        n = np.where(high, 4.0, 1.0)
        sign = np.where(everyone >> t & 1, 1.0, -1.0)
        state = advanced(ema, state, aria.Feedback(everyone, n, truth[t] + sign / n, np.zeros(paths), 0))
        estimate = ema.estimate(state).mean
        high = estimate > np.median(estimate)
    return ema.estimate(state).mean


@given(truth=st.lists(st.integers(-8, 8), min_size=2, max_size=9))
def test_no_bias_where_every_round_visits_with_one_gain(truth):
    """T1.5, E: constant gain per visit and n >= 1: adaptive counts leave E M what the fixed weights say."""
    ema = aria.Ema(rate=0.5, per="visit")
    mean = adaptive_paths(ema, len(truth), truth)
    weights, _, _ = probe(ema, [1] * len(truth))
    weight = 1 - Fraction(1, 2 ** len(truth))
    exact = sum(Fraction(round(m * 2 ** (len(truth) + 2) * float(weight))) for m in mean) / 2 ** (len(truth) + 2)
    wanted = sum(Fraction(d, 2 ** (len(truth) - t)) for t, d in enumerate(truth)) * len(mean)
    assert exact == wanted  # in whole multiples of the smallest number that can occur
    close(mean.mean(), weights @ np.array(truth))


def test_bias_where_the_gain_follows_the_count():
    """T1.5's limit, E: with a gain by count the same allocation is biased, though each loss is not."""
    mean = adaptive_paths(aria.Ema(rate=0.5), 8, [0] * 8)
    assert mean.mean() < -0.05


@pytest.mark.parametrize("b", [Fraction(1, 10), Fraction(1, 2), Fraction(9, 10)])
def test_visiting_high_estimates_again_is_biased(b):
    """1.6 (a), E: D = 1, losses 0 or 2; the second visit, made only if the first gave 2, costs gain / 2."""
    total = Fraction(0)
    for first in (0, 2):
        seconds = (0, 2) if first >= 1 else (None,)
        for second in seconds:
            m = Fraction(first)
            m += b * (second - m) if second is not None else 0
            total += Fraction(1, 2 * len(seconds)) * m
    assert total - 1 == -b / 2
    ema = aria.Ema(rate=float(b))  # whose second gain is b / (1 - (1 - b)²), the start being corrected
    mean = np.mean([0.0, 0.0, *(float(ema.estimate(feed(ema, [1, 1], [2.0, y])).mean[0]) for y in (0, 2))])
    close(mean - 1, -float(1 / (2 - b)) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [aria.Ema(), aria.EmaBank()], ids=["Ema", "EmaBank"])
@pytest.mark.parametrize(
    ("log_sd", "bias", "scatter"), [(1.5, (-0.14, -0.04), (0.1, 0.3)), (0.6, (-0.02, 0.02), (0, 0.1))]
)
def test_bias_in_a_closed_loop_of_few_rows(estimator, log_sd, bias, scatter):
    """T1.6: 16 regions that are alike, 4 rows a round. Seeds are fixed: nothing is left to chance."""
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pool = aria.Partition.from_labels(np.repeat(np.arange(16), 50))
        allocator, means = aria.Allocator(pool, estimator=estimator, seed=seed), []
        for t in range(600):
            draw = allocator.draw(4)
            allocator.observe(draw.regions, np.exp(log_sd * rng.standard_normal(4) - log_sd**2 / 2))
            allocator.step()
            if t >= 200 and t % 10 == 0:
                means.append(allocator.estimate().mean)
        found.append(np.mean(means, axis=0) - 1)
    assert bias[0] < np.mean(found) < bias[1]
    assert scatter[0] < np.std(found, axis=1).mean() < scatter[1]


def test_freezing_when_wrong_beats_the_lasting_variance():
    """1.6 (b), E: gain 1/2; stop after two visits if far off, else visit once more: E Z² = 53/128 > 1/3."""
    half, total = Fraction(1, 2), Fraction(0)
    for signs in itertools.product([-1, 1], repeat=3):
        z = half * (half * signs[0]) + half * signs[1]
        if abs(z) < half:
            z = half * z + half * signs[2]
        total += z**2 / 8
    assert total == Fraction(53, 128)
    assert float(total) > bounds.variance_limit(rate=0.5, samples=10**6)
    ema, second = aria.Ema(rate=0.5), 0.0
    for signs in itertools.product([-1.0, 1.0], repeat=3):
        z = 0.75 * ema.estimate(feed(ema, [1, 1], signs[:2])).mean[0]
        if abs(z) < 0.5:
            z = 0.875 * ema.estimate(feed(ema, [1, 1, 1], signs)).mean[0]
        second += z**2 / 8
    close(second, 53 / 128)


# -- T1.7 --------------------------------------------------------------------------------------------------


def rmse_recursion(x, gain, step, sigma):
    return np.sqrt((1 - gain) ** 2 * (x + step) ** 2 + gain**2 * sigma**2)


@given(
    gain=st.floats(0.05, 1), gap=st.integers(1, 9), drift=st.floats(0, 2), error0=st.floats(-3, 3), seed=SEEDS,
    adversary=st.sampled_from(["random", "away", "patient"]),
)  # fmt: skip
def test_error_whoever_times_the_visits(gain, gap, drift, error0, seed, adversary):
    """T1.7, E: all 2^9 paths of a tree, gaps and drift chosen at every node knowing what led there."""
    rng = np.random.default_rng(seed)
    error, x = np.array([error0]), abs(error0)
    limit = float(bounds.rmse_per_visit(gain=gain, gap=gap, drift=drift, sigma=1))
    for _ in range(9):
        if adversary == "random":
            moved = rng.integers(1, gap + 1, len(error)) * drift * rng.uniform(-1, 1, len(error))
        else:  # the longest gap where it hurts; the patient one waits only where the error is large
            waits = gap if adversary == "away" else np.where(np.abs(error) > np.median(np.abs(error)), gap, 1)
            moved = -np.where(error >= 0, 1, -1) * waits * drift
        centre = (1 - gain) * (error - moved)
        error = np.concatenate([centre - gain, centre + gain])  # noise of ±1: standard deviation 1
        x = float(rmse_recursion(x, gain, gap * drift, 1))
        assert np.mean(error**2) <= x**2 * (1 + 1e-12)
        assert x <= max(limit, abs(error0)) * (1 + 1e-12)


@given(gain=st.floats(0.01, 1), gap=st.integers(1, 99), drift=st.floats(0, 2), sigma=st.floats(0.01, 3))
def test_lasting_error_is_the_fixed_point(gain, gap, drift, sigma):
    """T1.7, E; and at most the bias of T1.2 plus the lasting standard deviation."""
    x = bounds.rmse_per_visit(gain=gain, gap=gap, drift=drift, sigma=sigma)
    close(rmse_recursion(x, gain, gap * drift, sigma), x, rtol=1e-9)
    bias, variance = bounds.ema_steady_state(gain=gain, gap=gap, count=1, drift=drift, sigma=sigma)
    assert x <= (bias + np.sqrt(variance)) * (1 + 1e-9)


# -- T6.2: delay -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0, 1, 3, 7])
def test_delay_adds_its_drift_on_a_ramp(delay):
    """T6.2, E: what a draw acts on lags by L + delay. Proportional shares show the estimate: x1 / x0 = D1 / D0."""
    slope, gain, exploration = 0.01, 0.5, 0.5
    allocator = aria.Allocator(
        aria.Partition.from_labels([0, 1]), estimator=aria.Ema(rate=gain, per="visit"), exploration=exploration,
        target="uniform", lag=delay,
    )  # fmt: skip
    for _ in range(delay):
        allocator.draw(8)
    for number in range(80):
        draw = allocator.draw(8)
        oldest = allocator.open_rounds[0]
        assert set(oldest.regions.tolist()) == {0, 1}  # visited in every round: n p >= 2
        allocator.observe(oldest.regions, np.where(oldest.regions == 1, 1 + slope * number, 1.0))
        allocator.step()
    share = (draw.probabilities[draw.regions == 1][0] - exploration / 2) / (1 - exploration)
    acted_on = share / (1 - share) - 1
    truth = slope * (draw.round - 1)  # of the last round that could have been known
    lag = (1 - gain) / gain
    close(truth - acted_on, bounds.delayed_bias(bias=slope * lag, drift=slope, delay=delay), rtol=1e-9)
