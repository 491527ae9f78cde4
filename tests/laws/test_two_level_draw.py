"""Law, the two-level draw: counts of regions are systematic, forced visits bound gaps, items come once a cycle.

Statements and proofs: theory 5 (T5.1, T5.4). Expectations are exact: they integrate over the breakpoints of the
one uniform number behind a draw. The one statistical test states its false-alarm rate.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling._kernel import block_sums, positions, reference, stream_key, uniforms
from aria_sampling.drawing import padded
from tests.helpers import play, random_labels


def systematic_counts(p, n, u):
    """How often each region is drawn, by the reference kernel (the compiled one equals it: tests/unit/kernel)."""
    if n == 0:
        return np.zeros(len(p), np.int64)
    wide, last_held = padded(p), int(np.flatnonzero(p > 0)[-1])
    regions = reference._systematic(wide, block_sums(wide), last_held, n, np.array([u]))
    assert (np.diff(regions) >= 0).all()
    return np.bincount(regions, minlength=len(p))


@st.composite
def distributions(draw, max_regions=12):
    """Probabilities with zeros, near-zeros and whole multiples of 1/n among them."""
    k = draw(st.integers(1, max_regions))
    kind = draw(st.sampled_from(["dirichlet", "equal", "tiny"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    p = {
        "dirichlet": rng.dirichlet(np.full(k, 0.3)),
        "equal": np.full(k, 1 / k),
        "tiny": 10.0 ** rng.uniform(-30, 0, k),
    }
    p = p[kind] / p[kind].sum()
    if k > 1 and draw(st.booleans()):
        p[rng.integers(k)] = 0.0
        p = p / p.sum() if p.any() else np.full(k, 1 / k)
    return p


def pieces(p, n):
    """Intervals of u on which the counts cannot change: their lengths, and a point inside each."""
    ends = np.concatenate(([0.0], np.sort((np.cumsum(p) * n) % 1.0), [1.0]))
    return np.diff(ends), (ends[:-1] + ends[1:]) / 2


@given(distributions(), st.integers(0, 300))
def test_counts_average_to_n_p_exactly(p, n):
    lengths, inside = pieces(p, n)
    mean = sum(length * systematic_counts(p, n, u) for length, u in zip(lengths, inside, strict=True))
    np.testing.assert_allclose(mean, n * p, rtol=0, atol=1e-11 * max(n, 1))


@given(distributions(), st.integers(0, 300))
def test_variance_of_counts_is_that_of_the_fraction(p, n):
    lengths, inside = pieces(p, n)
    counts = np.array([systematic_counts(p, n, u) for u in inside])
    variance = (lengths[:, None] * (counts - n * p) ** 2).sum(axis=0)
    fraction = n * p - np.floor(n * p)
    np.testing.assert_allclose(variance, fraction * (1 - fraction), rtol=0, atol=1e-10 * max(n, 1))


EDGES = [0.0, 2.0**-53, 0.5, 1 - 2.0**-53]


@given(distributions(200), st.integers(0, 2000), st.sampled_from(EDGES) | st.floats(0, 1, exclude_max=True))
def test_counts_are_floor_or_ceil_and_sum_to_n(p, n, u):
    counts = systematic_counts(p, n, u)
    assert counts.dtype == np.int64
    assert counts.sum() == n
    slack = 1e-12 * max(n, 1)  # n·p itself is only known to rounding
    assert (counts >= np.floor(n * p - slack)).all()
    assert (counts <= np.ceil(n * p + slack)).all()
    assert not counts[p == 0].any()


@pytest.mark.parametrize("n", [1, 2, 255, 256, 10**5])
def test_the_largest_u_draws_n(n):
    u = 1 - 2.0**-53
    for p in (np.full(4, 0.25), np.array([0.3, 0.0, 0.7]), np.array([1.0])):
        counts = systematic_counts(p, n, u)
        assert counts.sum() == n
        assert (np.abs(counts - n * p) <= 1).all()


def test_a_last_region_without_probability_gets_no_draw():
    """Rounding must not hand it the draw that the others' sum leaves over."""
    for k in (10, 63, 64, 65, 130):
        p = np.append(np.full(k, 1 / k), 0.0)
        for u in EDGES:
            assert systematic_counts(p, k, u)[-1] == 0


@given(distributions(), st.integers(1, 100), st.integers(0, 2**32))
def test_weighted_sums_stay_within_total_variation(p, n, seed):
    """Koksma (T5.1): |sum a_k (n_k - n p_k)| <= sum |a_{k+1} - a_k|, for any a."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=len(p))
    counts = systematic_counts(p, n, rng.random())
    assert abs((a * (counts - n * p)).sum()) <= np.abs(np.diff(a)).sum() + 1e-9


def test_uniforms_lie_in_the_half_open_interval():
    found = uniforms(stream_key(0, 0, 0), 100_000)
    assert found.min() >= 0
    assert found.max() < 1
    assert len(set(found.tolist())) == len(found)  # equal ones have probability 1e10 / 2**54 = 6e-7, and it is fixed


# ------------------------------------------------------------------------------------- forced visits


def forced_allocator(k, *, seed, lag=0, exploration=0.05, **settings):
    """An allocator whose p is very uneven, so that small regions depend on forced visits."""
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, k, 40 * k))
    allocator = aria.Allocator(
        pool,
        exploration=exploration,
        seed=seed,
        lag=lag,
        policy=aria.Proportional(3.0),
        estimator=aria.Ema(0.5),
        **settings,
    )
    return allocator, rng.lognormal(0, 3, k)


def gap_of(k, n):
    """Draws after which a region is visited by force, for draws of one size."""
    return math.ceil(8 * k / n)


@pytest.mark.parametrize("n", [2, 3, 8, 31])
@pytest.mark.parametrize("k", [2, 7, 40])
def test_gap_bound(n, k):
    """T5.4: the gap is at most ceil(8 K/n) + floor((K - 1) / floor(n / 2)), weights at most 2 / exploration."""
    allocator, scale = forced_allocator(k, seed=k * n)
    last = np.full(k, -1)
    worst = 0
    for index, draw in enumerate(play(allocator, 3 * gap_of(k, n) + 100, n=n, loss=lambda d: scale[d.regions])):
        worst = max(worst, int((index - last).max()))
        last[draw.regions] = index
        assert draw.weights.max() <= (2 if draw.forced else 1) / allocator.exploration * (1 + 1e-12)
        assert draw.forced <= n // 2
        assert len(draw.items) == n
    assert worst <= gap_of(k, n) + (k - 1) // (n // 2)
    assert allocator.metrics()["forced_visits"] > 0 or n >= 8 * k


def test_gap_bound_is_attained():
    """The bound is the best there is: with all regions but one due at once, the last waits the whole queue."""
    pool = aria.Partition.from_labels([0] * 10**6 + list(range(1, 12)))
    allocator = aria.Allocator(pool, exploration=0.01)
    first = {}
    for index, draw in enumerate(play(allocator, 60, n=4, loss=lambda d: (d.regions == 0) + 1e-9)):
        for region in draw.regions.tolist():
            first.setdefault(region, index)
    assert max(first.values()) == gap_of(12, 4) - 1 + (12 - 1) // 2


def test_a_gap_is_eight_draws_worth_of_regions():
    """K = 30, n = 4: ceil(8·30/4) = 60, so a region first goes 60 draws unvisited, and not one more than the queue."""
    labels = np.repeat(np.arange(30), [10**6] + [1] * 29)
    allocator = aria.Allocator(aria.Partition.from_labels(labels), exploration=0.001)
    draws = play(allocator, 80, n=4)
    forced = [draw.forced for draw in draws]
    assert not any(forced[:59])
    assert forced[59] == 2
    assert len({region for draw in draws for region in draw.regions.tolist()}) == 30
    assert 25 <= sum(forced) <= 29


@given(st.integers(2, 12), st.integers(2, 20), st.integers(0, 2**32))
def test_forced_mixture_is_unbiased(k, n, seed):
    """Draw.probabilities are the effective ones: averaged over u, the counts with forced visits are n·p'."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.4))
    forced = np.sort(rng.choice(k, min(n // 2, int(rng.integers(1, k))), replace=False))
    lengths, inside = pieces(p, n - len(forced))
    mean = sum(length * systematic_counts(p, n - len(forced), u) for length, u in zip(lengths, inside, strict=True))
    mean[forced] += 1
    effective = p * (n - len(forced)) / n
    effective[forced] += 1 / n
    np.testing.assert_allclose(mean, n * effective, rtol=0, atol=1e-11 * n)
    assert math.isclose(effective.sum(), 1.0, rel_tol=1e-12)
    assert (p / effective <= 2 * (1 + 1e-12)).all()


def test_a_draw_reports_the_forced_mixture():
    """In rounds with forced visits p' = ((n - m)·p + 1[forced]) / n, with p from before the draw; weights are q/p'."""
    allocator, scale = forced_allocator(20, seed=3)
    seen, limit = 0, gap_of(20, 5)
    gaps = np.full(20, 1)
    for _ in range(400):
        p = allocator.probabilities
        due = [k for k in np.argsort(-gaps, kind="stable") if gaps[k] >= limit][:2]
        draw = allocator.draw(5)
        assert draw.forced == len(due)
        effective = ((5 - len(due)) * p + np.isin(np.arange(20), due)) / 5
        np.testing.assert_allclose(draw.probabilities, effective[draw.regions], rtol=1e-13)
        np.testing.assert_allclose(draw.weights, (allocator.target / effective)[draw.regions], rtol=1e-13)
        assert set(due) <= set(draw.regions.tolist())
        counts = np.bincount(draw.regions, minlength=20) - np.isin(np.arange(20), due)
        assert (counts >= np.floor((5 - len(due)) * p - 1e-9)).all()
        assert (counts <= np.ceil((5 - len(due)) * p + 1e-9)).all()
        seen += len(due) > 0
        gaps += 1
        gaps[draw.regions] = 1
        allocator.observe(draw.regions, scale[draw.regions])
        allocator.step()
    assert seen > 10


def test_a_single_row_is_never_forced():
    allocator, scale = forced_allocator(9, seed=1)
    assert all(draw.forced == 0 for draw in play(allocator, 200, n=1, loss=lambda d: scale[d.regions]))


def test_a_region_without_target_is_never_drawn():
    pool = aria.Partition.from_labels([0, 1, 2, 2, 3, 3])
    for coverage in (None, aria.Coverage(pool, items=[0, 2])):  # nor where it alone has no data
        allocator = aria.Allocator(pool, coverage=coverage, target=[1.0, 0.0, 2.0, 0.0], seed=4)
        for _ in range(90):
            draw = allocator.draw(7)
            assert not np.isin(draw.regions, [1, 3]).any()
            allocator.observe([1, 3, 0], [1e9, 1e9, 1.0])  # nor when it is said to be terrible
            allocator.step()


def test_rounds_without_a_draw_do_not_age_regions():
    """Gaps count non-empty draws: the tiny region is forced in the sixth, however many empty rounds lie between."""
    pool = aria.Partition.from_labels([0] * 10**6 + [1])
    for empty in (0, 1, 7):
        allocator = aria.Allocator(pool, seed=2)
        forced = []
        for _ in range(9):
            for _ in range(empty):
                allocator.draw(0)
                allocator.step()
            forced.append(allocator.draw(3).forced)
            allocator.step()
        assert forced == [0, 0, 0, 0, 0, 1, 0, 0, 0]


# --------------------------------------------------------------------------- items without replacement


def permutation(seed, region, cycle, size):
    """The whole permutation of one cycle."""
    visits = np.arange(size, dtype=np.int64) + cycle * size
    return positions(seed, np.full(size, region), visits, np.full(size, size))


@pytest.mark.parametrize("cycle", [0, 1, 10**6])
def test_positions_are_a_bijection_for_every_size(cycle):
    for size in range(1, 401):
        assert np.array_equal(np.sort(permutation(7, size % 5, cycle, size)), np.arange(size)), size


@pytest.mark.parametrize("size", [1000, 2**16 - 1, 2**16, 2**16 + 1, 99_991, 1_000_000])
def test_positions_are_a_bijection_for_large_sizes(size):
    assert np.array_equal(np.sort(permutation(0, 3, 2, size)), np.arange(size))


def test_positions_stay_inside_for_huge_sizes():
    sizes = np.array([2**24 + 1, 2**31 - 1, 2**31, 2**32 + 5, 2**40 + 9], np.int64).repeat(200)
    visits = np.tile(np.arange(200, dtype=np.int64), 5)
    place = positions(2**64 - 1, np.arange(5).repeat(200), visits, sizes)
    assert (place >= 0).all()
    assert (place < sizes).all()
    assert all(len(set(block.tolist())) == 200 for block in place.reshape(5, 200))
    assert (place.reshape(5, 200).max(axis=1) > 0.9 * sizes[::200]).all()  # 0.9**200 = 7e-10 a size, and it is fixed


def test_permutations_differ_by_cycle_region_and_seed():
    base = permutation(5, 2, 0, 50)
    others = [permutation(*key, 50) for key in ((5, 2, 1), (5, 3, 0), (6, 2, 0), (6, 1, 0))]
    others += [permutation(4, 3, 0, 50), permutation(5, 1, 1, 50)]
    for other in others:
        assert (other == base).sum() < 14  # of 50; random ones agree in 14 places with probability 1/14! = 1e-11


def test_positions_do_not_depend_on_company():
    """Vectorised or one at a time, in any mix of regions and sizes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 500, 300)
    regions, visits = rng.integers(0, 50, 300), rng.integers(0, 3000, 300)
    alone = [positions(3, regions[i : i + 1], visits[i : i + 1], sizes[i : i + 1])[0] for i in range(300)]
    assert positions(3, regions, visits, sizes).tolist() == alone


def chi2_limit(cells, log_false_alarm):
    """A bound that chi-square with `cells - 1` degrees exceeds with probability <= exp(-x) (Laurent & Massart)."""
    free = cells - 1
    return free + 2 * math.sqrt(free * log_false_alarm) + 2 * log_false_alarm


@pytest.mark.parametrize("size", [2, 3, 5, 16, 97, 100])
def test_positions_and_successors_are_uniform(size):
    """Over cycles: where the first and the last item land, and what the steps from item to item are.

    Four chi-square tests a size, each on independent cycles, against the bound of Laurent & Massart at
    exp(-30) = 1e-13: false alarm < 1e-9 with room for the statistic being chi-square in the limit only.
    """
    cycles = max(2000, 40 * size)
    visits = np.arange(cycles * size, dtype=np.int64)
    grid = positions(11, np.full(len(visits), 4), visits, np.full(len(visits), size)).reshape(cycles, size)
    tests = [np.bincount(grid[:, column], minlength=size) for column in (0, -1)]
    if size > 2:  # a step is any of 1..size-1 alike
        tests += [np.bincount((grid[:, i + 1] - grid[:, i]) % size, minlength=size)[1:] for i in (0, size - 2)]
    for counts in tests:
        wanted = cycles / len(counts)
        assert ((counts - wanted) ** 2 / wanted).sum() < chi2_limit(len(counts), 30)


def cycles_hold(draws, pool):
    """Every region: in the order of its draws, each whole cycle has every item once, and the rest has no repeat."""
    items = np.concatenate([np.sort(d.items) for d in draws])
    regions = pool.regions_of(items)
    for k in range(pool.n_regions):
        size, mine = int(pool.sizes[k]), [d.items[d.regions == k] for d in draws]
        flat = np.concatenate(mine)
        # inside a draw the order is shuffled, so check at the level of multisets after every draw
        seen = np.zeros(pool.n_items, int)
        done = 0
        for part in mine:
            np.add.at(seen, part, 1)
            done += len(part)
            own = seen[pool.items_of(k)]
            assert own.min() >= done // size
            assert own.max() <= -(-done // size)
        assert len(flat) == (regions == k).sum()


@given(st.integers(0, 2**32), st.sampled_from([1, 3, 10, 64, 200]), st.integers(0, 2))
def test_without_replacement_in_each_cycle(seed, n, lag):
    """Draws that straddle cycles, and that hold several cycles of a small region, included."""
    rng = np.random.default_rng(seed)
    pool = aria.Partition.from_labels(random_labels(rng, int(rng.integers(1, 7)), 45))
    allocator = aria.Allocator(pool, seed=seed, lag=lag, target="uniform")
    draws = play(allocator, 25 if n < 100 else 6, n=n)
    for draw in draws:
        assert np.array_equal(pool.regions_of(draw.items), draw.regions)
        assert draw.items.dtype == draw.regions.dtype == np.int64
        assert draw.probabilities.dtype == draw.weights.dtype == np.float64
    cycles_hold(draws, pool)


def test_any_block_of_a_draw_is_a_fair_part():
    """The rows come shuffled: the first half of the rows is not the first half of the regions.

    20 of 40 rows without replacement: the number from region 0 is sub-Gaussian with proxy 20/4 (Hoeffding), so over
    200 rounds |mean - 10| > 1.3 has probability < 2·exp(-(200·1.3)²/(2·200·5)) = 4e-15.
    """
    pool = aria.Partition.from_labels(np.repeat([0, 1], 500))
    draws = play(aria.Allocator(pool, policy=aria.UniformPolicy()), 200, n=40)
    share = np.mean([(d.regions[:20] == 0).sum() for d in draws])
    assert abs(share - 10) < 1.3
    assert len({tuple(d.regions.tolist()) for d in draws}) > 150


def test_more_than_two_to_the_24_items():
    """No limit of float32 or of torch.multinomial: items above 2**24 are reached, and counted exactly."""
    n = 2**24 + 50
    labels = np.zeros(n, np.uint16)
    labels[-30:] = 1
    pool = aria.Partition.from_labels(labels)
    allocator = aria.Allocator(pool, target="uniform")
    draw = allocator.draw(60)
    assert sorted(draw.items[draw.regions == 1].tolist()) == list(range(n - 30, n))
    assert len(set(draw.items.tolist())) == 60
    place = positions(0, np.zeros(5000, np.int64), np.arange(n - 5050, n - 50), np.full(5000, n - 30))
    assert place.max() < n - 30
    assert len(set(place.tolist())) == 5000
    assert aria.Allocator(pool, seed=5).draw(100_000).items.max() > 2**24 - 5000


def test_random_words_are_keyed():
    """Every argument matters, shorter requests are prefixes, and nothing else is involved."""

    def words(*key, n=8):
        return uniforms(stream_key(*key), n)

    base = words(1, 0, 5)
    assert np.array_equal(base, words(1, 0, 5))
    assert np.array_equal(base[:3], words(1, 0, 5, n=3))
    for other in ((2, 0, 5), (1, 1, 5), (1, 0, 6)):
        assert not np.isin(words(*other), base).any()
    assert len(words(0, 0, 0, n=0)) == 0
    wide = words(2**64 - 1, 1, 2**40, n=10_000)
    assert len(set(wide.tolist())) == 10_000
    # consecutive rounds must not overlap: no word of round 1 among 10,000 of round 0
    assert not np.isin(words(0, 0, 1, n=1000), words(0, 0, 0, n=10_000)).any()
