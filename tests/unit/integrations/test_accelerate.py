"""The glue for accelerate: what it refuses, what it saves, and that ranks agree."""

import os
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

import aria_sampling as aria

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

from accelerate import Accelerator, DataLoaderConfiguration  # noqa: E402
from accelerate.data_loader import prepare_data_loader  # noqa: E402
from torch.utils.data import DataLoader, SequentialSampler  # noqa: E402

from aria_sampling.integrations.accelerate import attach, index_of, log  # noqa: E402
from aria_sampling.torch import RandomConditioning, RegionMixture, WithIndex, dataloader, lag_for  # noqa: E402
from tests.unit.integrations.helpers import on_two_ranks, reset  # noqa: E402

N, BATCH, EPOCH = 60, 5, 40


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    reset()
    yield
    reset()


def an_accelerator(**config):
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**config) if config else None)


def an_allocator(n=N, **options):
    return aria.Allocator(aria.Partition.from_labels(np.arange(n) % 6), seed=1, target="uniform", **options)


def a_loader(allocator=None, *, n=N, batch=BATCH, rows=BATCH, epoch=EPOCH, sampler=None, options=None, **loader):
    allocator = an_allocator() if allocator is None else allocator
    sampler = allocator.sampler(batch_size=rows, num_samples=epoch, **(options or {})) if sampler is None else sampler
    return DataLoader(WithIndex([{"x": float(i)} for i in range(n)]), batch_size=batch, sampler=sampler, **loader)


def loss_of(index):
    return 1.0 + (index % 3).double() + 0.01 * (index % 7)


# -- what is refused, each by its message


def test_a_loader_that_was_not_prepared():
    with pytest.raises(ValueError, match=r"expected the loader that accelerator.prepare\(\) returned, got DataLoader"):
        attach(an_accelerator(), a_loader())


def test_a_sampler_that_was_replaced():
    accelerator = an_accelerator(use_seedable_sampler=True)
    shuffled = accelerator.prepare(DataLoader(range(N), batch_size=BATCH, shuffle=True))
    with pytest.raises(ValueError, match="batches come from SeedableRandomSampler, not from an AriaSampler: in DataLo"):
        attach(accelerator, shuffled)
    sequential = accelerator.prepare(a_loader(sampler=SequentialSampler(range(N))))
    with pytest.raises(ValueError, match=r"come from SequentialSampler.*in the place of shuffle=True"):
        attach(accelerator, sequential)


def test_a_round_that_is_not_the_batch_of_all_ranks():
    accelerator = an_accelerator()
    with pytest.raises(
        ValueError, match=r"batches are 5 rows, .* gives 20 a round .* or the sampler with batch_size=5,"
    ):
        attach(accelerator, accelerator.prepare(a_loader(rows=20)))


def test_a_last_batch_that_the_loader_drops():
    accelerator = an_accelerator()
    with pytest.raises(ValueError, match=r"their round never closed. Make .* allocator.sampler\(..., drop_last=True"):
        attach(accelerator, accelerator.prepare(a_loader(epoch=42, drop_last=True)))
    attach(accelerator, accelerator.prepare(a_loader(epoch=42, drop_last=True, options={"drop_last": True})))
    attach(accelerator, accelerator.prepare(a_loader(epoch=42)))  # nothing is filled up on one process


def test_a_dispatcher():
    accelerator = an_accelerator(dispatch_batches=True)
    with pytest.raises(ValueError, match=r"DataLoaderConfiguration\(dispatch_batches=False\)"):
        attach(accelerator, accelerator.prepare(a_loader()))


def test_a_stateful_loader():
    pytest.importorskip("torchdata")
    accelerator = an_accelerator(use_stateful_dataloader=True)
    with pytest.raises(ValueError, match="make the Accelerator without use_stateful_dataloader"):
        attach(accelerator, accelerator.prepare(a_loader()))


def test_skip_first_batches():
    accelerator = an_accelerator()
    loader = accelerator.prepare(a_loader())
    sampler = attach(accelerator, loader)
    with pytest.raises(ValueError, match=r"skip_first_batches would draw .* leave it out"):
        attach(accelerator, accelerator.skip_first_batches(loader, 2))
    with pytest.raises(
        aria.FeedbackLagError, match=r"nothing may regroup or skip the sampler's rows .*skip_first_batches"
    ):
        next(iter(accelerator.skip_first_batches(loader, 2)))
    sampler.allocator.rewind()


def test_a_partition_of_another_dataset():
    accelerator = an_accelerator()
    with pytest.raises(ValueError, match="dataset: it has 90 samples, and the allocator's partition 60 items"):
        attach(accelerator, accelerator.prepare(a_loader(n=90)))


def test_a_lag_that_is_too_small_is_raised_before_the_first_draw_and_refused_after():
    accelerator = an_accelerator()
    loader = accelerator.prepare(a_loader(num_workers=2))
    allocator = attach(accelerator, loader).allocator
    assert allocator.lag == lag_for(loader) == 5
    begun = an_allocator()
    begun.draw(3)
    with pytest.raises(aria.FeedbackLagError, match=r"begun with lag=0, and this loader draws 1"):
        attach(accelerator, accelerator.prepare(a_loader(begun)))


def test_random_conditioning_of_another_length():
    accelerator = an_accelerator()
    switch = RandomConditioning(an_allocator(), num_train_timesteps=1000)

    class Scheduler:
        class config:
            num_train_timesteps = 4000

    with pytest.raises(ValueError, match="4000 timesteps, the RandomConditioning 1000: make it with num_train_timeste"):
        attach(accelerator, switch, noise_scheduler=Scheduler)
    assert attach(accelerator, switch) is switch


def test_random_conditioning_of_ranks_that_hold_the_same_rows():
    """What accelerate knows of tensor, context and sequence parallelism is compared with `group=`."""
    parallel = SimpleNamespace(parallelism_config=SimpleNamespace(non_data_parallel_size=2))
    with pytest.raises(
        ValueError, match=r"switch: 2 ranks each hold the same rows .* make RandomConditioning with group="
    ):
        attach(parallel, RandomConditioning(an_allocator()))
    parallel._custom_objects = [switch := RandomConditioning(an_allocator(), group="the ranks with different data")]
    assert attach(parallel, switch) is switch


def test_a_mixture_on_one_process():
    """Its loader has no length; accelerate would dispatch its batches unless it is told not to."""
    accelerator = an_accelerator(dispatch_batches=False)
    for samples in (None, 24):
        mixture = RegionMixture({"a": range(90), "b": range(90)}, batch_size=4, num_samples=samples)
        loader = accelerator.prepare(DataLoader(mixture, batch_size=4))
        assert attach(accelerator, loader) is mixture
        assert mixture.allocator.lag == 1
        for regions, _ in islice(loader, 5):
            mixture.observe(regions, 1.0 + regions)
        assert mixture.allocator.round == 5
    dispatching = an_accelerator()
    with pytest.raises(ValueError, match=r"DataLoaderConfiguration\(dispatch_batches=False\)"):
        attach(dispatching, dispatching.prepare(DataLoader(mixture, batch_size=4)))


def test_a_mixture_that_accelerate_would_deal_out_again():
    accelerator = an_accelerator(dispatch_batches=False)
    mixture = RegionMixture({"a": range(90), "b": range(90)}, batch_size=8, num_samples=24)
    loader = prepare_data_loader(DataLoader(mixture, batch_size=4), num_processes=2, process_index=0)
    accelerator.state._shared_state["num_processes"] = 2
    with pytest.raises(
        ValueError, match=r"a second time: on several ranks give it num_replicas=accelerator.num_processes"
    ):
        attach(accelerator, loader)


# -- bad input in the loop


def test_a_batch_without_its_index():
    with pytest.raises(ValueError, match=r"entry 'index', got a dict with \['input_ids', 'pixel_values'\]: wrap the"):
        index_of({"pixel_values": torch.zeros(2), "input_ids": torch.zeros(2)})
    with pytest.raises(ValueError, match="entry 'index', got a list with"):
        index_of([torch.zeros(2)])
    assert index_of({"index": 3}) == 3


def test_losses_and_indices_that_cannot_be_credited():
    accelerator = an_accelerator()
    loader = accelerator.prepare(a_loader())
    sampler = attach(accelerator, loader)
    batch = next(iter(loader))
    losses = loss_of(batch["index"])
    with pytest.raises(ValueError, match="already averaged cannot be credited: compute it with reduction='none'"):
        sampler.observe(batch["index"], losses.mean())
    with pytest.raises(ValueError, match=r"values in \[0, 60\), got .*the partition is made for that dataset"):
        sampler.observe(batch["index"] + N, losses)
    sampler.observe(batch["index"], losses)


def test_timesteps_that_are_none():
    switch = RandomConditioning(an_allocator(), num_train_timesteps=1000)
    with pytest.raises(ValueError, match=r"are noise levels. Try: s = switch.draw\(noise=timesteps\)"):
        switch.draw(torch.rand(4))
    with pytest.raises(
        ValueError, match=r"in \[0, 1000\), got 5 to 3999; .*Try: switch = aria.RandomConditioning.*num_train_time"
    ):
        switch.draw(torch.tensor([5, 3999]))


# -- saving


def run(steps, *, folder=None, save_at=None, load=None, workers=0, accumulate=2):
    """Train a little model; return its parameters, the rows of every batch and the allocator."""
    reset()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    torch.manual_seed(0)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    loader = a_loader(num_workers=workers)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    sampler = attach(accelerator, loader)
    if load:
        accelerator.load_state(load)
    rows = []
    while sampler.allocator.round < steps:
        for batch in loader:
            with accelerator.accumulate(model):
                losses = (model(batch["x"].float()[:, None])[:, 0] - loss_of(batch["index"])).square()
                accelerator.backward(losses.mean())
                optimizer.step()
                optimizer.zero_grad()
            sampler.observe(index_of(batch), losses)
            rows.append(batch["index"].tolist())
            if sampler.allocator.round == save_at:
                accelerator.save_state(folder)
            if sampler.allocator.round == steps:
                break
    return [p.tolist() for p in model.parameters()], rows, sampler.allocator.digest()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, workers):
    """Stopped in the middle of an epoch of 8 batches, with 2 passes to an optimizer step."""
    parameters, rows, digest = run(20, workers=workers)
    run(12, folder=str(tmp_path / "state"), save_at=12, workers=workers)
    again, rest, digest_again = run(20, load=str(tmp_path / "state"), workers=workers)
    assert rest == rows[12:]
    assert again == parameters
    assert digest_again == digest


def host(steps, *, folder=None, save_at=None, load=None, workers=0, **options):
    """A script that takes its noise from torch's global generator, as diffusers' own do; what it drew and saw."""
    reset()
    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(a_loader(num_workers=workers, **options))
    sampler = attach(accelerator, loader)
    torch.manual_seed(0)
    if load:
        accelerator.load_state(load)
    seen = []
    while sampler.allocator.round < steps:
        for batch in loader:
            noise = torch.randn(len(batch["index"]))
            sampler.observe(index_of(batch), loss_of(batch["index"]) + noise.square())
            seen.append((batch["index"].tolist(), noise.tolist()))
            if sampler.allocator.round == save_at:
                accelerator.save_state(folder)
            if sampler.allocator.round == steps:
                break
    return seen, sampler.allocator.digest()


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("own", [True, False])
def test_the_noise_of_the_host_is_repeated_if_the_loader_has_a_generator_of_its_own(tmp_path, own, workers):
    """Beginning to iterate takes a number from the loader's generator, and by default that is torch's global one.

    Saved in the middle of an epoch, so that the resumed run begins to iterate once more than the whole one.
    """

    def options():
        return {"workers": workers, **({"generator": torch.Generator()} if own else {})}

    whole, digest = host(20, **options())
    host(12, folder=str(tmp_path / "state"), save_at=12, **options())
    rest, again = host(20, load=str(tmp_path / "state"), **options())
    if own:
        assert (rest, again) == (whole[12:], digest)
    else:
        assert [noise for _, noise in rest] != [noise for _, noise in whole[12:]]


def test_a_checkpoint_from_before_it_was_registered(tmp_path):
    accelerator = an_accelerator()
    loader = accelerator.prepare(a_loader())
    accelerator.save_state(str(tmp_path / "old"))
    sampler = attach(accelerator, loader)
    with pytest.raises(aria.StateError, match=r"'old' holds 0 custom states and 1 are registered: it was saved before"):
        accelerator.load_state(str(tmp_path / "old"))
    assert attach(accelerator, loader) is sampler  # a second time registers nothing
    accelerator.save_state(str(tmp_path / "new"))
    accelerator.load_state(str(tmp_path / "new"))


def test_rounds_close_in_every_pass_under_gradient_accumulation():
    _, rows, _ = run(8, accumulate=4)
    assert len(rows) == 8


def test_log_sends_metrics_to_the_trackers():
    sent = []

    class Tracker(accelerate.tracking.GeneralTracker):
        name, requires_logging_directory = "list", False

        def __init__(self):
            super().__init__()

        @property
        def tracker(self):
            return sent

        def store_init_configuration(self, values):
            pass

        def log(self, values, step=None, **_):
            sent.append((step, values))

    accelerator = Accelerator(cpu=True, log_with=Tracker())
    accelerator.init_trackers("test")
    allocator = an_allocator()
    log(accelerator, allocator, 7)
    switch = RandomConditioning(allocator)
    log(accelerator, switch, 8, prefix="")
    switch.draw(torch.tensor([0, 999]))
    switch.observe(torch.ones(2))
    log(accelerator, switch, 9)
    log(accelerator, allocator.sampler(batch_size=2, num_samples=4), 10)
    (step, first), (_, second), (_, third), (_, fourth) = sent
    assert step == 7
    assert first["aria/round"] == 0.0
    assert "aria/discrepancy_max" not in first  # nothing is known yet
    assert {"round", "top_boost", "ess"} <= set(second)
    assert third["aria/switched"] == switch.metrics()["switched"] > 0
    assert third.keys() - fourth.keys() == {"aria/switched"}


# -- two processes


def refusal(call):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        call()
    return str(error.value)


def _rank(rank, world, port, split, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    os.environ.update(LOCAL_RANK=str(rank), ACCELERATE_USE_CPU="true")
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=split))
    assert accelerator.num_processes == world
    batch = 2 * BATCH if split else BATCH
    loader = accelerator.prepare(a_loader(rows=2 * BATCH, batch=batch))
    sampler = attach(accelerator, loader)
    rows = []
    for _ in range(2):
        for found in loader:
            sampler.observe(index_of(found), loss_of(found["index"]))
            rows.append(found["index"].tolist())
    sampler.synchronize()

    messages = []
    uneven, dispatcher = (
        a_loader(rows=2 * BATCH, batch=batch, epoch=47),
        Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=True)),
    )
    per_rank = a_loader(rows=BATCH, batch=batch)
    sharded = a_loader(rows=4 * BATCH, batch=batch, options={"num_replicas": 2, "rank": rank})
    for bad in (uneven, per_rank, sharded):
        messages.append(refusal(lambda bad=bad: attach(accelerator, accelerator.prepare(bad))))
    before = a_loader(rows=2 * BATCH, batch=2 * BATCH)
    messages.append(refusal(lambda: before.sampler.attach(before)))
    messages.append(refusal(lambda: attach(dispatcher, dispatcher.prepare(a_loader(rows=2 * BATCH)))))
    queue.put((rank, rows, sampler.allocator.digest(), messages))
    accelerator.wait_for_everyone()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("split", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_have_one_allocation(split):
    (_, rows0, digest0, messages), (_, rows1, digest1, _) = on_two_ranks(_rank, split)
    assert digest0 == digest1

    alone, whole = an_allocator(lag=1), []
    loader = dataloader(range(N), alone, batch_size=2 * BATCH, num_samples=EPOCH)
    for _ in range(2):
        for batch in loader:
            whole.append(batch.tolist())
            loader.sampler.observe(batch, loss_of(batch))
    loader.sampler.synchronize()
    assert [a + b for a, b in zip(rows0, rows1, strict=True)] == whole
    assert alone.digest() == digest0

    uneven, per_rank, sharded, group, dispatcher = messages
    assert "accelerate fills up short batches" in uneven
    assert "drop_last=True" in uneven
    assert "or the sampler with batch_size=10" in per_rank
    assert "num_replicas=2 deals out the rows, and so does accelerate" in sharded
    assert "its process group has 2 ranks, and its rows are not dealt out" in group
    assert "dispatch_batches=False" in dispatcher
