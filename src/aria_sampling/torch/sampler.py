"""`AriaSampler`: an adaptive `torch.utils.data.Sampler`, on one process or many, stopped and resumed at any batch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from aria_sampling._errors import FeedbackLagError, StateError
from aria_sampling._state import take
from aria_sampling._typing import IntArray
from aria_sampling._validation import float_vector, int_vector, integer
from aria_sampling.allocator import Allocator, Draw, take_in
from aria_sampling.torch._inbox import WEIGHTS_BEFORE, Inbox
from aria_sampling.torch._ranks import Ranks
from aria_sampling.torch._rows import match_rows, pack, unpack
from aria_sampling.torch._stream import Stream
from aria_sampling.torch._transfer import Transfer, on_device, to_array
from aria_sampling.torch.lag import asking, check_loader, explained

__all__ = ["AriaSampler"]


class AriaSampler(Sampler[int]):
    """Yields dataset indices for a `DataLoader`, batch by batch from an allocator.

    Args:
        allocator: Its partition has one region for every index of the dataset. Its lag must cover the
            batches that the loader draws ahead: `aria_sampling.torch.lag_for` says how many, and
            `aria_sampling.torch.dataloader` makes loader and sampler with it set.
        batch_size: Rows of one round: of the loader's batch on one process, of the batches of all ranks
            together in a distributed run.
        num_samples: Indices an epoch yields over all ranks; the last batch may be smaller.
        drop_last: Leave that smaller batch out. Set it where the loader has ``drop_last=True``: a batch that
            the loader drops would be a round that nobody closes.
        num_replicas: Number of ranks among which this sampler deals out the rows of each round; give it
            together with `rank` in a plain distributed run. Leave it at 1 where the framework deals them
            out itself (accelerate), and on a single process.
        rank: Number of this rank, which gets one contiguous block of every round.
        group: The `torch.distributed` process group whose ranks share the allocation; default: all of them.
        check_every: The state of all ranks is compared at every so many rounds.

    Raises:
        ValueError: An argument of the wrong type or out of its range; a `batch_size` that the ranks cannot
            share evenly, or a last batch with fewer rows than ranks.

    Call `observe` once for every batch, in order. If a batch has no loss to report (a skipped step, a
    validation pass), call `step` in its place. A new `iter` goes on after the last observed batch: a loop
    that was left in the middle of an epoch resumes with the rest of it.

    Where torch.distributed is initialised, `observe` and `step` are collective: every rank calls them for
    every batch, with whatever rows it has, none included. Feedback is summed in the order of the global
    batch, so the number of ranks changes nothing. With a lag of one more than the loader needs
    (``lag_for(loader, overlap=True)``) copies from an accelerator and exchanges between ranks go on beside the
    next step; with lag 0 they are waited for.
    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        batch_size: int,
        num_samples: int,
        drop_last: bool = False,
        num_replicas: int = 1,
        rank: int = 0,
        group: Any = None,
        check_every: int = 64,
    ) -> None:
        if not isinstance(allocator, Allocator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"allocator: expected an Allocator, got {allocator!r}")
        self.allocator = allocator
        self.batch_size = integer("batch_size", batch_size, low=1)
        self.num_samples = integer("num_samples", num_samples, low=1)
        if not isinstance(drop_last, bool | np.bool_):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"drop_last={drop_last!r}: expected True or False")
        self.drop_last = bool(drop_last)
        self.num_replicas = integer("num_replicas", num_replicas, low=1)
        self.rank = integer("rank", rank, low=0, high=self.num_replicas - 1)
        self._batches = self.num_samples // self.batch_size if drop_last else -(-self.num_samples // self.batch_size)
        self._check_sizes()
        self.epoch = 0
        self._epoch_start = allocator.round  # rounds closed before the current epoch
        self._ranks = Ranks(group, check_every)
        self._inbox = Inbox(allocator)
        self._parts: list[Any] = []  # rows reported of the round that is being reported
        self._parts_round = -1
        self._stream: Stream | None = None
        self._snapshots: deque[dict[str, Any]] = deque()  # handed to stateful loaders while their batch is in flight

    def _check_sizes(self) -> None:
        """Raise ValueError unless every rank gets rows of every batch, and of all but the last equally many."""
        if self._batches == 0:
            raise ValueError(
                f"num_samples={self.num_samples}: expected at least batch_size={self.batch_size} with drop_last=True"
            )
        if self.batch_size % self.num_replicas:
            raise ValueError(
                f"batch_size={self.batch_size}: expected a multiple of num_replicas={self.num_replicas}; it counts the "
                "rows of all ranks together"
            )
        last = self._size(self._batches - 1)
        if last < self.num_replicas:
            raise ValueError(
                f"num_samples={self.num_samples}: its last batch has {last} rows for {self.num_replicas} ranks, and a "
                "rank without a batch would leave the others waiting; use drop_last=True or another num_samples"
            )

    def deal(self, num_replicas: int, rank: int) -> None:
        """Deal the rows of every round out among `num_replicas` ranks, of which this is `rank`.

        For hosts that know their ranks only after the sampler was made (Lightning).

        Raises:
            ValueError: As on construction; nothing is changed.
            RuntimeError: A batch is open, and its rows were dealt out otherwise.
        """
        before = self.num_replicas, self.rank
        num_replicas = integer("num_replicas", num_replicas, low=1)
        rank = integer("rank", rank, low=0, high=num_replicas - 1)
        if (num_replicas, rank) != before and self.allocator.open_rounds:
            raise RuntimeError("deal() with an open batch: call it before the loader is iterated")
        self.num_replicas, self.rank = num_replicas, rank
        try:
            self._check_sizes()
        except ValueError:
            self.num_replicas, self.rank = before
            raise

    # -- what a loader sees ----------------------------------------------------------------------------

    def __len__(self) -> int:
        """Indices that this rank gets in an epoch, however many of them are still to come."""
        full, last = (self._block(self._size(batch)) for batch in (0, self._batches - 1))
        return (self._batches - 1) * (full.stop - full.start) + last.stop - last.start

    def __iter__(self) -> Iterator[int]:
        """Yield what is left of the epoch, or a new one if nothing is; nothing is drawn before it is asked for."""
        return Stream(self._next_rows, self._snapshot, self.load_state_dict)

    def set_epoch(self, epoch: int) -> None:
        """Record the epoch. The stream varies by round already, so nothing else depends on it."""
        self.epoch = integer("epoch", epoch, low=0)

    def _size(self, batch: int) -> int:
        """Return the rows of that batch of an epoch, over all ranks."""
        return min(self.batch_size, self.num_samples - batch * self.batch_size)

    def _block(self, n: int) -> slice:
        """Return which rows of a round of n are this rank's."""
        return slice(n * self.rank // self.num_replicas, n * (self.rank + 1) // self.num_replicas)

    def _begin(self, stream: Stream) -> None:
        """Let `stream` yield from the last closed round on; it takes the place of any earlier one."""
        check_loader(*asking())
        self._inbox.settle()
        closed = self.allocator.round
        if self._stream is not None and self._stream.ended and closed == self._stream.closed:
            warnings.warn(
                f"an epoch of {self._batches} batches was drawn to its end and none of them was observed, so it is "
                "drawn again: call observe() or step() once for every batch; if the loader has drop_last=True, say so "
                "to the sampler, too",
                stacklevel=4,
            )
        self._forget_open()
        if not 0 <= closed - self._epoch_start < self._batches:
            self._epoch_start = closed
        self._stream, stream.closed, stream.batch = stream, closed, closed - self._epoch_start
        self._ranks.note(closed, self.allocator.digest)

    def _next_rows(self, stream: Stream) -> list[int]:
        """Return this rank's rows of the next batch; StopIteration at the end of the epoch."""
        if stream.batch < 0:
            self._begin(stream)
        if self._stream is not stream:
            raise RuntimeError("a newer iterator of this sampler, or a loaded state, took the place of this one")
        if stream.batch >= self._batches:
            stream.ended = True
            raise StopIteration
        self._inbox.make_room()
        size = self._size(stream.batch)
        try:
            draw = self.allocator.draw(size)
        except FeedbackLagError as error:
            raise explained(error, self.allocator.lag, self.batch_size // self.num_replicas) from None
        stream.batch += 1
        return draw.items[self._block(size)].tolist()

    # -- what a trainer calls --------------------------------------------------------------------------

    @property
    def reported(self) -> int:
        """Number of batches that `observe` or `step` was called for, whether or not they are taken in yet."""
        return self.allocator.round + len(self._inbox.waiting)

    def observe(self, indices: Any, losses: Any, *, step: bool = True) -> None:
        """Credit the losses of a batch to the regions of its rows, and close its round.

        Args:
            indices: Dataset indices of the rows, integers [m], a tensor on any device or an array. Rows
                may be missing (a filtered batch), or come in several calls with ``step=False``.
            losses: Loss of each row, floating [m], a tensor on any device of any float dtype, or an array. It
                is detached here, and copied: it may be changed afterwards.
            step: Close the round; pass False for all but the last part of a batch. Collective in a
                distributed run, as `step` is.

        Raises:
            ValueError: Another shape, dtype or length, rows that are not of the batch being reported
                (something between sampler and loop reorders, or rounds were not closed), or a row reported
                twice. Nothing is changed. For tensors on an accelerator what depends on the values is found
                when they are read.
            RuntimeError: No batch is open.
        """
        if on_device(indices, losses):
            rows: Any = pack(indices, losses)
        else:
            items = self._rows_given(indices)
            values = float_vector("losses", to_array(losses), length=len(items))
            rows = np.stack([items, np.ascontiguousarray(values).view(np.int64)], axis=1)
        draw = self._inbox.reporting("observe")
        parts = self._parts if self._parts_round == draw.round else []
        on_host: list[IntArray] = [part[:, 0] for part in [*parts, rows] if not isinstance(part, Tensor)]
        if on_host:
            match_rows(np.concatenate(on_host), draw)
        elif not on_device(indices):  # the rows at least can be checked before the losses are read
            match_rows(self._rows_given(indices), draw)
        reported, room = sum(map(len, parts)) + len(rows), self._room(draw)
        if reported > room:
            raise ValueError(
                f"indices: {reported} rows reported in a batch of {room} on this rank; in a distributed run batch_size "
                f"counts all ranks together (batch_size={self.batch_size}, {self._ranks.size} ranks)"
            )
        self._parts, self._parts_round = [*parts, rows], draw.round
        if not step:
            return
        try:
            self.step()
        except BaseException:
            self._parts = parts  # these rows can be reported again
            raise

    def step(self) -> None:
        """Close the batch being reported, with what was observed of it, which may be nothing.

        Collective in a distributed run: every rank closes every batch.

        Raises:
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state. With a lag it may be raised later.
        """
        draw = self._inbox.reporting("step")
        rows = _joined(self._parts if self._parts_round == draw.round else [])
        if self._ranks.size > 1:
            wait = self._ranks.gather(
                torch.as_tensor(rows), room=self._room(draw), round_=draw.round, lag=self.allocator.lag
            )
            self._inbox.put(lambda: self._close(draw, np.concatenate(wait())), wait=True)
        elif isinstance(rows, Tensor):
            transfer = Transfer(rows)
            self._inbox.put(lambda: self._close(draw, transfer.arrays()[0]), wait=True)
        else:
            self._inbox.put(lambda: self._close(draw, rows), wait=False)
        self._parts, self._parts_round = [], -1
        if self._snapshots:  # a stateful loader may hand out the snapshot of this batch now
            self._inbox.settle()

    def weights(self, indices: Any) -> Tensor:
        """Return the importance weight of each row of the batch being reported: ``(q / p) ** correction``.

        Of the draw that the rows came from, whatever the allocation is by now; see `Draw.weights`.

        Args:
            indices: Dataset indices, integers [m]. Reading them from an accelerator waits for it: pass those
                that the loader gave, before they are moved.

        Returns:
            float32 [m], on the device of `indices`; ``.to(loss.device)`` moves them to the losses.

        Raises:
            ValueError: Rows that are not of that batch (`observe` closed theirs before?), or another shape or dtype.
            RuntimeError: No batch is open.
        """
        draw = self._inbox.reporting("weights")
        items = self._rows_given(indices)
        try:
            rows = match_rows(items, draw)
        except ValueError as error:
            raise ValueError(f"{error}{WEIGHTS_BEFORE}") from None
        weights = torch.as_tensor(draw.weights[rows].astype(np.float32))
        return weights.to(indices.device) if isinstance(indices, Tensor) else weights

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self._inbox.settle()

    def _rows_given(self, indices: Any) -> IntArray:
        """Return dataset indices as int64 [m]; ValueError for anything else."""
        return int_vector("indices", to_array(indices), high=self.allocator.partition.n_items, hint=_ONE_REGION_EACH)

    def _room(self, draw: Draw) -> int:
        """Return the most rows of a round that one rank can have."""
        return min(len(draw.items), -(-self.batch_size // self._ranks.size))

    def _close(self, draw: Draw, rows: IntArray) -> None:
        """Credit the rows of all ranks, in the order of the global batch, and close the round."""
        if self.allocator.round != draw.round:
            raise RuntimeError(f"round {draw.round} was closed on the allocator before the sampler could")
        items, losses = unpack(rows)
        place = match_rows(items, draw)
        order = np.argsort(place)
        take_in(self.allocator, draw.regions[place[order]], losses[order])
        self._ranks.note(self.allocator.round, self.allocator.digest)
        self._complete_snapshots()

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as of the last observed batch, the allocator's included. Not collective."""
        self._inbox.settle()
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "epoch_start": self._epoch_start,
            "batch_size": self.batch_size,
            "num_samples": self.num_samples,
            "drop_last": int(self.drop_last),
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next `iter` yields the rest of its epoch, on any number of ranks.

        Raises:
            StateError: (a ValueError) the state is damaged or of another configuration; nothing is changed.
        """
        for key in ("batch_size", "num_samples", "drop_last"):
            if (its := take(state, key, int)) != getattr(self, key):
                raise StateError(f"state of another sampler: {key}={its} there, {getattr(self, key)} here")
        epoch, epoch_start = take(state, "epoch", int), take(state, "epoch_start", int)
        self.allocator.load_state_dict(take(state, "allocator", dict))
        self.epoch, self._epoch_start = epoch, epoch_start
        self._forget_open()
        self._ranks.forget()

    def _forget_open(self) -> None:
        """Forget all batches in flight: they are drawn again."""
        self.allocator.rewind()
        self._inbox.waiting.clear()
        self._parts, self._parts_round, self._stream = [], -1, None
        self._snapshots.clear()

    def _snapshot(self, stream: Stream) -> dict[str, Any]:
        """Return what a stateful loader keeps with the batch just drawn.

        It takes its snapshot when it queues a batch, and hands it out after the batch was trained on. So the
        dictionary is completed as the rounds up to that batch close, and not changed any more afterwards.
        """
        rounds = self._epoch_start + stream.batch if stream.batch >= 0 else self.allocator.round
        snapshot = {"rounds": rounds, "sampler": self._state()}
        if rounds > self.allocator.round:
            self._snapshots.append(snapshot)
        return snapshot

    def _complete_snapshots(self) -> None:
        if self._snapshots:
            state = self._state()
            for snapshot in self._snapshots:
                snapshot["sampler"] = state
            while self._snapshots and self._snapshots[0]["rounds"] <= self.allocator.round:
                self._snapshots.popleft()


_ONE_REGION_EACH = (
    "the index of a sample is its number in the dataset: see WithIndex; and the partition is made for that dataset, "
    "Partition.from_labels(labels) with one label for each of its samples"
)


def _joined(parts: list[Any]) -> Any:
    """Return the rows of all parts, int64 [m, 2]: an array, or a tensor on the device that one of them is on."""
    device = next((part.device for part in parts if isinstance(part, Tensor)), None)
    if device is None:
        return np.concatenate([np.empty((0, 2), np.int64), *parts])
    return torch.cat([torch.as_tensor(part).to(device, non_blocking=True) for part in parts])
