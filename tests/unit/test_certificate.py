"""`Allocator.certificate` at its edges; its numbers are in laws/test_theory_certificate.py."""

import numpy as np
import pytest

import aria_sampling as aria
from tests.helpers import play

POOL = aria.Partition.from_labels([0, 0, 0, 1, 1, 2, 3])


def played(ema, policy, rounds=25, **settings):
    allocator = aria.Allocator(POOL, estimator=ema, policy=policy, **settings)
    play(allocator, rounds, n=3)
    return allocator


def test_a_region_never_visited_may_be_anywhere():
    for policy in (aria.PoolPolicy(), aria.Proportional()):
        allocator = aria.Allocator(POOL, estimator=aria.Ema(), policy=policy)
        nothing = allocator.certificate(drift=0.1, sigma=1.0)
        assert np.isinf(nothing.radius).all()
        draw = allocator.draw(1)
        allocator.observe(draw.regions, [1.0])
        allocator.step()
        certificate = allocator.certificate(drift=0.1, sigma=1.0)
        visited = np.arange(4) == draw.regions[0]
        for part in (certificate.radius, certificate.bias, certificate.noise):
            assert part.dtype == np.float64
            assert np.isfinite(part).tolist() == visited.tolist()
        assert certificate.bias[visited] == 0  # of this very round


def test_no_drift_means_no_bias_also_where_the_age_is_infinite():
    allocator = aria.Allocator(POOL, estimator=aria.Ema(), policy=aria.PoolPolicy())
    assert not np.isnan(allocator.certificate(drift=0.0, sigma=1.0).radius).any()


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.Proportional()], ids=repr)
@pytest.mark.parametrize("per", ["sample", "visit"])
def test_drift_and_sigma_of_each_region(policy, per):
    allocator = played(aria.Ema(rate=0.2, per=per), policy)
    drift, sigma = np.array([0.0, 0.1, 0.2, 3.0]), np.array([1.0, 0.0, 0.5, 4.0])
    own = allocator.certificate(drift=drift, sigma=sigma)
    for region in range(4):
        common = allocator.certificate(drift=drift[region], sigma=sigma[region])
        for name in ("radius", "bias", "noise"):
            assert getattr(own, name)[region] == getattr(common, name)[region]
    assert own.noise[1] == 0
    lists = allocator.certificate(drift=drift.tolist(), sigma=sigma.tolist())
    assert np.array_equal(lists.radius, own.radius)


def test_smaller_alpha_wider_radius():
    allocator = played(aria.Ema(), aria.Proportional())
    radii = [allocator.certificate(drift=0.1, sigma=1.0, alpha=alpha).radius for alpha in (0.2, 0.05, 1e-9)]
    assert (radii[0] < radii[1]).all()
    assert (radii[1] < radii[2]).all()
    assert np.array_equal(allocator.certificate(drift=0.1, sigma=1.0).radius, radii[1])  # the default alpha


@pytest.mark.parametrize("estimator", [None, aria.EmaBank(), aria.EmaBank(half_lives=(9.0,))])
def test_the_bank_is_refused(estimator):
    allocator = aria.Allocator(POOL, estimator=estimator)
    with pytest.raises(ValueError, match=r"Ema\b.*EmaBank.*estimator=aria\.Ema"):
        allocator.certificate(drift=0.1, sigma=1.0)


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.Proportional()], ids=repr)
@pytest.mark.parametrize("per", ["sample", "visit"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drift", -0.1), ("drift", np.nan), ("drift", np.inf), ("drift", [0.1, 0.1]), ("drift", [0.1, 0.1, 0.1, -1]),
        ("drift", [[0.1] * 4]), ("sigma", -1), ("sigma", np.nan), ("sigma", [1, 1, 1, np.inf]), ("sigma", [1.0] * 5),
        ("alpha", 0), ("alpha", 1), ("alpha", -0.5), ("alpha", 2), ("alpha", np.nan), ("alpha", True), ("alpha", "a"),
    ],
)  # fmt: skip
def test_bad_input(policy, per, name, value):
    """Also where nothing was visited yet; and nothing is changed."""
    allocator = aria.Allocator(POOL, estimator=aria.Ema(per=per), policy=policy)
    for _ in range(2):
        with pytest.raises(ValueError, match=name):
            allocator.certificate(**{"drift": 0.1, "sigma": 1.0, "alpha": 0.05, name: value})
        play(allocator, 1, n=3)


@pytest.mark.parametrize("per", ["sample", "visit"])
def test_rate_one_remembers_the_last_visit(per):
    allocator = played(aria.Ema(rate=1.0, per=per), aria.Proportional())
    certificate = allocator.certificate(drift=0.5, sigma=1.0)
    assert np.isfinite(certificate.radius).all()
    np.testing.assert_allclose(certificate.bias, 0.5 * allocator.estimate().age)


@pytest.mark.filterwarnings("error", "ignore::aria_sampling.AriaWarning")
@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.Proportional()], ids=repr)
@pytest.mark.parametrize("per", ["sample", "visit"])
@pytest.mark.parametrize("n_regions", [1, 3])
@pytest.mark.parametrize("losses", [[0.0], [2.0], [2.0, np.inf], [np.inf]])
def test_degenerate_losses(policy, per, n_regions, losses):
    """Radii depend on counts and ages alone: losses may be equal or 0, and an infinite one is none."""
    pool = aria.Partition.from_labels(np.arange(n_regions))
    allocator = aria.Allocator(pool, estimator=aria.Ema(0.1, per=per), policy=policy)
    for _ in range(6):
        allocator.draw(n_regions)
        for loss in losses:
            allocator.observe(np.arange(n_regions), np.full(n_regions, loss))
        allocator.step()
    certificate = allocator.certificate(drift=0.1, sigma=1.0)
    known = np.isfinite(losses).any()
    assert np.isfinite(certificate.radius).all() == known
    if known:
        assert (certificate.radius == certificate.radius[0]).all()
        assert (np.abs(allocator.estimate().mean - losses[0]) <= certificate.radius).all()
