"""Every function of the compiled kernel gives the same bits as the one in Python that documents it."""

import inspect
import signal
import time
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aria_sampling import _kernel
from aria_sampling._kernel import reference

if not _kernel.COMPILED:
    pytest.skip("the compiled kernel is not loaded: there is nothing to compare", allow_module_level=True)
from aria_sampling._kernel import compiled

# K around the edges of blocks, and anything else
REGIONS = st.one_of(st.sampled_from([1, 2, 63, 64, 65, 127, 128, 129, 192, 300]), st.integers(1, 300))
SEEDS = st.integers(0, 2**32 - 1)
KEYS = st.one_of(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))
SHARES = st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])  # of regions that are cold, dry, ...
SPREADS = st.sampled_from([0.0, 1.0, 30.0, 600.0])  # of scores


def same(a, b):
    """Assert that two results are equal, bit for bit; NaN equals NaN."""
    if isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
        return
    assert type(a) is type(b)
    if isinstance(a, int):
        assert a == b
        return
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if a.dtype == np.float64:
        nan = np.isnan(a)
        np.testing.assert_array_equal(nan, np.isnan(b))
        a, b = np.where(nan, 0.0, a).view(np.int64), np.where(nan, 0.0, b).view(np.int64)
    np.testing.assert_array_equal(a, b)


def both(name, *arguments, fills=()):
    """Call a function of both kernels on copies of the arguments; assert that all they return and fill is the same."""
    results, filled = [], []
    for kernel in (compiled, reference):
        own = [x.copy() if isinstance(x, np.ndarray) else x for x in arguments]
        results.append(getattr(kernel, name)(*own))
        filled.append(tuple(own[i] for i in fills))
        for i, (before, after) in enumerate(zip(arguments, own, strict=True)):
            if isinstance(before, np.ndarray) and i not in fills:
                same(before, after)
    same(*results)
    same(*filled)
    return results[0], filled[0]


def wide(rng, n, low=-300, high=300):
    """Positive numbers of all scales."""
    return 10.0 ** rng.uniform(low, high, n)


def padded(values):
    return np.concatenate([values, np.zeros(-len(values) % 64)])


def some(rng, n, share):
    return rng.random(n) < share


@dataclass
class Weights:
    """A policy's weights over a target, by the compiled kernel."""

    target: np.ndarray
    q: np.ndarray
    q_sums: np.ndarray
    base: np.ndarray
    score: np.ndarray
    w: np.ndarray
    warm: np.ndarray
    frozen: np.ndarray
    shift: float
    cold: float

    @property
    def n_regions(self):
        return len(self.score)

    @property
    def sums(self):
        return self.score, self.w, self.warm, self.frozen

    @property
    def shares(self):
        return self.q, self.q_sums, self.w, self.warm, self.frozen, self.cold


@st.composite
def weights(draw):
    rng = np.random.default_rng(draw(SEEDS))
    n_regions = draw(REGIONS)
    target = rng.dirichlet(np.full(n_regions, 0.3)) + 1e-9 if draw(st.booleans()) else wide(rng, n_regions, -12, 0)
    target[some(rng, n_regions, draw(SHARES))] = 0.0
    target[rng.integers(n_regions)] = 1.0
    target /= target.sum()
    base = target * (wide(rng, n_regions, -200, 0) if draw(st.booleans()) else 1.0)
    base *= draw(st.sampled_from([1.0, 1.0, 1e-85, 1e-280]))
    score = draw(SPREADS) * rng.normal(size=n_regions)
    score[some(rng, n_regions, draw(SHARES))] = -np.inf
    score[some(rng, n_regions, draw(SHARES))] = np.nan
    shift = draw(st.sampled_from([0.0, 32.0, -64.0, 800.0]))
    cold = draw(st.sampled_from([0.0, 1e-300, 0.3, 1.0, 2e7, 1e300]))
    q, n_blocks = padded(target), -(-n_regions // 64)
    out = Weights(
        target, q, compiled.block_sums(q), padded(base), score, padded(base), np.zeros(n_blocks), np.zeros(n_blocks),
        shift, cold,
    )  # fmt: skip
    compiled.weigh_all(*out.sums, out.base, shift)
    return out


def test_the_two_kernels_have_the_same_functions_with_the_same_arguments():
    at_once = {"learn_bank", "learn_ema"}  # of these the reference is asking by value: tests/unit/test_learning.py
    assert set(compiled.__all__) - at_once == set(reference.__all__)
    for name in reference.__all__:
        fast, slow = getattr(compiled, name), getattr(reference, name)
        if inspect.isfunction(fast):
            assert list(inspect.signature(fast).parameters) == list(inspect.signature(slow).parameters), name


# ---------------------------------------------------------------- numbers


@given(KEYS, st.integers(0, 3), st.one_of(st.integers(0, 1000), KEYS), st.integers(0, 300))
def test_random_words(seed, stream, round_, n):
    key, _ = both("stream_key", seed, stream, round_)
    both("uniforms", key, n)
    both("uniforms", seed, n)


@given(st.lists(st.floats(), max_size=50), SEEDS)
def test_exp_and_log(values, seed):
    rng = np.random.default_rng(seed)
    both("exp", np.array(values))
    both("log", np.array(values))
    both("exp", rng.uniform(-720, 720, (7, 11)))
    both("log", wide(rng, 300, -323, 308))
    both("log", rng.uniform(0.5, 3.0, 1000))


@given(KEYS, SEEDS, st.sampled_from([3, 20, 300, 10**4, 10**9, 2**40]), st.integers(0, 300))
def test_positions(seed, rng_seed, most, n):
    rng = np.random.default_rng(rng_seed)
    regions, sizes = rng.integers(0, 2**31 - 1, n), rng.integers(1, most, n)
    nth = rng.integers(0, sizes * 3)
    both("positions", seed, regions, nth, sizes)


@given(SEEDS, st.integers(1, 30), st.integers(0, 300), st.sampled_from([-700.0, -5.0, -0.01, -1e-9]))
def test_profile_update(seed, n_bins, n, log_keep):
    rng = np.random.default_rng(seed)
    losses = wide(rng, n) * rng.choice([1.0, 1.0, 1.0, -1.0, np.nan, np.inf], n)
    total, weight = wide(rng, n_bins, -5, 5), rng.random(n_bins)
    both("profile_update", total, weight, rng.integers(0, n_bins, n), losses, wide(rng, n, -3, 120), log_keep)


# ---------------------------------------------------------------- weights and shares


@given(REGIONS, SEEDS)
def test_block_sums(n_regions, seed):
    rng = np.random.default_rng(seed)
    both("block_sums", padded(wide(rng, n_regions) * rng.choice([-1.0, 1.0], n_regions)))
    both("block_sums", padded(rng.normal(size=n_regions)))


@given(weights(), SEEDS, st.integers(0, 300))
def test_weights(weights, seed, m):
    rng = np.random.default_rng(seed)
    start = [weights.score, weights.w, np.empty_like(weights.warm), np.empty_like(weights.frozen)]
    both("weigh_all", *start, weights.base, weights.shift, fills=(1, 2, 3))
    regions = np.unique(rng.integers(0, weights.n_regions, m))
    scores = rng.normal(size=len(regions)) * 100
    scores[some(rng, len(regions), 0.2)] = -np.inf
    scores[some(rng, len(regions), 0.1)] = np.nan
    _, after = both("weigh", *weights.sums, weights.base, weights.shift, regions, scores, fills=(0, 1, 2, 3))
    _, anew = both("weigh_all", after[0], *start[1:], weights.base, weights.shift, fills=(1, 2, 3))
    same(after[1:], anew)  # what was changed in parts is as if it had been computed at once


@given(weights(), st.sampled_from([1e-6, 0.2, 1.0]))
def test_probabilities(weights, exploration):
    p, _ = both("probabilities", weights.n_regions, *weights.shares, exploration)
    assert abs(p.sum() - 1) < 1e-12
    assert (p >= exploration * weights.target * (1 - 1e-12)).all()
    assert (p[weights.target == 0] == 0).all()


GUESSES = [0.0, 1e-300, 1e-3, 0.5, 1.0, 2.0, 1e5, 1e300]


@given(
    weights(), SEEDS, SHARES, st.sampled_from([(-3, 3), (-300, -200), (0, 9), (-9, 9)]),
    st.sampled_from([1e-200, 1e-9, 1e-3, 1.0, 1e6, 1e200]), st.sampled_from(GUESSES),
)  # fmt: skip
def test_water(weights, seed, dry, scales, scale, guess):
    rng = np.random.default_rng(seed)
    effort = wide(rng, weights.n_regions, *scales)
    effort[some(rng, weights.n_regions, dry)] = 0.0
    room = [np.full_like(weights.q, 7.0), np.full_like(weights.q_sums, 7.0)]
    arguments = weights.w, weights.cold, padded(effort), scale
    level, (x, sums) = both("water", *arguments, guess, *room, fills=(5, 6))
    assert level < np.inf
    assert ((weights.w[: weights.n_regions] < 0) <= np.isnan(weights.score)).all()
    u = np.where(np.isnan(weights.score), weights.cold, 1.0) * np.abs(weights.w[: weights.n_regions])
    assert (x[: weights.n_regions][u == 0] == 0).all()
    if u.sum() < reference.LEAST_WEIGHT:
        assert (level, x.sum(), sums.sum()) == (0, 0, 0)
    elif u.sum() > 1e9 * reference.LEAST_WEIGHT and scale * effort.max() < 1e6:
        assert abs(x.sum() - 1) < 1e-6
        again, _ = both("water", *arguments, level, *room, fills=(5, 6))
        assert again == pytest.approx(level, rel=1e-9)


# ---------------------------------------------------------------- a draw


# A factor for the sums by block, and a share of the last one. Rounding may set them apart from the sum of their members
# one by one, if by less.
OFF = st.sampled_from([(1.0, 0.0), (1.0, 0.0), (0.9, 0.0), (1.1, 0.3)])


@given(KEYS, weights(), OFF, SEEDS, st.sampled_from([0, 1, 2, 5, 40]), st.sampled_from([1e-3, 0.2, 1.0]), st.data())
def test_draws(seed, weights, off, rng_seed, gap, exploration, data):
    rng, n_regions = np.random.default_rng(rng_seed), weights.n_regions
    held = np.flatnonzero(weights.target > 0)
    sizes = rng.integers(1, data.draw(st.sampled_from([2, 5, 1000])), n_regions)
    sizes[(weights.target == 0) & some(rng, n_regions, 0.5)] = 0
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    visits, last = rng.integers(0, 9, n_regions), rng.integers(-1, 4, n_regions)
    ring = np.zeros(n_regions + 1, np.int32), np.zeros(n_regions + 1, np.int32)
    _, ring = both("link", held, visits, last, *ring, fills=(3, 4))
    clock = np.array([data.draw(st.integers(3, 10**6)), 4])
    cursors = (visits, last, *ring, clock)
    weights.q_sums *= off[0]
    weights.q_sums[-1] += off[1]
    for n in data.draw(st.lists(st.one_of(st.integers(0, 20), st.integers(0, 500)), max_size=6)):
        chosen = np.sort(rng.choice(held, n)) if gap == 0 and data.draw(st.booleans()) else np.empty(0, np.int64)
        arguments = seed, int(clock[0]), n, gap, chosen, int(held[-1]), offsets, *weights.shares, exploration
        drawn, cursors = both("draw", *arguments, *cursors, fills=range(14, 19))
        items, regions, p, q_over_p, forced = drawn
        clock = cursors[-1]
        assert len(items) == n
        assert forced <= n // 2
        if len(chosen):
            assert (np.sort(regions) == chosen).all()
            continue
        assert (weights.target[regions] > 0).all()
        assert ((offsets[regions] <= items) & (items < offsets[regions + 1])).all()
        assert (q_over_p <= 2 / exploration * (1 + 1e-9)).all()
        assert (p > 0).all()


# ---------------------------------------------------------------- what losses say


@given(REGIONS, SEEDS, st.integers(0, 500), st.sampled_from([(-3, 3), (-300, 149), (148, 160)]), st.booleans())
def test_aggregate_and_variation(n_regions, seed, n, scales, once):
    rng = np.random.default_rng(seed)
    regions = rng.integers(0, n_regions, n)
    if once:  # no region has two losses
        regions = np.unique(regions)
    losses = wide(rng, len(regions), *scales) * rng.choice([-1.0, 0.0, 1.0, 1.0, 1.0], len(regions))
    losses[some(rng, len(regions), 0.05)] = rng.choice([np.nan, np.inf, -np.inf, 1e150, -0.0])
    (visited, count, mean, m2, dropped), _ = both("aggregate", regions, losses, n_regions)
    assert count.sum() + dropped == len(regions)
    before = mean * rng.choice([1.0, 1.3, 0.0, 1e-5, np.nan], len(visited))
    both("variation", wide(rng, 2, -9, 2), count, mean, m2, before)


@given(SEEDS, st.integers(0, 300))
def test_read_out(seed, m):
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=m) * wide(rng, m, -300, 149)
    count = wide(rng, m, -310, 9) * some(rng, m, 0.8)
    (means, errors, ages), _ = both("read_out", mean, count, rng.normal(size=m), wide(rng, 2, -9, 9))
    good, _ = both("usable", means, errors, count)
    assert good == (np.isfinite(means) & (errors >= 0) & (count > 0)).all()
    assert (ages >= 0).all()
    assert (np.isnan(means) == (count == 0)).all()
    for bad in (np.nan, np.inf, -np.inf):
        means[: m // 2] = bad
        both("usable", means, errors, count)


@given(SEEDS, st.integers(0, 300), st.floats(1e-9, 1.0), st.booleans(), st.integers(0, 10**6))
@example(0, 50, 1.0, False, 3)
@example(0, 50, 1.0, True, 3)
def test_ema(seed, m, rate, per_visit, clock):
    rng = np.random.default_rng(seed)
    rows = wide(rng, (m, 6), -9, 9) * some(rng, (m, 6), 0.8)
    count, mean = rng.integers(1, 500, m).astype(float), rng.normal(size=m) * wide(rng, m, -300, 149)
    both("ema_update", rows, count, mean, float(clock), rate, per_visit)


@given(
    SEEDS, st.integers(0, 300), st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=8),
    st.floats(0.0, 1.0, exclude_min=True), st.floats(1e-3, 1e9), st.integers(0, 12), st.sampled_from([0.0, 1.0, 140.0]),
)  # fmt: skip
def test_bank(seed, m, half_lives, discount, clip, rounds, spread):
    rng = np.random.default_rng(seed)
    decay = -np.log(2) / np.array(half_lives)
    rows, read = np.zeros((m, 4 * len(decay))), np.zeros((m, 3))
    for clock in range(rounds):
        count, mean = rng.integers(1, 300, m).astype(float), wide(rng, m, -spread, spread)
        mean[some(rng, m, 0.1)] = 0.0
        mean *= rng.choice([1.0, 1.0, 1.0, -1.0], m)
        m2, cv2 = wide(rng, m, -spread, spread), np.array([rng.choice([0.0, 1e-12, 0.7, 1e9]), 1.0])
        settings = float(clock), decay, np.tanh(-decay / 2), discount, clip
        (rows, read, _), _ = both("bank_update", rows, read, count, mean, m2, cv2, *settings)
        assert np.isfinite(rows).all()
        assert np.isfinite(read).all()
    both(
        "bank_update",
        wide(rng, rows.shape),
        wide(rng, read.shape),
        *(np.ones(m),) * 3,
        np.array([0.3, 1.0]),
        *(2.0, decay, -decay, 0.5, 9.0),
    )


# ---------------------------------------------------------------- what is known of all regions


def beliefs(rng, n, unknown):
    rows = np.stack([rng.normal(size=n) * wide(rng, n, -100, 100), wide(rng, n, -3, 6)], axis=1)
    rows[some(rng, n, unknown)] = 0.0
    rows[some(rng, n, 0.1), 0] = -0.0
    return rows


@given(REGIONS, SEEDS, st.integers(0, 300), SHARES)
def test_beliefs_and_store(n_regions, seed, m, unknown):
    rng, n_blocks = np.random.default_rng(seed), -(-n_regions // 64)
    belief, sums = np.zeros((n_regions, 2)), np.zeros((n_blocks, 2))
    visits, last = np.zeros(n_regions, np.int64), np.full(n_regions, -1)
    tables = rng.normal(size=(n_regions, 6)), rng.normal(size=n_regions), rng.normal(size=(n_regions, 2, 3))
    shared, counters, scalars = np.zeros(3), np.zeros(8, np.int64), np.zeros(5)
    for round_ in range(4):
        regions = np.unique(rng.integers(0, n_regions, m))
        news = beliefs(rng, len(regions), unknown)
        borrowed, _ = both("borrowed", regions, news, belief, sums)
        values = [rng.normal(size=(len(regions), *table.shape[1:])) for table in tables]
        drawn = rng.integers(0, n_regions, m)
        results = []
        for kernel in (compiled, reference):
            own = [array.copy() for array in (*tables, shared, belief, sums, visits, last, counters, scalars)]
            rows, whole = list(zip(own[:3], values, strict=True)), [(own[3], shared + 0.1)]
            moved = own[4], own[5], drawn, own[6], own[7], own[8], 2, 3, 10, 20, own[9], 0.1, 0.2, 0.3
            kernel.store(regions, rows, whole, news, *moved)
            results.append(tuple(own))
        same(*results)
        *tables, shared, belief, sums, visits, last, counters, scalars = results[0]
        assert visits.sum() == (round_ + 1) * m
        assert counters[:2].tolist() == [round_ + 1, (round_ + 1) * (m > 0)]
        assert (last[drawn] == round_).all()
        none = np.empty(0, np.int64)
        same(_kernel.borrowed(none, np.empty((0, 2)), belief, sums), borrowed)
        _, (anew,) = both("sum_beliefs", belief, np.full_like(sums, 7.0), fills=(1,))
        same(anew, sums)


@given(SEEDS)
def test_replace(seed):
    rng = np.random.default_rng(seed)
    news = [rng.normal(size=5), rng.normal(size=(3, 4)), rng.integers(0, 9, 7), np.empty(0)]
    for kernel in (compiled, reference):
        pairs = [(np.zeros_like(array), array) for array in news]
        kernel.replace(pairs)
        kernel.replace([])
        for target, array in pairs:
            same(target, array)


@pytest.mark.parametrize("kernel", [compiled, reference])
@pytest.mark.parametrize(
    "values", [np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4), np.float32), np.ones((2, 4), np.int64)]
)
def test_what_does_not_fit_is_refused_and_changes_nothing(kernel, values):
    visits, last, belief, sums = np.zeros(9, np.int64), np.full(9, -1), np.zeros((9, 2)), np.zeros((1, 2))
    good, table, shared = np.zeros((9, 4)), np.zeros((9, 4)), np.zeros(3)
    counters, scalars = np.zeros(8, np.int64), np.zeros(5)
    moved = belief, sums, np.array([3, 3]), visits, last, counters, 1, 1, 1, 1, scalars, 1.0, 1.0, 1.0
    regions, news = np.array([1, 5]), np.ones((2, 2))
    with pytest.raises(ValueError, match="size and type"):
        kernel.store(regions, [(good, np.ones((2, 4))), (table, values)], [], news, *moved)
    with pytest.raises(ValueError, match="size and type"):
        kernel.store(regions, [(good, np.ones((2, 4)))], [(shared, np.ones(2))], news, *moved)
    with pytest.raises(ValueError, match="size and type"):
        kernel.replace([(shared, np.ones(3)), (table, values)])
    all_of_it = visits, last + 1, belief, sums, good, table, shared, counters, scalars
    assert not np.concatenate([array.ravel() for array in all_of_it]).any()


class Interrupted(Exception):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")
@pytest.mark.parametrize("kernel", [compiled, reference])
def test_a_signal_finds_all_stored_or_nothing(kernel):
    def interrupt(*_):
        raise Interrupted

    n_regions = 300
    regions, drawn = np.arange(0, n_regions, 3), np.arange(0, n_regions, 3)
    table, shared, belief, sums = np.zeros((n_regions, 40)), np.zeros(3000), np.zeros((n_regions, 2)), np.zeros((5, 2))
    visits, last, scalars = np.zeros(n_regions, np.int64), np.full(n_regions, -1), np.zeros(5)
    counters = np.zeros(8, np.int64)

    def store(value):
        rows, whole = [(table, np.full((len(regions), 40), value))], [(shared, np.full(3000, value))]
        news, numbers = np.full((len(regions), 2), value), (scalars, value, value, value)
        kernel.store(regions, rows, whole, news, belief, sums, drawn, visits, last, counters, 0, 0, 0, 0, *numbers)

    began = time.perf_counter()
    for round_ in range(20):
        store(round_ + 1.0)
    took, rng, before = (time.perf_counter() - began) / 20, np.random.default_rng(0), signal.getsignal(signal.SIGALRM)
    signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(200):
            round_ = int(counters[0])
            try:
                signal.setitimer(signal.ITIMER_REAL, max(1e-6, rng.uniform(0, 2 * took)))
                store(round_ + 1.0)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                pass
            assert counters[0] in (round_, round_ + 1)
            for array in (table[regions], shared, belief[regions], visits[drawn], scalars[:3], last[drawn] + 1):
                assert (array == counters[0]).all()
            _, (anew,) = both("sum_beliefs", belief, np.zeros_like(sums), fills=(1,))
            same(sums, anew)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
