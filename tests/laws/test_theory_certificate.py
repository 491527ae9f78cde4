"""`Allocator.certificate` in numbers: the theorem that fits, its radius worked out anew from the history. Exact.

The radii of the theorems are in test_theory_radius.py; here it is shown that each is asked with the right numbers.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from tests.helpers import loss_of

K = 4
POOL = aria.Partition.from_labels([0, 0, 0, 1, 1, 2, 3])
ADAPTIVE = [aria.Proportional(), aria.Proportional(4.0), aria.GroupDRO(), aria.Reducible()]
BASELINES = [aria.PoolPolicy(), aria.UniformPolicy()]
HISTORIES = {"rounds": st.integers(4, 25), "n": st.integers(1, 9), "rate": st.sampled_from([0.02, 0.3, 1.0])}
PER = st.sampled_from(["sample", "visit"])


def certified(ema, policy, rounds, n, **arguments):
    """The certificate after some rounds, and the counts of every round, [rounds, K]."""
    allocator = aria.Allocator(POOL, estimator=ema, policy=policy)
    counts = np.zeros((rounds, K), int)
    for t in range(rounds):
        draw = allocator.draw(n)
        allocator.observe(draw.regions, loss_of(draw))
        allocator.step()
        counts[t] = np.bincount(draw.regions, minlength=K)
    return allocator.certificate(**arguments), counts


def weights_of(ema, counts):
    """The weight of each round in the average of one region: gain times what later gains leave, normalised."""
    gains = np.where(counts > 0, ema.rate, 0.0) if ema.per == "visit" else 1 - (1 - ema.rate) ** counts
    weights = gains * np.append(np.cumprod((1 - gains)[:0:-1])[::-1], 1.0)
    return weights / weights.sum()


def check(certificate, counts, ema, drift, noise_of):
    """Bias is drift times mean age; noise what `noise_of(counts, weights)` says; nothing is known without visits."""
    for k in range(K):
        if not counts[:, k].any():
            assert np.isinf([certificate.bias[k], certificate.noise[k], certificate.radius[k]]).all()
            continue
        weights = weights_of(ema, counts[:, k])
        age = np.arange(len(counts))[::-1]
        np.testing.assert_allclose(certificate.bias[k], drift * (weights * age).sum(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(certificate.noise[k], noise_of(counts[:, k], weights), rtol=1e-9)
        np.testing.assert_allclose(certificate.radius[k], certificate.bias[k] + certificate.noise[k], rtol=1e-14)


@pytest.mark.parametrize("policy", BASELINES, ids=repr)
@settings(max_examples=15)
@given(per=PER, **HISTORIES)
def test_baselines_have_a_schedule_fixed_beforehand(policy, per, rounds, n, rate):
    """T2.1 with V = s² sum(w² / n), at any time: round t has the share 6 / (pi t)² of alpha, which sum to 1."""
    ema = aria.Ema(rate=rate, per=per)
    certificate, counts = certified(ema, policy, rounds, n, drift=0.01, sigma=2.0, alpha=0.03)
    assert certificate.theorem == "radius_fixed"

    def noise(own, weights):
        variance = 4 * (weights[own > 0] ** 2 / own[own > 0]).sum()
        return np.sqrt(2 * variance * np.log(2 * K / (0.03 * 6 / (np.pi * rounds) ** 2)))

    check(certificate, counts, ema, 0.01, noise)


def test_the_shares_of_all_rounds_are_alpha():
    """T2.1, E: what the radii of the first 400 rounds admit as chances of failing sums to alpha, less the rest."""
    allocator = aria.Allocator(POOL, estimator=aria.Ema(rate=0.1), policy=aria.UniformPolicy())
    spent = 0.0
    for _ in range(400):
        draw = allocator.draw(8)  # two a region, in every round
        allocator.observe(draw.regions, np.ones(8))
        allocator.step()
        certificate, count = allocator.certificate(drift=0.0, sigma=1.0, alpha=0.05), allocator.estimate().count
        spent += 2 * np.exp(-(certificate.noise**2) * count / 2).sum()
    assert spent == pytest.approx(0.05 * (1 - 6 / np.pi**2 / 400), rel=1e-4)


@pytest.mark.parametrize("policy", ADAPTIVE, ids=repr)
@settings(max_examples=10)
@given(**HISTORIES)
def test_per_visit_averages_use_the_index_of_the_visit(policy, rounds, n, rate):
    """T2.2: V of as many single losses as there were visits, and a union over their number."""
    ema = aria.Ema(rate=rate, per="visit")
    certificate, counts = certified(ema, policy, rounds, n, drift=0.0, sigma=1.5, alpha=0.02)
    assert certificate.theorem == "radius_per_visit"
    assert not certificate.bias[np.isfinite(certificate.bias)].any()

    def noise(own, weights):
        variance, j = 1.5**2 * (weights**2).sum(), (own > 0).sum()
        return np.sqrt(2 * variance * np.log(np.pi**2 * K * j**2 / (3 * 0.02)))

    check(certificate, counts, ema, 0.0, noise)


@pytest.mark.parametrize("policy", ADAPTIVE, ids=repr)
@settings(max_examples=10)
@given(**HISTORIES)
def test_per_sample_averages_pay_for_adaptive_counts(policy, rounds, n, rate):
    """T2.3, with the visits and the losses so far."""
    ema = aria.Ema(rate=rate)
    certificate, counts = certified(ema, policy, rounds, n, drift=0.2, sigma=1.5, alpha=0.02)
    assert certificate.theorem == "radius_adaptive"

    def noise(own, weights):
        memory = np.inf if rate == 1 else -2 * np.log(1 - rate)
        budget = (np.sqrt(2) - 1) * min((own > 0).sum(), memory * own.sum())
        potential = np.log((1 + budget) * K / 0.02)
        return 3 * np.sqrt(rate / (2 - rate) * potential) / (1 - (1 - rate) ** own.sum())

    check(certificate, counts, ema, 0.2, noise)
