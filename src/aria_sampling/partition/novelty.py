"""`novelty`: how much the items that have data of their own leave unknown of each region, from embeddings alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling._typing import FloatArray
from aria_sampling._validation import float_vector, real
from aria_sampling.partition.partition import Partition

__all__ = ["novelty"]

_MOST_COMPARED = 2048  # centres that the median distance is taken of
_LEAST_NOISE = 1e-9  # of a mean of observations: centres in one place must not make the system singular


def novelty(partition: Partition, counts: Any, *, length_scale: float | None = None, noise: float = 1.0) -> FloatArray:
    """Return the share of each region's variance that observing `counts` items of each leaves, float64 [n_regions].

    The posterior variance of a Gaussian process of prior variance 1 at the regions' centres, with the kernel
    ``exp(-d**2 / (2 * length_scale**2))`` of their distance d, given for each region the mean of `counts` observations
    with noise of variance `noise` each (Rasmussen and Williams 2006, eq. 2.26). Near 0 among items that have data,
    1 far from all of them. A region that has none itself, but lies between regions that do, is not novel: that is where
    it says more than `Allocator(present_weight=)`, which counts region by region.

    As a target, ``sizes * novelty(...)**2`` sends the draws to what is unlike anything with data. It is computed with
    BLAS: keep it with the run, since another machine may differ in the last bits.

    Args:
        partition: Regions with centres. Takes O(n_regions**2) memory and O(n_regions**3) time: a second for 2,000.
        counts: Items of each region that have data (prompts with images), real [n_regions], not negative.
        length_scale: Distance over which regions are alike, positive; default half the median distance between centres.
        noise: Variance of an observation, positive: that many items of its own halve a region's variance.

    Raises:
        ValueError: The partition has no centres; another length; an argument out of its range.
    """
    if partition.centers is None:
        raise ValueError("novelty needs centers, and this partition was made from labels alone: use a partitioner")
    counts = float_vector("counts", counts, length=partition.n_regions)
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise ValueError(f"counts: expected finite numbers >= 0, got values from {counts.min()} to {counts.max()}")
    noise = real("noise", noise, low=0, open_low=True)
    square = _square_distances(partition.centers.astype(np.float64))
    if length_scale is None:
        some = np.linspace(0, len(square) - 1, min(len(square), _MOST_COMPARED)).astype(np.int64)
        length_scale = 0.5 * float(np.sqrt(np.median(square[np.ix_(some, some)]))) or 1.0
    length_scale = real("length_scale", length_scale, low=0, open_low=True)
    kernel = np.exp(square / (-2 * length_scale**2))
    held = np.flatnonzero(counts)
    observed = kernel[held]
    seen = observed[:, held] + np.diag(np.maximum(noise / counts[held], _LEAST_NOISE))
    return np.clip(1 - np.einsum("hk,hk->k", observed, np.linalg.solve(seen, observed)), 1e-12, 1.0)


def _square_distances(x: FloatArray) -> FloatArray:
    """Return the squared Euclidean distance of every two rows, float64 [n, n]."""
    x = x - x.mean(axis=0)
    norms = np.einsum("kd,kd->k", x, x)
    return np.maximum(norms[:, None] + norms - 2 * (x @ x.T), 0.0)
