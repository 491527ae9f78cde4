"""How far a loader draws ahead, and whether its batches are the rounds of a sampler."""

from __future__ import annotations

from typing import Any, cast

from torch.utils.data import BatchSampler, ConcatDataset, Subset

from aria_sampling._check import kind_of
from aria_sampling.allocator import Allocator
from aria_sampling.errors import ArgumentError, FeedbackLagError
from aria_sampling.torch._collective import Ranks
from aria_sampling.torch._match import BUCKETS, GROUP

__all__ = [
    "DROPS",
    "check_length",
    "check_loader",
    "lag_for",
    "layers_of",
    "raise_lag",
    "refuse_dropped",
    "refuse_online",
]


def lag_for(loader: Any, *, overlap: bool = False) -> int:
    """Return the smallest lag that an allocator needs behind `loader`: how many rounds it draws ahead of the training.

    ``num_workers * prefetch_factor``, 0 without workers; one more for a loader that accelerate has prepared, since it
    fetches one batch ahead. The same for torchdata's StatefulDataLoader, and for any number of ranks, where a round is
    one batch on every rank. `AriaSampler.attach` sets it, and checks the loader.

    Args:
        loader: A `torch.utils.data.DataLoader`, torchdata's, or one that accelerate has prepared.
        overlap: One more, so that copies from the device and exchanges between ranks go on beside the next
            training step.

    Raises:
        ValueError: Not a loader; accelerate's dispatching one on several ranks, where only the first would draw, or its
            stateful one.
    """
    inner = getattr(loader, "base_dataloader", loader)
    workers, prefetch = getattr(inner, "num_workers", None), getattr(inner, "prefetch_factor", None)
    if not isinstance(workers, int):
        several = isinstance(loader, dict | list | tuple)
        raise ArgumentError(
            f"loader: expected a DataLoader, got {kind_of(loader)}"
            + ("; of several loaders, attach the one that this sampler draws for" if several else "")
        )
    if type(loader).__name__ == "DataLoaderDispatcher" and Ranks().size > 1:
        raise ArgumentError(
            "loader: accelerate dispatches its batches from rank 0, and the other ranks draw nothing; prepare it with "
            "DataLoaderConfiguration(dispatch_batches=False)"
        )
    if getattr(loader, "use_stateful_dataloader", False):
        raise ArgumentError(
            "loader: accelerate would take its snapshots of the sampler at the wrong batch: make the Accelerator "
            "without use_stateful_dataloader, and save the sampler's own state (attach() of our integration does)"
        )
    return workers * (prefetch or 0) + (inner is not loader) + bool(overlap)


def raise_lag(allocator: Allocator, needed: int, who: str = "this loader") -> None:
    """Set the lag of an allocator to `needed` before its first draw, or leave a larger one.

    Raises:
        FeedbackLagError: The allocation has begun with a smaller lag; the message says that `who` needs more.
    """
    if needed > allocator.lag:
        if allocator.round or len(allocator.rounds):
            begun = f"the allocation has begun with lag={allocator.lag}, and {who} draws {needed} rounds ahead"
            raise FeedbackLagError(
                f"{begun}: let it draw fewer batches ahead (num_workers, prefetch_factor), or make another Allocator "
                f"with lag={needed}, which takes over what was learnt by allocator.adopt(state, partition=...) before "
                "its first draw"
                if allocator.round
                else f"{begun}, and no round was closed yet: begin again, or make the Allocator with lag={needed}",
                remedy=None if allocator.round else "allocator.rewind()",
            )
        allocator.lag = needed


def refuse_online(allocator: Allocator, who: str) -> None:
    """Raise ValueError if the allocator has to be told with every draw which rows train anyway: `who` cannot know."""
    if allocator.coverage is not None and allocator.coverage.is_online:
        raise ArgumentError(
            f"allocator: with Coverage.online() every draw needs the rows that train anyway, which {who} does not "
            "know: make the Allocator with coverage=aria.Coverage(partition, items=...), or call allocator.draw(n, "
            "present=...) in the loop"
        )


def layers_of(loader: Any) -> list[Any]:
    """Return what a loader takes its rows from, from the outermost batch sampler down to the sampler itself."""
    outermost = getattr(loader, "batch_sampler", None)
    layers = [getattr(loader, "sampler", None) if outermost is None else outermost]
    while True:
        inner = getattr(layers[-1], "batch_sampler", None)
        inner = getattr(layers[-1], "sampler", None) if inner is None else inner
        if inner is None or isinstance(getattr(layers[-1], "allocator", None), Allocator):
            return layers
        layers.append(inner)


def check_length(allocator: Allocator, dataset: Any) -> None:
    """Raise ValueError unless a dataset has as many samples as the partition has items; one without a length may."""
    try:
        n_samples = len(dataset)
    except (TypeError, NotImplementedError):
        return
    if n_samples != (n_items := allocator.partition.n_items):
        raise ArgumentError(
            f"dataset: it has {n_samples} samples, and the allocator's partition {n_items} items: the partition was "
            "made for another dataset. Make it with one label for each sample of this one, in the same order, after "
            "any filter, select, sort or shuffle"
        )


def check_loader(sampler: Any, loader: Any, *, ranks: int) -> None:
    """Raise ValueError unless every batch of `loader` is one round of `sampler` on this rank.

    Args:
        sampler: The `AriaSampler` that its rows are to come from.
        loader: A `torch.utils.data.DataLoader`, torchdata's, or one that accelerate has prepared.
        ranks: Ranks that share the allocation; 1 where torch.distributed is not in use yet.
    """
    inner = getattr(loader, "base_dataloader", loader)
    *layers, last = layers_of(loader)
    rows = sampler.batch_size // sampler.num_replicas
    again = f"loader = DataLoader(dataset, batch_size={rows}, sampler=sampler"
    if inner.num_workers:
        again += f", num_workers={inner.num_workers}"
    plain = f"{again})" if inner is loader else None  # what accelerate prepared has to be prepared again
    if last is not sampler:
        raise ArgumentError(
            f"loader: its rows come from {type(last).__name__}, not from this sampler: give the loader sampler=sampler "
            "in the place of shuffle=True. If a framework replaced the sampler, turn that off: fabric."
            "setup_dataloaders(loader, use_distributed_sampler=False), Trainer(use_distributed_sampler=False) "
            "(Lightning), prepare_data_loader(loader, add_dist_sampler=False) (Ray)",
            remedy=plain,
        )
    check_length(sampler.allocator, inner.dataset)
    _check_parts(inner.dataset)
    if getattr(inner, "in_order", True) is False:
        raise ArgumentError(
            "loader: with in_order=False a batch overtakes another, and would be credited to its rows: leave it out",
            remedy=plain,
        )
    dealt, size = _dealt(layers, plain)
    _check_ranks(sampler, dealt, ranks)
    if size != rows:
        right = rows if dealt == 1 else f"{rows} // {dealt}"
        raise ArgumentError(
            f"loader: its batches are {size} rows{' over all ranks' * (dealt > 1)}, and this sampler gives {rows} a "
            f"round (batch_size={sampler.batch_size}, num_replicas={sampler.num_replicas}): make it with "
            f"batch_size={right}, or the sampler with batch_size={size * sampler.num_replicas}, which counts the rows "
            "of all ranks together",
            remedy=plain,
        )
    if dealt > 1 or any(layer.drop_last for layer in layers):
        why = DROPS if dealt == 1 else "accelerate fills up short batches"
        refuse_dropped(sampler, why, None if plain is None else f"{again}, drop_last=True)")


DROPS = "it has drop_last=True, and its sampler does not know"


def refuse_dropped(sampler: Any, why: str, again: str | None) -> None:
    """Raise ValueError if the sampler yields a short last batch, which its loader drops; `again` makes the loader."""
    rows = sampler.batch_size // sampler.num_replicas
    left = len(sampler) % rows
    if left and not sampler.drop_last:
        raise ArgumentError(
            f"loader: {why}: the last {left} rows of an epoch would be drawn, and their round never closed. Make the "
            "sampler with allocator.sampler(..., drop_last=True), too, and the loader with that one",
            remedy=None
            if again is None or sampler.num_replicas > 1
            else f"sampler = allocator.sampler(batch_size={rows}, num_samples={sampler.num_samples}, drop_last=True); "
            f"{again}",
        )


def _check_parts(dataset: Any) -> None:
    """Raise ValueError for a dataset made of parts that number their samples, each from 0."""
    parts: list[Any] = [dataset]
    for part in parts:
        if part is not dataset and type(part).__name__ == "WithIndex":
            raise ArgumentError(
                f"dataset: WithIndex is around parts of a {type(dataset).__name__}, so that samples have the numbers "
                "that they have there. Wrap the whole, not its parts: WithIndex(ConcatDataset([a, b])), "
                "WithIndex(Subset(a, rows))"
            )
        if isinstance(part, ConcatDataset):
            parts += cast("Any", part).datasets
        elif isinstance(part, Subset):
            parts.append(cast("Any", part).dataset)


def _dealt(layers: list[Any], plain: str | None) -> tuple[int, int]:
    """Return to how many ranks accelerate deals batches out, and the rows of these batches over all of them.

    Raises:
        ValueError: A batch sampler that skips batches, or that may regroup rows; `plain` is the loader without it.
    """
    dealt, size = 1, 1
    for layer in reversed(layers):
        kind = type(layer).__name__
        if kind == "SkipBatchSampler":
            raise ArgumentError(
                "loader: skip_first_batches would draw batches by today's probabilities only to throw them away: leave "
                "it out; after load_state_dict() the sampler yields what is left of the epoch by itself"
            )
        if kind == "BatchSamplerShard":
            dealt *= layer.num_processes
            size *= 1 if layer.split_batches else layer.num_processes
        elif isinstance(layer, BatchSampler) and type(layer).__iter__.__module__ in _PLAIN:
            size = layer.batch_size
        else:
            raise ArgumentError(
                f"loader: {kind}, between it and the sampler, may regroup the rows, and then no batch is a round: give "
                f"the loader sampler= and batch_size=, and no batch_sampler=. {BUCKETS}",
                remedy=plain,
            )
    return dealt, size


# Where batch samplers are at home whose batches are consecutive rows.
_PLAIN = ("torch.utils.data.sampler", "torchdata.stateful_dataloader.sampler")


def _check_ranks(sampler: Any, dealt: int, ranks: int) -> None:
    """Raise ValueError unless each of the ranks gets rows of its own."""
    if dealt > 1 and sampler.num_replicas > 1:
        raise ArgumentError(
            f"sampler: num_replicas={sampler.num_replicas} deals out the rows, and so does accelerate: leave "
            "num_replicas and rank out of allocator.sampler(...)"
        )
    parts = dealt * sampler.num_replicas
    if ranks > 1 and parts != ranks:
        what = f"dealt out to {parts}" if parts > 1 else "not dealt out, and all would get the same"
        raise ArgumentError(
            f"sampler: its process group has {ranks} ranks, and its rows are {what}: give it num_replicas= and rank=, "
            f"or prepare the loader with accelerate before attach(); {GROUP}"
        )
