"""`AriaSampler` behind loaders that draw ahead: lag determinism, and the lag that a loader needs."""

import gc
import inspect
import re
import weakref

import pytest
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import AriaSampler, dataloader, lag_for
from tests.unit.torch.common import (
    BATCH,
    ITEMS,
    LOSSES,
    NUM_SAMPLES,
    build,
    expected,
    loss,
    make,
    prepared,
    result,
    train,
)

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


@pytest.mark.parametrize("kind", ["plain", "stateful", "accelerate"])
def test_the_error_names_a_lag_and_what_sets_it(kind):
    """What the sampler knows: how many rounds are open. How far the loader draws ahead, `attach` knows."""
    message = lag_error(kind, 1, 2, 3)
    assert "rounds 0 to 1 are still open, and lag=1" in message
    assert "call sampler.attach(loader) before its first batch, or make the Allocator with lag=2 or more" in message
    sampler = make().sampler(batch_size=BATCH, num_samples=20 * BATCH)
    loader = sampler.attach(loader_of(kind, sampler, 2, 3))
    assert sampler.allocator.lag == 6 + (kind == "accelerate")
    assert len(train(sampler, loader, 8)) == 8


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


# ------------------------------------------------------------------------------ dataloader()


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
    for name in ("drop_last", "num_replicas", "rank", "group", "check_every", "data_rows_per_batch"):
        assert ours[name].default == its[name].default
    given = {"num_replicas": 2, "rank": 1, "group": object(), "check_every": 7, "num_samples": 60, "drop_last": True}
    given["data_rows_per_batch"] = 5
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
        ({"data_rows_per_batch": 0.5}, "data_rows_per_batch=0.5"),
        ({"batch_size": 8, "in_order": False}, "in_order=False"),
    ],
)
def test_dataloader_refuses(settings, words):
    allocator = make()
    with pytest.raises(ValueError, match=words):
        dataloader(range(ITEMS), allocator, num_workers=2, **settings)
    assert allocator.lag == 0


def test_dataloader_refuses_another_dataset_and_a_lag_that_comes_too_late():
    for n in (10, ITEMS + 1):
        with pytest.raises(
            ValueError, match=f"dataset: it has {n} samples, and the allocator's partition {ITEMS} items"
        ):
            dataloader(range(n), make())
    for begun in (lambda a: a.draw(3), lambda a: (a.draw(3), a.step())):
        allocator = make()
        begun(allocator)
        with pytest.raises(aria.FeedbackLagError, match=r"begun with lag=0.*lag=2"):
            dataloader(range(ITEMS), allocator, num_workers=1)
        assert allocator.lag == 0
