"""Law, nothing poisons it: whatever losses come, p stays finite, sums to 1 and explores."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from tests.helpers import small_pool

POISON = [
    math.nan,
    math.inf,
    -math.inf,
    1e200,
    -1e200,
    1e150,
    1e149,
    -1e149,
    1e30,
    1e-300,
    5e-324,
    0.0,
    -0.0,
    -3.0,
    1.0,
]
ESTIMATORS = [aria.EmaBank(), aria.Ema(), aria.Ema(1.0), aria.Ema(0.3, per="visit"), aria.EmaBank((0.1, 1e6))]
POLICIES = [
    aria.Proportional(),
    aria.Proportional(20.0),
    aria.GroupDRO(),
    aria.Reducible(),
]

parts = {
    "estimator": st.sampled_from(ESTIMATORS),
    "policy": st.sampled_from(POLICIES),
    "target": st.sampled_from(["pool", "uniform", [1.0, 1e-300, 0.0, 1.0, 1.0, 1.0]]),
}


def dropped(losses):
    return sum(not abs(x) < 1e150 for x in losses)


def sound(allocator):
    """p is finite, sums to 1 and explores; the metrics but for unknown discrepancies are finite."""
    p = allocator.probabilities
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= allocator.exploration * allocator.target * (1 - 1e-12)).all()
    assert (p[allocator.target == 0] == 0).all()
    estimate = allocator.estimate()
    assert np.isfinite(estimate.mean).all() or not (estimate.count > 0).any()
    assert not np.isnan(estimate.stderr).any()
    unknown = set() if (estimate.count > 0).any() else {"discrepancy", "discrepancy_max"}
    assert {name for name, value in allocator.metrics().items() if not math.isfinite(value)} <= unknown


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@given(st.data(), *parts.values())
def test_any_losses(data, estimator, policy, target):
    """Random poison in random rows: sound after every round, the dropped ones counted exactly, draws go on."""
    pool = small_pool()
    coverage = aria.Coverage(pool, items=data.draw(st.lists(st.integers(0, 59), max_size=9)))
    allocator = aria.Allocator(pool, coverage=coverage, estimator=estimator, policy=policy, target=target)
    count = 0
    for _ in range(8):
        draw = allocator.draw(7)
        losses = data.draw(st.lists(st.sampled_from(POISON), min_size=7, max_size=7))
        allocator.observe(draw.regions, losses)
        allocator.step()
        count += dropped(losses)
        assert allocator.metrics()["dropped_losses"] == count
        sound(allocator)
        assert len(draw.items) == 7
        assert np.isfinite(draw.weights).all()


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@given(*parts.values(), st.sampled_from([np.float16, np.float32, np.float64, np.int8]))
def test_loss_dtypes(estimator, policy, target, dtype):
    allocator = aria.Allocator(small_pool(), estimator=estimator, policy=policy, target=target)
    for index in range(4):
        draw = allocator.draw(6)
        allocator.observe(draw.regions, np.full(6, index, dtype))
        allocator.step()
        sound(allocator)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("policy", POLICIES)
def test_rounds_of_nothing_but_bad_losses_change_nothing(bad, policy):
    """They age the estimate by a round each, as an empty one does, and leave the allocation alone."""
    allocator, quiet = (aria.Allocator(small_pool(), policy=policy) for _ in "ab")
    for a in (allocator, quiet):
        for _ in range(5):
            draw = a.draw(6)
            a.observe(draw.regions, 1.0 + draw.regions)
            a.step()
    before = allocator.probabilities
    for _ in range(20):
        draw, same = allocator.draw(6), quiet.draw(6)
        assert np.array_equal(draw.items, same.items)
        allocator.observe(draw.regions, np.full(6, bad))
        allocator.step()
        quiet.step()
    assert np.array_equal(allocator.probabilities, before)
    assert np.array_equal(allocator.estimate().age, quiet.estimate().age)
    assert allocator.metrics()["dropped_losses"] == 120


def test_before_any_finite_loss_p_is_q():
    allocator = aria.Allocator(small_pool(), target="uniform")
    for _ in range(5):
        draw = allocator.draw(6)
        allocator.observe(draw.regions, np.full(6, math.nan))
        allocator.step()
        assert np.array_equal(allocator.probabilities, allocator.target)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_region_at_1e30_cannot_take_all(estimator):
    allocator = aria.Allocator(small_pool(), estimator=estimator, target="uniform", exploration=0.3, seed=1)
    drawn = np.zeros(6)
    for _ in range(200):
        draw = allocator.draw(20)
        allocator.observe(draw.regions, np.where(draw.regions == 2, 1e30, 1.0))
        allocator.step()
        drawn += np.bincount(draw.regions, minlength=6)
        sound(allocator)
    np.testing.assert_allclose(allocator.probabilities, 0.05 + 0.7 * (np.arange(6) == 2), rtol=1e-9)
    assert (drawn >= 200 * np.floor(20 * 0.05)).all()  # systematic: at least floor(n p) in every round


def test_a_single_outlier_is_forgotten():
    """1e30 once, then 1 as before. Nothing clips a mean: it is the memory that ends, member by member."""
    for estimator, losses in ((aria.Ema(0.1), 1000), (aria.EmaBank((4.0, 12.0)), 3000)):
        allocator = aria.Allocator(aria.Partition.from_labels([0]), estimator=estimator)
        for index in range(losses):
            allocator.draw(0)
            allocator.close_round([0], [1e30 if index == 50 else 1.0])
        assert allocator.estimate().mean[0] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("policy", POLICIES)
def test_alternating_extremes(estimator, policy):
    allocator = aria.Allocator(small_pool(), estimator=estimator, policy=policy)
    for index in range(60):
        draw = allocator.draw(6)
        allocator.observe(draw.regions, np.full(6, 1e6 * (index % 2)))
        allocator.step()
        sound(allocator)


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_largest_allowed_losses(estimator):
    """|x| just below 1e150 in every row, both signs: squares and their sums stay inside float64."""
    allocator = aria.Allocator(small_pool(), estimator=estimator)
    for index in range(20):
        draw = allocator.draw(50)
        allocator.observe(draw.regions, 9.99e149 * np.where((np.arange(50) + index) % 3, 1, -1))
        allocator.step()
        sound(allocator)
    assert allocator.metrics()["dropped_losses"] == 0


def test_negative_estimates_count_as_zero():
    """An average below 0 is shown as it is and gives no effort but exploration."""
    allocator = aria.Allocator(small_pool(n_regions=2), estimator=aria.Ema())
    allocator.draw(2)
    allocator.observe([0, 1], [-5.0, 2.0])
    allocator.step()
    assert allocator.estimate().mean.tolist() == [-5.0, 2.0]
    np.testing.assert_allclose(allocator.probabilities, 0.2 * allocator.target + [0, 0.8], rtol=1e-12)


def test_clipped_evidence_moves_trust_by_so_much_at_most():
    """One wild loss counts at most `clip` against a member; two with the same error lose the same."""
    bank = aria.EmaBank((2.0, 50.0), discount=0.5, clip=9.0)
    state = bank.init(1)
    rows, shared = state.rows, state.shared
    for loss in (1.0, 1.0, 1e100):
        rows, shared = bank.update(rows, shared, aria.Feedback.from_rows([0], [loss], n_regions=1))
    assert rows["members"][0, 3 * 2 :].max() <= 9.0 * (1 + 1e-12)


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@given(st.lists(st.sampled_from(POISON), min_size=8, max_size=8), st.booleans(), st.integers(0, 2**32))
def test_random_conditioning_with_any_losses(losses, normalise, seed):
    pool = small_pool()
    allocator = aria.Allocator(pool, coverage=aria.Coverage.online(pool), estimator=aria.Ema(), seed=seed)
    switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.7), normalise=normalise)
    rng = np.random.default_rng(seed)
    for index in range(6):
        switch.draw(rng.integers(0, 1000, 8), paired=rng.integers(-1, 60, 8))
        switch.observe(np.roll(losses, index))
        sound(allocator)


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
def test_profile_with_any_losses():
    profile = aria.TimestepProfile(n_bins=4)
    state, bins, weights = profile.init(), np.arange(4), np.array([1.0, 5.0, 1e-300, 1e-3])
    for index in range(30):
        state = profile.update(state, bins, np.roll(POISON[:12], index)[:4], weights)
        expected = profile.expected(state)
        assert expected is None or (np.isfinite(expected) & (expected > 0)).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_torch_losses_of_any_float_dtype(dtype):
    """Low-precision losses are averaged in float64; ids pass as integers; NaN and inf are dropped as anywhere."""
    torch = pytest.importorskip("torch")
    sampler = aria.Allocator(small_pool(), estimator=aria.Ema(1.0)).sampler(batch_size=5, num_samples=50)
    count = 0
    for batch in range(10):
        items = [next(rows) for rows in [iter(sampler)] for _ in range(5)]
        losses = torch.tensor([1.0, 1.1, math.inf, math.nan, 3.0], dtype=getattr(torch, dtype), requires_grad=True)
        sampler.observe(torch.tensor(items), losses * 1)
        count += 2
        assert sampler.allocator.metrics()["dropped_losses"] == count == 2 * batch + 2
        sound(sampler.allocator)
    first = float(torch.tensor(1.1, dtype=getattr(torch, dtype)).double())
    means = sampler.allocator.estimate().mean
    assert np.isin(means, [1.0, first, 3.0, (1 + first) / 2, (1 + 3) / 2, (first + 3) / 2, (4 + first) / 3]).any()


def test_ids_keep_every_bit():
    """An id above 2**24 (float32) passes; above 2**53 (float64) it is refused as out of range, not rounded."""
    torch = pytest.importorskip("torch")
    n = 2**24 + 3
    pool = aria.Partition.from_labels(np.repeat([0, 1], [n - 1, 1]))
    assert pool.regions_of([n - 2, n - 1]).tolist() == [0, 1]
    sampler = aria.Allocator(pool, target=[0, 1]).sampler(batch_size=1, num_samples=3)
    rows = iter(sampler)
    assert next(rows) == n - 1
    sampler.observe(torch.tensor([n - 1]), torch.tensor([1.0], dtype=torch.bfloat16))
    assert next(rows) == n - 1
    for wrong in (torch.tensor([float(n - 1)]), np.array([n - 1.0])):
        with pytest.raises(ValueError, match="indices: expected integers, got dtype float"):
            sampler.observe(wrong, [1.0])
    with pytest.raises(ValueError, match="items"):
        pool.regions_of([2**53 + 1])
