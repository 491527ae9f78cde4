"""Law, lag determinism: draw r knows the feedback of rounds <= r - 1 - lag and the coverage of rounds <= r.

So whoever drives the allocator, early or late, whole or in parts, gets the same stream, bit for bit.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import FeedbackLagError
from tests.helpers import loss_of, same_draw, same_estimate, small_pool

ROUNDS = 16
seeds = st.integers(0, 2**32)
lags = st.integers(0, 4)


def sizes_and_presents(seed, n_regions):
    """What the trainer does in each round, a function of the round alone: rows wanted (0: none), rows that came."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 3, 8, 15], ROUNDS)
    presents = [rng.integers(0, n_regions, int(rng.integers(0, 9))) for _ in range(ROUNDS)]
    return sizes.tolist(), presents


def make(lag, seed=0, **settings):
    """With a static coverage, an online one or none, by the seed."""
    pool = small_pool(seed=seed % 7)
    coverages = [None, aria.Coverage(pool, items=[0, 7, 7, 30], weight=0.2), aria.Coverage.online(pool, half_life=4.0)]
    settings = {"coverage": coverages[seed % 3], **settings}
    return aria.Allocator(pool, lag=lag, seed=seed, target="uniform", **settings)


def open_round(allocator, sizes, presents):
    r = allocator.round + len(allocator.open_rounds)
    return draw_with(allocator, sizes[r], presents[r])


def draw_with(allocator, n, came):
    """The draw, told of the rows that came in the way that its coverage wants."""
    if allocator.coverage is None:
        return allocator.draw(n)
    if allocator.coverage.is_online:
        return allocator.draw(n, present=came)
    return allocator.draw(n, data_rows=len(came))


def feed(allocator, losses=loss_of):
    draw = allocator.open_rounds[0]
    allocator.observe(draw.regions, losses(draw))


def run(allocator, plan, order):
    """Play all rounds; `order` says, whenever there is a choice, whether to draw ahead."""
    sizes, presents = plan
    draws = []
    while allocator.round < ROUNDS:
        may = len(allocator.open_rounds) <= allocator.lag and len(draws) < ROUNDS
        if may and (not allocator.open_rounds or order(len(allocator.open_rounds))):
            draws.append(open_round(allocator, sizes, presents))
        else:
            feed(allocator)
            allocator.step()
    return draws


@given(seeds, lags, st.randoms(use_true_random=False))
def test_interleavings_give_the_same_stream(seed, lag, random):
    """Early, late and at random: the draws and the final state are the same bits."""
    orders = [lambda n: True, lambda n: False, lambda n: random.random() < 0.5]
    results = []
    for order in orders:
        allocator = make(lag, seed)
        results.append((run(allocator, sizes_and_presents(seed, 6), order), allocator))
    (first, one), *others = results
    for draws, other in others:
        assert all(same_draw(a, b) for a, b in zip(first, draws, strict=True))
        assert other.state_dict() == one.state_dict()
        assert same_estimate(other.estimate(), one.estimate())
        assert other.metrics() == one.metrics()
        assert np.array_equal(other.probabilities, one.probabilities)


@given(seeds, lags, st.integers(0, ROUNDS - 1))
def test_a_draw_ignores_later_feedback_and_later_presence(seed, lag, r):
    """Two histories that agree up to what draw r may know, and differ in everything after: the same draw r."""
    draws = []
    for variant in (1.0, 50.0):
        allocator = make(lag, seed)
        sizes, presents = sizes_and_presents(seed, 6)
        for index in range(r):
            if len(allocator.open_rounds) > lag:
                changed = variant if allocator.round > r - 1 - lag else 1.0
                feed(allocator, lambda d, c=changed: loss_of(d) ** 2 * c)
                allocator.step()
            open_round(allocator, sizes, presents)
            assert allocator.round + len(allocator.open_rounds) == index + 1
        while allocator.open_rounds:  # close all there is: rounds past r - 1 - lag with other losses
            changed = variant if allocator.round > r - 1 - lag else 1.0
            feed(allocator, lambda d, c=changed: loss_of(d) ** 2 * (c if c == 1 else 1 + d.regions * c))
            allocator.step()
        draws.append(open_round(allocator, sizes, presents))
    assert draws[0].round == r
    assert same_draw(*draws)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_a_draw_does_use_the_newest_feedback_it_may(lag):
    """The counterpart: feedback of round r - 1 - lag, and rows that came in round r, change draw r."""
    for what, seed in (("feedback", 3), ("static", 4), ("online", 5)):
        seen = []
        for variant in (0, 1):
            allocator = make(lag, seed)
            for _ in range(8):
                if len(allocator.open_rounds) > lag:
                    if what == "feedback" and variant and allocator.round == 8 - 1 - lag:
                        feed(allocator, lambda d: 1 + 100.0 * (d.regions == 0))
                    else:
                        feed(allocator)
                    allocator.step()
                draw_with(allocator, 12, [0])
            while allocator.round < 8 - lag:
                if what == "feedback" and variant and allocator.round == 8 - 1 - lag:
                    feed(allocator, lambda d: 1 + 100.0 * (d.regions == 0))
                else:
                    feed(allocator)
                allocator.step()
            last = draw_with(allocator, 12, [1] * 500 if variant else [0])
            assert last.round == 8
            seen.append(last)
        a, b = seen
        assert not np.array_equal(a.probabilities, b.probabilities), what


@given(seeds, st.integers(0, 2))
def test_micro_batches_give_the_same_bits(seed, lag):
    """Any split of observe() in row order: the same estimates, draws and state."""
    rng = np.random.default_rng(seed)
    whole, parts = make(lag, seed), make(lag, seed)
    sizes, presents = sizes_and_presents(seed, 6)
    for _ in range(8):
        assert same_draw(open_round(whole, sizes, presents), open_round(parts, sizes, presents))
        draw = whole.open_rounds[0]
        losses = loss_of(draw)
        losses[:1] = rng.choice([np.nan, 3.0, 1e160])
        whole.observe(draw.regions, losses)
        cuts = np.sort(rng.integers(0, len(losses) + 1, 3))
        for rows in np.split(np.arange(len(losses)), cuts):
            parts.observe(draw.regions[rows], losses[rows])
        whole.step()
        parts.step()
        assert whole.state_dict() == parts.state_dict()


@given(seeds, lags)
def test_the_error_names_the_number_and_changes_nothing(seed, lag):
    plan = sizes_and_presents(seed, 6)
    allocator, untouched = make(lag, seed), make(lag, seed)
    for a in (allocator, untouched):
        for _ in range(3):
            open_round(a, *plan)
            feed(a)
            a.step()
        for _ in range(lag + 1):
            open_round(a, *plan)
    before, probabilities = allocator.state_dict(), allocator.probabilities
    for call in (lambda: draw_with(allocator, 5, [0, 1]), lambda: draw_with(allocator, 0, [2])):
        with pytest.raises(FeedbackLagError, match=rf"lag={lag + 1} or more") as caught:
            call()
        message = str(caught.value)
        assert f"draw of round {3 + lag + 1}:" in message
        assert "needs the feedback of round 3 " in message
        assert ("round 3 is still open" if lag == 0 else f"rounds 3 to {3 + lag} are still open") in message
        forgotten, ahead = message.index("observe() and step()"), message.index("a loader draws ahead")
        assert (forgotten < ahead) == (lag == 0)  # the likelier cause first
    assert isinstance(caught.value, RuntimeError)
    assert allocator.state_dict() == before
    assert np.array_equal(allocator.probabilities, probabilities)
    assert len(allocator.open_rounds) == lag + 1
    for _ in range(5):  # and it goes on as if nothing had been
        for a in (allocator, untouched):
            feed(a)
            a.step()
        assert same_draw(open_round(allocator, *plan), open_round(untouched, *plan))


@pytest.mark.parametrize("lag", [0, 2])
def test_the_named_lag_is_the_smallest_that_works(lag):
    allocator = make(lag)
    for _ in range(lag + 1):
        allocator.draw(3)
    with pytest.raises(FeedbackLagError) as caught:
        allocator.draw(3)
    named = int(str(caught.value).split("Allocator with lag=")[1].split()[0])
    assert named == lag + 1
    allocator = make(named)
    for _ in range(lag + 2):
        allocator.draw(3)


def test_streams_are_equal_for_equal_lag_only():
    """Lag is part of the stream's definition: with feedback that matters, another lag gives another one."""
    plan = [12] * ROUNDS, [None] * ROUNDS
    streams = [np.concatenate([d.items for d in run(make(lag), plan, lambda n: True)]) for lag in (0, 1, 4)]
    assert not np.array_equal(streams[0], streams[1])
    assert not np.array_equal(streams[1], streams[2])


def test_without_an_open_round_there_is_nothing_to_observe_or_close():
    allocator = make(1)
    before = allocator.state_dict()
    for call in (lambda: allocator.observe([0], [1.0]), allocator.step):
        with pytest.raises(RuntimeError, match="without an open round") as caught:
            call()
        assert not isinstance(caught.value, FeedbackLagError)
    assert allocator.state_dict() == before


def test_observe_credits_the_oldest_open_round():
    allocator = make(2, estimator=aria.Ema(1.0))
    for _ in range(3):
        allocator.draw(4)
    allocator.observe([0], [5.0])
    allocator.step()
    allocator.observe([0], [7.0])
    assert allocator.estimate().mean[0] == 5.0
    allocator.step()
    assert allocator.estimate().mean[0] == 7.0
    allocator.step()
    assert allocator.estimate().age[0] == 1.0


def test_estimate_covers_all_closed_rounds_whatever_the_lag():
    allocator = make(3, estimator=aria.Ema(1.0))
    draw = allocator.draw(6)
    p = allocator.probabilities
    allocator.observe(draw.regions, 1.0 + draw.regions)
    allocator.step()
    assert np.isfinite(allocator.estimate().mean).all()
    assert np.array_equal(allocator.probabilities, p)  # the next draw may not use it yet
    for _ in range(3):
        allocator.draw(6)
    assert np.array_equal(allocator.draw(6).regions * 0, np.zeros(6))
    assert not np.array_equal(allocator.probabilities, p)
