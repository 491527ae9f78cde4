"""`RegionMixture`: streams mixed by an allocator, left and resumed anywhere without a sample lost or repeated."""

import copy
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import RegionMixture
from tests.unit.torch.common import through_torch

BATCH, NUM_SAMPLES = 4, 24


class Plain:
    """An iterable that counts how often it was started, and is told of epochs."""

    def __init__(self, base, n):
        self.base, self.n, self.starts, self.epochs = base, n, 0, []

    def __iter__(self):
        self.starts += 1
        return iter(range(self.base, self.base + self.n))

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


class Stateful:
    """A stream with a state: samples that depend on where it is, so skipping would be found."""

    def __init__(self, base, n):
        self.base, self.n, self.at, self.taken = base, n, 0, 0

    def __iter__(self):
        while self.at < self.n:
            self.at += 1
            self.taken += 1
            yield self.base + self.at - 1
        self.at = 0

    def state_dict(self):
        return {"at": self.at, "pad": [1, {"x": b"2"}]}

    def load_state_dict(self, state):
        self.at = state["at"]


def sources(kind="plain"):
    cls = Plain if kind == "plain" else Stateful
    return {"a": cls(0, 5), "b": cls(100, 11), "c": cls(200, 30)}


def make(kind="plain", lag=0, **settings):
    pool = aria.Partition.from_labels([0, 1, 2])
    allocator = aria.Allocator(pool, target="uniform", seed=6, lag=lag)
    return RegionMixture(sources(kind), allocator, **{"batch_size": BATCH, "num_samples": NUM_SAMPLES, **settings})


def losses(batch):
    return np.array([(1 + 9 * (region == 1)) * (1 + sample % 4) for region, sample in batch], float)


def report(mixture, batch):
    mixture.observe([region for region, _ in batch], losses(batch))


def train(mixture, batches):
    """So many batches over as many passes as that takes."""
    seen = []
    while len(seen) < batches:
        rows = iter(mixture)
        while len(seen) < batches and (batch := list(islice(rows, BATCH))):
            seen.append(batch)
            report(mixture, batch)
    return seen


# ------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("lag", [0, 2])
def test_each_sample_is_the_next_of_the_region_that_the_allocator_names(lag):
    """Region by region every source is read in order, from the start again when it ends, and no sample is left out."""
    mixture = make(lag=lag)
    seen = train(mixture, 20)
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), target="uniform", seed=6, lag=lag)
    drawn = []
    for batch in seen:
        while len(allocator.open_rounds) <= lag:
            drawn.append(allocator.draw(BATCH).regions.tolist())
        allocator.observe([region for region, _ in batch], losses(batch))
        allocator.step()
    assert [[region for region, _ in batch] for batch in seen] == drawn[:20]
    for region, source in enumerate(sources().values()):
        taken = [sample for batch in seen for of, sample in batch if of == region]
        assert taken == [source.base + number % source.n for number in range(len(taken))]
        assert len(taken) > (source.n if region < 2 else 0)
    assert mixture.allocator.digest() == allocator.digest()


def test_samples_are_labelled_and_not_changed():
    sample = {"x": 1}
    mixture = RegionMixture({"only": [sample]}, batch_size=1)
    assert next(iter(mixture)) == {"x": 1, "region": 0}
    assert sample == {"x": 1}
    assert next(iter(RegionMixture({"only": ["text"]}, batch_size=1))) == (0, "text")
    assert next(iter(RegionMixture({"only": [(1, 2)]}, batch_size=1))) == (0, (1, 2))


def test_a_source_is_told_how_often_it_was_started_before():
    mixture = make()
    train(mixture, 30)
    for source in mixture._sources:
        plain = source._iterable
        assert plain.epochs == list(range(1, plain.starts))
    assert mixture._sources[0]._iterable.starts > 2


def test_sources_that_cannot_go_on():
    for sources_, words in (
        ({"a": [1, 2], "empty": []}, "'empty' ended after 0 samples: it is empty"),
        ({"a": [1, 2], "once": iter([7, 8])}, "'once' ended after 2 samples: it is an iterator"),
    ):
        mixture = RegionMixture(sources_, batch_size=4)
        with pytest.raises(ValueError, match=words):
            train(mixture, 9)


def test_what_is_no_source_or_no_setting():
    for wrong in (None, {}, [range(3)], {"a": 5}):
        with pytest.raises(ValueError, match="sources"):
            RegionMixture(wrong)
    with pytest.raises(ValueError, match="sources: expected 3, one a region, got 2"):
        RegionMixture({"a": [1], "b": [2]}, aria.Allocator(aria.Partition.from_labels([0, 1, 2])))
    with pytest.raises(ValueError, match="allocator"):
        RegionMixture({"a": [1]}, allocator=aria.Partition.from_labels([0]))
    for settings, words in (
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 4, "num_samples": 10}, "num_samples=10: expected a multiple of batch_size=4"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_replicas": 3, "batch_size": 4}, "batch_size=4: expected a multiple of num_replicas=3"),
        ({"rank": 1}, "rank=1"),
        ({"check_every": 0}, "check_every=0"),
    ):
        with pytest.raises(ValueError, match=words):
            RegionMixture({"a": [1]}, **settings)


def test_the_default_allocator_holds_all_regions_alike():
    mixture = RegionMixture({"x": [1], 2: [3]}, batch_size=2)
    assert mixture.names == mixture.allocator.partition.names == ("x", "2")
    assert mixture.allocator.target.tolist() == [0.5, 0.5]


def test_length_and_epochs():
    mixture = make()
    assert len(mixture) == NUM_SAMPLES
    assert len(make(num_replicas=2, rank=1)) == NUM_SAMPLES // 2
    for _ in range(3):
        rows = list_and_observe(mixture)
        assert len(rows) == NUM_SAMPLES
    endless = make(num_samples=None)
    with pytest.raises(TypeError, match="no length"):
        len(endless)
    assert len(train(endless, 50)) == 50


def list_and_observe(mixture):
    rows, seen = iter(mixture), []
    while batch := list(islice(rows, BATCH)):
        seen += batch
        report(mixture, batch)
    return seen


def test_in_a_loader_and_not_in_its_workers():
    mixture, by_hand = make(), make()
    loader = DataLoader(mixture, batch_size=BATCH)
    seen = []
    for regions, samples in loader:
        batch = list(zip(regions.tolist(), samples.tolist(), strict=True))
        seen.append(batch)
        mixture.observe(regions, torch.as_tensor(losses(batch), dtype=torch.float32))
    assert seen == train(by_hand, 6)
    with pytest.raises(RuntimeError, match="RegionMixture in a worker process"):
        next(iter(DataLoader(mixture, batch_size=BATCH, num_workers=1)))


def test_it_is_true_whether_or_not_it_has_a_length():
    """``mixture or other``, as hosts write it, does not ask for its length."""
    assert make(num_samples=None)
    assert make()
    endless = make(num_samples=None)
    assert (endless or None) is endless


def test_a_lag_too_small():
    mixture = make(lag=1)
    with pytest.raises(aria.FeedbackLagError, match="lag=2 or more"):
        list(mixture)


# ------------------------------------------------------------------------------ feedback


def test_in_parts_and_with_samples_missing():
    whole, parts = make(), make()
    for _ in range(5):
        batch = list(islice(whole, BATCH))
        assert list(islice(parts, BATCH)) == batch
        report(whole, batch)
        regions = torch.tensor([region for region, _ in batch])
        for rows in (slice(0, 1), slice(1, 1), slice(1, 4)):
            parts.observe(regions[rows], losses(batch)[rows], step=False)
        parts.step()
    assert whole.allocator.digest() == parts.allocator.digest()
    batch = list(islice(whole, BATCH))
    whole.observe([batch[2][0]], [5.0])
    assert whole.allocator.round == 6


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_only_samples_with_credit_are_credited(kind, parts):
    """The others count as drawn, and are no dropped losses: as if they had not been reported."""
    mixture, twin = make(), make()
    for number in range(12):
        batch = list(islice(mixture, BATCH))
        assert list(islice(twin, BATCH)) == batch
        regions, values = [region for region, _ in batch], losses(batch)
        credit = [(sample + number) % 3 > 0 for _, sample in batch]
        if parts:
            mixture.observe(regions[:1], values[:1], credit=kind(credit[:1]), step=False)
        values[~np.array(credit)] = [1e9, np.nan][number % 2]
        first = int(parts)
        mixture.observe(regions[first:], values[first:], credit=kind(credit[first:]))
        kept = np.flatnonzero(credit)
        twin.observe([regions[row] for row in kept], values[kept])
    assert mixture.allocator.digest() == twin.allocator.digest()
    assert mixture.allocator.metrics()["dropped_losses"] == 0
    batch = list(islice(mixture, BATCH))
    before = mixture.state_dict()
    for wrong in ([True], [1, 0, 2, 1], "yes"):
        with pytest.raises(ValueError, match="credit: expected bools, one a row"):
            mixture.observe([region for region, _ in batch], losses(batch), credit=wrong)
    assert mixture.state_dict() == before


def test_refused_with_nothing_changed():
    mixture = make()
    with pytest.raises(RuntimeError, match=r"observe\(\) without an open round"):
        mixture.observe([0], [1.0])
    batch = list(islice(mixture, BATCH))
    mixture.observe([batch[0][0]], [losses(batch)[0]], step=False)
    before = mixture.allocator.digest()
    for regions, values, words in (
        ([0, 1, 2, 0], [1.0] * 4, "5 samples reported in a batch of 4.*if a sample is itself a batch"),
        ([3], [1.0], r"regions: expected values in \[0, 3\)"),
        ([0.5], [1.0], "regions: expected integers"),
        ([0, 1], [1.0], "losses: expected 2 numbers, got 1"),
        ([0], 1.0, "reduction='none'"),
    ):
        with pytest.raises(ValueError, match=words):
            mixture.observe(regions, values)
    assert mixture.allocator.digest() == before
    mixture.observe([region for region, _ in batch[1:]], losses(batch)[1:])
    other = make()
    train(other, 1)
    assert mixture.allocator.digest() == other.allocator.digest()


def test_weights_are_those_of_the_draw():
    mixture = make(lag=1)
    train(mixture, 9)
    rows = iter(mixture)
    batch = list(islice(rows, BATCH))
    next(rows)  # drawn ahead
    draw = mixture.allocator.open_rounds[0]
    regions = torch.tensor([region for region, _ in batch])
    weights = mixture.weights(regions)
    assert weights.dtype == torch.float32
    assert weights.tolist() == draw.weights.astype(np.float32).tolist()
    assert len(set(weights.tolist())) > 1
    assert mixture.weights(regions.flip(0).numpy()).tolist() == weights.flip(0).tolist()
    undrawn = make(batch_size=1, num_samples=None)
    ((region, _),) = islice(undrawn, 1)
    with pytest.raises(ValueError, match="expected regions of the batch of round 0"):
        undrawn.weights([(region + 1) % 3])


def test_regions_that_were_not_drawn_are_refused():
    """A loss is credited to the region that a sample came from, not to one that the loop made up."""
    mixture = make()
    batch = list(islice(mixture, BATCH))
    drawn = [region for region, _ in batch]
    missing = next(region for region in range(3) if drawn.count(region) < BATCH)
    before = mixture.state_dict()
    with pytest.raises(
        ValueError, match=rf"samples are not of the oldest open batch \(round 0\).*more of region {missing}"
    ):
        mixture.observe([missing] * BATCH, [1.0] * BATCH)
    assert mixture.state_dict() == before
    report(mixture, batch)
    assert mixture.allocator.round == 1


@pytest.mark.parametrize("size", [None, 1, 2, 3])
def test_batches_that_are_smaller_than_the_rounds_are_refused(size):
    mixture = make(lag=3)
    regions, _ = next(iter(DataLoader(mixture, batch_size=size)))
    n = size or 1
    words = rf"batch: {n} of the 4 samples of round 0 were asked for, .* if a sample is itself a batch, report the mean"
    with pytest.raises(ValueError, match=words):
        mixture.observe(torch.as_tensor(regions).reshape(-1), torch.ones(n))
    with pytest.raises(ValueError, match="batch: "):
        mixture.step()
    assert mixture.allocator.round == 0


def test_samples_that_are_batches_by_themselves():
    """Buckets of one source each: one loss a sample, the mean of its rows, is credited to their own source."""
    ready = {name: [np.full(4, number)] * 9 for number, name in enumerate("abc")}
    mixture = RegionMixture(ready, batch_size=1)
    for region, rows in islice(DataLoader(mixture, batch_size=None), 30):
        assert (rows == region).all()
        with pytest.raises(ValueError, match=r"4 samples reported in a batch of 1 .*\[losses.mean\(\)\]"):
            mixture.observe([region] * len(rows), rows.double())
        mixture.observe([region], [rows.double().mean()])
    estimate = mixture.allocator.estimate()
    assert estimate.mean == pytest.approx([0, 1, 2])


def test_an_allocator_put_back_without_the_mixture_loses_nothing_in_silence():
    mixture = make(lag=2)
    saved = mixture.state_dict()
    rows = iter(mixture)
    list(islice(rows, 2 * BATCH))
    mixture.allocator.rewind()
    for call in (lambda: next(rows), mixture.state_dict):
        with pytest.raises(RuntimeError, match="samples of round 0 were taken, and are gone"):
            call()
    mixture.load_state_dict(saved)
    assert train(mixture, 6) == train(make(lag=2), 6)


# ------------------------------------------------------------------------------ left and resumed


@pytest.mark.parametrize("kind", ["plain", "stateful"])
@pytest.mark.parametrize("ahead", [1, 3])
def test_a_pass_left_early_replays_what_was_not_observed(kind, ahead):
    """Samples that were yielded and never reported come again, the same, and are taken from their sources once."""
    mixture, whole = [make(kind, lag=3, num_samples=None) for _ in range(2)]
    whole = train(whole, 12)
    seen = train(mixture, 4)
    flying = list(islice(mixture, ahead * BATCH))
    assert flying == [row for batch in whole[4 : 4 + ahead] for row in batch]
    assert list(islice(mixture, ahead * BATCH)) == flying
    if kind == "stateful":
        taken = sum(source._iterable.taken for source in mixture._sources)
        assert taken == (4 + ahead) * BATCH
    assert seen + train(mixture, 8) == whole


@pytest.mark.parametrize("lag", [0, 2])
def test_iter_alone_changes_nothing(lag):
    mixture = make(lag=lag)
    train(mixture, 7)
    rows = iter(mixture)
    batch = list(islice(rows, BATCH))
    mixture.observe([batch[0][0]], losses(batch[:1]), step=False)
    before = mixture.state_dict(), [draw.items.tolist() for draw in mixture.allocator.open_rounds]
    for _ in range(3):
        iter(mixture)
    assert (mixture.state_dict(), [draw.items.tolist() for draw in mixture.allocator.open_rounds]) == before
    report(mixture, batch[1:])
    twin = make(lag=lag)
    train(twin, 8)
    assert mixture.state_dict() == twin.state_dict()
    assert list(islice(rows, BATCH)) == list(islice(twin, BATCH))  # and the pass goes on


def test_a_newer_pass_takes_the_place_of_the_older():
    mixture = make(lag=2)
    older = iter(mixture)
    batch = list(islice(older, BATCH))
    newer = iter(mixture)
    assert list(islice(newer, BATCH)) == batch
    with pytest.raises(RuntimeError, match="newer iterator of this mixture"):
        next(older)
    mixture.load_state_dict(mixture.state_dict())
    with pytest.raises(RuntimeError, match="a loaded state"):
        next(newer)


@pytest.mark.parametrize("kind", ["plain", "stateful"])
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 5, 6, 9, 14])
def test_resumes_exactly(stop, lag, kind):
    """With samples in flight, over restarts of sources and ends of epochs."""
    whole = train(make(kind, lag=lag), 22)
    straight = make(kind, lag=lag)
    seen = train(straight, stop)
    list(islice(straight, (lag + 1) * BATCH - 1))
    state = through_torch(straight.state_dict())
    resumed = make(kind, lag=lag)
    train(resumed, 3)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert seen + train(resumed, 22 - stop) == whole


def test_a_stateful_source_is_not_read_again_to_get_there():
    straight = make("stateful")
    train(straight, 9)
    resumed = make("stateful")
    resumed.load_state_dict(straight.state_dict())
    assert sum(source._iterable.taken for source in resumed._sources) == 0


def test_a_real_stateful_source_resumes():
    """torchdata's loader as a source, with shuffled samples and a state of its own."""
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")
    from torchdata.stateful_dataloader.sampler import RandomSampler

    def shuffled(base):
        # a generator of its own: the loader takes its worker seed from that which it is given, but not on resuming
        data = list(range(base, base + 9))
        order = RandomSampler(data, generator=torch.Generator().manual_seed(base))
        return torchdata.StatefulDataLoader(data, batch_size=None, sampler=order)

    def real():
        return RegionMixture({"a": shuffled(0), "b": shuffled(100)}, batch_size=BATCH, num_samples=NUM_SAMPLES)

    def numbers(batches):
        return [[(region, int(sample)) for region, sample in batch] for batch in batches]

    whole = numbers(train(real(), 10))
    for stop in range(7):
        straight = real()
        seen = numbers(train(straight, stop))
        state = through_torch(straight.state_dict())
        resumed = real()
        resumed.load_state_dict(state)
        assert seen + numbers(train(resumed, 10 - stop)) == whole


def test_iterators_cannot_be_resumed():
    def once():
        return RegionMixture({"a": iter(range(100)), "b": iter(range(100))}, batch_size=BATCH)

    straight = once()
    start = straight.state_dict()
    train(straight, 3)
    state = straight.state_dict()
    resumed = once()
    before = copy.deepcopy(resumed.state_dict())
    with pytest.raises(aria.StateError, match="its source is an iterator, which cannot go back"):
        resumed.load_state_dict(state)
    assert resumed.state_dict() == before
    with pytest.raises(aria.StateError, match="cannot go back"):
        straight.load_state_dict(start)
    straight.load_state_dict(state)  # it is there
    assert train(straight, 2) == train_from(once(), 3, 2)


def train_from(mixture, skip, batches):
    return train(mixture, skip + batches)[skip:]


class Refuses(Stateful):
    """Does not take a state that comes from further on."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        if self.at > 4:
            raise KeyError("at")


SHORT = {
    "shorter": (lambda: range(5), aria.StateError, r"'z' ended after 5 of \d+ samples"),
    "refuses": (lambda: Refuses(0, 40), KeyError, "at"),
    "another allocation": (lambda: Plain(0, 40), aria.StateError, "lag: '?1'? there, '?0'? here"),
}


@pytest.mark.parametrize("kind", SHORT)
@pytest.mark.parametrize("done", [0, 1, 4])
def test_a_state_that_cannot_be_loaded_changes_nothing(kind, done):
    """Neither the allocation nor a source: those before the one that fails go back to where they were."""
    last, error, words = SHORT[kind]

    def mixing(last, lag=0):
        allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), target="uniform", lag=lag)
        its = {"plain": Plain(100, 7), "stateful": Stateful(200, 7), "z": last}
        return RegionMixture(its, allocator, batch_size=BATCH)

    straight = mixing(Stateful(0, 40) if kind == "refuses" else range(40), lag=int(kind == "another allocation"))
    train(straight, 18)
    state = straight.state_dict()
    assert state["sources"][0]["cycle"] > 0
    target, twin = mixing(last()), mixing(last())
    train(target, done)
    train(twin, done)
    flying = list(islice(target, 2))  # drawn, and not observed
    before = copy.deepcopy(target.state_dict())
    for _ in range(2):
        with pytest.raises(error, match=words):
            target.load_state_dict(state)
        assert target.state_dict() == before
        assert len(target.allocator.open_rounds) == 1
    assert list(islice(target, 2)) == flying
    assert train(target, 9) == train(twin, 9)
    assert target.state_dict() == twin.state_dict()


def test_a_source_that_has_no_state_before_it_is_started():
    """As Hugging Face's streaming datasets: their state is None until then, and a rare region is started late."""

    class Late(Stateful):
        def state_dict(self):
            return super().state_dict() if self.at else None

    def mixing():
        allocator = aria.Allocator(aria.Partition.from_labels([0, 1]), target=[1, 0])
        return RegionMixture({"a": Late(0, 50), "never": Late(100, 50)}, allocator, batch_size=BATCH)

    whole = train(mixing(), 12)
    for stop in (0, 1, 2, 5):
        straight = mixing()
        seen = train(straight, stop)
        resumed = mixing()
        resumed.load_state_dict(through_torch(straight.state_dict()))
        assert seen + train(resumed, 12 - stop) == whole


def test_a_source_that_goes_back_to_its_first_cycle_is_told_so():
    class Shuffled(Plain):
        epoch = 0

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter((np.random.default_rng(self.epoch).permutation(self.n) + self.base).tolist())

    def mixing():
        return RegionMixture({"a": Shuffled(0, 6), "b": Shuffled(100, 6)}, batch_size=BATCH)

    mixture = mixing()
    whole = train(mixing(), 9)
    seen = train(mixture, 1)
    state = mixture.state_dict()
    assert seen + train(mixture, 8) == whole
    mixture.load_state_dict(state)
    assert seen + train(mixture, 8) == whole


def test_states_of_other_mixtures_are_refused_with_nothing_changed():
    straight = make("stateful")
    train(straight, 2)
    state = straight.state_dict()
    target = make("stateful")
    train(target, 1)
    before = copy.deepcopy(target.state_dict())
    broken = {**state, "sources": [*state["sources"][:2], {**state["sources"][2], "own": 5}]}
    for wrong, words in (
        ({**state, "names": ["a", "b", "d"]}, "names="),
        ({**state, "batch_size": 8}, "batch_size=8 there, 4 here"),
        ({**state, "sources": state["sources"][:2]}, "expected 3 entries in 'sources', got 2"),
        (broken, "'own'"),
        ({**state, "allocator": {}}, "schema"),
        ({key: value for key, value in state.items() if key != "epoch_start"}, "epoch_start"),
        (None, "state"),
    ):
        with pytest.raises(aria.StateError, match=words):
            target.load_state_dict(wrong)
        assert target.state_dict() == before
    for one, other in (("stateful", "plain"), ("plain", "stateful")):
        mixture = make(one)
        train(mixture, 2)
        target = make(other)
        train(target, 1)
        before = copy.deepcopy(target.state_dict())
        words = f"had a source with{'out' if one == 'plain' else ''} a state of its own, this one has"
        with pytest.raises(aria.StateError, match=words):
            target.load_state_dict(mixture.state_dict())
        assert target.state_dict() == before


class Flaky:
    """Fails once, as a network does; what is left of its iterator looks ended."""

    def __init__(self):
        self.failed = False

    def __iter__(self):
        for number in range(100):
            if number == 7 and not self.failed:
                self.failed = True
                raise OSError("connection reset")
            yield number


def test_a_source_that_fails_loses_nothing_in_silence():
    mixture = RegionMixture({"flaky": Flaky(), "sound": range(100)}, batch_size=4, num_samples=400)
    saved, seen = mixture.state_dict(), []
    try:
        for region, sample in DataLoader(mixture, batch_size=4):
            seen.append((region.tolist(), sample.tolist()))
            mixture.observe(region, 1.0 + region)
            saved = mixture.state_dict()
    except OSError:
        pass
    else:
        pytest.fail("the source should have failed")
    with pytest.raises(RuntimeError, match="a source failed in the middle of a round"):
        list(mixture)
    mixture.load_state_dict(saved)
    seen += [(region.tolist(), sample.tolist()) for region, sample in islice(DataLoader(mixture, batch_size=4), 1)]
    for number in range(2):
        samples = [s for regions, values in seen for r, s in zip(regions, values, strict=True) if r == number]
        assert samples == list(range(len(samples)))


class Streaming(Stateful):
    """What Hugging Face's streaming datasets look like inside: layers of examples, one a buffer that is not saved."""

    def __init__(self, base, n, *layers):
        super().__init__(base, n)
        inner = None
        for name in layers:
            layer = type(name, (), {})()
            layer.ex_iterable = inner
            if name == "Interleaved":
                layer.ex_iterables = [inner]
                del layer.ex_iterable
            inner = layer
        self._ex_iterable = inner


BUFFER = "BufferShuffledExamplesIterable"


@pytest.mark.parametrize(
    ("layers", "warns"),
    [
        ((), False),
        (("ArrowExamplesIterable", "MappedExamplesIterable"), False),
        ((BUFFER,), True),
        (("ArrowExamplesIterable", BUFFER, "MappedExamplesIterable", "Interleaved", "TakeExamplesIterable"), True),
    ],
)
def test_a_shuffle_buffer_that_is_not_saved_warns_when_it_is_resumed(layers, warns):
    def mixing():
        return RegionMixture({"a": Streaming(0, 50, *layers), "b": range(50)}, batch_size=4)

    straight = mixing()
    mixing().load_state_dict(straight.state_dict())  # nothing is in a buffer before the first sample
    train(straight, 2)
    resumed = mixing()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            resumed.load_state_dict(straight.state_dict())
    words = [str(warning.message) for warning in caught if warning.category is aria.AriaWarning]
    assert len(words) == 2 * warns
    assert all("['a'] shuffle in a buffer that is not in their state" in each for each in words)


class Buffered(Stateful):
    """Shuffled as Hugging Face's ``shuffle(buffer_size=...)``: the state has the place of what is below, no buffer."""

    def __init__(self, base, n, buffer_size):
        super().__init__(base, n)
        self.buffer_size = buffer_size
        self._ex_iterable = type(BUFFER, (), {})()

    def __iter__(self):
        rng, buffer = np.random.default_rng(1), []
        for sample in super().__iter__():
            if len(buffer) < self.buffer_size:
                buffer.append(sample)
                continue
            place = int(rng.integers(self.buffer_size))
            yield buffer[place]
            buffer[place] = sample
        yield from buffer


def resumed_again_and_again(mixing, times=10, batches=10):
    """A run that is saved, ended and resumed so many times: all its samples, and its warnings."""
    state, samples = None, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(times):
            mixture = mixing()
            if state is not None:
                mixture.load_state_dict(state)
            samples += [sample for batch in train(mixture, batches) for _, sample in batch]
            state = through_torch(mixture.state_dict())
    return samples, [str(warning.message) for warning in caught if warning.category is aria.AriaWarning]


@pytest.mark.parametrize("kind", ["shuffled in a buffer", "plain", "with a state", "the same shuffle"])
def test_only_a_shuffle_buffer_loses_and_repeats_samples_and_says_so_once(kind):
    """The settings of the report: resumed ten times, a buffer of 50. The others are exact."""
    n = 400

    def mixing():
        source = {
            "shuffled in a buffer": lambda: Buffered(0, n, 50),
            "plain": lambda: range(n),
            "with a state": lambda: Stateful(0, n),
            "the same shuffle": lambda: np.random.default_rng(3).permutation(n).tolist(),
        }[kind]()
        return RegionMixture({"a": source}, batch_size=BATCH)

    samples, said = resumed_again_and_again(mixing)
    assert len(samples) == n
    assert (len(set(samples)) == n) == (kind != "shuffled in a buffer")
    assert len(said) == (kind == "shuffled in a buffer")


def test_a_buffer_inside_a_loader_is_found():
    class Loader(Stateful):
        dataset = Buffered(0, 9, 3)

    straight, resumed = (RegionMixture({"a": Loader(0, 50)}, batch_size=BATCH) for _ in range(2))
    train(straight, 2)
    with pytest.warns(aria.AriaWarning, match=r"\['a'\] shuffle in a buffer"):
        resumed.load_state_dict(straight.state_dict())


class Samples:
    """Samples in an order of this run's own, as shards shuffled without a seed, of any form."""

    def __init__(self, seed, form):
        self.seed, self.form = seed, form

    def __iter__(self):
        rng = np.random.default_rng(self.seed)
        for number in rng.permutation(60).tolist():
            yield self.form(number, rng)


FORMS = {
    "number": lambda number, rng: number,
    "text": lambda number, rng: {"text": f"caption {number}", "image": rng.random((2, 2))},
    "webdataset": lambda number, rng: {"__key__": f"{number:05}", "x.npy": rng.random(3)},
    "tensor": lambda number, rng: (torch.full((2, 2), float(number)), None),
    "array": lambda number, rng: np.full(3, number),
    "nested": lambda number, rng: [{"meta": {"id": number}}, rng.random()],
    "class": lambda number, rng: (rng.random(3), number % 3),
    "float": lambda number, rng: {"x": float(number)},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_source_in_another_order_than_before_is_found(form):
    """A shuffle without a seed. In the same order nothing is said, though the images are augmented at random."""

    def mixing(seed):
        return RegionMixture({"a": Samples(seed, FORMS[form]), "b": range(60)}, batch_size=BATCH)

    straight = mixing(1)
    for batch in islice(DataLoader(straight, batch_size=BATCH, collate_fn=list), 8):
        regions = [row["region"] if isinstance(row, dict) else row[0] for row in batch]
        straight.observe(regions, np.ones(BATCH))
    state = through_torch(straight.state_dict())
    assert state["sources"][0]["position"] > 5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixing(1).load_state_dict(state)
    resumed = mixing(2)
    with pytest.warns(aria.AriaWarning, match=r"sources: \['a'\] gave other samples, or in another order"):
        resumed.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = resumed.state_dict()
        mixing(2).load_state_dict(again)


def test_what_tells_no_samples_apart_is_never_astray():
    class Thing:
        pass

    class Fails(dict):
        def values(self):
            raise KeyError

    def things():
        return [Thing(), torch.eye(2).to_sparse(), torch.ones(2) + 1j, {"x": Fails()}, None, {1, 2}]

    straight, resumed = (RegionMixture({"a": things()}, batch_size=6) for _ in range(2))
    assert len(list(islice(straight, 6))) == 6
    straight.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed.load_state_dict(straight.state_dict())


def test_an_entry_of_the_samples_is_not_replaced():
    mixture = RegionMixture({"a": [{"region": "Europe"}]})
    with pytest.raises(ValueError, match=r"the samples of region 'a' have an entry \"region\" already"):
        next(iter(mixture))


def test_regions_that_read_the_same_object():
    """Fine where each iterator has a place of its own; otherwise neither could be put back."""
    for one in (Stateful(0, 9), iter(range(9))):
        with pytest.raises(ValueError, match="regions 'a' and 'b' read the same object, which has one place"):
            RegionMixture({"a": one, "c": [1], "b": one})
    same = range(9)
    assert len(train(RegionMixture({"a": same, "b": same}, batch_size=BATCH), 8)) == 8


def test_sources_in_another_order_than_the_regions_are_refused():
    """Names of text are numbered in their order: sources by the same names must not be taken one for the other."""
    allocator = aria.Allocator(aria.Partition.from_labels(["web", "books", "web"]))
    with pytest.raises(ValueError, match=r"expected them in the order of .*books.*Try: sources = dict\(sorted\("):
        RegionMixture({"web": [1], "books": [2]}, allocator)
    assert RegionMixture({"books": [2], "web": [1]}, allocator).names == ("books", "web")
