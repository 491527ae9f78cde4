"""`History`: what it keeps, how it stays bounded, and that a stop, a resume or a loader ahead does not show in it."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import StateError
from aria_sampling._arrays import decode
from tests.helpers import loss_of, play, small_pool
from tests.laws.test_exact_resume import CARRIERS, damage, plain, refusal, refuses

COLUMNS = ("rounds", "discrepancy", "stderr", "count", "probabilities", "draw_counts")


def make(lag=0, **settings):
    pool = small_pool()
    allocator = aria.Allocator(pool, coverage=aria.Coverage.online(pool, half_life=9.0), lag=lag, seed=8, target=0.5)
    return aria.History(allocator, **{"every": 2, "max_records": 5, **settings})


def train(history, until, ahead=None):
    """Rounds with as many open as the lag allows (or `ahead`), each recorded; whether it was."""
    allocator, recorded = history.allocator, []
    while allocator.round < until:
        while len(allocator.open_rounds) <= (allocator.lag if ahead is None else ahead):
            r = allocator.round + len(allocator.open_rounds)
            allocator.draw(r % 9, present=[r % 6] * (r % 4))
        draw = allocator.open_rounds[0]
        allocator.observe(draw.regions, loss_of(draw))
        allocator.step()
        recorded.append(history.record())
    return recorded


# ------------------------------------------------------------------------------------------ what it keeps


def test_it_keeps_what_the_allocator_said():
    history = aria.History(aria.Allocator(small_pool(), target=0.5), every=3, max_records=50)
    said = []
    for _ in range(20):
        play(history.allocator, 1)
        if history.record():
            allocator = history.allocator
            counts, estimate = allocator.draw_counts, allocator.estimate()
            said.append((allocator.round, counts, estimate, allocator.probabilities, allocator.metrics()))
    assert history.rounds.tolist() == [3, 6, 9, 12, 15, 18]
    assert history.draw_counts.sum(axis=1).tolist() == [8 * r for r in history.rounds]
    assert len(said) == 6
    for row, (round_, counts, estimate, probabilities, metrics) in enumerate(said):
        assert history.rounds[row] == round_
        assert np.array_equal(history.draw_counts[row], counts)
        for name, value in (("discrepancy", estimate.mean), ("stderr", estimate.stderr), ("count", estimate.count)):
            assert np.array_equal(getattr(history, name)[row], value.astype(np.float32))
        assert np.array_equal(history.probabilities[row], probabilities.astype(np.float32))
        assert {name: history.metrics(name)[row] for name in history.metric_names} == {
            name: value for name, value in metrics.items() if name not in ("round", "open_rounds")
        }


@given(st.integers(1, 7), st.integers(4, 12), st.integers(1, 400))
def test_rounds_are_evenly_spaced_and_never_more_than_there_is_room_for(every, most, until):
    history = make(every=every, max_records=most)
    for _ in range(until):
        history.allocator.draw(0, present=[])
        history.allocator.step()
        history.record()
    rounds = history.rounds
    assert len(rounds) <= most
    if until >= every * most:
        assert len(rounds) >= most // 2
    spacing = np.diff(rounds, prepend=0)
    assert len(set(spacing.tolist())) <= 1
    if len(rounds):
        assert np.log2(spacing[0] / every) % 1 == 0
        assert until - rounds[-1] < 2 * spacing[0]  # full, and thinned at the next


def test_rounds_that_were_not_shown_to_it_are_made_up_for_at_the_next():
    history = aria.History(aria.Allocator(small_pool()), every=4)
    play(history.allocator, 7)
    assert (history.record(), history.record(), history.rounds.tolist()) == (True, False, [7])
    play(history.allocator, 1)
    assert history.record()
    assert history.rounds.tolist() == [7, 8]


def test_views_cannot_be_written_to_and_later_records_do_not_change_them():
    history = make(max_records=4)
    train(history, 8)
    views = [getattr(history, name) for name in COLUMNS] + [history.metrics("passes")]
    before = copy.deepcopy(views)
    train(history, 40)
    for view, kept in zip(views, before, strict=True):
        assert np.array_equal(view, kept)
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 0


def test_recording_changes_no_draw():
    with_one, without = make(lag=2), make(lag=2)
    train(with_one, 9)
    without.record = lambda: False
    train(without, 9)
    assert len(with_one) == 4
    assert with_one.allocator.digest() == without.allocator.digest()
    assert len(with_one.allocator.open_rounds) == len(without.allocator.open_rounds) == 2


class Uncopied:
    """What a face may remember of a batch: a process group, a stream of a device."""

    def __deepcopy__(self, _):
        raise TypeError("cannot be copied")


def test_what_a_face_remembers_of_open_rounds_is_left_alone():
    history = make(lag=2, every=1)
    train(history, 3)
    for opened in history.allocator.rounds:
        opened.context, opened.close = Uncopied(), Uncopied()
    contexts = [(opened.context, opened.close) for opened in history.allocator.rounds]
    before = history.allocator.digest()
    for each in (history, aria.History(history.allocator, every=1)):
        each.record()
    assert len(history) == 3
    twin = copy.copy(history.allocator)
    assert [draw.round for draw in twin.open_rounds] == [3, 4]
    assert [(opened.context, opened.close) for opened in history.allocator.rounds] == contexts
    assert history.allocator.digest() == twin.digest() == before


def test_losses_beyond_float32_are_infinite():
    history = make(every=1)
    draw = history.allocator.draw(8, present=[])
    history.allocator.observe(draw.regions, np.full(8, 1e60))
    history.allocator.step()
    history.record()
    assert np.isinf(history.discrepancy).any()


# ------------------------------------------------------------------------------------ the law of exact resume


@given(st.integers(0, 40), st.integers(0, 2), st.integers(4, 9), st.sampled_from(list(CARRIERS)))
def test_a_resumed_run_has_the_same_history(stop, lag, most, carrier):
    """Bit for bit, at any stop, thinning included."""
    straight, stopped, resumed = (make(lag, max_records=most) for _ in range(3))
    train(straight, 50)
    train(stopped, stop)
    state = {"allocator": stopped.allocator.state_dict(), "history": stopped.state_dict()}
    assert plain(state)
    train(resumed, 33)  # whatever it did before is forgotten
    state = CARRIERS[carrier](state)
    resumed.allocator.load_state_dict(state["allocator"])
    resumed.load_state_dict(state["history"])
    assert resumed.state_dict() == stopped.state_dict()
    train(resumed, 50)
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.allocator.digest() == straight.allocator.digest()


@given(
    st.sampled_from(["pool", 0.3, [3.0, 0, 1, 1, 0, 2], [1e-3, 1 / 3, 1, 1, 1, 1 / 7]]),
    st.sampled_from([None, 20.0]),
    st.integers(0, 2**32),
)
def test_a_history_is_read_with_the_shares_that_it_says(target, max_repeat, seed):
    """A saved state has the shares alone, not what they were made of: they are taken as they are, to the last bit."""
    pool = small_pool(seed=seed)
    history = aria.History(aria.Allocator(pool, target=target, max_repeat=max_repeat), every=1, max_records=4)
    play(history.allocator, 1)
    history.record()
    state = history.state_dict()
    shares = decode("target", state["target"])
    assert np.array_equal(shares, history.allocator.target)
    read = aria.History.read(state, pool)
    assert np.array_equal(read.allocator.target, shares)
    assert read.state_dict() == state
    assert read.settings == history.settings
    assert read.advice() == history.advice() or np.isnan(history.advice().over_pool.value)


def test_a_history_knows_its_settings_and_its_unit():
    pool = small_pool()
    allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0, 1, 2]), max_repeat=3.0)
    early = aria.History(allocator)
    assert not early.normalised
    switch = aria.RandomConditioning(allocator)
    for history in (aria.History(switch), aria.History(allocator), early):
        assert history.allocator is allocator
        assert history.normalised
        assert history.settings["coverage"].startswith("3 rows of data, none in")
        assert set(history.settings) == {"policy", "estimator", "exploration", "max_repeat", "coverage"}
        assert aria.History.read(history.state_dict(), pool).normalised
    state = history.state_dict()
    raw = aria.History(aria.RandomConditioning(allocator, normalise=False))
    assert not raw.normalised
    assert not aria.History(allocator).normalised
    refuses(raw, state, "losses", "normalised by noise level", "as reported")
    assert aria.History(aria.Allocator(pool)).settings["coverage"] == "none"
    assert aria.History(aria.Allocator(pool, coverage=aria.Coverage(pool, items=[]))).settings["coverage"] == "none"
    assert "online" in make().settings["coverage"]


def test_a_history_is_read_with_its_own_pool_only():
    history = make()
    train(history, 9)
    state = history.state_dict()
    with pytest.raises(StateError, match="another pool"):
        aria.History.read(state, small_pool(seed=1))
    with pytest.raises(StateError, match="settings"):
        aria.History.read({**state, "settings": {"policy": 3}}, small_pool())
    with pytest.raises(StateError, match="config"):
        aria.History.read({**state, "config": {**state["config"], "every": "often"}}, small_pool())


def test_how_far_a_loader_draws_ahead_does_not_show():
    plain_loop, prefetching = make(lag=3), make(lag=3)
    train(plain_loop, 30, ahead=0)
    train(prefetching, 30, ahead=3)
    assert len(prefetching.allocator.open_rounds) == 3
    assert plain_loop.state_dict() == prefetching.state_dict()


def test_after_the_allocator_went_back_its_rounds_are_recorded_again():
    """Without the state of the history: the records of rounds that come again are replaced by equal ones."""
    history, straight = make(max_records=50), make(max_records=50)
    train(history, 11)
    state = history.allocator.state_dict()
    train(history, 20)
    history.allocator.load_state_dict(state)
    train(history, 12)
    assert history.rounds.tolist() == [2, 4, 6, 8, 10, 12]
    train(history, 30)
    train(straight, 30)
    assert history.state_dict() == straight.state_dict()


def test_a_state_is_a_value_of_one_structure():
    history = make()
    empty = history.state_dict()
    train(history, 9)
    state = history.state_dict()
    kept = copy.deepcopy(state)
    train(history, 30)
    assert state == kept
    other = make()
    other.load_state_dict(state)
    state["columns"].clear()
    assert other.state_dict() == kept
    for name, column in empty["columns"].items():
        assert len(column["data"]) == len(kept["columns"][name]["data"])


# ------------------------------------------------------------------------------------------------ refusals


def test_refuses_what_does_not_fit():
    history = make()
    train(history, 9)
    state = history.state_dict()
    other_pool = aria.History(aria.Allocator(small_pool(seed=1), target=0.5), every=2, max_records=5)
    refuses(other_pool, state, "another pool", "fingerprint", state["fingerprint"])
    wider = aria.History(aria.Allocator(small_pool(n_regions=7)), every=2, max_records=5)
    refuses(wider, state, "n_regions=6", "7")
    refuses(make(every=3), state, "every: '2' there, '3' here")
    refuses(make(max_records=6), state, "max_records: '5' there, '6' here")
    other_target = aria.History(aria.Allocator(small_pool(), target="pool"), every=2, max_records=5)
    refuses(other_target, state, "target")
    refuses(history, {**state, "schema": 2}, "schema=2", "1")
    refuses(history, {**state, "records": 6}, "records")
    refuses(history, {**state, "records": -1}, "records")
    refuses(history, {**state, "records": 5}, "records")  # of which the last was never made
    refuses(history, {**state, "spacing": 1}, "spaced")


def test_refuses_anything_damaged():
    history = make()
    train(history, 9)
    state = history.state_dict()
    for path, what, bad in damage(state):
        refusal(history, path, what, bad)
    assert history.state_dict() == state
    with pytest.raises(StateError, match="state"):
        history.load_state_dict(None)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"every": 0}, "every=0"),
        ({"every": 2.5}, "every=2.5"),
        ({"max_records": 3}, "max_records=3"),
        ({"max_records": True}, "max_records=True"),
        ({"max_records": 2**28}, "max_records=268435456: with 6 regions, expected at most"),
    ],
)
def test_arguments(settings, words):
    with pytest.raises(ValueError, match=words):
        make(**settings)


def test_other_arguments():
    with pytest.raises(ValueError, match="expected an Allocator or a RandomConditioning, got Partition"):
        aria.History(small_pool())
    sampler = aria.Allocator(small_pool()).sampler(batch_size=4, num_samples=60)
    with pytest.raises(ValueError, match=r"got AriaSampler\. Pass its \.allocator"):
        aria.History(sampler)
    with pytest.raises(ValueError, match=r"'loss'.*discrepancy"):
        make().metrics("loss")
