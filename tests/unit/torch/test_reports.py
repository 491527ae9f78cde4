"""What a trainer may report to an `AriaSampler`, and how; what is refused; and reports that fail half-way."""

from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import RegionMixture, _feedback
from aria_sampling.torch import sampler as sampler_module
from tests.helpers import small_pool
from tests.unit.torch.common import BATCH, ITEMS, LABELS, LOSSES, build, loss, make, result, train


@pytest.fixture
def as_on_a_device(monkeypatch):
    """Tensors and arrays take the way of those on an accelerator: their values are found when they are read."""
    monkeypatch.setattr(_feedback, "on_device", lambda *values: any(value is not None for value in values))
    monkeypatch.setattr(sampler_module, "in_order", lambda *values: None)


# ------------------------------------------------------------------------------ what may be reported


def second_batch(**settings):
    """A sampler whose second batch is open, its rows, and the allocator's draw of it."""
    sampler, loader = build(**settings)
    train(sampler, loader, 1)
    index = next(iter(loader))
    return sampler, index, sampler.allocator.open_rounds[0]


def reported(report, **settings):
    sampler, index, _ = second_batch(**settings)
    report(sampler, index)
    sampler.synchronize()
    assert sampler.allocator.round == 2
    return result(sampler)


def whole(sampler, index):
    sampler.observe(index, loss(index))


def parts(sampler, index):
    for rows in (index[:5], index[5:5], index[5:20]):
        sampler.observe(rows, loss(rows), step=False)
    sampler.observe(index[20:], loss(index[20:]))


def parts_in_another_order(sampler, index):
    for rows in (index[13:], index[:4], index[4:13]):
        sampler.observe(rows, loss(rows), step=False)
    sampler.step()


def shuffled(sampler, index):
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(1))]
    sampler.observe(index, loss(index))


def arrays(sampler, index):
    sampler.observe(index.numpy(), loss(index).numpy())


def lists(sampler, index):
    sampler.observe(index.tolist(), loss(index).tolist())


def small_integers(sampler, index):
    sampler.observe(index.to(torch.uint8), loss(index))


def overwritten(sampler, index):
    index, losses = index.clone(), loss(index).clone()
    sampler.observe(index[:9], losses[:9], step=False)
    index[:9], losses[:9] = 0, -1
    sampler.observe(index[9:], losses[9:])


WAYS = [parts, parts_in_another_order, shuffled, arrays, lists, small_integers, overwritten]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_however_a_batch_is_reported_it_is_the_same_bits(way):
    assert reported(way) == reported(whole)


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("way", [*WAYS, whole], ids=lambda way: way.__name__)
def test_from_a_device_it_is_the_same_bits(way, lag, as_on_a_device, monkeypatch):
    found = reported(way, lag=lag)
    monkeypatch.undo()
    assert found == reported(whole, lag=lag)


def test_rows_overwritten_while_they_wait_are_credited_as_they_were():
    """With a lag the feedback of a run on one process is taken in at once; nothing of it is shared with the caller."""
    sampler, loader = build(lag=3)
    losses = []
    for index in islice(loader, 4):
        losses.append(loss(index).clone())
        sampler.observe(index, losses[-1])
        losses[-1].fill_(1e9)
        index.zero_()
    other, loader = build(lag=3)
    train(other, loader, 4)
    assert result(sampler) == result(other)


@pytest.mark.parametrize("keep", [slice(0, 0), slice(3, 20), slice(None, None, 3)])
def test_filtered_rows_are_credited_to_their_own_regions(keep):
    """A batch of which some rows were left out: what the allocator learns from those rows alone."""
    sampler, index, draw = second_batch()
    rows = index[keep]
    sampler.observe(rows.flip(0), loss(rows.flip(0)))
    allocator = make()
    first = allocator.draw(BATCH)
    allocator.observe(first.regions, LOSSES[first.items])
    allocator.step()
    assert allocator.draw(BATCH).items.tolist() == draw.items.tolist()
    # equal items have equal losses and one region, so which of two equal rows is missing changes the order at most:
    # the sampler takes the earlier row for it
    left = list(range(BATCH))
    places = sorted(left.pop(next(i for i, p in enumerate(left) if draw.items[p] == item)) for item in rows.tolist())
    allocator.observe(draw.regions[places], LOSSES[draw.items[places]])
    allocator.step()
    assert sampler.allocator.digest() == allocator.digest()


def test_a_batch_without_a_loss():
    """step() in the place of observe(): the round closes, nothing is learnt, and the stream goes on."""
    sampler, loader = build()
    allocator = make()
    for number, index in enumerate(islice(loader, 5)):
        draw = allocator.draw(BATCH)
        assert index.tolist() == draw.items.tolist()
        if number % 2:
            sampler.step()
        else:
            sampler.observe(index, loss(index))
            allocator.observe(draw.regions, LOSSES[draw.items])
        allocator.step()
    assert sampler.allocator.digest() == allocator.digest()
    assert sampler.allocator.round == 5


def test_non_finite_losses_are_dropped_and_the_rest_counts():
    sampler, index, _ = second_batch()
    losses = loss(index)
    losses[::2] = torch.tensor([np.nan, np.inf, -np.inf]).repeat(4)
    before = sampler.allocator.estimate().count.sum()
    sampler.observe(index, losses)
    assert sampler.allocator.metrics()["dropped_losses"] == BATCH // 2
    assert sampler.allocator.estimate().count.sum() != before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_loss_of_any_float_dtype_is_the_number_that_it_is(dtype):
    """Credited as exactly the value which the dtype holds, not rounded once more."""
    sampler, index, _ = second_batch()
    losses = loss(index).clamp(max=6e4).to(dtype)
    sampler.observe(index, losses.requires_grad_())
    other, _, _ = second_batch()
    other.observe(index, losses.detach().double().numpy())
    assert result(sampler) == result(other)


# ------------------------------------------------------------------------------ what is refused


def strange(index):
    return next(item for item in range(ITEMS) if item not in index.tolist())


REFUSED = {
    "a foreign row": (lambda i, x: (torch.cat([i[:3], torch.tensor([strange(i)])]), x[:4]), "not in the oldest open"),
    "a row twice": (lambda i, x: (torch.cat([i, i[:1]]), torch.cat([x, x[:1]])), "more often than they were drawn"),
    "all twice": (lambda i, x: (torch.cat([i, i]), torch.cat([x, x])), "more often than they were drawn"),
    "out of range": (lambda i, x: (torch.full_like(i, ITEMS), x), "indices: expected values in"),
    "negative": (lambda i, x: (-1 - i, x), "indices: expected values in"),
    "too few losses": (lambda i, x: (i, x[1:]), "losses: expected 24"),
    "an averaged loss": (lambda i, x: (i, x.mean()), "reduction='none'"),
    "a matrix": (lambda i, x: (i, x[:, None]), r"losses: expected 24 numbers, one a row, got shape \(24, 1\)"),
    "a matrix of rows": (lambda i, x: (i[:, None], x), "indices: expected a one-dimensional"),
    "float indices": (lambda i, x: (i.double(), x), "indices: expected integers"),
    "several losses a row": (lambda i, x: (i, x[:, None].repeat(1, 3)), r"losses\.mean\(dim=1\)"),
    "several a row, flat": (
        lambda i, x: (i, x.repeat(3)),
        r"losses: expected 24.*losses\.reshape\(24, -1\)\.mean\(dim=1\)",
    ),
    "bool losses": (lambda i, x: (i, x > 0), "losses: expected real"),
    "complex losses": (lambda i, x: (i, x + 0j), "losses: expected real"),
    "text": (lambda i, x: (i, "loss"), "losses"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_nothing_changed(what):
    change, words = REFUSED[what]
    sampler, index, draw = second_batch()
    sampler.observe(index[:6], loss(index[:6]), step=False)  # a part that was fine stays
    before = sampler.allocator.digest()
    with pytest.raises(ValueError, match=words):
        sampler.observe(*change(index, loss(index)))
    assert sampler.allocator.digest() == before
    assert sampler.allocator.open_rounds[0] is draw
    sampler.observe(index[6:], loss(index[6:]))
    assert result(sampler) == reported(whole)


def test_rows_of_two_parts_may_not_be_the_same():
    sampler, index, _ = second_batch()
    sampler.observe(index[:6], loss(index[:6]), step=False)
    twice = index[5:]
    with pytest.raises(ValueError, match="more often than they were drawn"):
        sampler.observe(twice, loss(twice))
    sampler.observe(index[6:], loss(index[6:]))
    assert result(sampler) == reported(whole)


def test_a_row_drawn_twice_may_be_reported_twice_and_not_three_times():
    """Regions smaller than their share of a batch come round more than once in it."""
    _, index, draw = second_batch()
    item, times = next((i, n) for i, n in zip(*np.unique(draw.items, return_counts=True), strict=True) if n > 1)
    for more in (0, 1):
        sampler, index, _ = second_batch()
        rows = torch.full((times + more,), int(item))
        if more:
            with pytest.raises(ValueError, match="more often"):
                sampler.observe(rows, loss(rows))
        else:
            sampler.observe(rows, loss(rows))
            assert sampler.allocator.round == 2
    assert len(index) == BATCH


def test_without_an_open_batch():
    sampler, loader = build()
    for call in (lambda: sampler.observe([0], [1.0]), sampler.step, lambda: sampler.weights([0])):
        with pytest.raises(RuntimeError, match="without an open round"):
            call()
    train(sampler, loader, 1)
    with pytest.raises(RuntimeError, match=r"observe\(\) without an open round"):
        sampler.observe([0], [1.0])


def test_a_round_closed_behind_the_samplers_back():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    sampler.allocator.step()
    with pytest.raises(RuntimeError, match="without an open round"):
        sampler.observe(index, loss(index))


def test_rounds_of_another_face_are_left_to_it():
    sampler, _ = build(lag=1)
    mixture = RegionMixture({name: range(9) for name in "abcdef"}, sampler.allocator)
    switch = aria.RandomConditioning(sampler.allocator, schedule=aria.ConstantSwitch(1.0))
    s = switch.draw([10, 500, 990])
    for call in (
        lambda: sampler.observe(s.items, [1.0] * 3),
        sampler.step,
        lambda: mixture.observe(s.regions, [1.0] * 3),
        mixture.step,
    ):
        with pytest.raises(RuntimeError, match=r"\(\) of round 0, which something else drew from this allocator"):
            call()
    switch.observe([0.1, 0.2, 0.3])
    assert sampler.allocator.round == 1


# ------------------------------------------------------------------------------ weights


@pytest.mark.parametrize("lag", [0, 3])
def test_weights_are_those_of_the_draw(lag):
    """Of the oldest open draw, whatever was drawn since: for any rows of it, in any order, equal items included."""
    sampler, loader = build(lag=lag)
    train(sampler, loader, 4)
    iterator = iter(loader)
    index = next(iterator)
    for _ in range(lag and 1):
        next(iterator)
    draw = sampler.allocator.open_rounds[0]
    assert len(set(index.tolist())) < len(index)
    weights = sampler.weights(index)
    assert weights.dtype == torch.float32
    assert weights.tolist() == draw.weights.astype(np.float32).tolist()
    assert len(set(weights.tolist())) > 2
    order = torch.randperm(len(index), generator=torch.Generator().manual_seed(2))[:17]
    by_item = dict(zip(draw.items.tolist(), draw.weights.astype(np.float32).tolist(), strict=True))
    assert sampler.weights(index[order]).tolist() == [by_item[item] for item in index[order].tolist()]
    assert sampler.weights(index[order].numpy()).tolist() == sampler.weights(index[order]).tolist()
    before = sampler.allocator.digest()
    with pytest.raises(ValueError, match="not in the oldest open"):
        sampler.weights([strange(index)])
    assert sampler.allocator.digest() == before


def test_weights_that_are_asked_for_too_late_say_so():
    """The draw of a batch is closed with it, whether or not the next one is open."""
    sampler, loader = build(lag=1)
    rows = iter(loader)
    first, _ = next(rows), next(rows)
    sampler.observe(first, loss(first))
    with pytest.raises(ValueError, match=r"not in the oldest open batch .*ask for those of a batch before observe\(\)"):
        sampler.weights(first)
    sampler.step()
    with pytest.raises(RuntimeError, match=r"weights\(\) without an open round.* before observe\(\)"):
        sampler.weights(first)
    mixture = RegionMixture({"a": range(9), "b": range(9)}, batch_size=1)
    region, _ = next(iter(mixture))
    with pytest.raises(ValueError, match=r"batch of round 0, got .* before observe\(\)"):
        mixture.weights([1 - region])
    mixture.observe([region], [1.0])
    with pytest.raises(RuntimeError, match=r"weights\(\) without an open round.* before observe\(\)"):
        mixture.weights([region])


# ------------------------------------------------------------------------------ rows that are not credited


def credited(allocator, draw, rows):
    """Close the round of a draw with the losses of some of its rows."""
    allocator.observe(draw.regions[rows], LOSSES[draw.items[rows]])
    allocator.step()
    return allocator.digest()


@pytest.mark.parametrize("kind", [torch.as_tensor, np.asarray, list])
@pytest.mark.parametrize("every", [1, 2, 100])
def test_only_rows_with_credit_are_credited(every, kind):
    """The others close the round with them, and are no dropped losses."""
    sampler, index, draw = second_batch()
    keep = np.arange(BATCH) % every == 0
    sampler.observe(index, loss(index), credit=kind(keep))
    assert sampler.allocator.metrics()["dropped_losses"] == 0
    twin, _, _ = second_batch()
    assert sampler.allocator.digest() == credited(twin.allocator, draw, keep.nonzero()[0])


def test_credit_in_parts_and_in_another_order():
    whole_, index, _ = second_batch()
    keep = torch.arange(BATCH) % 3 > 0
    whole_.observe(index, loss(index), credit=keep)
    for parts_ in (((slice(7, None),), (slice(0, 7),)), ((torch.randperm(BATCH),),)):
        sampler, index, _ = second_batch()
        for (rows,) in parts_:
            sampler.observe(index[rows], loss(index[rows]), credit=keep[rows], step=False)
        sampler.step()
        assert result(sampler) == result(whole_)


def test_credit_from_a_device(as_on_a_device, monkeypatch):
    keep = torch.arange(BATCH) % 3 > 0
    found = reported(lambda sampler, index: sampler.observe(index, loss(index), credit=keep), lag=1)
    monkeypatch.undo()
    assert found == reported(lambda sampler, index: sampler.observe(index, loss(index), credit=keep), lag=1)


@pytest.mark.parametrize("credit", [[True] * 3, [1] * BATCH, [[True]] * BATCH, True, "yes"])
def test_credit_that_is_no_mask_is_refused(credit):
    sampler, index, _ = second_batch()
    with pytest.raises(ValueError, match=r"credit: expected bools, one a row"):
        sampler.observe(index, loss(index), credit=credit)
    whole(sampler, index)
    assert result(sampler) == reported(whole)


# ------------------------------------------------------------------------------ regions that travel in the sample


def test_regions_of_a_shuffled_dataset_are_found():
    sampler, index, _ = second_batch()
    right = torch.as_tensor(LABELS[index])
    wrong = right.clone()
    wrong[5] = (wrong[5] + 1) % 6
    with pytest.raises(
        ValueError, match=rf"regions: 1 of {BATCH} rows .* item {index[5]}: region {wrong[5]} in its sam"
    ):
        sampler.observe(index, loss(index), regions=wrong)
    with pytest.raises(ValueError, match=f"regions: expected {BATCH} integers"):
        sampler.observe(index, loss(index), regions=right[1:])
    sampler.observe(index, loss(index), regions=right)
    assert result(sampler) == reported(whole)


def test_regions_of_a_sorted_dataset_are_found_by_their_names():
    """As in the report: the partition is made, then the dataset is sorted. Without `regions` nobody can see it."""
    sources = np.array(["web", "books", "code"])[np.arange(90) % 3]
    for data, fits in ((sources, True), (np.sort(sources), False)):
        for names in (True, False):
            sampler = aria.Allocator(aria.Partition.from_labels(sources)).sampler(batch_size=9, num_samples=90)
            index = next(iter(DataLoader(range(90), batch_size=9, sampler=sampler)))
            regions = [str(data[row]) for row in index] if names else None
            if fits or not names:
                sampler.observe(index, torch.ones(9), regions=regions)
                continue
            with pytest.raises(ValueError, match=r"regions: \d of 9 rows .* region '\w+' in its sample, '\w+' there"):
                sampler.observe(index, torch.ones(9), regions=regions)
            with pytest.raises(ValueError, match="regions: expected 9 names, one a row, got 1"):
                sampler.observe(index, torch.ones(9), regions=["web"])
            sampler.observe(index, torch.ones(9))


# ------------------------------------------------------------------------------ what only the device knows


def test_a_report_that_is_wrong_can_be_made_again(as_on_a_device, monkeypatch):
    """Found when it is read, since its rows are on a device: the round stays open."""
    sampler, loader = build()
    index = next(iter(loader))
    before = sampler.state_dict()
    with pytest.raises(ValueError, match="not in the oldest open batch"):
        sampler.observe(torch.full((BATCH,), strange(index)), torch.ones(BATCH))
    assert sampler.state_dict() == before
    sampler.observe(index, loss(index))
    assert sampler.allocator.round == 1


def test_rows_on_the_host_are_checked_at_once_wherever_the_losses_are():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    foreign = np.setdiff1d(np.arange(90), index)[:3]
    with pytest.raises(ValueError, match="not in the oldest open batch"):
        sampler.observe(foreign, torch.ones(3, device="meta"))
    assert sampler.allocator.open_rounds


def test_what_is_no_vector_beside_a_tensor_on_a_device_is_refused_by_name():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    mixture = RegionMixture({"a": range(9)}, batch_size=2)
    list(islice(mixture, 2))
    before = sampler.state_dict()
    far = torch.ones(BATCH, device="meta")
    for call, name in (
        (lambda: sampler.observe(None, far), "indices"),
        (lambda: sampler.observe(["a"] * BATCH, far), "indices"),
        (lambda: sampler.observe(index, far[:, None]), "losses"),
        (lambda: sampler.observe(index, far[:-1]), "losses"),
        (lambda: sampler.observe(far.long(), None), "losses"),
        (lambda: sampler.observe(index, far, credit=far), "credit"),
        (lambda: mixture.observe(None, far), "regions"),
    ):
        with pytest.raises(ValueError, match=f"^{name}: expected "):
            call()
    assert sampler.state_dict() == before


# ------------------------------------------------------------------------ a round that could not be closed


@dataclass(frozen=True)
class Interrupted(aria.Policy):
    """Follows the means, but for Ctrl-C while it works, as often as is set."""

    local: ClassVar[bool] = True
    times: ClassVar[int] = 0

    def log_score(self, estimate, shared):
        if Interrupted.times:
            Interrupted.times -= 1
            raise KeyboardInterrupt
        return np.log(estimate.mean + 1e-9)


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


def switching(lag):
    allocator = aria.Allocator(small_pool(), policy=Interrupted(), lag=lag)
    switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.7))

    def batch():
        steps = np.arange(8) * 120
        switch.draw(steps)
        return lambda part, **how: switch.observe(1.0 + steps[part], **how)

    return switch, batch


FACES = {
    "sampler": sampling,
    "mixture": mixing,
    "conditioning": switching,
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


def test_rounds_that_wait_behind_one_that_fails_can_be_reported_again(as_on_a_device):
    """Losses on a device are read later: by then others wait behind them, whose turn does not come before."""
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
