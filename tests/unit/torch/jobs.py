"""What the ranks of `tests/unit/torch/test_ranks.py` do, each a function at module level that a process can import."""

import os
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning, RegionMixture, dataloader, lag_for
from tests.unit.torch.common import BATCH, ITEMS, LABELS, NUM_SAMPLES, loss, make, prepared, through_torch

STEPS = 50  # of the noise schedule


def own(rank, world, n):
    """The rows of a batch of n that are this rank's, in the contiguous blocks of the sampler."""
    return slice(n * rank // world, n * (rank + 1) // world)


def outcome(sampler, seen):
    sampler.synchronize()
    estimate = sampler.allocator.estimate()
    bits = estimate.mean.tobytes(), estimate.stderr.tobytes(), sampler.allocator.metrics()["dropped_losses"]
    return {"seen": seen, "digest": sampler.allocator.digest(), "bits": bits, "state": sampler.state_dict()}


def stream(rank, world, group, *, lag=0, batches=14, workers=0, state=None, report="whole", skip=0):
    """Train on so many batches, over as many passes as that takes."""
    sampler = make(lag=lag).sampler(
        batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=world, rank=rank, group=group, check_every=2
    )
    if state is not None:
        sampler.load_state_dict(through_torch(state))
    # in a spawned process, workers would be spawned too, and import all of this again for every epoch
    options = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
    loader = DataLoader(range(ITEMS), batch_size=BATCH // world, sampler=sampler, **options)
    seen = []
    while len(seen) < batches:
        for index in islice(loader, batches - len(seen)):
            seen.append(index.tolist())
            REPORTS[report](sampler, index, rank, len(seen) + skip)
    return outcome(sampler, seen)


def whole(sampler, index, rank, number):
    sampler.observe(index, loss(index))


def in_parts(sampler, index, rank, number):
    """Gradient accumulation: another number of micro-batches on every rank, one of them empty."""
    for rows in index.split(1 + rank):
        sampler.observe(rows, loss(rows), step=False)
    sampler.observe(index[:0], loss(index[:0]), step=False)
    sampler.step()


def backwards(sampler, index, rank, number):
    sampler.observe(index.flip(0), loss(index.flip(0)))


def some_rows(sampler, index, rank, number):
    """Rows of items that a filter takes out, by the item alone, so on whichever rank they are; at times all of them."""
    index = index[(index + number) % 3 > 0]
    if number % 4:
        sampler.observe(index, loss(index))
    else:
        sampler.step()


def silent_blocks(sampler, index, rank, number):
    """Nothing of the second quarter of the batch, which at four ranks is all that rank 1 has."""
    quarter = _quarter(sampler, index, number)
    rows = index[quarter != 1]
    sampler.observe(rows, loss(rows))


def broken_blocks(sampler, index, rank, number):
    """No finite loss in the third quarter of the batch, which at four ranks is all that rank 2 has."""
    losses = loss(index).clone()
    losses[_quarter(sampler, index, number) == 2] = [np.nan, np.inf, -np.inf][number % 3]
    sampler.observe(index, losses)


def _quarter(sampler, index, number):
    """Which quarter of the global batch each row of this rank's is in; every sixth batch is the last of an epoch."""
    n = BATCH if number % 6 else NUM_SAMPLES % BATCH
    place = torch.arange(n)[own(sampler.rank, sampler.num_replicas, n)]
    ends = torch.tensor([n * (quarter + 1) // 4 for quarter in range(4)])
    assert len(place) == len(index)
    return torch.searchsorted(ends, place, right=True)


REPORTS = {report.__name__: report for report in (whole, in_parts, backwards, some_rows, silent_blocks, broken_blocks)}


def default_loader(rank, world, group, lag):
    """`dataloader` on the default group, which is looked up when it is used."""
    allocator = make(lag=lag)
    loader = dataloader(
        range(ITEMS), allocator, batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=world, rank=rank, overlap=True
    )
    seen = []
    for _ in range(2):
        for index in loader:
            seen.append(index.tolist())
            whole(loader.sampler, index, rank, len(seen))
    return outcome(loader.sampler, seen)


# ------------------------------------------------------------------------------ ranks that come apart


def other_seed(rank, world, group, odd):
    """One rank with another seed. `check_every` is far away, so it is found by the first digest: that of the start."""
    sampler = make(seed=3 + (rank == odd)).sampler(
        batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=world, rank=rank, group=group
    )
    index = torch.tensor(list(islice(sampler, BATCH // world)))
    sampler.observe(index, loss(index))


def other_state(rank, world, group, odd, at, check_every, lag):
    """One rank's estimates change a little after `at` rounds; the batch at which an error came, and what it said."""
    sampler = make(lag=lag).sampler(
        batch_size=BATCH,
        num_samples=10 * BATCH,
        num_replicas=world,
        rank=rank,
        group=group,
        check_every=check_every,
    )
    rows = iter(sampler)
    for number in range(10):
        if number == at and rank == odd:
            sampler.synchronize()
            array = next(iter(sampler.allocator._progress.estimator.rows.values()))
            array *= 1 + 1e-12
        try:
            index = torch.tensor(list(islice(rows, BATCH // world)))
            sampler.observe(index, loss(index))
            if number == 9:
                sampler.synchronize()
        except aria.RankError as error:
            return number, str(error)
    return None, ""


def other_round(rank, world, group, odd):
    """One rank begins a round later than the others."""
    allocator = make()
    if rank == odd:
        allocator.draw(BATCH)
        allocator.step()
    sampler = allocator.sampler(batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=world, rank=rank, group=group)
    index = torch.tensor(list(islice(sampler, BATCH // world)))
    sampler.observe(index, loss(index))


def not_dealt_out(rank, world, group, asked, reported):
    """`num_replicas` forgotten: every rank gets the same rows; so many are asked for, and so many reported."""
    sampler = make().sampler(batch_size=BATCH, num_samples=NUM_SAMPLES, group=group)
    before = sampler.allocator.digest()
    index = torch.tensor(list(islice(sampler, asked)))[:reported]
    try:
        sampler.observe(index, loss(index))
    finally:
        assert sampler.allocator.digest() == before


def tensor_parallel(rank, world, group, given, batches=8):
    """Four ranks, of which two hold one sample together: two ranks with different data."""
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]  # collective: every rank makes both
    options = {"group": groups[rank % 2]} if given else {}
    sampler = make().sampler(
        batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=2, rank=rank // 2, check_every=1, **options
    )
    seen = []
    while len(seen) < batches:
        for index in islice(DataLoader(range(ITEMS), batch_size=BATCH // 2, sampler=sampler), batches - len(seen)):
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
    return outcome(sampler, seen)


def attached(rank, world, group, **options):
    """A loader attached to a sampler whose rows are or are not the ranks'."""
    sampler = make().sampler(batch_size=BATCH, num_samples=5 * BATCH, group=group, **options)
    size = sampler.batch_size // sampler.num_replicas
    sampler.attach(DataLoader(range(ITEMS), batch_size=size, sampler=sampler))


def wrapped(rank, world, group, framework):
    """What a framework makes of a loader on several ranks: what attach() says, and what the first batches say."""
    said = []
    for attach in (True, False):
        sampler = make().sampler(batch_size=BATCH, num_samples=NUM_SAMPLES, group=group)
        if framework == "Fabric":
            from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

            other = DistributedSamplerWrapper(sampler, num_replicas=world, rank=rank)
        else:  # Ray's prepare_data_loader
            other = DistributedSampler(range(ITEMS), num_replicas=world, rank=rank)
        loader = DataLoader(range(ITEMS), batch_size=BATCH // world, sampler=other)
        try:
            for index in sampler.attach(loader) if attach else loader:
                sampler.observe(index, loss(index))
        except (ValueError, RuntimeError) as error:
            said.append(str(error))
    return said


# ------------------------------------------------------------------------------ the other faces


def sizes_of(world, number, n):
    """How many rows of batch `number` each rank has: unequal, changing, at times none."""
    if world == 1:
        return [n]
    cuts = np.sort(np.random.default_rng([world, number]).integers(0, n + 1, world - 1))
    return np.diff([0, *cuts, n]).tolist()


def conditioning_batch(number):
    """A global batch, a function of its number: its size, timesteps, own items and losses."""
    rng = np.random.default_rng([7, number])
    n = [16, 5, 1, 23][number % 4]
    return rng.integers(0, STEPS, n), rng.integers(-1, ITEMS, n), rng.lognormal(0, 1, n).astype(np.float32)


def conditioning(rank, world, group, lag, paired, rounds=24, chance=0.5, silent=None):
    """Random conditioning on this rank's rows of every batch.

    `paired`: which rows have an item of their own, those of "all" ranks, of the "first" or of "none". With ``silent=4``
    one of four ranks in turn has no loss to report; on one process, its rows are not credited.
    """
    switch = RandomConditioning(
        make(lag=lag, coverage=aria.Coverage.online(make().partition)),
        schedule=aria.ConstantSwitch(chance),
        num_train_timesteps=STEPS,
        group=group,
        check_every=2,
    )
    seen = []
    for number in range(rounds):
        steps, items, losses = conditioning_batch(number)
        sizes = sizes_of(world, number, len(steps))
        mine = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        has_own = paired == "all" or (paired == "first" and rank == 0)
        s = switch.draw(
            torch.as_tensor(steps[mine]), paired=torch.as_tensor(items[mine] if has_own else -1 + 0 * items[mine])
        )
        assert len(s.items) == len(s.regions) == len(s.weights) == int(s.mask.sum())
        seen.append((s.mask.tolist(), s.items.tolist(), s.regions.tolist(), s.weights.tolist()))
        quiet, credit = number % 5 == 4, np.ones(len(losses), bool)
        if silent is not None:
            sizes = sizes_of(silent, number, len(steps))
            its = slice(sum(sizes[: number % silent]), sum(sizes[: number % silent + 1]))
            credit[its] = False
            quiet |= rank == number % silent if world > 1 else not credit.any()
        if quiet:
            switch.step()
        else:
            switch.observe(torch.as_tensor(losses[mine]), credit=torch.as_tensor(credit[mine]))
    return outcome(switch, seen)


def mixture(rank, world, group, lag, credited=False):
    """Streams mixed over the ranks, each rank with sources of its own; on demand, not all samples are credited."""
    sources = {name: range(1000 * region, 1000 * region + 40) for region, name in enumerate("abc")}
    mixed = RegionMixture(
        sources,
        aria.Allocator(aria.Partition.from_labels([0, 1, 2]), target="uniform", lag=lag),
        batch_size=8,
        num_samples=80,
        num_replicas=world,
        rank=rank,
        group=group,
        check_every=2,
    )
    seen = []
    for number, batch in enumerate(islice(DataLoader(mixed, batch_size=8 // world), 10)):
        regions, samples = batch
        assert (samples // 1000 == regions).all()
        seen.append(regions.tolist())
        place = torch.arange(8)[own(rank, world, 8)]
        credit = (place + number) % 3 > 0 if credited else None
        mixed.observe(regions, 10.0 ** (place % 3) * (1 + regions) + number, credit=credit)
    return outcome(mixed, seen)


def prepared_mixture(rank, world, group, dispatch):
    """A mixture's loader prepared by accelerate on several ranks: what attach() says, with and without a length."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    as_accelerate(rank, world)
    said = []
    for num_samples in (80, None):
        mixed = RegionMixture({"a": range(40), "b": range(40)}, batch_size=8, num_samples=num_samples, group=group)
        accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=dispatch))
        loader = accelerator.prepare(DataLoader(mixed, batch_size=8))
        try:
            mixed.attach(loader)
        except ValueError as error:
            said.append(str(error))
    return said


def as_accelerate(rank, world):
    """Let accelerate find the ranks."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="localhost")
    os.environ.setdefault("MASTER_PORT", "29500")  # read, but the group is there already


def accelerated(rank, world, group, workers, lag):
    """A loader prepared by accelerate, which deals the batches out itself: the lag it needs, and what it did."""
    as_accelerate(rank, world)
    sampler = make(lag=lag).sampler(batch_size=BATCH, num_samples=8 * BATCH)
    loader = prepared(sampler, workers, batch_size=BATCH // world, context="fork")
    seen = []
    for _ in range(2):
        for index in loader:
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
    return {**outcome(sampler, seen), "needed": lag_for(loader), "processes": world}


# ------------------------------------------------------------------------------ habits


def habit(rank, world, group, report, batches=6):
    """Report in that way; the warnings that came, and the rounds that were closed."""
    sampler = make().sampler(
        batch_size=BATCH, num_samples=10 * BATCH, num_replicas=world, rank=rank, group=group, check_every=1
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for index in islice(DataLoader(range(ITEMS), batch_size=BATCH // world, sampler=sampler), batches):
            report(sampler, index, loss(index), group)
    return [str(warning.message) for warning in caught if warning.category is aria.AriaWarning], sampler.allocator.round


def repeated_mean(sampler, index, losses, group):
    """The mean of all ranks for every row, as a model that averages its loss returns it."""
    mean = losses.mean()
    if sampler.num_replicas > 1:
        dist.all_reduce(mean, group=group)
    sampler.observe(index, (mean / sampler.num_replicas).expand(len(index)))


def overflow(sampler, index, losses, group):
    """Losses in fp16, of which those of one region are beyond 65,504."""
    regions = torch.as_tensor(LABELS[index.numpy()])
    sampler.observe(index, torch.where(regions == 2, 1e9, losses).half())


def gathered(sampler, index, losses, group):
    """Gathered before they are reported, as evaluation loops do; then as it should be."""
    everyones = [[torch.empty_like(own) for _ in range(sampler.num_replicas)] for own in (index, losses)]
    for parts, own in zip(everyones, (index, losses), strict=True):
        dist.all_gather(parts, own, group=group)
    words = r"on this rank, as many as all ranks have together: if they were gathered .*, pass this rank's own rows"
    with pytest.raises(aria.ArgumentError, match=words):
        sampler.observe(*(torch.cat(parts) for parts in everyones))
    sampler.observe(index, losses)


def sharded(sampler, index, losses, group):
    """DTensors, as tensor parallelism makes them; the remedy is collective."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    mesh = init_device_mesh("cpu", (sampler.num_replicas,))
    for placement in (Replicate(), Shard(0)):
        names = {"losses": distribute_tensor(losses.clone(), mesh, [placement])}
        with pytest.raises(aria.ArgumentError, match=r"expected a plain tensor, got DTensor; .* is col") as caught:
            sampler.observe(index, names["losses"])
        exec(caught.value.remedy, names)
    assert type(names["losses"]) is torch.Tensor
    sampler.observe(index, losses)


def gathered_mixture(rank, world, group):
    """What a mixture says of the samples of all ranks."""
    mixed = RegionMixture({"a": range(40), "b": range(40)}, batch_size=8, num_replicas=world, rank=rank, group=group)
    regions, _ = next(iter(DataLoader(mixed, batch_size=8 // world)))
    everyones = [torch.empty_like(regions) for _ in range(world)]
    dist.all_gather(everyones, regions, group=group)
    try:
        mixed.observe(torch.cat(everyones), torch.ones(8))
    except aria.ArgumentError as error:
        mixed.observe(regions, 1.0 + regions)
        return str(error), mixed.allocator.round
    return "", 0


def states_of_mixtures(rank, world, group):
    """What a mixture of this rank says of its own state, of rank 0's, and of its own on one rank."""
    pool = aria.Partition.from_labels([0, 1])

    def made(num_replicas, rank):
        sources = [range(rank, 40, world), range(100 + rank, 140, world)]
        allocator = aria.Allocator(pool, target="uniform")
        options = {"num_replicas": num_replicas, "rank": rank, "group": group}
        return RegionMixture(dict(zip("01", sources, strict=True)), allocator, batch_size=8, **options)

    mixed = made(world, rank)
    for regions, _ in islice(DataLoader(mixed, batch_size=8 // world), 3):
        mixed.observe(regions, 1.0 + regions)
    state = through_torch(mixed.state_dict())
    first = [state]
    dist.broadcast_object_list(first, src=0, group=group)
    said = []
    for other, loaded in ((made(world, rank), state), (made(world, rank), first[0]), (made(1, 0), state)):
        try:
            other.load_state_dict(loaded)
            said.append("loaded")
        except aria.StateError as error:
            assert other.allocator.round == 0
            said.append(str(error))
            exec(error.remedy, {"mixture": other, "state": loaded})
        assert other.allocator.round == 3
    return said
