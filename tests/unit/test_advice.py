"""`History.advice`: what it says in worlds whose answer is known, and that it admits what it cannot know.

`benchmarks/advice` has many worlds and seeds; here is one of each kind, with fixed seeds, so nothing is left to chance.
"""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling.advice import Curves, advise
from tests.helpers import small_pool

K = 12
ROUNDS, EVERY, DRAW = 400, 10, 64
EQUAL = np.full(K, 1 / K)


def power_law(stays=0.0, height=1.0, scale=200.0, power=0.7):
    """Discrepancies after so many draws of each region."""
    return lambda draws: stays + height * (1 + draws / scale) ** -power


def trained(curve, *, policy=None, shared=False, weights=None, seed=0, cv=0.5):
    """The history of a run in which region k follows `curve` of its own draws, or of all (`shared`), and the draws."""
    pool = aria.Partition.from_labels(np.repeat(np.arange(K), 20 if weights is None else weights))
    allocator = aria.Allocator(pool, policy=policy, seed=seed)
    history = aria.History(allocator, every=EVERY)
    rng, draws, sd = np.random.default_rng(seed), np.zeros(K), np.sqrt(np.log1p(cv**2))
    for _ in range(ROUNDS):
        draw = allocator.draw(DRAW)
        truth = curve(np.full(K, draws.sum() / K) if shared else draws)
        allocator.observe(draw.regions, truth[draw.regions] * np.exp(sd * rng.standard_normal(DRAW) - sd**2 / 2))
        allocator.step()
        history.record()
        draws += np.bincount(draw.regions, minlength=K)
    return history, draws


def gain(curve, draws, shares=EQUAL):
    return curve(shares * draws.sum()).mean() / curve(draws).mean() - 1


def holds(interval, truth):
    return interval.low <= truth <= interval.high


FEW = np.arange(K) < 4


@pytest.mark.parametrize(
    "curve", [power_law(), power_law(height=0.0, stays=np.ones(K))], ids=["learning", "not learning"]
)
def test_regions_that_are_alike_need_no_allocation(curve):
    for seed in range(3):
        history, draws = trained(lambda d: curve(d) * np.ones(K), seed=seed)
        advice = history.advice()
        assert advice.recommendation == "pool"
        assert abs(advice.over_pool.value) < 0.01
        assert holds(advice.over_pool, gain(lambda d: curve(d) * np.ones(K), draws))


def test_reducible_parts_that_differ_are_worth_an_allocation():
    curve = power_law(stays=0.2, height=np.where(FEW, 4.0, 0.02), power=1.0)
    history, draws = trained(curve)
    advice = history.advice()
    assert advice.recommendation == "adaptive"
    assert advice.over_pool.low > 0
    assert holds(advice.over_pool, gain(curve, draws))
    assert "keep allocating" in advice.text


def test_losses_that_stay_mislead_and_that_is_said():
    curve = power_law(stays=np.where(FEW, 3.0, 0.05), height=1.0, power=1.0)
    history, draws = trained(curve)
    truth = gain(curve, draws)
    advice = history.advice()
    assert truth < -0.01  # the allocation did harm
    assert advice.recommendation == "pool"
    assert advice.over_pool.value < 0
    assert holds(advice.over_pool, truth)


def test_a_decay_that_all_regions_share_is_no_reason_to_allocate():
    """Regions differ by a factor, and every draw teaches all: no allocation changes anything."""
    for seed in range(3):
        history, _ = trained(power_law(height=np.geomspace(0.3, 3, K)), shared=True, seed=seed)
        advice = history.advice()
        assert advice.recommendation != "adaptive"
        assert holds(advice.over_pool, 0.0)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_a_baseline_gains_nothing_over_itself(policy):
    sizes = 10 + 10 * np.arange(K)
    advice = trained(power_law(height=np.geomspace(0.3, 3, K)), policy=policy, weights=sizes)[0].advice()
    own = advice.over_pool if isinstance(policy, aria.PoolPolicy) else advice.over_uniform
    assert max(abs(own.value), own.high) < 0.005
    assert advice.recommendation in ("pool", "uniform")


def test_it_knows_nothing_without_records_losses_or_draws():
    history = aria.History(aria.Allocator(small_pool()), every=1)
    silent = aria.History(aria.Allocator(small_pool()), every=1)
    without_draws = aria.History(aria.Allocator(small_pool()), every=1)
    for _ in range(9):
        silent.allocator.draw(4)
        silent.allocator.step()
        silent.record()
        without_draws.allocator.draw(0)
        without_draws.allocator.observe([0, 1, 2, 3, 4, 5], np.ones(6))
        without_draws.allocator.step()
        without_draws.record()
    for empty in (history, silent, without_draws):
        advice = empty.advice()
        assert advice.recommendation == "undecided"
        assert np.isnan(advice.over_pool.value)
        assert (advice.over_uniform.low, advice.over_uniform.high) == (-np.inf, np.inf)
        assert "not known yet" in advice.text


def test_regions_of_no_worth_and_losses_beyond_reason_do_no_harm():
    allocator = aria.Allocator(small_pool(), target=[0, 1, 1, 1, 1, 1], seed=2)
    history = aria.History(allocator, every=1)
    for r in range(30):
        draw = allocator.draw(16)
        allocator.observe(draw.regions, np.full(16, 1e60 if r == 3 else np.nan if r == 5 else 1.0 - 2 * (r == 7)))
        allocator.step()
        history.record()
        history.advice()
    assert history.advice().recommendation in ("undecided", "pool", "uniform")


def test_scale_does_not_matter_and_time_is_no_input():
    history, _ = trained(power_law(stays=0.2, height=np.where(FEW, 4.0, 0.02)))
    curves = Curves(history.draw_counts, history.discrepancy, history.stderr, history.count)
    sizes, target = history.allocator.partition.sizes, history.allocator.target
    scaled = Curves(curves.draws, 8 * curves.mean, 8 * curves.stderr, curves.count)
    one, other = advise(curves, target, sizes), advise(scaled, target, sizes)
    assert one.over_pool.value == pytest.approx(other.over_pool.value, rel=1e-9)
    assert one.over_pool.low == pytest.approx(other.over_pool.low, rel=1e-9)
