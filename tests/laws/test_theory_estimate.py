"""What `estimate()` says beside the mean: cold regions, spread, and the metric that uses them. Exact."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.estimators import borrowed
from tests.feeding import after

SEEDS = st.integers(0, 2**32)
ESTIMATORS = [aria.Ema(0.1), aria.Ema(0.3, per="visit"), aria.EmaBank()]
HALF_LIVES = aria.EmaBank().half_lives


def history(seed, k, visited):
    """Rounds in which the first `visited` of k regions bring 0 to 6 losses each."""
    rng = np.random.default_rng(seed)
    rounds = [(rng.integers(0, visited, rng.integers(0, 7)), rng) for _ in range(12)]
    rounds = [(np.array([0]), rng), *rounds]
    return [(regions, rng.lognormal(0, 1, len(regions)) * (1 + regions)) for regions, rng in rounds]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@given(seed=SEEDS, visited=st.integers(1, 4))
def test_a_cold_region_borrows_the_count_weighted_mean(estimator, seed, visited):
    """Regions never visited are flagged; the mean they are lent is sum(count · mean) / sum(count) of the others."""
    own = after(estimator, history(seed, 6, visited), 6)
    assert np.array_equal(np.isnan(own.mean), own.cold)
    one = borrowed(own)
    seen = ~one.cold
    assert one.cold[visited:].all()
    assert not one.cold[0]
    common = (one.count[seen] * one.mean[seen]).sum() / one.count[seen].sum()
    np.testing.assert_allclose(one.mean[one.cold], common, rtol=1e-12)
    assert np.isinf(one.stderr[one.cold]).all()
    assert np.isinf(one.age[one.cold]).all()
    assert np.isfinite([one.mean, np.where(seen, one.stderr, 0), np.where(seen, one.age, 0)]).all()


@given(seed=SEEDS)
def test_memory_of_the_bank_is_counted_in_losses(seed):
    """A bank of one member is `Ema(per="sample")` of that half-life, whatever comes in a round; and any bank stays
    within its members."""
    rounds = history(seed, 4, 4)
    members = []
    for half_life in HALF_LIVES:
        ema = aria.Ema(rate=1 - 0.5 ** (1 / half_life))
        members.append(after(ema, rounds, 4))
        alone = after(aria.EmaBank(half_lives=(half_life,)), rounds, 4)
        np.testing.assert_allclose(alone.mean, members[-1].mean, rtol=1e-9)
        np.testing.assert_allclose(alone.age, members[-1].age, rtol=1e-9, atol=1e-9)
    mixed = after(aria.EmaBank(), rounds, 4)
    means = np.array([member.mean for member in members])[:, ~mixed.cold]
    assert (mixed.mean[~mixed.cold] >= means.min(axis=0) * (1 - 1e-9)).all()
    assert (mixed.mean[~mixed.cold] <= means.max(axis=0) * (1 + 1e-9)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@given(losses=st.lists(st.floats(0.5, 2), min_size=2, max_size=8), rounds=st.integers(1, 20))
def test_standard_error_is_the_spread_over_the_count(estimator, losses, rounds):
    """stderr² · count = mean² · cv²; from its start at 1, cv² goes to m2 / (n - 1) / mean² of the batches that come."""
    one = after(estimator, [(np.zeros(len(losses), int), losses)] * rounds, 1)
    n, mean, old = len(losses), np.mean(losses), 0.99**rounds
    cv2 = (old + (1 - old) * np.var(losses) * n / mean**2) / (old + (1 - old) * (n - 1))
    assert one.stderr[0] ** 2 * one.count[0] == pytest.approx(mean**2 * cv2, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_sum_of_squares_over_degrees_of_freedom_is_unbiased(n):
    """E: over all 2^n batches of losses 1 ± 1/2, the mean of m2 / (n - 1) is the variance of one."""
    batches = [[1 + sign / 2 for sign in signs] for signs in itertools.product([-1, 1], repeat=n)]
    m2 = [aria.Feedback.from_rows([0] * n, batch, n_regions=1).m2[0] for batch in batches]
    assert np.mean(m2) / (n - 1) == pytest.approx(0.25, rel=1e-12)


# -- `uncertain`: the share of draws where the estimate is worse than the difference it acts on ------------


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("policy", [aria.Proportional(), aria.Reducible(), aria.UniformPolicy()], ids=repr)
@given(seed=SEEDS)
def test_uncertain_is_the_share_of_what_cannot_be_told_from_the_average(estimator, policy, seed):
    """Region by region: uncertain unless |mean - discrepancy| exceeds the standard error."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 8))
    pool = aria.Partition.from_labels(np.arange(3 * k) % k)
    target = None if policy.baseline else rng.dirichlet(np.ones(k))
    allocator = aria.Allocator(pool, estimator=estimator, policy=policy, target=target)
    for _ in range(int(rng.integers(1, 30))):
        draw = allocator.draw(5)
        allocator.observe(draw.regions, rng.lognormal(0, 0.3, 5) * (1 + draw.regions % 3))
        allocator.step()
    one, metrics, share = allocator.estimate(), allocator.metrics(), 0.0
    average = sum(q * mean for q, mean in zip(allocator.target, one.mean, strict=True))
    for p, mean, stderr in zip(allocator.probabilities, one.mean, one.stderr, strict=True):
        share += p if abs(mean - average) <= stderr else 0.0
    assert metrics["discrepancy"] == pytest.approx(average, rel=1e-12)
    assert metrics["uncertain"] == pytest.approx(share, abs=1e-12)


def test_uncertain_before_during_and_after():
    """All of it before any loss and while regions look alike; none once they are told apart."""
    rng = np.random.default_rng(0)
    allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 1, 1]), estimator=aria.Ema(rate=0.01))
    assert allocator.metrics()["uncertain"] == 1
    draw = allocator.draw(1)
    allocator.observe(draw.regions, [1.0])  # one region known, the other not
    allocator.step()
    assert allocator.metrics()["uncertain"] == 1
    for _ in range(200):
        draw = allocator.draw(8)
        allocator.observe(draw.regions, rng.uniform(0.9, 1.1, 8) * (1 + draw.regions))
        allocator.step()
    assert allocator.metrics()["uncertain"] == 0


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_uncertain_where_all_losses_are_equal(value):
    """No difference to act on: all draws are uncertain, though the standard error of equal losses shrinks to 0."""
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), estimator=aria.Ema())
    for _ in range(30):
        draw = allocator.draw(6)
        allocator.observe(draw.regions, np.full(6, value))
        allocator.step()
    assert allocator.metrics()["uncertain"] == pytest.approx(1)
