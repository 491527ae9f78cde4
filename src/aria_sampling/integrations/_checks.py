"""What has to hold under any host: checks of the sampler that was found in a loader, and of the batches it gives.

Each message says which line of the training script to change. They are apart because they know no host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aria_sampling.torch import AriaSampler
from aria_sampling.torch.lag import cover

__all__ = ["check_sampler", "index_of", "refuse"]


def refuse(reason: Any, message: str) -> None:
    """Raise ValueError with `message` if there is a `reason`."""
    if reason:
        raise ValueError(message)


def check_sampler(sampler: Any, *, rows: int, dataset: Any, lag: int) -> AriaSampler:
    """Return `sampler`, its allocator's lag raised to `lag`, if it can work in a host that deals out the rows itself.

    Args:
        sampler: What was found inside the host's loader.
        rows: Rows of one batch of all ranks together.
        dataset: What the loader reads.
        lag: Batches that the loader draws ahead.

    Raises:
        ValueError: Another sampler, one that deals out rows itself, whose round is not `rows`, or whose partition is
            of another length than the dataset.
        FeedbackLagError: The allocation has begun, with a smaller lag.
    """
    refuse(
        not isinstance(sampler, AriaSampler),
        f"loader: its batches come from {type(sampler).__name__}, not from an AriaSampler: in DataLoader(...) put "
        "sampler=allocator.sampler(...) in the place of shuffle=True, and wrap it in no other sampler",
    )
    refuse(
        sampler.num_replicas != 1,
        f"sampler: num_replicas={sampler.num_replicas} deals out the rows, and so would the trainer: leave "
        "num_replicas and rank out of allocator.sampler(...)",
    )
    refuse(
        rows != sampler.batch_size,
        f"sampler: its round has batch_size={sampler.batch_size} rows, the batches of all ranks together have {rows}: "
        f"make it with allocator.sampler(batch_size={rows}, ...), the batch of one rank times the number of ranks",
    )
    allocator, n_samples = sampler.allocator, len(dataset)
    refuse(
        n_samples != allocator.partition.n_items,
        f"the partition has {allocator.partition.n_items} items and the dataset {n_samples}: it was made for another "
        "one. Make or load the Partition that has one label for each sample of this dataset",
    )
    cover(allocator, lag)
    return sampler


def index_of(batch: Any, key: str = "index") -> Any:
    """Return the dataset indices of a batch, ``batch["index"]``.

    Let a ``collate_fn`` return them as a list: hosts move tensors to the device, and a list stays on the host, where
    the sampler looks indices up without waiting.

    Raises:
        ValueError: The batch has no such entry; says how to bring it along.
    """
    there: Mapping[str, Any] = cast(Any, batch) if isinstance(batch, Mapping) else {}
    refuse(
        key not in there,
        f"batch: expected an entry {key!r}, got a {type(cast(Any, batch)).__name__} with {sorted(there)}: wrap the "
        f"dataset, DataLoader(WithIndex(dataset), ...), and let collate_fn return also "
        f'"{key}": [example["{key}"] for example in examples]',
    )
    return there[key]
