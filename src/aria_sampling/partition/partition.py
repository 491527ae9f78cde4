"""`Partition`: which region every item of a pool belongs to. A final, read-only value.

>>> pool = Partition.from_labels([0, 1, 1, 0, 2])
>>> pool.n_items, pool.n_regions, pool.sizes.tolist()
(5, 3, [2, 2, 1])
>>> pool.items_of(1).tolist()
[1, 2]

It costs 6 bytes an item up to 65,536 regions: a label, and a place in the CSR order (the items sorted by
region). Nothing in it changes while training, so it can be memory-mapped and shared between processes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from aria_sampling._typing import AnyArray, IntArray
from aria_sampling._validation import as_array, int_vector, integer
from aria_sampling.partition import _file
from aria_sampling.partition._assign import as_embeddings, nearest

__all__ = ["Partition", "checked_names"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Partition:
    """The region of every item of a pool. Build it with `from_labels`, a partitioner, or `load`.

    Attributes:
        labels: Region of each item, integers [n_items] in ``0..n_regions-1`` (uint16 if that fits).
        order: The items sorted by region, and by number inside a region, integers [n_items].
        offsets: Where each region begins in `order`, int64 [n_regions + 1].
        names: A name for each region, for reports; ``"0"``, ``"1"``, ... unless given.
        centers: Centre of each region, float32 [n_regions, d], if it was made from embeddings.
        fingerprint: Hex digest of the labels: the identity of the pool, which saved states carry.
    """

    labels: AnyArray
    order: AnyArray
    offsets: IntArray
    names: tuple[str, ...]
    centers: AnyArray | None
    fingerprint: str

    @classmethod
    def from_labels(
        cls,
        labels: Any,
        *,
        names: Sequence[str] | None = None,
        centers: Any = None,
    ) -> Partition:
        """Make a partition from the region of every item.

        Args:
            labels: Integers [n_items]; every region of ``0..max(labels)`` holds at least one item.
            names: One name a region; default the region's number.
            centers: Real [n_regions, d]: what `assign` compares new embeddings with; optional.

        Raises:
            ValueError: `labels` empty, not one-dimensional, not integers, negative or with gaps (an
                empty region could be allocated draws that nothing can serve); `names` or `centers`
                of another length; `centers` not finite.
        """
        array = int_vector("labels", _integers(labels))
        if array.size == 0:
            raise ValueError("labels: expected at least one item, got none")
        n_regions = int(array.max()) + 1
        if n_regions > array.size:
            raise ValueError(
                f"labels: expected regions 0..K-1, each with an item, got {array.size} items "
                f"and a region {n_regions - 1}; " + _DENSE_HINT
            )
        sizes = np.bincount(array, minlength=n_regions)
        if not sizes.all():
            empty = np.flatnonzero(sizes == 0)
            raise ValueError(
                f"labels: expected regions 0..K-1, each with an item, got {len(empty)} empty "
                f"regions, the first is {empty[0]}; " + _DENSE_HINT
            )
        if names is None:
            names = [str(region) for region in range(n_regions)]
        names = checked_names(names, n_regions)
        if centers is not None:
            centers = _frozen(as_embeddings("centers", centers).copy())
            if len(centers) != n_regions:
                raise ValueError(f"centers: expected {n_regions} rows, one a region, got {len(centers)}")
        compact = array.astype(np.uint16 if n_regions <= 1 << 16 else np.uint32)
        order = np.argsort(compact, kind="stable")
        order = order.astype(np.uint32 if array.size <= 1 << 32 else np.int64)
        offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
        return cls(
            labels=_frozen(compact),
            order=_frozen(order),
            offsets=_frozen(offsets),
            names=names,
            centers=centers,
            fingerprint=_digest(compact, n_regions),
        )

    @property
    def n_items(self) -> int:
        """Number of items in the pool."""
        return len(self.labels)

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return len(self.offsets) - 1

    @cached_property
    def sizes(self) -> IntArray:
        """Number of items in each region, int64 [n_regions]; at least 1 each."""
        return _frozen(np.diff(self.offsets))

    def items_of(self, region: int) -> IntArray:
        """Return the items of one region in ascending order, int64 [sizes[region]]. ValueError if out of range."""
        region = integer("region", region, low=0, high=self.n_regions - 1)
        return self.order[self.offsets[region] : self.offsets[region + 1]].astype(np.int64)

    def regions_of(self, items: Any) -> IntArray:
        """Return the region of each of `items`, int64 [n]. ValueError for an item outside the pool."""
        return self.labels[int_vector("items", items, high=self.n_items)].astype(np.int64)

    def assign(self, embeddings: Any) -> IntArray:
        """Return the region whose centre is nearest to each new embedding (Euclidean), int64 [m].

        Args:
            embeddings: Real [m, d], d as in `centers`; the pool itself does not change.

        Raises:
            ValueError: The partition has no centres, the width is another, or a value is not finite.
        """
        if self.centers is None:
            raise ValueError(
                "assign needs centers, and this partition was made from labels alone: make it "
                "with a partitioner, or pass centers= to Partition.from_labels"
            )
        return nearest(as_embeddings("embeddings", embeddings, width=self.centers.shape[1]), self.centers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the partition to one file, atomically; `numpy.load` can read its arrays as well."""
        arrays = {"labels": self.labels, "order": self.order, "offsets": self.offsets}
        if self.centers is not None:
            arrays["centers"] = self.centers
        _file.write(Path(path), arrays, {"names": list(self.names), "fingerprint": self.fingerprint})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap: bool = False) -> Partition:
        """Read a partition that `save` wrote.

        Args:
            path: The file.
            mmap: Map the arrays instead of reading them: instant, and shared between processes. Checksums
                are then not verified, but for the offsets'; the structure still is.

        Raises:
            PartitionFileError: The file is truncated, damaged, or no partition file.
            FileNotFoundError: There is no such file.
        """
        arrays, header = _file.read(Path(path), mmap=mmap)
        centers = arrays.get("centers")
        return cls(
            labels=_frozen(arrays["labels"]),
            order=_frozen(arrays["order"]),
            offsets=_frozen(np.array(arrays["offsets"], np.int64)),
            names=tuple(header["names"]),
            centers=None if centers is None else _frozen(centers),
            fingerprint=header["fingerprint"],
        )

    def __eq__(self, other: object) -> bool:
        """Two partitions are equal if they put every item in the same region."""
        return self.fingerprint == other.fingerprint if isinstance(other, Partition) else NotImplemented

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        """Short form: sizes and fingerprint."""
        return f"Partition(n_items={self.n_items}, n_regions={self.n_regions}, fingerprint={self.fingerprint[:12]!r})"


def checked_names(names: Any, n_regions: int) -> tuple[str, ...]:
    """Return `names` as a tuple of text; ValueError unless a sequence (so in an order) of one name a region."""
    wanted = f"a sequence of {n_regions} names"
    if (
        isinstance(names, str | bytes | Set | Mapping)
        or not getattr(names, "__len__", None)
        or as_array("names", names, wanted).ndim != 1
    ):
        raise ValueError(f"names: expected {wanted}, got {names!r}")
    if len(names) != n_regions:
        raise ValueError(f"names: expected {n_regions} names, one a region, got {len(names)}")
    return tuple(map(str, names))


def _integers(labels: Any) -> Any:
    """Return `labels`; ValueError that says what to do if they are a vector of something else than integers."""
    array = as_array("labels", labels, "integers [n_items]")
    kind = array.dtype.kind
    if array.ndim != 1 or array.size == 0 or kind in "iu":
        return labels
    first = array[:1].tolist()[0]
    hint = _DENSE_HINT
    if kind == "f":
        whole = bool((np.isfinite(array) & (array == np.rint(array))).all())
        hint = "they are whole: pass labels.astype(np.int64)" if whole else "np.digitize cuts a quantity into ranges"
    raise ValueError(
        f"labels: expected integers, got dtype {array.dtype} (the first is {type(first).__name__} {first!r}); {hint}"
    )


_DENSE_HINT = "np.unique(labels, return_inverse=True)[1] numbers any labels densely"


def _frozen(array: AnyArray) -> AnyArray:
    """Return `array`, made read-only."""
    array.flags.writeable = False
    return array


def _digest(labels: AnyArray, n_regions: int) -> str:
    """Return the identity of a pool: BLAKE2b over the number of regions and the labels, little-endian."""
    little = np.ascontiguousarray(labels.astype(labels.dtype.newbyteorder("<"), copy=False))
    digest = hashlib.blake2b(f"aria-partition-1:{n_regions}:{len(labels)}:".encode(), digest_size=16)
    digest.update(little.view(np.uint8).data)
    return digest.hexdigest()
