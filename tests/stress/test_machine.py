"""Any order of draw, observe, step, save, load, new pass and other world sizes, against the slow reference.

The ranks of a run are samplers in this process. What they would exchange by network is known to the test, which
hands it to each of them (`Network`), and checks on the way that each sends what it should.
"""

import copy
from itertools import chain, islice

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import aria_sampling as aria
from tests.reference import ReferenceAllocator, ReferenceEma

pytestmark = pytest.mark.filterwarnings("ignore:an epoch of")  # drawn to its end, never observed, and then left
LABELS = [0, 1, 2, 0, 1, 0, 0, 2, 0, 1, 0, 0, 0]
POOL = aria.Partition.from_labels(LABELS)
BATCH, EPOCH, MOST = 6, 15, 40
SIZES = [6, 6, 3]  # of the batches of an epoch
WORTH = ["pool", "uniform", 0.5]
LOSSES = st.sampled_from([0.1, 0.3, 0.7, 1 / 3, 11.1, float("nan"), float("inf"), -0.4])


class Network:
    """What all ranks send in every round."""

    def __init__(self):
        self.rows, self.digests = {}, {}


class Ranks:
    """In place of the sampler's own: one rank's side of the `Network`."""

    def __init__(self, network, size, rank):
        self.network, self.size, self.rank = network, size, rank

    def note(self, closed, digest):
        assert self.network.digests.setdefault(closed, digest()) == digest()

    def forget(self):
        pass

    def gather(self, rows, *, room, round_, lag):
        parts = self.network.rows[round_]
        assert np.array_equal(rows.numpy(), parts[self.rank])
        assert len(rows) <= room
        return lambda: parts


def packed(items, losses):
    return np.stack([np.array(items, np.int64), np.array(losses, np.float64).view(np.int64)], axis=1)


class Machine(RuleBasedStateMachine):
    """Samplers on one, two or three ranks; the reference that they equal; an allocator, their twin to the bit."""

    @initialize(
        lag=st.integers(0, 3),
        worth=st.sampled_from(WORTH),
        seed=st.integers(0, 99),
        world=st.integers(1, 3),
        data_rows=st.sampled_from([None, 0, 2, 9]),
    )
    def begin(self, lag, worth, seed, world, data_rows):
        """`data_rows` beside every batch come from the covered items, if there are any."""
        self.data_rows = data_rows
        self.coverage = None if data_rows is None else aria.Coverage(POOL, items=[0, 3, 3], weight=0.5)
        covered = None if data_rows is None else (self.coverage.counts.tolist(), [1.0] * 3, 0.0, 0.5)
        self.settings = {"lag": lag, "target": worth, "seed": seed, "exploration": 0.2}
        self.slow = ReferenceAllocator(LABELS, estimator=ReferenceEma(0.3), coverage=covered, **self.settings)
        self.epoch_start, self.epoch = 0, 0  # closed rounds before it; its number
        self.saved = []
        self.twin = self.allocator()
        self.launch(world)

    def allocator(self):
        return aria.Allocator(POOL, estimator=aria.Ema(0.3), coverage=self.coverage, **self.settings)

    def launch(self, world, state=None):
        """Start the job on so many ranks, from a state or from nothing."""
        self.network = Network()
        self.samplers = []
        for rank in range(world):
            options = {"num_replicas": world, "rank": rank, "data_rows_per_batch": self.data_rows}
            sampler = self.allocator().sampler(batch_size=BATCH, num_samples=EPOCH, **options)
            sampler._ranks = Ranks(self.network, world, rank)
            self.samplers.append(sampler)
        for sampler in self.samplers if state is not None else ():
            sampler.load_state_dict(copy.deepcopy(state))
        self.forget()

    def forget(self):
        """In the reference, and the twin: all that was drawn and not closed."""
        self.twin.rewind()
        slow = self.slow
        del slow.rounds[slow.closed :]
        slow.memo = {after: value for after, value in slow.memo.items() if after <= slow.closed}
        self.streams, self.parts = [], None

    @property
    def world(self):
        return len(self.samplers)

    def block(self, size, rank):
        return slice(size * rank // self.world, size * (rank + 1) // self.world)

    # -- rules -----------------------------------------------------------------------------------------

    @rule()
    def new_pass(self):
        """A loader begins to iterate; the one before, wherever it was, is abandoned."""
        self.forget()
        if self.slow.closed - self.epoch_start >= len(SIZES):
            self.epoch_start = self.slow.closed
        self.streams = [iter(sampler) for sampler in self.samplers]

    def in_epoch(self):
        return len(self.slow.rounds) - self.epoch_start

    @precondition(lambda self: self.streams and len(self.slow.rounds) < MOST)
    @rule()
    def draw(self):
        """One batch on every rank: rows of the reference's draw, or the epoch's end, or an error that names the lag."""
        if self.in_epoch() >= len(SIZES):
            for stream in self.streams:
                assert next(stream, None) is None
            self.streams = []
            return
        size = SIZES[self.in_epoch()]
        if len(self.slow.rounds) - self.slow.closed > self.settings["lag"]:
            for stream in self.streams:
                with pytest.raises(aria.FeedbackLagError):
                    next(stream)
            return
        expected = self.slow.draw(size, self.data_rows).items
        got = [
            list(islice(stream, (part := self.block(size, rank)).stop - part.start))
            for rank, stream in enumerate(self.streams)
        ]
        assert list(chain(*got)) == expected == self.twin.draw(size, data_rows=self.data_rows).items.tolist()
        if self.parts is None:
            self.open()

    def open(self):
        """Begin to report the oldest open round, if there is one."""
        slow = self.slow
        self.parts = None
        if len(slow.rounds) > slow.closed:
            self.parts = [[] for _ in range(self.world)]
            self.left = [
                list(range(len(slow.rounds[slow.closed].items))[self.rows(rank)]) for rank in range(self.world)
            ]

    def rows(self, rank):
        return self.block(len(self.slow.rounds[self.slow.closed].items), rank)

    @precondition(lambda self: self.parts is not None)
    @rule(data=st.data())
    def observe(self, data):
        """One rank reports some rows of its oldest batch, in any order."""
        rank = data.draw(st.integers(0, self.world - 1))
        rows = data.draw(st.permutations(self.left[rank]))[: data.draw(st.integers(0, BATCH))]
        self.report(rank, rows, data.draw(st.lists(LOSSES, min_size=len(rows), max_size=len(rows))))

    def report(self, rank, rows, losses):
        items = [self.slow.rounds[self.slow.closed].items[row] for row in rows]
        self.samplers[rank].observe(
            torch.tensor(items, dtype=torch.int64), torch.tensor(losses, dtype=torch.float64), step=False
        )
        self.parts[rank] += zip(rows, items, losses, strict=True)
        self.left[rank] = [row for row in self.left[rank] if row not in rows]

    @precondition(lambda self: self.parts is not None)
    @rule(whole=st.booleans(), losses=st.lists(LOSSES, min_size=BATCH, max_size=BATCH))
    def step(self, whole, losses):
        """Every rank closes the oldest batch, having reported the rest of it or not."""
        for rank in range(self.world) if whole else ():
            self.report(rank, rows := self.left[rank][::-1], [losses[row] for row in rows])
        slow, round_ = self.slow, self.slow.closed
        sent = [packed([item for _, item, _ in part], [loss for _, _, loss in part]) for part in self.parts]
        self.network.rows[round_] = sent
        for sampler in self.samplers:
            sampler.step()
        regions, credited = in_row_order(slow.rounds[round_], chain(*self.parts))
        for each in (slow, self.twin):
            each.observe(regions, credited)
            each.step()
        self.open()

    @rule(rounds=st.integers(1, 5), losses=st.lists(LOSSES, min_size=BATCH, max_size=BATCH))
    def train(self, rounds, losses):
        """Some whole rounds, as a loop with a loader that draws ahead has them."""
        for _ in range(rounds):
            while len(self.slow.rounds) - self.slow.closed <= self.settings["lag"] and len(self.slow.rounds) < MOST:
                if not self.streams:
                    if len(self.slow.rounds) > self.slow.closed:
                        break  # what the last pass has drawn comes first
                    self.new_pass()
                self.draw()
            if self.parts is not None:
                self.step(True, losses)

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), rounds=st.integers(1, 3), losses=st.lists(LOSSES, min_size=BATCH, max_size=BATCH))
    def train_and_go_back(self, data, rounds, losses):
        """With feedback still on its way."""
        self.train(rounds, losses)
        self.load(data, False, 1)

    @rule()
    def set_epoch(self):
        self.epoch += 1
        for sampler in self.samplers:
            sampler.set_epoch(self.epoch)

    @rule()
    def save(self):
        """States are equal on all ranks, and of the last closed round."""
        states = [sampler.state_dict() for sampler in self.samplers]
        assert all(state == states[0] for state in states)
        closed = self.slow.closed
        fed = [list(r.fed) for r in self.slow.rounds[:closed]]
        self.saved.append((states[0], closed, fed, (self.epoch_start, self.epoch)))

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), fresh=st.booleans(), world=st.integers(1, 3))
    def load(self, data, fresh, world):
        """Go back to a saved state: in the samplers there are, or in a new job on another number of ranks."""
        number = data.draw(st.integers(0, len(self.saved) - 1))
        state, closed, fed, where = self.saved[number]
        del self.saved[number + 1 :]  # of a future that is not to be
        slow = self.slow
        slow.closed = closed
        slow.memo = {after: value for after, value in slow.memo.items() if after <= closed}
        assert [r.fed for r in slow.rounds[:closed]] == fed
        self.twin.load_state_dict(state["allocator"])
        self.epoch_start, self.epoch = where
        if fresh:
            self.launch(world, state)
            return
        self.network.digests.clear()
        for sampler in self.samplers:
            sampler.load_state_dict(state)
        self.forget()

    @rule()
    def compare(self):
        """Take in what is on its way; then all ranks are equal to the last bit, and near the reference."""
        first, slow = self.samplers[0].allocator, self.slow
        for sampler in self.samplers:
            sampler.synchronize()
            assert sampler.allocator.digest() == self.twin.digest()
            assert (sampler.allocator.round, sampler.epoch) == (slow.closed, self.epoch)
        for name in ("mean", "count"):
            np.testing.assert_allclose(getattr(first.estimate(), name), getattr(slow.estimate(), name), 1e-9)
        if len(first.open_rounds) == len(slow.rounds) - slow.closed:  # a new pass forgets them when it yields
            upto = min(len(slow.rounds), slow.closed + slow.lag)
            np.testing.assert_allclose(first.probabilities, slow.probabilities(upto), 1e-9)

    def teardown(self):
        if hasattr(self, "samplers"):
            self.compare()


def in_row_order(draw, reported):
    """Regions and losses of (row, item, loss) as the global batch has them; of equal items, in the order reported."""
    places = {}
    for _, item, loss in reported:
        nth = [row for row, other in enumerate(draw.items) if other == item]
        places[nth[sum(1 for row in places if draw.items[row] == item)]] = loss
    return [draw.regions[row] for row in sorted(places)], [places[row] for row in sorted(places)]


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
