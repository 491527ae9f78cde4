"""All or nothing: a call that fails half-way, for whatever reason, leaves no trace in what comes next.

What fails is the machine's memory, a part of the user's, or the user's patience: Ctrl-C comes at every line in turn.
"""

import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import _kernel, drawing
from aria_sampling import allocator as allocating
from tests.helpers import loss_of, same_draw, small_pool

CENTERS = np.random.default_rng(3).normal(size=(40, 2))


def make(n_regions=6, coverage="online", **settings):
    pool = aria.Partition.from_labels(small_pool(n_regions).labels, centers=CENTERS[:n_regions])
    if coverage == "online":
        settings["coverage"] = aria.Coverage.online(pool, half_life=5.0)
    elif coverage == "static":
        settings["coverage"] = aria.Coverage(pool, items=[0, 3, 3])
    return aria.Allocator(pool, **{"target": 0.5, "seed": 4, **settings})


def draw_from(allocator, n=7, came=(0,)):
    """Draw, telling of the rows that came in the way that its coverage wants."""
    if allocator.coverage is None:
        return allocator.draw(n)
    if allocator.coverage.is_online:
        return allocator.draw(n, present=list(came))
    return allocator.draw(n, data_rows=len(came))


def close(allocator, losses=loss_of):
    oldest = allocator.open_rounds[0]
    allocator.observe(oldest.regions, losses(oldest))
    allocator.step()


def begun(lag=0, ahead=None, **settings):
    """An allocator with five closed rounds, and as many open ones as its lag lets be without one more."""
    allocator = make(lag=lag, **settings)
    while allocator.round < 5:
        while len(allocator.open_rounds) <= lag:
            draw_from(allocator)
        close(allocator)
    return allocator


def future(allocator, rounds=2):
    """The open rounds, and what comes in more of them: draws, and digests after each."""
    seen = [allocator.open_rounds, allocator.probabilities]
    for _ in range(rounds):
        while len(allocator.open_rounds) <= allocator.lag:
            seen.append(draw_from(allocator))
        close(allocator)
        seen.append(allocator.digest())
    return seen


def alike(one, other):
    """Whether two futures are the same, to the bit."""
    (open_one, p, *one), (open_other, q, *other) = one, other
    if len(open_one) != len(open_other) or len(one) != len(other) or not np.array_equal(p, q):
        return False
    pairs = [*zip(open_one, open_other, strict=True), *zip(one, other, strict=True)]
    return all(a == b if isinstance(a, str) else same_draw(a, b) for a, b in pairs)


# ------------------------------------------------------------------------------------ a draw that fails half-way


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("module", "where"),
    [
        (allocating, "next_tally"),
        (drawing, "decayed"),
        (_kernel, "water"),
        (_kernel, "draw"),
        (drawing, "Draw"),
        (drawing, "OpenRound"),
        (drawing, "paced"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_draw_that_fails_half_way(lag, error, when, module, where, monkeypatch):
    """In each of the steps that it takes, before that was done or after."""
    settings = {"max_repeat": 20.0} if where == "paced" else {}
    allocator, twin = begun(lag, **settings), begun(lag, **settings)
    right = getattr(module, where)

    def fails(*arguments, **named):
        if when == "after":
            right(*arguments, **named)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, where, fails)
        with pytest.raises(error):
            draw_from(allocator, 40, [5, 5, 5])
    assert len(allocator.open_rounds) == lag
    assert alike(future(allocator), future(twin))


@pytest.mark.parametrize("n", [2**31, 2**62, 2**63, 10**30])
def test_more_than_a_round_can_hold_is_refused(n):
    allocator, twin = begun(coverage="static"), begun(coverage="static")
    with pytest.raises(ValueError, match="n="):
        allocator.draw(n)
    with pytest.raises(ValueError, match="data_rows="):
        allocator.draw(4, data_rows=n)
    assert alike(future(allocator), future(twin))
    for name in ("lag", "seed"):
        with pytest.raises(ValueError, match=f"{name}="):
            aria.Allocator(small_pool(), **{name: 10**30})
    with pytest.raises(ValueError, match="n_regions="):
        aria.KMeansPartitioner(n_regions=n if n > 2**63 else 2**63).fit(np.ones((4, 2)))


# ---------------------------------------------------------------------------------- parts of the user's that fail


class Broken(Exception):
    """What goes wrong in a part of the user's."""


class Breaks:
    """Counts the calls of the parts below, and lets one of them fail: the one with the number `at`, from 0."""

    calls: ClassVar[int] = 0
    at: ClassVar[int] = -1

    @classmethod
    def arm(cls, at):
        cls.calls, cls.at = 0, at

    @classmethod
    def now(cls):
        cls.calls += 1
        if cls.calls == cls.at + 1:
            raise Broken


@dataclass(frozen=True)
class Own(aria.Estimator):
    """An average that works on the rows it is given, before it fails as after."""

    def init(self, n_regions):
        Breaks.now()
        return aria.State({"total": np.zeros(n_regions), "count": np.zeros(n_regions)}, {"seen": np.zeros((2, 3))})

    def update(self, rows, shared, feedback):
        for name in ("total", "count"):
            rows[name] *= 0.9
        shared["seen"] += 1
        Breaks.now()
        rows["total"] += feedback.count * feedback.mean
        rows["count"] += feedback.count
        return rows, shared

    def estimate(self, state):
        Breaks.now()
        total, count = state.rows["total"], state.rows["count"]
        known = count > 0
        mean = np.where(known, total / np.where(known, count, 1), np.nan)
        unknown = np.where(known, 0.0, np.inf)
        return aria.Estimate(mean, unknown, count.copy(), unknown.copy())


@dataclass(frozen=True)
class Slow(aria.Policy):
    """Effort that follows the discrepancy slowly."""

    def init(self, n_regions):
        Breaks.now()
        return aria.State({"score": np.zeros(n_regions)}, {"rounds": np.zeros(1)})

    def update(self, state, estimate):
        Breaks.now()
        score = 0.7 * state.rows["score"] + 0.3 * np.log(estimate.mean)
        return aria.State({"score": score}, {"rounds": state.shared["rounds"] + 1})

    def log_score(self, state):
        Breaks.now()
        return state.rows["score"]


@dataclass(frozen=True)
class Near(aria.Policy):
    """A score of a region by its own estimate alone."""

    local: ClassVar[bool] = True

    def log_score(self, estimate, shared):
        Breaks.now()
        return np.log(estimate.mean)


PARTS = {
    "rows": {"estimator": Own()},
    "all regions": {"estimator": Own(), "policy": Slow()},
    "one region": {"policy": Near(), "estimator": aria.Ema()},
    "both": {"estimator": Own(), "policy": Near()},
}


@pytest.fixture(autouse=True)
def _whole():
    Breaks.arm(-1)
    yield
    Breaks.arm(-1)


def calls_of(act, ready):
    """How many calls of the parts an act makes."""
    state = ready()
    Breaks.arm(-1)
    act(state)
    return Breaks.calls


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("way", ["step", "close_round"])
def test_a_round_that_a_part_fails_to_close_can_be_closed_again(way, parts, lag):
    """At each call of a part in turn; the second attempt leaves what the only one would have left."""

    def ready():
        allocator = begun(lag, **parts)
        if not allocator.open_rounds:
            draw_from(allocator)
        oldest = allocator.open_rounds[0]
        allocator.observe(oldest.regions[:3], loss_of(oldest)[:3])
        return allocator

    def act(allocator):
        oldest = allocator.open_rounds[0]
        if way == "step":
            allocator.step()
        else:
            allocator.close_round(oldest.regions[3:], loss_of(oldest)[3:])

    count = calls_of(act, ready)
    assert count >= 1
    twin = ready()
    act(twin)
    after, expected = twin.state_dict(), future(twin)
    for at in range(count):
        allocator = ready()
        before = allocator.state_dict(), allocator.digest(), allocator.open_rounds
        for _ in range(2):
            Breaks.arm(at)
            with pytest.raises(Broken):
                act(allocator)
            Breaks.arm(-1)
            assert (allocator.state_dict(), allocator.digest(), allocator.open_rounds) == before
        act(allocator)
        assert allocator.state_dict() == after
        assert alike(future(allocator), expected)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("way", ["draw", "load", "adopt", "read"])
def test_nothing_else_that_a_part_fails_in_changes_anything(way, parts):
    other = begun(1, seed=9, **parts)
    other_state = other.state_dict()

    def act(allocator):
        if way == "draw":
            draw_from(allocator)
        elif way == "load":
            allocator.load_state_dict({**begun_state, "round": begun_state["round"]})
        elif way == "adopt":
            allocator.adopt(other_state, partition=other.partition)
        else:
            allocator.metrics(), allocator.probabilities

    def ready():
        allocator = make(lag=1, **parts)
        if way == "adopt":
            allocator.adopt(other_state, partition=other.partition)  # it has something to lose
        else:
            allocator.load_state_dict(begun_state)
            draw_from(allocator)
        return allocator

    begun_state = begun(1, **parts).state_dict()
    for at in range(calls_of(act, ready)):
        allocator, twin = ready(), ready()
        Breaks.arm(at)
        with pytest.raises(Broken):
            act(allocator)
        Breaks.arm(-1)
        assert allocator.state_dict() == twin.state_dict()
        assert alike(future(allocator), future(twin))


class InPlace(Slow):
    """The same, written by someone who has not read that state goes by value."""

    def update(self, state, estimate):
        state.rows["score"] *= 0.7
        state.rows["score"] += 0.3 * np.log(estimate.mean)
        return state


@dataclass(frozen=True)
class InPlaceAtHome(Own):
    """An estimator that changes what it is only asked to read."""

    def estimate(self, state):
        state.shared["seen"] += 1
        return super().estimate(state)


@pytest.mark.parametrize("parts", [{"policy": InPlace()}, {"estimator": InPlaceAtHome()}], ids=["policy", "estimator"])
def test_a_part_that_would_change_the_state_in_place_cannot(parts):
    allocator = make(**parts)
    draw_from(allocator)
    allocator.observe([0, 1], [1.0, 2.0])
    before = allocator.state_dict()
    for _ in range(2):
        with pytest.raises(ValueError, match="read-only"):
            allocator.step()
        assert allocator.state_dict() == before
        assert len(allocator.open_rounds) == 1


# ------------------------------------------------------------------------------------------ Ctrl-C at every line


class Interrupted:
    """Ctrl-C before the n-th line that the library runs, counted from 1; `lines` counts them."""

    def __init__(self, n):
        self.left, self.lines = n, 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.left:
                raise KeyboardInterrupt
        return self.trace


HOME = str(Path(aria.__file__).parent)
SETTINGS = {
    "default": {"coverage": "none"},
    "regions never visited": {"coverage": "static", "n_regions": 40},
    "static coverage": {"coverage": "static"},
    "online coverage, lag": {"lag": 2},
    "all regions, lag": {"lag": 2, "estimator": aria.Ema(), "policy": aria.GroupDRO()},
    "own parts": {"lag": 1, "estimator": Own(), "policy": Slow(), "coverage": "none"},
    "own score": {"lag": 1, "estimator": Own(), "policy": Near(), "coverage": "static"},
    "capped": {"max_repeat": 20.0, "policy": aria.Reducible(), "coverage": "static"},
    "a baseline": {"policy": aria.PoolPolicy(), "target": None, "coverage": "none", "lag": 1},
    "two regions": {"n_regions": 2},  # as many as some arrays that are not by region have entries
    "one region": {"n_regions": 1, "lag": 1, "estimator": aria.Ema(per="visit"), "coverage": "none"},
}


def leap(draw):
    """Losses in another unit: the scores move so far that all weights are computed anew."""
    return 1e140 * loss_of(draw)


def later_state(settings):
    """The state of another run with these settings, two rounds later."""
    other = begun(**settings)
    for _ in range(2):
        while len(other.open_rounds) <= other.lag:
            draw_from(other, 11)
        close(other, leap)
    return other.state_dict()


def draws(allocator, later):
    draw_from(allocator, 9, [1, 0] if allocator.partition.n_regions > 1 else [0])


def observes(allocator, later):
    oldest = allocator.open_rounds[0]
    allocator.observe(oldest.regions[3:], leap(oldest)[3:])


def steps(allocator, later):
    allocator.step()


def closes(allocator, later):
    oldest = allocator.open_rounds[0]
    allocator.close_round(oldest.regions[3:], leap(oldest)[3:])


def rewinds(allocator, later):
    allocator.rewind()


def loads(allocator, later):
    allocator.load_state_dict(later)


def adopts(allocator, later):
    allocator.adopt(later, partition=allocator.partition)


def reads(allocator, later):
    allocator.probabilities, allocator.metrics(), allocator.state_dict(), allocator.digest()


def shown(allocator):
    """All that an allocator shows, and what has been reported of its open rounds."""
    reports = [len(opened.reports) for opened in allocator.rounds]
    return allocator.digest(), [draw.round for draw in allocator.open_rounds], reports


def ready_for(act, settings):
    """A function that returns an allocator on which to act, always in the same state."""
    allocator = begun(**settings)
    start = allocator.state_dict()
    ahead = allocator.lag + (act is not draws)  # rounds open before it

    def ready():
        if act is adopts:
            fresh = make(**settings)
            fresh.adopt(start, partition=allocator.partition)  # it has something to lose
            return fresh
        allocator.load_state_dict(start)
        while len(allocator.open_rounds) < ahead:
            draw_from(allocator)
        if ahead:
            oldest = allocator.open_rounds[0]
            allocator.observe(oldest.regions[:3], leap(oldest)[:3])
        if act is draws and ahead:  # so that there is feedback to take in
            allocator.step()
            draw_from(allocator)
        return allocator

    return ready


def interrupt_everywhere(act, settings):
    """Interrupt it at each line in turn: it is done or not, and done again, or gone on from, as if nothing had been."""
    ready, later = ready_for(act, settings), later_state(settings)
    before, allocator = shown(ready()), ready()
    with (count := Interrupted(0)):
        act(allocator, later)
    after, expected = shown(allocator), future(allocator)
    assert count.lines > 5
    for line in range(1, count.lines + 1):
        allocator = ready()
        with pytest.raises(KeyboardInterrupt), Interrupted(line):
            act(allocator, later)
        found = shown(allocator)
        assert found in (before, after), line
        if found == before:
            act(allocator, later)
        assert shown(allocator) == after, line
        assert alike(future(allocator), expected), line
    return count.lines


FEW = {  # in the default suite
    draws: ("regions never visited", "online coverage, lag", "own score"),
    steps: ("regions never visited", "online coverage, lag", "all regions, lag", "own parts"),
    loads: ("online coverage, lag",),
    adopts: (),
    observes: ("default",),
    closes: ("default",),
    rewinds: ("online coverage, lag",),
    reads: ("one region",),
}


@pytest.mark.parametrize(
    ("act", "settings"),
    [
        pytest.param(
            act,
            SETTINGS[name],
            id=f"{act.__name__}, {name}",
            marks=() if name in few else pytest.mark.slow,
        )
        for act, few in FEW.items()
        for name in SETTINGS
    ],
)
def test_ctrl_c_at_any_line(act, settings):
    """A round is open as it was, or closed whole; a draw was made or not; nothing is in between, now or later."""
    lines = interrupt_everywhere(act, settings)
    assert lines > 60 or act not in (steps, closes)


class Conditioning:
    """Random conditioning in a loop: its batches and losses follow from the round."""

    def __init__(self, lag):
        self.face = aria.RandomConditioning(make(lag=lag), schedule=aria.ConstantSwitch(0.6), draws_ahead=lag)

    def draw(self):
        rng = np.random.default_rng(self.face.allocator.round + len(self.face.allocator.open_rounds))
        s = self.face.draw(rng.integers(0, 1000, 10), paired=rng.integers(-1, 60, 10))
        return s.mask.tolist(), s.items.tolist(), s.weights.tolist()

    def report(self):
        rounds = self.face.allocator.rounds
        rng = np.random.default_rng(self.face.allocator.round + rounds.n_reported)
        self.face.observe(rng.lognormal(0, 1, 10))


class Sampling:
    """A sampler behind a loader that draws as far ahead as the lag lets it."""

    def __init__(self, lag):
        pytest.importorskip("torch")
        self.face = make(lag=lag, coverage="none").sampler(batch_size=8, num_samples=800)
        self.rows = iter(())

    def draw(self):
        if not (batch := list(islice(self.rows, 8))):
            self.rows = iter(self.face)
            batch = list(islice(self.rows, 8))
        return batch

    def report(self):
        rounds = self.face.allocator.rounds
        rows = rounds.reporting("report").draw.items
        self.face.observe(rows, 1.0 + rows % 7)


def begin(kind, lag, state=None):
    """A loop that goes on from a state, or is four rounds old."""
    loop = kind(lag)
    if state is not None:
        loop.face.load_state_dict(state)
    while state is None and loop.face.allocator.round < 4:
        while len(loop.face.allocator.open_rounds) <= lag:
            loop.draw()
        loop.report()
        loop.face.synchronize()
    return loop


def prospects(loop):
    """What comes in two more rounds."""
    seen, allocator = [], loop.face.allocator
    for _ in range(2):
        while len(allocator.open_rounds) - allocator.rounds.n_reported <= allocator.lag:
            seen.append(loop.draw())
        loop.report()
    return [*seen, loop.face.state_dict()]


@pytest.mark.parametrize("lag", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize(
    ("kind", "act"),
    [(Conditioning, "draw"), (Conditioning, "report"), pytest.param(Sampling, "report", marks=pytest.mark.slow)],
)
def test_ctrl_c_at_any_line_of_a_face(kind, act, lag):
    """A batch is reported or not, and a round closed or not, with all that the face has learnt from it."""
    start = begin(kind, lag).face.state_dict()
    ahead = lag + (act == "report")

    def ready():
        loop = begin(kind, lag, start)
        while len(loop.face.allocator.open_rounds) < ahead:
            loop.draw()
        return loop

    def shown(loop):
        state = loop.face.state_dict()  # closes what was reported
        return state, len(loop.face.allocator.open_rounds)

    loop = ready()
    before = shown(loop)
    with (count := Interrupted(0)):
        getattr(loop, act)()
    after = shown(loop)
    expected = prospects(loop)
    assert count.lines > 100
    for line in range(1, count.lines + 1):
        loop = ready()
        with pytest.raises(KeyboardInterrupt), Interrupted(line):
            getattr(loop, act)()
        found = shown(loop)
        assert found in (before, after), line
        if found == before:
            getattr(loop, act)()
        assert shown(loop) == after, line
        assert prospects(loop) == expected, line
