"""What a sceptical reader found: each of these once went wrong without a word."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import aria_sampling as aria
from aria_sampling.torch import sampler as module
from tests.torch.common import BATCH, build, loss, make, train


def test_setting_the_lag_it_has_changes_nothing():
    allocator = make(lag=2)
    allocator.draw(4)
    allocator.step()
    before = allocator.digest()
    allocator.lag = 2
    assert (allocator.digest(), allocator.round) == (before, 1)
    with pytest.raises(RuntimeError, match="begun with lag=2"):
        allocator.lag = 3


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_a_stateful_loader_resumes_where_losses_leave_a_device(stop, monkeypatch):
    """Losses that are on their way when the loader's snapshot is asked for belong to it."""
    monkeypatch.setattr(module, "on_device", lambda *values: True)
    alone = build(lag=4)
    whole = [batch for _ in range(3) for batch in train(*alone)]
    sampler, loader = build(lag=4, workers=1, loader_class=StatefulDataLoader)
    seen = []
    while len(seen) < stop:
        for index in loader:
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
            if len(seen) == stop:
                break
    state = loader.state_dict()
    sampler, loader = build(lag=4, workers=1, loader_class=StatefulDataLoader)
    loader.load_state_dict(state)
    while len(seen) < len(whole):
        seen += train(sampler, loader)
    assert seen[: len(whole)] == whole


def test_a_report_that_is_wrong_can_be_made_again(monkeypatch):
    """Found when it is read, since its rows are on a device: the round stays open."""
    sampler, loader = build()
    index = next(iter(loader))
    before = sampler.state_dict()
    with monkeypatch.context() as patch:
        patch.setattr(module, "on_device", lambda *values: True)
        with pytest.raises(ValueError, match="not in the oldest open batch"):
            sampler.observe(torch.full((BATCH,), 89), torch.ones(BATCH))
    assert sampler.state_dict() == before
    sampler.observe(index, loss(index))
    assert sampler.allocator.round == 1


def test_an_allocator_put_back_under_its_sampler_has_whole_epochs():
    sampler, loader = build()
    start = sampler.allocator.state_dict()
    epoch = len(train(sampler, loader))
    train(sampler, loader, 2)
    sampler.allocator.load_state_dict(start)
    assert len(train(sampler, loader)) == epoch


def test_rows_on_the_host_are_checked_at_once_wherever_the_losses_are():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    foreign = np.setdiff1d(np.arange(90), index)[:3]
    with pytest.raises(ValueError, match="not in the oldest open batch"):
        sampler.observe(foreign, torch.ones(3, device="meta"))
    assert isinstance(sampler.allocator, aria.Allocator)


def test_a_loader_with_another_batch_size_is_named_first():
    sampler, _ = build()
    for other in (2 * BATCH, BATCH + 1):
        with pytest.raises(aria.FeedbackLagError, match=f"the loader has batch_size={other}, .* gives it {BATCH} rows"):
            next(iter(DataLoader(range(90), batch_size=other, sampler=sampler)))
