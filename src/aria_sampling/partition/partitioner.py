"""`Partitioner`: what makes a `Partition` from embeddings. Subclass it to cut a pool in another way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from aria_sampling._arrays import AnyArray
from aria_sampling.partition._assign import as_embeddings
from aria_sampling.partition.partition import Partition

__all__ = ["Partitioner"]


class Partitioner(ABC):
    """Something that cuts a pool into regions, given the embeddings of its items.

    A subclass holds its settings and writes `fit`. To let `Partition.assign` put new items into the regions,
    pass the regions' centres on: ``Partition.from_labels(labels, names=names, centers=centers)``, or let
    `Partition.from_centers` put all items to the nearest. `aria_sampling.testing.check_partitioner` checks it.
    """

    @abstractmethod
    def fit(self, embeddings: Any, *, names: Sequence[str] | None = None) -> Partition:
        """Return the partition of the pool whose items have these embeddings. The same one every time.

        Args:
            embeddings: Real [n_items, d], as an array, or an object with ``shape``, ``dtype``, ``len()``, slices and a
                sorted array of row numbers as an index; not to be changed.
            names: One name a region; default the region's number. They may be refused.

        Raises:
            ValueError: The embeddings or the names do not fit, or an embedding is not finite.
        """

    @staticmethod
    def checked(embeddings: Any) -> AnyArray:
        """Return embeddings of any kind as one real array [n_items, d], for a `fit` that needs them whole.

        Raises:
            ValueError: They have another shape, are no numbers, or not finite as float32.
        """
        return as_embeddings("embeddings", embeddings)
