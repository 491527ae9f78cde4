"""`AriaSampler` behind loaders that draw ahead (law 3), and what a trainer may report to it, and how."""

import gc
import inspect
import re
import warnings
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import aria_sampling as aria
from aria_sampling.torch import AriaSampler, WithIndex, dataloader, lag_for
from tests.unit.torch.common import BATCH, ITEMS, LOSSES, NUM_SAMPLES, build, expected, loss, make, prepared, result, train

EPOCHS, BATCHES = 3, 6


def stateful():
    return pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader


def run(**settings):
    """Three epochs: the stream, and what was learnt."""
    sampler, loader = build(**settings)
    seen = [batch for _ in range(EPOCHS) for batch in train(sampler, loader)]
    return seen, result(sampler)


def runs_alike(lag, workers, prefetch, persistent, loader_class=DataLoader):
    options = {"persistent_workers": persistent}
    found = run(lag=lag, workers=workers, prefetch=prefetch, options=options, loader_class=loader_class)
    assert found == run(lag=lag)


# ------------------------------------------------------------------------------ lag determinism


@pytest.mark.parametrize("lag", [0, 1, 8])
def test_the_stream_is_the_allocators(lag):
    """Batch by batch what the allocator alone draws from the same feedback."""
    seen, (digest, *_) = run(lag=lag)
    assert (seen, digest) == expected(EPOCHS * BATCHES, lag=lag)


def test_feedback_shapes_the_stream():
    """Other losses, another stream, from the first round whose draw may know of them: nothing vacuous here."""
    for lag in (0, 4):
        one, two = expected(12, lag=lag)[0], expected(12, lag=lag, losses=LOSSES[::-1])[0]
        assert one[: lag + 1] == two[: lag + 1]
        assert one[lag + 1] != two[lag + 1]


@pytest.mark.parametrize(("workers", "prefetch", "persistent"), [(1, 2, False), (2, 4, True)])
def test_workers_do_not_change_the_stream(workers, prefetch, persistent):
    runs_alike(8, workers, prefetch, persistent)


@pytest.mark.slow
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("prefetch", [2, 4])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_no_number_of_workers_changes_the_stream(kind, workers, prefetch, persistent):
    runs_alike(16, workers, prefetch, persistent, DataLoader if kind == "plain" else stateful())


@pytest.mark.parametrize("workers", [0, 1])
def test_accelerate_does_not_change_the_stream(workers):
    pytest.importorskip("accelerate")
    sampler = make(lag=4).sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)
    loader = prepared(sampler, workers)
    seen = [batch for _ in range(EPOCHS) for batch in train(sampler, loader)]
    assert (seen, result(sampler)) == run(lag=4)


# ------------------------------------------------------------------------------ the lag that a loader needs


def loader_of(kind, sampler, workers, prefetch):
    if kind == "accelerate":
        pytest.importorskip("accelerate")
        return prepared(sampler, workers, prefetch)
    cls = DataLoader if kind == "plain" else stateful()
    options = {"num_workers": workers, "prefetch_factor": prefetch if workers else None}
    return cls(range(ITEMS), batch_size=BATCH, sampler=sampler, **options)


def train_with(kind, lag, workers, prefetch):
    """Long epochs, so that the loader gets as far ahead as it can."""
    sampler = make(lag=lag).sampler(batch_size=BATCH, num_samples=20 * BATCH)
    loader = loader_of(kind, sampler, workers, prefetch)
    try:
        return len(train(sampler, loader, 8)), lag_for(loader)
    finally:
        del sampler, loader
        gc.collect()  # the workers of an iterator left behind: ended here, not inside the next test's workers


def lag_error(kind, lag, workers, prefetch):
    """The message with which a loader fails that draws too far ahead."""
    try:
        train_with(kind, lag, workers, prefetch)
    except aria.FeedbackLagError as error:
        message = str(error)
    else:
        pytest.fail(f"lag={lag} was enough")
    gc.collect()
    return message


@pytest.mark.parametrize(("workers", "prefetch"), [(0, 2), (1, 2), (1, 3), (2, 2)])
@pytest.mark.parametrize("kind", ["plain", "stateful", "accelerate"])
def test_lag_for_is_the_smallest_that_works(kind, workers, prefetch):
    needed = workers * prefetch + (kind == "accelerate")
    assert train_with(kind, needed, workers, prefetch) == (8, needed)
    if needed:
        assert re.search(rf"lag={needed}\b", lag_error(kind, needed - 1, workers, prefetch))


@pytest.mark.parametrize(("kind", "needed"), [("plain", 6), ("stateful", 6), ("accelerate", 7)])
def test_the_error_says_what_the_loader_needs_not_how_far_it_got(kind, needed):
    message = lag_error(kind, 1, 2, 3)
    assert f"make the Allocator with lag={needed}," in message
    assert "lag=1 is too small" in message
    assert "num_workers=2, prefetch_factor=3" in message


def test_a_loop_that_forgets_to_observe_is_told_so():
    """No loader draws ahead here, so the message is not about one."""
    sampler, loader = build()
    with pytest.raises(aria.FeedbackLagError, match=r"must be followed by observe\(\)"):
        for _ in loader:
            pass
    assert sampler.allocator.round == 0


def gone_at_once(fail):
    """Whether what `fail` returns a weak reference to is gone with it, and not some time later, with the circles."""
    gc.disable()
    try:
        return fail()() is None
    finally:
        gc.enable()


def test_the_error_keeps_no_loader_alive():
    """Once it is dropped the iterator goes, with its workers."""

    def fail():
        iterator = iter(build()[1])
        next(iterator)
        with pytest.raises(aria.FeedbackLagError):
            next(iterator)
        return weakref.ref(iterator)

    assert gone_at_once(fail)


def test_lag_for_overlap_and_refusals():
    loader = DataLoader(range(4), num_workers=2, prefetch_factor=3)
    assert (lag_for(loader), lag_for(loader, overlap=True)) == (6, 7)
    assert (lag_for(DataLoader(range(4))), lag_for(DataLoader(range(4)), overlap=True)) == (0, 1)
    for wrong in ([1, 2], None, range(3)):
        with pytest.raises(ValueError, match="loader: expected a DataLoader"):
            lag_for(wrong)


class Counted(Dataset):
    """So many samples that they are there; `sized`: it says how many."""

    def __init__(self, n):
        self.n = n

    def __getitem__(self, index):
        if index >= self.n:
            raise IndexError(f"no sample {index}")
        return index


class Sized(Counted):
    def __len__(self):
        return self.n


USES = {
    "lag_for": lag_for,
    "first batch": lambda loader: next(iter(loader)),
    "lag_for of a prepared one": lambda loader: lag_for(accelerator().prepare(loader)),
    "first batch of a prepared one": lambda loader: next(iter(accelerator().prepare(loader))),
}


def accelerator(**options):
    accelerate = pytest.importorskip("accelerate")
    options = accelerate.utils.DataLoaderConfiguration(**options)
    return accelerate.Accelerator(cpu=True, dataloader_config=options)


@pytest.mark.parametrize("kind", ["plain", "stateful"])
@pytest.mark.parametrize("use", USES)
def test_a_partition_larger_than_the_dataset_is_refused_before_a_sample_is_missed(use, kind):
    cls = DataLoader if kind == "plain" else stateful()
    sampler = make().sampler(batch_size=BATCH, num_samples=ITEMS)
    before = sampler.state_dict()
    with pytest.raises(ValueError, match=rf"dataset: it has {ITEMS - 1} samples, .* partition {ITEMS} items"):
        USES[use](cls(Sized(ITEMS - 1), batch_size=BATCH, sampler=sampler))
    assert sampler.state_dict() == before
    assert sampler.allocator.open_rounds == ()
    for dataset in (Sized(ITEMS), Sized(ITEMS + 1), Counted(ITEMS)):
        USES[use](cls(dataset, batch_size=BATCH, sampler=make(lag=1).sampler(batch_size=BATCH, num_samples=ITEMS)))


@pytest.mark.parametrize("kind", ["plain", "stateful"])
@pytest.mark.parametrize("use", USES)
def test_a_loader_that_drops_a_batch_of_which_the_sampler_does_not_know_is_refused(use, kind):
    """Not one that has nothing to drop, nor one whose sampler drops it itself."""
    cls = DataLoader if kind == "plain" else stateful()
    uneven = 2 * BATCH + 5
    sampler = make().sampler(batch_size=BATCH, num_samples=uneven)
    with pytest.raises(
        ValueError, match=r"the last 5 rows of an epoch .* allocator\.sampler\(\.\.\., drop_last=True\)"
    ):
        USES[use](cls(Sized(ITEMS), batch_size=BATCH, sampler=sampler, drop_last=True))
    assert sampler.allocator.open_rounds == ()
    for n, told, drop_last in ((uneven, True, True), (uneven, False, False), (2 * BATCH, False, True)):
        sampler = make(lag=1).sampler(batch_size=BATCH, num_samples=n, drop_last=told)
        USES[use](cls(Sized(ITEMS), batch_size=BATCH, sampler=sampler, drop_last=drop_last))


def test_on_ranks_it_is_the_rows_of_this_one_that_a_loader_drops():
    for rank in (0, 1):
        sampler = make().sampler(batch_size=BATCH, num_samples=BATCH + 6, num_replicas=2, rank=rank)
        loader = DataLoader(range(ITEMS), batch_size=BATCH // 2, sampler=sampler, drop_last=True)
        with pytest.raises(ValueError, match="the last 3 rows of an epoch"):
            lag_for(loader)


def test_other_samplers_and_batch_samplers_are_left_alone():
    for loader in (
        DataLoader(range(5), shuffle=True, batch_size=2, drop_last=True),
        DataLoader(range(5), batch_size=None),
        DataLoader(range(5), batch_sampler=[[0, 1], [2]]),
    ):
        assert lag_for(loader) == 0
    with pytest.raises(ValueError, match="dataset: it has 3 samples"):
        lag_for(DataLoader(range(3), batch_size=None, sampler=make().sampler(batch_size=1, num_samples=5)))


def test_a_refused_loader_is_not_kept_alive():
    def fail():
        iterator = iter(DataLoader(range(3), batch_size=BATCH, sampler=build()[0]))
        with pytest.raises(ValueError, match="dataset: it has 3 samples"):
            next(iterator)
        return weakref.ref(iterator)

    assert gone_at_once(fail)


def test_what_the_loop_holds_is_not_kept_alive():
    """Whoever asks for a batch: its frame is not looked into."""
    sampler, loader = build()
    rows = iter(loader)

    class Held:
        pass

    held = Held()
    gone = weakref.ref(held)
    index = next(rows)
    del held
    assert gone() is None
    sampler.observe(index, loss(index))


def test_a_stateful_loader_of_accelerate_is_refused_as_attach_refuses_it():
    pytest.importorskip("torchdata.stateful_dataloader")
    prepared = accelerator(use_stateful_dataloader=True).prepare(build()[1])
    with pytest.raises(ValueError, match="make the Accelerator without use_stateful_dataloader"):
        lag_for(prepared)


# ------------------------------------------------------------------------------ dataloader(), WithIndex


@pytest.mark.parametrize("overlap", [False, True])
def test_dataloader_sets_the_lag(overlap):
    allocator = make()
    loader = dataloader(
        range(ITEMS), allocator, batch_size=BATCH, num_samples=NUM_SAMPLES, num_workers=1, overlap=overlap
    )
    assert isinstance(loader, DataLoader)
    assert isinstance(loader.sampler, AriaSampler)
    assert allocator.lag == lag_for(loader, overlap=overlap) == 2 + overlap
    seen = [batch for _ in range(2) for batch in train(loader.sampler, loader)]
    assert (seen, allocator.digest()) == expected(2 * BATCHES, lag=2 + overlap)


def test_dataloader_defaults_and_what_it_passes_on():
    loader = dataloader(range(ITEMS), make(lag=5), batch_size=7, collate_fn=tuple)
    assert loader.sampler.allocator.lag == 5  # a larger one stays
    assert (loader.batch_size, loader.sampler.batch_size, len(loader.sampler)) == (7, 7, ITEMS)
    assert isinstance(next(iter(loader)), tuple)
    loader = dataloader(range(ITEMS), make(), batch_size=7, drop_last=True)
    assert [len(batch) for batch in train(loader.sampler, loader)] == [7] * 12
    assert len(loader) == 12
    loader = dataloader(range(ITEMS), make(), batch_size=8, num_samples=20, num_replicas=2, rank=1)
    assert (loader.batch_size, len(loader), len(loader.sampler)) == (4, 3, 10)
    cls = stateful()
    assert isinstance(dataloader(range(ITEMS), make(), batch_size=7, loader_class=cls), cls)


def test_dataloader_passes_on_every_option_of_the_sampler(monkeypatch):
    its, ours = (inspect.signature(each).parameters for each in (AriaSampler.__init__, dataloader))
    options = {name: its[name].default for name in its.keys() - {"self"}}
    assert options.keys() <= ours.keys()
    for name in ("drop_last", "num_replicas", "rank", "group", "check_every"):
        assert ours[name].default == its[name].default
    given = {"num_replicas": 2, "rank": 1, "group": object(), "check_every": 7, "num_samples": 60, "drop_last": True}
    seen = {}
    made = AriaSampler.__init__
    monkeypatch.setattr(
        AriaSampler, "__init__", lambda self, *args, **kwargs: (seen.update(kwargs), made(self, *args, **kwargs))[1]
    )
    dataloader(range(ITEMS), make(), batch_size=8, **given)
    assert seen == {"batch_size": 8, **given}
    with pytest.raises(ValueError, match="check_every=0"):
        dataloader(range(ITEMS), make(), batch_size=8, check_every=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shuffle": True}, "shuffle=True"),
        ({"sampler": [1, 2]}, "sampler="),
        ({"batch_sampler": [[1]]}, "batch_sampler="),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 5, "batch_size": 10, "drop_last": True}, "num_samples=5"),
        ({"num_replicas": 0}, "num_replicas=0"),
        ({"num_replicas": 3, "batch_size": 8}, "batch_size=8: expected a multiple of num_replicas=3"),
        ({"num_replicas": 2, "rank": 2, "batch_size": 8}, "rank=2"),
        ({"num_replicas": 4, "rank": 0, "batch_size": 8, "num_samples": 10}, "last batch has 2 rows for 4 ranks"),
    ],
)
def test_dataloader_refuses(settings, words):
    allocator = make()
    with pytest.raises(ValueError, match=words):
        dataloader(range(ITEMS), allocator, num_workers=2, **settings)
    assert allocator.lag == 0


def test_dataloader_refuses_another_dataset_and_a_lag_that_comes_too_late():
    with pytest.raises(ValueError, match=f"expected {ITEMS} items as in the partition, got 10"):
        dataloader(range(10), make())
    for begun in (lambda a: a.draw(3), lambda a: (a.draw(3), a.step())):
        allocator = make()
        begun(allocator)
        with pytest.raises(aria.FeedbackLagError, match=r"begun with lag=0.*lag=2"):
            dataloader(range(ITEMS), allocator, num_workers=1)
        assert allocator.lag == 0


@pytest.mark.parametrize("allocator", [None, aria.Partition.from_labels([0, 1])])
def test_a_sampler_needs_an_allocator(allocator):
    with pytest.raises(ValueError, match="allocator"):
        AriaSampler(allocator, batch_size=1, num_samples=1)


def test_with_index_through_a_loader():
    class Dictionaries(Dataset):
        def __len__(self):
            return ITEMS

        def __getitem__(self, index):
            return {"x": float(LOSSES[index])}

    loader = dataloader(WithIndex(Dictionaries()), make(), batch_size=BATCH)
    for batch in islice(loader, 2):
        assert batch["x"].tolist() == LOSSES[batch["index"]].tolist()
        loader.sampler.observe(batch["index"], batch["x"])
    loader = dataloader(WithIndex(TensorDataset(torch.as_tensor(LOSSES))), make(), batch_size=BATCH)
    for index, (x,) in islice(loader, 2):
        assert x.tolist() == LOSSES[index].tolist()
        loader.sampler.observe(index, x)
    assert loader.sampler.allocator.round == 2


def test_with_index_takes_no_entry_away():
    with pytest.raises(ValueError, match='"index" already'):
        WithIndex([{"index": 5}])[0]
    original = {"x": 1}
    assert WithIndex([original])[0] == {"x": 1, "index": 0}
    assert original == {"x": 1}
    assert len(WithIndex("abc")) == 3


# ------------------------------------------------------------------------------ what may be reported


def second_batch(**settings):
    """A sampler whose second batch is open, its rows, and the allocator's draw of it."""
    sampler, loader = build(**settings)
    train(sampler, loader, 1)
    index = next(iter(loader))
    return sampler, index, sampler.allocator.open_rounds[0]


def reported(report):
    sampler, index, _ = second_batch()
    report(sampler, index)
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
    "a matrix": (lambda i, x: (i, x[:, None]), "losses: expected a one-dimensional"),
    "a matrix of rows": (lambda i, x: (i[:, None], x), "indices: expected a one-dimensional"),
    "float indices": (lambda i, x: (i.double(), x), "indices: expected integers"),
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
        with pytest.raises(RuntimeError, match="without an open batch"):
            call()
    train(sampler, loader, 1)
    with pytest.raises(RuntimeError, match=r"observe\(\) without an open batch"):
        sampler.observe([0], [1.0])


def test_a_round_closed_behind_the_samplers_back():
    sampler, loader = build(lag=1)
    index = next(iter(loader))
    sampler.allocator.step()
    with pytest.raises(RuntimeError, match="without an open batch"):
        sampler.observe(index, loss(index))


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


# ------------------------------------------------------------------------------ iterators and epochs


def test_iter_alone_does_nothing():
    sampler, loader = build(lag=2)
    iterator = iter(loader)
    index = next(iterator)
    for _ in range(3):
        iter(sampler)
    sampler.observe(index, loss(index))
    assert next(iterator).tolist() == expected(2, lag=2)[0][1]


def test_a_newer_iterator_takes_the_place_of_the_older():
    sampler, _ = build(lag=2)
    older, newer = iter(sampler), iter(sampler)
    rows = list(islice(older, BATCH))
    assert list(islice(newer, BATCH)) == rows  # nothing was observed: the same batch again
    with pytest.raises(RuntimeError, match="newer iterator"):
        next(older)
    sampler.observe(rows, loss(rows))
    assert len(list(islice(newer, BATCH))) == BATCH


def test_a_loaded_state_takes_the_place_of_an_iterator():
    sampler, loader = build(lag=2)
    state = sampler.state_dict()
    iterator = iter(loader)
    next(iterator)
    sampler.load_state_dict(state)
    with pytest.raises(RuntimeError, match="a loaded state"):
        next(iterator)


def test_an_epoch_that_is_never_observed_is_said_to_come_again():
    sampler, loader = build(lag=BATCHES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = [index.tolist() for index in loader]
    with pytest.warns(UserWarning, match=r"6 batches was drawn to its end and none of them was observed"):
        second = [index.tolist() for index in loader]
    assert first == second
    assert sampler.allocator.round == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(*build(lag=BATCHES))


def test_an_epoch_left_at_its_end_goes_on_with_what_was_not_observed():
    """All was drawn and only half observed: no warning, and the other half comes again."""
    sampler, loader = build(lag=BATCHES)
    batches = [index.tolist() for index in loader]
    for index in batches[:3]:
        sampler.observe(index, loss(index))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(loader)).tolist() == batches[3]


def test_set_epoch_is_recorded_and_changes_nothing():
    sampler, loader = build()
    seen = []
    for epoch in (5, 5, 0):
        sampler.set_epoch(epoch)
        assert sampler.epoch == sampler.state_dict()["epoch"] == epoch
        seen += train(sampler, loader)
    assert seen == expected(EPOCHS * BATCHES)[0]
    for wrong in (-1, 0.5, "1"):
        with pytest.raises(ValueError, match="epoch"):
            sampler.set_epoch(wrong)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_blocks_are_the_global_batches(drop_last, ranks):
    """Dealt out to 1, 2 or 4 samplers on one process: put together they are what the allocator drew."""
    samplers = [build(num_replicas=ranks, rank=rank, drop_last=drop_last, lag=9)[0] for rank in range(ranks)]
    wanted = expected(5 if drop_last else 6, lag=9)[0]
    parts = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]
    streams = [iter(part) for part in parts]
    sizes = [len(batch) for batch in wanted]
    for batch, size in zip(wanted, sizes, strict=True):
        blocks = [size * (rank + 1) // ranks - size * rank // ranks for rank in range(ranks)]
        assert [item for s, n in zip(streams, blocks, strict=True) for item in islice(s, n)] == batch
        assert size < BATCH or set(blocks) == {BATCH // ranks}
