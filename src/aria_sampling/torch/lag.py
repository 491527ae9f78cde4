"""How far a loader draws ahead: the lag that an allocator behind it needs."""

from __future__ import annotations

import inspect
from typing import Any

from torch.utils.data import BatchSampler, DataLoader

from aria_sampling._errors import FeedbackLagError
from aria_sampling.allocator import Allocator
from aria_sampling.torch._ranks import Ranks

__all__ = ["asking", "check_loader", "cover", "explained", "lag_for"]


def lag_for(loader: Any, *, overlap: bool = False) -> int:
    """Return the smallest lag that an allocator needs behind `loader`: how many rounds it draws ahead of the training.

    ``num_workers * prefetch_factor``, 0 without workers; one more for a loader that accelerate has prepared, since it
    fetches one batch ahead. The same for torchdata's StatefulDataLoader, and for any number of ranks, where a round is
    one batch on every rank.

    Args:
        loader: A `torch.utils.data.DataLoader`, torchdata's, or one that accelerate has prepared.
        overlap: One more, so that copies from the device and exchanges between ranks go on beside the next
            training step.

    Raises:
        ValueError: Not a loader; accelerate's dispatching one on several ranks, where only the first would draw, or its
            stateful one; an `AriaSampler` in it that was not told of its ``drop_last=True``, or whose partition is
            larger than the dataset.
    """
    inner = getattr(loader, "base_dataloader", loader)
    workers, prefetch = getattr(inner, "num_workers", None), getattr(inner, "prefetch_factor", None)
    if not isinstance(workers, int):
        raise ValueError(f"loader: expected a DataLoader, got {type(loader).__name__}")
    if type(loader).__name__ == "DataLoaderDispatcher" and Ranks().size > 1:
        raise ValueError(
            "loader: accelerate dispatches its batches from rank 0, and the other ranks draw nothing; prepare it with "
            "DataLoaderConfiguration(dispatch_batches=False)"
        )
    if getattr(loader, "use_stateful_dataloader", False):
        raise ValueError(
            "loader: accelerate would take its snapshots of the sampler at the wrong batch: make the Accelerator "
            "without use_stateful_dataloader, and save the sampler's own state (attach() of our integration does)"
        )
    check_loader(
        getattr(inner, "batch_sampler", None) or getattr(inner, "sampler", None), getattr(inner, "dataset", None)
    )
    ahead = workers * (prefetch or 0)
    return ahead + (inner is not loader) + bool(overlap)


def check_loader(batches: Any, dataset: Any) -> None:
    """Raise ValueError if a loader with this batch sampler and dataset would leave rows of an `AriaSampler` behind.

    Another sampler, and a dataset without a length, are left alone.
    """
    layers = [batches]
    while (inner := getattr(layers[-1], "batch_sampler", None) or getattr(layers[-1], "sampler", None)) is not None:
        layers.append(inner)
    sampler = layers.pop()
    if not isinstance(allocator := getattr(sampler, "allocator", None), Allocator):
        return
    try:
        n_samples = len(dataset)
    except (TypeError, NotImplementedError):
        n_samples = allocator.partition.n_items
    if n_samples < allocator.partition.n_items:
        raise ValueError(
            f"dataset: it has {n_samples} samples, and the allocator's partition {allocator.partition.n_items} items: "
            "samples would be drawn that are not there. Make the partition with one label for each of its samples"
        )
    for layer in layers:
        drops = not sampler.drop_last and getattr(layer, "drop_last", False)
        if drops and (left := len(sampler) % layer.batch_size):
            raise ValueError(
                f"loader: it has drop_last=True, and its sampler does not know: the last {left} rows of an epoch would "
                "be drawn and never trained on, and their round never closed. Make the sampler with "
                "allocator.sampler(..., drop_last=True), too, or both with aria_sampling.torch.dataloader(...)"
            )


def asking() -> tuple[Any, Any]:
    """Return batch sampler and dataset of the loader that is asking the caller for rows, None each if that is unknown.

    It looks at the frames of loaders only: what f_locals returns of a trainer's frame would keep its tensors alive.
    """
    batches = dataset = None
    here = inspect.currentframe()
    frame = here and here.f_back
    del here
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LOADERS:
        caller = frame.f_locals.get("self")
        batches, dataset = getattr(caller, "_index_sampler", batches), getattr(caller, "_dataset", dataset)
        frame = frame.f_back
    return batches, dataset


_LOADERS = ("aria_sampling", "torch", "torchdata", "accelerate")


def cover(allocator: Allocator, needed: int, who: str = "this loader") -> None:
    """Raise the lag of an allocator to `needed`, or leave a larger one.

    Raises:
        FeedbackLagError: The allocation has begun with a smaller lag; the message says that `who` needs more.
    """
    if needed > allocator.lag:
        if allocator.round or allocator.open_rounds:
            raise FeedbackLagError(
                f"the allocation has begun with lag={allocator.lag}, and {who} draws {needed} rounds ahead: make "
                f"the Allocator with lag={needed}"
            )
        allocator.lag = needed


def explained(error: FeedbackLagError, lag: int, rows: int) -> FeedbackLagError:
    """Return `error` in terms of the loader that is iterating.

    That is if one is whose batches are not of `rows`, or that draws further ahead than `lag`.
    """
    loaders: list[Any] = []
    sizes: list[int] = []
    here = inspect.currentframe()
    # not of the frames that know `error`: what f_locals returns stays with its frame, which `error` holds, and an error
    # in such a circle would keep the workers of the loader waiting
    frame = here and here.f_back and here.f_back.f_back
    del here
    while frame is not None:
        caller = frame.f_locals.get("self")
        if type(caller).__name__ == "SkipBatchSampler":
            return FeedbackLagError(
                "skip_first_batches draws batches only to throw them away, and their rounds are never closed: leave it "
                "out. After load_state_dict() the sampler yields what is left of the epoch by itself"
            )
        loaders += [caller] if isinstance(caller, DataLoader) else []
        sizes += [caller.batch_size] if isinstance(caller, BatchSampler) else []
        frame = frame.f_back
    prepared = any(hasattr(loader, "base_dataloader") for loader in loaders)  # whose batches are parts of a round
    if sizes and sizes[0] != rows and not prepared:
        return FeedbackLagError(
            f"the loader has batch_size={sizes[0]}, and this sampler gives it {rows} rows a round: make both the same "
            "(the sampler's batch_size counts all ranks), or the loader with aria_sampling.torch.dataloader(...)"
        )
    if not loaders or lag_for(loaders[-1]) <= lag:
        return error
    loader = loaders[-1]  # the outermost: it may wrap another
    needed = lag_for(loader)
    return FeedbackLagError(
        f"lag={lag} is too small for this loader, which draws {needed} rounds ahead (num_workers={loader.num_workers}, "
        f"prefetch_factor={loader.prefetch_factor}): make the Allocator with lag={needed}, or the loader with "
        "aria_sampling.torch.dataloader(...), which sets it"
    )
