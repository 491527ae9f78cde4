"""A whole allocation gives the same draws and the same digests by the compiled kernel and by the one in Python."""

import contextlib
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import _kernel
from aria_sampling._kernel import reference
from tests.helpers import random_labels

if not _kernel.COMPILED:
    pytest.skip("the compiled kernel is not loaded: there is nothing to compare", allow_module_level=True)
from aria_sampling._kernel import compiled


@contextlib.contextmanager
def kernel(module):
    """Everything that asks `_kernel` gets the functions of that module."""
    with pytest.MonkeyPatch.context() as patch:
        for name in module.__all__:
            patch.setattr(_kernel, name, getattr(module, name))
        yield


ESTIMATORS = [
    aria.EmaBank(),
    aria.EmaBank((1.5, 20.0), 0.2, 4.0),
    aria.Ema(),
    aria.Ema(rate=1.0),
    aria.Ema(rate=0.3, per="visit"),
]
POLICIES = [
    aria.Proportional(),
    aria.Proportional(4.0),
    aria.Proportional(0.0),
    aria.Reducible(),
    aria.GroupDRO(),
    aria.PoolPolicy(),
    aria.UniformPolicy(),
]
LOSSES = ["plain", "wild", "zero", "missing"]


@st.composite
def settings(draw):
    """How to make an allocator: a function, which is called once for each kernel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_regions = draw(st.sampled_from([1, 2, 5, 63, 64, 65, 130]))
    partition = aria.Partition.from_labels(random_labels(rng, n_regions, 6 * n_regions))
    policy, coverage = draw(st.sampled_from(POLICIES)), None
    options = {
        "estimator": draw(st.sampled_from(ESTIMATORS)),
        "policy": policy,
        "seed": draw(st.integers(0, 2**64 - 1)),
        "lag": draw(st.integers(0, 3)),
        "max_repeat": draw(st.sampled_from([None, None, 1.0, 3.0])),
    }
    if policy.baseline is None:
        own = rng.dirichlet(np.full(n_regions, 0.3))
        own[rng.random(n_regions) < 0.2] = 0.0
        own[0] += 0.1
        targets = ["pool", "uniform", 0.5] if options["max_repeat"] else ["pool", "uniform", 0.5, own]
        options["target"] = draw(st.sampled_from(targets))
        options["exploration"] = draw(st.sampled_from([1e-3, 0.2, 1.0]))
        kind = draw(st.sampled_from(["none", "items", "counts", "online", "forgetting"]))
        if kind == "items":
            coverage = aria.Coverage(partition, items=rng.integers(0, partition.n_items, 3 * n_regions))
        elif kind == "counts":
            coverage = aria.Coverage(partition, counts=rng.gamma(0.1, size=n_regions), weight=1e3)
        elif kind != "none":
            coverage = aria.Coverage.online(partition, half_life=None if kind == "online" else 3.0)
    # the regions with a target may leave a cap no room
    if options["max_repeat"]:
        try:
            aria.Allocator(partition, coverage=coverage, **options)
        except ValueError:
            options["max_repeat"] = None
    return lambda: aria.Allocator(partition, coverage=coverage, **options)


ACTS = st.one_of(
    st.tuples(st.just("round"), st.integers(1, 40), st.sampled_from(LOSSES)),
    st.tuples(st.just("round"), st.integers(1, 40), st.sampled_from(LOSSES)),
    st.tuples(st.just("draw"), st.sampled_from([0, 1, 3, 17, 200]), st.sampled_from([None, 0, 2, 1000])),
    st.tuples(st.just("observe"), st.sampled_from(LOSSES), st.booleans()),
    st.tuples(st.sampled_from(["step", "rewind", "save", "load", "rebuild"])),
)


def losses_of(regions, kind, rng):
    """Losses of rows of these regions, [n]."""
    values = (1.0 + regions % 5) * rng.gamma(4.0, size=len(regions))
    if kind == "wild":
        values = 10.0 ** rng.uniform(-300, 149, len(regions)) * rng.choice([1.0, 1.0, -1.0], len(regions))
    elif kind == "zero":
        values = np.zeros(len(regions))
    elif kind == "missing":
        values[rng.random(len(regions)) < 0.5] = rng.choice([np.nan, np.inf, 1e150])
    return values


class Player:
    """Acts on an allocator, and writes down what can be seen of it."""

    def __init__(self, make):
        self.make, self.allocator, self.saved = make, make(), None
        self.rng, self.seen = np.random.default_rng(0), []

    def draw(self, n, data_rows):
        allocator = self.allocator
        if len(allocator.open_rounds) > allocator.lag:
            return
        present = None
        if allocator.coverage is not None and allocator.coverage.is_online:
            present = self.rng.integers(0, allocator.partition.n_regions, int(self.rng.integers(0, 5)))
        draw = allocator.draw(n, data_rows=data_rows, present=present)
        arrays = draw.items, draw.regions, draw.probabilities, draw.weights
        self.seen.append((draw.round, draw.forced, *(array.tobytes() for array in arrays)))
        assert (allocator.target[draw.regions] > 0).all()
        assert (draw.weights <= 2 / allocator.exploration * (1 + 1e-9)).all()

    def observe(self, kind, part):
        if opened := self.allocator.open_rounds:
            regions = opened[0].regions[:: 1 + part]
            self.allocator.observe(regions, losses_of(regions, kind, self.rng))

    def step(self):
        if self.allocator.open_rounds:
            self.allocator.step()

    def round(self, n, kind):
        self.draw(n, None)
        self.observe(kind, part=False)
        self.step()

    def rewind(self):
        self.allocator.rewind()

    def save(self):
        self.saved = self.allocator.state_dict()

    def load(self):
        if self.saved is not None:
            self.allocator.load_state_dict(self.saved)

    def rebuild(self):
        """Go on with another allocator that loads the state."""
        state, self.allocator = self.allocator.state_dict(), self.make()
        self.allocator.load_state_dict(state)

    def look(self):
        p = self.allocator.probabilities
        assert np.isfinite(p).all()
        assert p.sum() == pytest.approx(1, rel=1e-9)
        self.seen.append((self.allocator.digest(), p.tobytes()))


def play(make, acts):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", aria.AriaWarning)
        player = Player(make)
        player.look()
        for name, *arguments in acts:
            getattr(player, name)(*arguments)
            player.look()
        return player.seen, player.allocator.state_dict()


@given(settings(), st.lists(ACTS, max_size=25))
def test_both_kernels_play_the_same_allocation(make, acts):
    with kernel(compiled):
        fast = play(make, acts)
    with kernel(reference):
        slow = play(make, acts)
    assert fast == slow


@pytest.mark.parametrize("lag", [0, 2])
def test_a_state_goes_from_one_kernel_to_the_other(lag):
    partition = aria.Partition.from_labels(random_labels(np.random.default_rng(3), 70, 700))
    coverage = aria.Coverage(partition, items=np.arange(40))

    def rounds(allocator, rng):
        player = Player(lambda: allocator)
        player.rng = rng
        for _ in range(30):
            player.round(20, "plain")
        return player.seen, allocator.digest()

    def fresh():
        return aria.Allocator(partition, coverage=coverage, seed=5, lag=lag)

    with kernel(compiled):
        allocator = fresh()
        rounds(allocator, np.random.default_rng(1))
        state = allocator.state_dict()
        expected = rounds(allocator, np.random.default_rng(2))
    with kernel(reference):
        allocator = fresh()
        allocator.load_state_dict(state)
        assert rounds(allocator, np.random.default_rng(2)) == expected
