"""The fast allocator equals the slow and obvious one of `tests/reference.py`, over random histories."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from tests.helpers import random_labels
from tests.reference import ReferenceAllocator, ReferenceBank, ReferenceEma

ESTIMATORS = {
    "sample": (aria.Ema(rate=0.07), ReferenceEma(0.07)),
    "visit": (aria.Ema(rate=0.3, per="visit"), ReferenceEma(0.3, "visit")),
    "rate 1": (aria.Ema(rate=1.0), ReferenceEma(1.0)),
    "bank": (aria.EmaBank(), ReferenceBank()),
    "short bank": (aria.EmaBank((1.5, 20.0), 0.2, 4.0), ReferenceBank((1.5, 20.0), 0.2, 4.0)),
}
TARGETS = ["pool", "uniform", 0.5, "own"]


def close(fast, slow):
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-300)


def compare(fast, slow, rounds, rng, *, online, data_rows, poison):
    """Play the same random history through both, with rounds opened and closed as the lag allows."""
    k = fast.partition.n_regions
    for _ in range(rounds):
        for _ in range(int(rng.integers(1, fast.lag + 2))):  # open some rounds ahead
            if len(fast.open_rounds) > fast.lag:
                break
            n = int(rng.choice([0, 1, 2, 5, 9]))
            present = rng.integers(0, k, int(rng.integers(0, 6))).tolist() if online else None
            came = int(rng.integers(0, 20)) if data_rows else None
            a = fast.draw(n, data_rows=came, present=present)
            b = slow.draw(n, came, present)
            assert a.regions.tolist() == b.regions
            assert a.items.tolist() == b.items
            assert a.forced == len(b.forced)
            close(a.probabilities, b.probabilities)
            close(a.weights, [slow.q[region] / p for region, p in zip(b.regions, b.probabilities, strict=True)])
        draw = fast.open_rounds[0]
        rows = rng.random(len(draw.regions)) < 0.8
        regions = draw.regions[rows]
        losses = rng.lognormal(0, 0.7, len(regions)) * (1 + regions)
        if poison and len(losses):
            losses[0] = rng.choice([0.0, -3.0, np.nan, np.inf, 1e151, 1e6])
        fast.observe(regions, losses)
        slow.observe(regions.tolist(), losses.tolist())
        fast.step()
        slow.step()
        a, b = fast.estimate(), slow.estimate()
        for name in ("mean", "stderr", "count"):
            close(getattr(a, name), getattr(b, name))
        np.testing.assert_allclose(a.age, b.age, rtol=1e-9, atol=1e-11)  # the fast one subtracts numbers of rounds
        if not fast.open_rounds and sum(r.n for r in slow.rounds):
            close(fast.probabilities, slow.probabilities(len(slow.rounds)))


def coverage_of(kind, pool, rng):
    """A coverage, and what the slow allocator is told of it."""
    counts = rng.integers(0, 4, pool.n_regions).astype(float)
    counts[int(rng.integers(pool.n_regions))] += 1
    if kind == "counts":
        coverage = aria.Coverage(pool, counts=counts, weight=3.0, power=0)
        return coverage, (counts.tolist(), coverage.uncovered.tolist(), 0.0, 3.0)
    if kind == "kernel":
        coverage = aria.Coverage(pool, counts=counts)
        return coverage, (counts.tolist(), coverage.uncovered.tolist(), 4.0, 10.0)
    if kind == "online":
        return aria.Coverage.online(pool, weight=2.0), (1.0, 2.0)
    if kind == "fading":
        return aria.Coverage.online(pool, half_life=3.0), (0.5 ** (1 / 3), 10.0)
    return None, None


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_fast_equals_reference(name, data, seed):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, data.draw(st.integers(1, 9)), 40)
    k = int(labels.max()) + 1
    pool = aria.Partition.from_labels(labels, centers=rng.normal(size=(k, 3)))
    kind = data.draw(st.sampled_from(["none", "counts", "kernel", "online", "fading"]))
    coverage, told = coverage_of(kind, pool, rng)
    target = data.draw(st.sampled_from(TARGETS))
    if target == "own":
        target = rng.dirichlet(np.ones(k))
        if k > 1:
            target[int(rng.integers(k))] = 0.0
    settings_ = {
        "exploration": data.draw(st.sampled_from([0.05, 0.2, 1.0])),
        "target": target,
        "seed": data.draw(st.sampled_from([0, 1, 2**64 - 1])),
        "lag": data.draw(st.integers(0, 3)),
    }
    if isinstance(target, (str, float)):
        settings_["max_repeat"] = data.draw(st.sampled_from([None, 1.0, 1.5, 4.0]))
    exponent = data.draw(st.sampled_from([0.0, 0.5, 1.0, 3.0]))
    fast_estimator, slow_estimator = ESTIMATORS[name]
    fast = aria.Allocator(
        pool, coverage=coverage, estimator=fast_estimator, policy=aria.Proportional(exponent), **settings_
    )
    settings_["target"] = target.tolist() if isinstance(target, np.ndarray) else target
    slow = ReferenceAllocator(labels.tolist(), estimator=slow_estimator, exponent=exponent, coverage=told, **settings_)
    online, data_rows = kind in ("online", "fading"), data.draw(st.booleans())
    compare(fast, slow, 14, rng, online=online, data_rows=data_rows, poison=data.draw(st.booleans()))


@pytest.mark.parametrize(("policy", "baseline"), [(aria.PoolPolicy(), "pool"), (aria.UniformPolicy(), "uniform")])
def test_baselines_equal_reference(policy, baseline):
    rng = np.random.default_rng(5)
    labels = random_labels(rng, 7, 50)
    fast = aria.Allocator(aria.Partition.from_labels(labels), estimator=aria.Ema(), policy=policy, lag=1)
    slow = ReferenceAllocator(labels.tolist(), estimator=ReferenceEma(), baseline=baseline, lag=1)
    compare(fast, slow, 30, rng, online=False, data_rows=True, poison=True)


def test_a_long_history_equals_reference():
    rng = np.random.default_rng(6)
    labels = random_labels(rng, 8, 70)
    pool = aria.Partition.from_labels(labels)
    coverage, told = coverage_of("counts", pool, rng)
    fast = aria.Allocator(pool, coverage=coverage, target="uniform", lag=2, seed=9)
    slow = ReferenceAllocator(
        labels.tolist(), estimator=ReferenceBank(), target="uniform", coverage=told, lag=2, seed=9
    )
    compare(fast, slow, 60, rng, online=False, data_rows=True, poison=True)
