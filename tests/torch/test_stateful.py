"""Stopped and resumed (law 5) through all that people save with: torch, its distributed checkpoints, torchdata."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning, RegionMixture
from tests.helpers import loss_of, small_pool

FIXTURE = Path(__file__).parents[1] / "fixtures" / "state_schema1.json"
ITEMS, BATCH, SAMPLES, LAG = 60, 5, 48, 8  # ten batches an epoch, the last of 3


def make(lag=LAG, workers=0, loader_class=DataLoader, **options):
    allocator = aria.Allocator(small_pool(6, ITEMS), target="uniform", seed=1, lag=lag)
    sampler = allocator.sampler(batch_size=BATCH, num_samples=SAMPLES)
    options |= {"num_workers": workers, "prefetch_factor": 2 if workers else None}
    return sampler, loader_class(range(ITEMS), batch_size=BATCH, sampler=sampler, **options)


def loss(index):
    return 0.1 + torch.as_tensor(index).double() % 7


def whole_run(batches):
    sampler, loader = make()
    seen = []
    while len(seen) < batches:
        for index in loader:
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
    return seen[:batches]


WHOLE = whole_run(30)


def until(sampler, loader, stop, observe_last):
    """Train up to batch `stop`; its loss is reported or not. What was trained on, and the loader as it stands."""
    seen = []
    while True:
        for index in loader:
            if len(seen) + 1 == stop and not observe_last:
                return seen
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
            if len(seen) == stop:
                return seen


def rest(sampler, loader, seen):
    """Go on to the end of the run; the whole of it."""
    while len(seen) < len(WHOLE):
        before = len(seen)
        for index in loader:
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
        assert len(seen) > before, "an epoch without a batch"
    return seen[: len(WHOLE)]


def through_torch(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -- torchdata's StatefulDataLoader


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("saved", ["loader", "loader, then sampler", "sampler, then loader", "sampler"])
@pytest.mark.parametrize("observe_last", [True, False])
@pytest.mark.parametrize("stop", [1, 4, 9, 10, 11, 20, 25])
def test_stateful_loader(workers, saved, observe_last, stop):
    sampler, loader = make(workers=workers, loader_class=StatefulDataLoader)
    seen = until(sampler, loader, stop, observe_last)
    state = through_torch({"loader": loader.state_dict(), "sampler": sampler.state_dict()})
    sampler, loader = make(workers=workers, loader_class=StatefulDataLoader)
    for part in saved.split(", then "):
        {"loader": loader, "sampler": sampler}[part].load_state_dict(state[part])
    assert rest(sampler, loader, seen) == WHOLE


@pytest.mark.parametrize("stop", [4, 11])
def test_stateful_loader_with_workers(stop):
    """One of the slow ones above, for every run."""
    test_stateful_loader(2, "loader", True, stop)


def test_stateful_loader_that_skips_snapshots_is_exact_or_loud():
    """With a snapshot at every third step the loader replays batches that the sampler cannot be told about."""
    for stop in range(1, 8):
        sampler, loader = make(loader_class=StatefulDataLoader, snapshot_every_n_steps=3, workers=0)
        seen = until(sampler, loader, stop, True)
        state = loader.state_dict()
        sampler, loader = make(loader_class=StatefulDataLoader, snapshot_every_n_steps=3, workers=0)
        loader.load_state_dict(state)
        assert rest(sampler, loader, seen) == WHOLE  # without workers a snapshot is taken when it is asked for


@pytest.mark.slow
@pytest.mark.parametrize("stop", range(1, 8))
def test_stateful_workers_that_skip_snapshots_are_exact_or_loud(stop):
    sampler, loader = make(workers=1, loader_class=StatefulDataLoader, snapshot_every_n_steps=3)
    seen = until(sampler, loader, stop, True)
    state = loader.state_dict()
    sampler, loader = make(workers=1, loader_class=StatefulDataLoader, snapshot_every_n_steps=3)
    loader.load_state_dict(state)
    if stop % 3 == 0:
        assert rest(sampler, loader, seen) == WHOLE
    else:
        with pytest.raises(ValueError, match="not in the oldest open batch"):
            rest(sampler, loader, seen)


def test_a_snapshot_is_not_changed_once_its_batch_is_closed():
    sampler, _ = make(lag=2)
    stream = iter(sampler)
    handed = []
    for _ in range(3):
        batch = [next(stream) for _ in range(BATCH)]
        handed.append((batch, stream.state_dict()))
    assert [state["sampler"]["allocator"]["round"] for _, state in handed] == [0, 0, 0]
    for closed, (batch, _) in enumerate(handed, start=1):
        sampler.observe(batch, loss(batch))
        rounds = [state["sampler"]["allocator"]["round"] for _, state in handed]
        assert rounds == [min(closed, place) for place in (1, 2, 3)]


def test_a_state_of_ones_own_is_never_changed():
    sampler, _ = make(lag=2)
    stream = iter(sampler)
    batch = [next(stream) for _ in range(BATCH)]
    state = sampler.state_dict()
    sampler.observe(batch, loss(batch))
    assert state["allocator"]["round"] == 0
    assert sampler.state_dict()["allocator"]["round"] == 1


# -- torch.save and torch.distributed.checkpoint


def conditioned(rounds=0):
    allocator = aria.Allocator(small_pool(6, ITEMS), target="uniform", seed=2, lag=2)
    switch = RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.6), num_train_timesteps=50)
    for round_ in range(rounds):
        switch.draw((np.arange(8) * 7 + round_) % 50, paired=np.arange(8) - 1)
        switch.observe(0.1 + np.arange(8.0))
    return switch


def sampled(rounds=0):
    sampler, _ = make(lag=2)
    stream = iter(sampler)
    for _ in range(rounds):
        batch = [next(stream) for _ in range(BATCH)]
        sampler.observe(batch, loss(batch))
    return sampler


def mixed(rounds=0):
    mixture = RegionMixture({"a": range(100), "b": [1, 2, 3]}, batch_size=4, num_samples=40)
    stream = iter(mixture)
    for _ in range(rounds):
        regions = [next(stream)[0] for _ in range(4)]
        mixture.observe(regions, 1.0 + np.array(regions))
    return mixture


STATEFUL = [sampled, conditioned, mixed, lambda rounds=0: sampled(rounds).allocator]


@pytest.mark.parametrize("make_one", STATEFUL)
@pytest.mark.parametrize("rounds", [0, 1, 2, 7])
def test_plain_values_through_torch(make_one, rounds):
    state = make_one(rounds).state_dict()
    again = make_one()
    again.load_state_dict(through_torch(state))
    assert again.state_dict() == state


@pytest.mark.parametrize("make_one", STATEFUL)
@pytest.mark.parametrize("rounds", [0, 1, 7])
@pytest.mark.parametrize("whole", [True, False])
def test_distributed_checkpoints(make_one, rounds, whole, tmp_path):
    """Given as an object (DCP calls its methods) and as a dictionary, into an object before its first round."""
    one, other = make_one(rounds), make_one()
    if whole:
        dcp.save({"aria": one}, checkpoint_id=tmp_path, no_dist=True)
        dcp.load({"aria": other}, checkpoint_id=tmp_path, no_dist=True)
    else:
        dcp.save({"aria": one.state_dict()}, checkpoint_id=tmp_path, no_dist=True)
        state = {"aria": other.state_dict()}
        dcp.load(state, checkpoint_id=tmp_path, no_dist=True)
        other.load_state_dict(state["aria"])
    assert other.state_dict() == one.state_dict()


def keys_of(state, path=()):
    """The paths of all leaves."""
    if isinstance(state, dict) and state:
        return {leaf for key, value in state.items() for leaf in keys_of(value, (*path, key))}
    if isinstance(state, list) and state and isinstance(state[0], dict | list):
        return {leaf for key, value in enumerate(state) for leaf in keys_of(value, (*path, key))}
    return {path}


@pytest.mark.parametrize("make_one", STATEFUL)
def test_the_structure_of_a_state_never_changes(make_one):
    start = keys_of(make_one().state_dict())
    assert all(keys_of(make_one(rounds).state_dict()) == start for rounds in (1, 2, 3, 7))


# -- states of earlier versions


def plain(value):
    """The fixture's bytes as bytes."""
    if isinstance(value, dict):
        if set(value) == {"__bytes__"}:
            return base64.b64decode(value["__bytes__"])
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


OLD = json.loads(FIXTURE.read_text())


@pytest.mark.parametrize("which", ["allocator", "allocator_early"])
def test_an_allocator_of_schema_1_goes_on(which):
    pool = aria.Partition.from_labels(OLD["labels"])
    allocator = aria.Allocator(pool, target="uniform", seed=11, lag=2)
    state = plain(OLD[which]["state"])
    assert state["schema"] == 1
    allocator.load_state_dict(state)
    assert allocator.state_dict()["schema"] == 2
    drawn = []
    for _ in range(4):
        while len(allocator.open_rounds) <= 2:
            round_ = allocator.round + len(allocator.open_rounds)
            drawn.append(allocator.draw(6, present=[round_ % 5]))
        draw = allocator.open_rounds[0]
        allocator.observe(draw.regions, loss_of(draw))
        allocator.step()
    then = OLD[which]["then"]
    assert [draw.round for draw in drawn] == [draw["round"] for draw in then]
    assert [draw.items.tolist() for draw in drawn] == [draw["items"] for draw in then]
    for draw, old in zip(drawn, then, strict=True):
        np.testing.assert_allclose(draw.weights, old["weights"], rtol=1e-12)


def test_a_sampler_of_schema_1_goes_on():
    allocator = aria.Allocator(aria.Partition.from_labels(OLD["labels"]), estimator=aria.Ema(0.1), seed=5)
    sampler = allocator.sampler(batch_size=8, num_samples=36)
    sampler.load_state_dict(plain(OLD["sampler"]["state"]))
    batches = []
    for _ in range(2):
        for index in DataLoader(range(40), batch_size=8, sampler=sampler):
            batches.append(index.tolist())
            sampler.observe(index, 1.0 + index % 3)
    assert batches == OLD["sampler"]["then"]


def test_random_conditioning_of_schema_1_goes_on():
    allocator = aria.Allocator(aria.Partition.from_labels(OLD["labels"]), target="uniform", seed=2)
    switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.6), num_train_timesteps=50)
    switch.load_state_dict(plain(OLD["conditioning"]["state"]))
    for step, old in enumerate(OLD["conditioning"]["then"], start=6):
        timesteps = (np.arange(10) * 7 + step) % 50
        s = switch.draw(timesteps, paired=(np.arange(10) + step) % 41 - 1)
        assert s.mask.tolist() == old["mask"]
        assert s.items.tolist() == old["items"]
        switch.observe(0.1 + timesteps / 50 + 0.01 * np.arange(10))


def test_damaged_states_of_schema_1_are_refused():
    pool = aria.Partition.from_labels(OLD["labels"])
    state = plain(OLD["allocator"]["state"])
    allocator = aria.Allocator(pool, target="uniform", seed=11, lag=2)
    before = allocator.digest()
    rows = state["log_phi"]
    for bad, message in [
        ({**state, "schema": 0}, r"schema=0, this one reads \(1, 2\)"),
        ({**state, "schema": 3}, "schema=3"),
        ({**state, "log_phi": [*rows, *rows]}, "6 entries in 'log_phi' do not go with lag 2"),
        ({**state, "log_phi": [{**rows[0], "shape": [1]}]}, "not a whole array"),
        (
            {**state, "log_phi": [{"dtype": "<f8", "shape": [1], "data": bytes(8)}]},
            r"expected float64\[5\], got float64\[1\]",
        ),
        ({**state, "log_phi": 5}, "expected list, got int"),
    ]:
        with pytest.raises(aria.StateError, match=message):
            allocator.load_state_dict(bad)
    assert allocator.digest() == before
