"""Lightning's Trainer with an allocator's sampler behind its loader: `AriaCallback` reports, checks, saves and logs.

Tried with lightning 2.6. The loader is made as it always is; the callback is all that Lightning is told of.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# Some of Lightning's own types are unknown.

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from aria_sampling import FeedbackLagError, StateError
from aria_sampling._check import shown
from aria_sampling.errors import ArgumentError
from aria_sampling.integrations._checks import average
from aria_sampling.torch import AriaSampler

__all__ = ["AriaCallback"]


class AriaCallback(Callback):
    """Closes one round of a sampler for every batch, and keeps its state with the checkpoints.

    Args:
        sampler: That of the train loader, made alike on every rank, its ``batch_size`` counting the rows of all
            ranks. The callback tells it which rank it is on.
        index: Entry of the batch that holds the row numbers; in a batch that is a tuple they come first, as
            `aria_sampling.torch.WithIndex` puts them.
        losses: Entry of what ``training_step`` returns that holds one loss a row, floating [m].

    Raises:
        ValueError: When training starts: `use_distributed_sampler`, or what `AriaSampler.attach` refuses. After a
            batch: its rows or losses are not there, and ``training_step`` has not called the sampler's `observe` or
            `step` itself. Each message says which line to change.
        FeedbackLagError: The loader draws further ahead than the lag. A loader that is given to ``fit`` sets it; one
            that the module makes, ``return sampler.attach(DataLoader(...))``.
        StateError: A checkpoint without the sampler's state, or with another's.

    Every batch is one round, also under gradient accumulation, with automatic and with manual optimization.
    """

    def __init__(self, sampler: AriaSampler, *, index: str = "index", losses: str = "per_sample_loss") -> None:
        super().__init__()
        self.sampler, self._index, self._losses = sampler, index, losses
        self._reported = 0  # batches, before the present one

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Shard the rows over the ranks, and set the lag if the loader was given to ``fit``."""
        if stage != "fit":
            return
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ArgumentError("Trainer: it would replace the sampler on several ranks; use_distributed_sampler=False")
        self.sampler.shard(**(trainer.distributed_sampler_kwargs or {"num_replicas": 1, "rank": 0}))
        # before its workers draw; a loader that the module makes itself is checked when training starts
        if isinstance(loader := getattr(trainer.fit_loop._data_source, "instance", None), DataLoader):
            self.sampler.attach(loader)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a loader that is not the sampler's."""
        self._check(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Refuse a loader that is not the sampler's: it may have been made anew."""
        self._check(trainer)

    def _check(self, trainer: Any) -> None:
        loader, sampler = trainer.train_dataloader, self.sampler
        sampler.attach(loader)
        size = sampler.batch_size // sampler.num_replicas
        batches = -(-len(sampler) // size)
        if trainer.num_training_batches != batches and not trainer.fast_dev_run:
            raise ArgumentError(
                f"Trainer: {trainer.num_training_batches} batches an epoch, and the sampler draws {batches}; leave out "
                "limit_train_batches (the sampler's num_samples is the length)"
            )

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note which round the batch is."""
        self._reported = self.sampler.reported

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Report the batch, unless ``training_step`` did, and log `Allocator.metrics` as ``aria/...``."""
        if self.sampler.reported == self._reported:
            find: Any = getattr(batch, "get", {}.get)
            rows = batch[0] if isinstance(batch, tuple | list) else find(self._index)
            if getattr(rows, "ndim", 0) != 1:
                raise ArgumentError(
                    f"batch: no row numbers, as entry {self._index!r} or first in a tuple; use "
                    "DataLoader(WithIndex(dataset), ...), and let a collate_fn of your own keep them"
                )
            losses = (outputs or {}).get(self._losses)
            shape = getattr(losses, "shape", None)
            if shape != rows.shape:
                its = "nothing" if losses is None else shown(losses) if shape is None else f"shape {tuple(shape)}"
                raise ArgumentError(
                    f"training_step: round {self._reported} was not closed: expected one loss a row, shape "
                    f"{tuple(rows.shape)}, as {self._losses!r}, got {its}; use reduction='none' and return {{'loss': "
                    f"loss.mean(), {self._losses!r}: loss}}{average(losses, len(rows))} (for a batch without a loss, "
                    "call sampler.step() in it)"
                )
            self.sampler.observe(rows, losses)
        if trainer.log_every_n_steps and trainer.global_step % trainer.log_every_n_steps == 0:
            metrics = self.sampler.allocator.metrics()
            pl_module.log_dict({f"aria/{name}": value for name, value in metrics.items()}, on_step=True, on_epoch=False)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let a lag that is too small be seen: where workers find it, Lightning's teardown fails and hides it."""
        if isinstance(exception, FeedbackLagError):
            raise exception

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state as of the last batch. Not collective."""
        return self.sampler.state_dict()

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Go to where the checkpoint was saved. The first epoch is the rest of the one that it was saved in.

        Lightning counts an epoch as trained that ``max_steps`` or a callback cut short, and would leave out its other
        batches, or count them as an epoch of their own. In the checkpoint that it continues from, not in the file, that
        epoch is put back to unfinished, as in a checkpoint that was saved after its last batch.
        """
        if trainer.state.fn != "fit":
            return
        if (state := checkpoint["callbacks"].get(self.state_key)) is None:
            why = "checkpoint: no state of AriaCallback: it was saved without it"
            raise StateError(f"{why}. To begin an allocation, load its weights into the model, and leave out ckpt_path")
        self.sampler.load_state_dict(state)
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]
        if batches["is_last_batch"] or not batches["current"]["processed"]:
            return
        for epochs in loop["epoch_progress"].values():
            epochs["processed"] = min(epochs["processed"], epochs["started"] - 1)
            epochs["completed"] = min(epochs["completed"], epochs["processed"])
