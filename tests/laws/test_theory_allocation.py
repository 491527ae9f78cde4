"""What shares are worth: T4.1 to T4.6 of the theory page. Deterministic inequalities, equality cases, enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import bounds
from aria_sampling.shares import shares
from tests.feeding import scores_after

SEEDS = st.integers(0, 2**32)


def estimate(mean):
    mean = np.asarray(mean, dtype=np.float64)
    ones = np.ones(len(mean))
    return aria.Estimate(mean, ones, ones, ones)


# -- T4.1 --------------------------------------------------------------------------------------------------


@given(seed=SEEDS, exploration=st.sampled_from([0.05, 0.3, 1.0]))
def test_effective_sample_size(seed, exploration):
    """1 / E w², w = q/p, in [exploration, 1]; (sum w)² / sum w² of a draw of exactly those proportions."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.ones(6))
    p = shares(q, rng.normal(0, 3, 6), exploration=exploration)
    ess = bounds.ess_fraction(p, q)
    weights = np.repeat(q / p, np.round(p * 10**6).astype(int))
    assert ess == pytest.approx(weights.sum() ** 2 / (weights**2).sum() / len(weights), rel=1e-3)
    assert exploration * (1 - 1e-12) <= ess <= 1 + 1e-12


@pytest.mark.parametrize("exploration", [0.05, 0.3, 1.0])
def test_weight_bound_is_reached(exploration):
    """T4.1, T5.4: by a region that the policy gives nothing; with half of the rows forced elsewhere, by twice that."""
    q, nothing = np.array([0.5, 0.5]), np.array([0.0, -np.inf])
    p = shares(q, nothing, exploration=exploration)
    assert (q / p).max() == pytest.approx(bounds.weight_bound(exploration=exploration), rel=1e-12)
    forced = (4 * p + 4 * np.array([1, 0])) / 8  # n = 8, m = 4
    assert (q / forced).max() == pytest.approx(bounds.weight_bound(exploration=exploration, forced=True), rel=1e-12)
    assert bounds.ess_fraction(forced, q) >= 1 / bounds.weight_bound(exploration=exploration, forced=True)


def test_effective_sample_size_is_sharp():
    q = np.array([1 - 1e-7, 1e-7])
    assert bounds.ess_fraction(shares(q, np.array([-np.inf, 0.0]), exploration=0.1), q) == pytest.approx(0.1, rel=1e-5)
    assert bounds.ess_fraction([0.25, 0.75, 0.0], [0.5, 0.5, 0.0]) == pytest.approx(0.75)


# -- T4.2 --------------------------------------------------------------------------------------------------


def test_shares_move_by_at_most_tanh():
    """T4.2, D: 5 000 cases; powers of a misjudged D, with omega from the errors; and the bound of the docs."""
    rng = np.random.default_rng(0)
    largest = 0.0
    for case in range(5_000):
        k = 2 + case % 7
        q = rng.dirichlet(np.full(k, rng.choice([0.2, 1, 5])))
        log_d, log_error = rng.normal(0, 2, k), rng.normal(0, 10 ** rng.uniform(-3, 0.7), k)
        if case % 2:
            log_error = np.where(rng.random(k) < 0.5, log_error[0], -log_error[0])  # two-valued: the worst kind
        exploration = rng.uniform(0.01, 1)
        moved = np.abs(
            shares(q, log_d + log_error, exploration=exploration) - shares(q, log_d, exploration=exploration)
        ).sum()
        omega = bounds.oscillation(log_error)
        bound = float(bounds.allocation_change(omega=omega, exploration=exploration))
        assert moved <= bound * (1 + 1e-9) + 1e-14
        assert bound <= (1 - exploration) * np.abs(log_error).max() * 1.000001  # exponent times the largest log error
        largest = max(largest, moved / bound if bound > 1e-9 else 0.0)
    assert largest > 0.99


@pytest.mark.parametrize("omega", [1e-3, 0.5, 3.0])
@pytest.mark.parametrize("exploration", [0.0, 0.2, 0.9])
def test_shares_can_move_that_far(omega, exploration):
    """T4.2: two groups, one with share 1 / (1 + e^omega), raised by a factor e^(2 omega)."""
    low = 1 / (1 + np.exp(omega))
    q, error = np.array([low, 1 - low]), np.array([2 * omega, 0.0])
    assert bounds.oscillation(error) == pytest.approx(omega, rel=1e-12)
    moved = np.abs(shares(q, error, exploration=exploration) - shares(q, np.zeros(2), exploration=exploration)).sum()
    assert moved == pytest.approx(float(bounds.allocation_change(omega=omega, exploration=exploration)), rel=1e-9)


@given(seed=SEEDS, strength=st.sampled_from([0.1, 0.5, 1.0, 3.0]), exploration=st.sampled_from([0.05, 0.4]))
def test_policies_move_by_the_errors_of_their_estimates(seed, strength, exploration):
    """T4.2, D: omega is at most exponent · max |log error| for `Proportional`, and for `GroupDRO` step_size / scale
    times the sum of max |error| over rounds; two regions misjudged by as much, up and down, reach that."""
    rng = np.random.default_rng(seed)
    k, rounds = int(rng.integers(2, 7)), int(rng.integers(1, 5))
    q, truth = rng.dirichlet(np.ones(k)), rng.lognormal(1, 1, (rounds, k))
    believed = truth * np.exp(rng.uniform(-1, 1, (rounds, k)))
    power, steps = aria.Proportional(strength), aria.GroupDRO(step_size=strength, scale=2.0)
    for policy, limit in (
        (power, strength * np.abs(np.log(believed / truth)[-1]).max()),
        (steps, strength / 2 * np.abs(believed - truth).max(axis=1).sum()),
    ):
        one, other = scores_after(policy, *believed), scores_after(policy, *truth)
        assert bounds.oscillation(one - other) <= limit * (1 + 1e-9)
        moved = np.abs(shares(q, one, exploration=exploration) - shares(q, other, exploration=exploration)).sum()
        assert moved <= bounds.allocation_change(omega=limit, exploration=exploration) * (1 + 1e-9)
    two, up_down = truth[:, :2], np.array([0.5, -0.5])
    least = two.min(axis=1, keepdims=True)
    for policy, worst, limit in (
        (power, two * np.exp(up_down), strength / 2),
        (steps, two + up_down * least, strength / 4 * least.sum()),
    ):
        reached = bounds.oscillation(scores_after(policy, *worst) - scores_after(policy, *two))
        assert reached == pytest.approx(limit, rel=1e-6)


# -- T4.3 --------------------------------------------------------------------------------------------------


@given(seed=SEEDS, exploration=st.sampled_from([0.0, 0.1, 0.5]))
def test_variance_with_a_wrong_norm(seed, exploration):
    """T4.3, D: sum(q² G² / p), p by h in place of G, over its minimum (sum q G)²."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 9))
    q, norm = rng.dirichlet(np.ones(k)), rng.lognormal(0, 2, k)
    log_error = rng.normal(0, rng.exponential(), k)
    p = shares(q, np.log(norm) + log_error, exploration=exploration)
    excess = (q**2 * norm**2 / p).sum() / (q * norm).sum() ** 2
    penalty = bounds.neyman_penalty(omega=bounds.oscillation(log_error), exploration=exploration)
    assert 1 - 1e-12 <= excess <= penalty * (1 + 1e-12)


@pytest.mark.parametrize("omega", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_variance_can_be_that_large(omega, exploration):
    """T4.3: errors of e^±omega on equal halves of q G; exploration wasted on a region without gradient."""
    q = np.array([5e-10, 5e-10, 1 - 1e-9])
    norm, error = np.array([1, 1, 0.0]), np.array([omega, -omega, 0])
    with np.errstate(divide="ignore"):
        p = shares(q, np.log(norm) + error, exploration=exploration)
    excess = ((q * norm)[:2] ** 2 / p[:2]).sum() / (q * norm).sum() ** 2
    assert excess == pytest.approx(bounds.neyman_penalty(omega=omega, exploration=exploration), rel=1e-6)


# -- T4.5 --------------------------------------------------------------------------------------------------


def splits(budget, k):
    """All ways to hand `budget` units to k regions."""
    return (counts for counts in itertools.product(range(budget + 1), repeat=k) if sum(counts) == budget)


@pytest.mark.parametrize("seed", range(30))
def test_greedy_is_optimal(seed):
    """T4.5, E: equals brute force over all splits, K = 3, budgets up to 10, power and exponential curves."""
    rng = np.random.default_rng(seed)
    q, a, c = rng.dirichlet(np.ones(3)), rng.lognormal(0, 1, 3), rng.lognormal(0, 1, 3)

    def curve(k, n):
        return q[k] * a[k] * ((1 + n / c[k]) ** -0.7 if seed % 2 else np.exp(-c[k] * n / 4))

    budget = seed % 11
    given_out = bounds.greedy_allocation(curve, n_regions=3, budget=budget)
    assert given_out.sum() == budget
    best = min(sum(curve(k, n) for k, n in enumerate(counts)) for counts in splits(budget, 3))
    assert sum(curve(k, int(n)) for k, n in enumerate(given_out)) == pytest.approx(best, rel=1e-12)


def test_greedy_on_power_laws_is_proportional_to_what_is_left():
    """T4.5: N + c ∝ q E at the optimum, to the granularity of a unit."""
    q, a, c, power = np.array([0.2, 0.5, 0.3]), np.array([3.0, 1.0, 8.0]), np.array([5.0, 20.0, 2.0]), 0.5

    def left(k, n):
        return a[k] * (1 + n / c[k]) ** -power

    n = bounds.greedy_allocation(lambda k, m: q[k] * left(k, m), n_regions=3, budget=30_000)
    ratio = (n + c) / (q * [left(k, int(m)) for k, m in enumerate(n)])
    assert ratio.max() / ratio.min() == pytest.approx(1, abs=1e-3)


@given(seed=SEEDS)
def test_reweighting_pays_by_a_covariance(seed):
    """T4.5, E: sum (p - q) m = Cov_q(score, m) / mean score, m the marginal gain: it pays iff they go together."""
    rng = np.random.default_rng(seed)
    q, score, m = rng.dirichlet(np.ones(5)), rng.lognormal(0, 1, 5), rng.lognormal(0, 1, 5)
    p = shares(q, np.log(score), exploration=0.0)
    covariance = (q * score * m).sum() - (q * score).sum() * (q * m).sum()
    assert ((p - q) * m).sum() == pytest.approx(covariance / (q * score).sum(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("exponent", [0.3, 0.5, 1.0])
def test_halving_difference_cancels_the_irreducible_part(exponent):
    """T4.5, E: D = f + A t^-a at every power of two: score ∝ A t^-a, whatever f (else D(t/2) is interpolated)."""
    a, stays = np.array([1.0, 2.0, 5.0, 0.5]), np.array([0.0, 3.0, 1.0, 0.2])
    policy, plain = aria.Reducible(least=0.0), aria.Reducible(reference=tuple(stays), least=0.0)
    state, known = policy.init(4), plain.init(4)
    for t in range(1, 129):
        now = estimate(stays + a * float(t) ** -exponent)
        state, known = policy.update(state, now), plain.update(known, now)
        score = np.exp(policy.log_score(state))
        np.testing.assert_allclose(np.exp(plain.log_score(known)), a * float(t) ** -exponent, rtol=1e-9)
        if t == 1:
            np.testing.assert_allclose(score, stays + a)  # nothing to compare with yet
        else:
            np.testing.assert_allclose(score / score[0], a, rtol=1e-9)  # A alone: what is irreducible is gone
        if t > 1 and t & (t - 1) == 0:
            np.testing.assert_allclose(score, (2**exponent - 1) * a * float(t) ** -exponent, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_shares_by_what_is_left_are_optimal_in_the_long_run(seed):
    """T4.5: without irreducible parts p ∝ q D reaches the greedy optimum; with them p ∝ q (D - f) does, the halving
    difference nearly does, and p ∝ q D costs three times as much and more, where p = q costs 15% at most."""
    rng = np.random.default_rng(seed)
    k, rounds, c = 12, 4000, 2.0
    q, a = rng.dirichlet(np.full(k, 5.0)), rng.lognormal(0, 0.4, k)
    stays = rng.permutation(np.geomspace(0.01, 3, k))

    def run(policy, f):
        n, state = np.zeros(k), policy.init(k)
        for _ in range(rounds):
            now = estimate(f + a / (1 + n / c))
            if not policy.local:
                state = policy.update(state, now)
            score = policy.log_score(now, state.shared) if policy.local else policy.log_score(state)
            n += shares(q, score, exploration=1e-9)
        return (q * a / (1 + n / c)).sum()

    n = bounds.greedy_allocation(lambda k, m: q[k] * a[k] / (1 + m / c), n_regions=k, budget=rounds)
    best = (q * a / (1 + n / c)).sum()
    assert run(aria.Proportional(), 0 * a) == pytest.approx(best, rel=0.02)
    assert run(aria.Reducible(reference=tuple(stays), least=0.0), stays) == pytest.approx(best, rel=0.02)
    assert run(aria.Reducible(least=0.0), stays) == pytest.approx(best, rel=0.15)
    assert run(aria.Proportional(), stays) > 3 * best
    assert run(aria.Proportional(0.0), stays) < 1.15 * best


# -- T4.6 --------------------------------------------------------------------------------------------------


def losses_against(kind, rng, t, p, k, bound):
    if kind == "coins":
        return bound * (rng.random(k) < 0.5)
    if kind == "one bad":
        return bound * (np.arange(k) == k - 1)
    if kind == "chase":  # the adversary: a loss where the policy looks least
        return bound * (np.arange(k) == np.argmin(p))
    return bound * ((np.arange(k) + t // 7) % 2)


@pytest.mark.parametrize("kind", ["coins", "one bad", "chase", "waves"])
@pytest.mark.parametrize("error", [0.0, 0.05])
def test_minimax_regret(kind, error):
    """T4.6, D: any losses in [0, L], estimates off by at most `error`; with exploration, exploration·L·T more."""
    rng = np.random.default_rng(5)
    k, rounds, bound, exploration = 12, 300, 3.0, 0.1
    policy = aria.GroupDRO(step_size=float(np.sqrt(8 * np.log(k) / rounds)), scale=bound)
    state, q = policy.init(k), np.full(k, 1 / k)
    earned, earned_exploring, total, errors = 0.0, 0.0, np.zeros(k), []
    for t in range(rounds):
        score = policy.log_score(state)
        p = shares(q, score, exploration=0.0)
        truth = losses_against(kind, rng, t, p, k, bound)
        believed = np.clip(truth + error * rng.choice([-1, 1], k), 0, bound)
        errors.append(np.abs(believed - truth).max())
        earned += p @ truth
        earned_exploring += shares(q, score, exploration=exploration) @ truth
        total += truth
        state = policy.update(state, estimate(believed))
    regret = bounds.minimax_regret(n_regions=k, rounds=rounds, loss_bound=bound, estimation_error=errors)
    assert total.max() - earned <= regret
    assert total.max() - earned_exploring <= regret + exploration * bound * rounds


@given(k=st.integers(2, 200), rounds=st.integers(1, 10**4), bound=st.floats(0.1, 9), seed=SEEDS)
def test_minimax_regret_is_that_of_the_best_step(k, rounds, bound, seed):
    """T4.6: log(K) / eta + eta T L² / 8 (Hoeffding's lemma) at the eta of the statement, which is its minimum."""
    eta = np.sqrt(8 * np.log(k) / rounds) / bound
    regret = bounds.minimax_regret(n_regions=k, rounds=rounds, loss_bound=bound)
    assert regret == pytest.approx(np.log(k) / eta + eta * rounds * bound**2 / 8, rel=1e-9)
    for other in eta * np.array([0.5, 0.9, 1.1, 2]):
        assert np.log(k) / other + other * rounds * bound**2 / 8 > regret
    errors = np.random.default_rng(seed).exponential(size=5)
    with_error = bounds.minimax_regret(n_regions=k, rounds=rounds, loss_bound=bound, estimation_error=errors)
    assert with_error - regret == pytest.approx(2 * errors.sum(), rel=1e-6)
    # each error enters twice: p·D and max D are both judged by the estimates
