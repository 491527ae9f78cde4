"""What a sceptical reader found: each of these once went wrong without a word."""

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning, RegionMixture
from aria_sampling.torch import sampler as module
from tests.helpers import small_pool
from tests.unit.torch.common import BATCH, build, loss, make, train


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


def test_what_is_no_vector_beside_a_tensor_on_a_device_is_refused_by_name():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    mixture = RegionMixture({"a": range(9)}, batch_size=2)
    next(iter(mixture))
    before = sampler.state_dict()
    far = torch.ones(BATCH, device="meta")
    for call, name in (
        (lambda: sampler.observe(None, far), "indices"),
        (lambda: sampler.observe(["a"] * BATCH, far), "indices"),
        (lambda: sampler.observe(index, far[:, None]), "losses"),
        (lambda: sampler.observe(far.long(), None), "losses"),
        (lambda: mixture.observe(None, far), "regions"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected a one-dimensional"):
            call()
    assert sampler.state_dict() == before


def test_weights_that_are_asked_for_too_late_say_so():
    """The draw of a batch is closed with it, whether or not the next one is open."""
    sampler, loader = build(lag=1)
    rows = iter(loader)
    first, _ = next(rows), next(rows)
    sampler.observe(first, loss(first))
    with pytest.raises(ValueError, match=r"not in the oldest open batch .*ask for those of a batch before observe\(\)"):
        sampler.weights(first)
    sampler.step()
    with pytest.raises(RuntimeError, match=r"weights\(\) without an open batch.* before observe\(\)"):
        sampler.weights(first)
    mixture = RegionMixture({"a": range(9), "b": range(9)}, batch_size=1)
    region, _ = next(iter(mixture))
    with pytest.raises(ValueError, match=r"batch of round 0, got .* before observe\(\)"):
        mixture.weights([1 - region])
    mixture.observe([region], [1.0])
    with pytest.raises(RuntimeError, match=r"weights\(\) without an open batch.* before observe\(\)"):
        mixture.weights([region])


# ------------------------------------------------------------------------ a round that could not be closed


@dataclass(frozen=True)
class Interrupted(aria.Proportional):
    """The default policy, but for Ctrl-C while it works, as often as is set."""

    times: ClassVar[int] = 0

    def update(self, state, estimate):
        state = super().update(state, estimate)
        if Interrupted.times:
            Interrupted.times -= 1
            state["log_phi"] += 1
            raise KeyboardInterrupt
        return state


def sampling(lag):
    sampler, loader = build(lag=lag, policy=Interrupted())
    rows = iter(loader)

    def batch():
        index = next(rows)
        return lambda part, **how: sampler.observe(index[part], loss(index[part]), **how)

    return sampler, batch


def mixing(lag):
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), policy=Interrupted(), lag=lag)
    mixture = RegionMixture({name: range(30) for name in "abc"}, allocator, batch_size=8)
    rows = iter(mixture)

    def batch():
        regions = np.array([next(rows)[0] for _ in range(8)])
        return lambda part, **how: mixture.observe(regions[part], 1.0 + regions[part], **how)

    return mixture, batch


def switching(kind):
    def make(lag):
        switch = kind(aria.Allocator(small_pool(), policy=Interrupted(), lag=lag), schedule=aria.ConstantSwitch(0.7))

        def batch():
            steps = np.arange(8) * 120
            switch.draw(steps)
            return lambda part, **how: switch.observe(1.0 + steps[part], **how)

        return switch, batch

    return make


FACES = {
    "sampler": sampling,
    "mixture": mixing,
    "NumPy conditioning": switching(aria.RandomConditioning),
    "conditioning": switching(RandomConditioning),
}
WHOLE, FIRST, REST = slice(None), slice(0, 5), slice(5, None)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("kind", FACES)
def test_a_batch_whose_round_could_not_be_closed_can_be_reported_again(kind, lag):
    """Once, as if nothing had happened: what was reported with the failed call does not count."""
    parts = kind in ("sampler", "mixture")
    (face, batch), (twin, batch_of_twin) = FACES[kind](lag), FACES[kind](lag)
    for round_ in range(6):
        report, same = batch(), batch_of_twin()
        if parts and round_ % 2:
            report(FIRST, step=False)
            same(FIRST, step=False)
        last = REST if parts and round_ % 2 else WHOLE
        before = face.state_dict()
        Interrupted.times = 2
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                report(last)
            assert face.state_dict() == before
        report(last)
        same(last)
        assert face.state_dict() == twin.state_dict()
        assert face.allocator.round == round_ + 1


@pytest.mark.parametrize("kind", FACES)
def test_a_step_that_failed_can_be_called_again(kind):
    (face, batch), (twin, batch_of_twin) = FACES[kind](0), FACES[kind](0)
    for _ in range(3):
        report, same = batch(), batch_of_twin()
        report(WHOLE, step=False)
        Interrupted.times = 1
        with pytest.raises(KeyboardInterrupt):
            face.step()
        face.step()
        same(WHOLE)
        assert face.state_dict() == twin.state_dict()


def test_rounds_that_wait_behind_one_that_fails_can_be_reported_again(monkeypatch):
    """Losses on a device are read later: by then others wait behind them, whose turn does not come before."""
    monkeypatch.setattr(module, "on_device", lambda *values: True)
    sampler, loader = build(lag=3, policy=Interrupted())
    batches = list(islice(loader, 3))
    for index in batches:
        sampler.observe(index, loss(index))
    Interrupted.times = 1
    with pytest.raises(KeyboardInterrupt):
        sampler.synchronize()
    assert (sampler.allocator.round, sampler.reported) == (0, 0)
    for index in batches:
        sampler.observe(index, loss(index))
    twin, loader = build(lag=3, policy=Interrupted())
    train(twin, loader, 3)
    assert sampler.state_dict() == twin.state_dict()
