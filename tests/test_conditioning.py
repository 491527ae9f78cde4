"""Random conditioning: which rows switch, what counts as effort, and who is credited with what.

Exact: the uniform numbers behind a switch are known, so frequencies, effort and credit are worked out beside it.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.drawing import random_words, uniforms
from tests.helpers import same_draw, same_estimate, small_pool

T = 1000
NOISE = np.arange(T) / T
SCHEDULES = [
    aria.ExponentialSwitch(),
    aria.ExponentialSwitch(0.0),
    aria.ExponentialSwitch(40.0),
    aria.SigmoidSwitch(),
    aria.SigmoidSwitch(0.0, 0.0),
    aria.SigmoidSwitch(1e6, 0.5),
    aria.ConstantSwitch(0.0),
    aria.ConstantSwitch(0.3),
    aria.ConstantSwitch(1),
]


def make(*, seed=5, lag=0, schedule=None, estimator=None, policy=None, **settings):
    allocator = aria.Allocator(
        small_pool(), target="uniform", seed=seed, lag=lag, estimator=estimator or aria.Ema(0.2), policy=policy
    )
    return aria.RandomConditioning(allocator, schedule=schedule or aria.ConstantSwitch(0.5), **settings)


def expected_mask(seed, round_, timesteps, schedule, t=T):
    """Which rows must switch: uniform number of (seed, stream 1, round) below p(t/T), row by row."""
    u = uniforms(random_words(seed, 1, round_, len(timesteps)))
    return [bool(x < schedule(np.array([step / t]))[0]) for x, step in zip(u, timesteps, strict=True)]


# ------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_are_probabilities_that_never_fall_with_noise(schedule):
    p = schedule(NOISE)
    assert p.shape == NOISE.shape
    assert p.dtype == np.float64
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()
    assert schedule(NOISE[:0]).shape == (0,)


@given(st.floats(0, 50), st.floats(0, 1, exclude_max=True))
def test_exponential_closed_form(rate, noise):
    assert aria.ExponentialSwitch(rate)(np.array([noise]))[0] == pytest.approx(math.exp(-rate * (1 - noise)), rel=1e-13)


@given(st.floats(0.01, 50), st.integers(2, 4000))
def test_exponential_mean_is_a_geometric_series(rate, t):
    """Σ exp(-rate (1 - i/t)) / t = (1 - e^-rate) / (t (e^(rate/t) - 1)); for t without end (1 - e^-rate) / rate."""
    mean = aria.ExponentialSwitch(rate)(np.arange(t) / t).mean()
    assert mean == pytest.approx(-math.expm1(-rate) / (t * math.expm1(rate / t)), rel=1e-11)


def test_the_default_is_that_of_rc():
    """λ = 5: 19.8% of all rows with T = 1,000, 19.9% with continuous time, as its docstring says."""
    assert aria.RandomConditioning(aria.Allocator(small_pool())).schedule == aria.ExponentialSwitch(5.0)
    assert aria.ExponentialSwitch()(NOISE).mean() == pytest.approx(0.199, abs=1e-3)
    assert -math.expm1(-5) / 5 == pytest.approx(0.199, abs=5e-4)


@given(st.floats(0, 500), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_sigmoid_closed_form(steepness, midpoint, noise):
    z = steepness * (noise - midpoint)
    exact = 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
    assert aria.SigmoidSwitch(steepness, midpoint)(np.array([noise]))[0] == pytest.approx(exact, rel=1e-9, abs=1e-15)


@given(st.floats(0, 300))
def test_sigmoid_about_one_half_has_the_mean_of_its_symmetry(steepness):
    """p(1/2 + x) + p(1/2 - x) = 1, so the mean over a symmetric grid is 1/2."""
    grid = (np.arange(501) + 0.5) / 501
    p = aria.SigmoidSwitch(steepness, 0.5)(grid)
    np.testing.assert_allclose(p + p[::-1], 1, rtol=1e-12)
    assert p.mean() == pytest.approx(0.5, rel=1e-12)


@given(st.floats(0, 1))
def test_constant_closed_form(probability):
    assert set(aria.ConstantSwitch(probability)(NOISE).tolist()) == {probability}


# ---------------------------------------------------------------------------------- who switches, to what


@given(
    st.sampled_from(SCHEDULES),
    st.integers(0, 2**64 - 1),
    st.lists(st.lists(st.integers(0, T - 1), max_size=9), min_size=1, max_size=5),
)
def test_rows_switch_by_their_own_uniform_number(schedule, seed, batches):
    """The mask is exactly u < p(t), and what is drawn exactly what the allocator gives for so many rows."""
    switch = make(schedule=schedule, seed=seed)
    twin = aria.Allocator(small_pool(), target="uniform", seed=seed, estimator=aria.Ema(0.2))
    for round_, timesteps in enumerate(batches):
        s = switch.draw(timesteps)
        assert s.mask.tolist() == expected_mask(seed, round_, timesteps, schedule)
        assert s.mask.dtype == np.bool_
        assert s.round == round_
        n = int(s.mask.sum())
        draw = twin.draw(n) if n else twin.skip()
        assert same_draw(draw, switch.allocator.open_rounds[0])
        for name in ("items", "regions", "weights"):
            assert np.array_equal(getattr(s, name), getattr(draw, name)), name
        assert (s.items.dtype, s.regions.dtype, s.weights.dtype) == (np.int64, np.int64, np.float64)
        switch.step()
        twin.step()


@pytest.mark.parametrize("t", [1, 4, 1000])
def test_a_schedule_is_asked_for_noise_t_over_T(t):
    """0 for timestep 0, never 1: float64 of every row, switched or not."""

    class Asked(aria.SwitchSchedule):
        def __call__(self, noise):
            self.noise = noise
            return np.zeros_like(noise)

    switch = make(schedule=Asked(), num_train_timesteps=t)
    switch.draw(np.arange(t, dtype=np.int32))
    assert switch.schedule.noise.dtype == np.float64
    assert switch.schedule.noise.tolist() == [i / t for i in range(t)]


def test_frequencies_are_those_of_the_schedule():
    """200 batches of 100 rows at four timesteps: independent rows, so Hoeffding for 5,000 of each timestep:
    |share - p| > 0.05 has probability < 2·exp(-2·5000·0.05²) = 3e-11, for four of them < 2e-10."""
    timesteps = np.tile([0, 400, 800, 999], 25)
    switch = make(schedule=aria.SigmoidSwitch(6.0, 0.5))
    masks = []
    for _ in range(200):
        masks.append(switch.draw(timesteps).mask.reshape(25, 4))
        switch.step()
    share = np.concatenate(masks).mean(axis=0)
    assert np.abs(share - switch.schedule(np.array([0, 0.4, 0.8, 0.999]))).max() < 0.05


def test_the_policy_decides_about_items_not_about_rows():
    """With an equal seed the same rows switch under all policies, so that a comparison differs in the items alone."""
    timesteps = np.arange(40) * 25
    switches = [make(policy=policy) for policy in (aria.PoolPolicy(), aria.UniformPolicy(), aria.Proportional(3.0))]
    items = []
    for _ in range(6):
        drawn = [switch.draw(timesteps) for switch in switches]
        assert np.array_equal(drawn[0].mask, drawn[1].mask)
        assert np.array_equal(drawn[0].mask, drawn[2].mask)
        items.append([s.items.tolist() for s in drawn])
        for switch, s in zip(switches, drawn, strict=True):
            losses = np.ones(40)
            losses[s.mask] += 9 * s.regions
            switch.observe(losses)
    assert all(a != b and b != c for a, b, c in items[2:])


def test_the_switch_does_not_share_its_random_numbers_with_the_draw():
    """Rows that switch and items they get must be independent: other streams of the same key."""
    assert not np.isin(random_words(5, 1, 0, 1000), random_words(5, 0, 0, 1000)).any()


# --------------------------------------------------------------------------- rows that keep their own


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
def test_paired_rows_that_do_not_switch_are_present(seed, probability):
    """`paired` is present=: the regions of the rows that keep a condition of the pool; switched ones and -1 are not."""
    rng = np.random.default_rng(seed)
    schedule = aria.ConstantSwitch(probability)
    switch, twin = make(schedule=schedule, normalise=False), make().allocator
    for round_ in range(6):
        timesteps, paired = rng.integers(0, T, 9), rng.integers(-1, 60, 9)
        s = switch.draw(timesteps, paired=paired)
        mask = expected_mask(5, round_, timesteps, schedule)
        kept = [int(item) for item, switched in zip(paired, mask, strict=True) if not switched and item >= 0]
        present = [int(twin.partition.labels[item]) for item in kept]
        draw = twin.draw(sum(mask), present=present) if any(mask) else twin.skip(present=present)
        assert same_draw(draw, switch.allocator.open_rounds[0])
        losses = rng.lognormal(size=9)
        assert np.array_equal(s.mask, mask)
        switch.observe(losses)
        twin.observe(draw.regions, losses[s.mask])
        twin.step()
        assert twin.state_dict() == switch.allocator.state_dict()


def test_paired_shifts_the_draw_to_regions_without_images():
    """Regions 0 and 1 of six have images: rows of the other four are drawn, but for the floor."""
    switch = make(schedule=aria.ConstantSwitch(0.25))
    pool = switch.allocator.partition
    own = np.concatenate([pool.items_of(0)[:1].repeat(30), pool.items_of(1)[:1].repeat(30)])
    for _ in range(30):
        s = switch.draw(np.full(60, 500), paired=own)
        switch.observe(np.ones(60))
    floor = switch.allocator.floor / 6
    np.testing.assert_allclose(switch.allocator.probabilities[:2], floor, rtol=1e-12)
    np.testing.assert_allclose(switch.allocator.probabilities[2:], (1 - 2 * floor) / 4, rtol=0.2)
    assert s.weights[s.regions < 2].size == 0 or s.weights[s.regions < 2].max() <= 2 / switch.allocator.floor


def test_paired_unknown_is_paired_with_nothing():
    """-1 in every row is as good as no paired at all."""
    a, b = make(), make()
    for _ in range(4):
        one, two = a.draw([10, 500, 990]), b.draw([10, 500, 990], paired=[-1, -1, -1])
        assert np.array_equal(one.items, two.items)
        a.observe([1.0, 2.0, 3.0])
        b.observe([1.0, 2.0, 3.0])
    assert a.state_dict() == b.state_dict()


# ----------------------------------------------------------------------------------------------- credit


@given(st.integers(0, 2**32), st.booleans())
def test_only_switched_rows_are_credited(seed, normalise):
    """Losses of the other rows, wild ones too, leave no trace, neither in estimates nor in the profile."""
    rng = np.random.default_rng(seed)
    a, b = make(normalise=normalise), make(normalise=normalise)
    for _ in range(5):
        timesteps, losses = rng.integers(0, T, 8), rng.lognormal(size=8)
        s = a.draw(timesteps)
        b.draw(timesteps)
        a.observe(losses)
        b.observe(np.where(s.mask, losses, rng.choice([np.nan, np.inf, 1e9, -4.0], 8)))
        assert a.state_dict() == b.state_dict()
    assert a.allocator.metrics()["dropped_losses"] == 0


def test_bad_losses_of_switched_rows_are_dropped_and_counted():
    switch = make(schedule=aria.ConstantSwitch(1.0))
    count = 0
    for losses in ([np.nan, 1.0, np.inf], [1.0, 1.0, 1.0], [1e150, -np.inf, np.nan]):
        switch.draw([1, 500, 999])
        switch.observe(losses)
        count += sum(not abs(x) < 1e150 for x in losses)
        assert switch.allocator.metrics()["dropped_losses"] == count
    assert count == 5


def test_raw_credit_goes_to_the_region_of_the_row():
    """normalise=False: after one round, with rate 1, the estimate of a region is the mean loss of its rows."""
    switch = make(estimator=aria.Ema(1.0), normalise=False)
    for _ in range(5):
        s = switch.draw(np.arange(30) * 33)
        losses = np.random.default_rng(int(s.round)).lognormal(size=30)
        switch.observe(losses)
        mine = losses[s.mask]
        mean = switch.allocator.estimate().mean
        for k in set(s.regions.tolist()):
            assert mean[k] == pytest.approx(mine[s.regions == k].mean(), rel=1e-12)


@given(st.integers(0, 2**32))
def test_normalised_credit_is_loss_over_profile(seed):
    """The profile of the closed rounds, worked out beside it; in the first round that of its own rows."""
    rng = np.random.default_rng(seed)
    switch, twin = make(), make().allocator
    profile = aria.TimestepProfile(T, n_bins=20)
    state = profile.init()
    for _ in range(6):
        timesteps, losses = rng.integers(0, T, 12), rng.lognormal(size=12)
        s = switch.draw(timesteps)
        draw = twin.draw(int(s.mask.sum())) if s.mask.any() else twin.skip()
        steps, rows = timesteps[s.mask], losses[s.mask]
        switch.observe(losses)
        if len(rows):
            known = state
            if np.isnan(profile.expected(state, steps)).any():
                known = profile.update(profile.init(), steps, rows, draw.weights)
            twin.observe(draw.regions, rows / profile.expected(known, steps))
        twin.step()
        if len(rows):
            state = profile.update(state, steps, rows, draw.weights)
        assert same_estimate(switch.allocator.estimate(), twin.estimate())


def test_a_region_is_not_blamed_for_its_timesteps():
    """Loss = c(region)·m(t), m over a factor 1,000: ratios of estimates are those of c, whatever timesteps came.

    Exact once the profile has settled, since with one timestep per range ratio = c(region) / mean c. Raw credit is off
    by the timesteps a region happened to meet.
    """
    c = 1.0 + np.arange(6)

    def run(normalise):
        rng = np.random.default_rng(0)
        switch = make(schedule=aria.ConstantSwitch(1.0), normalise=normalise, num_train_timesteps=4)
        for _ in range(300):
            timesteps = rng.integers(0, 4, 60)
            s = switch.draw(timesteps)
            switch.observe(c[s.regions] * 10.0**timesteps)
        mean = switch.allocator.estimate().mean
        return np.abs(mean / mean.mean() / (c / c.mean()) - 1).max()

    assert run(True) < 0.05
    assert run(False) > 0.3


def test_equal_regions_have_a_ratio_of_one():
    """If the loss is a function of the timestep alone, every region is at exactly 1."""
    switch = make(schedule=aria.ConstantSwitch(1.0), num_train_timesteps=8)
    rng = np.random.default_rng(1)
    for _ in range(40):
        timesteps = rng.integers(0, 8, 40)
        switch.draw(timesteps)
        switch.observe(2.0**timesteps)
    np.testing.assert_allclose(switch.allocator.estimate().mean, 1, rtol=1e-12)


# ------------------------------------------------------------------------------------------- rounds


def test_no_switched_row_still_opens_and_closes_a_round():
    switch = make(schedule=aria.ConstantSwitch(0.0))
    for round_ in range(3):
        s = switch.draw([1, 2, 999], paired=[3, -1, 5])
        assert (s.mask.tolist(), s.items.tolist(), s.regions.tolist(), s.weights.tolist()) == ([False] * 3, [], [], [])
        assert s.round == round_
        assert len(switch.allocator.open_rounds) == 1
        with pytest.raises(aria.FeedbackLagError):
            switch.draw([1])
        switch.observe([1.0, 2.0, 3.0])
        assert (switch.allocator.round, switch.allocator.open_rounds) == (round_ + 1, ())
    assert not (switch.allocator.estimate().count > 0).any()
    assert switch.allocator.metrics()["passes"] == 0


def test_an_empty_batch_is_a_round():
    switch = make()
    assert switch.draw([]).mask.shape == (0,)
    switch.observe([])
    assert switch.allocator.round == 1


def test_losses_of_a_round_without_switched_rows_are_still_checked():
    switch = make(schedule=aria.ConstantSwitch(0.0))
    switch.draw([1, 2])
    with pytest.raises(ValueError, match="losses: expected 2 numbers, got 3"):
        switch.observe([1.0, 2.0, 3.0])
    assert switch.allocator.round == 0


@given(st.integers(0, 2**32), st.booleans())
def test_observe_is_observe_without_step_and_step(seed, normalise):
    rng = np.random.default_rng(seed)
    a, b = make(normalise=normalise), make(normalise=normalise)
    for _ in range(5):
        timesteps, losses = rng.integers(0, T, 6), rng.lognormal(size=6)
        for each in (a, b):
            each.draw(timesteps)
        a.observe(losses)
        b.observe(losses, step=False)
        assert b.allocator.round == a.allocator.round - 1
        b.step()
        assert a.state_dict() == b.state_dict()


def test_step_without_a_loss_is_a_round_without_feedback():
    switch = make(schedule=aria.ConstantSwitch(1.0))
    switch.draw([1, 2])
    switch.step()
    assert switch.allocator.round == 1
    assert not (switch.allocator.estimate().count > 0).any()


def test_nothing_to_observe_or_close_without_a_batch():
    switch = make(lag=1)
    switch.allocator.draw(3)  # a round of the allocator, but no batch of this object
    for call in (lambda: switch.observe([1.0, 2.0, 3.0]), switch.step):
        with pytest.raises(RuntimeError, match="without an open batch: call draw"):
            call()
    assert switch.allocator.round == 0


@given(st.integers(0, 2**32), st.integers(0, 3))
def test_interleavings_give_the_same_stream(seed, lag):
    """Batches drawn ahead as far as the lag allows, or no further than needed: the same switches and state."""
    rng = np.random.default_rng(seed)
    batches = [(rng.integers(0, T, 7), rng.integers(-1, 60, 7), rng.lognormal(size=7)) for _ in range(9)]

    def run(ahead):
        switch, drawn, closed = make(lag=lag), [], 0
        while closed < len(batches):
            opened = len(switch.allocator.open_rounds)
            if len(drawn) < len(batches) and (opened == 0 or (opened <= lag and ahead())):
                timesteps, paired, _ = batches[len(drawn)]
                s = switch.draw(timesteps, paired=paired)
                drawn.append((s.mask.tolist(), s.items.tolist(), s.weights.tolist()))
            else:
                switch.observe(batches[closed][2])
                closed += 1
        return drawn, switch.state_dict()

    plain = run(lambda: False)
    assert run(lambda: True) == plain
    assert run(lambda: rng.random() < 0.5) == plain


def test_the_batch_that_is_credited_is_the_oldest():
    switch = make(lag=2, schedule=aria.ConstantSwitch(1.0), normalise=False, estimator=aria.Ema(1.0))
    first, second = switch.draw([1]), switch.draw([2])
    switch.observe([5.0])
    assert switch.allocator.estimate().mean[first.regions[0]] == 5.0
    switch.observe([7.0])
    assert switch.allocator.estimate().mean[second.regions[0]] == 7.0


def test_a_refused_draw_leaves_the_open_batches():
    switch = make(lag=1)
    switch.draw([1, 2])
    switch.draw([3, 4, 5])
    with pytest.raises(aria.FeedbackLagError, match="lag=2 or more"):
        switch.draw([6])
    switch.observe([1.0, 2.0])
    switch.observe([1.0, 2.0, 3.0])
    assert switch.allocator.round == 2


def test_after_a_rewind_batches_are_drawn_again():
    """What was open is forgotten, here as in the allocator; the same batches give the same switches."""
    switch = make(lag=2)
    one = [switch.draw([100 * i, 999]) for i in range(3)]
    switch.allocator.rewind()
    with pytest.raises(RuntimeError, match="without an open batch"):
        switch.observe([1.0, 2.0])
    two = [switch.draw([100 * i, 999]) for i in range(3)]
    assert all(
        np.array_equal(a.items, b.items) and np.array_equal(a.mask, b.mask) for a, b in zip(one, two, strict=True)
    )
    for _ in range(3):
        switch.observe([1.0, 2.0])


def test_a_forgotten_batch_is_not_credited_with_the_round_of_another_draw():
    """After a rewind the allocator may draw for somebody else: losses must not go to what was forgotten."""
    switch = make(lag=2, schedule=aria.ConstantSwitch(1.0))
    for _ in range(3):
        switch.draw([1, 2])
    switch.allocator.rewind()
    switch.draw([1, 2])
    switch.allocator.draw(2)
    switch.observe([1.0, 2.0])
    with pytest.raises(RuntimeError, match="without an open batch"):
        switch.observe([1.0, 2.0])


# -------------------------------------------------------------------------------------------- state


@given(st.integers(0, 2**32), st.integers(0, 8))
def test_state_round_trip_with_a_batch_open(seed, stop):
    """Saved with batches in flight: they are forgotten, drawn again the same, and all goes on as before."""
    rng = np.random.default_rng(seed)
    batches = [(rng.integers(0, T, 5), rng.lognormal(size=5)) for _ in range(stop + 4)]

    def go(switch, begin, end):
        out = []
        for timesteps, losses in batches[begin:end]:
            out.append(switch.draw(timesteps).items.tolist())
            switch.observe(losses)
        return out

    straight, stopped, resumed = make(), make(), make()
    go(straight, 0, stop)
    go(stopped, 0, stop)
    stopped.draw(batches[stop][0])
    stopped.observe(batches[stop][1], step=False)
    state = stopped.state_dict()
    assert state == straight.state_dict()
    go(resumed, 1, 3)
    resumed.load_state_dict(state)
    assert resumed.allocator.open_rounds == ()
    assert go(resumed, stop, stop + 4) == go(straight, stop, stop + 4)
    assert resumed.state_dict() == straight.state_dict()


def test_the_profile_is_part_of_the_state():
    """Credit after resuming depends on it: a state with another profile must lead elsewhere."""
    a, b = make(schedule=aria.ConstantSwitch(1.0)), make(schedule=aria.ConstantSwitch(1.0))
    for switch, loss in ((a, 1.0), (b, 2.0)):
        switch.draw([10, 990])
        switch.observe([loss, 1.0])
    swapped = {**a.state_dict(), "profile": b.state_dict()["profile"]}
    resumed = make(schedule=aria.ConstantSwitch(1.0))
    resumed.load_state_dict(swapped)
    for switch in (a, resumed):
        switch.draw([10, 990])
        switch.observe([1.0, 1.0])
    assert not same_estimate(a.allocator.estimate(), resumed.allocator.estimate())
