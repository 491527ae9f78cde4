"""What data leave unknown of regions: T4.8 of the theory page, against the posterior of a Gaussian process by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import coverage as module


def pool_at(centers):
    return aria.Partition.from_labels(np.arange(len(centers)), centers=centers)


def uncovered(centers, counts, **settings):
    return aria.Coverage(pool_at(centers), counts=counts, **settings).uncovered


@st.composite
def worlds(draw, most=12):
    """Centres float32 [K, d] and whole counts [K], some 0."""
    n, d = draw(st.integers(1, most)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    return rng.normal(size=(n, d)).astype(np.float32), counts


def kernel(a, b, scale):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * scale**2))


def posterior(prior, counts, noise):
    """The variance left of each region, given the prior covariance of all, by a dense inverse."""
    held = np.flatnonzero(counts)
    inverse = np.linalg.inv(prior[np.ix_(held, held)] + np.diag(noise / counts[held]))
    return prior.diagonal() - np.einsum("hk,hi,ik->k", prior[held], inverse, prior[held])


# ---------------------------------------------------------------------------------------------------- the exact form


@given(worlds(), st.floats(0.1, 3), st.floats(0.1, 10))
def test_it_is_the_posterior_variance_by_a_dense_inverse(world, scale, noise):
    centers, counts = world
    found = uncovered(centers, counts, length_scale=scale, noise=noise)
    np.testing.assert_allclose(found, posterior(kernel(centers, centers, scale), counts, noise), atol=1e-6)


@given(worlds(), st.floats(0.1, 3), st.floats(0.1, 10))
def test_n_items_are_n_single_observations(world, scale, noise):
    centers, counts = world
    rows = np.repeat(centers, counts, axis=0)
    across = kernel(rows, centers, scale)
    by_hand = 1 - (across * np.linalg.solve(kernel(rows, rows, scale) + noise * np.eye(len(rows)), across)).sum(0)
    np.testing.assert_allclose(uncovered(centers, counts, length_scale=scale, noise=noise), by_hand, atol=1e-6)


@given(worlds(), st.integers(0, 11), st.sampled_from([1, 10]))
def test_more_data_covers_more_everywhere(world, where, more):
    centers, counts = world
    added = counts.copy()
    added[where % len(counts)] += more
    before, after = (uncovered(centers, n, length_scale=1.0) for n in (counts, added))
    assert (after <= before + 1e-9).all()
    assert after[where % len(counts)] < before[where % len(counts)]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.floats(0.1, 10))
def test_regions_far_apart_know_their_own_data_alone(counts, noise):
    counts = np.array(counts)
    found = uncovered(100.0 * np.eye(len(counts), 9), counts, length_scale=1.0, noise=noise)
    np.testing.assert_allclose(found, noise / (counts + noise), rtol=1e-9)


@given(worlds())
def test_nothing_is_less_covered_than_by_its_own_data(world):
    centers, counts = world
    found = uncovered(centers, counts)
    assert (found <= 1 / (counts + 1)).all()
    assert (found > 0).all()
    assert (found <= 1).all()


@given(worlds(), st.data())
def test_how_a_covered_region_is_split_does_not_matter(world, data):
    """Two regions at one centre know what one with the data of both would."""
    centers, counts = world
    where = data.draw(st.integers(0, len(counts) - 1))
    part = data.draw(st.integers(0, int(counts[where])))
    split = np.append(counts, part)
    split[where] -= part
    twice = np.concatenate([centers, centers[where : where + 1]])
    whole = uncovered(centers, counts, length_scale=1.0)
    found = uncovered(twice, split, length_scale=1.0)
    np.testing.assert_allclose(found, np.append(whole, whole[where]), atol=1e-6)


@given(worlds(), st.integers(0, 2**32))
def test_it_knows_no_origin_no_unit_and_no_order(world, seed):
    centers, counts = world
    order = np.random.default_rng(seed).permutation(len(counts))
    found = uncovered(centers, counts)
    np.testing.assert_allclose(uncovered((8 * centers + 4)[order], counts[order]), found[order], atol=1e-3)


def test_between_regions_with_data_is_known_and_far_from_them_is_not():
    centers = np.array([[0.0], [1.0], [2.0], [30.0]])
    found = uncovered(centers, [50, 0, 50, 0], length_scale=1.0)
    assert found[1] < 0.4
    assert found[3] > 1 - 1e-9
    assert found[0] < found[1]


def test_the_length_scale_is_half_the_median_of_all_pairs():
    pool = pool_at(np.array([[0.0], [1.0], [3.0], [7.0]]))  # of 16 pairs 4 are 0, then 1, 1, 2, 2, 3, 3, 4, 4, ...
    wanted = np.sqrt((2**2 + 3**2) / 2) / 2
    found = aria.Coverage(pool, counts=[2, 0, 0, 0])
    assert found.length_scale == wanted
    same = aria.Coverage(pool, counts=[2, 0, 0, 0], length_scale=wanted)
    np.testing.assert_array_equal(found.uncovered, same.uncovered)
    assert found != same  # made from other inputs


@pytest.mark.parametrize("length_scale", [None, 1e-300, 1e-7, 1e300])
@pytest.mark.parametrize("count", [1e-320, 1.0, 1e18])
@pytest.mark.parametrize("centers", [np.zeros((5, 2)) + 1e4, np.eye(5) * 1e-30, np.eye(5) * 1e15 + 7])
@pytest.mark.parametrize("exact", [True, False])
def test_in_far_corners(centers, count, length_scale, exact, monkeypatch):
    """No warning, no NaN, and what a region's own data leave at most: noise / (count + noise)."""
    if not exact:
        monkeypatch.setattr(module, "_EXACT_REGIONS", 0)
        monkeypatch.setattr(module, "_EXACT_COVERED", 0)
        monkeypatch.setattr(module, "_MOST_IN_BLOCK", 2)
    found = uncovered(centers, [count, count, 0, 3, 0], length_scale=length_scale)
    assert (found >= 1e-12).all()
    assert (found <= 1).all()
    assert (found[[0, 1]] <= 1 / (1 + count) + 1e-6).all()
    assert found[3] <= 0.25 + 1e-6


def test_many_regions_in_one_place():
    """Fifty copies of one vector with one item each are fifty observations there, though rounding sets them apart."""
    rng = np.random.default_rng(0)
    centers = np.concatenate([np.repeat(rng.normal(size=(1, 384)), 50, axis=0), rng.normal(size=(3, 384))])
    np.testing.assert_allclose(uncovered(centers, np.ones(53))[:50], 1 / 51, atol=1e-6)


def test_one_centre_far_away_does_not_blur_the_others():
    """The squares of distances cancel where norms are large; the distances of the others are still told apart."""
    rng = np.random.default_rng(0)
    near = rng.normal(size=(20, 3)).astype(np.float32)
    counts = np.arange(21) % 3
    found = uncovered(np.concatenate([near, [[1e6, 0, 0]]]), counts, length_scale=1.0)
    np.testing.assert_allclose(found[:20], uncovered(near, counts[:20], length_scale=1.0), atol=1e-3)


# ------------------------------------------------------------------------------------- the form for many regions


@pytest.fixture
def approximate(monkeypatch):
    """Make the form for many regions serve small pools: so many inducing points, blocks of at most so many regions."""

    def set_sizes(points, block):
        monkeypatch.setattr(module, "_EXACT_REGIONS", 0)
        monkeypatch.setattr(module, "_EXACT_COVERED", 0)
        monkeypatch.setattr(module, "_MOST_INDUCING", points)
        monkeypatch.setattr(module, "_MOST_IN_BLOCK", block)

    return set_sizes


def world(n=60, d=3, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(n, d)).astype(np.float32)
    return centers, np.where(rng.random(n) < 0.6, rng.integers(1, 9, n), 0)


@pytest.mark.parametrize("points", [1, 5, 20])
@pytest.mark.parametrize("block", [1, 7, 30])
def test_it_is_the_exact_form_of_another_process(points, block, approximate):
    """Its covariance: the kernel inside a block, between blocks what the inducing points carry of the kernel."""
    centers, counts = world()
    approximate(points, block)
    found = uncovered(centers, counts, length_scale=1.0, noise=0.7)

    x = centers - centers.mean(axis=0, dtype=np.float64)
    inducing = module._inducing(x, np.flatnonzero(counts), 1.0)
    assert len(inducing) == points
    assert (counts[inducing] > 0).all()
    z = x[inducing]
    across = kernel(z, x, 1.0)
    prior = across.T @ np.linalg.solve(kernel(z, z, 1.0) + 1e-6 * np.eye(points), across)
    for members in module._blocks(x):
        prior[np.ix_(members, members)] = kernel(x[members], x[members], 1.0)
    np.testing.assert_allclose(found, posterior(prior, counts, 0.7), atol=1e-5)


@pytest.mark.parametrize(("points", "block"), [(1, 60), (60, 1), (60, 7)])
def test_one_block_or_all_points_are_exact(points, block, approximate):
    centers, counts = world()
    exact = uncovered(centers, counts, length_scale=1.0)
    approximate(points, block)
    np.testing.assert_allclose(uncovered(centers, counts, length_scale=1.0), exact, atol=1e-4)


def test_it_is_close_to_the_exact_form():
    """At the sizes that are used: 4,200 regions, of which 2,100 have data, in 30 clusters of 16 dimensions."""
    rng = np.random.default_rng(0)
    centers = (rng.normal(size=(30, 16))[rng.integers(30, size=4200)] + 0.3 * rng.normal(size=(4200, 16))).astype("f4")
    counts = np.where(np.arange(4200) % 2, rng.geometric(0.3, 4200), 0)
    assert np.count_nonzero(counts) > module._EXACT_COVERED
    found = uncovered(centers, counts)
    exact = module._exact(
        centers - centers.mean(axis=0, dtype=np.float64),
        np.where(counts > 0, 1 / np.maximum(counts, 1), np.inf),
        module._length_scale(centers),
    )
    assert not np.array_equal(found, exact)
    assert np.abs(found - exact).max() < 0.02
    assert np.abs(found - exact).mean() < 0.002


@given(worlds(most=40), st.integers(1, 6), st.integers(1, 9))
def test_bounds_of_the_form_for_many_regions(world, points, block):
    centers, counts = world
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("REGIONS", 0), ("COVERED", 0)):
            patch.setattr(module, f"_EXACT_{name}", value)
        patch.setattr(module, "_MOST_INDUCING", points)
        patch.setattr(module, "_MOST_IN_BLOCK", block)
        found = uncovered(centers, counts)
        more = uncovered(centers, counts + 3 * (counts > 0))
    assert (found > 0).all()
    assert (found <= 1 / (counts + 1)).all()
    assert (more <= found + 1e-6).all()  # the inducing points are the same: the same regions have data


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 2**32))
def test_blocks_are_all_rows_once_and_small(n, most, seed):
    x = np.random.default_rng(seed).integers(0, 3, (n, 2)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_IN_BLOCK", most)
        blocks = module._blocks(x)
    assert sorted(np.concatenate(blocks).tolist()) == list(range(n))
    assert len(blocks) == 1 or min(map(len, blocks)) >= (most + 1) // 2
    assert max(map(len, blocks)) <= most


def test_few_regions_with_data_are_exact_however_many_there_are():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(5000, 3)).astype(np.float32)
    counts = np.zeros(5000)
    counts[:40] = rng.integers(1, 5, 40)
    found = uncovered(centers, counts, length_scale=0.5)
    held = np.flatnonzero(counts)
    across = kernel(centers[held], centers, 0.5)
    system = kernel(centers[held], centers[held], 0.5) + np.diag(1 / counts[held])
    np.testing.assert_allclose(found, 1 - (across * np.linalg.solve(system, across)).sum(0), atol=1e-5)


# ------------------------------------------------------------------------------------------------------ the counts


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_a_row_of_data_is_of_a_region_as_often_as_its_share_of_the_counts(items):
    """s_k = w r c_k / C is the expected count: enumerate the rows of data, each as likely as any other."""
    labels = np.arange(20) % 6
    coverage = aria.Coverage(aria.Partition.from_labels(labels), items=items)
    expected = np.mean([np.eye(6)[labels[item]] for item in items], axis=0)
    np.testing.assert_allclose(coverage.counts / coverage.counts.sum(), expected, rtol=1e-12)
