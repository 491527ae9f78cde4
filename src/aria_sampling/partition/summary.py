"""`PartitionSummary`: what a person wants to know of a partition before using it, as a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aria_sampling._arrays import FloatArray, IntArray

if TYPE_CHECKING:
    from aria_sampling.partition.partition import Partition

__all__ = ["PartitionSummary", "RegionSummary", "summarised"]


@dataclass(frozen=True)
class RegionSummary:
    """One region, in words.

    Attributes:
        region: Its number.
        name: Its name.
        size: Number of its items that can be drawn.
        share: Of all items that can be drawn, in [0, 1].
        terms: Words that tell it from the others; none unless `Partition.named` found them.
        captions: Typical items; none unless `Partition.named` found them.
        rows: Rows of data that it has; None if that was not asked.
    """

    region: int
    name: str
    size: int
    share: float
    terms: tuple[str, ...]
    captions: tuple[str, ...]
    rows: float | None


@dataclass(frozen=True)
class PartitionSummary:
    """A partition, in numbers and words. `Partition.describe` makes it.

    Attributes:
        n_items: Items of the pool.
        n_removed: Of these never drawn (`Partition.without`).
        n_regions: Regions.
        n_empty: Of these without an item that can be drawn.
        fingerprint: Of the partition.
        width: Numbers in a centre; None without centres.
        sizes: Smallest size, quartiles and largest of the regions that have items.
        effective_regions: exp of the entropy of the sizes: that many equal regions would be as uneven.
        half: So many of the largest regions hold half of the items.
        tail: Share of the items in the smaller half of the regions.
        n_covered: Regions with rows of data; None if that was not asked.
        covered: Share of the items in regions with rows of data; None if that was not asked.
        largest: The largest regions.
        smallest: The smallest regions with items, which are not among the largest.
        uncovered: The largest regions without rows of data; none if that was not asked.
    """

    n_items: int
    n_removed: int
    n_regions: int
    n_empty: int
    fingerprint: str
    width: int | None
    sizes: tuple[int, float, float, float, int]
    effective_regions: float
    half: int
    tail: float
    n_covered: int | None
    covered: float | None
    largest: tuple[RegionSummary, ...]
    smallest: tuple[RegionSummary, ...]
    uncovered: tuple[RegionSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def summarised(partition: Partition, counts: FloatArray | None, most: int) -> PartitionSummary:
    """Return the summary of a partition, whose regions have so many rows of data."""
    sizes = partition.sizes
    filled = np.flatnonzero(sizes > 0)
    order = filled[np.argsort(-sizes[filled], kind="stable")]
    shares = sizes[order] / sizes.sum()
    low, median, high = np.quantile(sizes[filled], (0.25, 0.5, 0.75)).tolist()

    def regions(chosen: IntArray) -> tuple[RegionSummary, ...]:
        return tuple(_region(partition, int(region), counts) for region in chosen)

    covered = None if counts is None else counts > 0
    return PartitionSummary(
        n_items=partition.n_items,
        n_removed=partition.n_items - int(partition.offsets[-1]),
        n_regions=partition.n_regions,
        n_empty=partition.n_regions - len(filled),
        fingerprint=partition.fingerprint,
        width=None if partition.centers is None else int(partition.centers.shape[1]),
        sizes=(int(sizes[order[-1]]), low, median, high, int(sizes[order[0]])),
        effective_regions=float(np.exp(-(shares * np.log(shares)).sum())),
        half=int(np.searchsorted(np.cumsum(shares), 0.5 - 1e-12) + 1),
        tail=float(shares[(len(shares) + 1) // 2 :].sum()),
        n_covered=None if covered is None else int(covered.sum()),
        covered=None if covered is None else float(sizes[covered].sum() / sizes.sum()),
        largest=regions(order[:most]),
        smallest=regions(order[most:][::-1][:most]),
        uncovered=() if covered is None else regions(order[~covered[order]][:most]),
    )


def _region(partition: Partition, region: int, counts: FloatArray | None) -> RegionSummary:
    def texts(some: Sequence[tuple[str, ...]] | None) -> tuple[str, ...]:
        return () if some is None else some[region]

    return RegionSummary(
        region=region,
        name=partition.names[region],
        size=int(partition.sizes[region]),
        share=float(partition.sizes[region] / partition.offsets[-1]),
        terms=texts(partition.terms),
        captions=texts(partition.captions),
        rows=None if counts is None else float(counts[region]),
    )
