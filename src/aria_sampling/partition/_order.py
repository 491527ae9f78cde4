"""Items counted and sorted by region, in pieces: all at once would take several int64 an item."""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray

__all__ = ["ascending", "offsets_of", "order_dtype", "ordered", "sizes_of"]

_AT_A_TIME = 1 << 22  # labels that are int64 at one time


def order_dtype(n_items: int) -> type[np.unsignedinteger[Any] | np.signedinteger[Any]]:
    """Return what holds every item number."""
    return np.uint32 if n_items <= 1 << 32 else np.int64


def offsets_of(sizes: IntArray) -> IntArray:
    """Return where each region begins, and where the last ends, int64 [n_regions + 1]."""
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)


def sizes_of(labels: AnyArray, n_regions: int) -> IntArray:
    """Return the number of items of each region, int64 [n_regions]; bincount of all at once would copy to int64."""
    sizes = np.zeros(n_regions, np.int64)
    step = max(_AT_A_TIME, n_regions)
    for begin in range(0, len(labels), step):
        sizes += np.bincount(labels[begin : begin + step], minlength=n_regions)
    return sizes


def ascending(labels: AnyArray) -> bool:
    """Whether no label is followed by a smaller one."""
    for begin in range(0, len(labels) - 1, _AT_A_TIME):
        some = labels[begin : begin + _AT_A_TIME + 1]
        if (some[1:] < some[:-1]).any():
            return False
    return True


def ordered(labels: AnyArray, sizes: IntArray) -> AnyArray:
    """Return the items by region, and by number inside a region, of `order_dtype` [n_items]: a counting sort."""
    order = np.empty(len(labels), order_dtype(len(labels)))
    place = offsets_of(sizes)[:-1]
    step = max(_AT_A_TIME, len(sizes))
    for begin in range(0, len(labels), step):
        some = labels[begin : begin + step]
        by_region = np.argsort(some, kind="stable")
        counts = np.bincount(some, minlength=len(sizes))
        shift = place - offsets_of(counts)[:-1]
        order[shift[some[by_region]] + np.arange(len(some))] = by_region + begin
        place += counts
    return order
