"""A call that fails half-way, for whatever reason, leaves no trace in what comes next."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import allocator as allocating
from aria_sampling import drawing
from tests.helpers import loss_of, same_draw, small_pool


def begun(lag, n_regions=6, **settings):
    """An allocator with a few closed rounds and as many open ones as its lag allows before another draw."""
    allocator = aria.Allocator(small_pool(n_regions), target="uniform", lag=lag, **settings)
    for _ in range(5):
        while len(allocator.open_rounds) <= lag:
            allocator.draw(7, present=[0, n_regions // 2])
        allocator.observe(allocator.open_rounds[0].regions, loss_of(allocator.open_rounds[0]))
        allocator.step()
    return allocator


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("module", "where"),
    [
        (allocating, "shares"),
        (drawing, "systematic_counts"),
        (drawing, "permuted_positions"),
        (allocating, "OpenRound"),
    ],
)
def test_a_draw_that_fails_half_way(lag, error, module, where, monkeypatch):
    allocator, twin = begun(lag), begun(lag)

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, where, fails)
        with pytest.raises(error):
            allocator.draw(40, present=[5, 5, 5])
    assert len(allocator.open_rounds) == lag
    for _ in range(6):
        assert same_draw(allocator.draw(6, present=[2]), twin.draw(6, present=[2]))
        for each in (allocator, twin):
            each.observe(each.open_rounds[0].regions, loss_of(each.open_rounds[0]))
            each.step()
    assert allocator.state_dict() == twin.state_dict()


@pytest.mark.parametrize("n", [2**31, 2**62, 2**63, 10**30])
def test_more_than_a_round_can_hold_is_refused(n):
    allocator, twin = begun(0), begun(0)
    with pytest.raises(ValueError, match="n="):
        allocator.draw(n)
    assert same_draw(allocator.draw(6), twin.draw(6))
    for name in ("lag", "max_gap", "seed"):
        with pytest.raises(ValueError, match=f"{name}="):
            aria.Allocator(small_pool(), **{name: 10**30})
    with pytest.raises(ValueError, match="n_regions="):
        aria.KMeansPartitioner(n_regions=n if n > 2**63 else 2**63).fit(np.ones((4, 2)))


# ----------------------------------------------------------------------------- a round that fails to close


class Broken(Exception):
    """What goes wrong in a part of the user's."""


@dataclass(frozen=True)
class InPlace(aria.Estimator):
    """An average that changes all it has in place, rows that were not visited, too; it breaks when it is told to."""

    when: str = ""
    broken: ClassVar[bool] = False

    def init(self, n_regions):
        return {"total": np.zeros(n_regions), "count": np.zeros(n_regions), "seen": np.zeros((2, 3))}

    def update(self, state, feedback):
        state["seen"] += 1
        state["total"] *= 0.9
        state["count"] *= 0.9
        if self.when == "update" and InPlace.broken:
            raise Broken
        state["total"][feedback.regions] += feedback.count * feedback.mean
        state["count"][feedback.regions] += feedback.count
        state["of_last"] = np.zeros(3)  # it may even change the dictionary
        del state["of_last"]
        return state

    def estimate(self, state):
        if self.when == "estimate" and InPlace.broken:
            raise Broken
        count = state["count"]
        mean = state["total"].sum() / count.sum() if count.any() else np.nan
        mean = np.where(count > 0, state["total"] / np.where(count > 0, count, 1), mean)
        unknown = np.where(count > 0, 0.0, np.inf)
        return aria.Estimate(mean, unknown, count.copy(), unknown.copy())


@dataclass(frozen=True)
class Slow(aria.Policy):
    """Effort that follows the discrepancy slowly; changed in place, and what it returns is its own memory."""

    when: str = ""
    broken: ClassVar[bool] = False

    def init(self, n_regions):
        return {"log_phi": np.zeros(n_regions)}

    def update(self, state, estimate):
        state["log_phi"] *= 0.7
        if self.when == "update" and Slow.broken:
            raise Broken
        state["log_phi"] += 0.3 * np.log(estimate.mean)
        return state

    def log_phi(self, state):
        if self.when == "log_phi" and Slow.broken:
            raise Broken
        return state["log_phi"]


PARTS = [(InPlace("update"), None), (InPlace("estimate"), None), (None, Slow("update")), (None, Slow("log_phi"))]


@pytest.fixture
def breaks(monkeypatch):
    """Lets the parts break until it is called."""
    for part in (InPlace, Slow):
        monkeypatch.setattr(part, "broken", False)

    def breaks(now):
        InPlace.broken = Slow.broken = now

    return breaks


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize(("estimator", "policy"), PARTS)
def test_a_step_that_fails_in_a_part_counts_nothing_and_can_be_tried_again(estimator, policy, lag, breaks):
    allocator, twin = (begun(lag, estimator=estimator, policy=policy) for _ in "ab")
    for each in (allocator, twin):
        if not each.open_rounds:
            each.draw(7)
        each.observe(each.open_rounds[0].regions, loss_of(each.open_rounds[0]))
    before = allocator.state_dict(), allocator.digest()
    breaks(True)
    for _ in range(3):
        with pytest.raises(Broken):
            allocator.step()
        assert (allocator.state_dict(), allocator.digest()) == before
        assert len(allocator.open_rounds) == max(lag, 1)
    breaks(False)
    for _ in range(3):
        for each in (allocator, twin):
            each.step()
        assert allocator.state_dict() == twin.state_dict()
        assert same_draw(allocator.draw(6), twin.draw(6))
    assert allocator.probabilities.tolist() == twin.probabilities.tolist()


class Interrupted:
    """Ctrl-C before the n-th line that the library runs; `lines` counts them."""

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


@pytest.mark.parametrize(
    ("n_regions", "lag", "settings"),
    [
        (6, 0, {}),
        (6, 2, {"estimator": aria.Ema(), "policy": aria.Minimax()}),
        (6, 1, {"estimator": InPlace(), "policy": aria.Mixture((aria.Reducible(), Slow()))}),
        (2, 0, {}),  # as many regions as some arrays that are not by region have entries
        (1, 1, {"estimator": aria.Ema(per="visit")}),
    ],
)
def test_ctrl_c_at_any_line_of_a_step(n_regions, lag, settings):
    """Before it, all is as it was; and closed again, the round leaves what it leaves where nothing happened."""

    allocator = begun(lag, n_regions, **settings)
    start = allocator.state_dict()

    def ready():
        allocator.load_state_dict(start)
        opened = allocator.draw(5, present=[0])
        allocator.observe(opened.regions[:3], loss_of(opened)[:3])  # not of all that it changes

    ready()
    before = allocator.state_dict()
    with (count := Interrupted(0)):
        allocator.step()
    after = allocator.state_dict()
    assert after != before
    assert count.lines > 60
    for line in range(1, count.lines + 1):
        ready()
        with pytest.raises(KeyboardInterrupt), Interrupted(line):
            allocator.step()
        assert allocator.state_dict() == before, line
        assert len(allocator.open_rounds) == 1
        allocator.step()
        assert allocator.state_dict() == after, line
