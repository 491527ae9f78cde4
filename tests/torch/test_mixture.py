"""`RegionMixture`: every sample comes from the stream of its region, once and in its order, also after a stop."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling import StateError
from aria_sampling.torch import RegionMixture

BATCH, EPOCH = 6, 48


class Counted:
    """A source with a state of its own: a counter that goes on for ever, told its epoch."""

    def __init__(self):
        self.at = 0
        self.epochs = []

    def __iter__(self):
        while True:
            self.at += 1
            yield self.at

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Short(list):
    """An iterable that can be started again and is told how often it was."""

    def __init__(self, *args):
        super().__init__(*args)
        self.epochs = []

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def sources():
    return {"long": range(1000, 2000), "short": Short([1, 2, 3]), "own": Counted()}


def make(lag=0, **settings):
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), target="uniform", seed=5, lag=lag)
    return RegionMixture(sources(), allocator, **{"batch_size": BATCH, "num_samples": EPOCH, **settings})


def loss(regions):
    return 1.0 + 2.0 * torch.as_tensor(regions)


def train(mixture, batches=None):
    """Train on so many batches of one pass; what came."""
    seen = []
    for region, sample in islice(DataLoader(mixture, batch_size=BATCH), batches):
        seen.append(list(zip(region.tolist(), sample.tolist(), strict=True)))
        mixture.observe(region, loss(region))
    return seen


def test_samples_come_from_their_stream_in_its_order():
    mixture = make()
    batches = [batch for _ in range(3) for batch in train(mixture)]
    assert len(batches) == 3 * EPOCH // BATCH
    by_region = {region: [sample for batch in batches for r, sample in batch if r == region] for region in range(3)}
    assert by_region[0] == list(range(1000, 1000 + len(by_region[0])))
    assert by_region[1] == [1 + i % 3 for i in range(len(by_region[1]))]
    assert by_region[2] == list(range(1, 1 + len(by_region[2])))
    assert [len(by_region[region]) for region in range(3)] == mixture.allocator._progress.cursors.visits.tolist()


def test_the_regions_are_those_of_the_allocator():
    mixture = make()
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), target="uniform", seed=5)
    for batch in train(mixture):
        draw = allocator.draw(BATCH)
        assert draw.regions.tolist() == [region for region, _ in batch]
        allocator.observe(draw.regions, loss(draw.regions).numpy())
        allocator.step()
    assert allocator.digest() == mixture.allocator.digest()


def test_a_source_that_ends_is_started_again_and_told():
    short = Short([1, 2, 3])
    mixture = RegionMixture({"short": short}, batch_size=8)
    assert [sample for _, sample in islice(mixture, 8)] == [1, 2, 3, 1, 2, 3, 1, 2]
    assert short.epochs == [1, 2]


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 5, 8, 11, 16])
def test_a_stopped_run_goes_on_where_it_was(lag, stop):
    def run(mixture, total):
        seen = []
        while len(seen) < total:
            seen += train(mixture, min(EPOCH // BATCH, total - len(seen)))
        return seen

    whole = run(make(lag), 24)
    stopped = make(lag)
    first = run(stopped, stop)
    state = stopped.state_dict()
    resumed = make(lag)
    resumed.load_state_dict(state)
    second = []
    while len(second) < 24 - stop:
        second += train(resumed)
    assert (first + second)[:24] == whole


def test_a_pass_left_early_loses_no_sample():
    mixture = make(lag=3)
    stream = iter(mixture)
    ahead = [next(stream) for _ in range(3 * BATCH)]  # three rounds are open
    mixture.observe([region for region, _ in ahead[:BATCH]], np.ones(BATCH))
    again = iter(mixture)
    assert [next(again) for _ in range(2 * BATCH)] == ahead[BATCH:]
    with pytest.raises(RuntimeError, match="took the place"):
        list(stream)


def test_iterators_cannot_go_back():
    def generator():
        yield from range(100)

    mixture = RegionMixture({"a": generator()}, batch_size=4, num_samples=4)
    start = mixture.state_dict()
    for _ in range(2):
        list(mixture)
        mixture.step()
    assert mixture.allocator.round == 2
    before = mixture.allocator.digest()
    with pytest.raises(StateError, match="region 'a' is to go to sample 0, but its source is an iterator"):
        mixture.load_state_dict(start)
    assert mixture.allocator.digest() == before
    mixture.load_state_dict(mixture.state_dict())  # where it is already
    assert next(iter(mixture)) == (0, 8)


def test_sources_that_end_for_good():
    with pytest.raises(ValueError, match="region 'a' ended after 0 samples: it is empty"):
        next(iter(RegionMixture({"a": []})))
    once = RegionMixture({"a": iter([1, 2])}, batch_size=2)
    stream = iter(once)
    assert [next(stream), next(stream)] == [(0, 1), (0, 2)]
    once.step()
    with pytest.raises(ValueError, match="region 'a' ended after 2 samples: it is an iterator"):
        next(stream)


def test_a_shorter_source_is_noticed_on_resuming():
    long = RegionMixture({"a": range(10)}, batch_size=5, num_samples=5)
    list(long)
    long.step()
    with pytest.raises(StateError, match="ended after 3 of 5 samples"):
        RegionMixture({"a": range(3)}, batch_size=5, num_samples=5).load_state_dict(long.state_dict())


def test_labels_weights_and_defaults():
    mixture = RegionMixture({"x": [{"pixel": 1}], "y": [{"pixel": 2}]}, batch_size=4)
    stream = iter(mixture)
    batch = [next(stream) for _ in range(4)]
    assert all(sample == {"pixel": 1 + sample["region"], "region": sample["region"]} for sample in batch)
    regions = torch.tensor([sample["region"] for sample in batch])
    assert mixture.names == ("x", "y")
    assert mixture.allocator.partition.names == ("x", "y")
    assert mixture.allocator.target.tolist() == [0.5, 0.5]
    draw = mixture.allocator.open_rounds[0]
    assert mixture.weights(regions).tolist() == draw.weights.astype(np.float32).tolist()
    with pytest.raises(TypeError, match="never ends"):
        len(mixture)
    assert len(make()) == EPOCH
    assert len(make(num_replicas=2, rank=1)) == EPOCH // 2


def test_ranks_get_their_block():
    whole, left, right = make(), make(num_replicas=2, rank=0), make(num_replicas=2, rank=1)
    regions = [
        [region for region, _ in islice(mixture, BATCH // mixture.num_replicas)] for mixture in (whole, left, right)
    ]
    assert regions[1] + regions[2] == regions[0]


def test_workers_are_refused():
    with pytest.raises(RuntimeError, match="Use num_workers=0, and give workers to the sources"):
        next(iter(DataLoader(make(), batch_size=BATCH, num_workers=1)))


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (({},), {}, "sources: expected a dictionary of at least one iterable"),
        (([1],), {}, "sources: expected a dictionary"),
        (({"a": 5},), {}, "sources: expected an iterable for region 'a', got int"),
        (({"a": [1]}, 3), {}, "allocator: expected an Allocator, got 3"),
        (
            ({"a": [1]}, aria.Allocator(aria.Partition.from_labels([0, 1]))),
            {},
            "sources: expected 2, one a region, got 1",
        ),
        (({"a": [1]},), {"batch_size": 0}, "batch_size=0: expected an integer >= 1"),
        (({"a": [1]},), {"batch_size": 3, "num_samples": 4}, "num_samples=4: expected a multiple of batch_size=3"),
        (({"a": [1]},), {"batch_size": 3, "num_replicas": 2}, "batch_size=3: expected a multiple of num_replicas=2"),
    ],
)
def test_bad_arguments(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        RegionMixture(*arguments, **settings)


def test_bad_feedback_changes_nothing():
    mixture = make()
    stream = iter(mixture)
    regions = np.array([next(stream)[0] for _ in range(BATCH)])
    before = mixture.state_dict()
    for wrong, message in [
        (((regions + 3), np.ones(BATCH)), "regions: expected values in"),
        ((regions, np.ones(5)), "losses: expected 6 numbers, got 5"),
        ((np.repeat(regions, 2), np.ones(12)), "regions: 12 samples reported in a batch of 6"),
        ((regions * 1.0, np.ones(BATCH)), "regions: expected integers"),
        ((regions, 1.0), "already averaged"),
    ]:
        with pytest.raises(ValueError, match=message):
            mixture.observe(*wrong)
    unseen = [region for region in range(3) if region not in regions]
    for region in unseen:
        with pytest.raises(ValueError, match="expected regions of the batch of round 0"):
            mixture.weights([region])
    assert mixture.state_dict() == before
    mixture.observe(regions[:3], np.ones(3), step=False)
    mixture.observe(regions[3:], np.ones(3))
    assert mixture.allocator.round == 1
    with pytest.raises(RuntimeError, match="without an open batch"):
        mixture.observe(regions, np.ones(BATCH))


def test_states_that_do_not_fit():
    state = make().state_dict()
    for other, message in [
        (RegionMixture({"a": [1], "b": [1], "c": [1]}, batch_size=BATCH), "names=.*there"),
        (make(batch_size=3), "batch_size=6 there, 3 here"),
    ]:
        with pytest.raises(StateError, match=message):
            other.load_state_dict(state)
    stateless = RegionMixture(
        {"long": [1], "short": [1], "own": [1]}, make().allocator, batch_size=BATCH, num_samples=EPOCH
    )
    with pytest.raises(StateError, match="region 'own' had a source with a state of its own"):
        stateless.load_state_dict(state)
    with pytest.raises(StateError, match="'sources', got 0"):
        make().load_state_dict({**state, "sources": []})
