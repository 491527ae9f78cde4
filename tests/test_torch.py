"""`AriaSampler` behind real loaders."""

from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria


def loaded(num_samples, batch_size, **options):
    pool = aria.Partition.from_labels([index % 5 for index in range(num_samples)])
    sampler = aria.Allocator(pool, seed=0).sampler(batch_size=batch_size, num_samples=num_samples)
    return sampler, DataLoader(range(num_samples), batch_size=batch_size, sampler=sampler, **options)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num_samples", [100, 105])
def test_every_epoch_has_all_its_batches(num_samples, drop_last):
    sampler, loader = loaded(num_samples, 10, drop_last=drop_last)
    for _ in range(4):
        batches = 0
        for index in loader:
            sampler.observe(index, torch.ones(len(index), dtype=torch.bfloat16, requires_grad=True))
            batches += 1
        assert batches == len(loader)


def test_an_abandoned_epoch_goes_on_after_the_last_observed_batch():
    sampler, loader = loaded(105, 10)
    for step, index in enumerate(loader):
        if step == 4:
            break
        sampler.observe(index, torch.ones(len(index)))
    assert list(islice(sampler, 10)) == index.tolist()


def test_rows_of_another_batch_are_refused():
    sampler, loader = loaded(100, 10)
    index = next(iter(loader))
    strange = [i for i in range(100) if i not in index.tolist()][:1]
    with pytest.raises(ValueError, match="indices"):
        sampler.observe(strange, [1.0])
    assert sampler.allocator.round == 0
