"""Law 2, the objective: p = (1 - floor)·q·φ(D)/Σ + floor·q, and what follows from it (theory 4.1, 4.7)."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.shares import capped, shares, target_shares, tilt, water_fill
from tests.helpers import play, random_labels

seeds = st.integers(0, 2**32)
floors = st.sampled_from([1e-6, 0.05, 0.2, 0.7, 1.0])


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


@given(seeds, floors)
def test_formula(seed, floor):
    q, d = problem(seed)
    assume((q * d).any())
    p = shares(q, log(d), floor=floor)
    wanted = (1 - floor) * q * d / (q * d).sum() + floor * q
    np.testing.assert_allclose(p, wanted, rtol=1e-12, atol=1e-300)
    assert p.sum() == pytest.approx(1, abs=1e-12)


@given(seeds, floors)
def test_weights_and_effective_sample_size(seed, floor):
    """T4.1: w <= 1/floor, E_p w = 1, and 1/E_p w² >= floor."""
    q, d = problem(seed)
    p = shares(q, log(d), floor=floor)
    held = q > 0
    w = q[held] / p[held]
    assert w.max() <= (1 + 1e-12) / floor
    assert (p[held] * w).sum() == pytest.approx(1, abs=1e-12)
    assert 1 / (p[held] * w**2).sum() >= floor * (1 - 1e-12)
    assert (p[~held] == 0).all()


def test_the_bound_on_the_effective_sample_size_is_sharp():
    q = np.array([1e-9, 1 - 1e-9])
    p = shares(q, log(np.array([1.0, 1e-30])), floor=0.1)
    assert 1 / (q**2 / p).sum() == pytest.approx(0.1, rel=1e-6)


@given(seeds, st.floats(1e-100, 1e100), floors)
def test_scale_of_phi_does_not_matter(seed, scale, floor):
    q, d = problem(seed)
    np.testing.assert_allclose(
        shares(q, log(d), floor=floor), shares(q, log(d) + np.log(scale), floor=floor), rtol=1e-9, atol=1e-300
    )


def test_without_information_p_is_q():
    q = np.array([0.1, 0.0, 0.9])
    for log_phi in (None, np.full(3, -np.inf), np.array([-np.inf, 5.0, -np.inf])):
        for settings in ({}, {"effort": np.ones(3)}):
            assert np.array_equal(shares(q, log_phi, floor=0.1, **settings), q)


def estimates_of(pool, means, **settings):
    """An allocator that believes these means (one exact loss a region)."""
    allocator = aria.Allocator(pool, estimator=aria.Ema(), **settings)
    allocator.draw(1)
    allocator.observe(np.arange(pool.n_regions), means)
    allocator.step()
    return allocator


@given(seeds, st.sampled_from([0.0, 0.5, 1.0, 2.5]), floors)
def test_allocator_follows_the_formula(seed, exponent, floor):
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, int(rng.integers(1, 9)), 50))
    d = rng.lognormal(0, 2, pool.n_regions)
    allocator = estimates_of(pool, d, policy=aria.Proportional(exponent), floor=floor)
    q = pool.sizes / pool.n_items
    wanted = (1 - floor) * q * d**exponent / (q * d**exponent).sum() + floor * q
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
    settings = {"policy": aria.Proportional(exponent), "floor": 0.1}
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


@pytest.mark.parametrize("correction", [0.0, 0.5, 1.0])
def test_weights_of_a_draw(correction):
    rng = np.random.default_rng(1)
    pool = aria.Partition.from_labels(random_labels(rng, 7, 90))
    for draw in play(allocator := aria.Allocator(pool, correction=correction, target="uniform"), 30):
        wanted = (allocator.target[draw.regions] / draw.probabilities) ** correction
        np.testing.assert_allclose(draw.weights, wanted, rtol=1e-14)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_baselines_draw_from_their_own_target(policy):
    pool = aria.Partition.from_labels(random_labels(np.random.default_rng(2), 6, 80))
    allocator = aria.Allocator(pool, policy=policy, floor=0.1, target=0.5, max_gap=1)
    q = pool.sizes / 80 if isinstance(policy, aria.PoolPolicy) else np.full(6, 1 / 6)
    for _ in range(20):
        draw = allocator.draw(5, present=[0, 0, 0])
        np.testing.assert_allclose(draw.probabilities, q[draw.regions], rtol=1e-14)
        assert (draw.weights == 1).all()
        assert draw.forced == 0
        allocator.observe(draw.regions, 10.0**draw.regions)
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, q, rtol=1e-14)


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
    assert (allocator.probabilities >= allocator.floor * allocator.target * (1 - 1e-12)).all()


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
    """Ten items that are never learnt: under max_repeat=3 each is drawn at most 3 times per pool-size draws.

    Forced visits come on top (each is one draw in max_gap draws at most), so they are kept out here.
    """
    pool = aria.Partition.from_labels([0] * 990 + [1] * 10)
    allocator = aria.Allocator(pool, max_repeat=3.0, policy=aria.Proportional(2.0), max_gap=1000)
    draws = play(allocator, 500, n=8, loss=lambda d: 1.0 + 1e6 * (d.regions == 1))
    drawn = np.bincount(np.concatenate([d.items for d in draws]), minlength=1000)
    # 4,000 draws at p = 0.8·0.03 + 0.2·0.01 give 104 on average. A round gives 0 or 1, so Hoeffding over 500 rounds:
    # more than 104 + 75 has probability < exp(-2·75²/500) = 2e-10
    assert drawn[990:].sum() <= 179
    assert drawn[990:].max() <= 18
    greedy = aria.Allocator(pool, policy=aria.Proportional(2.0), max_gap=1000)
    share = np.mean([d.regions.mean() for d in play(greedy, 500, n=8, loss=lambda d: 1.0 + 1e6 * (d.regions == 1))])
    assert share > 0.5


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
def test_tilt_survives_any_exponent(seed):
    q, d = problem(seed)
    for factor in (1.0, 1e3, 1e300):
        p = tilt(q, np.clip(log(d), -1e300, None) * np.float64(factor) if factor < 1e300 else log(d))
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_present_rows_shift_the_draw_elsewhere():
    """A region that the batches bring anyway at twice its wanted share gets the floor alone."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    allocator = aria.Allocator(pool, estimator=aria.Ema(), floor=0.2)
    for _ in range(40):
        draw = allocator.draw(10, present=[0] * 10)
        allocator.observe([0, 1], [1.0, 1.0])
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, [0.1, 0.9], rtol=1e-12)
    np.testing.assert_allclose(draw.probabilities, np.array([0.1, 0.9])[draw.regions], rtol=1e-12)


@pytest.mark.slow
def test_thousands_of_rounds_without_a_draw_leave_everything_finite():
    """The draw size fades while rows keep coming: the ratio s grows without bound, p must not become NaN."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    allocator = aria.Allocator(pool, estimator=aria.Ema(), floor=0.2)
    draw = allocator.draw(4, present=[0, 0, 1])
    allocator.observe(draw.regions, np.ones(4))
    allocator.step()
    for index in range(40_000):
        allocator.skip(present=[0, 0, 1])
        allocator.step()
        if index % 4000 == 3999 or index > 39_990:
            np.testing.assert_allclose(allocator.probabilities, [0.1, 0.9], rtol=1e-9)
    assert np.isfinite(list(allocator.metrics().values())).all()
    assert allocator.draw(8, present=[0]).probabilities.min() > 0
