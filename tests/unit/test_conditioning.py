"""Random conditioning: which rows switch, what counts as effort, and who is credited with what.

One class serves arrays and tensors, so most tests run on both. Exact: the uniform numbers behind a switch are known, so
frequencies, effort and credit are worked out beside it.
"""

import copy
import io
import json
import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import _kernel
from aria_sampling.conditioning import TimestepProfile
from tests.helpers import same_draw, same_estimate, small_pool

T = 1000
NOISE = np.arange(T) / T
LEVELS = np.linspace(0, 1, 1001)
TARGET = [3.0, 1.0, 2.0, 5.0, 0.5, 4.0]
ONLINE, STATIC = "online", "static"
SCHEDULES = [
    aria.ExponentialSwitch(),
    aria.ExponentialSwitch(0.0),
    aria.ExponentialSwitch(40.0),
    aria.ExponentialSwitch(1e300),
    aria.SigmoidSwitch(),
    aria.SigmoidSwitch(0.0, 0.0),
    aria.SigmoidSwitch(1e6, 0.5),
    aria.SigmoidSwitch(1e300, 1.0),
    aria.ConstantSwitch(0.0),
    aria.ConstantSwitch(0.3),
    aria.ConstantSwitch(1),
]


class Arrays:
    """Arguments and results as NumPy arrays."""

    weights = np.float64

    @staticmethod
    def of(values, dtype=None):
        return np.asarray(values, dtype)

    @staticmethod
    def back(value):
        assert type(value) is np.ndarray
        return value


class Tensors:
    """Arguments and results as CPU tensors; `back` gives weights in float32."""

    weights = np.float32

    @staticmethod
    def of(values, dtype=None):
        import torch

        return torch.as_tensor(np.array(values, dtype))

    @staticmethod
    def back(value):
        import torch

        assert type(value) is torch.Tensor
        assert value.device.type == "cpu"
        return value.numpy()


try:
    import torch as _torch  # noqa: F401

    KINDS = [Arrays, Tensors]
except ImportError:
    KINDS = [Arrays]
both = pytest.mark.parametrize("kind", KINDS)


def a_coverage(which, pool):
    """None, a coverage by items, or one that counts the rows as they come."""
    if which is None:
        return None
    return aria.Coverage.online(pool) if which == ONLINE else aria.Coverage(pool, items=[0, 1, 2, 3, 40])


def an_allocator(*, seed=5, lag=0, estimator=None, policy=None, coverage=None):
    pool = small_pool()
    settings = {} if policy is not None and policy.baseline else {"target": TARGET}
    return aria.Allocator(
        pool,
        seed=seed,
        lag=lag,
        estimator=estimator or aria.Ema(0.2),
        policy=policy,
        coverage=a_coverage(coverage, pool),
        **settings,
    )


def make(*, schedule=None, normalise=True, num_train_timesteps=T, **allocator):
    return aria.RandomConditioning(
        an_allocator(**allocator),
        schedule=schedule or aria.ConstantSwitch(0.5),
        normalise=normalise,
        num_train_timesteps=num_train_timesteps,
        draws_ahead=allocator.get("lag", 0),
    )


def expected_mask(seed, round_, timesteps, schedule, t=T):
    """Which rows must switch: uniform number of (seed, stream 1, round) below p(t/T), row by row."""
    u = _kernel.uniforms(_kernel.stream_key(seed, 1, round_), len(timesteps))
    return [bool(x < schedule(np.array([step / t]))[0]) for x, step in zip(u, timesteps, strict=True)]


def observed(switch):
    """All that a call must not change where it fails."""
    return switch.state_dict(), switch.allocator.digest(), len(switch.allocator.rounds)


# ------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_are_probabilities_that_never_fall_with_noise(schedule):
    p = schedule(LEVELS)
    assert p.shape == LEVELS.shape
    assert p.dtype == np.float64
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p) >= 0).all()
    assert schedule(LEVELS[:0]).shape == (0,)


@given(st.floats(0, 50), st.floats(0, 1))
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


@given(st.floats(0, 500), st.floats(0, 1), st.floats(0, 1))
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


@pytest.mark.parametrize(
    ("schedule", "argument", "bad"),
    [
        (aria.ExponentialSwitch, "rate", -1.0),
        (aria.ExponentialSwitch, "rate", math.inf),
        (aria.SigmoidSwitch, "steepness", -1),
        (aria.SigmoidSwitch, "midpoint", 1.5),
        (aria.ConstantSwitch, "probability", 1.01),
        (aria.ConstantSwitch, "probability", math.nan),
    ],
)
def test_settings_of_schedules(schedule, argument, bad):
    with pytest.raises(ValueError, match=argument):
        schedule(**{argument: bad})


class Answers(aria.SwitchSchedule):
    """A schedule of a user's own."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, noise):
        self.asked.append(noise.copy())
        return self.answer(noise)

    def __repr__(self):
        return "Answers()"


@pytest.mark.parametrize("t", [1, 4, 1000])
def test_a_schedule_is_asked_once_for_noise_t_over_T(t):
    """0 for timestep 0, never 1: float64. Batches look the answers up."""
    schedule = Answers(lambda noise: 0.5 * noise)
    switch = make(schedule=schedule, num_train_timesteps=t)
    for _ in range(3):
        switch.draw(np.arange(t, dtype=np.int32))
        switch.step()
    assert len(schedule.asked) == 1
    assert schedule.asked[0].dtype == np.float64
    assert schedule.asked[0].tolist() == [i / t for i in range(t)]


@both
def test_for_noise_levels_a_schedule_is_asked_for_these(kind):
    schedule = Answers(lambda noise: noise)
    switch = make(schedule=schedule)
    switch.draw(noise=kind.of([0.0, 0.25, 1.0], np.float32))
    assert schedule.asked[-1].dtype == np.float64
    assert schedule.asked[-1].tolist() == [0.0, 0.25, 1.0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda noise: noise + 0.5, r"schedule: expected probabilities in \[0, 1\], got 0.5 to 1.4"),
        (lambda noise: noise - 0.5, r"in \[0, 1\], got -0.5 to"),
        (lambda noise: noise * np.nan, r"in \[0, 1\], got nan"),
        (lambda noise: noise[1:], "schedule: expected"),
        (lambda noise: 0.5, "schedule: expected a one-dimensional"),
        (lambda noise: noise[:, None], "schedule: expected a one-dimensional"),
        (lambda noise: noise > 0.5, "schedule: expected real numbers"),
        (lambda noise: None, "schedule"),
    ],
)
def test_a_schedule_of_ones_own_that_answers_wrongly(answer, words):
    with pytest.raises(ValueError, match=words):
        make(schedule=Answers(answer))
    switch = make(schedule=(schedule := Answers(np.zeros_like)))
    before = observed(switch)
    schedule.answer = answer
    with pytest.raises(ValueError, match="schedule"):
        switch.draw(noise=[0.9, 0.1])
    assert observed(switch) == before


def test_a_schedule_cannot_change_its_mind_through_the_array_that_it_returned():
    kept = np.full(T, 0.0)
    switch = make(schedule=Answers(lambda noise: kept))
    kept[:] = 1.0
    assert not switch.draw(np.arange(30)).mask.any()


def test_a_schedule_that_runs_the_wrong_way_warns_once_an_allocator():
    backwards = Answers(lambda noise: 1 - noise)
    allocator = an_allocator()
    with pytest.warns(
        aria.AriaWarning, match=r"switches 90.0% of the rows at noise level 0.1 and 10.0% at 0.9"
    ) as said:
        aria.RandomConditioning(allocator, schedule=backwards)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aria.RandomConditioning(allocator, schedule=backwards)
        for schedule in SCHEDULES:
            make(schedule=schedule)


# ---------------------------------------------------------------------------------- who switches, to what


@both
@given(
    st.sampled_from(SCHEDULES),
    st.integers(0, 2**64 - 1),
    st.sampled_from([None, STATIC]),
    st.lists(st.lists(st.integers(0, T - 1), max_size=9), min_size=1, max_size=5),
)
def test_rows_switch_by_their_own_uniform_number(kind, schedule, seed, coverage, batches):
    """The mask is exactly u < p(t); the draw is the allocator's of so many rows beside so many rows of data."""
    switch = make(schedule=schedule, seed=seed, coverage=coverage)
    twin = an_allocator(seed=seed, coverage=coverage)
    for round_, timesteps in enumerate(batches):
        s = switch.draw(kind.of(timesteps, np.int64))
        mask = expected_mask(seed, round_, timesteps, schedule)
        assert kind.back(s.mask).tolist() == mask
        assert kind.back(s.mask).dtype == np.bool_
        assert s.round == round_
        draw = twin.draw(sum(mask), data_rows=len(mask) - sum(mask))
        assert same_draw(draw, switch.allocator.open_rounds[0])
        for name, dtype in (("items", np.int64), ("regions", np.int64), ("weights", kind.weights)):
            value = kind.back(getattr(s, name))
            assert value.dtype == dtype
            assert np.array_equal(value, getattr(draw, name).astype(dtype)), name
        switch.step()
        twin.step()


@both
def test_noise_levels_switch_as_the_timesteps_that_have_them(kind):
    """draw(noise=t/T) is draw(t), in the profile, too; T = 1,000 has no level on an edge of a range but exact ones."""
    a, b = make(schedule=aria.ExponentialSwitch(2.0)), make(schedule=aria.ExponentialSwitch(2.0))
    rng = np.random.default_rng(3)
    for _ in range(8):
        steps, losses = rng.integers(0, T, 20), rng.lognormal(size=20)
        one, two = a.draw(kind.of(steps)), b.draw(noise=kind.of(steps / T))
        for name in ("mask", "items", "regions", "weights"):
            assert np.array_equal(kind.back(getattr(one, name)), kind.back(getattr(two, name)))
        for switch in (a, b):
            switch.observe(kind.of(losses))
    assert a.state_dict() == b.state_dict()


def test_pure_noise_is_a_noise_level():
    switch = make(schedule=aria.ExponentialSwitch())
    assert switch.draw(noise=[1.0, 1.0, 0.0]).mask[:2].all()
    switch.observe([1.0, 2.0, 3.0])
    assert switch.metrics()["switched"] >= 2 / 3


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
    assert switch.metrics()["switched"] == pytest.approx(np.concatenate(masks).mean(), rel=1e-12)


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
    one, two = (_kernel.uniforms(_kernel.stream_key(5, stream, 0), 1000) for stream in (0, 1))
    assert not np.isin(one, two).any()


@both
def test_what_came_out_and_what_went_in_may_be_overwritten(kind):
    """What the trainer does to its arrays must not move the credit."""
    changed, kept = make(lag=1, coverage=ONLINE), make(lag=1, coverage=ONLINE)
    rng = np.random.default_rng(1)
    for _ in range(5):
        steps, own, losses = rng.integers(0, T, 12), rng.integers(-1, 60, 12), rng.lognormal(size=12)
        credit = rng.random(12) < 0.8
        given_steps, given_own = kind.of(steps.copy()), kind.of(own.copy())
        s = changed.draw(given_steps, paired=given_own)
        kept.draw(kind.of(steps), paired=kind.of(own))
        given_losses, given_credit = kind.of(losses.copy()), kind.of(credit.copy())
        changed.observe(given_losses, credit=given_credit, step=False)
        for value in (given_steps, given_own, given_losses, given_credit, s.mask, s.items, s.regions, s.weights):
            value[:] = 0
        changed.step()
        kept.observe(kind.of(losses), credit=kind.of(credit))
        assert changed.state_dict() == kept.state_dict()


# ------------------------------------------------------------------------------------ rows that train anyway


@both
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
def test_paired_rows_that_do_not_switch_are_present(kind, seed, probability):
    """`paired` is present=: the regions of the rows that keep a condition of the pool; switched ones and -1 are not."""
    rng = np.random.default_rng(seed)
    schedule = aria.ConstantSwitch(probability)
    switch = make(schedule=schedule, normalise=False, coverage=ONLINE)
    twin = an_allocator(coverage=ONLINE)
    for round_ in range(6):
        timesteps, paired = rng.integers(0, T, 9), rng.integers(-1, 60, 9)
        s = switch.draw(kind.of(timesteps), paired=kind.of(paired))
        mask = np.array(expected_mask(5, round_, timesteps, schedule))
        kept = [int(item) for item, switched in zip(paired, mask, strict=True) if not switched and item >= 0]
        draw = twin.draw(sum(mask), present=[int(twin.partition.labels[item]) for item in kept])
        assert same_draw(draw, switch.allocator.open_rounds[0])
        losses = rng.lognormal(size=9)
        assert np.array_equal(kind.back(s.mask), mask)
        switch.observe(kind.of(losses))
        twin.observe(draw.regions, losses[mask])
        twin.step()
        assert twin.state_dict() == switch.allocator.state_dict()


def test_paired_shifts_the_draw_to_regions_without_images():
    """Regions 0 and 1 of six have images: rows of the other four are drawn, but for exploration."""
    switch = make(schedule=aria.ConstantSwitch(0.25), coverage=ONLINE)
    pool, q = switch.allocator.partition, switch.allocator.target
    own = np.concatenate([pool.items_of(0)[:1].repeat(30), pool.items_of(1)[:1].repeat(30)])
    for _ in range(30):
        switch.draw(np.full(60, 500), paired=own)
        switch.observe(np.ones(60))
    p = switch.allocator.probabilities
    np.testing.assert_allclose(p[:2], switch.allocator.exploration * q[:2], rtol=1e-9)
    assert (p[2:] > q[2:]).all()


@both
@pytest.mark.parametrize("coverage", [None, STATIC])
def test_paired_is_refused_where_rows_are_not_counted_as_they_come(kind, coverage):
    for policy in (None, aria.PoolPolicy()) if coverage is None else (None,):
        switch = make(coverage=coverage, policy=policy)
        before = observed(switch)
        with pytest.raises(ValueError, match=r"paired: .*Coverage\(partition, items=.*Coverage\.online"):
            switch.draw(kind.of([1, 2]), paired=kind.of([3, -1]))
        assert observed(switch) == before


@both
def test_paired_is_needed_where_rows_are_counted_as_they_come(kind):
    switch = make(coverage=ONLINE)
    before = observed(switch)
    with pytest.raises(ValueError, match=r"paired: .*Coverage\.online.*Coverage\(partition, items="):
        switch.draw(kind.of([1, 2]))
    assert observed(switch) == before


def test_data_rows_are_the_rows_that_do_not_switch():
    """With a static coverage, effort depends on how many rows keep their images: all rows switch, so none do."""
    few, many = (make(schedule=aria.ConstantSwitch(p), coverage=STATIC) for p in (1.0, 0.1))
    for _ in range(20):
        for switch in (few, many):
            switch.draw(np.full(40, 500))
            switch.observe(np.ones(40))
    counts = few.allocator.coverage.counts
    covered, bare = counts > 0, counts == 0
    assert bare.any()
    one, two = few.allocator.probabilities, many.allocator.probabilities
    assert two[bare].sum() > one[bare].sum()
    assert one[covered].sum() > two[covered].sum()


# ----------------------------------------------------------------------------------------------- credit


@both
@given(st.integers(0, 2**32), st.booleans())
def test_only_switched_rows_are_credited(kind, seed, normalise):
    """Losses of the other rows, wild ones too, leave no trace, neither in estimates nor in the profile."""
    rng = np.random.default_rng(seed)
    a, b = make(normalise=normalise), make(normalise=normalise)
    for _ in range(5):
        timesteps, losses = rng.integers(0, T, 8), rng.lognormal(size=8)
        s = a.draw(kind.of(timesteps))
        b.draw(kind.of(timesteps))
        a.observe(kind.of(losses))
        b.observe(kind.of(np.where(kind.back(s.mask), losses, rng.choice([np.nan, np.inf, 1e9, -4.0], 8))))
        assert a.state_dict() == b.state_dict()
    assert a.allocator.metrics()["dropped_losses"] == 0


@both
@given(st.integers(0, 2**32), st.booleans())
def test_rows_without_credit_leave_no_trace(kind, seed, normalise):
    """Their losses are neither credited, nor part of the profile, nor counted as dropped."""
    rng = np.random.default_rng(seed)
    a, b = make(normalise=normalise), make(normalise=normalise)
    twin, profile = an_allocator(), TimestepProfile()
    twin.normalised = normalise
    state = profile.init()
    for _ in range(5):
        timesteps, losses, credit = rng.integers(0, T, 10), rng.lognormal(size=10), rng.random(10) < 0.6
        s = a.draw(kind.of(timesteps))
        b.draw(kind.of(timesteps))
        a.observe(kind.of(losses), credit=kind.of(credit))
        b.observe(kind.of(np.where(credit, losses, np.nan)), credit=kind.of(credit))
        assert a.state_dict() == b.state_dict()
        mask = kind.back(s.mask)
        rows = mask & credit
        draw = twin.draw(int(mask.sum()), data_rows=int((~mask).sum()))
        weights, kept = draw.weights[credit[mask]], losses[rows]
        if normalise and rows.any():
            bins = timesteps[rows] * profile.n_bins // T
            after = profile.update(state, bins, kept, weights)
            usual = profile.expected(state)
            kept = kept / (profile.expected(after) if usual is None else usual)[bins]
            state = after
        twin.close_round(draw.regions[credit[mask]], kept)
        assert twin.state_dict() == a.allocator.state_dict()
    assert a.allocator.metrics()["dropped_losses"] == 0


@both
def test_no_credit_at_all_closes_the_round(kind):
    switch = make(schedule=aria.ConstantSwitch(1.0))
    switch.draw(kind.of([1, 2]))
    switch.observe(kind.of([np.nan, 1.0]), credit=kind.of([False, False]))
    assert switch.allocator.round == 1
    assert not np.isfinite(switch.allocator.estimate().stderr).any()
    assert switch.allocator.metrics()["dropped_losses"] == 0


@both
def test_bad_losses_of_switched_rows_are_dropped_and_counted(kind):
    switch = make(schedule=aria.ConstantSwitch(1.0))
    count = 0
    for losses in ([np.nan, 1.0, np.inf], [1.0, 1.0, 1.0], [1e150, -np.inf, np.nan]):
        switch.draw(kind.of([1, 500, 999]))
        switch.observe(kind.of(losses))
        count += sum(not abs(x) < 1e150 for x in losses)
        assert switch.allocator.metrics()["dropped_losses"] == count
    assert count == 5


def test_raw_credit_goes_to_the_region_of_the_row():
    """normalise=False: with rate 1, the estimate of a region is the mean loss of its rows in the last round."""
    switch = make(estimator=aria.Ema(1.0), normalise=False)
    for _ in range(5):
        s = switch.draw(np.arange(30) * 33)
        losses = np.random.default_rng(int(s.round)).lognormal(size=30)
        switch.observe(losses)
        rows = losses[s.mask]
        mean = switch.allocator.estimate().mean
        for k in set(s.regions.tolist()):
            assert mean[k] == pytest.approx(rows[s.regions == k].mean(), rel=1e-12)


@both
@given(st.integers(0, 2**32), st.sampled_from([None, STATIC]))
def test_normalised_credit_is_loss_over_profile(kind, seed, coverage):
    """The profile of the closed rounds, worked out beside it; in the first round that of its own rows."""
    rng = np.random.default_rng(seed)
    switch, twin = make(coverage=coverage), an_allocator(coverage=coverage)
    profile = TimestepProfile()
    state = profile.init()
    for _ in range(6):
        timesteps, losses = rng.integers(0, T, 12), rng.lognormal(size=12)
        mask = kind.back(switch.draw(kind.of(timesteps)).mask)
        draw = twin.draw(int(mask.sum()), data_rows=int((~mask).sum()))
        bins, rows = timesteps[mask] * profile.n_bins // T, losses[mask]
        switch.observe(kind.of(losses))
        if len(rows):
            after = profile.update(state, bins, rows, draw.weights)
            usual = profile.expected(state)
            twin.observe(draw.regions, rows / (profile.expected(after) if usual is None else usual)[bins])
            state = after
        twin.step()
        assert same_estimate(switch.allocator.estimate(), twin.estimate())
        assert switch.allocator.digest() == twin.digest()


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


@both
def test_equal_regions_have_a_ratio_of_one(kind):
    """If the loss is a function of the timestep alone, every region is at exactly 1."""
    switch = make(schedule=aria.ConstantSwitch(1.0), num_train_timesteps=8)
    rng = np.random.default_rng(1)
    for _ in range(40):
        timesteps = rng.integers(0, 8, 40)
        switch.draw(kind.of(timesteps))
        switch.observe(kind.of(2.0**timesteps))
    np.testing.assert_allclose(switch.allocator.estimate().mean, 1, rtol=1e-12)


# ---------------------------------------------------------------------------------------------- profile


def test_a_range_without_losses_borrows_from_its_neighbours():
    """Log-linear between known ranges, constant beyond them; the known ones as they are."""
    profile = TimestepProfile(n_bins=7)
    state = profile.update(profile.init(), np.array([1, 1, 5]), np.array([2.0, 4.0, 48.0]), np.array([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(profile.expected(state), [3, 3, 6, 12, 24, 48, 48], rtol=1e-13)
    assert profile.expected(state)[[1, 5]] == pytest.approx([3, 48], rel=1e-15)
    assert profile.expected(profile.init()) is None
    negative = profile.update(profile.init(), np.array([2]), np.array([-1.0]), np.ones(1))
    assert profile.expected(negative) is None


@given(st.integers(0, 2**32), st.sampled_from([0.01, 0.3, 1.0]))
def test_the_profile_is_a_weighted_moving_average(seed, rate):
    """Against the definition, row by row: gain 1 - (1 - rate)^n of the weighted mean; arguments are not changed."""
    rng = np.random.default_rng(seed)
    profile = TimestepProfile(n_bins=3, rate=rate)
    state, total, weight = profile.init(), np.zeros(3), np.zeros(3)
    for _ in range(5):
        bins, losses, weights = rng.integers(0, 3, 6), rng.lognormal(size=6), rng.lognormal(size=6)
        losses[rng.random(6) < 0.2] = rng.choice([np.nan, np.inf, 1e150])
        given = {name: array.copy() for name, array in state.items()}
        after = profile.update(state, bins, losses, weights)
        assert all(np.array_equal(given[name], state[name]) for name in state)
        state = after
        for k in range(3):
            use = (bins == k) & (np.abs(losses) < 1e150)
            if use.any():
                keep = (1 - rate) ** use.sum()
                total[k] = keep * total[k] + (1 - keep) * np.average(losses[use], weights=weights[use])
                weight[k] = keep * weight[k] + 1 - keep
        np.testing.assert_allclose(state["total"], total, rtol=1e-10)
        np.testing.assert_allclose(state["weight"], weight, rtol=1e-10)


def test_the_profile_stays_finite():
    profile = TimestepProfile(n_bins=2)
    state = profile.init()
    for loss in (9e149, -9e149, 5e-324, np.nan):
        state = profile.update(state, np.array([0, 1]), np.array([loss, 1.0]), np.array([1e300, 5e-324]))
        assert all(np.isfinite(array).all() for array in state.values())
        assert (profile.expected(state) > 0).all()


@pytest.mark.parametrize(("name", "bad"), [("n_bins", 0), ("n_bins", 1.5), ("rate", 0.0), ("rate", 1.1)])
def test_settings_of_the_profile(name, bad):
    with pytest.raises(ValueError, match=name):
        TimestepProfile(**{name: bad})


@both
@given(st.integers(0, 2**32), st.booleans())
def test_losses_that_one_divides_oneself_are_those_that_random_conditioning_credits(kind, seed, weighted):
    """Where all rows switch, the allocators are equal bit for bit; with a state that was saved as lists in between."""
    rng = np.random.default_rng(seed)
    switch, twin = make(schedule=aria.ConstantSwitch(1.0)), an_allocator()
    profile = TimestepProfile()
    usual = profile.init()
    for round_ in range(5):
        noise, losses = rng.random(9), rng.lognormal(size=9)
        losses[rng.random(9) < 0.2] = rng.choice([np.nan, np.inf, 1e150])
        switch.draw(noise=kind.of(noise))
        switch.observe(kind.of(losses))
        draw = twin.draw(9, data_rows=0)
        before = {name: np.array(array) for name, array in usual.items()}
        ratios, after = profile.normalise(usual, kind.of(noise), kind.of(losses), draw.weights)
        assert all(np.array_equal(usual[name], before[name]) for name in before)
        twin.observe(draw.regions, ratios)
        twin.step()
        assert twin.digest() == switch.allocator.digest()
        usual = {name: array.tolist() for name, array in after.items()} if round_ == 2 else after
    ratios, _ = profile.normalise(usual, [], [])
    assert ratios.shape == (0,)


def test_before_any_positive_loss_losses_stay_as_they_are():
    profile = TimestepProfile()
    losses = np.array([0.0, -1.0])
    ratios, _ = profile.normalise(profile.init(), [0.1, 0.9], losses)
    assert ratios.tolist() == losses.tolist()
    assert not np.shares_memory(ratios, losses)


def test_regions_at_other_noise_levels_are_compared_where_the_levels_overlap():
    """Region 1 is twice as hard, and meets cleaner rows, whose losses are small: raw means have it the easier one.

    Both count alike. Where both are, 2 and 1 are compared with 1.5; where one is alone, it is compared with itself.
    """

    def seen(levels, divide):
        rng = np.random.default_rng(0)
        allocator = aria.Allocator(aria.Partition.from_labels([0, 1]), estimator=aria.Ema(0.001))
        profile = TimestepProfile()
        usual = profile.init()
        for _ in range(1000):
            draw = allocator.draw(16)
            noise = levels * rng.random(16) + np.where(draw.regions == 1, 0.0, 1 - levels)
            losses = (1.0 + draw.regions) * 100**noise * rng.lognormal(0, 0.3, 16)
            if divide:
                losses, usual = profile.normalise(usual, noise, losses, draw.weights)
            allocator.observe(draw.regions, losses)
            allocator.step()
        return allocator.estimate().mean

    easier = seen(0.7, divide=False)
    assert easier[1] < 0.6 * easier[0]
    for levels in (0.5, 0.8):
        both = (2 * levels - 1) / levels  # share of a region's rows where the other is, too
        np.testing.assert_allclose(seen(levels, divide=True), 1 - both + both * np.array([1, 2]) / 1.5, rtol=0.06)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"noise": [0.5, 1.5]}, r"noise: expected values in \[0, 1\], got 0.5 to 1.5"),
        ({"noise": [np.nan, 0.5]}, r"noise: expected values in \[0, 1\]"),
        ({"noise": [5, 999]}, "noise: expected floats in .*, got integers up to 999; divide timesteps by their number"),
        ({"noise": [[0.5, 0.1]]}, "noise: expected a one-dimensional"),
        ({"losses": [1.0]}, "losses: expected 2"),
        ({"weights": [1.0]}, "weights: expected 2"),
        ({"weights": [1.0, 0.0]}, "weights: expected positive numbers"),
        ({"weights": [1.0, np.nan]}, "weights: expected positive numbers"),
        ({"state": {"total": [0.0] * 20}}, "state: expected an entry 'weight'"),
        ({"state": TimestepProfile(n_bins=19).init()}, "state entry 'total': expected 20"),
    ],
)
def test_what_cannot_be_normalised(given, words):
    arguments = {"state": TimestepProfile().init(), "noise": [0.1, 0.2], "losses": [1.0, 2.0], **given}
    with pytest.raises(ValueError, match=words):
        TimestepProfile().normalise(**arguments)


@pytest.mark.parametrize("normalise", [False, True])
def test_an_allocator_knows_what_its_losses_mean_and_so_does_its_state(normalise):
    switch = make(normalise=normalise)
    assert switch.allocator.normalised is normalise
    state = switch.allocator.state_dict()
    alone = an_allocator()
    assert alone.normalised is False
    alone.load_state_dict(state)
    assert alone.normalised is normalise
    assert aria.History(alone).normalised is normalise
    own = an_allocator()
    own.normalised = not normalise  # what is set here holds: these are the losses to come
    own.load_state_dict(state)
    assert own.normalised is not normalise
    assert copy.copy(own).normalised is not normalise
    assert own.digest() == alone.digest()
    for bad in (None, 1, "yes"):
        with pytest.raises(ValueError, match=r"normalised=.*: expected True or False"):
            own.normalised = bad
    for bad in ("", "as they come", None):
        with pytest.raises(ValueError, match="state entry 'losses'"):
            alone.load_state_dict({**state, "losses": bad})
    assert alone.normalised is normalise


def test_ranges_of_noise_levels():
    assert TimestepProfile(n_bins=4).bins(np.array([0.0, 0.2499, 0.25, 0.999, 1.0])).tolist() == [0, 0, 1, 3, 3]


# ------------------------------------------------------------------------------------------- rounds


@both
def test_no_switched_row_still_opens_and_closes_a_round(kind):
    switch = make(schedule=aria.ConstantSwitch(0.0), coverage=ONLINE)
    for round_ in range(3):
        s = switch.draw(kind.of([1, 2, 999]), paired=kind.of([3, -1, 5]))
        assert (s.mask.tolist(), s.items.tolist(), s.regions.tolist(), s.weights.tolist()) == ([False] * 3, [], [], [])
        assert s.round == round_
        assert len(switch.allocator.open_rounds) == 1
        with pytest.raises(aria.FeedbackLagError):
            switch.draw(kind.of([1]), paired=kind.of([1]))
        switch.observe(kind.of([1.0, 2.0, 3.0]))
        assert (switch.allocator.round, switch.allocator.open_rounds) == (round_ + 1, ())
    assert not np.isfinite(switch.allocator.estimate().stderr).any()
    assert switch.allocator.metrics()["passes"] == 0
    assert switch.metrics()["switched"] == 0


@both
def test_an_empty_batch_is_a_round(kind):
    switch = make()
    assert np.isnan(switch.metrics()["switched"])
    assert tuple(switch.draw(kind.of([], np.int64)).mask.shape) == (0,)
    switch.observe(kind.of([], np.float64))
    assert switch.allocator.round == 1


@both
def test_losses_of_a_round_without_switched_rows_are_still_checked(kind):
    switch = make(schedule=aria.ConstantSwitch(0.0))
    switch.draw(kind.of([1, 2]))
    with pytest.raises(ValueError, match="losses: expected 2 numbers, got 3"):
        switch.observe(kind.of([1.0, 2.0, 3.0]))
    assert switch.allocator.round == 0


@both
@given(st.integers(0, 2**32), st.booleans())
def test_observe_is_observe_without_step_and_step(kind, seed, normalise):
    rng = np.random.default_rng(seed)
    a, b = make(normalise=normalise), make(normalise=normalise)
    for _ in range(5):
        timesteps, losses = rng.integers(0, T, 6), rng.lognormal(size=6)
        for each in (a, b):
            each.draw(kind.of(timesteps))
        a.observe(kind.of(losses))
        b.observe(kind.of(losses), step=False)
        assert b.allocator.round == a.allocator.round - 1
        b.step()
        assert a.state_dict() == b.state_dict()


def test_step_without_a_loss_is_a_round_without_feedback():
    switch = make(schedule=aria.ConstantSwitch(1.0))
    switch.draw([1, 2])
    switch.step()
    assert switch.allocator.round == 1
    assert not np.isfinite(switch.allocator.estimate().stderr).any()
    assert switch.metrics()["switched"] == 1


@both
def test_losses_are_reported_once(kind):
    """Not twice for one batch; the losses of the next are no second report."""
    switch, twin = make(lag=1), make(lag=1)
    for each in (switch, twin):
        each.draw(kind.of([1, 999, 5]))
        each.draw(kind.of([2, 3, 4]))
        each.observe(kind.of([1.0, 2.0, 3.0]), step=False)
    for again in ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]):
        with pytest.raises(RuntimeError, match="called twice for the batch of round 0"):
            switch.observe(kind.of(again))
    for each in (switch, twin):
        each.step()
        each.observe(kind.of([4.0, 5.0, 6.0]))
    assert switch.state_dict() == twin.state_dict()
    with pytest.raises(RuntimeError, match=r"observe\(\) without an open"):
        switch.observe(kind.of([1.0, 2.0, 3.0]))


def test_nothing_to_observe_or_close_without_a_batch():
    switch = make(lag=1)
    for call in (lambda: switch.observe([1.0, 2.0, 3.0]), switch.step):
        with pytest.raises(RuntimeError, match="without an open round"):
            call()
    assert switch.allocator.round == 0


def test_a_round_that_somebody_else_drew():
    switch, other = make(lag=2), make()
    switch.allocator.draw(3)
    before = observed(switch)
    for call in (lambda: switch.observe([1.0, 2.0, 3.0]), switch.step):
        with pytest.raises(RuntimeError, match=r"without an open batch: round 0.* did not draw"):
            call()
    assert observed(switch) == before
    switch.allocator.step()
    other = aria.RandomConditioning(switch.allocator, schedule=aria.ConstantSwitch(1.0))
    other.draw([1, 2])
    with pytest.raises(RuntimeError, match="did not draw"):
        switch.observe([1.0, 2.0])
    other.observe([1.0, 2.0])
    assert switch.allocator.round == 2


@both
@given(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from([None, ONLINE]))
def test_interleavings_give_the_same_stream(kind, seed, lag, coverage):
    """Batches drawn ahead as far as the lag allows, or no further than needed: the same switches and state."""
    rng = np.random.default_rng(seed)
    batches = [(rng.integers(0, T, 7), rng.integers(-1, 60, 7), rng.lognormal(size=7)) for _ in range(9)]

    def run(ahead):
        switch, drawn, closed = make(lag=lag, coverage=coverage), [], 0
        while closed < len(batches):
            opened = len(switch.allocator.open_rounds)
            if len(drawn) < len(batches) and (opened == 0 or (opened <= lag and ahead())):
                timesteps, paired, _ = batches[len(drawn)]
                s = switch.draw(kind.of(timesteps), **({"paired": kind.of(paired)} if coverage else {}))
                drawn.append((s.mask.tolist(), s.items.tolist(), s.weights.tolist()))
            else:
                switch.observe(kind.of(batches[closed][2]))
                closed += 1
        return drawn, switch.state_dict()

    plain = run(lambda: False)
    assert run(lambda: True) == plain
    assert run(lambda: rng.random() < 0.5) == plain


@both
def test_feedback_that_arrives_early_is_not_used_early(kind):
    """At lag 1 the draw of a batch is the same whether the last one was reported before it or after."""
    early, late = make(lag=1), make(lag=1)
    rng = np.random.default_rng(8)
    before = None
    for _ in range(12):
        steps, losses = rng.integers(0, T, 16), rng.lognormal(0, 2, size=16)
        if before is not None:
            early.observe(kind.of(before))
        s, t = early.draw(kind.of(steps)), late.draw(kind.of(steps))
        if before is not None:
            late.observe(kind.of(before))
        assert s.items.tolist() == t.items.tolist()
        assert s.weights.tolist() == t.weights.tolist()
        before = losses
    assert early.state_dict() == late.state_dict()


def test_the_batch_that_is_credited_is_the_oldest():
    switch = make(lag=2, schedule=aria.ConstantSwitch(1.0), normalise=False, estimator=aria.Ema(1.0))
    first, second = switch.draw([1]), switch.draw([2])
    switch.observe([5.0])
    assert switch.allocator.estimate().mean[first.regions[0]] == 5.0
    switch.observe([7.0])
    assert switch.allocator.estimate().mean[second.regions[0]] == 7.0


@both
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_as_many_batches_may_be_open_as_the_lag_says(kind, lag):
    switch = make(lag=lag)
    for number in range(lag + 1):
        switch.draw(kind.of(np.arange(number + 2)))
    before = observed(switch)
    with pytest.raises(aria.FeedbackLagError, match=rf"lag={lag + 1}"):
        switch.draw(kind.of([6]))
    assert observed(switch) == before
    for number in range(lag + 1):
        switch.observe(kind.of(np.ones(number + 2)))
    assert switch.allocator.round == lag + 1


def test_after_a_rewind_batches_are_drawn_again():
    """What was open is forgotten, here as in the allocator; the same batches give the same switches."""
    switch = make(lag=2)
    one = [switch.draw([100 * i, 999]) for i in range(3)]
    switch.observe([1.0, 2.0], step=False)
    switch.allocator.rewind()
    with pytest.raises(RuntimeError, match="without an open round"):
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


# -------------------------------------------------------------------------------- a round that cannot be closed


class Interrupted(aria.Proportional):
    """The default policy, but for Ctrl-C while it works, as often as is set."""

    times = 0

    def log_score(self, estimate, shared):
        if Interrupted.times:
            Interrupted.times -= 1
            raise KeyboardInterrupt
        return super().log_score(estimate, shared)


@both
@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("step", [True, False])
def test_a_batch_whose_round_could_not_be_closed_can_be_reported_again(kind, lag, step):
    """As if nothing had happened: the profile is not a round ahead of the estimates, nor are the counts."""
    switch, twin = make(lag=lag, policy=Interrupted()), make(lag=lag, policy=Interrupted())
    rng = np.random.default_rng(2)
    for _ in range(5):
        steps, losses = kind.of(rng.integers(0, T, 12)), kind.of(rng.lognormal(size=12))
        for each in (switch, twin):
            each.draw(steps)
        before = observed(switch)
        if not step:
            switch.observe(losses, step=False)
        for _ in range(2):
            Interrupted.times = 1
            with pytest.raises(KeyboardInterrupt):
                switch.observe(losses) if step else switch.step()
            assert observed(switch) == before
        switch.observe(losses) if step else switch.step()
        twin.observe(losses)
        assert switch.state_dict() == twin.state_dict()


def test_ctrl_c_right_after_a_round_was_stored_finds_the_profile_of_that_round(monkeypatch):
    switch, twin = make(), make()
    for each in (switch, twin):
        each.draw(np.arange(20) * 50)
    close = switch.allocator.close_round

    def interrupted(*report, **options):
        close(*report)
        raise KeyboardInterrupt

    monkeypatch.setattr(switch.allocator, "close_round", interrupted)
    with pytest.raises(KeyboardInterrupt):
        switch.observe(np.arange(20) + 1.0)
    monkeypatch.undo()
    twin.observe(np.arange(20) + 1.0)
    assert switch.state_dict() == twin.state_dict()


# ------------------------------------------------------------------------------------------- what is refused


@both
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([T], r"timesteps: expected values in \[0, 1000\), got 1000 to 1000"),
        (
            [5, 4000],
            r"got 5 to 4000; .*num_train_timesteps=noise_scheduler.config.num_train",
        ),
        ([-1, 5], "got -1 to 5"),
        ([0.5, 0.1], "timesteps: expected integers, got dtype float64"),
        ([[1, 2]], "timesteps: expected a one-dimensional"),
        (500, "timesteps: expected a one-dimensional"),
        ([True, False], "timesteps: expected integers, got dtype bool"),
    ],
)
def test_timesteps_that_are_refused(kind, values, words):
    switch = make()
    before = observed(switch)
    with pytest.raises(ValueError, match=words):
        switch.draw(kind.of(values))
    assert observed(switch) == before


@both
@pytest.mark.parametrize(
    ("values", "same"),
    [
        (np.array([0.0, 0.25, 1.0]), [0.0, 0.25, 1.0]),
        (np.array([1000.0, 250.0, 3.5], np.float32), [1.0, 0.25, 0.0035]),
        (np.array([1, 500, 1000]), [0.0, 0.499, 0.999]),
    ],
)
def test_the_message_about_timesteps_names_a_call_that_works(kind, values, same):
    """Floats in [0, 1], floats up to T as flow-matching schedulers have them, and integers that count from 1."""
    switch, twin = make(schedule=aria.SigmoidSwitch()), make(schedule=aria.SigmoidSwitch())
    names = {"switch": switch, "timesteps": kind.of(values), "np": np}
    with pytest.raises(ValueError, match="timesteps") as refused:
        switch.draw(names["timesteps"])
    assert " * " not in str(refused.value)  # to multiply noise levels would switch nearly every row
    exec(refused.value.remedy, names)
    s = names["s"] if "s" in names else switch.draw(names["timesteps"])
    assert kind.back(s.mask).tolist() == twin.draw(noise=same).mask.tolist()


@pytest.mark.parametrize("timesteps", [[1, 500, 1000], [0.1, 0.7, 1.0], [1.0, 700.5, 1000.0]])
def test_the_message_about_a_list_names_a_call_that_works(timesteps):
    names = {"switch": make(), "timesteps": timesteps, "np": np}
    with pytest.raises(ValueError, match="timesteps") as refused:
        names["switch"].draw(timesteps)
    exec(refused.value.remedy, names)
    assert len((names["s"] if "s" in names else names["switch"].draw(names["timesteps"])).mask) == 3


def test_noise_levels_are_never_multiplied():
    """What the field did: u * T, then integers. Levels are taken as they are; for other values a function is named."""
    switch = make()
    with pytest.raises(ValueError, match=r"noise: .*noise_levels\(scheduler, timesteps\)") as refused:
        switch.draw(noise=[1.0, 700.5, 1000.0])
    assert " * " not in str(refused.value)
    switch.draw(noise=[0.001, 0.7005, 1.0])


@both
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, 1.5], r"noise: expected values in \[0, 1\], got 0.5 to 1.5"),
        ([-0.1, 0.5], "noise: expected values"),
        ([np.nan, 0.5], "noise: expected values"),
        ([1, 0], r"noise: expected floats in \[0, 1\], got integers of dtype int64; .*Try: s = switch.draw\(noise\)"),
        ([[0.5]], "noise: expected a one-dimensional"),
        (0.5, "noise: expected a one-dimensional"),
    ],
)
def test_noise_levels_that_are_refused(kind, values, words):
    switch = make()
    before = observed(switch)
    with pytest.raises(ValueError, match=words):
        switch.draw(noise=kind.of(values))
    assert observed(switch) == before


@pytest.mark.parametrize("name", ["timesteps", "noise", "paired"])
@pytest.mark.parametrize("bad", [5, 0.5, "abc", [[1], [1, 2]], [None, 1], {"a": 1}])
def test_what_is_no_vector_at_all_is_refused_by_name(name, bad):
    switch = make(coverage=ONLINE)
    before = observed(switch)
    given = {"timesteps": [1, 2], "paired": [1, 2]} if name == "paired" else {"paired": [1, 2]}
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        switch.draw(**{**given, name: bad})
    assert observed(switch) == before


@both
def test_either_timesteps_or_noise(kind):
    switch = make()
    for arguments, words in (
        ({}, "got neither"),
        ({"timesteps": kind.of([1]), "noise": kind.of([0.5])}, "got both"),
    ):
        with pytest.raises(ValueError, match=f"timesteps and noise: expected one of them, {words}"):
            switch.draw(**arguments)
    assert len(switch.allocator.rounds) == 0


@both
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([60, 0], r"paired: expected values in \[-1, 60\), got 0 to 60"),
        ([-2, 0], "got -2 to 0"),
        ([0], "paired: expected 2 integers, got 1"),
        ([0, 1, 2], "paired: expected 2 integers, got 3"),
        ([0.0, 1.0], "paired: expected integers"),
        ([[0, 1]], "paired: expected a one-dimensional"),
        (3, "paired: expected a one-dimensional"),
    ],
)
def test_own_items_that_are_refused(kind, bad, words):
    switch = make(coverage=ONLINE)
    before = observed(switch)
    with pytest.raises(ValueError, match=words):
        switch.draw(kind.of([1, 2]), paired=kind.of(bad))
    assert observed(switch) == before


@both
@pytest.mark.parametrize("step", [True, False])
@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.ones(3), "losses: expected 4 numbers, got 3"),
        (np.ones(5), "losses: expected 4 numbers, got 5"),
        (np.array(0.5), r"losses: .*reduction='none'"),
        (np.ones(4, bool), "losses: expected real"),
        (np.ones(4, complex), "losses: expected real"),
    ],
)
def test_losses_that_are_refused(kind, step, bad, words):
    switch = make()
    switch.draw(kind.of([1, 2, 998, 999]))
    before = observed(switch)
    with pytest.raises(ValueError, match=words):
        switch.observe(kind.of(bad), step=step)
    assert observed(switch) == before
    switch.observe(kind.of(np.ones(4)))
    assert switch.allocator.round == 1


@both
@pytest.mark.parametrize("shape", [(4, 1), (4, 3), (4, 2, 3, 3), (8,), (12,)])
def test_several_losses_a_row_are_refused_by_a_message_that_names_the_average(kind, shape):
    """Several timesteps an image, pixels that were not averaged: the code in the message makes them one a row."""
    losses = np.random.default_rng(0).lognormal(size=shape)
    switch, twin = make(), make()
    for each in (switch, twin):
        each.draw(kind.of([1, 2, 998, 999]))
    with pytest.raises(ValueError, match="losses") as refused:
        switch.observe(kind.of(losses))
    mean = ".mean(dim=1)" if kind is Tensors else ".mean(axis=1)"
    assert (".ravel()" if shape == (4, 1) else mean) in refused.value.remedy
    names = {"losses": kind.of(losses)}
    exec(refused.value.remedy, names)
    switch.observe(names["losses"])
    twin.observe(kind.of(losses.reshape(4, -1).mean(axis=1)))
    assert switch.allocator.estimate().mean == pytest.approx(twin.allocator.estimate().mean, rel=1e-12)


@both
@pytest.mark.parametrize("flat", [False, True])
def test_losses_of_padded_tokens_are_told_apart_from_several_a_row(kind, flat):
    """Captions of unequal lengths, equally hard a token: the mean over all would make short ones look easy."""
    counted = np.arange(6) < np.array([1, 6, 2, 3])[:, None]
    tokens = np.where(counted, 2.0, 0.0)
    losses = kind.of(tokens.reshape(-1) if flat else tokens)
    switch = make()
    switch.draw(kind.of([1, 2, 998, 999]))
    with pytest.raises(ValueError, match=r"12 of them are exactly 0, as those of padding are") as caught:
        switch.observe(losses)
    names = {"losses": losses, "counted": kind.of(counted)}
    exec(caught.value.remedy, names)
    assert names["losses"].tolist() == [2.0] * 4
    switch.observe(names["losses"])
    assert switch.allocator.round == 1


def test_losses_are_copied_from_what_shares_its_memory_with_an_array():
    """A Series of pandas does; the loop may write the losses of the next batch into it."""

    class Series:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return self.values

    switch, twin, losses = make(normalise=False), make(normalise=False), Series(np.ones(4))
    for each in (switch, twin):
        each.draw([1, 2, 998, 999])
    switch.observe(losses, step=False)
    losses.values[:] = 100.0
    switch.step()
    twin.observe(np.ones(4))
    assert observed(switch) == observed(twin)


def test_several_losses_a_row_in_a_list():
    switch, losses = make(), [[1.0, 2.0], [3.0, 4.0]]
    switch.draw([1, 999])
    with pytest.raises(ValueError, match=r"losses = np\.asarray\(losses\)\.mean\(axis=1\)$"):
        switch.observe(losses)
    switch.observe(np.asarray(losses).mean(axis=1))


@both
@pytest.mark.parametrize(
    "bad", [np.ones(3, bool), np.ones((4, 1), bool), np.ones(4), np.ones(4, np.int64), np.array(True)]
)
def test_credit_that_is_refused(kind, bad):
    switch = make()
    switch.draw(kind.of([1, 2, 998, 999]))
    before = observed(switch)
    with pytest.raises(ValueError, match="credit: expected 4 bools, True for the rows to credit, got shape"):
        switch.observe(kind.of(np.ones(4)), credit=kind.of(bad))
    assert observed(switch) == before
    switch.observe(kind.of(np.ones(4)))


@pytest.mark.skipif(len(KINDS) == 1, reason="needs torch")
@pytest.mark.parametrize(("kind", "other"), [(Arrays, Tensors), (Tensors, Arrays)])
def test_arrays_and_tensors_are_not_mixed(kind, other):
    """The first argument says which; a list counts as an array. The message says how to convert."""
    switch = make(coverage=ONLINE)
    noun, foreign = ("an array", "a tensor") if kind is Arrays else ("a tensor", "an array")
    words = f"expected {noun}, as the .* came, got {foreign}"
    steps, own, losses = [1, 999], np.array([3, -1]), np.array([1.0, 2.0])

    def refused(call, value):
        with pytest.raises(ValueError, match=words) as error:
            call()
        import torch

        exec(error.value.remedy, {"torch": torch, "np": np}, value)
        return next(iter(value.values()))

    paired = refused(lambda: switch.draw(kind.of(steps), paired=other.of(own)), {"paired": other.of(own)})
    assert type(switch.draw(kind.of(steps), paired=kind.of(own)).mask) is type(paired)
    value = other.of(losses)
    again = refused(lambda: switch.observe(value), {"losses": value})
    flags = other.of([True, False])
    with pytest.raises(ValueError, match=f"credit: {words}"):
        switch.observe(again, credit=flags)
    switch.observe(again)
    assert switch.allocator.round == 1


@pytest.mark.skipif(len(KINDS) == 1, reason="needs torch")
def test_lists_count_as_arrays():
    listed, arrays = make(coverage=ONLINE), make(coverage=ONLINE)
    steps, own, losses = [1, 500, 999], [0, -1, 7], [1.0, 2.0, 3.0]
    for each, of in ((listed, list), (arrays, np.asarray)):
        s = each.draw(of(steps), paired=of(own))
        assert type(s.mask) is np.ndarray
        each.observe(of(losses), credit=of([True, True, False]))
    assert listed.state_dict() == arrays.state_dict()
    listed.draw(steps, paired=own)
    with pytest.raises(ValueError, match=r"losses: expected an array, .* got a tensor"):
        listed.observe(Tensors.of(losses))


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("allocator", aria.Partition.from_labels([0, 1]), "an instance of Allocator"),
        ("allocator", aria.Allocator, "an instance of Allocator"),
        ("schedule", 5.0, "an instance of SwitchSchedule"),
        ("schedule", aria.ExponentialSwitch, "an instance of SwitchSchedule"),
        ("num_train_timesteps", 0, "an integer in"),
        ("num_train_timesteps", 1e3, "an integer in"),
        ("num_train_timesteps", 10**9, "an integer in"),
        ("normalise", "no", "True or False"),
        ("normalise", None, "True or False"),
        ("check_every", 0, "an integer"),
    ],
)
def test_settings_are_checked(name, bad, words):
    with pytest.raises(ValueError, match=f"{name}.*{words}"):
        aria.RandomConditioning(**{"allocator": an_allocator(), name: bad})


def test_metrics_are_those_of_the_allocator_and_the_share_that_switched():
    switch = make(schedule=aria.SigmoidSwitch())
    switched = rows = 0
    for number in range(4):
        mask = switch.draw(np.arange(20 + number) * 40).mask
        switch.observe(np.ones(len(mask)))
        switched, rows = switched + mask.sum(), rows + len(mask)
    metrics = switch.metrics()
    assert metrics.pop("switched") == switched / rows
    assert metrics == switch.allocator.metrics()


# -------------------------------------------------------------------------------------------- state


@both
@given(st.integers(0, 2**32), st.integers(0, 8), st.integers(0, 2), st.sampled_from([None, STATIC, ONLINE]))
def test_state_round_trip_with_batches_open(kind, seed, stop, lag, coverage):
    """Saved with batches in flight: they are forgotten, drawn again the same, and all goes on as before."""
    rng = np.random.default_rng(seed)
    batches = [(rng.integers(0, T, 5), rng.integers(-1, 60, 5), rng.lognormal(size=5)) for _ in range(stop + lag + 4)]

    def draw(switch, number):
        steps, own, _ = batches[number]
        return switch.draw(kind.of(steps), **({"paired": kind.of(own)} if coverage == ONLINE else {}))

    def go(switch, begin, end):
        out = []
        while switch.allocator.round < end:
            while len(out) < switch.allocator.round - begin + lag + 1:
                out.append(draw(switch, begin + len(out)).items.tolist())
            switch.observe(kind.of(batches[switch.allocator.round][2]))
        return out

    straight, stopped, resumed = (make(lag=lag, coverage=coverage) for _ in range(3))
    go(straight, 0, stop)
    go(stopped, 0, stop)
    if len(stopped.allocator.rounds) == 0:
        draw(stopped, stop)
    stopped.observe(kind.of(batches[stop][2]), step=False)
    state = stopped.state_dict()
    assert state == straight.state_dict()
    draw(resumed, 1)
    resumed.observe(kind.of(batches[1][2]))
    resumed.load_state_dict(state)
    assert resumed.allocator.open_rounds == ()
    straight.allocator.rewind()
    assert go(resumed, stop, stop + 4) == go(straight, stop, stop + 4)
    assert resumed.state_dict() == straight.state_dict()
    assert resumed.metrics() == straight.metrics()


def test_what_can_save_a_state():
    """Plain values and bytes: pickle, and torch.save read back with weights_only. JSON knows no bytes."""
    switch, state = a_state()
    copies = [pickle.loads(pickle.dumps(state))]
    if len(KINDS) > 1:
        import torch

        torch.save(state, file := io.BytesIO())
        file.seek(0)
        copies.append(torch.load(file, weights_only=True))
    for saved in copies:
        again = make()
        again.load_state_dict(saved)
        assert again.state_dict() == switch.state_dict()
    with pytest.raises(TypeError, match="bytes is not JSON serializable"):
        json.dumps(state)


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


def a_state():
    switch = make()
    for number in range(3):
        switch.draw(np.arange(12) * 80)
        switch.observe(np.arange(12) + 1.0 + number)
    return switch, switch.state_dict()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"normalise": False}, "normalise: True there, False here"),
        ({"num_train_timesteps": 999}, "num_train_timesteps: 1000 there, 999 here"),
        ({"schedule": aria.ConstantSwitch(0.25)}, r"ConstantSwitch\(probability=0.5\) there"),
        ({"seed": 6}, "seed"),
        ({"lag": 1}, "lag"),
    ],
)
def test_a_state_of_another_configuration_is_refused(settings, words):
    _, state = a_state()
    other = make(**settings)
    before = observed(other)
    with pytest.raises(aria.StateError, match=words):
        other.load_state_dict(state)
    assert observed(other) == before


def test_what_the_refusal_says_can_be_done():
    """The allocator's part of the state may go on under another schedule."""
    switch, state = a_state()
    other = make(schedule=aria.ConstantSwitch(0.25))
    with pytest.raises(aria.StateError, match=r"load state\['allocator'\] into the allocator") as refused:
        other.load_state_dict(state)
    exec(refused.value.remedy, {"switch": other, "state": state})
    assert other.allocator.digest() == switch.allocator.digest()
    other.draw([1, 2])
    other.observe([1.0, 2.0])


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("schema", 0),
        ("schema", "1"),
        ("config", None),
        ("profile", {}),
        ("rows", -1),
        ("rows", 3.0),
        ("switched", 10**9),
        ("allocator", {}),
        ("allocator", None),
        ("rows", None),
    ],
)
def test_a_damaged_state_is_refused(key, bad):
    switch, state = a_state()
    before = observed(switch)
    damaged = {**state, key: bad} if bad is not None else {name: value for name, value in state.items() if name != key}
    with pytest.raises(aria.StateError):
        switch.load_state_dict(damaged)
    assert observed(switch) == before


@pytest.mark.parametrize(("name", "value"), [("total", np.inf), ("total", np.nan), ("weight", -0.1), ("weight", 1.1)])
def test_a_profile_that_cannot_be_is_refused(name, value):
    switch, state = a_state()
    entry = {**state["profile"][name], "data": np.full(20, value).tobytes()}
    with pytest.raises(aria.StateError, match="profile"):
        switch.load_state_dict({**state, "profile": {**state["profile"], name: entry}})


# ------------------------------------------------------------------------------------ a batch that is left out


@pytest.mark.parametrize("lag", [1, 2])
def test_a_batch_that_was_left_out_is_found_at_the_next_draw(lag):
    """Out of memory, a loss that is not finite, a rerun cell: losses must not go to the batch before theirs."""
    switch = aria.RandomConditioning(an_allocator(lag=lag), num_train_timesteps=T)
    twin = aria.RandomConditioning(an_allocator(lag=lag), num_train_timesteps=T)
    for number in range(6):
        steps = np.arange(8) * (T // 8)
        for one in (switch, twin):
            drawn = one.draw(steps)
            if number == 3:  # left out
                continue
            one.observe(1.0 + np.arange(8), of=drawn)
        if number == 3:
            before = observed(switch)
            with pytest.raises(aria.UsageError, match=r"round 3 was neither observed nor closed.*switch\.step\(\)"):
                switch.draw(steps)
            assert observed(switch) == before
            switch.step()
            twin.step()
    for one in (switch, twin):
        one.synchronize()
    assert switch.allocator.digest() == twin.allocator.digest()
    assert switch.allocator.round == 6


def test_losses_name_their_batch():
    switch = make(lag=1)
    first, second = switch.draw([5, 6]), switch.draw([7, 8])
    before = observed(switch)
    with pytest.raises(aria.UsageError, match=r"losses of round 1, and the oldest .* is that of round 0"):
        switch.observe([1.0, 2.0], of=second)
    assert observed(switch) == before
    switch.observe([1.0, 2.0], of=first)
    switch.observe([1.0, 2.0], of=second)


# ------------------------------------------------------------------------------------ what losses and timesteps say


def said(switch, steps, losses):
    """What is said in rounds with these timesteps and losses, functions of the round."""
    texts = []
    for number in range(100):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            switch.draw(steps(number))
            switch.observe(losses(number))
        texts += [str(warning.message) for warning in caught if issubclass(warning.category, aria.AriaWarning)]
    return texts


def test_a_mean_loss_repeated_for_every_row_is_warned_of_once():
    """Here, too, where each loss is divided by what is usual at its noise level."""
    rng = np.random.default_rng(0)
    steps = lambda number: rng.integers(0, T, 16)  # noqa: E731
    (text,) = said(make(), steps, lambda number: np.full(16, 1.0 + number))
    assert "reduction='none'" in text
    assert said(make(), steps, lambda number: rng.lognormal(0, 1, 16)) == []


def test_losses_that_half_precision_made_0_of_are_warned_of_once():
    """Of losses as they were reported: divided by what is usual they have no half precision any more."""
    rng, switch = np.random.default_rng(0), make(schedule=aria.ConstantSwitch(1.0))
    levels = lambda number: rng.integers(0, T, 16)  # noqa: E731

    def half(number):
        regions = switch.allocator.open_rounds[0].regions
        losses = np.where(regions == 3, 1e-9, 1e-4) * rng.lognormal(0, 1, 16)
        return losses.astype(np.float16)

    (text,) = [text for _ in range(8) for text in said(switch, levels, half)]
    assert "are exactly 0, and losses have half precision" in text


def test_ratios_that_are_alike_for_a_thousand_rounds_are_told_once():
    rng, switch = np.random.default_rng(0), make(estimator=aria.EmaBank())
    levels = lambda number: rng.integers(0, T, 64)  # noqa: E731
    losses = lambda number: rng.lognormal(0, 0.3, 64)  # noqa: E731
    texts = [text for _ in range(11) for text in said(switch, levels, losses)]
    assert [switch.allocator.round > 1024, *("differ by less than 10%" in text for text in texts)] == [True, True]


def test_timesteps_of_another_scale_are_warned_of_once():
    """LCM draws an index into a list of 50 timesteps, which is a small timestep by itself."""
    rng = np.random.default_rng(0)
    losses = lambda number: rng.lognormal(0, 1, 16)  # noqa: E731
    switch = aria.RandomConditioning(an_allocator())
    (text,) = said(switch, lambda number: rng.integers(0, 50, 16), losses)
    assert "none was above 49, of num_train_timesteps=1000" in text
    switch = aria.RandomConditioning(an_allocator())
    assert said(switch, lambda number: rng.integers(0, 50, 16) * 20 + 19, losses) == []
