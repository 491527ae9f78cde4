"""Law, the objective: p = (1 - e)·x + e·q with x = water_fill(q·score(D)·uncovered^γ) (theory 4.1, 4.7, 4.8)."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.pacing import capped
from aria_sampling.shares import shares, target_shares, water_fill
from tests.helpers import play, random_labels

seeds = st.integers(0, 2**32)
explorations = st.sampled_from([1e-6, 0.05, 0.2, 0.7, 1.0])


def problem(seed, k=None):
    """A target and discrepancies many orders of magnitude apart, zeros among both."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 15)) if k is None else k
    q = rng.dirichlet(np.full(k, 0.5))
    d = rng.lognormal(0, rng.choice([0.1, 1.0, 20.0]), k)
    if k > 2:
        q[int(rng.integers(k))] = 0.0
        d[int(rng.integers(k))] = 0.0
    return q / q.sum(), d


def log(d):
    with np.errstate(divide="ignore"):
        return np.log(d)


@given(seeds, explorations)
def test_formula(seed, exploration):
    q, d = problem(seed)
    assume((q * d).any())
    p = shares(q, log(d), exploration=exploration)
    wanted = (1 - exploration) * q * d / (q * d).sum() + exploration * q
    np.testing.assert_allclose(p, wanted, rtol=1e-12, atol=1e-300)
    assert p.sum() == pytest.approx(1, abs=1e-12)


@given(seeds, explorations)
def test_weights_and_effective_sample_size(seed, exploration):
    """T4.1: w <= 1/exploration, E_p w = 1, and 1/E_p w² >= exploration."""
    q, d = problem(seed)
    p = shares(q, log(d), exploration=exploration)
    held = q > 0
    w = q[held] / p[held]
    assert w.max() <= (1 + 1e-12) / exploration
    assert (p[held] * w).sum() == pytest.approx(1, abs=1e-12)
    assert 1 / (p[held] * w**2).sum() >= exploration * (1 - 1e-12)
    assert (p[~held] == 0).all()


def test_the_bound_on_the_effective_sample_size_is_sharp():
    q = np.array([1e-9, 1 - 1e-9])
    p = shares(q, log(np.array([1.0, 1e-30])), exploration=0.1)
    assert 1 / (q**2 / p).sum() == pytest.approx(0.1, rel=1e-6)


@given(seeds, st.floats(1e-100, 1e100), explorations)
def test_scale_of_scores_does_not_matter(seed, scale, exploration):
    q, d = problem(seed)
    np.testing.assert_allclose(
        shares(q, log(d), exploration=exploration),
        shares(q, log(d) + np.log(scale), exploration=exploration),
        rtol=1e-9,
        atol=1e-300,
    )


def test_where_every_score_is_zero_p_is_q():
    q = np.array([0.1, 0.0, 0.9])
    for log_score in (np.full(3, -np.inf), np.array([-np.inf, 5.0, -np.inf])):
        for settings in ({}, {"effort": np.ones(3)}):
            assert np.array_equal(shares(q, log_score, exploration=0.1, **settings), q)


def estimates_of(pool, means, **settings):
    """An allocator that believes these means (one exact loss a region)."""
    allocator = aria.Allocator(pool, estimator=aria.Ema(), **settings)
    allocator.draw(1)
    allocator.observe(np.arange(pool.n_regions), means)
    allocator.step()
    return allocator


@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 2.5]), explorations)
def test_allocator_follows_the_formula(seed, exponent, exploration):
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, int(rng.integers(1, 9)), 50))
    d = rng.lognormal(0, 2, pool.n_regions)
    allocator = estimates_of(pool, d, policy=aria.Proportional(exponent), exploration=exploration)
    q = pool.sizes / pool.n_items
    wanted = (1 - exploration) * q * d**exponent / (q * d**exponent).sum() + exploration * q
    np.testing.assert_allclose(allocator.probabilities, wanted, rtol=1e-12)
    np.testing.assert_allclose(allocator.target, q, rtol=1e-14)


@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_refinement_invariance(seed, exponent):
    """With target="pool", splitting a region into parts of equal estimate leaves every region's total share alone."""
    rng = np.random.default_rng(seed)
    coarse = random_labels(rng, int(rng.integers(1, 6)), 60)
    fine = np.unique(coarse * 3 + rng.integers(0, 3, len(coarse)), return_inverse=True)[1]
    parent = np.zeros(fine.max() + 1, int)
    parent[fine] = coarse
    d = rng.lognormal(0, 1.5, coarse.max() + 1)
    settings = {"policy": aria.Proportional(exponent), "exploration": 0.1}
    one = estimates_of(aria.Partition.from_labels(coarse), d, **settings).probabilities
    many = estimates_of(aria.Partition.from_labels(fine), d[parent], **settings).probabilities
    np.testing.assert_allclose(np.bincount(parent, many), one, rtol=1e-12)


def test_a_uniform_target_is_not_refinement_invariant():
    """The counterpart, so that the test above is known to be able to fail."""
    d = np.array([1.0, 1.0])
    one = estimates_of(aria.Partition.from_labels([0, 0, 1, 1]), d, target="uniform").probabilities
    many = estimates_of(aria.Partition.from_labels([0, 1, 2, 2]), d[[0, 0, 1]], target="uniform").probabilities
    assert one[0] == pytest.approx(0.5)
    assert many[:2].sum() == pytest.approx(2 / 3)


@pytest.mark.parametrize("tau", [0, 0.0, 0.25, 0.5, 1, 1.0])
def test_tau_targets(tau):
    sizes = np.array([1, 10, 100, 10**9])
    raw = sizes.astype(float) ** tau
    np.testing.assert_allclose(target_shares(tau, sizes), raw / raw.sum(), rtol=1e-14)


def test_named_and_given_targets():
    sizes = np.array([1, 3, 4])
    assert target_shares("pool", sizes).tolist() == [0.125, 0.375, 0.5]
    assert target_shares("uniform", sizes).tolist() == [1 / 3] * 3
    assert target_shares([0, 1, 3], sizes).tolist() == [0, 0.25, 0.75]
    assert target_shares([5e-324, 0, 0], sizes).tolist() == [1, 0, 0]
    assert target_shares([1.7e308, 1.7e308, 0], sizes).tolist() == [0.5, 0.5, 0]


def test_weights_of_a_draw():
    """q/p, whatever the coverage: training with them is training on the target."""
    rng = np.random.default_rng(1)
    pool = aria.Partition.from_labels(random_labels(rng, 7, 90), centers=rng.normal(size=(7, 2)))
    for coverage in (None, aria.Coverage(pool, items=rng.integers(0, 90, 30))):
        allocator = aria.Allocator(pool, coverage=coverage, target="uniform")
        for draw in play(allocator, 30):
            np.testing.assert_allclose(draw.weights, allocator.target[draw.regions] / draw.probabilities, rtol=1e-14)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_baselines_draw_from_their_own_target(policy):
    pool = aria.Partition.from_labels(random_labels(np.random.default_rng(2), 6, 80))
    allocator = aria.Allocator(pool, policy=policy)
    q = pool.sizes / 80 if isinstance(policy, aria.PoolPolicy) else np.full(6, 1 / 6)
    for _ in range(60):
        draw = allocator.draw(5, data_rows=30)
        np.testing.assert_allclose(draw.probabilities, q[draw.regions], rtol=1e-14)
        assert (draw.weights == 1).all()
        assert draw.forced == 0
        allocator.observe(draw.regions, 10.0**draw.regions)
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, q, rtol=1e-14)


# ------------------------------------------------------------------------------------------- coverage


@given(seeds, explorations, st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([None, 0.3, 5.0]), st.booleans())
def test_allocator_with_coverage_follows_the_formula(seed, exploration, power, ratio, taught):
    """Before any feedback with every score 1, and after; `ratio`: data rows for each drawn one."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 200))
    pool = aria.Partition.from_labels(random_labels(rng, k, 5 * k), centers=rng.normal(size=(k, 3)))
    coverage = aria.Coverage(pool, items=rng.integers(0, pool.n_items, int(rng.integers(1, 2 * k + 2))), power=power)
    allocator = aria.Allocator(pool, coverage=coverage, exploration=exploration, estimator=aria.Ema(), target=0.5)
    allocator.draw(20, data_rows=None if ratio is None else int(20 * ratio))
    d = np.ones(k)
    if taught:
        d = rng.lognormal(0, 2, k)
        allocator.observe(np.arange(k), d)
    allocator.step()
    wanted = shares(
        allocator.target,
        log(d),
        exploration=exploration,
        uncovered=coverage.uncovered,
        power=power,
        effort=10.0 * (1.0 if ratio is None else int(20 * ratio) / 20) * coverage.counts / coverage.counts.sum(),
    )
    np.testing.assert_allclose(allocator.probabilities, wanted, rtol=1e-9, atol=1e-12)
    assert allocator.probabilities.sum() == pytest.approx(1, abs=1e-12)


@given(seeds, st.floats(1e-3, 1e3))
def test_more_data_rows_leave_no_more_draws_to_a_covered_region(seed, factor):
    """Monotone: where data come more often beside the same draws, the regions without data get no less."""
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, 8, 90))
    bare = np.arange(8) >= 4
    coverage = aria.Coverage(pool, items=np.flatnonzero(~bare[pool.labels]), weight=1.0)
    shares_of = []
    for data_rows in sorted((int(100 * factor), 100)):
        allocator = aria.Allocator(pool, coverage=coverage)
        allocator.draw(100, data_rows=data_rows)
        allocator.step()
        shares_of.append(allocator.probabilities[bare].sum())
    assert shares_of[0] <= shares_of[1] + 1e-12


# -------------------------------------------------------------------------------------- max_repeat


@given(seeds, st.sampled_from([1.0, 1.1, 2.0, 7.0]), st.sampled_from(["pool", "uniform", 0.5]))
def test_max_repeat_caps_target_and_probabilities(seed, max_repeat, target):
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, int(rng.integers(1, 9)), 70))
    d = rng.lognormal(0, rng.choice([1, 30]), pool.n_regions)
    allocator = estimates_of(pool, d, max_repeat=max_repeat, target=target)
    cap = max_repeat * pool.sizes / pool.n_items
    for p in (allocator.target, allocator.probabilities):
        assert (p <= cap * (1 + 1e-9)).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (allocator.probabilities >= allocator.exploration * allocator.target * (1 - 1e-12)).all()


@given(seeds, st.floats(0, 6), st.sampled_from([0.1, 3.0, 200.0]))
def test_capped_is_the_scaled_minimum(seed, spread, log_range):
    """min(c·share, cap) for one c, below the cap, summing to 1; room barely above 1 included."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 12))
    share = np.exp(rng.uniform(-log_range, 0, k))
    share /= share.sum()
    cap = rng.dirichlet(np.ones(k)) * (1 + 10.0 ** rng.uniform(-17, 1))
    cap = cap / min(1.0, cap.sum())
    out = capped(share, cap)
    assert (out <= cap * (1 + 1e-9) + 1e-300).all()
    assert out.sum() == pytest.approx(1, abs=1e-9)
    assert (out >= share * (1 - 1e-9)).sum() == k or (out[out < share * (1 - 1e-9)] >= 0).all()
    free = out < cap * (1 - 1e-9)
    if free.sum() > 1:  # those that are not cut are scaled alike
        ratio = out[free] / share[free]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)
    cut = ~free & (share > 0)
    if free.any() and cut.any():  # and that scale would take the cut ones to the cap or over it
        assert (out[free][0] / share[free][0] * share[cut] >= cap[cut] * (1 - 1e-6)).all()


def test_capped_hands_the_rest_to_those_without_a_share():
    out = capped(np.array([0.0, 1.0, 0.0]), np.array([0.3, 0.5, 0.9]))
    np.testing.assert_allclose(out, [0.125, 0.5, 0.375], rtol=1e-14)
    assert capped(np.array([0.2, 0.8]), np.array([0.5, 0.9])).tolist() == [0.2, 0.8]


def test_a_tiny_region_cannot_take_over():
    """Ten items that are never learnt: under max_repeat=3 each is drawn some 3 times per pool-size draws, not 800."""
    pool = aria.Partition.from_labels([0] * 990 + [1] * 10)
    worst = {"loss": lambda d: 1.0 + 1e6 * (d.regions == 1), "n": 8}
    capped_one = aria.Allocator(pool, max_repeat=3.0, policy=aria.Proportional(2.0))
    drawn = np.bincount(np.concatenate([d.items for d in play(capped_one, 500, **worst)]), minlength=1000)
    # 4,000 draws at p = 0.8·0.03 + 0.2·0.01 give 104 on average. A round gives 0 or 1, so Hoeffding over 500 rounds:
    # more than 104 + 75 has probability < exp(-2·75²/500) = 2e-10
    assert drawn[990:].sum() <= 179
    assert drawn[990:].max() <= 18
    greedy = aria.Allocator(pool, policy=aria.Proportional(2.0))
    assert np.mean([d.regions.mean() for d in play(greedy, 500, **worst)]) > 0.5


# ------------------------------------------------------------------------------------ water-filling


def filling(seed, log_range=3.0):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 20))
    u = rng.dirichlet(np.ones(k))
    s = np.exp(rng.normal(0, log_range, k)) * rng.integers(0, 2, k)
    if k > 1 and rng.random() < 0.3:
        u[int(rng.integers(k))] = 0.0
    return u / u.sum(), s


@given(seeds, st.floats(1e-3, 1e3))
def test_water_fill_meets_its_optimality_conditions(seed, x_total):
    """KKT (T4.7): (x + s)/u is one level mu where x > 0, and s/u is no lower than mu where x = 0; to 1e-12."""
    u, s = filling(seed)
    x = water_fill(u, s, x_total)
    assert (x >= 0).all()
    assert x.sum() == pytest.approx(x_total, rel=1e-12)
    assert (x[u == 0] == 0).all()
    filled = x > 0
    mu = (x_total + s[filled].sum()) / u[filled].sum()
    np.testing.assert_allclose(x[filled] + s[filled], mu * u[filled], rtol=1e-12)
    dry = ~filled & (u > 0)
    assert (s[dry] >= mu * u[dry] * (1 - 1e-12)).all()


@given(seeds, st.floats(1e-3, 1e3))
def test_water_fill_without_other_effort_is_the_plain_rule(seed, x_total):
    u, _ = filling(seed)
    np.testing.assert_allclose(water_fill(u, np.zeros(len(u)), x_total), x_total * u, rtol=1e-12)


@given(seeds, st.floats(1e-3, 1e3), st.floats(1, 10))
def test_water_fill_is_monotone_in_the_total(seed, x_total, factor):
    u, s = filling(seed)
    assert (water_fill(u, s, x_total * factor) >= water_fill(u, s, x_total) * (1 - 1e-12) - 1e-15).all()


@given(seeds, st.floats(1, 10))
def test_water_fill_gives_way_to_effort_that_comes(seed, factor):
    """More effort from outside for one region: it is given no more, and every other no less."""
    u, s = filling(seed)
    more = s.copy()
    more[0] = more[0] * factor + 0.1
    before, after = water_fill(u, s), water_fill(u, more)
    assert after[0] <= before[0] + 1e-12
    assert (after[1:] >= before[1:] - 1e-12).all()


@given(seeds, st.sampled_from([1e6, 1e16, 1e40, 1e200, 1e290]))
def test_water_fill_with_huge_effort(seed, huge):
    """All effort goes to the regions outside effort leaves alone; if it leaves none, to the least served."""
    u, s = filling(seed)
    dry = s > 0
    x = water_fill(u, s * huge)
    assert np.isfinite(x).all()
    assert x.sum() == pytest.approx(1, rel=1e-12)
    if ((u > 0) & ~dry).any() and huge > 1e39:
        assert (x[dry] == 0).all()
    lone = water_fill(u, (s + 1) * huge)
    assert lone.sum() == pytest.approx(1, rel=1e-12)
    wet = u > 0
    assert lone[wet][np.argmin((s[wet] + 1) / u[wet])] > 0


def test_water_fill_minimises_the_sum_of_convex_curves():
    """Brute force on a grid, E_k(N) = A_k/N with A = u²: then q·E' = -mu means N in proportion to u."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        u, s, total = rng.dirichlet(np.ones(3)), rng.integers(1, 6, 3), 8

        def cost(x, u=u, s=s):
            return (u**2 / (s + np.asarray(x))).sum()

        best = min(
            cost((a, b, total - a - b)) for a, b in itertools.product(range(total + 1), repeat=2) if a + b <= total
        )
        exact = water_fill(u, s.astype(float), float(total))
        assert cost(exact) <= best + 1e-12
        greedy = np.zeros(3)
        for _ in range(total):  # T4.5: the greedy integer allocation is optimal among integers
            gains = [cost(greedy) - cost(greedy + unit) for unit in np.eye(3)]
            greedy[int(np.argmax(gains))] += 1
        assert cost(greedy) == pytest.approx(best, rel=1e-12)
        assert np.abs(greedy - exact).max() < 2


@given(seeds)
def test_shares_survive_any_exponent(seed):
    q, d = problem(seed)
    for factor in (1.0, 1e3, 1e300):
        p = shares(q, np.clip(log(d), -1e300, None) * factor if factor < 1e300 else log(d), exploration=1e-6)
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 8.0, 40.0])
@pytest.mark.parametrize("unit", [1e-120, 1e-30, 1.0, 1e30, 1e120])
def test_the_unit_of_the_loss_does_not_matter(unit, exponent):
    """The kernel subtracts a shift before it exponentiates: no exponent and no unit overflow or flatten the shares."""
    pool = aria.Partition.from_labels(np.arange(70) % 7)
    d = np.linspace(1.0, 1.6, 7)
    p = estimates_of(pool, d * unit, policy=aria.Proportional(exponent)).probabilities
    np.testing.assert_allclose(p, 0.8 * d**exponent / (d**exponent).sum() + 0.2 / 7, rtol=1e-9)


def test_data_rows_shift_the_draw_elsewhere():
    """A region that the batches bring anyway at twice its wanted share gets exploration alone."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, items=range(50), weight=1.0), estimator=aria.Ema())
    for _ in range(40):
        draw = allocator.draw(10)
        allocator.observe([0, 1], [1.0, 1.0])
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, [0.1, 0.9], rtol=1e-12)
    np.testing.assert_allclose(draw.probabilities, np.array([0.1, 0.9])[draw.regions], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("half_life", [None, 3.0])
def test_thousands_of_rounds_without_a_draw_leave_everything_finite(half_life):
    """Rows keep coming while nothing is drawn: the effort for each drawn row grows without bound, p stays finite."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    allocator = aria.Allocator(pool, coverage=aria.Coverage.online(pool, half_life=half_life), estimator=aria.Ema())
    draw = allocator.draw(4, present=[0, 0, 1])
    allocator.observe(draw.regions, np.ones(4))
    allocator.step()
    for _ in range(20_000):
        allocator.draw(0, present=[0, 0, 1])
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, [0.1, 0.9], rtol=1e-9)
    assert np.isfinite(list(allocator.metrics().values())).all()
    assert allocator.draw(8, present=[0]).probabilities.min() > 0
