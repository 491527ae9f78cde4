"""Nearest centres, in chunks: what partitioners, `Partition.assign` and `Coverage` share.

Embeddings may be a memory map larger than memory, in half precision: they are read a chunk at a time and converted
to float32 there. No copy of the whole is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import as_array, is_tensor, kind_of, shown
from aria_sampling.errors import ArgumentError

__all__ = ["as_embeddings", "nearest"]

_MOST_SHOWN = 170  # characters of a dtype
_CHUNK_BYTES = 1 << 26  # of what exists at one time: the distance matrix, or embeddings as float32


def as_embeddings(name: str, values: Any, *, width: int | None = None) -> AnyArray:
    """Return `values` as real [n, d] of the dtype that came, every value finite as float32.

    Raises:
        ValueError: Naming it, for another shape or dtype, or a non-finite value.
    """
    array = as_array(name, values, "a non-empty array [n, d]")
    if array.ndim != 2 or array.shape[0] == 0 or array.shape[1] == 0:
        came, remedy = _what(name, values, array)
        raise ArgumentError(f"{name}: expected a non-empty array [n, d], got {came}", remedy=remedy)
    if array.dtype.kind not in "iuf":
        remedy = f'{name} = {name}.select_dtypes("number")' if hasattr(values, "select_dtypes") else None
        raise ArgumentError(f"{name}: expected real numbers, got dtype {str(array.dtype)[:_MOST_SHOWN]}", remedy=remedy)
    if width is not None and array.shape[1] != width:
        raise ArgumentError(f"{name}: expected {width} columns, got {array.shape[1]}")
    bad, first = 0, -1
    for begin, chunk in _chunks(array):
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            first = first if bad else begin + int(np.argmin(finite))
            bad += int((~finite).sum())
    if bad:
        raise ArgumentError(
            f"{name}: expected finite numbers (as float32), got NaN or infinity in {bad} rows, the first is row {first}"
        )
    return array


def _what(name: str, values: Any, array: AnyArray) -> tuple[str, str | None]:
    """Return what came instead of an array [n, d], and the line that makes one of it, None if there is none.

    The line is for the container that came: what reshapes an array may fail on a list or a tensor.
    """
    if array.ndim == 0:
        return f"{kind_of(values)} {shown(values)}", None
    if array.ndim == 1 and array.size and array.dtype == object:
        first = array[0]
        remedy = f"{name} = np.stack({name})" if _is_vector(first) else None
        if hasattr(first, "toarray"):  # rows of a sparse matrix
            remedy = f"{name} = np.vstack([row.toarray() for row in {name}])"
        elif is_tensor(first):
            remedy = f"{name} = torch.stack(list({name}))"
        return f"{array.size} objects, the first is of type {kind_of(first)}", remedy
    if array.ndim == 1 and array.size and array.dtype.kind in "iuf":
        own = name if is_tensor(values) else f"np.asarray({name})"
        return f"shape {array.shape}; pass {own}[:, None] if these are items, {own}[None] if it is one item", None
    if array.ndim > 2 and 0 not in array.shape:
        rows = f"{name}.flatten(1)" if is_tensor(values) else f"np.reshape({name}, (len({name}), -1))"
        return f"shape {array.shape}; what belongs to an item goes into one row", f"{name} = {rows}"
    return f"shape {array.shape}", None


def _is_vector(value: Any) -> bool:
    """Whether it is one embedding: a list, an array, a Series."""
    try:
        return np.ndim(value) == 1
    except Exception:  # whatever an object's __array__ raises
        return False


def nearest(embeddings: AnyArray, centers: AnyArray) -> IntArray:
    """Return the index of the nearest centre (Euclidean; the lowest of equals) for each row, int64 [n].

    Everything is measured from the centre in the middle: |x - c|² = |x|² - 2x·c + |c|² cancels badly in float32
    where centres lie close together and far from the origin (years, pixels, a common direction). A centre, not
    the mean, since differences of neighbours are exact and so ties stay ties.

    Args:
        embeddings: Real [n, d].
        centers: float32 [K, d].
    """
    from_mean = centers - centers.mean(axis=0, dtype=np.float64)
    origin = centers[np.einsum("kd,kd->k", from_mean, from_mean).argmin()]
    centers = centers - origin
    half_norms = np.einsum("kd,kd->k", centers, centers, dtype=np.float64) / 2
    labels = np.empty(len(embeddings), np.int64)
    for begin, chunk in _chunks(embeddings, 8 * len(centers)):
        scores = (chunk - origin) @ centers.T - half_norms
        labels[begin : begin + len(chunk)] = scores.argmax(axis=1)
    return labels


def _chunks(array: AnyArray, row_bytes: int = 0) -> Iterator[tuple[int, AnyArray]]:
    """Yield where each chunk of rows begins, and the chunk as float32; `row_bytes`: what a row needs besides."""
    rows = max(1, _CHUNK_BYTES // max(row_bytes, 8 * array.shape[1]))
    for begin in range(0, len(array), rows):
        with np.errstate(over="ignore"):
            chunk = array[begin : begin + rows].astype(np.float32, copy=False)
        yield begin, chunk
