"""The repeat cap: in any run of whole draws, no item comes more often than `max_repeat` says, and one time more.

Of D rows, ``ceil(max_repeat * D / n_items) + 1`` at most; singletons included. A region gets fewer than
``cap * D + 2`` of them, which holds for streams, too, whose items have no numbers.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.pacing import capped, first_pace, paced

seeds = st.integers(0, 2**32)


def most_in_any_run(counts, sizes):
    """For each number of rows D in a run of whole draws: the most that any entry of `counts` [draws, entries] has."""
    ends, rows = (
        np.vstack([np.zeros(counts.shape[1]), np.cumsum(counts, axis=0)]),
        np.concatenate([[0], sizes.cumsum()]),
    )
    for first in range(len(sizes)):
        yield from zip((rows[first + 1 :] - rows[first]).tolist(), ends[first + 1 :] - ends[first], strict=True)


def assert_cap(draws, pool, max_repeat):
    """The law, over every run of whole draws, for items and for regions."""
    sizes = np.array([len(draw.items) for draw in draws])
    items = np.stack([np.bincount(draw.items, minlength=pool.n_items) for draw in draws])
    for rows, most in most_in_any_run(items, sizes):
        assert most.max() <= np.ceil(max_repeat * rows / pool.n_items) + 1
    cap = max_repeat * pool.sizes / pool.n_items
    regions = np.stack([np.bincount(draw.regions, minlength=pool.n_regions) for draw in draws])
    for rows, got in most_in_any_run(regions, sizes):
        assert (got < cap * rows + 2).all()


def play(allocator, sizes, loss):
    """Draws of these sizes, with as many rounds open as the lag allows; `loss` of regions and round."""
    draws = []
    for n in sizes:
        draws.append(allocator.draw(int(n)))
        if len(allocator.open_rounds) > allocator.lag:
            draw = allocator.open_rounds[0]
            allocator.observe(draw.regions, loss(draw.regions, draw.round))
            allocator.step()
    return draws


@given(
    seeds,
    st.sampled_from([1.0, 1.05, 1.5, 2.0, 4.0, 30.0]),
    st.sampled_from(["pool", "uniform", 0.5]),
    st.sampled_from([0, 3]),
    st.booleans(),
)
def test_no_item_comes_more_often(seed, max_repeat, target, lag, covered):
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 1, 1, 2, 7, 40], int(rng.integers(1, 30)))
    pool = aria.Partition.from_labels(np.repeat(np.arange(len(sizes)), sizes))
    coverage = aria.Coverage(pool, items=rng.integers(0, pool.n_items, 5)) if covered else None
    allocator = aria.Allocator(
        pool, coverage=coverage, max_repeat=max_repeat, target=target, lag=lag, seed=seed, policy=aria.Proportional(3.0)
    )
    worst = rng.integers(0, pool.n_regions, 60)  # what is hard changes all the time: shares jump from round to round

    def loss(regions, round_):
        return 1.0 + 1e6 * (np.abs(regions - worst[round_ % 60]) < pool.n_regions / 4)

    most = int(rng.choice([2, 9, 64]))
    assert_cap(play(allocator, rng.integers(0, most + 1, 60), loss), pool, max_repeat)


@pytest.mark.parametrize(
    ("sizes", "max_repeat"),
    [([5000] * 30 + [50] * 10, 4.0), ([1] * 1000 + [1000] * 100, 2.0)],
    ids=["regions of 50", "singletons"],
)
def test_cases_27(sizes, max_repeat):
    """Small regions under the target "uniform": forced visits once drew such items 13 and 16 times in a pool's size."""
    pool = aria.Partition.from_sizes(sizes)
    allocator = aria.Allocator(pool, target="uniform", max_repeat=max_repeat, seed=1)
    hard = np.array(sizes) < 100
    draws = play(allocator, [256] * (2 * pool.n_items // 256), lambda regions, _: 1.0 + 99.0 * hard[regions])
    sizes, per_pool = np.array([256] * len(draws)), pool.n_items // 256
    items = np.stack([np.bincount(d.items[d.items < 100_000], minlength=100_000) for d in draws[:per_pool]]).sum(axis=0)
    assert items.max() <= max_repeat + 1
    regions = np.stack([np.bincount(d.regions, minlength=pool.n_regions) for d in draws])
    cap = max_repeat * pool.sizes / pool.n_items
    for first in range(0, len(draws), 7):
        got, rows = regions[first:].cumsum(axis=0), sizes[first:].cumsum()
        assert (got < cap * rows[:, None] + 2).all()
    assert (regions.sum(axis=0)[hard] > 0.8 * (cap * 256 * len(draws))[hard] - 2).all()  # and they get what they may


def test_pieces_of_draws():
    """Rows of a draw come in random order: a run that begins or ends inside draws has the bound of these whole."""
    pool, n, max_repeat = aria.Partition.from_sizes([1] * 40 + [30] * 20), 32, 2.0
    allocator = aria.Allocator(pool, target="uniform", max_repeat=max_repeat, seed=3)
    items = np.concatenate([d.items for d in play(allocator, [n] * 100, lambda r, _: 1.0 + 50 * (r < 40))])
    for item in range(pool.n_items):
        at = np.flatnonzero(items == item)
        for times in range(2, len(at)):
            rows = (at[times:] - at[:-times] + 1).min()
            assert times + 1 <= np.ceil(max_repeat * (rows + 2 * (n - 1)) / pool.n_items) + 1


@given(seeds, st.integers(1, 40), st.integers(1, 300), st.booleans())
def test_paced_rows_follow_the_shares(seed, n_regions, n, still):
    """Every draw has n rows, none of a region without a share, and rows stay within two of what shares add up to."""
    rng = np.random.default_rng(seed)
    cap = rng.dirichlet(np.ones(n_regions)) * rng.choice([1.0, 1.5, 10.0])
    pace, due = first_pace(seed, n_regions), np.zeros(n_regions)
    p = np.minimum(cap / cap.sum(), cap)
    for _ in range(50):
        if not still:
            p = cap * rng.random(n_regions) ** 3
            room = cap - p
            p = p + room * (1 - p.sum()) / room.sum() if p.sum() < 1 else p / p.sum()
        rows, pace = paced(p, cap, pace, n)
        due += n * p - rows
        assert rows.sum() == n
        assert (rows >= 0).all()
        assert (pace[1] >= 0).all()
        assert (pace[1] < 2).all()
        if still:
            assert (np.abs(due) < 2).all()


def test_a_region_without_a_share_gets_no_row():
    cap = np.array([0.6, 0.0, 0.6])
    pace = first_pace(0, 3)
    for _ in range(100):
        rows, pace = paced(np.array([0.5, 0.0, 0.5]), cap, pace, 5)
        assert rows[1] == 0


def test_a_cap_is_kept_over_resume_and_rewind():
    pool = aria.Partition.from_labels(np.repeat(np.arange(12), [1] * 6 + [20] * 6))
    make = lambda: aria.Allocator(pool, target="uniform", max_repeat=1.5, lag=2, seed=4)  # noqa: E731
    through, parts = make(), make()
    loss = lambda regions, round_: 1.0 + regions + round_ % 3  # noqa: E731
    whole = play(through, [16] * 40, loss)
    first = play(parts, [16] * 17, loss)
    state = parts.state_dict()
    assert "pace" in state["draws"]
    parts = make()
    parts.load_state_dict(state)
    again = play(parts, [16] * (40 - parts.round), loss)
    drawn = [*first[: len(whole) - len(again)], *again]
    assert [d.items.tolist() for d in drawn] == [d.items.tolist() for d in whole]
    opened = [d.items.tolist() for d in parts.open_rounds]
    parts.rewind()
    assert [parts.draw(16).items.tolist() for _ in opened] == opened


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 60), st.sampled_from([1.0, 1.5, 4.0, 30.0]))
def test_no_region_gets_more_rows_than_its_cap_has_room_for(seed, n_regions, n, repeat):
    """Whatever a region is owed, and however its share has moved: its load stays below 2 where all have the room."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 200, n_regions)
    cap = repeat * sizes / sizes.sum()
    p = capped(rng.dirichlet(np.full(n_regions, 0.3)), cap)
    pace = np.stack([rng.uniform(-3, 30, n_regions), rng.uniform(0, 2 - 1e-6, n_regions)])
    rows, (owed, load) = paced(p, cap, pace, n)
    assert rows.sum() == n
    assert (rows >= 0).all()
    assert not rows[p == 0].any()
    np.testing.assert_allclose(owed, pace[0] + n * p - rows, atol=1e-9)
    room = np.where(p > 0, np.ceil(2 - 1e-9 - (pace[1] - n * cap)) - 1, 0.0)
    if np.maximum(room, 0.0).sum() >= n:
        assert (load < 2).all()
    else:  # then nobody takes more than one row beyond it
        assert (rows <= np.maximum(room, 0.0) + np.ceil(n / np.count_nonzero(p))).all()
