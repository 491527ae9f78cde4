"""Hugging Face's Trainer, drawing from an allocator: `AriaTrainer` takes the place of `transformers.Trainer`.

Tried with transformers 5.23. What the Trainer does by itself stays its own: the glue gives it a sampler, reads
the losses that the script computes, and puts one file beside each checkpoint.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# The Trainer's own types are unknown in part.

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from torch.utils.data import Sampler

from aria_sampling import Allocator, StateError
from aria_sampling.errors import ArgumentError
from aria_sampling.integrations._checks import average
from aria_sampling.torch import AriaSampler, lag_for
from aria_sampling.torch.lag import check_length, raise_lag

__all__ = ["STATE_FILE", "AriaTrainer"]

STATE_FILE = "aria_sampler.pt"

# Training arguments under which the allocation would not adapt, or not resume: what each has to be, and why.
_WANTED: dict[str, tuple[Any, str]] = {
    "remove_unused_columns": (False, "the index column would be taken away before the batch is made"),
    "train_sampling_strategy": ("random", "the allocator decides what is drawn"),
    "dispatch_batches": (None, "a round is one batch of every rank, and only rank 0 would draw"),
    "split_batches": (False, "a round is one batch of every rank"),
    "dataloader_in_order": (True, "a batch that overtakes another would be credited to its rows"),
    "ignore_data_skip": (False, "the epoch and its random numbers would start anew; skipping loads nothing here"),
}


class _Feed(Sampler[int]):
    """The sampler as the Trainer's loader sees it.

    On resume the Trainer throws away as many batches as the epoch has had. The sampler goes on where it was, and
    would lose as many of the rest, so placeholders come first: they are thrown away before any sample is loaded.
    """

    def __init__(self, sampler: AriaSampler) -> None:
        self.sampler, self.placeholders = sampler, 0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        placeholders, self.placeholders = self.placeholders, 0
        yield from repeat(0, placeholders)
        yield from self.sampler


class AriaTrainer(cast("Any", transformers.Trainer)):
    """A Trainer whose training rows an allocator draws.

    It is used, and subclassed, as a Trainer is, but for one thing: the loss of the script, be it a `compute_loss` or
    the function given as ``compute_loss_func``, returns one loss a row, floating [m], whose mean is trained on. In
    front of another subclass it is a mixin: ``class Mine(AriaTrainer, TheirTrainer)``.

    Args:
        args: All of `transformers.Trainer`.
        allocator: Over the rows of ``train_dataset``, the same on every rank. A lag that is too small for the loader
            and ``gradient_accumulation_steps`` is raised; a larger one stays.
        index: Entry of the batch that holds the row numbers; it is not passed on to the model.
        weighted: Train on the mean of weight times loss, which keeps the objective of the allocator's target.
        group: The `torch.distributed` process group of the ranks with different data; default: all ranks. Needed where
            several ranks hold the same rows (tensor, context or sequence parallel).
        kwargs: All of `transformers.Trainer`.

    Raises:
        ValueError: A training argument under which the allocation would not adapt, or, while training, a batch or a
            loss that it cannot be told of; the message says which line to change.
        FeedbackLagError: The allocation has begun with too small a lag.
        StateError: A checkpoint without the sampler's state, or with another's.

    Every batch of the loader is one round, also under gradient accumulation. `sampler` is the `AriaSampler` of the
    present run, once that has begun.
    """

    loss_is_scaled_for_ga = False  # it is a mean over one batch, which the Trainer divides by the number of batches
    _feed: Any = None

    def __init__(
        self,
        *args: Any,
        allocator: Allocator,
        index: str = "index",
        weighted: bool = False,
        group: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        for name, (wanted, why) in _WANTED.items():
            holder = self.args.accelerator_config if name.endswith("_batches") else self.args
            if (value := getattr(holder, name, None) or None) != (wanted or None):
                raise ArgumentError(f"TrainingArguments({name}={value!r}): expected {wanted!r}, since {why}")
        shared = getattr(getattr(self.accelerator, "parallelism_config", None), "non_data_parallel_size", 1)
        if shared > 1 and group is None:
            raise ArgumentError(
                f"group: {shared} ranks each hold the same rows (tensor, context or sequence parallel); pass group=, "
                'the process group of the ranks with different data, accelerator.torch_device_mesh["dp"].get_group()'
            )
        self._ranks, self._group = self.accelerator.num_processes // shared, group  # with different data
        self.allocator, self._index, self._weighted = allocator, index, weighted
        # What a subclass makes of these two comes under their own names, and checked under those that the loop calls.
        self._losses, self.compute_loss = self.compute_loss, self._mean_loss
        self._loader, self.get_train_dataloader = self.get_train_dataloader, self._checked_loader

    def _get_train_sampler(self, *_: Any) -> _Feed:
        check_length(self.allocator, self.train_dataset)
        rows, ranks = len(self.train_dataset), self._ranks
        drop_last = self.args.dataloader_drop_last or ranks > 1  # accelerate would fill up a short batch
        size = self._train_batch_size * ranks
        options: dict[str, Any] = {"drop_last": drop_last, "group": self._group}
        self.sampler = self.allocator.sampler(batch_size=size, num_samples=rows, **options)
        self._feed = _Feed(self.sampler)
        return self._feed

    def _checked_loader(self) -> Any:
        """Return the loader, the lag now covering it; ValueError unless the allocator's sampler decides its batches."""
        loader = self._loader()
        shards, batches = 0, loader.batch_sampler
        while hasattr(batches, "batch_sampler"):
            shards, batches = shards + 1, batches.batch_sampler
        alone = getattr(batches, "sampler", None) is self._feed and shards == (self._ranks > 1)
        if self._feed is None or not alone:
            raise ArgumentError(
                "train dataloader: something replaced the allocator's sampler, or deals its batches out a second time; "
                "remove your own _get_train_sampler, get_train_dataloader, sharding (a stream needs RegionMixture)"
            )
        together = self.args.gradient_accumulation_steps  # batches that the Trainer fetches at once
        raise_lag(self.allocator, lag_for(loader) + together - 1, f"this loader, with {together} accumulation steps,")
        return loader

    def _mean_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        """Return the mean of the script's losses; if this is a training step, report them.

        ``num_items_in_batch``, by which the Trainer would normalise over tokens, is left out: losses are per row.
        """
        rows = inputs.pop(self._index, None)
        if model.training and rows is None:
            raise ArgumentError(f"inputs: no {self._index!r}; use train_dataset=WithIndex(dataset), and collate it too")
        outcome = self._losses(model, inputs, return_outputs=return_outputs)
        # a script's compute_loss that knows of no outputs returns the losses alone
        losses, outputs = outcome if isinstance(outcome, tuple) else (outcome, {})
        if model.training and losses.shape != rows.shape:
            raise ArgumentError(
                f"compute_loss (or compute_loss_func): expected one loss a row, shape {tuple(rows.shape)}, got "
                f"{tuple(losses.shape)}; use reduction='none' and do not return loss.mean()"
                f"{average(losses, len(rows))}"
            )
        mean = (losses * self.sampler.weights(rows) if model.training and self._weighted else losses).mean()
        if model.training:
            self.sampler.observe(rows, losses)
        return (mean, outputs) if return_outputs else mean

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate a batch. The row numbers of an evaluation set that has some do not go to the model."""
        return super().prediction_step(
            model, {name: entry for name, entry in inputs.items() if name != self._index}, *args, **kwargs
        )

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log `logs`, and with those of training `Allocator.metrics` as ``aria/...``."""
        metrics = self.allocator.metrics() if "loss" in logs else {}
        super().log(logs | {f"aria/{name}": value for name, value in metrics.items()}, *args, **kwargs)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            torch.save(self.sampler.state_dict(), Path(output_dir, STATE_FILE))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if not Path(checkpoint, STATE_FILE).is_file():
            why = f"{checkpoint} has no {STATE_FILE}: it was saved without AriaTrainer, or with save_only_model=True"
            raise StateError(f"{why}. To begin an allocation, load its weights, and leave out resume_from_checkpoint")
        state = torch.load(Path(checkpoint, STATE_FILE), weights_only=True)
        self.sampler.load_state_dict(state)
        begun = (self.allocator.round - state["epoch_start"]) * self.sampler.batch_size  # rows of this epoch
        self._feed.placeholders = begun if begun < len(self.sampler) else 0
