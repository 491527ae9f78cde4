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
    advice = history.advice(regions_learn_alone=True)
    assert advice.recommendation == "adaptive"
    assert advice.over_pool.low > 0
    assert holds(advice.over_pool, gain(curve, draws))
    assert "keep allocating" in advice.text


def test_losses_that_stay_mislead_and_that_is_said():
    curve = power_law(stays=np.where(FEW, 3.0, 0.05), height=1.0, power=1.0)
    history, draws = trained(curve)
    truth = gain(curve, draws)
    advice = history.advice(regions_learn_alone=True)
    assert truth < -0.01  # the allocation did harm
    assert advice.recommendation in ("pool", "undecided")
    assert advice.over_pool.value < 0
    assert holds(advice.over_pool, truth)


def test_a_decay_that_all_regions_share_is_no_reason_to_allocate():
    """Regions differ by a factor, and every draw teaches all: no allocation changes anything."""
    for seed in range(3):
        history, _ = trained(power_law(height=np.geomspace(0.3, 3, K)), shared=True, seed=seed)
        for alone in (False, True):
            advice = history.advice(regions_learn_alone=alone)
            assert advice.recommendation != "adaptive"
            assert holds(advice.over_pool, 0.0)


def test_what_regions_teach_each_other_cannot_be_told_so_it_may_be_all():
    """Regions with much and with little to learn, and every draw teaches all. Who is told that regions learn alone
    finds a gain that is not there; as it comes the interval holds none, all, and what a half would be."""
    for share, seed in ((1.0, 0), (0.5, 1), (0.0, 2)):
        curve = power_law(stays=0.2, height=np.where(FEW, 4.0, 0.02), power=1.0)

        def mixed(draws, curve=curve, share=share):
            return curve((1 - share) * draws + share * draws.mean())

        history, draws = trained(mixed, seed=seed)
        told, advice = history.advice(regions_learn_alone=True), history.advice()
        assert told.over_pool.low > 0
        assert told.recommendation == "adaptive"
        assert advice.recommendation == "undecided"
        assert holds(advice.over_pool, gain(mixed, draws))
        assert advice.over_pool.low <= min(told.over_pool.low, 0.0)
        assert any("regions_learn_alone=True" in doubt for doubt in advice.doubts)
        assert advice.doubts[0] in advice.text


def exponential(draws):
    return np.geomspace(1, 4, K) * np.exp(-draws / 260)


def sigmoid(draws):
    return np.geomspace(1, 4, K) / (1 + np.exp(np.minimum((draws - 500) / 60, 300))) + np.geomspace(0.5, 2, K)


@pytest.mark.parametrize("curve", [exponential, sigmoid])
@pytest.mark.parametrize("alone", [False, True])
def test_curves_that_are_no_lines_are_found_out(curve, alone):
    """Exponentials are steeper and steeper on log scales; a sigmoid that has finished looks as if it would go on."""
    for seed in range(3):
        advice = trained(curve, seed=seed)[0].advice(regions_learn_alone=alone)
        assert advice.recommendation == "undecided"
        assert np.isnan(advice.over_uniform.value)
        assert (advice.over_uniform.low, advice.over_uniform.high) == (-np.inf, np.inf)
        assert "no line" in advice.text


def seen(mean, draws, cv=0.05, count=20):
    """Curves without noise: `mean` of draws, [T, regions]."""
    return Curves(draws, mean, cv * mean, np.full(draws.shape, count))


DRAWS = np.linspace(100, 4000, 50)[:, None] * np.geomspace(0.5, 2, 8)


@pytest.mark.parametrize("alone", [False, True])
def test_a_bound_that_binds_is_no_answer(alone):
    """Lines steeper than the steepest that is trusted, and straight: once they were cut to it, silently."""
    q, sizes = np.full(8, 1 / 8), np.full(8, 10)
    steep = advise(seen(1e9 * DRAWS**-3.0, DRAWS), q, sizes, regions_learn_alone=alone)
    assert steep.recommendation == "undecided"
    assert np.isnan(steep.over_pool.value)
    assert "faster than one over the square" in steep.text
    flat = advise(seen(1e2 * DRAWS**-0.5, DRAWS), q, sizes, regions_learn_alone=alone)
    assert np.isfinite([flat.over_pool.low, flat.over_pool.high]).all()


def test_regions_that_another_allocation_would_have_drawn_alike_need_no_line():
    """Whatever their curves: nothing is read off elsewhere."""
    draws = np.linspace(100, 4000, 50)[:, None] * np.ones(8)
    advice = advise(seen(np.exp(-draws / 500), draws), np.full(8, 1 / 8), np.full(8, 10))
    assert advice.recommendation in ("pool", "uniform")
    assert abs(advice.over_pool.high) < 0.01


def test_nothing_to_allocate_where_regions_differ_by_their_noise_alone():
    """For the whole run, and not after a tenth of it alone; more regions than one have to be seen."""
    for seed in range(5):
        alike = trained(lambda d: power_law()(d) * np.ones(K), seed=seed)[0].advice()
        assert alike.nothing_to_allocate
        assert alike.verdict.startswith("There was nothing to allocate")
        apart = trained(power_law(height=np.geomspace(0.3, 3, K)), seed=seed)[0].advice()
        assert not apart.nothing_to_allocate
        assert "nothing to allocate" not in apart.text
    q, sizes = np.full(8, 1 / 8), np.full(8, 10)
    later_alike = np.where(np.arange(50)[:, None] < 5, np.geomspace(1, 3, 8), 1.0)
    assert not advise(seen(later_alike, DRAWS), q, sizes).nothing_to_allocate
    assert advise(seen(np.ones((50, 8)), DRAWS), q, sizes).nothing_to_allocate
    assert not advise(seen(np.ones((50, 1)), DRAWS[:, :1]), np.ones(1), sizes[:1]).nothing_to_allocate


def test_losses_that_are_ratios_have_no_curve():
    """Divided by what is usual at their noise level they are near 1 whatever was learnt."""
    pool = aria.Partition.from_labels(np.repeat(np.arange(4), [10, 20, 30, 40]))
    switch = aria.RandomConditioning(aria.Allocator(pool), schedule=aria.ConstantSwitch(0.5))
    history, rng = aria.History(switch, every=2), np.random.default_rng(0)
    for r in range(100):
        steps = rng.integers(0, 1000, 32)
        switch.draw(steps)
        switch.observe((1.0 + steps / 100) / (1 + r))
        history.record()
    advice = history.advice()
    assert advice.recommendation == "undecided"
    assert np.isnan(advice.over_pool.value)
    assert "normalise=False" in advice.text


def test_rows_that_train_anyway_teach_regions():
    pool = small_pool()
    history = aria.History(aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0, 1])))
    with pytest.raises(ValueError, match="regions_learn_alone=True: expected no coverage"):
        history.advice(regions_learn_alone=True)
    with pytest.raises(ValueError, match="regions_learn_alone=1: expected True or False"):
        history.advice(regions_learn_alone=1)
    assert history.advice().recommendation == "undecided"
    empty = aria.History(aria.Allocator(pool, coverage=aria.Coverage(pool, items=[])))
    assert empty.advice(regions_learn_alone=True).recommendation == "undecided"


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_a_baseline_gains_nothing_over_itself(policy):
    sizes = 10 + 10 * np.arange(K)
    advice = trained(power_law(height=np.geomspace(0.3, 3, K)), policy=policy, weights=sizes)[0].advice(
        regions_learn_alone=True
    )
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
