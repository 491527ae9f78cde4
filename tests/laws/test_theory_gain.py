"""Choosing a memory, and timesteps: T3.1, T3.2, T3.5, T3.6 of the theory page. Deterministic or exact."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import _kernel, bounds
from tests.feeding import advanced

SEEDS = st.integers(0, 2**32)
RATIOS = [1e-4, 1e-2, 0.1, 1.0, 30.0]  # drift over sd, per visit


def lasting_mse(gain, drift, sigma):
    """Squared bias plus variance of T1.2, right after a visit."""
    return ((1 - gain) / gain * drift) ** 2 + gain * sigma**2 / (2 - gain)


# -- T3.1, T3.2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("sigma", [1.0, 0.03])
def test_optimal_gain_beats_a_grid(ratio, sigma):
    """T3.1, D: no gain of 200 beats it, nor any near it; it is the root, and `optimal_mse` is what it reaches."""
    x = ratio * sigma
    a = bounds.optimal_gain(drift=x, sigma=sigma)
    least = bounds.optimal_mse(drift=x, sigma=sigma)
    assert least == pytest.approx(lasting_mse(a, x, sigma), rel=1e-9)
    grid = np.concatenate([np.linspace(0.01, 0.99, 200), np.clip(a * np.linspace(0.9, 1.1, 201), 0, 1)])
    assert (lasting_mse(grid, x, sigma) >= least * (1 - 1e-12)).all()
    assert x**2 * (1 - a) * (2 - a) ** 2 == pytest.approx(a**3 * sigma**2, rel=1e-9)
    bias, variance = bounds.ema_steady_state(gain=a, gap=1, count=1, drift=x, sigma=sigma)
    assert bias**2 + variance == pytest.approx(least, rel=1e-9)


def test_optimal_gain_where_drift_is_small():
    """T3.1: a ~ (2x/s)^(2/3), MSE ~ 0.75 * 2^(2/3) (x s²)^(2/3), and a wrong factor c costs (2c + c^-2) / 3."""
    x = 1e-9
    a = bounds.optimal_gain(drift=x, sigma=1)
    assert a == pytest.approx((2 * x) ** (2 / 3), rel=1e-5)
    least = bounds.optimal_mse(drift=x, sigma=1)
    assert least == pytest.approx(0.75 * 2 ** (2 / 3) * x ** (2 / 3), rel=1e-5)
    for c in (0.5, 0.8, 2, 5):
        assert lasting_mse(c * a, x, 1) / least == pytest.approx((2 * c + c**-2) / 3, rel=1e-4)


def test_closed_form_of_the_gain_costs_little():
    """T3.1: min(1, z / (1 + 2z/3)), z = (2x/s)^(2/3), costs at most 0.7% up to x = s."""
    for x in np.geomspace(1e-5, 1, 60):
        z = (2 * x) ** (2 / 3)
        assert lasting_mse(min(1.0, z / (1 + 2 * z / 3)), x, 1) <= 1.007 * bounds.optimal_mse(drift=x, sigma=1)


def two_point_risk(m, variance):
    """m² (1 - E tanh²(m Y / v)), Y ~ N(m, v): what is lost by not knowing the sign of m."""
    z = np.linspace(-9, 9, 4001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    return m**2 * (1 - (density * np.tanh(m * (m + np.sqrt(variance) * z) / variance) ** 2).sum())


def test_minimax_constant():
    """T3.2: where x is small, v = s² / sum((1 - i x / m)²) ~ 3 x s² / m, and the largest over m is 0.9363."""
    grid = np.linspace(1.2, 1.6, 401)
    risks = [two_point_risk(m, 3 / m) for m in grid]
    assert grid[np.argmax(risks)] == pytest.approx(1.412, abs=0.003)
    assert max(risks) == pytest.approx(0.9363, abs=5e-5)
    assert bounds.minimax_risk(drift=1e-9, sigma=1) == pytest.approx(max(risks) * 1e-6, rel=1e-4)
    assert bounds.minimax_risk(drift=2e-9, sigma=3) == pytest.approx(max(risks) * 18e-9 ** (2 / 3), rel=1e-4)


@pytest.mark.parametrize("x", [0.01, 0.1, 0.3, 1.0])
def test_minimax_risk_where_drift_is_large(x):
    """T3.2, D: the same with the sum taken term by term."""
    risks = []
    for m in np.linspace(1.2, 2.4, 241) * x ** (1 / 3):
        weights = np.maximum(1 - np.arange(int(m / x) + 2) * x / m, 0)
        risks.append(two_point_risk(m, 1 / (weights**2).sum()))
    bound = bounds.minimax_risk(drift=x, sigma=1)
    assert bound == pytest.approx(max(risks), rel=1e-3)
    assert bound <= max(risks) * (1 + 1e-9)
    assert bounds.minimax_risk(drift=[x / 2, x], sigma=[[0.5], [2]]).shape == (2, 2)
    assert 1 <= bounds.optimal_mse(drift=x, sigma=1) / bound <= 1.53


def test_minimax_risk_at_the_edges():
    assert bounds.minimax_risk(drift=[0, 1], sigma=[1, 0]).tolist() == [0, 0]
    assert bounds.minimax_risk(drift=99, sigma=1) == bounds.minimax_risk(drift=1, sigma=1)


def test_tuned_average_is_near_the_bound():
    """T3.2: within 27.2% for small drift; within 8.2% of the best linear one, 6^(2/3) / 3."""
    small = bounds.optimal_mse(drift=1e-9, sigma=1)
    assert small / bounds.minimax_risk(drift=1e-9, sigma=1) == pytest.approx(1.272, abs=0.001)
    assert small / (6 ** (2 / 3) / 3 * 1e-6) == pytest.approx(1.082, abs=0.001)


# -- T3.5: the bank ----------------------------------------------------------------------------------------

HALF_LIVES = aria.EmaBank().half_lives


@dataclass(frozen=True)
class UnscaledBank(aria.EmaBank):
    """`EmaBank` with plain squared errors as evidence, unclipped: weights exp(-eta L).

    The kernel's evidence is error² over cv² · mean²: so each region gets a cv² that makes 2 · eta · error² of it.
    """

    eta: float = 0.5

    def update(self, rows, shared, feedback):
        decay, tanh = self.memory
        members, read = [], []
        for i, mean in enumerate(rows["read"][:, 0]):
            one = slice(i, i + 1)
            cv2 = np.array([1 / (2 * self.eta * mean**2) if mean else 1.0, 1.0])  # no spread inside: it stays
            parts = _kernel.bank_update(
                rows["members"][one], rows["read"][one], feedback.count[one], feedback.mean[one], np.zeros(1), cv2,
                float(shared["clock"][0]), decay, tanh, self.discount, 1e300,
            )  # fmt: skip
            members.append(parts[0])
            read.append(parts[1])
        return {"members": np.concatenate(members), "read": np.concatenate(read)}, {
            **shared,
            "clock": shared["clock"] + 1,
        }


def play(estimator, losses):
    """One loss a round for every column; the estimates before each round from the second on, [T-1, columns]."""
    state, everyone = estimator.init(losses.shape[1]), np.arange(losses.shape[1])
    before = []
    for row in losses:
        before.append(estimator.estimate(state).mean)
        ones = np.ones(len(row))
        state = advanced(estimator, state, aria.Feedback(everyone, ones, row.copy(), 0 * ones, 0))
    return np.array(before[1:]), state


def evidence(state):
    """Evidence against each member, [regions, members]."""
    return state.rows["members"].reshape(-1, 4, len(HALF_LIVES))[:, 3]


def sequences(rng, rounds):
    """Columns in [0, 1]: noise, coins, square waves, ramps, one late jump."""
    t = np.arange(rounds)
    waves = [(t // period % 2).astype(float) for period in (1, 2, 5, 17, 60)]
    jump = (t > rounds // 2) * 1.0
    noisy = np.clip(jump * 0.6 + 0.2 + 0.1 * rng.normal(size=rounds), 0, 1)
    return np.stack([rng.random(rounds), (rng.random(rounds) < 0.1) * 1.0, *waves, jump, noisy, t / rounds], axis=1)


def discounted(errors2, discount):
    """sum over s <= t of (1 - discount)^(t - s) errors2[s], for all t."""
    total, out = 0.0, []
    for row in errors2:
        total = (1 - discount) * total + row
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize("discount", [0.01, 0.3])
@settings(max_examples=10)
@given(seed=SEEDS)
def test_bank_regret(discount, seed):
    """T3.5, D: at every time, for every sequence, discounted error at most the best member's plus log(I) / eta."""
    losses = 1 + sequences(np.random.default_rng(seed), 100)  # away from 0, where the bank's evidence has no scale
    eta = (1 - discount) / 2  # errors of at most R = 1
    mixed, _ = play(UnscaledBank(discount=discount, eta=eta), losses)
    own = discounted((losses[1:] - mixed) ** 2, discount)
    members = [play(aria.Ema(rate=1 - 0.5 ** (1 / h)), losses)[0] for h in HALF_LIVES]
    best = np.min([discounted((losses[1:] - member) ** 2, discount) for member in members], axis=0)
    assert (own <= best + bounds.bank_regret(members=len(HALF_LIVES), eta=eta) + 1e-9).all()


@pytest.mark.parametrize("eta", [0.5, 0.01])
def test_bank_regret_is_what_ignorance_costs(eta):
    """The mixture's own loss, -log(mean exp(-eta L)) / eta, when one member of I is right and all others are not."""
    losses = np.array([0.0, *[1e6] * 6])
    mixture = -np.log(np.mean(np.exp(-eta * losses))) / eta
    assert bounds.bank_regret(members=7, eta=eta) == pytest.approx(mixture, rel=1e-12)
    assert bounds.bank_regret(members=1, eta=eta) == 0


@settings(max_examples=20)
@given(seed=SEEDS, clip=st.sampled_from([1e-9, 1.0, 25.0, 1e9]))
def test_bank_lies_between_its_members(seed, clip):
    """T3.5, D: also with outliers, and whatever the clip: it touches the weights, never a member."""
    rng = np.random.default_rng(seed)
    losses = rng.lognormal(0, 1.5, (40, 6))
    losses[rng.integers(0, 40, 6), np.arange(6)] *= 1e6
    mixed, state = play(aria.EmaBank(clip=clip), losses)
    members = np.array([play(aria.Ema(rate=1 - 0.5 ** (1 / h)), losses)[0] for h in HALF_LIVES])
    assert (mixed >= members.min(axis=0) * (1 - 1e-12)).all()
    assert (mixed <= members.max(axis=0) * (1 + 1e-12)).all()
    assert (evidence(state) <= clip / 0.01 * (1 + 1e-9)).all()  # at most the clip a visit, discounted
    alone, _ = play(aria.EmaBank(half_lives=(9.0,), clip=clip), losses)
    np.testing.assert_allclose(alone, play(aria.Ema(rate=1 - 0.5 ** (1 / 9)), losses)[0], rtol=1e-11)


def test_one_outlier_cannot_decide_which_memory_is_trusted():
    """Clipped evidence: one visit changes the odds of any two members by at most exp(clip / 2)."""
    losses = np.concatenate([np.full((200, 1), 1.0) + 0.1 * np.sin(np.arange(200))[:, None], [[1e9]]])
    for clip in (0.5, 4.0):
        bank = aria.EmaBank(clip=clip)
        _, before = play(bank, losses[:-1])
        _, after = play(bank, losses)
        moved = evidence(after) - (1 - bank.discount) * evidence(before)
        assert moved.max() == pytest.approx(clip)
        assert moved.min() >= 0


def test_bank_finds_the_right_memory():
    """Steady losses want a long memory, a fast ramp a short one: the bank's age follows."""
    rng = np.random.default_rng(1)
    steady = 1 + 0.3 * rng.normal(size=1500)
    ramp = np.exp(-np.arange(1500) / 30) * (1 + 0.01 * rng.normal(size=1500)) + 1e-9
    _, state = play(aria.EmaBank(), np.stack([steady, ramp], axis=1))
    age = aria.EmaBank().estimate(state).age
    assert age[0] > 20 * age[1]


# -- T3.6: timesteps ---------------------------------------------------------------------------------------


@given(data=st.data(), bins=st.integers(1, 6))
def test_ratio_bias_is_a_covariance(data, bins):
    """T3.6, E, in fractions: D - R mean(mu) = Cov(mu, m / mu)."""
    numbers = st.lists(st.integers(1, 50), min_size=bins, max_size=bins)
    raw, m, mu = data.draw(numbers), data.draw(numbers), data.draw(numbers)
    pi = [Fraction(value, sum(raw)) for value in raw]

    def mean(values):
        return sum(p * v for p, v in zip(pi, values, strict=True))

    ratio = [Fraction(a, b) for a, b in zip(m, mu, strict=True)]
    covariance = mean([(a - mean(mu)) * (b - mean(ratio)) for a, b in zip(mu, ratio, strict=True)])
    assert mean(m) - mean(ratio) * mean(mu) == covariance
    bias = bounds.timestep_ratio_bias(shares=[float(p) for p in pi], mean=m, profile=mu)
    assert bias == pytest.approx(float(covariance), rel=1e-9, abs=1e-11)
    separable = bounds.timestep_ratio_bias(shares=[float(p) for p in pi], mean=[3 * v for v in mu], profile=mu)
    assert separable == pytest.approx(0, abs=1e-11)


@given(seed=SEEDS, n_bins=st.integers(1, 8))
def test_ratio_credits_r_times_mean_profile(seed, n_bins):
    """T3.6, E: mean(loss) - mean(loss / profile) * mean(profile), over all ranges, is `timestep_ratio_bias`."""
    rng = np.random.default_rng(seed)
    profile = aria.TimestepProfile(n_bins, rate=0.1)
    state = profile.init()
    for _ in range(6):
        bins = rng.integers(0, n_bins, 20)
        state = profile.update(
            state, bins, np.exp(-5 * bins / n_bins) * rng.lognormal(0, 0.5, 20), rng.exponential(size=20)
        )
    m, mu = rng.exponential(size=n_bins), profile.expected(state)
    bias = m.mean() - (m / mu).mean() * mu.mean()
    shares = np.full(n_bins, 1 / n_bins)
    assert bounds.timestep_ratio_bias(shares=shares, mean=m, profile=mu) == pytest.approx(bias, rel=1e-9, abs=1e-12)


def test_ratio_takes_out_what_timesteps_explain():
    """T3.6: with m = c mu exactly, the ratio is the constant c, over a 370-fold range."""
    profile = aria.TimestepProfile(12, rate=1.0)
    bins = np.repeat(np.arange(12), 5)
    mu = 370.0 ** -(bins / 12)
    state = profile.update(profile.init(), bins, mu, np.ones(60))
    np.testing.assert_allclose(2.5 * mu / profile.expected(state)[bins], 2.5, rtol=1e-12)


def test_weights_make_the_profile_that_of_the_target():
    """T3.6: rows drawn by p and weighted by q/p: the profile of a range is the weighted mean of its losses."""
    profile = aria.TimestepProfile(2, rate=0.5)
    bins, losses, weights = [0, 0, 1], [1.0, 4.0, 2.0], [0.5, 0.25, 3.0]
    state = profile.update(profile.init(), np.array(bins), np.array(losses), np.array(weights))
    np.testing.assert_allclose(profile.expected(state), [2.0, 2.0])  # (0.5 + 1) / 0.75
