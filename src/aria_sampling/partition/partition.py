"""`Partition`: which region every item of a pool belongs to. A final, read-only value.

>>> pool = Partition.from_labels(["cat", "dog", "dog", "cat", "fox"])
>>> pool.n_items, pool.n_regions, pool.sizes.tolist()
(5, 3, [2, 2, 1])
>>> pool.names
('cat', 'dog', 'fox')
>>> pool.items_of(1).tolist()
[1, 2]

It takes 6 bytes an item up to 65,536 regions: a label, and a place in the CSR order (the items sorted by
region). Nothing in it changes while training, so it can be memory-mapped and shared between processes. `without` gives
another partition, some of whose items are never drawn again:

>>> pool.without([1]).items_of(1).tolist()
[2]

A pool whose items stand region by region takes nothing an item:

>>> Partition.from_sizes([600_000_000, 400_000_000], names=["web", "code"])
Partition(n_items=1000000000, n_regions=2, fingerprint='d80f9add6660')
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, final

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import as_array, as_path, float_vector, instance, int_vector, integer, shown, switch
from aria_sampling.errors import ArgumentError, AriaWarning, PartitionFileError, outside
from aria_sampling.partition._assign import Rows, as_embeddings, checked_device, nearest
from aria_sampling.partition._file import Format, read, write
from aria_sampling.partition._labels import NOISE, dense, numbered
from aria_sampling.partition._naming import Captions, found_names, found_texts
from aria_sampling.partition._order import ascending, offsets_of, order_dtype, ordered, sizes_of
from aria_sampling.partition._progress import Progress, silent
from aria_sampling.partition._texts import Texts
from aria_sampling.partition.summary import PartitionSummary, summarised

__all__ = ["Partition", "checked_items", "checked_names", "of_filled", "of_nearest"]

_TEXTS = ("terms", "captions")
_PARTS = ("bytes", "ends", "last")  # of `Texts`, in a file


@final
@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """The region of every item of a pool. Build it with `from_labels`, `from_sizes`, a partitioner, or `load`.

    `from_centers` makes one of centres that something else has found.

    Attributes:
        offsets: Where each region begins in `order`, int64 [n_regions + 1].
        names: A name for each region, for reports.
        centers: Centre of each region, float32 [n_regions, d], if it was made from embeddings.
        fingerprint: Hex digest of the labels: the identity of the pool, which saved states carry.
        terms: Words that tell each region from the others, the most telling first; None unless `named` found them.
        captions: Typical items of each region, as text; None unless `named` found them.
    """

    _labels: AnyArray | None  # None, both, if the items stand region by region
    _order: AnyArray | None
    offsets: IntArray
    names: tuple[str, ...]
    centers: AnyArray | None
    fingerprint: str
    terms: Texts | None = None
    captions: Texts | None = None

    @classmethod
    def from_labels(
        cls,
        labels: Any,
        *,
        names: Sequence[str] | None = None,
        centers: Any = None,
        noise: Literal["region"] | None = None,
    ) -> Partition:
        """Make a partition from the region of every item.

        Args:
            labels: One label an item [n_items], as a list, array, masked array, torch tensor on any device, pandas or
                polars Series, pandas Categorical, or Arrow array. Integers, and floats that are all whole, are region
                numbers: every region of ``0..max(labels)`` holds at least one item. Other hashable labels, such as
                text, name the regions, which are numbered in the order of the sorted names.
            names: One name a region; default the labels if these are names, else the region's number.
            centers: Real [n_regions, d]: what `assign` compares new embeddings with; optional.
            noise: What to do with items without a region: -1 among integers (noise of HDBSCAN) and nulls (None, NaN,
                pandas.NA). By default they are refused. "region" puts them into a region of their own, the last, which
                is named "noise"; `names` may then leave out its name.

        Raises:
            ValueError: `labels` empty, not one-dimensional, not hashable, below -1, or integers with gaps (an empty
                region could be allocated draws that nothing can serve); items without a region, unless `noise` is
                "region"; `names` or `centers` of another length; `centers` not finite.
        """
        array, found, has_noise = numbered(labels, noise)
        n_items, n_regions = array.size, int(array.max()) + 1
        wanted = "labels: expected regions 0..K-1, each with an item, got"
        if n_regions > n_items:
            largest = n_regions - 1 - has_noise
            raise ArgumentError(
                f"{wanted} {n_items} items and a region {largest}", remedy=dense(labels, missing=has_noise)
            )
        compact = array.astype(np.uint16 if n_regions <= 1 << 16 else np.uint32)
        sizes = sizes_of(compact, n_regions)
        if not sizes.all():
            empty = np.flatnonzero(sizes == 0)
            raise ArgumentError(
                f"{wanted} {len(empty)} empty regions, the first is {empty[0]}",
                remedy=dense(labels, missing=has_noise),
            )
        if names is None:
            names = [str(region) for region in range(n_regions - has_noise)] if found is None else found
            names = [*names, NOISE] if has_noise else names
        elif has_noise and getattr(names, "__len__", None) and len(names) == n_regions - 1:
            names = (*checked_names(names, n_regions - 1), NOISE)
        names = checked_names(names, n_regions)
        if centers is not None:
            centers = _frozen(as_embeddings("centers", centers).astype(np.float32))
            if len(centers) != n_regions:
                last = ", the last for the noise" if has_noise else ""
                raise ArgumentError(f"centers: expected {n_regions} rows, one a region{last}, got {len(centers)}")
        consecutive = ascending(compact)
        order = np.arange(n_items, dtype=order_dtype(n_items)) if consecutive else ordered(compact, sizes)
        return cls(
            _frozen(compact),
            _frozen(order),
            _frozen(offsets_of(sizes)),
            names,
            centers,
            _digest(sizes, None if consecutive else compact),
        )

    @classmethod
    def from_sizes(cls, sizes: Any, *, names: Sequence[str] | None = None) -> Partition:
        """Make a partition whose items stand region by region: the first ``sizes[0]`` are in region 0, and so on.

        It is equal to `from_labels` of ``numpy.repeat(range(n_regions), sizes)`` and takes no memory an item, so it
        serves sources of 10^9 documents. `labels` and `order` are made when first asked for, and then kept.
        `regions_of`, `items_of`, `items_at`, `save` and `load` never need them.

        Args:
            sizes: Number of items of each region, integers [n_regions], at least 1 each, below 2**62 together.
            names: One name a region; default the region's number.

        Raises:
            ValueError: `sizes` empty, not one-dimensional, not integers or too large; `names` of another length.
        """
        sizes = int_vector("sizes", sizes, low=1, hint="leave out the regions without items")
        if sizes.size == 0:
            raise ArgumentError("sizes: expected at least one region, got none")
        if sizes.sum(dtype=np.float64) >= 2.0**62:
            raise ArgumentError(f"sizes: expected fewer than 2**62 items together, got {sum(sizes.tolist())}")
        names = [str(region) for region in range(sizes.size)] if names is None else names
        names = checked_names(names, sizes.size)
        return cls(None, None, _frozen(offsets_of(sizes)), names, None, _digest(sizes, None))

    @classmethod
    def from_centers(
        cls,
        embeddings: Any,
        centers: Any,
        *,
        names: Sequence[str] | None = None,
        device: Any = None,
        progress: bool = False,
    ) -> Partition:
        """Make a partition of centres that are there already: each item is in the region of the nearest (Euclidean).

        Centres that hold no item are dropped with a warning, so there may be fewer regions than centres.

        Args:
            embeddings: Real [n_items, d]; read a chunk at a time. See `KMeansPartitioner.fit`.
            centers: Real [k, d]. If all have norm 1, what is nearest is so by direction.
            names: One name a centre; default the region's number.
            device: See `KMeansPartitioner`.
            progress: Show how far it is.

        Raises:
            ValueError: Shapes that do not fit, values that are not finite, `names` of another length, a device that is
                not there.
        """
        chosen = as_embeddings("centers", centers).astype(np.float32)
        rows = Rows("embeddings", embeddings, width=chosen.shape[1])
        if names is not None:
            names = checked_names(names, len(chosen))
        device = checked_device(device, float(len(rows)) * chosen.size)
        with Progress(switch("progress", progress)) as stages:
            return of_nearest(rows, chosen, names=names, device=device, progress=stages)

    def product(self, other: Partition) -> Partition:
        """Return the partition of the same items by both: prompt by source, say. Also ``self * other``.

        >>> topics = Partition.from_labels(["cat", "dog", "cat"])
        >>> (topics * Partition.from_labels(["web", "book", "web"])).names
        ('cat × web', 'dog × book')

        Two items are in one region if both partitions have them in one. Pairs of regions that share no item make no
        region, since nothing could be drawn from it. Regions are ordered by that of `self`, then by that of `other`,
        and names are joined by " × ". Items that either has removed (`without`) are removed. Centres stand side by
        side where both have them, so `assign` takes the embeddings side by side; else there are none. `terms` and
        `captions` are not carried over.

        Raises:
            ValueError: `other` is no partition, or has another number of items.
        """
        instance("other", other, Partition)
        if other.n_items != self.n_items:
            raise ArgumentError(
                f"other: expected a partition of the same {self.n_items} items, got one of {other.n_items}; for a pool "
                "of all pairs of their items, such as prompts and noise levels, call pairs",
                remedy="pool = self.pairs(other)",
            )
        cells, labels = _cells(self, other)
        found = _of_cells(self, other, cells, labels)
        gone = np.union1d(self.removed, other.removed)
        return found.without(gone) if len(gone) else found

    def __mul__(self, other: object) -> Partition:
        """Return `product`."""
        return self.product(other) if isinstance(other, Partition) else NotImplemented

    def pairs(self, other: Partition) -> Partition:
        """Return the partition of all pairs of an item of `self` and an item of `other`: prompt and noise level, say.

        >>> prompts, levels = Partition.from_labels([0, 1, 1]), Partition.from_sizes([1, 1], names=["clean", "noisy"])
        >>> pool = prompts.pairs(levels)
        >>> pool.n_items, pool.names[-1], divmod(5, levels.n_items)
        (6, '1 × noisy', (2, 1))

        Item ``i * other.n_items + j`` is the pair of i and j, so ``divmod(item, other.n_items)`` gives them back. The
        pool takes 6 bytes a pair: let `other` have an item a bin of noise levels, not an item a timestep. Names,
        centres and removed items are as for `product`.

        Raises:
            ValueError: `other` is no partition; there are 2**40 pairs or more.
        """
        instance("other", other, Partition)
        n, m = self.n_items, other.n_items
        if n * m >= _MOST_PAIRS:
            raise ArgumentError(f"other: expected fewer than {_MOST_PAIRS} pairs of items, got {n} × {m} = {n * m}")
        n_cells = self.n_regions * other.n_regions
        labels = np.empty((n, m), np.uint16 if n_cells <= 1 << 16 else np.uint32)
        step = max(1, _AT_A_TIME // m)
        for begin in range(0, n, step):
            rows = self.labels[begin : begin + step].astype(np.int64)
            labels[begin : begin + step] = rows[:, None] * other.n_regions + other.labels
        found = _of_cells(self, other, np.arange(n_cells), labels.ravel())
        gone = np.zeros((n, m), bool) if len(self.removed) + len(other.removed) else None
        if gone is None:
            return found
        gone[self.removed] = True
        gone[:, other.removed] = True
        return found.without(gone.ravel())

    def without(self, items: Any) -> Partition:
        """Return a partition like this one whose items `items` are never drawn: broken files, withdrawn prompts.

        Nothing is numbered anew. The dataset stays as it is, and an item keeps its number, a region its number, name
        and centre. A removed item keeps its region, too, so data that it has still count in a `Coverage`. A region that
        loses all of its items stays, with a size of 0; a target by size gives it nothing.

        It is another pool, with a fingerprint of its own. In mid-run make an allocator of it, and let it
        `Allocator.adopt` what the old one learnt. Removing an item twice is removing it once. A pool that `from_sizes`
        made then takes 6 bytes an item.

        Args:
            items: Integers [m] in ``0..n_items-1``, or a bool mask [n_items].

        Raises:
            ValueError: `items` out of range or no integers; no item would be left.
        """
        items = checked_items(self, items)
        gone = np.zeros(self.n_items, bool)
        gone[items] = True
        stays = ~gone[self.order]
        if not stays.any():
            raise ArgumentError(f"items: expected some items to stay, got all that can be drawn ({len(self.order)})")
        if stays.all():
            return self
        sizes = self.sizes - sizes_of(self.labels[self.order[~stays]], self.n_regions)
        gone[self.removed] = True
        whole = sizes_of(self.labels, self.n_regions)
        fingerprint = _digest(whole, None if ascending(self.labels) else self.labels, np.flatnonzero(gone))
        order = _frozen(self.order[stays])
        return replace(
            self, _labels=self.labels, _order=order, offsets=_frozen(offsets_of(sizes)), fingerprint=fingerprint
        )

    @cached_property
    def removed(self) -> IntArray:
        """Items that are never drawn (`without`), ascending, int64 [m]."""
        if self._order is None or len(self._order) == self.n_items:
            return _frozen(np.empty(0, np.int64))
        gone = np.ones(self.n_items, bool)
        gone[self._order] = False
        return _frozen(np.flatnonzero(gone))

    @property
    def n_items(self) -> int:
        """Number of items in the pool, as many as the dataset has; removed ones are among them."""
        return int(self.offsets[-1]) if self._labels is None else len(self._labels)

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> IntArray:
        """Number of items in each region that can be drawn, int64 [n_regions]; 0 only where `without` took all."""
        return _frozen(np.diff(self.offsets))

    @cached_property
    def labels(self) -> AnyArray:
        """Region of each item, integers [n_items] in ``0..n_regions-1`` (uint16 if that fits, else uint32)."""
        if self._labels is not None:
            return self._labels
        regions = np.arange(self.n_regions, dtype=np.uint16 if self.n_regions <= 1 << 16 else np.uint32)
        return _frozen(np.repeat(regions, self.sizes))

    @cached_property
    def order(self) -> AnyArray:
        """The items that can be drawn, by region, and by number inside a region, integers (uint32 if that fits)."""
        if self._order is not None:
            return self._order
        return _frozen(np.arange(self.n_items, dtype=order_dtype(self.n_items)))

    @property
    def is_implicit(self) -> bool:
        """Whether the items stand region by region, ``order[i] == i``, and neither `labels` nor `order` are stored."""
        return self._order is None

    def items_at(self, places: Any) -> IntArray:
        """Return ``order[places]``, int64 [n], without making `order`. ValueError for a place outside the pool."""
        places = int_vector("places", places, high=int(self.offsets[-1]))
        return places.copy() if self._order is None else self._order[places].astype(np.int64)

    def items_of(self, region: int) -> IntArray:
        """Return the items of one region that can be drawn, ascending, int64 [n]. ValueError if out of range."""
        region = integer("region", region, low=0, high=self.n_regions - 1)
        begin, end = int(self.offsets[region]), int(self.offsets[region + 1])
        if self._order is None:
            return np.arange(begin, end, dtype=np.int64)
        return self._order[begin:end].astype(np.int64)

    def regions_of(self, items: Any) -> IntArray:
        """Return the region of each of `items`, int64 [n]. ValueError for an item outside the pool."""
        items = int_vector("items", items, high=self.n_items, hint=_NO_ITEM)
        if self._labels is None:
            return np.asarray(np.searchsorted(self.offsets, items, side="right"), np.int64) - 1
        return self._labels[items].astype(np.int64)

    def assign(self, embeddings: Any, *, device: Any = None, progress: bool = False) -> IntArray:
        """Return the region whose centre is nearest to each new embedding (Euclidean), int64 [m].

        Args:
            embeddings: Real [m, d], d as in `centers`; read a chunk at a time, see `KMeansPartitioner.fit`. The pool
                itself does not change.
            device: Where to compare, see `KMeansPartitioner`.
            progress: Show how far it is.

        Raises:
            ValueError: The partition has no centres, the width is another, or a value is not finite; a device that is
                not there.
        """
        if self.centers is None:
            raise ArgumentError(
                "assign needs centers, and this partition was made from labels alone: make it "
                "with a partitioner, or pass centers= to Partition.from_labels"
            )
        rows = Rows("embeddings", embeddings, width=self.centers.shape[1])
        device = checked_device(device, float(len(rows)) * self.centers.size)
        with Progress(switch("progress", progress)) as stages:
            stages.stage("assigning", len(rows))
            return nearest(rows, self.centers, device=device, progress=stages)

    def named(self, texts: Any, *, embeddings: Any = None, rename: bool = False, progress: bool = False) -> Partition:
        """Return the same partition with names, `terms` and `captions` that are found in the items' texts.

        Terms are the words by which a region's captions differ from those of other regions (class-based TF-IDF). A word
        counts once a caption; letters, numbers, and words that are everywhere are left out, in any language. Captions
        are the three different ones that are nearest to the region's centre. Without embeddings or centres they are
        those with most of the region's terms. The names are the first three terms, or as many as make them different.
        No more than 256 captions of a region are read, and fewer where there are more than 4,096 regions: about a
        million in all, but 16 of each.

        Args:
            texts: The caption of every item: a list, array or Series, or an object with ``len()`` and
                ``take(items) -> list of str``, items being ascending int64. Null is an empty caption.
            embeddings: Real [n_items, d], those that the regions were made of; see `KMeansPartitioner.fit`.
            rename: Replace names that are not the region's own number, too.
            progress: Show how far it is.

        Raises:
            ValueError: `texts` of another length, or not text; `embeddings` that do not fit the centres, or a partition
                without any.
        """
        rename, captions = switch("rename", rename), Captions(texts, self.n_items)
        rows = None
        if embeddings is not None:
            if self.centers is None:
                raise ArgumentError(
                    "embeddings: expected a partition with centers, got one made from labels alone; without embeddings "
                    "captions are chosen by their terms",
                    remedy="pool = pool.named(texts)",
                )
            rows = Rows("embeddings", embeddings, width=self.centers.shape[1])
            if len(rows) != self.n_items:
                raise ArgumentError(f"embeddings: expected {self.n_items} rows, one an item, got {len(rows)}")
        with Progress(switch("progress", progress)) as stages:
            terms, typical = found_texts(
                self.items_of, self.n_regions, captions, rows=rows, centers=self.centers, progress=stages
            )
        names = tuple(found_names(self.names, terms, rename=rename))
        return replace(self, names=names, terms=Texts.of(terms), captions=Texts.of(typical))

    def describe(self, *, counts: Any = None, most: int = 10) -> PartitionSummary:
        """Return what a person wants to know before using the partition.

        Args:
            counts: Rows of data of each region, real [n_regions], such as ``coverage.counts``: says which regions are
                covered.
            most: So many of the largest, the smallest and the uncovered regions are listed.

        Raises:
            ValueError: `counts` of another length or negative; `most` out of range.
        """
        most = integer("most", most, low=0)
        if counts is not None:
            counts = float_vector("counts", counts, length=self.n_regions)
            if not (counts >= 0).all():
                raise ArgumentError(f"counts: expected numbers >= 0, got values from {counts.min()} to {counts.max()}")
        return summarised(self, counts, most)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the partition to one file, atomically; `numpy.load` can read its arrays as well."""
        arrays = {"labels": self._labels, "order": self._order, "offsets": self.offsets, "centers": self.centers}
        for name in _TEXTS:
            texts = getattr(self, name)
            if texts is not None:
                arrays |= {f"{name}_{part}": getattr(texts, part) for part in _PARTS}
        stored = {name: array for name, array in arrays.items() if array is not None}
        write(as_path("path", path), _FORMAT, stored, {"names": list(self.names), "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = False, verify: bool = False) -> Partition:
        """Read a partition that `save` wrote.

        Args:
            path: The file.
            mmap: Map the arrays instead of reading them: instant, and shared between processes. The structure of the
                file is checked, but not the checksums: a flipped bit goes unnoticed, unless you say `verify`.
            verify: Verify all checksums of a mapped file, too: it is read through once, a piece at a time. Without
                `mmap` they are always verified.

        Raises:
            PartitionFileError: The file is truncated, damaged, or no partition file.
            FileNotFoundError: There is no such file.
        """
        arrays, header = read(as_path("path", path), _FORMAT, mmap=mmap, verify=verify)
        labels, order, centers = (
            _frozen(arrays[name]) if name in arrays else None for name in ("labels", "order", "centers")
        )
        offsets = _frozen(np.array(arrays["offsets"], np.int64))
        texts = (_texts(name, arrays) for name in _TEXTS)
        return cls(labels, order, offsets, tuple(header["names"]), centers, header["fingerprint"], *texts)

    def __getstate__(self) -> dict[str, Any]:
        """The fields, without what was made from them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the fields, read-only again: copying and pickling an array make it writable."""
        for name in ("_labels", "_order", "offsets", "centers"):
            if state[name] is not None:
                _frozen(state[name])
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        """Two partitions are equal if they put every item in the same region."""
        return self.fingerprint == other.fingerprint if isinstance(other, Partition) else NotImplemented

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        """Short form: sizes and fingerprint."""
        removed = self.n_items - int(self.offsets[-1])
        more = f", removed={removed}" if removed else ""
        sizes = f"n_items={self.n_items}, n_regions={self.n_regions}{more}"
        return f"Partition({sizes}, fingerprint={self.fingerprint[:12]!r})"


def of_nearest(
    rows: Rows,
    centers: AnyArray,
    *,
    names: Sequence[str] | None = None,
    device: Any = None,
    progress: Progress = silent,
) -> Partition:
    """Return the partition of each row to the nearest of the centres, float32 [k, d]."""
    progress.stage("assigning", len(rows))
    dtype = np.uint16 if len(centers) <= 1 << 16 else np.uint32
    labels = nearest(rows, centers, device=device, progress=progress, dtype=dtype)
    return of_filled(labels, centers, names=names)


def of_filled(
    labels: AnyArray, centers: AnyArray, *, names: Sequence[str] | None = None, expected: int | None = None
) -> Partition:
    """Return the partition by these labels without the centres that hold no item; `labels` may be written to.

    Warns:
        AriaWarning: Fewer regions than centres, or than `expected`.
    """
    sizes = sizes_of(labels, len(centers))
    expected = len(centers) if expected is None else expected
    filled = np.flatnonzero(sizes)
    if len(filled) < expected:
        warnings.warn(
            f"{expected - len(filled)} of {expected} regions hold no item (are there that many "
            "distinct embeddings?) and were dropped",
            AriaWarning,
            stacklevel=outside(),
        )
    if len(filled) < len(centers):
        names = None if names is None else [names[int(region)] for region in filled]
        place = np.cumsum(sizes > 0) - 1
        for begin in range(0, len(labels), _AT_A_TIME):
            labels[begin : begin + _AT_A_TIME] = place[labels[begin : begin + _AT_A_TIME]]
        centers = centers[filled]
    return Partition.from_labels(labels, names=names, centers=centers)


def _cells(one: Partition, other: Partition) -> tuple[IntArray, AnyArray]:
    """Return the pairs of regions that share an item, ``one * other.n_regions + other``, and the place of each item."""
    n_cells, n_items = one.n_regions * other.n_regions, one.n_items

    def codes(begin: int, end: int) -> IntArray:
        return one.labels[begin:end].astype(np.int64) * other.n_regions + other.labels[begin:end]

    if n_cells > max(_AT_A_TIME, n_items):
        cells, labels = np.unique(codes(0, n_items), return_inverse=True)
        return cells, labels
    filled = np.zeros(n_cells, bool)
    for begin in range(0, n_items, _AT_A_TIME):
        filled[codes(begin, begin + _AT_A_TIME)] = True
    place = np.cumsum(filled) - 1
    labels = np.empty(n_items, np.uint32)
    for begin in range(0, n_items, _AT_A_TIME):
        labels[begin : begin + _AT_A_TIME] = place[codes(begin, begin + _AT_A_TIME)]
    return np.flatnonzero(filled), labels


def _of_cells(one: Partition, other: Partition, cells: IntArray, labels: AnyArray) -> Partition:
    """Return the partition whose regions are these pairs of regions."""
    left, right = np.divmod(cells, other.n_regions)
    names = [f"{one.names[i]} × {other.names[j]}" for i, j in zip(left.tolist(), right.tolist(), strict=True)]
    centers = None
    if one.centers is not None and other.centers is not None:
        centers = np.concatenate([one.centers[left], other.centers[right]], axis=1)
    return Partition.from_labels(labels, names=names, centers=centers)


_AT_A_TIME = 1 << 22  # labels that are int64 at one time
_MOST_PAIRS = 1 << 40
_NO_ITEM = "items are numbered from 0, in the order of the labels that the partition was made from"


def checked_items(partition: Partition, items: Any) -> IntArray:
    """Return item numbers, int64 [m], of numbers or of a bool mask; ValueError for anything else."""
    array = as_array("items", items, "item numbers [m], or a bool mask [n_items]")
    if array.dtype != bool:
        return int_vector("items", items if array.ndim == 0 else array, high=partition.n_items, hint=_NO_ITEM)
    if array.shape != (partition.n_items,):
        raise ArgumentError(
            f"items: expected a mask of shape ({partition.n_items},), one bool an item, got shape {array.shape}; "
            "pass the numbers of the items, or a mask of all items"
        )
    return np.flatnonzero(array)


def checked_names(names: Any, n_regions: int) -> tuple[str, ...]:
    """Return `names` as a tuple of text; ValueError unless a sequence (so in an order) of one name a region."""
    kind = type(names)  # pyright: ignore
    try:
        ordered = not issubclass(kind, str | bytes | Set | Mapping) and all(np.ndim(name) == 0 for name in names)
    except Exception:  # whatever an object's __iter__ or __array__ raises
        ordered = False
    if not ordered or not hasattr(names, "__len__"):
        raise ArgumentError(f"names: expected a sequence of {n_regions} names, got {shown(names)}")
    if len(names) != n_regions:
        raise ArgumentError(f"names: expected {n_regions} names, one a region, got {len(names)}")
    return tuple(map(str, names))


def _frozen(array: AnyArray) -> AnyArray:
    """Return `array`, made read-only."""
    array.flags.writeable = False
    return array


def _digest(sizes: IntArray, labels: AnyArray | None, removed: IntArray | None = None) -> str:
    """Return the identity of a pool, whatever it was made from.

    BLAKE2b over the labels, little-endian; over the sizes if the items stand region by region (`labels` is None),
    since these tell as much and can be read at once. Then over the items removed, if there are any.
    """
    what = f"aria-partition-1:{len(sizes)}:" + (f"{len(labels)}:" if labels is not None else "sizes:")
    array = sizes.astype(np.int64) if labels is None else labels
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    digest = hashlib.blake2b(what.encode(), digest_size=16)
    digest.update(little.view(np.uint8).data)
    if removed is not None:
        digest.update(b":without:")
        digest.update(np.ascontiguousarray(removed, "<i8").view(np.uint8).data)
    return digest.hexdigest()


def _texts(name: str, arrays: dict[str, AnyArray]) -> Texts | None:
    """Return the texts of that name in a file; None if there are none."""
    return Texts(*(_frozen(arrays[f"{name}_{part}"]) for part in _PARTS)) if f"{name}_bytes" in arrays else None


_DTYPES = {"labels": ("<u2", "<u4"), "order": ("<u4", "<i8"), "offsets": ("<i8",), "centers": ("<f4",)}
_ENDS = {f"{name}_{part}" for name in _TEXTS for part in ("ends", "last")}


def _fits(arrays: dict[str, AnyArray], header: dict[str, Any]) -> bool:
    """Whether the arrays of a file fit each other and the header."""
    offsets, centers = arrays["offsets"], arrays.get("centers")
    sizes, n_left = np.diff(offsets), int(offsets[-1])
    n_items = len(arrays["labels"]) if "labels" in arrays else n_left
    texts = [found for name in _TEXTS if (found := _texts(name, arrays)) is not None]
    return (
        ("labels" in arrays) == ("order" in arrays)
        and all(array.dtype.str in _DTYPES[name] for name, array in arrays.items() if not name.startswith(_TEXTS))
        and all(some.fits and len(some) == len(sizes) for some in texts)
        and ("labels" not in arrays or (arrays["labels"].shape, arrays["order"].shape) == ((n_items,), (n_left,)))
        and offsets.ndim == 1
        and len(offsets) > 1
        and offsets[0] == 0
        and bool((sizes >= (0 if n_left < n_items else 1)).all())  # only where items were removed may a region be empty
        and 0 < n_left <= n_items
        and len(header["names"]) == len(sizes)
        and isinstance(header["fingerprint"], str)
        and (centers is None or (centers.ndim == 2 and len(centers) == len(sizes)))
    )


_FORMAT = Format("partition", 1, "Partition.save", PartitionFileError, _fits, frozenset({"offsets"} | _ENDS))
