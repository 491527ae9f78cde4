"""Proportional, GroupDRO and Reducible against their closed forms, at the edges, and their bad arguments."""

import numpy as np
import pytest

import aria_sampling as aria
from tests.feeding import scores_after
from tests.helpers import play

EDGES = {
    "one region": [2.0],
    "all equal": [3.0, 3.0, 3.0],
    "all zero": [0.0, 0.0, 0.0],
    "one huge": [1.0, 1e149, 2.0],
    "one zero": [1.0, 0.0, 2.0],
    "tiny": [1e-300, 2e-300, 0.0],
}
POLICIES = [
    aria.Proportional(),
    aria.Proportional(0.0),
    aria.Proportional(4.0),
    aria.GroupDRO(),
    aria.GroupDRO(step_size=3.0, scale=0.5, reference=1.0),
    aria.Reducible(),
    aria.Reducible(reference=1.0),
    aria.Reducible(least=1.0),
]


def differences(log_scores):
    """Log scores relative to the largest: all that matters."""
    return log_scores - np.max(log_scores)


# -- edges, for all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_edges_give_shares(policy, edge):
    """Every edge gives scores without NaN or +inf, and probabilities within the exploration."""
    mean = np.array(EDGES[edge])
    log_scores = scores_after(policy, mean, mean, mean)
    assert log_scores.shape == mean.shape
    assert (log_scores < np.inf).all()
    pool = aria.Partition.from_labels(np.arange(len(mean)))
    allocator = aria.Allocator(pool, policy=policy, exploration=0.1)
    play(allocator, 4, n=6, loss=lambda draw: mean[draw.regions])
    p = allocator.probabilities
    assert p.sum() == pytest.approx(1)
    assert (p >= 0.1 / len(mean) * (1 - 1e-12)).all()


@pytest.mark.parametrize("policy", [*POLICIES, aria.PoolPolicy(), aria.UniformPolicy()], ids=repr)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_one_loss_infinite(policy, bad):
    """It is dropped before any policy sees it: the same shares, bit for bit, as without it."""
    one, other = (aria.Allocator(aria.Partition.from_labels([0, 0, 1, 2]), policy=policy) for _ in range(2))
    for _ in range(6):
        for allocator, extra in ((one, [bad]), (other, [])):
            allocator.draw(4)
            allocator.observe([0, 1, 2, *[1 for _ in extra]], [1.0, 2.0, 4.0, *extra])
            allocator.step()
        assert np.array_equal(one.probabilities, other.probabilities)
    assert one.metrics()["dropped_losses"] == 6


@pytest.mark.parametrize("edge", ["one region", "all equal", "all zero"])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_nothing_to_choose_gives_the_target(policy, edge):
    mean = np.array(EDGES[edge])
    allocator = aria.Allocator(aria.Partition.from_labels([0] * 5 + list(range(len(mean)))), policy=policy)
    play(allocator, 5, n=6, loss=lambda draw: mean[draw.regions])
    np.testing.assert_allclose(allocator.probabilities, allocator.target, rtol=1e-11)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_region_never_visited_counts_as_average(policy):
    """Its borrowed mean is finite, so no policy sees NaN: here the target keeps region 3 from being drawn."""
    pool = aria.Partition.from_labels([0, 1, 2, 3])
    allocator = aria.Allocator(pool, policy=policy, target=[1.0, 1.0, 1.0, 0.0], estimator=aria.Ema())
    play(allocator, 10, n=6)
    assert allocator.estimate().cold.tolist() == [False, False, False, True]
    assert allocator.probabilities[3] == 0
    assert np.isfinite(allocator.probabilities).all()


# -- Proportional ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.5, 1.0, 4.0])
def test_proportional_closed_form(exponent):
    """The score is D ** exponent, and only the last estimate matters."""
    mean = np.array([0.5, 2.0, 1.25, 0.0])
    scores = np.exp(scores_after(aria.Proportional(exponent), [9, 0, 0, 1], mean))
    np.testing.assert_allclose(scores, mean**exponent, rtol=1e-13)


def test_proportional_to_the_power_of_zero_ignores_the_discrepancy():
    assert scores_after(aria.Proportional(0.0), [0.0, 1.0, 1e149]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("policy", [aria.Proportional(), aria.PoolPolicy(), aria.UniformPolicy()], ids=repr)
def test_local_policies_remember_nothing(policy):
    state = policy.init(5)
    assert policy.local
    assert state.rows == state.shared == {}


# -- GroupDRO ----------------------------------------------------------------------------------------------


def test_group_dro_closed_form():
    """The log score is step / scale times the sum of excesses."""
    history = np.array([[1.0, 0.0, 4.0], [2.0, 5.0, 0.5], [0.0, 1.0, 1.0]])
    policy = aria.GroupDRO(step_size=0.3, scale=2.0)
    np.testing.assert_allclose(
        differences(scores_after(policy, *history)), differences(0.15 * history.sum(axis=0)), atol=1e-14
    )
    policy = aria.GroupDRO(step_size=0.3, scale=2.0, reference=(1.0, 0.5, 0.0))
    excess = np.maximum(history - [1.0, 0.5, 0.0], 0).sum(axis=0)
    np.testing.assert_allclose(differences(scores_after(policy, *history)), differences(0.15 * excess), atol=1e-14)


def test_group_dro_without_scale_does_not_depend_on_the_unit():
    history = np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 0.0]])
    expected = differences(0.01 * (history / history.mean(axis=1, keepdims=True)).sum(axis=0))
    for unit in (1.0, 1e-6, 1e9):
        scores = scores_after(aria.GroupDRO(), *(unit * history))
        np.testing.assert_allclose(differences(scores), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1e-300])
def test_group_dro_stays_finite_for_ever(scale):
    log_scores = scores_after(aria.GroupDRO(step_size=1e3, scale=scale), *[[0.0, 1e149, 3.0]] * 20)
    assert log_scores[1] == 0
    assert np.isfinite(log_scores).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step_size", 0), ("step_size", -1.0), ("step_size", np.nan), ("scale", 0), ("scale", -2.0),
        ("scale", np.inf), ("reference", -1.0), ("reference", (1.0, -1.0)), ("reference", (np.nan,)),
        ("reference", "0"), ("reference", None),
    ],
)  # fmt: skip
def test_group_dro_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        aria.GroupDRO(**{name: value})


@pytest.mark.parametrize("policy", [aria.GroupDRO(reference=(1.0, 2.0)), aria.Reducible(reference=(1.0, 2.0))])
def test_references_of_another_length(policy):
    with pytest.raises(ValueError, match="expected 3 numbers, one a region, got 2"):
        policy.init(3)
    with pytest.raises(ValueError, match="reference"):
        aria.Allocator(aria.Partition.from_labels([0, 1, 2]), policy=policy)


# -- Reducible ---------------------------------------------------------------------------------------------


def test_reducible_with_a_reference():
    mean = np.array([1.0, 5.0, 0.5])
    np.testing.assert_allclose(
        np.exp(scores_after(aria.Reducible(reference=(0.25, 4.5, 2.0), least=0.1), mean)), [0.75, 0.5, 0.05], rtol=1e-13
    )  # the third is below its reference: `least` of D is left
    np.testing.assert_allclose(np.exp(scores_after(aria.Reducible(reference=0.5, least=0.0), mean)), [0.5, 4.5, 0.0])


def test_reducible_halving_difference_by_hand():
    """D(t/2) - D(t), with D(t/2) on the line between what was kept at powers of two."""
    rng = np.random.default_rng(0)
    history = 10 - np.cumsum(rng.random((40, 3)) / 8, axis=0)
    for t in range(1, 41):
        now = history[t - 1]
        if t == 1:
            part = now
        else:
            half = t / 2
            low = 2 ** int(np.floor(np.log2(half)))
            high = 2 * low
            along = np.log2(half / low)  # between them on the logarithmic clock
            kept = (1 - along) * history[low - 1] + along * history[high - 1]
            part = kept - now
        expected = np.maximum(part, 0.05 * now)
        np.testing.assert_allclose(np.exp(scores_after(aria.Reducible(), *history[:t])), expected, rtol=1e-12)


def test_reducible_never_takes_more_than_noise_may():
    """A region that got worse keeps `least` of its D; 1 is `Proportional`."""
    history = [[1.0, 1.0], [1.0, 1.5], [0.5, 2.0]]
    assert np.exp(scores_after(aria.Reducible(least=0.2), *history))[1] == pytest.approx(0.4)
    np.testing.assert_allclose(
        scores_after(aria.Reducible(least=1.0), *history), scores_after(aria.Proportional(), history[-1]), atol=1e-14
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("least", -0.1), ("least", 1.1), ("least", np.nan), ("reference", -1.0), ("reference", (0.0, np.inf))],
)
def test_reducible_bad_arguments(name, value):
    with pytest.raises(ValueError, match=name):
        aria.Reducible(**{name: value})


# -- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [-1.0, np.nan, np.inf, "1", True])
def test_proportional_bad_exponent(exponent):
    with pytest.raises(ValueError, match="exponent"):
        aria.Proportional(exponent)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("n_regions", [0, -1, 1.5, "3"])
def test_policies_refuse_a_bad_number_of_regions(policy, n_regions):
    with pytest.raises(ValueError, match="n_regions"):
        policy.init(n_regions)


@pytest.mark.parametrize("one", [1, np.float64(1.0), np.float32(1.0), np.int8(1)])
def test_equal_settings_are_equal(one):
    """Whatever kind of number they come in: a saved state is compared by the representation."""
    assert repr(aria.Proportional(one)) == repr(aria.Proportional(1.0))
    assert repr(aria.GroupDRO(one, scale=one, reference=(one,))) == repr(
        aria.GroupDRO(1.0, scale=1.0, reference=(1.0,))
    )
    assert repr(aria.Reducible(one, least=one)) == repr(aria.Reducible(1.0, least=1.0))
