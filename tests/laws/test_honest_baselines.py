"""Law, honest baselines: PoolPolicy and UniformPolicy are what they say, and a report says when one would have done.

A comparison is with the real thing: no exploration, no coverage, no visit by force. And it is a fair one: a baseline
draws by the same machinery, watches the same losses and keeps the same state as an allocation that adapts.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from tests.helpers import play, same_draw, same_estimate, small_pool

seeds = st.integers(0, 2**32)
BASELINES = [(aria.PoolPolicy(), "pool"), (aria.UniformPolicy(), "uniform")]
ESTIMATORS = [aria.EmaBank(), aria.Ema(), aria.Ema(0.2, per="visit")]


def shares_of(pool, target):
    return pool.sizes / pool.n_items if target == "pool" else np.full(pool.n_regions, 1 / pool.n_regions)


@given(st.sampled_from(BASELINES), st.sampled_from(ESTIMATORS), seeds, st.integers(0, 2), st.integers(1, 9))
def test_every_draw_is_by_the_shares_alone(baseline, estimator, seed, lag, n):
    """To the bit, whatever losses come, and however long a region is left alone."""
    policy, target = baseline
    pool = small_pool(n_regions=9, seed=seed)
    allocator = aria.Allocator(pool, policy=policy, estimator=estimator, seed=seed, lag=lag)
    assert (allocator.exploration, allocator.coverage) == (1.0, None)
    np.testing.assert_allclose(allocator.target, shares_of(pool, target), rtol=1e-15)
    counts = np.zeros(9)
    for draw in play(allocator, 40, n=n, loss=lambda d: 1e9 ** (d.regions % 3)):
        assert np.array_equal(draw.probabilities, allocator.target[draw.regions])
        assert (draw.weights == 1).all()
        assert draw.forced == 0
        own = np.bincount(draw.regions, minlength=9)
        counts += own
        assert (np.abs(own - n * allocator.target) < 1 + 1e-9).all()  # systematic
    assert np.array_equal(allocator.probabilities, allocator.target)
    assert np.array_equal(allocator.draw_counts, counts)
    metrics = allocator.metrics()
    assert (metrics["forced_visits"], metrics["top_boost"]) == (0, 1)
    assert metrics["ess"] == pytest.approx(1, rel=1e-14)


@given(st.sampled_from(BASELINES), seeds, st.sampled_from([2, 7, 30]))
def test_a_baseline_draws_the_rows_that_an_allocation_that_learns_nothing_would(baseline, seed, n):
    """Same permutations, same random words: `Proportional(0)` with the same target differs by forced visits alone."""
    policy, target = baseline
    pool = small_pool(seed=seed)
    one = aria.Allocator(pool, policy=policy, seed=seed)
    other = aria.Allocator(pool, policy=aria.Proportional(0.0), target=target, seed=seed)
    for a, b in zip(play(one, 12, n=n), play(other, 12, n=n), strict=True):
        if b.forced:
            break
        assert np.array_equal(a.items, b.items)
        np.testing.assert_allclose(a.probabilities, b.probabilities, rtol=1e-12)


@given(st.sampled_from(BASELINES), st.sampled_from(ESTIMATORS), seeds)
def test_a_baseline_watches_as_an_allocation_that_adapts_does(baseline, estimator, seed):
    """Fed the same losses they believe the same, to the bit: what is compared in the end are the draws."""
    pool, rng = small_pool(seed=seed), np.random.default_rng(seed)
    one, other = (aria.Allocator(pool, policy=policy, estimator=estimator) for policy in (baseline[0], None))
    for _ in range(15):
        regions, losses = rng.integers(0, 6, 9), rng.lognormal(0, 1, 9)
        for each in (one, other):
            each.draw(9)
            each.observe(regions, losses)
            each.step()
    assert same_estimate(one.estimate(), other.estimate())
    assert one.metrics()["discrepancy"] == pytest.approx(np.dot(one.target, one.estimate().mean), rel=1e-12)


@given(st.sampled_from(BASELINES), seeds, st.integers(0, 9))
def test_a_baseline_is_resumed_like_any_other(baseline, seed, stop):
    pool = small_pool(seed=seed)
    straight, stopped, resumed = (aria.Allocator(pool, policy=baseline[0], seed=seed, lag=1) for _ in range(3))
    draws = play(straight, stop + 6)
    play(stopped, stop)
    resumed.load_state_dict(stopped.state_dict())
    assert all(same_draw(a, b) for a, b in zip(draws[stop:], play(resumed, 6), strict=True))
    assert resumed.digest() == straight.digest()


@given(st.sampled_from(BASELINES), st.sampled_from([20.0, 60.0]), seeds)
def test_a_cap_applies_to_baselines_too(baseline, most, seed):
    """It is the one setting that they take: it bounds how often an item comes, whoever draws."""
    pool = small_pool(seed=seed)
    allocator = aria.Allocator(pool, policy=baseline[0], max_repeat=most, seed=seed)
    cap = most * pool.sizes / pool.n_items
    assert (allocator.target <= cap * (1 + 1e-12)).all()
    play(allocator, 9)
    assert np.array_equal(allocator.probabilities, allocator.target)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
@pytest.mark.parametrize(
    "given_",
    [
        {"target": "pool"},
        {"target": "uniform"},
        {"target": 0.5},
        {"target": [1.0] * 6},
        {"exploration": 0.2},
        {"exploration": 1.0},
        {"coverage": "items"},
        {"coverage": "none"},
        {"coverage": "online"},
    ],
    ids=str,
)
def test_what_a_baseline_would_ignore_is_refused(policy, given_):
    """Also where it would change nothing: a script that sets it has not said what it means."""
    pool = small_pool()
    coverages = {
        "items": aria.Coverage(pool, items=[0]),
        "none": aria.Coverage(pool, items=[]),
        "online": aria.Coverage.online(pool),
    }
    ((name, value),) = given_.items()
    value = coverages[value] if name == "coverage" else value
    with pytest.raises(
        ValueError, match=f"{name}=.*{type(policy).__name__} draws by its own shares.*leave out policy="
    ):
        aria.Allocator(pool, policy=policy, **{name: value})


# ---------------------------------------------------------------------- whether one of them would have done


def run(policy, hard, *, seed=0, regions=12, rounds=400):
    """The history of a run whose discrepancies fall with each region's own draws, those of `hard` from far above."""
    pool = aria.Partition.from_labels(np.repeat(np.arange(regions), 10 + np.arange(regions)))
    allocator = aria.Allocator(pool, policy=policy, seed=seed)
    history, rng = aria.History(allocator, every=10), np.random.default_rng(seed)
    height = np.where(np.isin(np.arange(regions), hard), 4.0, 0.02 if len(hard) else 1.0)
    for _ in range(rounds):
        draw = allocator.draw(64)
        truth = (0.2 if len(hard) else 0.0) + height / (1 + allocator.draw_counts / 200)
        allocator.observe(draw.regions, truth[draw.regions] * rng.lognormal(-0.1, 0.45, 64))
        allocator.step()
        history.record()
    return history.advice(regions_learn_alone=True)  # so they do in this world


def test_the_report_recommends_to_go_on_where_adapting_helped():
    advice = run(None, hard=[0, 1])
    assert advice.recommendation == "adaptive"
    assert min(advice.over_pool.low, advice.over_uniform.low) > 0


def test_the_report_recommends_the_baseline_where_nothing_was_gained():
    for seed in range(2):
        advice = run(None, hard=[], seed=seed)
        assert advice.recommendation in ("pool", "uniform")
        better = min(advice.over_pool, advice.over_uniform, key=lambda gain: gain.value)
        assert better.high < 0.02
        assert "is enough here" in advice.text


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_the_report_of_a_baseline_claims_nothing_over_it(policy):
    advice = run(policy, hard=[0, 1])
    own = advice.over_pool if isinstance(policy, aria.PoolPolicy) else advice.over_uniform
    assert abs(own.value) < 0.005
    assert own.low <= 0 <= own.high
    assert advice.recommendation != "adaptive"
