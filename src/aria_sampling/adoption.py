"""What one allocation can take over from another: which region is whose heir, and what it inherits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling._arrays import IntArray
from aria_sampling._check import int_vector
from aria_sampling.estimators import Estimate, Feedback
from aria_sampling.partition import Partition

__all__ = ["Adopted", "heirs", "inherited"]

_AT_A_TIME = 1 << 20  # items that are compared at one time


@dataclass(frozen=True, eq=False)
class Adopted:
    """What `Allocator.adopt` has carried over.

    Attributes:
        carried: Regions that go on from an estimate of the old allocation, ascending, int64 [m].
        fresh: Regions that begin without one, ascending, int64 [n_regions - m].
        message: How regions were matched, in words.
    """

    carried: IntArray
    fresh: IntArray
    message: str


def heirs(old: Partition, new: Partition, mapping: Any) -> tuple[IntArray, str]:
    """Return for each new region its old one, int64 [n_regions], -1 for none, and how they were matched.

    Raises:
        ValueError: `mapping` of another length, or with a region out of range.
    """
    if mapping is not None:
        hint = "for each new region its old one, -1 for none"
        match = int_vector("mapping", mapping, length=new.n_regions, low=-1, high=old.n_regions, hint=hint)
        return match.copy(), "by the mapping given"
    if _named(old) and _named(new):
        number = {name: region for region, name in enumerate(old.names)}
        match = np.array([number.get(name, -1) for name in new.names], np.int64)
        if (match >= 0).any():
            return match, "by their names"
    match, how = _by_items(old, new), "by the items that both pools have under the same number"
    left = np.flatnonzero(match < 0)
    there, here = old.centers, new.centers
    if len(left) and there is not None and here is not None and there.shape[1] == here.shape[1]:
        match[left] = old.assign(here[left])
        how += ", and where there are none by the nearest old centre"
    return match, how


def _named(partition: Partition) -> bool:
    """Return whether the regions have names of their own."""
    return partition.names != tuple(map(str, range(partition.n_regions)))


def _by_items(old: Partition, new: Partition) -> IntArray:
    """Return for each new region the old one with which it has most items in common, -1 if there is none.

    Pools may be larger than memory: items are compared a chunk at a time, and where neither pool has an array of labels
    a run of equal labels is one step.
    """
    common = min(old.n_items, new.n_items)
    if old.is_implicit and new.is_implicit:
        begins = np.union1d(old.offsets, new.offsets)
        begins = begins[begins < common]
        pairs, counts = _pairs(old, new, begins), np.diff(np.append(begins, common))
    else:
        pairs = counts = np.empty(0, np.int64)
        for begin in range(0, common, _AT_A_TIME):
            found = np.unique(_pairs(old, new, np.arange(begin, min(common, begin + _AT_A_TIME))), return_counts=True)
            pairs, counts = np.append(pairs, found[0]), np.append(counts, found[1])
    pair, place = np.unique(pairs, return_inverse=True)
    order = np.argsort(np.bincount(place, counts), kind="stable")  # the largest last: that is what stays
    match = np.full(new.n_regions, -1, np.int64)
    match[pair[order] // old.n_regions] = pair[order] % old.n_regions
    return match


def _pairs(old: Partition, new: Partition, items: IntArray) -> IntArray:
    """Return the new and the old region of each item as one number, int64 [n]."""
    return new.regions_of(items) * old.n_regions + old.regions_of(items)


def inherited(estimate: Estimate, match: IntArray) -> Feedback:
    """Return one round of feedback that leaves each heir with the estimate of its old region.

    Several heirs of one region share the losses behind its estimate, so that none is counted twice.
    """
    known = (match >= 0) & (estimate.count[match] > 0)
    regions = np.flatnonzero(known)
    source = match[regions]
    n_heirs = np.bincount(source, minlength=len(estimate.count))[source]
    count = estimate.count[source] / n_heirs
    variance = (
        np.where(np.isfinite(estimate.stderr[source]), estimate.stderr[source], 0.0) ** 2 * estimate.count[source]
    )
    return Feedback(regions, count, estimate.mean[source], variance * np.maximum(count - 1, 0.0), 0)
