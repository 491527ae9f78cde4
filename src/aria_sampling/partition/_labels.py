"""Labels of any kind, as region numbers: integers, texts, categories, dates, with or without nulls.

Integers say which region an item is in. Anything else names it, and the regions are numbered in the order of
the sorted names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import as_array, is_null, is_tensor, kind_of, shown
from aria_sampling.errors import ArgumentError

__all__ = ["NOISE", "dense", "numbered"]

NOISE = "noise"  # name of the region of the items that have none

_AT_A_TIME = 1 << 16  # labels that are Python objects at one time


def numbered(labels: Any, noise: Any) -> tuple[AnyArray, tuple[str, ...] | None, bool]:
    """Return the region number of every item, the names found, and whether the last region is that of noise.

    Args:
        labels: One hashable label an item: list, array, tensor, Series or Categorical.
        noise: None, or "region": -1 among integers and nulls become the last region.

    Returns:
        Integers [n_items] of any dtype, none negative. The names of all regions but that of noise; None for integers,
        and for floats that are all whole, which are taken as integers. A bool.

    Raises:
        ValueError: `labels` are empty, not one-dimensional, not hashable, or below -1; some are -1 or null, and
            `noise` is None; `noise` is something else.
    """
    if noise is not None and not (isinstance(noise, str) and noise == "region"):
        raise ArgumentError(f"noise={shown(noise)}: expected None or 'region'")
    numbers, names, n_null = _numbers(labels)
    if numbers.size == 0:
        raise ArgumentError("labels: expected at least one item, got none")
    least, most = int(numbers.min()), int(numbers.max())
    if least >= 0:
        return numbers, names, False
    if least < -1:
        raise ArgumentError(
            f"labels: expected region numbers >= 0, got {least} to {most}; other numbers have to be numbered densely",
            remedy=dense(labels, missing=n_null > 0),
        )
    missing = numbers == -1
    if noise is None:
        n_noise = int(missing.sum()) - n_null
        came = [f"{n_null} nulls (None, NaN or NA)"] * (n_null > 0) + [f"-1 in {n_noise} places"] * (n_noise > 0)
        raise ArgumentError(
            f"labels: expected a region for every item, got {' and '.join(came)} among {numbers.size} labels; leave "
            "these items out of the dataset, too, or give them a region of their own",
            remedy='pool = aria.Partition.from_labels(labels, noise="region")'
            if len(np.unique(numbers[~missing])) == most + 1
            else dense(labels, missing=True),
        )
    numbers = numbers.astype(np.int64)
    numbers[missing] = most + 1
    return numbers, names, True


def dense(labels: Any, *, missing: bool) -> str:
    """Return the line that numbers labels without gaps, for a message.

    Where items have none (`missing`), labels become text, and None, NaN or -1 the name of a region like any other.
    """
    if missing:
        return f"labels = np.asarray(labels{'.cpu()' * is_tensor(labels)}).astype(str)"
    if is_tensor(labels):
        return "labels = labels.unique(return_inverse=True)[1]"
    return "labels = np.unique(labels, return_inverse=True)[1]"


def _numbers(labels: Any) -> tuple[AnyArray, tuple[str, ...] | None, int]:
    """Return the region numbers, -1 for null; the names, None if the labels are numbers; how many are null."""
    if hasattr(getattr(labels, "cat", None), "codes"):  # a pandas Series of categories
        labels = labels.cat
    if hasattr(labels, "codes") and hasattr(labels, "categories"):  # pandas' Categorical
        codes, values = _used(np.asarray(labels.codes), np.asarray(labels.categories))
    elif hasattr(labels, "dictionary_encode"):  # an array of Arrow, in one piece or several
        codes, values = _coded_arrow(labels)
    else:
        array = _read(labels)
        if array.dtype.kind in "iu":
            return array, None, 0
        codes, values = _coded_numbers(array) if array.dtype.kind in "bfcmM" else _coded_objects(array)
    n_null = int((codes < 0).sum())
    numbers = _whole(values)
    if numbers is not None:
        return np.append(numbers, -1)[codes], None, n_null  # a code of -1 takes the last, -1
    digits = all(isinstance(value, str) and value.isascii() and value.isdecimal() for value in values)
    ranked = [(int(value), value) for value in values] if digits else values  # "2" before "10", as numbers go
    try:
        order = sorted(range(len(values)), key=ranked.__getitem__)
    except TypeError:  # no order among them: numbers and texts, complex numbers
        order = sorted(range(len(values)), key=lambda i: (type(values[i]).__name__, str(values[i])))
    rank = np.full(len(values) + 1, -1)
    rank[order] = np.arange(len(values))
    return rank[codes], tuple(_text(values[i]) for i in order), n_null


def _coded_arrow(labels: Any) -> tuple[IntArray, Sequence[Any]]:
    """Return the place of each label among the different ones, -1 for null; and these. NumPy loses nulls of pieces."""
    if not hasattr(labels, "indices"):
        labels = labels.dictionary_encode()
    if hasattr(labels, "unify_dictionaries"):
        labels = labels.unify_dictionaries().combine_chunks()
    codes = np.asarray(labels.indices.fill_null(-1))
    return _used(codes, np.array([*labels.dictionary.to_pylist(), None], object)[:-1])


def _read(labels: Any) -> AnyArray:
    """Return labels as an array [n]; ValueError for another number of dimensions."""
    if isinstance(labels, np.ma.MaskedArray):  # what is masked is null
        mask, labels = np.ma.getmaskarray(cast("Any", labels)), np.ma.getdata(cast("Any", labels))
        if mask.any():
            labels = labels.astype(object)
            labels[mask] = None
    if isinstance(labels, list | tuple):
        # NumPy would make every text as wide as the longest, of NaN among texts a text, of tuples a second dimension.
        labels = cast("Sequence[Any]", labels)
        if any(issubclass(kind, str | bytes | tuple) for kind in set(map(type, labels))):
            return np.fromiter(labels, object, len(labels))
    wanted = "a one-dimensional array of labels"
    array = as_array("labels", labels, wanted)
    if array.ndim != 1:
        came = f"shape {array.shape}" if array.ndim else f"{kind_of(labels)} {shown(labels)}"
        remedy = None
        if array.size and array.ndim > 1 and array.size == max(array.shape):  # a column
            remedy = "labels = labels.ravel()" if is_tensor(labels) else "labels = np.ravel(labels)"
        elif array.ndim == 2 and array.dtype.kind in "biu" and (array.astype(bool).sum(axis=1) == 1).all():
            came += ", a mask a region"
            remedy = f"labels = np.argmax(labels{'.cpu()' * is_tensor(labels)}, axis=1)"
        elif array.ndim == 2 and array.dtype.kind == "f":
            came += "; embeddings are cut into regions by KMeansPartitioner(n_regions=K).fit(embeddings)"
        raise ArgumentError(f"labels: expected {wanted}, got {came}", remedy=remedy)
    return array


def _coded_numbers(array: AnyArray) -> tuple[IntArray, Sequence[Any]]:
    """Return the place of each number, date or bool among the different ones, -1 for null; and these, sorted."""
    there = ~(np.isnat(array) if array.dtype.kind in "mM" else np.isnan(array))
    codes = np.full(array.size, -1)
    values, codes[there] = np.unique(array[there], return_inverse=True)
    return codes, list(values)


def _coded_objects(array: AnyArray) -> tuple[IntArray, Sequence[Any]]:
    """Return the place of each object among the different ones, -1 for null; and these, in order of appearance."""
    place: dict[Any, int] = {}
    codes = np.empty(array.size, np.int64)
    for begin in range(0, array.size, _AT_A_TIME):
        some = array[begin : begin + _AT_A_TIME].tolist()
        try:
            codes[begin : begin + len(some)] = [place.setdefault(value, len(place)) for value in some]
        except TypeError as error:
            text = not any(hasattr(value, "__array__") for value in some)
            raise ArgumentError(
                f"labels: expected one hashable label an item, got others ({str(error)[:200]})"
                + ("" if text else "; embeddings are cut into regions by KMeansPartitioner"),
                remedy="labels = [str(label) for label in labels]" if text else None,
            ) from None
    values = list(place)
    return _used(np.where([is_null(value) for value in values], -1, np.arange(len(values)))[codes], values)


def _used(codes: AnyArray, values: Any) -> tuple[IntArray, Sequence[Any]]:
    """Return the same codes and values without the values that no code refers to."""
    used = np.zeros(len(values) + 1, bool)
    used[codes] = True
    used[-1] = False  # where -1 points
    place = np.where(used, np.cumsum(used) - 1, -1)
    return place[codes], [values[i] for i in np.flatnonzero(used)]


def _whole(values: Sequence[Any]) -> IntArray | None:
    """Return `values` as int64 if all are whole numbers that float64 and int64 hold exactly, else None."""
    kinds = set(map(type, values))
    if bool in kinds or not all(issubclass(kind, int | float | np.integer | np.floating) for kind in kinds):
        return None
    if not all(abs(value) < 2**53 and value == int(value) for value in values):
        return None
    return np.array([int(value) for value in values], np.int64)


def _text(value: Any) -> str:
    """Return the name of a region."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
