"""The law of exact resume on the torch side: states survive what saves them, and a run goes on bit for bit."""

import copy
import gc
from itertools import islice

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import AriaSampler, RandomConditioning, RegionMixture, _feedback
from aria_sampling.torch import sampler as sampler_module
from tests.helpers import loss_of
from tests.unit.torch.common import (
    BATCH,
    NUM_SAMPLES,
    build,
    expected,
    loss,
    make,
    prepared,
    result,
    through_torch,
    train,
)

# ------------------------------------------------------------------------------ all that has a state


def allocator(**settings):
    return make(lag=2, **settings)


def sampler():
    return make(lag=2).sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)


def conditioning():
    return RandomConditioning(make(lag=2), schedule=aria.ConstantSwitch(0.6), num_train_timesteps=50, draws_ahead=2)


class Counting:
    """A stream with a state of its own."""

    def __init__(self, n):
        self.n, self.at = n, 0

    def __iter__(self):
        while self.at < self.n:
            self.at += 1
            yield self.at
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def mixture():
    return RegionMixture({"a": range(10), "b": Counting(7), "c": [5, 6]}, batch_size=4, num_samples=24)


POOL = make().partition
FACES = {
    "allocator": allocator,
    "allocator of a policy with a state": lambda: allocator(policy=aria.GroupDRO()),
    "allocator of the baseline": lambda: allocator(policy=aria.PoolPolicy(), target=None),
    "allocator with online coverage": lambda: allocator(coverage=aria.Coverage.online(POOL, half_life=9)),
    "sampler": sampler,
    "conditioning": conditioning,
    "mixture": mixture,
}


def advance(face, rounds):
    """So many rounds, with as many open as the lag allows; what was drawn for them."""
    closed = face.allocator if not isinstance(face, aria.Allocator) else face
    until, seen = closed.round + rounds, []
    while closed.round < until:
        step(face, seen)
    return seen


def step(face, seen):
    if isinstance(face, aria.Allocator):
        for _ in range(1 + face.lag - len(face.open_rounds)):
            r = face.round + len(face.open_rounds)
            present = None if face.coverage is None else [r % 6]
            seen.append((r, face.draw(8, data_rows=r, present=present).items.tolist()))
        draw = face.open_rounds[0]
        face.observe(draw.regions, loss_of(draw))
        face.step()
    elif isinstance(face, RandomConditioning):
        for _ in range(1 + face.allocator.lag - len(face.allocator.open_rounds)):
            r = face.allocator.round + len(face.allocator.open_rounds)
            s = face.draw((torch.arange(10) * 7 + r) % 50)
            seen.append((s.round, s.mask.tolist(), s.items.tolist()))
        face.observe(1.0 + torch.arange(10) + face.allocator.round % 3)
    elif isinstance(face, AriaSampler):
        index = list(islice(face, BATCH))  # a pass of one batch: the next goes on from what was observed
        index = index if index[BATCH:] else index[: len(face.allocator.open_rounds[0].items)]
        seen.append(index)
        face.observe(index, loss(index))
    else:
        batch = list(islice(face, 4))
        seen.append(batch)
        face.observe([region for region, _ in batch], [1.0 + region + sample % 2 for region, sample in batch])


def as_dictionary(state, face, folder):
    """torch.distributed.checkpoint of a plain dictionary, read into one of the same shape."""
    dcp.save({"face": state}, checkpoint_id=folder, no_dist=True)
    read = {"face": face.state_dict()}
    dcp.load(read, checkpoint_id=folder, no_dist=True)
    return read["face"]


def through_file(state, face, folder):
    return through_torch(state)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("carrier", [through_file, as_dictionary])
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
@pytest.mark.parametrize("name", FACES)
def test_a_saved_state_goes_on_as_the_run_did(name, stop, carrier, tmp_path):
    straight, resumed = FACES[name](), FACES[name]()
    advance(straight, stop)
    state = straight.state_dict()
    advance(resumed, 2)  # what it has done before must not matter
    resumed.load_state_dict(carrier(state, FACES[name](), tmp_path))
    assert resumed.state_dict() == state
    rest, again = advance(straight, 5), advance(resumed, 5)
    assert rest == again[len(again) - len(rest) :]
    assert resumed.state_dict() == straight.state_dict()


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("stop", [0, 4])
@pytest.mark.parametrize("name", FACES)
def test_distributed_checkpoint_saves_and_loads_the_object_itself(name, stop, tmp_path):
    """It takes the shape of what it reads from the object it reads into, which is at another round."""
    straight, resumed = FACES[name](), FACES[name]()
    advance(straight, stop)
    dcp.save({"face": straight}, checkpoint_id=tmp_path, no_dist=True)
    advance(resumed, 2)
    dcp.load({"face": resumed}, checkpoint_id=tmp_path, no_dist=True)
    assert resumed.state_dict() == straight.state_dict()
    rest, again = advance(straight, 3), advance(resumed, 3)
    assert rest == again[len(again) - len(rest) :]


def structure(value):
    """Keys, types, dtypes, shapes and sizes, without the values."""
    if isinstance(value, dict):
        same = {key: value[key] for key in ("dtype", "shape") if "data" in value}
        return same, {key: structure(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [structure(entry) for entry in value]
    return (type(value), len(value)) if isinstance(value, bytes) else type(value)


@pytest.mark.parametrize("name", FACES)
def test_the_structure_of_a_state_never_changes(name):
    face = FACES[name]()
    first = structure(face.state_dict())
    for _ in range(9):
        advance(face, 1)
        assert structure(face.state_dict()) == first


@pytest.mark.parametrize("name", FACES)
def test_a_state_is_a_value(name):
    """Going on does not change a state that was taken, nor does changing it change the object."""
    face = FACES[name]()
    advance(face, 3)
    state = face.state_dict()
    kept = copy.deepcopy(state)
    advance(face, 3)
    assert state == kept
    other = FACES[name]()
    other.load_state_dict(state)
    spoil(state)
    assert other.state_dict() == kept


def spoil(value):
    for entry in value.values() if isinstance(value, dict) else value:
        if isinstance(entry, dict | list):
            spoil(entry)
    value.clear()


# ------------------------------------------------------------------------------ batches in flight


@pytest.mark.parametrize("stop", range(1, 14))
def test_batches_that_were_drawn_ahead_come_again(stop):
    """A loader with workers, left at any batch of two epochs and a bit."""
    whole = expected(16, lag=4)[0]
    straight, loader = build(lag=4, workers=1)
    seen = []
    while len(seen) < stop:
        for index in loader:
            seen.append(index.tolist())
            straight.observe(index, loss(index))
            if len(seen) == stop:
                state = through_torch(straight.state_dict())
                break
    resumed, loader = build(lag=4, state=state)
    while len(seen) < 16:
        for index in islice(loader, 16 - len(seen)):
            seen.append(index.tolist())
            resumed.observe(index, loss(index))
    assert seen == whole
    assert resumed.allocator.digest() == expected(16, lag=4)[1]


def test_a_batch_half_reported_is_not_in_the_state():
    straight, loader = build()
    index = next(iter(loader))
    state = straight.state_dict()
    straight.observe(index[:5], loss(index[:5]), step=False)
    assert straight.state_dict() == state
    straight.load_state_dict(state)  # and is forgotten by what is loaded
    index = next(iter(loader))
    straight.observe(index, loss(index))
    assert straight.allocator.digest() == expected(1)[1]


def test_what_was_learnt_goes_on_with_another_batch_size():
    """The way out that the message names: the allocator's part of the state, and new epochs."""
    straight, loader = build(lag=1)
    train(straight, loader, 4)
    state = through_torch(straight.state_dict())
    other, loader = build(lag=1, batch_size=12)
    with pytest.raises(aria.StateError, match=r"Try: sampler.allocator.load_state_dict\(.*; sampler.new_epoch\(\)"):
        other.load_state_dict(state)
    other.allocator.load_state_dict(state["allocator"])
    other.new_epoch()
    assert other.allocator.round == 4
    assert len(train(other, loader)) == -(-NUM_SAMPLES // 12)


WAYS = {
    "more workers": ({"lag": 5}, r"lag: '1' there, '5' here; the stream cannot go on, and what was learnt can"),
    "another seed": ({"seed": 9}, "seed: '3' there, '9' here; the stream cannot go on"),
    "another exploration": ({"exploration": 0.5}, "exploration: '0.2' there, '0.5' here; the stream cannot go on"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["sampler", "mixture"])
def test_a_run_that_goes_on_otherwise_is_told_how(kind, way):
    """Resumed with other workers or settings: the message names the way on, which carries over what was learnt."""
    settings, words = WAYS[way]

    def face(**settings):
        allocator = make(**{"lag": 1, **settings})
        if kind == "sampler":
            return allocator.sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)
        return RegionMixture({name: range(10) for name in allocator.partition.names}, allocator, batch_size=4)

    straight, other = face(), face(**settings)
    advance(straight, 4)
    state = through_torch(straight.state_dict())
    before = other.state_dict()
    adopt = rf'Try: {kind}.allocator.adopt\(state\["allocator"\], partition={kind}.allocator.partition\)'
    with pytest.raises(aria.StateError, match=f"{words}.*{adopt}") as caught:
        other.load_state_dict(state)
    assert other.state_dict() == before
    exec(caught.value.remedy, {kind: other, "state": state})
    assert other.allocator.estimate().mean == pytest.approx(straight.allocator.estimate().mean)
    assert len(advance(other, 3)) >= 3


def test_a_run_that_has_begun_cannot_take_over_another():
    straight, other = build(lag=1)[0], build(lag=3)[0]
    advance(straight, 2)
    advance(other, 1)
    with pytest.raises(aria.StateError, match="before its first draw another allocator can take over") as caught:
        other.load_state_dict(straight.state_dict())
    assert caught.value.remedy is None
    damaged = straight.state_dict()
    damaged["allocator"]["config"] = {"lag": "1"}
    with pytest.raises(aria.StateError, match="estimator: None there") as caught:
        build(lag=1)[0].load_state_dict(damaged)
    assert caught.value.remedy is None


def test_states_of_other_samplers_are_refused_with_nothing_changed():
    straight, _ = build(lag=1)
    state = straight.state_dict()
    for settings, words in (
        ({"batch_size": 12}, "batch_size=24 there, 12 here"),
        ({"num_samples": 100}, "num_samples=127 there, 100 here"),
        ({"drop_last": True}, "drop_last=0 there, 1 here"),
        ({"lag": 2}, "lag: '?1'? there, '?2'? here"),
        ({"data_rows_per_batch": 5}, r"data_rows_per_batch=-1 there, 5 here.*sampler.allocator.load_state_dict\(state"),
    ):
        other, loader = build(**{"lag": 1, **settings})
        next(iter(loader))
        before, opened = other.state_dict(), other.allocator.open_rounds
        with pytest.raises(aria.StateError, match=words):
            other.load_state_dict(state)
        assert (other.state_dict(), other.allocator.open_rounds) == (before, opened)


# ------------------------------------------------------------------------------ torchdata's StatefulDataLoader


BATCHES = 6  # of an epoch
LAST = 20  # batches of a run: three epochs and a bit


def stateful(state=None, *, workers, every=1, lag=4, persistent=False):
    cls = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    options = {"snapshot_every_n_steps": every, "persistent_workers": persistent}
    return build(lag=lag, state=state, loader_class=cls, workers=workers, options=options)


def saved(stop, *, workers, observed, every=1):
    """A run stopped at batch `stop`, before or after it was observed: what it trained on, and both states."""
    run, loader = stateful(workers=workers, every=every)
    seen = []
    while True:
        for index in loader:
            if len(seen) + 1 == stop and not observed:
                return seen, through_torch({"loader": loader.state_dict(), "sampler": run.state_dict()})
            seen.append(index.tolist())
            run.observe(index, loss(index))
            if len(seen) == stop:
                return seen, through_torch({"loader": loader.state_dict(), "sampler": run.state_dict()})


def resume(states, order, seen, *, workers, every=1):
    """Load what `order` says, and train to the end."""
    run, loader = stateful(workers=workers, every=every)
    for what in order:
        {"loader": loader, "sampler": run}[what].load_state_dict(states[what])
    while len(seen) < LAST:
        before = len(seen)
        for index in islice(loader, LAST - len(seen)):
            seen.append(index.tolist())
            run.observe(index, loss(index))
        assert len(seen) > before, "an epoch without batches"
    return seen, result(run)[0]


ORDERS = [("loader",), ("sampler", "loader"), ("loader", "sampler")]
STOPS = [1, 5, 6, 7, 11, 12, 15]


@pytest.mark.parametrize("order", ORDERS, ids="+".join)
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("stop", STOPS)
def test_a_stateful_loader_resumes(stop, observed, order):
    """At the first, a middle, the last batch of an epoch; by its own state, or with the sampler's in any order."""
    seen, states = saved(stop, workers=0, observed=observed)
    assert resume(states, order, seen, workers=0) == expected(LAST, lag=4)


@pytest.mark.parametrize(("stop", "observed", "order"), [
    (1, False, ORDERS[0]), (5, True, ORDERS[0]), (6, False, ORDERS[0]), (6, True, ORDERS[1]), (8, True, ORDERS[2])
])  # fmt: skip
def test_a_stateful_loader_with_workers_resumes(stop, observed, order):
    seen, states = saved(stop, workers=2, observed=observed)
    assert resume(states, order, seen, workers=2) == expected(LAST, lag=4)


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS, ids="+".join)
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("stop", range(1, 14))
def test_a_stateful_loader_with_workers_resumes_anywhere(stop, observed, order):
    seen, states = saved(stop, workers=2, observed=observed)
    assert resume(states, order, seen, workers=2) == expected(LAST, lag=4)


def test_a_state_that_was_saved_before_later_batches_were_trained_on_is_of_its_time():
    """The snapshots of a loader are completed while rounds close; one that was handed out is never touched again."""
    for workers in (0, 1):
        run, loader = stateful(workers=workers)
        iterator, states = iter(loader), []
        for _ in range(4):
            index = next(iterator)
            run.observe(index, loss(index))
            state = loader.state_dict()
            states.append((state, copy.deepcopy(state)))
        assert all(state == copied for state, copied in states)
        del iterator


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_stateful_loader_that_was_never_iterated(workers):
    """Its state is asked for first thing, as accelerate does: nothing may come of that."""
    run, loader = stateful(workers=workers)
    states = through_torch({"loader": loader.state_dict()})
    assert run.allocator.round == 0
    assert resume(states, ("loader",), [], workers=workers) == expected(LAST, lag=4)


@pytest.mark.parametrize("stop", [3, 6, 8])
def test_a_stateful_loader_resumes_where_losses_leave_a_device(stop, monkeypatch):
    """Losses that are on their way when the loader's snapshot is asked for belong to it."""
    monkeypatch.setattr(_feedback, "on_device", lambda *values: any(value is not None for value in values))
    monkeypatch.setattr(sampler_module, "in_order", lambda *values: None)
    alone = build(lag=4)
    whole = [batch for _ in range(3) for batch in train(*alone)]
    sampler, loader = stateful(workers=1)
    seen = []
    while len(seen) < stop:
        for index in loader:
            seen.append(index.tolist())
            sampler.observe(index, loss(index))
            if len(seen) == stop:
                break
    state = loader.state_dict()
    sampler, loader = stateful(workers=1)
    loader.load_state_dict(state)
    while len(seen) < len(whole):
        seen += train(sampler, loader)
    assert seen[: len(whole)] == whole


@pytest.mark.parametrize("stop", [3, 4, 5, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (1, 7, 11, 12))])
@pytest.mark.parametrize("order", ORDERS, ids="+".join)
def test_rare_snapshots_lose_nothing_in_silence(stop, order):
    """With ``snapshot_every_n_steps=3`` the loader draws again what came since and drops it: exact, or an error.

    What was dropped stays open, so what is reported next is not of the oldest open batch. The way out is the
    sampler's own state, and none of the loader's.
    """
    seen, states = saved(stop, workers=1, observed=True, every=3)

    def attempt():
        try:
            return resume(states, order, list(seen), workers=1, every=3)
        except (ValueError, aria.FeedbackLagError):
            return None

    assert attempt() in ((expected(LAST, lag=4),) if stop % 3 == 0 else (expected(LAST, lag=4), None))
    gc.collect()
    assert resume(states, ("sampler",), seen, workers=1, every=3) == expected(LAST, lag=4)


@pytest.mark.parametrize("stateful", [False, True])
def test_under_accelerate_the_samplers_state_resumes(stateful):
    """Whatever loader accelerate makes. (Its stateful one keeps no state of the sampler, and skips batches itself.)"""
    pytest.importorskip("accelerate")
    pytest.importorskip("torchdata.stateful_dataloader")
    for stop in (1, 4, 6, 8):
        seen = []
        run = accelerated_to(stop, None, seen, stateful)
        run = accelerated_to(LAST, through_torch(run.state_dict()), seen, stateful)
        assert (seen, run.allocator.digest()) == expected(LAST, lag=4), stop


def accelerated_to(until, state, seen, stateful):
    run = make(lag=4).sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)
    if state is not None:
        run.load_state_dict(state)
    loader = prepared(run, 0, stateful=stateful)
    while len(seen) < until:
        for index in islice(loader, until - len(seen)):
            seen.append(index.tolist())
            run.observe(index, loss(index))
    return run


def test_a_mixture_in_a_stateful_loader_resumes():
    """The loader keeps the mixture's state with its own, and skips nothing by itself."""
    cls = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def train(mixed, loader, batches, seen):
        until = len(seen) + batches
        while len(seen) < until:
            for regions, samples in islice(loader, until - len(seen)):
                seen.append((regions.tolist(), samples.tolist()))
                mixed.observe(regions, 1.0 + regions + samples % 2)

    whole = []
    mixed = mixture()
    train(mixed, DataLoader(mixed, batch_size=4), 15, whole)
    for stop in (1, 5, 6, 7):
        seen, mixed = [], mixture()
        loader = cls(mixed, batch_size=4)
        train(mixed, loader, stop, seen)
        state = through_torch(loader.state_dict())
        mixed = mixture()
        loader = cls(mixed, batch_size=4)
        loader.load_state_dict(state)
        train(mixed, loader, 15 - stop, seen)
        assert seen == whole
