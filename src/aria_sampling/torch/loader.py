"""A loader made with the right lag, and datasets whose samples say which one they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch.utils.data import DataLoader, Dataset

from aria_sampling._check import instance, integer, shown
from aria_sampling.allocator import Allocator
from aria_sampling.errors import ArgumentError
from aria_sampling.torch.lag import check_length
from aria_sampling.torch.sampler import AriaSampler

__all__ = ["WithIndex", "dataloader"]


def dataloader(
    dataset: Any,
    allocator: Allocator,
    *,
    batch_size: int = 1,
    num_samples: int | None = None,
    drop_last: bool = False,
    overlap: bool = False,
    num_replicas: int = 1,
    rank: int = 0,
    group: Any = None,
    check_every: int = 64,
    data_rows_per_batch: int | None = None,
    loader_class: Any = DataLoader,
    **kwargs: Any,
) -> Any:
    """Return a loader over `dataset` that draws from `allocator`, with the allocator's lag set to what it needs.

    The sampler is ``loader.sampler``: call ``loader.sampler.observe(indices, losses)`` for every batch.

    >>> import torch, aria_sampling as aria
    >>> from torch.utils.data import TensorDataset
    >>> allocator = aria.Allocator(aria.Partition.from_labels([0] * 50 + [1] * 50), seed=0)
    >>> loader = dataloader(TensorDataset(torch.arange(100)), allocator, batch_size=10, num_workers=2)
    >>> allocator.lag
    4

    Args:
        dataset: Map-style; its samples must carry their index (`WithIndex` adds it).
        allocator: Its partition has one region for every index of the dataset. Its lag is raised to
            `lag_for` of the loader; a larger one stays.
        batch_size: Rows of one round, over all ranks.
        num_samples: Indices an epoch yields over all ranks; default: the length of the dataset.
        drop_last: Leave out a last batch that is smaller.
        overlap: See `lag_for`.
        num_replicas: See `AriaSampler`.
        rank: See `AriaSampler`.
        group: See `AriaSampler`.
        check_every: See `AriaSampler`.
        data_rows_per_batch: See `AriaSampler`.
        loader_class: `torch.utils.data.DataLoader`, or torchdata's StatefulDataLoader.
        kwargs: Passed to the loader: ``num_workers``, ``collate_fn``, ...

    Raises:
        ValueError: An argument out of its range, or one that the sampler takes the place of (``shuffle``,
            ``sampler``, ``batch_sampler``), or a partition of another size than the dataset; what
            `AriaSampler.attach` refuses.
        FeedbackLagError: The allocation has begun with a smaller lag than the loader needs.
    """
    for name in ("sampler", "batch_sampler", "shuffle"):
        if kwargs.get(name):
            raise ArgumentError(f"{name}={shown(kwargs[name])}: the allocator decides what is drawn; leave this out")
    instance("allocator", allocator, Allocator)
    try:
        n_samples = len(dataset)
    except TypeError:
        raise ArgumentError(
            f"dataset: expected a map-style one, which has a length, got {type(dataset).__name__}; RegionMixture draws "
            "from streams"
        ) from None
    check_length(allocator, dataset)
    sampler = AriaSampler(
        allocator,
        batch_size=batch_size,
        num_samples=n_samples if num_samples is None else integer("num_samples", num_samples, low=1),
        drop_last=drop_last,
        num_replicas=num_replicas,
        rank=rank,
        group=group,
        check_every=check_every,
        data_rows_per_batch=data_rows_per_batch,
    )
    size = sampler.batch_size // sampler.num_replicas
    loader = loader_class(dataset, batch_size=size, sampler=sampler, drop_last=sampler.drop_last, **kwargs)
    return sampler.attach(loader, overlap=overlap)


class WithIndex(Dataset[Any]):
    """A map-style dataset whose samples say which one they are.

    A sample that is a dictionary gets an entry "index"; any other becomes ``(index, sample)``. None stays None, for a
    ``collate_fn`` that leaves out what could not be read. Everything else is the dataset's own: ``column_names``,
    ``features``, ``set_epoch``, and ``__getitems__``, by which a dataset gives a whole batch at once.

    Wrap the whole dataset, not its parts: ``WithIndex(ConcatDataset([a, b]))``.

    >>> WithIndex(["a", "b"])[1], WithIndex([{"x": 3}])[0]
    ((1, 'b'), {'x': 3, 'index': 0})

    Args:
        dataset: Anything with ``__getitem__`` and ``__len__``.
        key: Name of the entry in samples that are dictionaries, for those that have an "index" already.

    Raises:
        ValueError: It has not both, or `key` is no text.
    """

    def __init__(self, dataset: Any, *, key: str = "index") -> None:
        if not all(hasattr(dataset, name) for name in ("__getitem__", "__len__")):
            raise ArgumentError(
                f"dataset: expected a map-style one, with __getitem__ and __len__, got {type(dataset).__name__}; "
                "RegionMixture draws from streams"
            )
        if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"key={shown(key)}: expected the name of an entry")
        self.dataset, self.key = dataset, key

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return the sample with its index; ValueError if it has an entry of that name already."""
        return self._numbered(index, self.dataset[index])

    def _numbered(self, index: int, sample: Any) -> Any:
        if sample is None:
            return None
        if not isinstance(sample, Mapping):
            return index, sample
        entries = cast("Mapping[str, Any]", sample)
        if self.key in entries:
            other = "row" if self.key == "index" else f"{self.key[:40]}_of_row"
            raise ArgumentError(
                f"dataset: its samples have an entry {shown(self.key)} already, and WithIndex would replace it. If it "
                "is the number of the sample in this dataset, leave WithIndex out; if not, name the number otherwise",
                remedy=f"dataset = WithIndex(dataset, key={other!r})",
            )
        return {**entries, self.key: index}

    def __getattr__(self, name: str) -> Any:
        """Return what the dataset has under that name."""
        if name == "__getitems__":  # of a dataset that has it: torch's loaders ask
            several = self.dataset.__getitems__

            def with_indices(indices: list[int]) -> list[Any]:
                return [self._numbered(index, sample) for index, sample in zip(indices, several(indices), strict=True)]

            return with_indices
        # not there yet while it is unpickled; what Python asks for
        if name in ("dataset", "key") or name.startswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.dataset, name)
