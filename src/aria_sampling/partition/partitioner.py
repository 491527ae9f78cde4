"""`Partitioner`: what makes a `Partition` from embeddings. Subclass it to cut a pool in another way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from aria_sampling.partition.partition import Partition

__all__ = ["Partitioner"]


class Partitioner(ABC):
    """Something that cuts a pool into regions, given the embeddings of its items.

    A subclass holds its settings and writes `fit`. To let `Partition.assign` put new items into the regions,
    pass the regions' centres on: ``Partition.from_labels(labels, names=names, centers=centers)``.
    """

    @abstractmethod
    def fit(self, embeddings: Any, *, names: Sequence[str] | None = None) -> Partition:
        """Return the partition of the pool whose items have these embeddings.

        Args:
            embeddings: Real [n_items, d].
            names: One name a region; default the region's number.

        Raises:
            ValueError: The embeddings or the names do not fit.
        """
