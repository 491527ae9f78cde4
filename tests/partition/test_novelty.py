"""`novelty` against the posterior of a Gaussian process written out row by row, and the laws it must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria


def pool_at(centers: np.ndarray) -> aria.Partition:
    return aria.Partition.from_labels(np.arange(len(centers)), centers=centers)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Centres float32[K, d] and counts int[K], some 0."""
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = np.array(draw(st.lists(st.integers(0, 6), min_size=n, max_size=n)))
    return rng.normal(size=(n, d)).astype(np.float32), counts


def by_hand(centers: np.ndarray, counts: np.ndarray, scale: float, noise: float) -> np.ndarray:
    """The posterior variance with every observation a row of its own."""
    rows = np.repeat(centers.astype(np.float64), counts, axis=0)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.exp(-((a[:, None] - b) ** 2).sum(-1) / (2 * scale**2))

    across = kernel(rows, centers.astype(np.float64))
    return 1 - (across * np.linalg.solve(kernel(rows, rows) + noise * np.eye(len(rows)), across)).sum(0)


@given(worlds(), st.floats(0.1, 3), st.floats(0.1, 10))
def test_it_is_the_posterior_variance_of_single_observations(
    world: tuple[np.ndarray, np.ndarray], scale: float, noise: float
) -> None:
    centers, counts = world
    found = aria.novelty(pool_at(centers), counts, length_scale=scale, noise=noise)
    np.testing.assert_allclose(found, by_hand(centers, counts, scale, noise), atol=1e-6)


@given(worlds(), st.integers(0, 11))
def test_more_data_leaves_nothing_more_novel(world: tuple[np.ndarray, np.ndarray], where: int) -> None:
    centers, counts = world
    more = counts.copy()
    more[where % len(counts)] += 1
    before, after = (aria.novelty(pool_at(centers), n, length_scale=1.0) for n in (counts, more))
    assert (after <= before + 1e-9).all()
    assert after[where % len(counts)] < before[where % len(counts)]


@given(worlds(), st.integers(0, 2**32))
def test_it_knows_no_origin_no_unit_and_no_order(world: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    centers, counts = world
    order = np.random.default_rng(seed).permutation(len(counts))
    found = aria.novelty(pool_at(centers), counts)
    np.testing.assert_allclose(aria.novelty(pool_at((8 * centers + 4)[order]), counts[order]), found[order], atol=1e-3)


def test_one_region_alone_is_the_textbook_s() -> None:
    """Prior variance 1, n observations of variance `noise`: noise / (n + noise)."""
    pool = pool_at(np.zeros((1, 3)))
    assert aria.novelty(pool, [0]) == [1.0]
    np.testing.assert_allclose(aria.novelty(pool, [3], noise=2.0), [2 / 5])


def test_between_regions_with_data_is_known_and_far_from_them_is_not() -> None:
    pool = pool_at(np.array([[0.0], [1.0], [2.0], [30.0]]))
    many, between, far = 50, 1, 3
    counts = np.array([many, 0, many, 0])
    found = aria.novelty(pool, counts, length_scale=1.0)
    assert found[between] < 0.4
    assert found[far] > 1 - 1e-9
    assert found[0] < found[between]


@pytest.mark.parametrize("length_scale", [None, 1e-300, 1e-7, 1e300])
@pytest.mark.parametrize("count", [1e-320, 1.0, 1e18])
@pytest.mark.parametrize("centers", [np.zeros((5, 2)) + 1e4, np.eye(5) * 1e-30, np.eye(5) * 1e15 + 7])
def test_in_far_corners(centers: np.ndarray, count: float, length_scale: float | None) -> None:
    """No warning, no NaN, and what a region's own data leave at most: noise / (count + noise)."""
    found = aria.novelty(pool_at(centers), [count, count, 0, 3, 0], length_scale=length_scale)
    assert (found >= 1e-12).all()
    assert (found[[0, 1]] <= 1 / (1 + count) + 1e-6).all()
    assert found[3] <= 0.25 + 1e-6


def test_many_regions_in_one_place() -> None:
    """Fifty copies of one vector with one item each are fifty observations there, though rounding sets them apart."""
    rng = np.random.default_rng(0)
    centers = np.concatenate([np.repeat(rng.normal(size=(1, 384)), 50, axis=0), rng.normal(size=(3, 384))])
    found = aria.novelty(pool_at(centers), np.ones(53))
    np.testing.assert_allclose(found[:50], 1 / 51, atol=1e-6)


def test_the_length_scale_is_half_the_median_of_all_pairs() -> None:
    pool = pool_at(np.array([[0.0], [1.0], [3.0], [7.0]]))  # of 16 pairs 4 are 0, then 1, 1, 2, 2, 3, 3, 4, 4, ...
    counts = [2, 0, 0, 0]
    wanted = np.sqrt((2**2 + 3**2) / 2) / 2
    np.testing.assert_array_equal(aria.novelty(pool, counts), aria.novelty(pool, counts, length_scale=wanted))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"counts": [1, 2]}, "counts: expected 3 numbers, got 2"),
        ({"counts": [1, -1, 0]}, "counts: expected finite numbers >= 0, got values from -1"),
        ({"counts": [1, np.nan, 0]}, "counts: expected finite numbers >= 0"),
        ({"counts": [0, 0, 0], "noise": 0}, "noise=0.0: expected a finite number in"),
        ({"counts": [0, 0, 0], "length_scale": -1}, "length_scale=-1.0: expected"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        aria.novelty(pool_at(np.eye(3)), **arguments)


def test_it_needs_centres() -> None:
    with pytest.raises(ValueError, match="partition: expected one with centers"):
        aria.novelty(aria.Partition.from_labels([0, 1]), [1, 0])
    with pytest.raises(ValueError, match="partition: expected a Partition, got ndarray"):
        aria.novelty(np.eye(2), [1, 0])  # pyright: ignore[reportArgumentType]
