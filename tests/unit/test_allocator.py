"""`Allocator` as a whole: its settings, what it reports, and rounds opened, empty and forgotten.

Draws and states are in `tests/laws/`, and equality with a slow allocator `test_reference.py`.
"""

import copy
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

import aria_sampling as aria
from aria_sampling import _kernel
from tests.helpers import loss_of, play, same_draw, small_pool

seeds = st.integers(0, 2**32)


def make(**settings):
    return aria.Allocator(small_pool(), **{"seed": 2, **settings})


# ------------------------------------------------------------------------------------------- settings


def test_defaults_are_those_of_the_contract():
    """EmaBank, Proportional(1), exploration 0.2, the pool's sizes, lag 0, seed 0: each said is each left out."""
    pool = small_pool()
    said = aria.Allocator(
        pool,
        estimator=aria.EmaBank(),
        policy=aria.Proportional(exponent=1.0),
        coverage=aria.Coverage(pool, items=[]),
        exploration=0.2,
        target="pool",
        max_repeat=None,
        seed=0,
        lag=0,
    )
    left_out = aria.Allocator(pool)
    assert left_out.state_dict() == said.state_dict()
    assert all(same_draw(a, b) for a, b in zip(play(left_out, 9), play(said, 9), strict=True))
    assert left_out.state_dict() == said.state_dict()


@pytest.mark.parametrize(
    ("target", "same_as"),
    [("pool", 1), ("pool", 1.0), ("uniform", 0), ("uniform", 0.0), (0.5, np.float32(0.5)), ([1, 2, 3, 4, 5, 6],) * 2],
)
def test_targets_that_are_the_same_draw_the_same(target, same_as):
    """And their states are interchangeable: what counts is q, not how it was said."""
    one, two = make(target=target), make(target=same_as)
    assert np.array_equal(one.target, two.target)
    assert all(same_draw(a, b) for a, b in zip(play(one, 6), play(two, 6), strict=True))
    two.load_state_dict(one.state_dict())


@given(st.floats(0, 1), seeds)
def test_tau_is_a_power_of_the_size(tau, seed):
    pool = small_pool(seed=seed)
    q = aria.Allocator(pool, target=tau).target
    powers = [size**tau for size in pool.sizes.tolist()]
    np.testing.assert_allclose(q, [power / sum(powers) for power in powers], rtol=1e-12)


@given(st.lists(st.just(0.0) | st.floats(1e10, 1e300), min_size=6, max_size=6).filter(any), st.floats(1e-3, 1e3))
def test_a_target_vector_is_normalised(target, scale):
    q = make(target=target).target
    assert math.isclose(q.sum(), 1, rel_tol=1e-12)
    assert q.tolist() == pytest.approx([x / max(target) / math.fsum(y / max(target) for y in target) for x in target])
    assert (q[np.array(target) == 0] == 0).all()
    scaled = make(target=np.array(target) / max(target) * scale).target
    np.testing.assert_allclose(scaled, q, rtol=1e-12)


@pytest.mark.parametrize("target", ["pool", "uniform", 0.5])
def test_max_repeat_bounds_every_draw_probability(target):
    """No item is expected more than max_repeat times in n_items draws, whatever one region's loss."""
    pool = small_pool(n_items=200)
    for max_repeat in (1.0, 1.5, 4.0):
        allocator = aria.Allocator(pool, target=target, max_repeat=max_repeat, policy=aria.Proportional(3.0))
        worst = int(np.argmin(pool.sizes))
        play(allocator, 30, loss=lambda d, w=worst: 1.0 + 1e4 * (d.regions == w))
        p = allocator.probabilities
        assert p.sum() == pytest.approx(1, rel=1e-12)
        assert (p * pool.n_items / pool.sizes <= max_repeat * (1 + 1e-12)).all()
        if max_repeat == 1.0:
            np.testing.assert_allclose(p, pool.sizes / pool.n_items, rtol=1e-12)
        else:
            assert p[worst] * pool.n_items / pool.sizes[worst] == pytest.approx(max_repeat, rel=0.3)


@pytest.mark.parametrize(("policy", "target"), [(aria.PoolPolicy(), "pool"), (aria.UniformPolicy(), "uniform")])
def test_a_baseline_is_its_target_whatever_is_seen(policy, target):
    """p = q, weights 1, no forced visit, whatever comes back."""
    allocator, control = make(policy=policy), make(policy=aria.Proportional(0.0), target=target)
    assert np.array_equal(allocator.target, control.target)
    assert allocator.exploration == 1.0
    for _ in range(12):
        draw = allocator.draw(5, data_rows=50)
        assert np.array_equal(draw.probabilities, allocator.target[draw.regions])
        assert draw.weights.tolist() == [1.0] * 5
        assert draw.forced == 0
        allocator.observe(draw.regions, loss_of(draw))
        allocator.step()
        assert np.array_equal(allocator.probabilities, allocator.target)
    assert (allocator.metrics()["top_boost"], allocator.metrics()["ess"]) == (1.0, pytest.approx(1.0, rel=1e-14))
    assert (allocator.estimate().count > 0).any()  # it does watch: metrics can be compared


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
@pytest.mark.parametrize("name", ["target", "exploration", "coverage"])
def test_a_baseline_refuses_what_it_would_ignore(policy, name):
    pool = small_pool()
    given = {"target": "pool", "exploration": 0.2, "coverage": aria.Coverage(pool, items=[0])}
    with pytest.raises(ValueError, match=rf"{name}=.*{type(policy).__name__}.*leave {name} out"):
        aria.Allocator(pool, policy=policy, **{name: given[name]})


def test_exploration_one_is_the_target():
    allocator = make(exploration=1.0)
    play(allocator, 10)
    np.testing.assert_allclose(allocator.probabilities, allocator.target, rtol=1e-15)


# ------------------------------------------------------------------------------ what is reported


def by_hand(allocator, rounds, draws):
    """Every metric but dropped losses from its definition, in plain Python."""
    p, q = allocator.probabilities.tolist(), allocator.target.tolist()
    e = allocator.estimate()
    known = [k for k in range(len(q)) if e.count[k] > 0]
    discrepancy = math.fsum(a * b for a, b in zip(q, e.mean.tolist(), strict=True))
    return {
        "round": rounds,
        "open_rounds": len(allocator.open_rounds),
        "visited": len(known) / len(q),
        "discrepancy": discrepancy,
        "discrepancy_max": max(e.mean[k] for k in known),
        "effective_regions": math.exp(-math.fsum(x * math.log(x) for x in p if x > 0)),
        "top_share": max(p),
        "top_boost": max(a / b for a, b in zip(p, q, strict=True) if b > 0),
        "ess": 1 / math.fsum(b * b / a for a, b in zip(p, q, strict=True) if b > 0),
        "passes": sum(len(draw.items) for draw in draws) / allocator.partition.n_items,
        "forced_visits": sum(draw.forced for draw in draws),
        "uncertain": math.fsum(x for k, x in enumerate(p) if not abs(e.mean[k] - discrepancy) > e.stderr[k]),
    }


@given(seeds, st.sampled_from(["pool", "uniform", 0.3, [3, 0, 1, 1, 0, 2]]), st.sampled_from([0.1, 0.5]))
def test_metrics_are_their_definitions(seed, target, exploration):
    rng = np.random.default_rng(seed)
    allocator = make(seed=seed, target=target, exploration=exploration)
    draws, dropped = [], 0
    for rounds in range(1, 7):
        draw = allocator.draw(int(rng.integers(1, 5)))
        losses = rng.lognormal(size=len(draw.items)) * (1 + draw.regions)
        losses[0] = rng.choice([losses[0], np.nan])
        dropped += int(np.isnan(losses[0]))
        allocator.observe(draw.regions, losses)
        allocator.step()
        draws.append(draw)
        found = allocator.metrics()
        assert all(type(value) is float for value in found.values())
        assert found["dropped_losses"] == dropped
        if (allocator.estimate().count > 0).any():
            expected = {**by_hand(allocator, rounds, draws), "dropped_losses": dropped}
            assert found == pytest.approx(expected, rel=1e-12)
        assert 1 - 1e-12 <= found["effective_regions"] <= 6 + 1e-12
        assert exploration * (1 - 1e-12) <= found["ess"] <= 1 + 1e-12
        assert found["top_boost"] >= 1 - 1e-12


def test_metrics_of_an_example():
    """Two regions of 90 and 10 items at 1 and 4: p = 0.8·(0.2, 0.8) + 0.2·(0.5, 0.5) = (0.26, 0.74)."""
    pool = aria.Partition.from_labels([0] * 90 + [1] * 10)
    allocator = aria.Allocator(pool, target="uniform", estimator=aria.Ema())
    allocator.draw(4)
    allocator.observe([0, 1, 1], [1.0, 4.0, float("inf")])
    allocator.step()
    allocator.draw(20)
    entropy = -0.26 * math.log(0.26) - 0.74 * math.log(0.74)
    assert allocator.metrics() == pytest.approx(
        {
            "round": 1,
            "open_rounds": 1,
            "dropped_losses": 1,
            "forced_visits": 0,
            "visited": 1,
            "discrepancy": 2.5,
            "discrepancy_max": 4,
            "effective_regions": math.exp(entropy),
            "top_share": 0.74,
            "top_boost": 1.48,
            "ess": 1 / (0.25 / 0.26 + 0.25 / 0.74),
            "passes": 0.04,  # of closed rounds
            # one loss each and a spread of cv² = 1: the standard errors are 1 and 4, the distances 1.5 each
            "uncertain": 0.74,
        }
    )


def test_metrics_before_anything_is_known():
    found = make(target="uniform").metrics()
    unknown = {name for name, value in found.items() if math.isnan(value)}
    assert unknown == {"discrepancy", "discrepancy_max"}
    assert (found["visited"], found["uncertain"], found["passes"], found["round"]) == (0, pytest.approx(1), 0, 0)
    assert found["effective_regions"] == pytest.approx(6, rel=1e-12)


def test_regions_without_target_do_not_count_in_the_discrepancy():
    allocator = make(target=[1, 1, 0, 0, 0, 0], estimator=aria.Ema(1.0))
    allocator.draw(2)
    allocator.observe([0, 1, 2], [1.0, 3.0, 1e6])
    allocator.step()
    assert allocator.metrics()["discrepancy"] == 2.0


@given(seeds, st.integers(0, 2), st.booleans())
def test_probabilities_are_those_of_the_next_draw(seed, lag, ahead):
    """In a draw without forced visits `probabilities`, read before, are what the draw then reports."""
    allocator = make(seed=seed, lag=lag, policy=aria.Proportional(2.0))
    for _ in range(8):
        while len(allocator.open_rounds) < (lag + 1 if ahead else 1):
            p = allocator.probabilities
            draw = allocator.draw(6)
            if draw.forced:
                continue
            assert np.array_equal(draw.probabilities, p[draw.regions])
            np.testing.assert_allclose(draw.weights, (allocator.target / p)[draw.regions], rtol=1e-15)
        oldest = allocator.open_rounds[0]
        allocator.observe(oldest.regions, loss_of(oldest))
        allocator.step()


def test_probabilities_are_a_copy():
    allocator = make()
    allocator.probabilities[:] = 7
    assert allocator.probabilities.sum() == pytest.approx(1)


# ----------------------------------------------------------------------------------------- rounds


def test_open_rounds_are_the_draws_oldest_first():
    allocator = make(lag=3)
    draws = [allocator.draw(3), allocator.draw(0), allocator.draw(5)]
    assert allocator.open_rounds == tuple(draws)
    assert [draw.round for draw in draws] == [0, 1, 2]
    allocator.step()
    assert allocator.open_rounds == tuple(draws[1:])
    assert allocator.round == 1
    assert allocator.draw(2).round == 3


def test_a_draw_cannot_be_written_to():
    draw = make().draw(5)
    for name in ("items", "regions", "probabilities", "weights"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(draw, name)[0] = 0


@given(seeds)
def test_an_empty_draw_is_a_round_in_which_nothing_is_drawn(seed):
    """It takes a number and ages what is known; cursors, gaps and the draw size stay."""
    plain, skipping = make(seed=seed), make(seed=seed)
    one, two = play(plain, 5), []
    for _ in range(5):
        two += play(skipping, 1, loss=lambda d: np.ones(8))
        empty = skipping.draw(0)
        assert (len(empty.items), len(empty.weights), empty.forced) == (0, 0, 0)
        assert empty.items.dtype == empty.regions.dtype == np.int64
        skipping.step()
    assert [draw.round for draw in two] == [0, 2, 4, 6, 8]
    assert [a.draw_counts.sum() for a in (plain, skipping)] == [40, 40]
    assert skipping.metrics()["passes"] == plain.metrics()["passes"]
    assert len(one) == len(two)


def test_feedback_may_come_in_an_empty_round():
    """A round that draws nothing is still a round: losses of other rows are credited in it."""
    allocator = make(estimator=aria.Ema(1.0))
    allocator.draw(0)
    allocator.observe([3], [2.5])
    allocator.step()
    assert allocator.estimate().mean[3] == 2.5
    assert allocator.estimate().cold.tolist() == [True, True, True, False, True, True]


@given(seeds, st.integers(0, 3), st.integers(0, 3))
def test_rewind_forgets_open_rounds_alone(seed, lag, ahead):
    """Closed rounds stay; the same requests give the same draws; feedback of the forgotten is gone."""
    pool = small_pool()
    coverage = aria.Coverage(pool, items=[0, 1, 2, 3])
    allocator, twin = (aria.Allocator(pool, coverage=coverage, seed=seed, lag=lag) for _ in range(2))
    for each in (allocator, twin):
        play(each, 3)
    sizes = [3 + i for i in range(min(ahead, lag) + 1)]
    before = [allocator.draw(n, data_rows=3 * n) for n in sizes]
    allocator.observe([0], [1e6])
    allocator.rewind()
    assert (allocator.round, allocator.open_rounds) == (3, ())
    assert allocator.state_dict() == twin.state_dict()
    assert np.array_equal(allocator.probabilities, twin.probabilities)
    assert all(same_draw(a, allocator.draw(n, data_rows=3 * n)) for a, n in zip(before, sizes, strict=True))
    allocator.rewind()
    assert all(same_draw(a, b) for a, b in zip(play(allocator, 4), play(twin, 4), strict=True))
    assert allocator.state_dict() == twin.state_dict()


def test_rewind_of_nothing_is_nothing():
    allocator, twin = make(), make()
    allocator.rewind()
    assert same_draw(allocator.draw(5), twin.draw(5))


@given(seeds, st.integers(0, 2))
def test_closing_a_round_in_one_call_is_observe_and_step(seed, lag):
    one, two = make(seed=seed, lag=lag), make(seed=seed, lag=lag)
    for _ in range(6):
        a, b = one.draw(8), two.draw(8)
        assert same_draw(a, b)
        one.observe(a.regions[:3], loss_of(a)[:3])
        one.observe(a.regions[3:], loss_of(a)[3:])
        one.step()
        two.observe(b.regions[:3], loss_of(b)[:3])
        two.close_round(b.regions[3:], loss_of(b)[3:])
        assert one.digest() == two.digest()


# ----------------------------------------------------------------------------------- what trains anyway


def test_coverage_by_hand():
    """Two regions alike, m data rows for n drawn ones, all in region 0: s = (w m/n, 0), u = (1/2, 1/2)."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    coverage = aria.Coverage(pool, items=[3, 4, 5], weight=1.0)
    for m, n in ((1, 4), (2, 8), (4, 4), (40, 4)):
        allocator = aria.Allocator(pool, coverage=coverage, estimator=aria.Ema())
        for _ in range(3):
            allocator.draw(n, data_rows=m)
            allocator.observe([0, 1], [1.0, 1.0])
            allocator.step()
        x0 = max(0.0, (1 + m / n) / 2 - m / n)  # level mu·u = (1 + s)/2 fills both, if region 0 is below it
        np.testing.assert_allclose(
            allocator.probabilities, [0.8 * x0 + 0.1, 0.8 * (1 - x0) + 0.1], rtol=1e-12, err_msg=str((m, n))
        )


def test_coverage_works_from_the_first_round():
    """Nothing was observed, and the draws go to the regions without data, as far as exploration lets them."""
    pool = aria.Partition.from_labels(np.arange(600) % 6)
    allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, items=np.flatnonzero(pool.labels < 4)))
    np.testing.assert_allclose(allocator.probabilities, [0.2 / 6] * 4 + [0.4 + 0.2 / 6] * 2, rtol=1e-12)
    draw = allocator.draw(6)
    assert (np.bincount(draw.regions, minlength=6)[4:] >= 2).all()
    np.testing.assert_array_equal(draw.probabilities, allocator.probabilities[draw.regions])


@given(seeds, st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30)), min_size=1, max_size=8))
def test_data_rows_count_by_their_ratio_over_all_rounds(seed, rounds):
    """In whatever order the rounds came; without the argument as many as are drawn."""
    pool = small_pool()
    rounds = [(5, 2), *rounds]
    rng = np.random.default_rng(seed)
    coverage = aria.Coverage(pool, counts=rng.integers(0, 5, 6) + np.eye(6)[0], weight=0.7)

    def after(rounds):
        allocator = aria.Allocator(pool, coverage=coverage, policy=aria.Proportional(0.0), target="uniform")
        for n, data_rows in rounds:
            allocator.draw(n, data_rows=data_rows)
            allocator.step()
        return allocator.probabilities

    effort = coverage.counts / coverage.counts.sum() * 0.7 * sum(m for _, m in rounds) / sum(n for n, _ in rounds)
    level = optimize.brentq(lambda mu: np.maximum(mu - effort, 0).sum() - 1, 0, 2 + effort.max())
    np.testing.assert_allclose(after(rounds), 0.8 * np.maximum(level - effort, 0) + 0.2 / 6, atol=1e-9)
    np.testing.assert_allclose(after(rounds), after(rounds[::-1]), rtol=1e-12)
    assert np.array_equal(after([(n, None) for n, _ in rounds]), after([(n, n) for n, _ in rounds]))


def with_rows(half_life, rounds):
    """An allocator of a target alone after rounds of (rows drawn, regions of rows that came anyway)."""
    pool = small_pool()
    allocator = aria.Allocator(
        pool,
        coverage=aria.Coverage.online(pool, half_life=half_life, weight=1.0),
        policy=aria.Proportional(0.0),
        target="uniform",
        exploration=0.1,
        seed=2,
    )
    for n, present in rounds:
        draw = allocator.draw(n, present=present)
        allocator.observe(draw.regions if n else [0], np.ones(max(n, 1)))
        allocator.step()
    return allocator


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 5), max_size=9)), min_size=1, max_size=12))
def test_online_coverage_counts_what_came(rounds):
    """Effort is rows that came over rows drawn, of all rounds so far, in whatever order the rounds came."""
    rounds = [(5, [1]), *rounds]
    shares = with_rows(None, rounds).probabilities
    drawn = sum(n for n, _ in rounds)
    effort = np.bincount([k for _, present in rounds for k in present], minlength=6) / drawn
    level = optimize.brentq(lambda mu: np.maximum(mu - effort, 0).sum() - 1, 0, 2 + effort.max())
    np.testing.assert_allclose(shares, 0.9 * np.maximum(level - effort, 0) + 0.1 / 6, atol=1e-9)
    np.testing.assert_allclose(shares, with_rows(None, [rounds[0], *rounds[:0:-1]]).probabilities, rtol=1e-12)


def test_online_coverage_forgets_by_its_half_life():
    """A row that came in one of 20 rounds counts for little after ten half-lives, and without one for as much."""
    rounds = [(4, [0])] + [(4, [1])] * 20
    short, long = (with_rows(half_life, rounds).probabilities for half_life in (2.0, None))
    assert short[2] - short[0] < 0.001 * short[2]
    assert long[2] - long[0] == pytest.approx(0.9 / (4 * 21))


@pytest.mark.parametrize("half_life", [None, 2.0])
def test_a_state_keeps_what_online_coverage_counted(half_life):
    one, rounds = with_rows(half_life, [(5, [1, 2]), (3, [2])]), [(4, [0, 5]), (0, [3])]
    two = with_rows(half_life, [])
    two.load_state_dict(one.state_dict())
    for n, present in rounds:
        for each in (one, two):
            each.draw(n, present=present)
            each.step()
    assert one.digest() == two.digest()
    assert np.array_equal(one.probabilities, two.probabilities)


def test_rows_that_came_are_asked_for_exactly_with_online_coverage():
    pool = small_pool()
    online = aria.Allocator(pool, coverage=aria.Coverage.online(pool))
    for allocator, present, match in (
        (online, None, r"present=\[\]"),
        (make(), [0], r"Coverage\.online"),
        (aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0])), [0], r"Coverage\.online.*items="),
    ):
        before = allocator.digest()
        with pytest.raises(ValueError, match=match):
            allocator.draw(4, present=present)
        assert allocator.digest() == before
        assert allocator.open_rounds == ()


def test_coverage_of_another_pool_is_refused():
    with pytest.raises(ValueError, match="coverage: expected one of the allocator's partition"):
        make(coverage=aria.Coverage(small_pool(seed=1), items=[0]))


def test_a_saved_state_brings_its_coverage_along():
    """What BLAS computes on another machine may differ in the last bit: the saved vector is what counts."""
    pool = aria.Partition.from_labels(np.arange(60) % 6, centers=np.random.default_rng(0).normal(size=(6, 3)))
    one = aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0, 1]), seed=3)
    play(one, 3)
    other = aria.Coverage(pool, items=[0, 1])
    object.__setattr__(other, "uncovered", np.nextafter(other.uncovered, 0))
    two = aria.Allocator(pool, coverage=other, seed=3)
    assert two.digest() != aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0, 1]), seed=3).digest()
    two.load_state_dict(one.state_dict())
    assert one.digest() == two.digest()
    assert all(same_draw(a, b) for a, b in zip(play(one, 4), play(two, 4), strict=True))


def test_a_sharp_power_leaves_ratios():
    """Only ratios of `uncovered` count: where all of it is tiny, a high power must not end at the target."""
    centers = [[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]
    pool = aria.Partition.from_labels([0] * 5 + [1] * 3 + [2] * 2, centers=centers)
    coverage = aria.Coverage(pool, counts=[1000, 1010, 1020], weight=0, length_scale=1e-3, power=64)
    u = pool.sizes / 10 * (coverage.uncovered / coverage.uncovered.max()) ** 64
    found = aria.Allocator(pool, coverage=coverage).probabilities
    np.testing.assert_allclose(found, 0.8 * u / u.sum() + 0.2 * pool.sizes / 10, rtol=1e-9)


# ----------------------------------------------------------------------------------------- copies and failures


def test_a_copy_is_independent():
    """What happens to one does not happen to the other, whether rounds were open or not."""
    one = make(lag=1)
    play(one, 4)
    one.draw(6)
    two, before = copy.copy(one), one.digest()
    two.rewind()
    play(two, 5)
    assert one.digest() == before
    assert len(one.open_rounds) == 1
    other = make()
    twin = copy.copy(other)
    twin.lag = 3
    assert other.lag == 0
    other.load_state_dict(make(lag=0).state_dict())


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_recorded_history_takes_nothing_from_an_interrupted_step(monkeypatch):
    """Ctrl-C after the round was stored: the draws go on as without it, with a history and without."""
    draws = []
    for interrupted, recorded in ((False, False), (True, False), (True, True)):
        allocator = make()
        history = aria.History(allocator, every=1)
        play(allocator, 3)
        draw = allocator.draw(8)
        allocator.observe(draw.regions, loss_of(draw))
        if interrupted:
            with monkeypatch.context() as patch:
                patch.setattr(type(allocator), "_catch_up", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    allocator.step()
        else:
            allocator.step()
        if recorded:
            history.record()
        draws.append(allocator.draw(8))
    assert same_draw(draws[0], draws[1])
    assert same_draw(draws[0], draws[2])


def test_feedback_that_could_not_be_stored_plays_no_part(monkeypatch):
    """A round whose close failed, and that is then closed without feedback, leaves nothing behind."""
    one, two = make(), make()
    for allocator in (one, two):
        allocator.draw(6)
    with monkeypatch.context() as patch:
        patch.setattr(_kernel, "store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            one.close_round([0, 1], [1.0, 100.0])
    one.step()
    two.step()
    assert one.digest() == two.digest()
    assert np.array_equal(one.probabilities, two.probabilities)


class Leaning(aria.Ema):
    """Leans on what all regions have in common, so that an estimate changes without a visit."""

    def estimate(self, state):
        found = super().estimate(state)
        return aria.Estimate(found.mean + 0.1 * state.shared["clock"][0], found.stderr, found.count, found.age)


def test_estimates_that_lean_on_what_is_shared_resume_to_the_bit():
    one = make(estimator=Leaning())
    play(one, 6, n=2)
    two = make(estimator=Leaning())
    two.load_state_dict(one.state_dict())
    assert all(same_draw(a, b) for a, b in zip(play(one, 5), play(two, 5), strict=True))
    assert one.digest() == two.digest()


class Meddling(aria.Ema):
    """Changes what it is shown."""

    def update(self, rows, shared, feedback):
        feedback.regions[:] += 10**9
        return super().update(rows, shared, feedback)


def test_an_estimator_cannot_change_what_it_is_shown():
    allocator = make(estimator=Meddling())
    draw = allocator.draw(4)
    allocator.observe(draw.regions, np.ones(4))
    with pytest.raises(ValueError, match="read-only"):
        allocator.step()
    assert len(allocator.open_rounds) == 1


# ------------------------------------------------------------------------------------------ settings stay


@pytest.mark.parametrize(
    "name", ["partition", "coverage", "estimator", "policy", "target", "exploration", "max_repeat", "seed"]
)
def test_what_was_learnt_depends_on_the_settings_which_cannot_be_set(name):
    allocator = make()
    before, part = allocator.digest(), getattr(allocator, name)
    with pytest.raises(AttributeError):
        setattr(allocator, name, part)
    assert getattr(allocator, name) is part
    assert allocator.digest() == before


@pytest.mark.parametrize(
    "settings",
    [{"exploration": 0.7}, {"seed": 9}, {"max_repeat": 3.0}, {"target": 0.5}, {"lag": 2}, {"policy": aria.GroupDRO()}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_state_of_other_settings_is_refused_with_the_way_on(settings):
    state, other = make(lag=0).state_dict(), make(**{"lag": 0, **settings})
    before = other.digest()
    with pytest.raises(aria.StateError, match=rf"{next(iter(settings))}: .* there, .* here.*adopt"):
        other.load_state_dict(state)
    assert other.digest() == before


def test_a_lag_that_was_not_chosen_is_the_states():
    one = make(lag=3)
    play(one, 5)
    two = make()
    two.load_state_dict(one.state_dict())
    assert two.lag == 3
    assert all(same_draw(a, b) for a, b in zip(play(one, 6), play(two, 6), strict=True))


# ------------------------------------------------------------------------------------------------ adopt


def taught(pool, **settings):
    """An allocator that knows its regions well: region k has discrepancy 1 + k."""
    allocator = aria.Allocator(pool, estimator=aria.Ema(0.05), seed=2, **settings)
    play(allocator, 40, n=16, loss=lambda draw: 1.0 + draw.regions)
    return allocator


@given(st.permutations(range(6)), st.sampled_from(["mapping", "names", "items"]))
def test_adopt_carries_estimates_to_the_heirs(order, way):
    """However regions are matched: means stay, and no more losses are behind them than were."""
    labels = small_pool().labels.astype(int)
    names = [f"region {k}" for k in range(6)]
    shuffled = np.array([order.index(k) for k in labels])  # new region j is the old region order[j]
    old = aria.Partition.from_labels(labels, names=names if way == "names" else None)
    new = aria.Partition.from_labels(
        shuffled if way == "items" else np.arange(6), names=[names[k] for k in order] if way == "names" else None
    )
    one = taught(old)
    two = aria.Allocator(new, estimator=aria.Ema(0.05), target="uniform", seed=2)
    adopted = two.adopt(one.state_dict(), partition=old, mapping=list(order) if way == "mapping" else None)
    assert adopted.carried.tolist() == list(range(6))
    assert adopted.fresh.tolist() == []
    before, after = one.estimate(), two.estimate()
    np.testing.assert_allclose(after.mean, before.mean[list(order)], rtol=1e-12)
    assert (after.count <= before.count[list(order)] * (1 + 1e-9)).all()
    expected = before.mean[list(order)] / before.mean.sum()
    np.testing.assert_allclose(two.probabilities, 0.8 * expected + 0.2 / 6, rtol=1e-9)
    assert two.round == 0
    assert not np.array_equal(two.draw(32).items, aria.Allocator(new, target="uniform", seed=2).draw(32).items)


def test_a_region_without_a_common_item_is_the_heir_of_the_nearest_old_centre():
    old = aria.Partition.from_labels([0, 0, 1, 1], centers=[[0.0], [10.0]])
    new = aria.Partition.from_labels([0, 0, 1, 1, 2, 3], centers=[[0.0], [10.0], [9.0], [1.0]])
    one, two = taught(old), aria.Allocator(new, estimator=aria.Ema(0.05))
    adopted = two.adopt(one.state_dict(), partition=old)
    np.testing.assert_allclose(two.estimate().mean, one.estimate().mean[[0, 1, 1, 0]], rtol=1e-12)
    assert "nearest old centre" in adopted.message


def test_heirs_of_one_region_share_its_losses():
    old, new = small_pool(), aria.Partition.from_labels(np.arange(12))
    one = taught(old)
    two = aria.Allocator(new, estimator=aria.Ema(0.05))
    adopted = two.adopt(one.state_dict(), partition=old, mapping=[k // 2 if k < 8 else -1 for k in range(12)])
    assert adopted.carried.tolist() == list(range(8))
    assert adopted.fresh.tolist() == [8, 9, 10, 11]
    assert "8 of 12 regions" in adopted.message
    before, after = one.estimate(), two.estimate()
    assert (after.count[:8].reshape(4, 2).sum(axis=1) <= before.count[:4] * (1 + 1e-9)).all()
    assert two.estimate().cold[8:].all()


def test_adopt_comes_before_the_first_draw_and_wants_the_same_estimator():
    old = small_pool()
    state = taught(old).state_dict()
    late = aria.Allocator(old, estimator=aria.Ema(0.05))
    late.draw(3)
    with pytest.raises(RuntimeError, match="before it draws"):
        late.adopt(state, partition=old)
    bank = aria.Allocator(old)
    before = bank.digest()
    with pytest.raises(aria.StateError, match=r"estimator: .*Ema"):
        bank.adopt(state, partition=old)
    with pytest.raises(aria.StateError, match="another pool"):
        bank.adopt(state, partition=small_pool(seed=5))
    assert bank.digest() == before


def test_a_lag_set_after_adopt_leaves_what_was_adopted():
    old = small_pool()
    allocator = aria.Allocator(old, estimator=aria.Ema(0.05))
    allocator.adopt(taught(old).state_dict(), partition=old)
    before = allocator.probabilities
    allocator.lag = 4
    assert np.array_equal(allocator.probabilities, before)
    assert not allocator.estimate().cold.any()
    resumed = aria.Allocator(old, estimator=aria.Ema(0.05), lag=4)
    resumed.load_state_dict(allocator.state_dict())
    assert all(same_draw(a, b) for a, b in zip(play(allocator, 9), play(resumed, 9), strict=True))


# --------------------------------------------------------------------------------------------- odd pools


def test_more_draws_than_items():
    """A draw larger than the pool runs through whole cycles of every region."""
    pool = aria.Partition.from_labels([0, 0, 1, 1])
    draw = aria.Allocator(pool, target="uniform").draw(400)
    assert np.bincount(draw.items).tolist() == [100] * 4


def test_a_pool_of_one_item():
    allocator = aria.Allocator(aria.Partition.from_labels([0]))
    for draw in play(allocator, 5):
        assert draw.items.tolist() == [0] * 8
        assert draw.weights.tolist() == [1.0] * 8
    assert allocator.metrics()["effective_regions"] == 1.0


def test_sampler_is_bound_to_its_allocator():
    torch = pytest.importorskip("torch")
    allocator = make()
    sampler = allocator.sampler(batch_size=4, num_samples=10)
    assert sampler.allocator is allocator
    assert isinstance(sampler, torch.utils.data.Sampler)
    assert list(itertools.islice(sampler, 4)) == make().draw(4).items.tolist()
    assert len(allocator.open_rounds) == 1


# ------------------------------------------------------------------------------------------ numbers by name


def test_shares_and_counts_may_come_by_name():
    """An array has the order of `partition.names`, which is sorted: a dictionary cannot go wrong."""
    pool = aria.Partition.from_labels(["web"] * 5 + ["books"] * 3 + ["code"] * 2)
    shares = {"web": 0.2, "books": 0.3, "code": 0.5}
    allocator = aria.Allocator(pool, target=shares, coverage=aria.Coverage(pool, counts={**shares, "web": 0.0}))
    assert pool.names == ("books", "code", "web")
    assert allocator.target.tolist() == [0.3, 0.5, 0.2]
    assert allocator.coverage.counts.tolist() == [0.3, 0.5, 0.0]
    for wrong in ({**shares, "other": 1.0}, {"web": 1.0}, {}):
        with pytest.raises(aria.ArgumentError, match="target: expected a value for each region by its name"):
            aria.Allocator(pool, target=wrong)
        with pytest.raises(aria.ArgumentError, match="counts: expected a value for each region by its name"):
            aria.Coverage(pool, counts=wrong)


def test_numbers_written_as_text_are_sorted_as_numbers():
    pool = aria.Partition.from_labels([str(k) for k in range(12)])
    assert pool.names == tuple(str(k) for k in range(12))
    assert pool.labels.tolist() == list(range(12))
