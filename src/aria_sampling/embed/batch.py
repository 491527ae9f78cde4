"""`encode`: one batch of texts becomes one array. Whatever runs an encoder, here or on a cluster, runs this function.

It has no state, so the same batches give the same rows in any process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import as_array, kind_of, shown
from aria_sampling.errors import ArgumentError

__all__ = ["DTYPES", "Encoder", "encode"]

DTYPES = ("float16", "float32")


class Encoder(Protocol):
    """What turns texts into vectors: any object with `encode`, as models of sentence-transformers have."""

    def encode(self, texts: list[str], /) -> Any:
        """Return a row for each text: an array or a tensor, real [n, width]."""
        ...


def encode(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    dtype: str = "float16",
    width: int | None = None,
    zeros: str = "refuse",
    first: int = 0,
) -> AnyArray:
    """Return the embeddings of texts, [n, width], after checks.

    Args:
        encoder: Any object with `encode`.
        texts: At least one.
        dtype: "float16" or "float32".
        width: What it has to be; None: any.
        zeros: "refuse" or "keep" rows that are zero, as some encoders make of words that they do not know.
        first: Number of the first item, for messages.

    Raises:
        ValueError: The encoder returned another shape or width, a number that is not finite or does not fit the dtype,
            or a row of zeros. Its own errors pass through.
    """
    texts = list(texts)
    items = f"items {first} to {first + len(texts) - 1}"
    array = as_array("encoder", encoder.encode(texts), f"a row for each of {len(texts)} texts")
    if array.ndim != 2 or len(array) != len(texts) or array.shape[1] == 0 or array.dtype.kind not in "iuf":
        raise ArgumentError(
            f"encoder: expected real numbers [{len(texts)}, width], a row for each of {items}, got "
            f"{array.dtype} {list(array.shape)} from {kind_of(encoder)}.encode"
        )
    if width is not None and array.shape[1] != width:
        raise ArgumentError(
            f"encoder: expected {width} numbers a text, as before, got {array.shape[1]} for {items}; one pool takes "
            "one encoder"
        )
    wide = array.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(wide, dtype)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        place = int(np.argmin(finite))
        what = f"{int((~finite).sum())} of {items}, the first is item {first + place}: {shown(texts[place])}"
        if np.isfinite(wide[place]).all():
            raise ArgumentError(
                f"encoder: {np.abs(wide[place]).max():.3g} does not fit {dtype}, in {what}; pass dtype='float32', or "
                "an encoder with vectors of length 1"
            )
        raise ArgumentError(f"encoder: expected finite numbers, got NaN or infinity for {what}")
    if zeros == "refuse":
        some = rows.any(axis=1)
        if not some.all():
            place = int(np.argmin(some))
            small = (
                f" (its largest number, {np.abs(wide[place]).max():.3g}, is 0 as {dtype})" if wide[place].any() else ""
            )
            raise ArgumentError(
                f"encoder: expected vectors that are not 0, got 0 for {int((~some).sum())} of {items}, the first is "
                f"item {first + place}{small}: {shown(texts[place])}; zeros='keep' takes them as they are"
            )
    return rows
