"""Which row of a draw each reported row is, and why it is none: a loader whose batches are not the rounds."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

import aria_sampling as aria
from aria_sampling.rounds import Draw
from aria_sampling.torch import WithIndex
from aria_sampling.torch._match import match
from tests.unit.torch.common import BATCH, ITEMS, build, loss


def match_draw(items, draw):
    return match(items, [draw], lambda n: slice(0, n))


def draw_of(items):
    items = np.asarray(items, np.int64)
    none = np.zeros(len(items))
    return Draw(items, items * 0, none, none, 7)


def slow_match(items, drawn):
    """For each item in turn the first of its rows that is not taken; None if there is none."""
    free = list(range(len(drawn)))
    rows = []
    for item in items:
        row = next((row for row in free if drawn[row] == item), None)
        if row is None:
            return None
        free.remove(row)
        rows.append(row)
    return rows


small = st.integers(0, 6)


@given(st.lists(small, max_size=14), st.data())
def test_a_part_of_a_draw_in_any_order_is_matched(drawn, data):
    """Subsets and permutations, with equal items: as the slow way, so each row at most once."""
    order = data.draw(st.permutations(range(len(drawn))))
    items = [drawn[row] for row in order][: data.draw(st.integers(0, len(drawn)))]
    rows = match_draw(np.array(items, np.int64), draw_of(drawn))
    assert rows.tolist() == slow_match(items, drawn)
    assert rows.dtype == np.int64


@given(st.lists(small, max_size=10), st.lists(small, max_size=10))
def test_anything_is_matched_or_refused_as_the_slow_way(items, drawn):
    wanted = slow_match(items, drawn)
    if wanted is not None:
        assert match_draw(np.array(items, np.int64), draw_of(drawn)).tolist() == wanted
        return
    absent = [item for item in items if item not in drawn]
    more = sum((Counter(items) - Counter(drawn)).values())
    said = f"{len(absent)} of {len(items)} rows are not" if absent else f"{more} of {len(items)} rows of round 7"
    with pytest.raises(ValueError, match=said):
        match_draw(np.array(items, np.int64), draw_of(drawn))


def test_ids_that_no_float_holds_are_told_apart():
    drawn = [2**53, 2**53 + 1, 2**63 - 1, 2**63 - 2]
    assert match_draw(np.array(drawn[::-1]), draw_of(drawn)).tolist() == [3, 2, 1, 0]
    with pytest.raises(ValueError, match="not in the oldest"):
        match_draw(np.array([2**53 + 2]), draw_of(drawn))


# ------------------------------------------------------------------------------ batches that are not rounds


class Buckets(BatchSampler):
    """Batches of items of one kind, as an aspect-ratio batch sampler makes them."""

    def __init__(self, sampler, batch_size, kinds=2):
        super().__init__(sampler, batch_size, False)
        self.kinds = kinds

    def __iter__(self):
        buckets = [[] for _ in range(self.kinds)]
        for item in self.sampler:
            bucket = buckets[item % self.kinds]
            bucket.append(item)
            if len(bucket) == self.batch_size:
                yield bucket[:]
                bucket.clear()


MANY = 5000  # so that no item comes twice in a few rounds


def no_round(lag, batch_size=None, batch_sampler=None, **settings):
    """Observe the batches of a loader until one is refused: what was said, and how many rounds were closed by then."""
    pool = aria.Partition.from_labels(np.arange(MANY) % 7)
    sampler = aria.Allocator(pool, seed=1, lag=lag).sampler(batch_size=BATCH, num_samples=10 * BATCH)
    how = {"batch_sampler": batch_sampler(sampler)} if batch_sampler else {"batch_size": batch_size, "sampler": sampler}
    with pytest.raises((ValueError, aria.FeedbackLagError)) as error:  # noqa: PT012
        for index in DataLoader(range(MANY), **how, **settings):
            sampler.observe(index, torch.ones(len(index)))
    return str(error.value), sampler.allocator.round


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("size", [1, 5, BATCH - 1])
def test_smaller_batches_are_recognised(size, workers):
    """At the first report, where the rest of the round was not asked for yet; at the second, where it was."""
    said, closed = no_round(
        8, batch_size=size, num_workers=workers, prefetch_factor=None if not workers else 40 // size
    )
    if workers:
        assert f"They are the rest of round 0, which was closed with {size} of its {BATCH} rows" in said
    else:
        assert f"{size} of the {BATCH} rows of round 0 were asked for, and it is to be closed" in said
    assert f"must be the sampler's rounds, {BATCH} rows on this rank" in said
    assert "for parts of a batch pass step=False" in said
    assert closed == (workers > 0)


@pytest.mark.parametrize("size", [BATCH + 1, 2 * BATCH, 3 * BATCH + 5])
def test_larger_batches_are_recognised_at_the_first_report(size):
    said, closed = no_round(8, batch_size=size)
    assert f"They are those of round 1: the loader's batches have {size} rows, and the sampler's rounds {BATCH}" in said
    assert closed == 0


def test_buckets_are_recognised_at_the_first_report():
    said, closed = no_round(8, batch_sampler=lambda sampler: Buckets(sampler, BATCH))
    assert "They come from several rounds: something regroups the rows of this sampler (a batch sampler of" in said
    assert "group the rows of each round in collate_fn, and report group by group" in said
    assert closed == 0


@pytest.mark.parametrize("how", [{"batch_size": 2 * BATCH}, {"batch_sampler": lambda sampler: Buckets(sampler, BATCH)}])
def test_without_a_lag_the_first_draw_too_many_names_the_causes(how):
    said, closed = no_round(0, **how)
    assert "round 0 is still open, and lag=0" in said
    assert f"the loader's batch_size must be the {BATCH} rows that a round has on this rank" in said
    assert "nothing may regroup or skip the sampler's rows (a batch sampler of buckets, skip_first_batches)" in said
    assert closed == 0


def test_batches_that_overtake_are_recognised():
    sampler, loader = build(lag=3)
    batches = list(islice(loader, 3))
    with pytest.raises(ValueError, match=r"They are those of round 2, .*leave in_order=False out of the loader"):
        sampler.observe(batches[2], loss(batches[2]))
    for index in batches:
        sampler.observe(index, loss(index))
    assert sampler.allocator.round == 3


def test_micro_batches_without_step_are_recognised():
    """Also where the next round has rows of the same items, and where none is open."""
    for again in (False, True):
        sampler, loader = build()
        index = next(iter(loader))
        sampler.observe(index[:8], loss(index[:8]))
        if again:
            next(iter(loader))
        error, words = (ValueError, "They are the rest of round 0, which") if again else (RuntimeError, "Round 0")
        with pytest.raises(error, match=rf"{words} was closed with 8 of its 24 rows: .*pass step=False"):
            sampler.observe(index[8:16], loss(index[8:16]))


@pytest.mark.parametrize("size", [None, 1, 4])
def test_a_sample_that_is_a_batch_is_one_row(size):
    """Bucketed datasets: the loss of each of its rows is refused in whatever form, the mean of them is credited."""
    ready = WithIndex(torch.arange(MANY)[:, None].repeat(1, 4).double())
    pool = aria.Partition.from_labels(np.arange(MANY) % 7)
    sampler = aria.Allocator(pool, seed=1).sampler(batch_size=size or 1, num_samples=12)
    for index, rows in DataLoader(ready, batch_size=size, sampler=sampler):
        per_row = 1.0 + rows % 7
        n = 1 if size is None else len(index)
        same = torch.as_tensor(index).reshape(-1, 1).expand(n, 4).reshape(-1)  # the index of each row, repeated
        wrong = [(same, per_row.reshape(-1), "a sample that is a batch by itself is one row")]
        wrong += [(index, per_row, "a batch by itself is one row" if size is None else "several losses a row")]
        for indices, losses, words in wrong:
            with pytest.raises(ValueError, match=words):
                sampler.observe(indices, losses)
        sampler.observe([index] if size is None else index, per_row.reshape(n, 4).mean(dim=1))
    estimate, seen = sampler.allocator.estimate(), sampler.allocator.draw_counts > 0
    assert estimate.mean[seen] == pytest.approx(1.0 + np.flatnonzero(seen))


def test_what_was_never_asked_for_has_no_batches():
    """A framework that replaces the sampler, as Ray's loader does: its rows come, and no round was opened."""
    sampler, _ = build()
    for index in islice(DataLoader(range(ITEMS), batch_size=BATCH, shuffle=True), 1):
        for call in (lambda index=index: sampler.observe(index, loss(index)), sampler.step):
            with pytest.raises(aria.UsageError, match=r"No row was asked of this sampler: .*add_dist_sampler=False"):
                call()


def test_buckets_can_be_made_of_the_rows_of_a_round():
    """What the messages advise for aspect ratios: grouped in collate_fn, and reported group by group."""

    def by_size(samples):
        groups = {}
        for index in samples:
            groups.setdefault(index % 3, []).append(index)
        return [torch.tensor(group) for group in groups.values()]

    sampler, loader = build(options={"collate_fn": by_size})
    whole, plain = build()
    for groups, index in zip(loader, plain, strict=True):
        assert sorted(row for group in groups for row in group.tolist()) == sorted(index.tolist())
        for number, group in enumerate(groups, 1):
            sampler.observe(group, loss(group), step=number == len(groups))
        whole.observe(index, loss(index))
    assert sampler.allocator.digest() == whole.allocator.digest()


def test_rows_of_nowhere():
    sampler, loader = build()
    index = next(iter(loader))
    strange = next(item for item in range(ITEMS) if item not in index.tolist())
    words = r"Something replaced or reordered this sampler .* WithIndex adds that, around the whole dataset"
    with pytest.raises(ValueError, match=words):
        sampler.observe(torch.tensor([strange]), torch.ones(1))
