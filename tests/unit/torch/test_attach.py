"""`AriaSampler.attach` and `RegionMixture.attach`: what a loader is checked for, and the lag that is set."""

import io
import pickle
from itertools import islice

import pytest
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

import aria_sampling as aria
from aria_sampling.torch import RegionMixture, lag_for
from tests.unit.torch.common import BATCH, ITEMS, build, loss, make, prepared, train

UNEVEN = 2 * BATCH + 5


class Unsized(Dataset):
    """Samples without a number of them."""

    def __getitem__(self, index):
        return index


def loaders():
    from torchdata.stateful_dataloader import StatefulDataLoader

    return {"plain": DataLoader, "stateful": StatefulDataLoader}


def accelerator(**options):
    accelerate = pytest.importorskip("accelerate")
    options = accelerate.utils.DataLoaderConfiguration(**options)
    return accelerate.Accelerator(cpu=True, dataloader_config=options)


def a_sampler(lag=None, **settings):
    return make(lag=lag).sampler(**{"batch_size": BATCH, "num_samples": 2 * BATCH, **settings})


def attached(sampler, kind, dataset=range(ITEMS), **options):
    """A loader of a kind, attached to the sampler."""
    how = {"batch_size": BATCH, "sampler": sampler, **options}
    if "batch_sampler" in how:
        del how["batch_size"], how["sampler"]
    if kind == "accelerate":
        return sampler.attach(accelerator().prepare(DataLoader(dataset, **how)))
    return sampler.attach(loaders()[kind](dataset, **how))


KINDS = ["plain", "stateful", "accelerate"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_it_sets_the_lag_and_returns_the_loader(workers, kind):
    sampler = a_sampler()
    loader = attached(sampler, kind, num_workers=workers)
    assert sampler.allocator.lag == lag_for(loader) == 2 * workers + (kind == "accelerate")
    assert sampler.attach(loader, overlap=True) is loader
    assert sampler.allocator.lag == lag_for(loader) + 1
    sampler.attach(loader)  # a larger lag stays
    assert sampler.allocator.lag == lag_for(loader) + 1
    assert len(train(sampler, loader)) == 2


def test_once_the_allocation_has_begun_it_is_too_late():
    sampler = a_sampler()
    sampler.allocator.draw(3)
    sampler.attach(DataLoader(range(ITEMS), batch_size=BATCH, sampler=sampler))  # nothing more is needed
    with pytest.raises(
        aria.FeedbackLagError,
        match="begun with lag=0, and this loader draws 2 rounds ahead, and no round",
    ):
        attached(sampler, "plain", num_workers=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [ITEMS - 1, ITEMS + 1, 10])
def test_a_dataset_of_another_length_than_the_partition(n, kind):
    sampler = a_sampler()
    with pytest.raises(ValueError, match=rf"dataset: it has {n} samples, and the allocator's partition {ITEMS} items"):
        attached(sampler, kind, range(n))
    assert attached(a_sampler(), kind, Unsized())  # cannot be compared


@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_that_drops_a_batch_of_which_the_sampler_does_not_know(kind):
    """Not one that has nothing to drop, nor one whose sampler drops it itself."""
    words = r"the last 5 rows of an epoch .* allocator\.sampler\(\.\.\., drop_last=True\)"
    with pytest.raises(ValueError, match=words):
        attached(a_sampler(num_samples=UNEVEN), kind, drop_last=True)
    for n, ours, drop_last in ((UNEVEN, True, True), (UNEVEN, False, False), (2 * BATCH, False, True)):
        attached(a_sampler(num_samples=n, drop_last=ours), kind, drop_last=drop_last)


def test_on_ranks_it_is_the_rows_of_this_one_that_a_loader_drops():
    for rank in (0, 1):
        sampler = a_sampler(num_samples=BATCH + 6, num_replicas=2, rank=rank)
        with pytest.raises(ValueError, match="the last 3 rows of an epoch"):
            attached(sampler, "plain", batch_size=BATCH // 2, drop_last=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        (8, {}, f"batches are 8 rows, and this sampler gives {BATCH} a round .*batch_size={BATCH}, or .* batch_size=8"),
        (2 * BATCH, {}, f"batches are 48 rows, and this sampler gives {BATCH} a round"),
        (
            BATCH,
            {"num_replicas": 2},
            r"gives 12 a round \(batch_size=24, num_replicas=2\).* the sampler with batch_size=48",
        ),
        (None, {}, "batches are 1 rows"),
    ],
)
def test_another_batch_size(size, settings, words, kind):
    if kind == "accelerate" and size is None:
        pytest.skip("accelerate does not prepare it")
    with pytest.raises(ValueError, match=words):
        attached(a_sampler(**settings), kind, batch_size=size)


def test_single_samples_are_batches_of_one():
    sampler = a_sampler(batch_size=1)
    loader = attached(sampler, "plain", batch_size=None)
    for number, index in enumerate(loader, 1):
        sampler.observe([index], loss([index]))
        assert sampler.allocator.round == number


def test_another_sampler():
    for other in (
        RandomSampler(range(ITEMS)),
        SequentialSampler(range(ITEMS)),
        SubsetRandomSampler([1, 2]),
        a_sampler(),
    ):
        words = (
            rf"rows come from {type(other).__name__}, not from this sampler: .*in the place of shuffle=True.*use_dist"
        )
        with pytest.raises(ValueError, match=words):
            a_sampler().attach(DataLoader(range(ITEMS), batch_size=BATCH, sampler=other))
    with pytest.raises(ValueError, match="rows come from RandomSampler"):
        a_sampler().attach(DataLoader(range(ITEMS), batch_size=BATCH, shuffle=True))
    with pytest.raises(ValueError, match="rows come from list"):
        a_sampler().attach(DataLoader(range(ITEMS), batch_sampler=[[0, 1], [2]]))


class Backwards(BatchSampler):
    def __iter__(self):
        return (batch[::-1] for batch in super().__iter__())


class Plain(BatchSampler):
    """Another name for the same."""


@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_a_batch_sampler_of_ones_own(kind):
    sampler = a_sampler()
    with pytest.raises(ValueError, match=r"Backwards, between it and the sampler, may regroup .*no batch_sampler="):
        attached(sampler, kind, batch_sampler=Backwards(sampler, BATCH, False))
    for fine in (Plain, BatchSampler):
        assert len(train(sampler, attached(sampler, kind, batch_sampler=fine(sampler, BATCH, False)))) == 2
    loader = sampler.attach(DataLoader(range(ITEMS), batch_size=None, sampler=BatchSampler(sampler, BATCH, False)))
    assert sampler.allocator.lag == lag_for(loader) == 0


def test_buckets_are_told_what_to_do():
    class AspectRatioBatchSampler(BatchSampler):
        def __iter__(self):
            yield from super().__iter__()

    sampler = a_sampler()
    with pytest.raises(ValueError, match=r"AspectRatioBatchSampler, .* group the rows of each round in collate_fn"):
        attached(sampler, "plain", batch_sampler=AspectRatioBatchSampler(sampler, BATCH, False))


def test_a_sampler_that_a_framework_wraps_or_replaces():
    """Fabric wraps it on several ranks, Ray puts its own there: refused before the first batch, with the cure."""
    wrapped = pytest.importorskip("lightning.fabric.utilities.distributed").DistributedSamplerWrapper
    for other in (lambda sampler: wrapped(sampler, 2, 0), lambda sampler: DistributedSampler(range(ITEMS), 2, 0)):
        sampler = a_sampler()
        with pytest.raises(ValueError, match=r"use_distributed_sampler=False\), .*add_dist_sampler=False\) \(Ray"):
            sampler.attach(DataLoader(range(ITEMS), batch_size=BATCH, sampler=other(sampler)))


@pytest.mark.parametrize("workers", [0, 1])
def test_fabric_on_one_process_leaves_it(workers):
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    sampler = a_sampler()
    loader = DataLoader(range(ITEMS), batch_size=BATCH, sampler=sampler, num_workers=workers)
    loader = sampler.attach(fabric.setup_dataloaders(loader))
    assert sampler.allocator.lag == 2 * workers
    assert len(train(sampler, loader)) == 2


def test_batches_that_are_skipped():
    acc = accelerator()
    sampler = a_sampler()
    loader = acc.prepare(DataLoader(range(ITEMS), batch_size=BATCH, sampler=sampler))
    with pytest.raises(
        ValueError, match="skip_first_batches would draw batches by today's probabilities only to throw"
    ):
        sampler.attach(acc.skip_first_batches(loader, 2))


@pytest.mark.parametrize("kind", ["plain", "stateful"])
def test_batches_that_overtake(kind):
    with pytest.raises(ValueError, match="with in_order=False a batch overtakes another"):
        attached(a_sampler(), kind, num_workers=2, in_order=False)


def test_what_is_no_loader():
    for wrong in ([1, 2], None, range(3)):
        with pytest.raises(ValueError, match="loader: expected a DataLoader"):
            a_sampler().attach(wrong)


def test_a_refused_loader_changes_nothing():
    sampler = a_sampler()
    before = sampler.state_dict()
    with pytest.raises(ValueError, match="batches are 8 rows"):
        attached(sampler, "plain", batch_size=8, num_workers=2)
    assert (sampler.allocator.lag, sampler.state_dict()) == (0, before)


def test_a_stateful_loader_of_accelerate_is_refused():
    loader = prepared(a_sampler(), 0, stateful=True)
    with pytest.raises(ValueError, match="make the Accelerator without use_stateful_dataloader"):
        a_sampler().attach(loader)


def test_a_sampler_can_be_pickled():
    """By what spawns workers: its state goes along, and its batches in flight do not matter to it."""
    sampler, loader = build()
    train(sampler, loader, 2)
    twin = pickle.load(io.BytesIO(pickle.dumps(sampler)))
    assert twin.state_dict() == sampler.state_dict()
    assert train(twin, DataLoader(range(ITEMS), batch_size=BATCH, sampler=twin), 3) == train(sampler, loader, 3)


# ------------------------------------------------------------------------------ mixtures


def a_mixture(**settings):
    return RegionMixture({"a": range(30), "b": range(30)}, **{"batch_size": 4, "num_samples": 24, **settings})


def test_a_mixture_is_attached_to_a_loader():
    mixture = a_mixture()
    loader = mixture.attach(DataLoader(mixture, batch_size=4), overlap=True)
    assert mixture.allocator.lag == 1
    for regions, _ in loader:
        mixture.observe(regions, 1.0 + regions)
    assert mixture.allocator.round == 6
    mixture = a_mixture()
    mixture.attach(accelerator(dispatch_batches=False).prepare(DataLoader(mixture, batch_size=4)))
    assert mixture.allocator.lag == 1
    single = a_mixture(batch_size=1)
    single.attach(DataLoader(single, batch_size=None))


@pytest.mark.parametrize("num_samples", [24, None])
@pytest.mark.parametrize("dispatch", [None, False, True])
def test_a_mixture_prepared_on_one_process(dispatch, num_samples):
    """With accelerate's defaults too, and where it has no length."""
    mixture = a_mixture(num_samples=num_samples)
    loader = accelerator(dispatch_batches=dispatch).prepare(DataLoader(mixture, batch_size=4))
    for regions, _ in islice(mixture.attach(loader), 6):
        mixture.observe(regions, 1.0 + regions)
    assert (mixture.allocator.round, mixture.allocator.lag) == (6, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 2}, "batches are 2 samples, and this mixture gives 4 a round"),
        ({"batch_size": None}, "batches are 1 samples"),
        ({"num_workers": 1}, "num_workers=1 copies of the allocator would draw"),
        ({"dataset": range(5)}, "samples come from range, not from this mixture"),
    ],
)
def test_a_loader_that_a_mixture_cannot_serve(options, words):
    mixture = a_mixture()
    how = {"dataset": mixture, "batch_size": 4, **options}
    with pytest.raises(ValueError, match=words):
        mixture.attach(DataLoader(**how))


def test_several_loaders_are_told_to_attach_one():
    sampler = aria.Allocator(aria.Partition.from_sizes([8, 8]), seed=0).sampler(batch_size=4, num_samples=16)
    with pytest.raises(aria.ArgumentError, match="expected a DataLoader, got dict; of several loaders, attach the one"):
        sampler.attach({"train": [], "other": []})
