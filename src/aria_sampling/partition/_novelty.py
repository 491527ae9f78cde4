"""`novelty`: how much the items that have data of their own leave unknown of each region, from embeddings alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling._typing import FloatArray
from aria_sampling._validation import float_vector, real
from aria_sampling.partition.partition import Partition

__all__ = ["novelty"]

_MOST_COMPARED = 2048  # centres that the median distance is taken of
_SAME = 1e-14  # squared distances this small, in units of the largest squared norm, are rounding errors
_LEAST, _MOST = 1e-9, 1e9  # noise of a mean of observations: centres in one place must not make the system singular


def novelty(partition: Partition, counts: Any, *, length_scale: float | None = None, noise: float = 1.0) -> FloatArray:
    """Return what observing `counts` items of each region leaves of its variance, float64 [n_regions], 1e-12 to 1.

    The posterior variance of a Gaussian process of prior variance 1 at the regions' centres, with the kernel
    ``exp(-d**2 / (2 * length_scale**2))`` of their distance d, given for each region the mean of `counts` observations
    with noise of variance `noise` each (Rasmussen and Williams 2006, eq. 2.26). n items of its own leave a region
    ``noise / (n + noise)`` at most, near ones take off more; far from all of them it is 1. A region that has none
    itself but lies between regions that do is hardly novel, where `Allocator(present_weight=)`, which counts region by
    region, takes it for bare.

    As a target, ``partition.sizes * novelty(partition, counts)**4`` sends the draws to what is unlike anything with
    data. Compute it once and keep it with the run: another machine or number of threads may differ in the last bits,
    and a saved state is refused by an allocator whose target is not the same to the bit.

    Args:
        partition: Regions with centres. It takes 54 bytes * n_regions**2 and time that grows as n_regions**3: 0.2 GB
            and a second for 2,000 regions, 1.4 GB and ten for 5,000, on one core.
        counts: Distinct items of each region that have data (prompts with images), real [n_regions], not negative.
        length_scale: Distance over which regions are alike, positive; default half the median distance between centres
            (over all pairs, also of each with itself; of 2,048 centres if there are more), 1 if that is 0.
        noise: Variance of an observation, positive: so many items halve the variance of a region on its own.

    Raises:
        ValueError: No `Partition`, or one without centres; `counts` of another length; an argument out of its range.
    """
    if not isinstance(partition, Partition):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"partition: expected a Partition, got {type(partition).__name__}")
    if partition.centers is None:
        raise ValueError(
            "partition: expected one with centers, got one made from labels alone: make it with a partitioner, or pass "
            "centers= to Partition.from_labels"
        )
    counts = float_vector("counts", counts, length=partition.n_regions)
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"counts: expected finite numbers >= 0, got values from {counts.min()} to {counts.max()}")
    noise = real("noise", noise, low=0, open_low=True)
    distance = _distances(partition.centers.astype(np.float64))
    if length_scale is None:
        some = np.linspace(0, len(distance) - 1, min(len(distance), _MOST_COMPARED)).astype(np.int64)
        length_scale = 0.5 * float(np.sqrt(np.median(distance[np.ix_(some, some)] ** 2))) or 1.0
    length_scale = real("length_scale", length_scale, low=0, open_low=True)
    with np.errstate(over="ignore", under="ignore"):
        kernel = np.exp(-0.5 * (distance / length_scale) ** 2)
    held = np.flatnonzero(counts)
    with np.errstate(over="ignore"):
        spread = np.clip(noise / counts[held], _LEAST, _MOST)
    root = np.linalg.cholesky(kernel[np.ix_(held, held)] + np.diag(spread))
    told = np.linalg.solve(root, kernel[held])
    return np.clip(1 - np.einsum("hk,hk->k", told, told), 1e-12, 1.0)


def _distances(x: FloatArray) -> FloatArray:
    """Return the Euclidean distance of every two rows, float64 [n, n]; exactly 0 from each to itself."""
    x = x - x.mean(axis=0)
    norms = np.einsum("kd,kd->k", x, x)
    square = norms[:, None] + norms - 2 * (x @ x.T)
    square[square <= _SAME * norms.max()] = 0.0
    np.fill_diagonal(square, 0.0)
    return np.sqrt(square)
