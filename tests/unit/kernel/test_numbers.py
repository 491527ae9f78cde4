"""The numbers that draws are made of: exponential, logarithm, random words, positions, systematic points, water."""

import math
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aria_sampling import _kernel
from aria_sampling._kernel import reference
from aria_sampling.shares import water_fill

getcontext().prec = 40
FALSE_ALARM = 1e-10  # of each statistical test, for a perfect source


def alarm(counts, false_alarm=FALSE_ALARM):
    """Whether counts of equally likely categories differ from one another by more than chance.

    With n draws, k categories and KL the relative entropy of the counts to equal ones, P(n KL >= x) is at most
    exp(-x) * (e x / (k - 1))**(k - 1) for x > k - 1 (Agrawal 2020, Finite-sample concentration of the multinomial in
    relative entropy). 2 n KL is the G statistic, close to Pearson's chi-square.
    """
    counts = np.asarray(counts, dtype=float)
    n, free = counts.sum(), len(counts) - 1
    seen = counts[counts > 0]
    x = float((seen * np.log(seen * len(counts) / n)).sum())
    return x > free and -x + free * (1 + math.log(x / free)) < math.log(false_alarm)


def test_the_alarm_is_deaf_to_chance_and_not_to_bias():
    rng = np.random.default_rng(0)
    fair, biased = np.full(96, 1 / 96), np.linspace(0.95, 1.05, 96) / 96
    assert not alarm(rng.multinomial(400_000, fair))
    assert alarm(rng.multinomial(400_000, biased))
    assert alarm([60, 0])
    assert not alarm([15, 15])


# ---------------------------------------------------------------- exponential and logarithm


def worst_ulps(function, exact, x):
    """The largest distance to the true value, in units in the last place of the answer."""
    pairs = zip(x.tolist(), function(x).tolist(), strict=True)
    return max(abs(Decimal(y) - exact(Decimal(v))) / Decimal(math.ulp(y)) for v, y in pairs)


@pytest.mark.parametrize("reach", [1e-12, 1e-3, 0.35, 1.0, 20.0, 700.0])
def test_exp_is_accurate(reach):
    rng = np.random.default_rng(1)
    assert worst_ulps(_kernel.exp, Decimal.exp, rng.uniform(-reach, reach, 1500)) < 2


@pytest.mark.parametrize("reach", [1e-12, 1e-3, 0.35, 1.0, 20.0, 700.0])
def test_log_is_accurate(reach):
    rng = np.random.default_rng(2)
    assert worst_ulps(_kernel.log, Decimal.ln, np.exp(rng.uniform(-reach, reach, 1500))) < 2


def test_log_is_accurate_at_its_seams():
    seams = [2.0**-1074, 2.0**-1022, 0.5, 0.5**0.5, 2.0**0.5, 2.0, 3.0, 1.7976931348623157e308]
    near = np.array([x for seam in seams for x in (np.nextafter(seam, 0), seam, np.nextafter(seam, 4)) if x > 0])
    assert worst_ulps(_kernel.log, Decimal.ln, near) < 2


def test_exp_and_log_at_their_ends():
    inf, nan = np.inf, np.nan
    ends = _kernel.exp(np.array([0.0, -0.0, -inf, inf, 1e9, -1e9, nan]))
    assert ends[:3].tolist() == [1.0, 1.0, 0.0]
    assert (ends[3:6] == _kernel.exp(np.array([700.0, 700.0, -700.0]))).all()
    assert np.isnan(ends[6])
    assert _kernel.log(np.array([1.0, 0.0, -0.0, inf])).tolist() == [0.0, -inf, -inf, inf]
    assert np.isnan(_kernel.log(np.array([-1.0, -inf, nan, -5e-324]))).all()


def test_exp_and_log_keep_the_shape():
    for shape in ((), (0,), (3, 1, 2)):
        assert _kernel.exp(np.zeros(shape)).shape == _kernel.log(np.ones(shape)).shape == shape


# ---------------------------------------------------------------- random words


def test_uniforms_lie_in_range_on_a_grid():
    key = _kernel.stream_key(3, 0, 8)
    u = _kernel.uniforms(key, 10**5)
    assert (u >= 0).all()
    assert (u < 1).all()
    assert (u * 2**53 == np.floor(u * 2**53)).all()
    assert (_kernel.uniforms(key, 10) == u[:10]).all()
    ends = reference._uniform(np.array([0, 2**11 - 1, 2**64 - 1], np.uint64))
    assert ends.tolist() == [0.0, 0.0, 1 - 2.0**-53]


@pytest.mark.parametrize("along", ["number", "round", "seed"])
def test_uniforms_are_uniform_and_independent_of_their_neighbours(along):
    n = 100_000 if along == "number" else 20_000
    if along == "number":
        u = _kernel.uniforms(_kernel.stream_key(1, 0, 0), n)
    else:
        keys = (_kernel.stream_key(*((0, 0, i) if along == "round" else (i, 0, 0))) for i in range(n))
        u = np.array([_kernel.uniforms(key, 1)[0] for key in keys])
    cells = (u * 8).astype(int)
    assert not alarm(np.bincount((u * 64).astype(int), minlength=64))
    assert not alarm(np.bincount(cells[0::2] * 8 + cells[1::2], minlength=64))


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_positions_are_a_permutation_in_every_cycle(seed):
    cycles = [0, 1, 10**6]
    sizes = np.repeat(np.arange(1, 201), np.arange(1, 201))
    start = np.concatenate([np.arange(size) for size in range(1, 201)])
    for region in (0, 1, 65_535):
        for cycle in cycles:
            regions = np.full(len(sizes), region)
            found = _kernel.positions(seed, regions, cycle * sizes + start, sizes)
            for size in range(1, 201):
                assert (np.sort(found[sizes == size]) == np.arange(size)).all(), (region, cycle, size)


def test_positions_of_a_huge_region():
    size, n = 10**12 + 39, 10_000
    found = _kernel.positions(5, np.zeros(n, np.int64), np.arange(n) + 3 * size, np.full(n, size))
    assert len(np.unique(found)) == n
    assert found.min() >= 0
    assert found.max() < size
    assert not alarm(np.bincount((found * 16 // size), minlength=16))


def successors(positions, size, n):
    """How far it is from the first position of a cycle to the second, modulo size: counts over n cycles, [size - 1]."""
    counts = np.zeros(size, np.int64)
    for begin in range(0, n, 200_000):
        cycles = np.arange(begin, min(begin + 200_000, n))
        regions, sizes = np.full(len(cycles), 7), np.full(len(cycles), size)
        first = positions(5, regions, cycles * size, sizes)
        second = positions(5, regions, cycles * size + 1, sizes)
        counts += np.bincount((second - first) % size, minlength=size)
    assert counts[0] == 0
    return counts[1:]


@pytest.mark.parametrize(("size", "n"), [(12, 400_000), (97, 6_000_000 if _kernel.COMPILED else 400_000)])
def test_any_position_may_come_after_any_other(size, n):
    assert not alarm(successors(_kernel.positions, size, n))


def test_six_rounds_of_the_network_would_be_too_few(monkeypatch):
    monkeypatch.setattr(reference, "FEISTEL_ROUNDS", 6)
    assert alarm(successors(reference.positions, 12, 400_000))


@pytest.mark.parametrize("size", [12, 97])
def test_every_position_is_as_likely_in_every_place_of_a_cycle(size):
    n = 100_000
    for nth in (0, 1, size // 2, size - 1):
        found = _kernel.positions(2, np.full(n, 3), np.arange(n) * size + nth, np.full(n, size))
        assert not alarm(np.bincount(found, minlength=size))


# ---------------------------------------------------------------- systematic points


def counts_at(p, m, u):
    """How many of m points at u fall on each region whose share is p, by the reference, [K]."""
    p = np.asarray(p, dtype=float)
    padded = np.concatenate([p, np.zeros(-len(p) % 64)])
    regions = reference._systematic(padded, reference.block_sums(padded), int(np.flatnonzero(p)[-1]), m, np.array([u]))
    assert (np.diff(regions) >= 0).all()
    return np.bincount(regions, minlength=len(p))


@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 400)), min_size=1, max_size=140),
    st.integers(1, 50),
)
def test_systematic_counts_are_right_on_average_and_never_off_by_one(numbers, m):
    # shares are multiples of 2**-20, so that all sums are exact, and counts are piecewise constant in u
    numbers = [*numbers, 2**20 - sum(numbers)]
    ends = np.cumsum(numbers)
    cuts = sorted({Fraction(int(end) * m, 2**20) % 1 for end in ends} | {Fraction(1)})
    average, begin = [Fraction(0)] * len(numbers), Fraction(0)
    for end in cuts:
        if end > begin:
            counts = counts_at(np.array(numbers) / 2**20, m, float((begin + end) / 2))
            assert counts.sum() == m
            for k, count in enumerate(counts.tolist()):
                wanted = Fraction(numbers[k] * m, 2**20)
                assert math.floor(wanted) <= count <= math.ceil(wanted)
                average[k] += (end - begin) * count
        begin = max(begin, end)
    assert average == [Fraction(number * m, 2**20) for number in numbers]


@pytest.mark.parametrize("u", [0.0, 2.0**-53, 0.5, 1 - 2.0**-53])
def test_a_region_without_a_share_is_never_drawn_not_even_the_last_one(u):
    assert counts_at([0.1] * 10 + [0.0], 10, u)[-1] == 0
    for m in range(1, 40):
        for edge in (63, 64, 65, 128, 130):
            p = np.where(np.arange(edge) % 3 == 0, 0.0, 0.1 / edge)
            p[-1] = 0.0
            counts = counts_at(p, m, u)
            assert counts.sum() == m
            assert counts[p == 0].sum() == 0


def pool_of(target, seed=1, off=0.0):
    """A function that draws n rows from a pool of 9 items a region, with shares as the target says.

    `off` is by how much the mass of the last block exceeds the sum of its regions.
    """
    target = np.asarray(target, dtype=float)
    n_regions = len(target)
    q = np.concatenate([target, np.zeros(-n_regions % 64)])
    held, sums, ring = np.flatnonzero(target), _kernel.block_sums(q), np.zeros((2, n_regions + 1), np.int32)
    cursors = np.zeros(n_regions, np.int64), np.full(n_regions, -1)
    _kernel.link(held, *cursors, *ring)
    masses = sums + off * (np.arange(len(sums)) == len(sums) - 1)
    shares = q, masses, q.copy(), sums, np.zeros_like(sums), 1.0, 0.2
    fixed = 0, np.empty(0, np.int64), int(held[-1]), 9 * np.arange(n_regions + 1), *shares, *cursors, *ring
    clock = np.zeros(2, np.int64)
    return lambda n: _kernel.draw(seed, int(clock[0]), n, *fixed, clock)


def test_mass_that_no_region_has_goes_to_the_last_one_with_a_share():
    for n_regions in (11, 65, 130):  # the last region with a share is in the last block, in the one before, or earlier
        target = np.zeros(n_regions)
        target[3] = 1.0
        _, regions, *_ = pool_of(target, off=0.5)(100)
        assert (regions == 3).all()


@given(st.integers(0, 2**32), st.integers(1, 140), st.integers(1, 200))
def test_a_draw_takes_as_many_rows_of_a_region_as_its_share_says(seed, n_regions, n):
    rng = np.random.default_rng(seed)
    target = rng.dirichlet(np.full(n_regions, 0.3))
    target[rng.random(n_regions) < 0.3] = 0.0
    target[rng.integers(n_regions)] += 0.1
    target /= target.sum()
    draw = pool_of(target)
    for _ in range(5):
        _, regions, p, weights, forced = draw(n)
        assert forced == 0
        assert (np.abs(np.bincount(regions, minlength=n_regions) - n * target) < 1 + 1e-9).all()
        np.testing.assert_allclose(p, target[regions], rtol=1e-12)
        np.testing.assert_allclose(weights, 1.0, rtol=1e-12)


def test_rows_come_in_every_order_alike():
    draw = pool_of([0.25] * 4)
    orders = [tuple(draw(4)[1]) for _ in range(20_000 if _kernel.COMPILED else 4_000)]
    counts = np.unique(
        [order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3] for order in orders], return_counts=True
    )
    assert len(counts[1]) == 24
    assert not alarm(counts[1])


# ---------------------------------------------------------------- water level


@given(st.integers(0, 2**32), st.integers(1, 200), st.sampled_from([0.0, 0.01, 1.0, 100.0]))
def test_the_water_level_gives_the_shares_of_the_sorted_formula(seed, n_regions, scale):
    rng = np.random.default_rng(seed)
    u = rng.dirichlet(np.full(n_regions, 0.5)) * rng.integers(0, 2, n_regions)
    u[0] += 0.1
    s = rng.gamma(0.3, size=n_regions) * rng.integers(0, 2, n_regions)
    pad = np.zeros(-n_regions % 64)
    x, sums = np.zeros(n_regions + len(pad)), np.zeros(-(-n_regions // 64))
    arguments = np.concatenate([u, pad]), 1.0, np.concatenate([s, pad]), scale
    level = 0.0
    for _ in range(2):  # without a guess, and from the right one
        level = _kernel.water(*arguments, level, x, sums)
        np.testing.assert_allclose(x[:n_regions], water_fill(u, scale * s), rtol=1e-9, atol=1e-9)
        assert (sums == _kernel.block_sums(x)).all()


def test_without_weight_there_are_no_shares_and_the_draw_follows_the_target():
    q = np.concatenate([np.full(4, 0.25), np.zeros(60)])
    sums = np.array([1.0])
    x, x_sums = np.full(64, 3.0), np.full(1, 3.0)  # of the round before
    assert _kernel.water(np.zeros(64), 1.0, q, 1.0, 0.5, x, x_sums) == 0
    assert not x.any()
    assert not x_sums.any()
    p = _kernel.probabilities(4, q, sums, x, x_sums, np.zeros(1), 1.0, 0.2)
    assert p.tolist() == [0.25] * 4
