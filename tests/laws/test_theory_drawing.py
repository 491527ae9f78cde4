"""Gaps between visits, and ranks: T5.2, T5.3, T5.4, T6.1 of the theory page. Exact."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import bounds
from aria_sampling._kernel import link, reference
from tests.feeding import after
from tests.laws.test_two_level_draw import pieces, systematic_counts

SEEDS = st.integers(0, 2**32)


# -- T5.2, T5.4 --------------------------------------------------------------------------------------------


@given(seed=SEEDS, n=st.integers(1, 12), gap=st.integers(0, 30))
def test_chance_of_no_visit(seed, n, gap):
    """T5.2, E: a draw visits with probability min(1, n p), by integrating u over its breakpoints; never less than
    n independent draws would; and `gap` draws in a row miss with the power of the rest."""
    p = np.random.default_rng(seed).dirichlet(np.full(5, 0.5))
    lengths, inside = pieces(p, n)
    missed = sum(length * (systematic_counts(p, n, u) == 0) for length, u in zip(lengths, inside, strict=True))
    np.testing.assert_allclose(1 - missed, np.minimum(1, n * p), atol=1e-12)
    assert (missed <= (1 - p) ** n + 1e-12).all()
    np.testing.assert_allclose(bounds.visit_gap_tail(gap=gap, n=n, share=p, forced=False), missed**gap, atol=1e-10)


@given(seed=SEEDS, n=st.integers(1, 12), gap=st.integers(0, 30))
def test_chance_of_no_visit_beside_forced_visits(seed, n, gap):
    """T5.2 with T5.4, E: m rows are forced elsewhere, n - m are drawn; with the most, half, the bound is reached."""
    p = np.random.default_rng(seed).dirichlet(np.full(5, 0.5))
    bound = bounds.visit_gap_tail(gap=gap, n=n, share=p, forced=True)
    for forced in range(n // 2 + 1):
        lengths, inside = pieces(p, n - forced)
        missed = sum(
            length * (systematic_counts(p, n - forced, u) == 0) for length, u in zip(lengths, inside, strict=True)
        )
        assert (missed**gap <= bound + 1e-10).all()
    np.testing.assert_allclose(bound, missed**gap, atol=1e-10)


@pytest.mark.parametrize("n", [2, 7, 16])
def test_forced_visits_leave_half_of_a_share(n):
    """An allocator whose regions are overdue together draws by p' of at least half of exploration·q, and by less than
    exploration·q: the bound without forced visits would not hold."""
    sizes = np.repeat([2000, 10], [1, 39])
    pool = aria.Partition.from_labels(np.repeat(np.arange(40), sizes))
    allocator = aria.Allocator(pool, target="uniform", exploration=0.2, seed=0)
    least = np.inf
    for _ in range(40 * 8 // n + 40):
        draw = allocator.draw(n)
        least = min(least, (draw.probabilities * allocator.partition.n_regions / 0.2).min())
        allocator.observe(draw.regions, np.where(draw.regions == 0, 1e6, 1e-6))
        allocator.step()
    assert (n - n // 2) / n - 1e-9 <= least < 1


def endless_schedule_exists(gaps):
    """Whether regions can be visited for ever, one a draw, each within its gap: a cycle in the graph of ages."""
    states = set(itertools.product(*(range(gap) for gap in gaps)))  # draws since the last visit, less than the gap

    def successors(state):
        for visited in range(len(gaps)):
            yield tuple(0 if k == visited else age + 1 for k, age in enumerate(state))

    while dead := {state for state in states if not any(after in states for after in successors(state))}:
        states -= dead
    return bool(states)


def test_gaps_of_one_over_the_share_are_impossible():
    """T5.3, E: shares 1/2, 1/3, 1/6 sum to 1, yet no schedule keeps to gaps of 2, 3, 6, nor of 2, 3 and anything."""
    assert not any(endless_schedule_exists((2, 3, gap)) for gap in (6, 7, 12, 40))
    assert all(endless_schedule_exists(gaps) for gaps in [(2, 4, 4), (3, 3, 3), (2, 2), (2, 4, 8, 8)])


def test_gap_tail_example():
    """64 regions, 64 rows, exploration 0.1, no forced visits: with chance 0.99 no wait is longer than 193 in 1e5
    rounds. With them up to half of the rows are taken, and the promise is of 396 (but T5.4 bounds the wait by 9)."""
    chance = 64 * 1e5 * bounds.visit_gap_tail(gap=[192, 193], n=64, share=0.1 / 64, forced=False)
    assert chance[0] > 0.01 >= chance[1]
    chance = 64 * 1e5 * bounds.visit_gap_tail(gap=[395, 396], n=64, share=0.1 / 64, forced=True)
    assert chance[0] > 0.01 >= chance[1]
    assert bounds.forced_gap(max_gap=8, n_regions=64, n=64) == 9


@pytest.mark.parametrize("max_gap", [1, 2, 9])
@pytest.mark.parametrize("n", [2, 4, 7, 32])
@pytest.mark.parametrize("k", [2, 9, 12, 30])
def test_forced_gap_is_the_longest_wait(k, n, max_gap):
    """T5.4, E: all regions visited together once, and then only those that are forced: the queue at its longest."""
    last, longest = np.zeros(k, np.int64), 0
    ring = np.zeros((2, k + 1), np.int32)
    link(np.arange(k), np.zeros(k, np.int64), last, *ring)
    for number in range(1, 4 * (max_gap + k)):
        longest = max(longest, int((number - last).max()))
        due = reference._due(ring[0], last, most=n // 2, until=number - max_gap)
        last[due] = number
        for region in due.tolist():
            reference._touch(*ring, region)
    assert longest == bounds.forced_gap(max_gap=max_gap, n_regions=k, n=n)


# -- T6.1 --------------------------------------------------------------------------------------------------


def random_rows(seed, k, dyadic):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    losses = rng.integers(-500, 500, n) / 64 if dyadic else rng.lognormal(0, 3, n)
    return rng, rng.integers(0, k, n), losses


def same(a, b, names=("regions", "count", "mean", "m2")):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names) and a.dropped == b.dropped


@given(seed=SEEDS, ranks=st.integers(1, 7))
def test_feedback_does_not_depend_on_the_sharding(seed, ranks):
    """T6.1, E: rows sharded over ranks in any way and merged in global row order: the same bits, for any data."""
    rng, regions, losses = random_rows(seed, 5, dyadic=False)
    owner = rng.integers(0, ranks, len(regions))
    gathered = [np.flatnonzero(owner == rank) for rank in range(ranks)]  # (row, loss) of each rank
    rows = np.concatenate(gathered)
    order = np.argsort(rows, kind="stable")
    merged = aria.Feedback.from_rows(
        np.concatenate([regions[g] for g in gathered])[order], np.concatenate([losses[g] for g in gathered])[order],
        n_regions=5,
    )  # fmt: skip
    assert same(merged, aria.Feedback.from_rows(regions, losses, n_regions=5))


@given(seed=SEEDS)
def test_feedback_of_dyadic_losses_does_not_depend_on_order(seed):
    """T6.1, E: sums of multiples of 1/64 are exact, so even the order of rows leaves count and mean bit for bit."""
    rng, regions, losses = random_rows(seed, 4, dyadic=True)
    shuffled = rng.permutation(len(regions))
    one = aria.Feedback.from_rows(regions, losses, n_regions=4)
    other = aria.Feedback.from_rows(regions[shuffled], losses[shuffled], n_regions=4)
    assert same(one, other, ("regions", "count", "mean"))
    np.testing.assert_allclose(one.m2, other.m2, rtol=1e-12, atol=1e-12)


@given(seed=SEEDS, parts=st.integers(1, 5))
def test_feedback_sums_up_what_it_says(seed, parts):
    """Count, mean and the sum of squared deviations; (count, sum, sum of squares) of parts add up to those of all."""
    rng, regions, losses = random_rows(seed, 4, dyadic=False)
    whole = aria.Feedback.from_rows(regions, losses, n_regions=4)
    for k, n, mean, m2 in zip(whole.regions, whole.count, whole.mean, whole.m2, strict=True):
        own = losses[regions == k]
        assert n == len(own)
        np.testing.assert_allclose([mean, m2], [own.mean(), own.var() * len(own)], rtol=1e-10, atol=1e-12)
    triple = np.zeros((4, 3))
    for part in np.array_split(rng.permutation(len(regions)), parts):
        f = aria.Feedback.from_rows(regions[part], losses[part], n_regions=4)
        triple[f.regions] += np.stack([f.count, f.count * f.mean, f.m2 + f.count * f.mean**2], axis=1)
    triple = triple[whole.regions]
    expected = np.stack([whole.count, whole.count * whole.mean, whole.m2 + whole.count * whole.mean**2], axis=1)
    np.testing.assert_allclose(triple, expected, rtol=1e-10)


@given(seed=SEEDS, ranks=st.integers(1, 7))
def test_moments_of_ranks_merge_to_those_of_all_rows(seed, ranks):
    """T6.1, E: whoever had which rows, idle ranks among them; in one go, or two by two in any order."""
    rng, regions, losses = random_rows(seed, 3, dyadic=True)
    owner = rng.integers(0, ranks, len(regions))
    parts = np.zeros((3, ranks, 3))
    for rank in range(ranks):
        f = aria.Feedback.from_rows(regions[owner == rank], losses[owner == rank], n_regions=3)
        parts[:, rank, f.regions] = f.count, f.mean, f.m2
    whole = aria.Feedback.from_rows(regions, losses, n_regions=3)
    merged = bounds.merged_moments(*parts)
    chained = parts[:, 0]
    for rank in rng.permutation(np.arange(1, ranks)):
        chained = np.array(bounds.merged_moments(*np.stack([np.nan_to_num(chained), parts[:, rank]], axis=1)))
    for moments in (merged, chained):
        for got, wanted in zip(moments, (whole.count, whole.mean, whole.m2), strict=True):
            np.testing.assert_allclose(got[whole.regions], wanted, rtol=1e-11, atol=1e-11)


def test_averages_of_per_rank_averages_are_wrong():
    """T6.1, E: counts 1 and 7, means 1 and 3, rate 0.1, from 0: merged 1.566, averaged over ranks 0.833."""
    ema = aria.Ema(rate=0.1)
    settled = [0] * 8000, np.zeros(8000)  # memory full, mean 0

    def moved(losses):
        return after(ema, [settled, ([0] * len(losses), losses)], 1).mean[0]

    assert moved([1.0] + [3.0] * 7) == pytest.approx(2.75 * (1 - 0.9**8), rel=1e-12)
    assert moved([1.0] + [3.0] * 7) == pytest.approx(1.566, abs=5e-4)
    assert (moved([1.0]) + moved([3.0] * 7)) / 2 == pytest.approx(0.833, abs=5e-4)


@pytest.mark.parametrize("estimator", [aria.Ema(), aria.Ema(per="visit"), aria.EmaBank()])
def test_micro_batches_of_a_round_merge_first(estimator):
    """T6.1, E: observed whole, or row by row: the same bits, and one visit."""
    allocators = [aria.Allocator(aria.Partition.from_labels([0, 0, 1, 1, 1]), estimator=estimator) for _ in range(2)]
    for _ in range(20):
        draws = [allocator.draw(5) for allocator in allocators]
        losses = np.sin(draws[0].items * 7.0 + draws[0].round) + 1.5
        allocators[0].observe(draws[0].regions, losses)
        for row in range(5):
            allocators[1].observe(draws[1].regions[row : row + 1], losses[row : row + 1])
        for allocator in allocators:
            allocator.step()
        one, other = (allocator.estimate() for allocator in allocators)
        for name in ("mean", "stderr", "count", "age"):
            assert np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
