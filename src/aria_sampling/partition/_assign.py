"""Nearest centres, in chunks: what partitioners and `Partition.assign` share."""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling._typing import AnyArray, IntArray
from aria_sampling._validation import as_array

__all__ = ["as_embeddings", "nearest"]

_CHUNK_BYTES = 1 << 26  # of the distance matrix that exists at one time


def as_embeddings(name: str, values: Any, *, width: int | None = None) -> AnyArray:
    """Return `values` as float32 [n, d]; ValueError, naming it, for another shape, dtype or a non-finite value."""
    array = as_array(name, values, "a non-empty array [n, d]")
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] == 0:
        raise ValueError(f"{name}: expected a non-empty array [n, d], got shape {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if width is not None and array.shape[1] != width:
        raise ValueError(f"{name}: expected {width} columns, got {array.shape[1]}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{name}: expected finite numbers (as float32), got NaN or infinity in "
            f"{int((~finite).sum())} rows, the first is row {int(np.argmin(finite))}"
        )
    return array


def nearest(embeddings: AnyArray, centers: AnyArray) -> IntArray:
    """Return the index of the nearest centre (Euclidean; the lowest of equals) for each row, int64 [n].

    Everything is measured from the centre in the middle: |x - c|² = |x|² - 2x·c + |c|² cancels badly in float32
    where centres lie close together and far from the origin (years, pixels, a common direction). A centre, not
    the mean, since differences of neighbours are exact and so ties stay ties.
    """
    from_mean = centers - centers.mean(axis=0, dtype=np.float64)
    origin = centers[np.einsum("kd,kd->k", from_mean, from_mean).argmin()]
    centers = centers - origin
    half_norms = np.einsum("kd,kd->k", centers, centers, dtype=np.float64) / 2
    labels = np.empty(len(embeddings), np.int64)
    rows = max(1, _CHUNK_BYTES // (8 * max(len(centers), centers.shape[1])))
    for begin in range(0, len(embeddings), rows):
        scores = (embeddings[begin : begin + rows] - origin) @ centers.T - half_norms
        labels[begin : begin + rows] = scores.argmax(axis=1)
    return labels
