"""`AriaSampler` behind real loaders: every way to leave an epoch and come back gives the same stream."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria

ITEMS, BATCH, LAG = 23, 5, 4


def loaded(drop_last, workers=0, state=None, num_samples=ITEMS):
    pool = aria.Partition.from_labels([index % 3 for index in range(num_samples)])
    allocator = aria.Allocator(pool, estimator=aria.Ema(0.2), seed=0, lag=LAG)
    sampler = allocator.sampler(batch_size=BATCH, num_samples=num_samples, drop_last=drop_last)
    if state is not None:
        sampler.load_state_dict(state)
    options = {"num_workers": workers, "prefetch_factor": 2 if workers else None}
    return sampler, DataLoader(range(num_samples), batch_size=BATCH, sampler=sampler, drop_last=drop_last, **options)


def train(sampler, loader, batches=None):
    """Train on so many batches of one pass, or on all of them; what came, as lists."""
    seen = []
    for index in islice(loader, batches):
        sampler.observe(index, 1.0 + (index % 3).float())
        seen.append(index.tolist())
    return seen


def uninterrupted(drop_last):
    sampler, loader = loaded(drop_last)
    return [batch for _ in range(3) for batch in train(sampler, loader)]


@pytest.mark.parametrize("drop_last", [False, True])
def test_every_epoch_has_all_its_batches(drop_last):
    sampler, loader = loaded(drop_last)
    for _ in range(4):
        epoch = train(sampler, loader)
        assert len(epoch) == len(loader)
        assert sum(map(len, epoch)) == len(sampler)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("stop", range(1, 6))
def test_a_pass_left_early_goes_on_with_the_rest(drop_last, stop):
    sampler, loader = loaded(drop_last)
    first = train(sampler, loader, stop)
    rest = [batch for _ in range(3) for batch in train(sampler, loader)]
    whole = uninterrupted(drop_last)
    assert (first + rest)[: len(whole)] == whole


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("stop", range(1, 6))
def test_a_state_saved_at_any_batch_gives_the_rest(drop_last, stop):
    sampler, loader = loaded(drop_last)
    first = train(sampler, loader, stop)
    sampler, loader = loaded(drop_last, state=sampler.state_dict())
    rest = [batch for _ in range(3) for batch in train(sampler, loader)]
    whole = uninterrupted(drop_last)
    assert (first + rest)[: len(whole)] == whole


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize(("workers", "stop"), [(1, 3), (2, 4)])
def test_workers_change_nothing(drop_last, workers, stop):
    sampler, loader = loaded(drop_last, workers)
    first = train(sampler, loader, stop)
    rest = [batch for _ in range(2) for batch in train(sampler, loader)]
    found = first + rest
    assert found == uninterrupted(drop_last)[: len(found)]


def test_a_state_of_the_other_drop_last_is_refused():
    state = loaded(True)[0].state_dict()
    with pytest.raises(aria.StateError, match="drop_last"):
        loaded(False, state=state)


def test_nothing_but_a_dropped_batch_is_an_error():
    with pytest.raises(ValueError, match="num_samples=3"):
        loaded(True, num_samples=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_losses_of_any_float_dtype_that_require_grad(dtype):
    sampler, loader = loaded(False)
    index = next(iter(loader))
    sampler.observe(index, torch.full((len(index),), 0.5, dtype=dtype, requires_grad=True))
    estimate = sampler.allocator.estimate()
    assert estimate.mean[estimate.count > 0] == pytest.approx(0.5, rel=1e-12)


def test_rows_of_another_batch_are_refused():
    sampler, loader = loaded(False)
    index = next(iter(loader)).tolist()
    strange = next(i for i in range(ITEMS) if i not in index)
    with pytest.raises(ValueError, match="indices"):
        sampler.observe([strange], [1.0])
    assert sampler.allocator.round == 0


def test_ranks_may_be_told_after_the_sampler_was_made():
    sampler, _ = loaded(True)
    sampler.shard(5, 2)
    assert (sampler.num_replicas, sampler.rank, len(sampler)) == (5, 2, ITEMS // BATCH)
    with pytest.raises(ValueError, match="multiple of num_replicas=2"):
        sampler.shard(2, 0)
    assert (sampler.num_replicas, sampler.rank) == (5, 2)
    next(iter(sampler))
    sampler.shard(5, 2)
    with pytest.raises(RuntimeError, match="before the loader is iterated"):
        sampler.shard(1, 0)


def test_reported_counts_batches_as_they_are_reported():
    sampler, loader = loaded(False)
    for number, index in enumerate(islice(loader, 3), 1):
        sampler.observe(index, torch.ones(len(index)))
        assert sampler.reported == number


@pytest.mark.parametrize("index", [[ITEMS], [-1]])
def test_an_index_beyond_the_dataset_is_refused(index):
    sampler, loader = loaded(False)
    next(iter(loader))
    with pytest.raises(ValueError, match=r"indices: expected values in \[0, 23\)"):
        sampler.observe(index, [1.0])
