"""`Allocator` as a whole: its settings, what it reports, and rounds opened, skipped and forgotten.

Draws themselves are laws 1-3, states law 5, and equality with a slow allocator `test_reference.py`.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

import aria_sampling as aria
from tests.helpers import loss_of, play, same_draw, small_pool

seeds = st.integers(0, 2**32)


def make(**settings):
    return aria.Allocator(small_pool(), **{"seed": 2, **settings})


# ------------------------------------------------------------------------------------------- settings


def test_defaults_are_those_of_the_contract():
    """EmaBank, Proportional(1), floor 0.2, the pool's own sizes, lag 0, seed 0: each said is each left out."""
    pool = small_pool()
    said = aria.Allocator(
        pool,
        estimator=aria.EmaBank(),
        policy=aria.Proportional(exponent=1.0),
        floor=0.2,
        target="pool",
        max_gap=None,
        max_repeat=None,
        correction=1.0,
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


@given(seeds, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_correction_is_an_exponent_on_the_weights_and_nothing_else(seed, correction):
    whole, part = make(seed=seed), make(seed=seed, correction=correction)
    for a, b in zip(play(whole, 6), play(part, 6), strict=True):
        assert np.array_equal(a.items, b.items)
        assert np.array_equal(a.probabilities, b.probabilities)
        np.testing.assert_allclose(b.weights, a.weights**correction, rtol=1e-12)


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
def test_a_baseline_is_its_target_whatever_is_set_or_seen(policy, target):
    """floor, target, present and feedback change nothing: p = q, weights 1, no forced visit; one stream."""
    plain = make(policy=policy)
    dressed = make(policy=policy, floor=0.05, target=[1, 0, 0, 0, 0, 0], max_gap=1)
    control = make(policy=aria.Proportional(0.0), target=target, max_gap=10**9)
    assert np.array_equal(plain.target, make(target=target).target)
    assert dressed.floor == 1.0
    for _ in range(12):
        draws = [plain.draw(5), dressed.draw(5, present=[0, 0, 3]), control.draw(5)]
        assert same_draw(draws[0], draws[1])
        assert np.array_equal(draws[0].items, draws[2].items)  # exponent 0 is the same distribution
        assert np.array_equal(draws[0].probabilities, plain.target[draws[0].regions])
        assert draws[0].weights.tolist() == [1.0] * 5
        assert draws[0].forced == 0
        for allocator, draw in zip((plain, dressed, control), draws, strict=True):
            allocator.observe(draw.regions, loss_of(draw))
            allocator.step()
        assert np.array_equal(plain.probabilities, plain.target)
    assert (plain.metrics()["top_boost"], plain.metrics()["ess"]) == (1.0, pytest.approx(1.0, rel=1e-14))
    assert (plain.estimate().count > 0).any()  # they do watch: their metrics can be compared


def test_floor_one_is_the_target():
    allocator = make(floor=1.0)
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
def test_metrics_are_their_definitions(seed, target, floor):
    rng = np.random.default_rng(seed)
    allocator = make(seed=seed, target=target, floor=floor, max_gap=3)
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
        assert floor * (1 - 1e-12) <= found["ess"] <= 1 + 1e-12
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
    """Without forced visits and present rows: `probabilities`, read before, are what the draw then reports."""
    allocator = make(seed=seed, lag=lag, max_gap=10**9, policy=aria.Proportional(2.0))
    for _ in range(8):
        while len(allocator.open_rounds) < (lag + 1 if ahead else 1):
            p = allocator.probabilities
            draw = allocator.draw(6)
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
    draws = [allocator.draw(3), allocator.skip(), allocator.draw(5)]
    assert allocator.open_rounds == tuple(draws)
    assert [draw.round for draw in draws] == [0, 1, 2]
    allocator.step()
    assert allocator.open_rounds == tuple(draws[1:])
    assert allocator.round == 1
    assert allocator.draw(2).round == 3


@given(seeds)
def test_a_skip_is_a_round_in_which_nothing_is_drawn(seed):
    """It takes a number and ages what is known; cursors, gaps and the draw size stay."""
    plain, skipping = make(seed=seed, max_gap=4), make(seed=seed, max_gap=4)
    one, two = play(plain, 5), []
    for _ in range(5):
        two += play(skipping, 1, loss=lambda d: np.ones(8))
        empty = skipping.skip()
        assert (len(empty.items), len(empty.weights), empty.forced) == (0, 0, 0)
        assert empty.items.dtype == empty.regions.dtype == np.int64
        skipping.step()
    assert [draw.round for draw in two] == [0, 2, 4, 6, 8]
    visits = [np.frombuffer(a.state_dict()["cursors"]["visits"]["data"], "<i8").sum() for a in (plain, skipping)]
    assert visits == [40, 40]
    assert skipping.metrics()["passes"] == plain.metrics()["passes"]
    assert len(one) == len(two)


def test_feedback_may_come_in_a_skipped_round():
    """A round that draws nothing is still a round: losses of other rows are credited in it."""
    allocator = make(estimator=aria.Ema(1.0))
    allocator.skip()
    allocator.observe([3], [2.5])
    allocator.step()
    assert allocator.estimate().mean[3] == 2.5
    assert allocator.estimate().cold.tolist() == [True, True, True, False, True, True]


@given(seeds, st.integers(0, 3), st.integers(0, 3))
def test_rewind_forgets_open_rounds_alone(seed, lag, ahead):
    """Closed rounds stay; the same requests give the same draws; feedback of the forgotten is gone."""
    allocator, twin = make(seed=seed, lag=lag), make(seed=seed, lag=lag)
    for each in (allocator, twin):
        play(each, 3)
    sizes = [3 + i for i in range(min(ahead, lag) + 1)]
    before = [allocator.draw(n, present=[n % 6]) for n in sizes]
    allocator.observe([0], [1e6])
    allocator.rewind()
    assert (allocator.round, allocator.open_rounds) == (3, ())
    assert allocator.state_dict() == twin.state_dict()
    assert np.array_equal(allocator.probabilities, twin.probabilities)
    assert all(same_draw(a, allocator.draw(n, present=[n % 6])) for a, n in zip(before, sizes, strict=True))
    allocator.rewind()
    assert all(same_draw(a, b) for a, b in zip(play(allocator, 4), play(twin, 4), strict=True))
    assert allocator.state_dict() == twin.state_dict()


def test_rewind_of_nothing_is_nothing():
    allocator, twin = make(), make()
    allocator.rewind()
    assert same_draw(allocator.draw(5), twin.draw(5))


@given(seeds)
def test_present_is_a_count_of_rows_by_region(seed):
    """Order does not matter, rows that are there twice count twice; nothing present is as if left out."""
    rng = np.random.default_rng(seed)
    present = rng.integers(0, 6, 9)
    twice = np.concatenate([present, present])
    runs = {name: make(seed=seed) for name in ("as is", "shuffled", "twice", "none", "empty")}
    rows = {"as is": present, "shuffled": rng.permutation(present), "twice": twice, "none": None, "empty": []}
    for _ in range(4):
        for name, allocator in runs.items():
            allocator.draw(6, present=rows[name])
            allocator.observe(np.arange(6), np.arange(6) + 1.0)
            allocator.step()
    p = {name: allocator.probabilities for name, allocator in runs.items()}
    assert np.array_equal(p["as is"], p["shuffled"])
    assert np.array_equal(p["none"], p["empty"])
    assert not np.allclose(p["as is"], p["none"])
    effort = {name: np.frombuffer(a.state_dict()["cursors"]["present"]["data"]) for name, a in runs.items()}
    assert effort["twice"].tolist() == pytest.approx((2 * effort["as is"]).tolist(), rel=1e-12)


def test_present_by_hand():
    """Rows drawn n, rows present m of region 0 in every round: s = (m/n, 0), u = (1/2, 1/2), then the floor."""
    pool = aria.Partition.from_labels([0] * 50 + [1] * 50)
    for m, n in ((1, 4), (2, 8), (4, 4), (40, 4)):
        allocator = aria.Allocator(pool, estimator=aria.Ema(), floor=0.2)
        for _ in range(3):
            allocator.draw(n, present=[0] * m)
            allocator.observe([0, 1], [1.0, 1.0])
            allocator.step()
        x0 = max(0.0, (1 + m / n) / 2 - m / n)  # level mu·u = (1 + s)/2 fills both, if region 0 is below it
        np.testing.assert_allclose(
            allocator.probabilities, [0.8 * x0 + 0.1, 0.8 * (1 - x0) + 0.1], rtol=1e-12, err_msg=str((m, n))
        )


@given(seeds, st.sampled_from([0.0, 0.5, 2.0, 3.0, 7.0]))
def test_present_weight_counts_a_row_so_many_times(seed, weight):
    """Weight 2 is every row there twice, weight 0 no row there at all, weight 1/2 twice the rows drawn for each."""
    rng = np.random.default_rng(seed)
    rows, n = rng.integers(0, 6, 4).tolist(), 6
    weighted, plain = make(seed=seed, present_weight=weight), make(seed=seed)
    times = (int(weight), 1) if weight != 0.5 else (1, 2)
    for _ in range(3):
        weighted.draw(n, present=rows)
        plain.draw(n * times[1], present=rows * times[0])
        for allocator in (weighted, plain):
            allocator.observe(np.arange(6), np.arange(6) + 1.0)
            allocator.step()
    np.testing.assert_allclose(weighted.probabilities, plain.probabilities, rtol=1e-9)


def test_a_large_present_weight_leaves_the_draws_to_regions_without_rows():
    allocator = make(target="uniform", floor=0.2, present_weight=1e6)
    for _ in range(3):
        allocator.draw(6, present=[0, 1, 2, 3])
        allocator.observe(np.arange(6), np.ones(6))
        allocator.step()
    np.testing.assert_allclose(allocator.probabilities, [0.2 / 6] * 4 + [0.4 + 0.2 / 6] * 2, atol=1e-5)


def with_rows(rate, rounds):
    """An allocator of a target alone after rounds of (rows drawn, regions of rows that came anyway)."""
    allocator = make(policy=aria.Proportional(0.0), target="uniform", floor=0.1, max_gap=10**9, present_rate=rate)
    for n, present in rounds:
        draw = allocator.draw(n, present=present) if n else allocator.skip(present=present)
        allocator.observe(draw.regions if n else [0], np.ones(max(n, 1)))
        allocator.step()
    return allocator


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 5), max_size=9)), min_size=1, max_size=12))
def test_present_rate_zero_forgets_nothing(rounds):
    """Effort is rows there over rows drawn, of all rounds so far, in whatever order the rounds came."""
    rounds = [(5, [1]), *rounds]
    shares = with_rows(0.0, rounds).probabilities
    drawn = sum(n for n, _ in rounds)
    effort = np.bincount([k for _, present in rounds for k in present], minlength=6) / drawn
    level = optimize.brentq(lambda mu: np.maximum(mu - effort, 0).sum() - 1, 0, 2 + effort.max())
    np.testing.assert_allclose(shares, 0.9 * np.maximum(level - effort, 0) + 0.1 / 6, atol=1e-9)
    assert np.array_equal(shares, with_rows(0.0, [rounds[0], *rounds[:0:-1]]).probabilities)


def test_present_rate_one_knows_the_last_round_alone():
    """Its own size and rows; what came before is forgotten, and after a round without rows nothing is known."""
    for last in ([0, 0, 3], [5], [], None):
        one = with_rows(1.0, [(7, [1, 1, 2]), (4, [2]), (6, last)])
        np.testing.assert_allclose(one.probabilities, with_rows(0.3, [(6, last)]).probabilities, rtol=1e-12)


def test_a_region_that_comes_rarely_is_seen_only_by_a_long_memory():
    """A row in 200 rounds: at the default rate the region is soon as if it had none, at rate 0 it never is."""
    rounds = [(4, [0])] + [(4, [1])] * 199
    short, long = (with_rows(rate, rounds).probabilities for rate in (0.02, 0.0))
    assert short[2] - short[0] < 0.001 * short[2]
    assert long[2] - long[0] == pytest.approx(0.9 / (4 * 200))


def test_a_present_rate_of_minus_zero_is_zero():
    assert make(present_rate=-0.0).digest() == make(present_rate=0).digest()


@pytest.mark.parametrize(("name", "value"), [("present_rate", 0.5), ("max_repeat", 3.0)])
def test_settings_that_the_past_depends_on_cannot_be_set(name, value):
    allocator = make(**{name: value})
    before = allocator.digest()
    with pytest.raises(AttributeError):
        setattr(allocator, name, 0.9)
    assert getattr(allocator, name) == value
    assert allocator.digest() == before


@pytest.mark.parametrize("name", ["partition", "estimator", "policy", "target"])
def test_what_was_learnt_depends_on_the_parts_which_cannot_be_set(name):
    allocator = make()
    before, part = allocator.digest(), getattr(allocator, name)
    with pytest.raises(AttributeError, match=f"{name} cannot be set"):
        setattr(allocator, name, part)
    assert getattr(allocator, name) is part
    assert allocator.digest() == before


@pytest.mark.parametrize(
    "settings",
    [{"floor": 0.7}, {"seed": 9}, {"max_gap": 1}, {"present_weight": 30}, {"correction": 0}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_setting_set_between_rounds_counts_from_the_next_draw(settings):
    """From there on it is as an allocator that was made with it and went to the same state, and not as it was."""
    changed, unchanged, made = make(), make(), make(**settings)
    for allocator in (changed, unchanged):
        for _ in range(5):
            draw = allocator.draw(8, present=[5])
            allocator.observe(draw.regions, 1.0 + draw.regions)
            allocator.step()
    ((name, value),) = settings.items()
    setattr(changed, name, value)
    made.load_state_dict(changed.state_dict())
    with pytest.raises(aria.StateError, match=name):
        unchanged.load_state_dict(changed.state_dict())
    mine, its, old = (allocator.draw(8) for allocator in (changed, made, unchanged))
    assert same_draw(mine, its)
    assert not same_draw(mine, old)


def test_states_do_not_cross_present_rates_and_those_of_older_schemas_have_the_default():
    newer = make().state_dict()
    config = {name: value for name, value in newer["config"].items() if name != "present_rate"}
    for state in (
        newer,
        {**newer, "config": config, "schema": 2},
        {**newer, "config": config, "schema": 1, "log_phi": []},
    ):
        with pytest.raises(aria.StateError, match=r"present_rate: 0\.02 there, 0\.0 here"):
            make(present_rate=0).load_state_dict(state)
        one = make(present_rate=0.02)
        one.load_state_dict(state)
        assert one.state_dict() == newer


def test_a_state_keeps_its_present_rate():
    """What goes on from a state is what went on without: the sums of rate 0, and the averages of others."""
    for rate in (0.0, 0.5):
        one, rounds = with_rows(rate, [(5, [1, 2]), (3, [2])]), [(4, [0, 5]), (0, [3])]
        two = make(policy=aria.Proportional(0.0), target="uniform", floor=0.1, max_gap=10**9, present_rate=rate)
        two.load_state_dict(one.state_dict())
        for n, present in rounds:
            for each in (one, two):
                each.draw(n, present=present) if n else each.skip(present=present)
                each.step()
        assert one.digest() == two.digest()
        assert np.array_equal(one.probabilities, with_rows(rate, [(5, [1, 2]), (3, [2]), *rounds]).probabilities)


@pytest.mark.parametrize("rate", [-0.01, 1.01, math.nan, math.inf, "0", None])
def test_a_present_rate_is_between_zero_and_one(rate):
    with pytest.raises(ValueError, match="present_rate"):
        make(present_rate=rate)


def test_states_do_not_cross_present_weights_and_those_of_schema_1_have_weight_one():
    newer = make().state_dict()
    config = {name: value for name, value in newer["config"].items() if name != "present_weight"}
    for state in (newer, {**newer, "config": config, "schema": 1, "log_phi": []}):
        with pytest.raises(aria.StateError, match=r"present_weight: 1\.0 there, 2\.0 here"):
            make(present_weight=2).load_state_dict(state)
        make(present_weight=1).load_state_dict(state)


@pytest.mark.parametrize("weight", [-1.0, 1e10, math.nan, math.inf, "2", None])
def test_a_present_weight_is_a_finite_number(weight):
    with pytest.raises(ValueError, match="present_weight"):
        make(present_weight=weight)


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
