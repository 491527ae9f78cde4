"""`AriaSampler`: an adaptive `torch.utils.data.Sampler`, on one process or many, stopped and resumed at any batch."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from aria_sampling._arrays import BoolArray, FloatArray, IntArray, take
from aria_sampling._check import instance, int_vector, integer, shown
from aria_sampling._compile import uncompiled
from aria_sampling.allocator import Allocator
from aria_sampling.errors import ArgumentError, AriaWarning, FeedbackLagError, UsageError, outside
from aria_sampling.rounds import Draw, OpenRound
from aria_sampling.torch._collective import Ranks
from aria_sampling.torch._feedback import (
    WEIGHTS_BEFORE,
    Batch,
    Part,
    in_order,
    part_of,
    read,
    to_array,
    unpack,
    wire,
)
from aria_sampling.torch._match import CYCLE, GATHERED, GROUP, LOOK, RESUMED, match
from aria_sampling.torch._resume import load_allocation, misfit
from aria_sampling.torch._stream import Stream
from aria_sampling.torch.lag import DROPS, check_loader, lag_for, raise_lag, refuse_dropped, refuse_online

__all__ = ["AriaSampler"]

Loader = TypeVar("Loader")


class AriaSampler(Sampler[int]):
    """Yields dataset indices for a `DataLoader`, batch by batch from an allocator.

    >>> import torch, aria_sampling as aria
    >>> from aria_sampling.torch import WithIndex
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> dataset = WithIndex(TensorDataset(torch.randn(100, 3)))
    >>> allocator = aria.Allocator(aria.Partition.from_labels([0] * 80 + [1] * 20), seed=0)
    >>> sampler = AriaSampler(allocator, batch_size=10, num_samples=100)
    >>> loader = sampler.attach(DataLoader(dataset, batch_size=10, sampler=sampler))
    >>> for index, (x,) in loader:
    ...     sampler.observe(index, x.square().mean(dim=1))
    >>> allocator.round
    10

    Args:
        allocator: Its partition has one region for every index of the dataset. `attach` sets its lag to what the
            loader needs; `aria_sampling.torch.dataloader` makes loader and sampler with it set.
        batch_size: Rows of one round: of the loader's batch on one process, of the batches of all ranks
            together in a distributed run.
        num_samples: Indices an epoch yields over all ranks; the last batch may be smaller.
        drop_last: Leave that smaller batch out. Set it where the loader has ``drop_last=True``: a batch that
            the loader drops would be a round that nobody closes.
        num_replicas: Number of ranks among which this sampler shards the rows of each round; give it
            together with `rank` in a plain distributed run. Leave it at 1 where the framework shards them
            itself (accelerate), and on a single process.
        rank: Number of this rank, which gets one contiguous block of every round.
        group: The `torch.distributed` process group of the ranks with different data, which share the allocation;
            default: all ranks. Give it where several ranks hold the same rows (tensor or sequence parallel).
        check_every: The state of all ranks is compared at every so many rounds.
        data_rows_per_batch: Rows over all ranks that train in the same step as a batch and come from the items that
            `Coverage` counts; default: as many as the batch has. See `Allocator.draw`.

    Raises:
        ValueError: An argument of the wrong type or out of its range; a `batch_size` that the ranks cannot
            share evenly, or a last batch with fewer rows than ranks.

    Call `observe` once for every batch, in order. If a batch has no loss to report (a skipped step, a
    validation pass), call `step` in its place. A new `iter` goes on after the last observed batch: a loop
    that was left in the middle of an epoch resumes with the rest of it, unless `new_epoch` is called.

    Where torch.distributed is initialised, `observe` and `step` are collective: every rank of the group calls them
    for every batch, with whatever rows it has, none included. Feedback is summed in the order of the global
    batch, so the number of ranks changes nothing. With a lag of one more than the loader needs
    (``attach(loader, overlap=True)``) copies from an accelerator and exchanges between ranks go on beside the
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
        data_rows_per_batch: int | None = None,
    ) -> None:
        self.allocator: Allocator = instance("allocator", allocator, Allocator)
        refuse_online(self.allocator, "an AriaSampler")
        self.batch_size = integer("batch_size", batch_size, low=1)
        self.num_samples = integer("num_samples", num_samples, low=1)
        if not isinstance(drop_last, bool | np.bool_):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"drop_last={drop_last!r}: expected True or False")
        self.drop_last = bool(drop_last)
        self.num_replicas = integer("num_replicas", num_replicas, low=1)
        self.rank = integer("rank", rank, low=0, high=self.num_replicas - 1)
        self.data_rows_per_batch = (
            None if data_rows_per_batch is None else integer("data_rows_per_batch", data_rows_per_batch, low=0)
        )
        self._batches = self.num_samples // self.batch_size if drop_last else -(-self.num_samples // self.batch_size)
        self._check_sizes()
        self.epoch = 0
        self._epoch_start = allocator.round  # rounds closed before the current epoch
        self._ranks = Ranks(group, check_every)
        self._stream: Stream | None = None
        self._keeps_snapshots = False  # a stateful loader has asked for some
        self._closed: tuple[Draw, IntArray] | None = None  # the last round that was closed, and its rows left out
        self._drops = False  # the loader drops the last batch of an epoch, which is smaller
        self._said_saved = False  # that a state is saved before its batch was observed
        self._silent: int | None = (
            None  # rounds without losses since a state was loaded; None: losses came, or no state
        )

    def _check_sizes(self) -> None:
        """Raise ValueError unless every rank gets rows of every batch, and of all but the last equally many."""
        if self._batches == 0:
            raise ArgumentError(
                f"num_samples={self.num_samples}: expected at least batch_size={self.batch_size} with drop_last=True"
            )
        if self.batch_size % self.num_replicas:
            raise ArgumentError(
                f"batch_size={self.batch_size}: expected a multiple of num_replicas={self.num_replicas}; it counts the "
                "rows of all ranks together",
                remedy="batch_size = batch_size * num_replicas",
            )
        last = self._size(self._batches - 1)
        if last < self.num_replicas:
            raise ArgumentError(
                f"num_samples={self.num_samples}: its last batch has {last} rows for {self.num_replicas} ranks, and a "
                "rank without a batch would leave the others waiting; use drop_last=True or another num_samples",
                remedy="drop_last = True" if self._batches > 1 else None,
            )

    def shard(self, num_replicas: int, rank: int) -> None:
        """Shard the rows of every round over `num_replicas` ranks, of which this is `rank`.

        For hosts that know their ranks only after the sampler was made (Lightning).

        Raises:
            ValueError: As on construction; nothing is changed.
            RuntimeError: A batch is open, and its rows were sharded otherwise.
        """
        before = self.num_replicas, self.rank
        num_replicas = integer("num_replicas", num_replicas, low=1)
        rank = integer("rank", rank, low=0, high=num_replicas - 1)
        if (num_replicas, rank) != before and len(self.allocator.rounds):
            raise UsageError(
                "shard() with an open batch: call it before the loader is iterated, or begin a new epoch, which "
                "forgets the batches in flight",
                remedy="sampler.new_epoch()",
            )
        self.num_replicas, self.rank = num_replicas, rank
        try:
            self._check_sizes()
        except ValueError:
            self.num_replicas, self.rank = before
            raise

    def attach(self, loader: Loader, *, overlap: bool = False) -> Loader:
        """Return `loader`, checked, with the allocator's lag set to what it needs.

        Call it before the first batch: on the loader that draws from this sampler, or on what ``accelerator.prepare``
        made of it. `aria_sampling.torch.dataloader` has done so. A larger lag stays.

        Args:
            loader: A `torch.utils.data.DataLoader`, torchdata's StatefulDataLoader, or one that accelerate prepared.
            overlap: Let copies from the device and exchanges between ranks go on beside the next step: one more lag.

        Raises:
            ValueError: A loader whose batches are not the rounds of this sampler: another sampler in it, a dataset
                of another length than the partition, another batch size, a batch sampler of its own, ``drop_last`` of
                which this sampler does not know, ``in_order=False``, or ranks that would get the same rows. The
                message says which line to change.
            FeedbackLagError: The allocation has begun with a smaller lag.
        """
        lag = lag_for(loader, overlap=overlap)
        check_loader(self, loader, ranks=self._ranks.size)
        raise_lag(self.allocator, lag)
        return loader

    # -- what a loader sees ----------------------------------------------------------------------------

    def __len__(self) -> int:
        """Indices that this rank gets in an epoch, however many of them are still to come."""
        full, last = (self._block(self._size(batch)) for batch in (0, self._batches - 1))
        return (self._batches - 1) * (full.stop - full.start) + last.stop - last.start

    def __iter__(self) -> Iterator[int]:
        """Yield what is left of the epoch, or a new one if nothing is; nothing is drawn before it is asked for.

        Raises:
            ValueError: The loader drops the last batch of an epoch, and the sampler does not know.
        """
        if not self.drop_last and self._asked_by_one_that_drops():
            refuse_dropped(
                self,
                DROPS,
                f"loader = DataLoader(dataset, batch_size={self.batch_size}, sampler=sampler, drop_last=True)",
            )
        return Stream(self._next_rows, self._snapshot, self.load_state_dict)

    def _asked_by_one_that_drops(self) -> bool:
        """Return whether a batch sampler that drops short batches calls `iter`: torch tells the sampler nothing."""
        frame = inspect.currentframe()
        for _ in range(2):  # this one and `__iter__`
            frame = None if frame is None else frame.f_back
        asks: Any = None if frame is None else frame.f_locals.get("self")
        return getattr(asks, "sampler", None) is self and getattr(asks, "drop_last", None) is True

    def set_epoch(self, epoch: int) -> None:
        """Record the epoch. The stream varies by round already, so nothing else depends on it."""
        self.epoch = integer("epoch", epoch, low=0)

    def new_epoch(self) -> None:
        """Leave out what is left of the epoch: the next `iter` begins a new one. Batches in flight are forgotten."""
        self.allocator.rounds.settle()
        self._forget_open()
        self._epoch_start = self.allocator.round

    def _size(self, batch: int) -> int:
        """Return the rows of that batch of an epoch, over all ranks."""
        return min(self.batch_size, self.num_samples - batch * self.batch_size)

    def _block(self, n: int) -> slice:
        """Return which rows of a round of n are this rank's."""
        return slice(n * self.rank // self.num_replicas, n * (self.rank + 1) // self.num_replicas)

    def _begin(self, stream: Stream) -> None:
        """Let `stream` yield from the last closed round on; it takes the place of any earlier one."""
        self.allocator.rounds.settle()
        closed, before = self.allocator.round, self._stream
        short_left = (
            0 < closed - self._epoch_start == self._batches - 1 and self._size(self._batches - 1) < self.batch_size
        )
        dropped = False
        if before is not None and before.ended:
            if closed == before.closed:
                self._drops = self._drops or short_left
                self.allocator.warn_once("epoch not observed", self._not_observed(short_left))
            dropped = short_left and self._drops
        self._forget_open()
        if dropped or not 0 <= closed - self._epoch_start < self._batches:
            self._epoch_start = closed
        stream.displaced = before is not None and not before.ended and before.batch > 0
        self._stream, stream.closed, stream.batch = stream, closed, closed - self._epoch_start
        self._ranks.note(closed, self.allocator.digest)

    def _not_observed(self, short: bool) -> str:
        """Return what to say of a pass of which nothing was observed; `short`: it had a short last batch alone."""
        what, again = (
            ("its last batch, which is smaller, was not observed", "It is left out from now on")
            if short
            else (f"none of its {self._batches} batches was observed", "It is drawn again")
        )
        return (
            f"an epoch was drawn to its end, and {what}. {again}: call observe() or step() once for every "
            "batch; if the loader has drop_last=True, give it to the sampler, too (sampler.attach(loader) checks that)"
        )

    def _next_rows(self, stream: Stream) -> list[int]:
        """Return this rank's rows of the next batch; StopIteration at the end of the epoch."""
        if stream.batch < 0:
            self._begin(stream)
        if self._stream is not stream:
            raise UsageError(f"a newer iterator of this sampler, or a loaded state, took the place of this one. {LOOK}")
        if stream.batch >= self._batches:
            stream.ended = True
            raise StopIteration
        size = self._size(stream.batch)
        try:
            draw = self.allocator.draw(size, data_rows=self.data_rows_per_batch)
        except FeedbackLagError:
            draw = None  # what is raised below keeps no frame of the loader alive
        if draw is None:
            begin_again = None if self.allocator.round else "sampler.new_epoch(); sampler.attach(loader)"
            raise FeedbackLagError(self._too_far_ahead(), remedy=begin_again)
        stream.batch += 1
        return draw.items[self._block(size)].tolist()

    def _too_far_ahead(self) -> str:
        """Return what to say when more rows are asked for than the lag allows."""
        first, n_open = self.allocator.round, len(self.allocator.rounds)
        rows = self.batch_size // self.num_replicas
        still = f"round {first} is" if n_open == 1 else f"rounds {first} to {first + n_open - 1} are"
        needs = f"draw of round {first + n_open}: {still} still open, and lag={self.allocator.lag}"
        every = "every batch must be followed by observe(), or by step() if it has no loss"
        if self._silent is not None:
            return f"{needs}. {RESUMED}. If there are none: {every}"
        if self._stream is not None and self._stream.displaced:
            return (
                f"{needs}. A pass over this sampler was left in the middle, and another began. {LOOK}. If not: {every}"
            )
        wrapped = (
            ". If a framework wrapped the sampler, turn that off: use_distributed_sampler=False (Lightning, Fabric), "
            "add_dist_sampler=False (Ray)"
        )
        return (
            f"{needs}. If the loader draws ahead (workers, prefetch), call sampler.attach(loader) before its first "
            f"batch, or make the Allocator with lag={n_open} or more (num_workers * prefetch_factor; one more under "
            f"accelerate). If not: {every}, also in a run without the callback (Lightning's lr_find, "
            f"scale_batch_size); the loader's batch_size must be the {rows} rows that a round has on this rank; and "
            "nothing may regroup or skip the sampler's rows (a batch sampler of buckets, skip_first_batches). attach() "
            f"checks the loader{wrapped if self._ranks.size > 1 else ''}"
        )

    # -- what a trainer calls --------------------------------------------------------------------------

    @property
    def reported(self) -> int:
        """Number of batches that `observe` or `step` was called for, whether or not they are taken in yet."""
        return self.allocator.round + self.allocator.rounds.n_reported

    @uncompiled
    def observe(self, indices: Any, losses: Any, *, step: bool = True, credit: Any = None, regions: Any = None) -> None:
        """Credit the losses of a batch to the regions of its rows, and close its round.

        Args:
            indices: Dataset indices of the rows, integers [m], a tensor on any device or an array. Rows
                may be missing (a filtered batch), or come in several calls with ``step=False``.
            losses: Loss of each row, floating [m], a tensor on any device of any float dtype, or an array. It
                is detached here, and copied: it may be changed afterwards.
            step: Close the round; pass False for all but the last part of a batch. Collective in a
                distributed run, as `step` is.
            credit: Which rows to credit, bool [m]; default: all. A row with False counts as drawn and not as a
                dropped loss: its loss was of something else (a null caption, say).
            regions: Region of each row as its sample carries it, integers [m] or the regions' names; compared with
                the partition, so that a dataset that was sorted or shuffled after the partition was made is found.
                Default: nothing is compared, and such rows are credited to other regions than their own.

        Raises:
            ValueError: Another shape, dtype or length, rows that are not of the batch being reported
                (something between sampler and loop regroups or reorders them, or rounds were not closed), or a row
                reported twice, on one rank or on two. Nothing is changed. For tensors on an accelerator what depends
                on the values is found when they are read.
            RuntimeError: No batch is open.
        """
        opened = self._reporting("observe")
        ranks = self._ranks.size
        if regions is not None:
            self._check_regions(indices, regions)
        if step and credit is None and ranks == 1 and not _parts_of(opened):
            values = in_order(indices, losses, opened.draw.items)
            if values is not None:
                self._check_asked_for(opened)
                self._silent = None
                self._report(opened, lambda: self._close(opened, None, opened.draw.regions, values), waits=False)
                return
        part = part_of(
            "indices",
            indices,
            losses,
            credit,
            high=self.allocator.partition.n_items,
            hint=_ONE_REGION_EACH,
            packed=ranks > 1,
            keep=not step,
        )
        parts = [*_parts_of(opened), part]
        place = self._check(opened, parts)
        if part.n:
            self._silent = None
        if ranks == 1:
            part.start()
        if step:
            self._send(opened, parts, place)
        else:
            _batch_of(opened).parts = parts

    @uncompiled
    def step(self) -> None:
        """Close the batch being reported, with what was observed of it, which may be nothing.

        Collective in a distributed run: every rank closes every batch.

        Raises:
            ValueError: Rows of the batch were not asked for yet: the loader's batches are smaller than the rounds.
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state. With a lag it may be raised later.
        """
        opened = self._reporting("step")
        self._send(opened, _parts_of(opened), None)
        if self._silent is not None:
            self._silent += 1
            if self._silent == _SKIPPED:
                self.allocator.warn_once(
                    "skipped after loading",
                    f"the first {_SKIPPED} batches after loading a state were closed without a loss. {RESUMED}. If "
                    "they had no loss to report, all is well",
                )

    @uncompiled
    def weights(self, indices: Any) -> Tensor:
        """Return the importance weight q / p of each row of the batch being reported.

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
        draw = self.allocator.rounds.reporting("weights").draw
        try:
            rows = self._match(self._rows_given(indices), draw)
        except ValueError as error:
            raise ArgumentError(f"{error}{WEIGHTS_BEFORE}") from None
        weights = torch.as_tensor(draw.weights[rows].astype(np.float32))
        return weights.to(indices.device) if isinstance(indices, Tensor) else weights

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self.allocator.rounds.settle()

    # -- the way of a report ---------------------------------------------------------------------------

    def _reporting(self, what: str) -> OpenRound:
        """Return the round that the next report is about.

        Raises:
            ValueError: The rows are sharded over another number of ranks than report them.
            RuntimeError: No batch is open, or the oldest is not a sampler's.
        """
        if self.num_replicas > 1 and self.num_replicas != (ranks := self._ranks.size):
            raise ArgumentError(
                f"sampler: num_replicas={self.num_replicas}, and its process group has {ranks} ranks: "
                + (GROUP if ranks > 1 else "call torch.distributed.init_process_group() first")
            )
        try:
            opened = self.allocator.rounds.reporting(what)
        except RuntimeError as error:
            draw, left = self._closed or (None, ())
            parts = (
                f". Round {draw.round} was closed with {len(draw.items) - len(left)} of its {len(draw.items)} rows: "
                "for parts of a batch pass step=False to all observe() but the last"
                if draw is not None and len(left)
                else ""
            )
            if draw is None and self._stream is None:
                parts = (
                    ". No row was asked of this sampler: sampler.attach(loader) says whether the loader draws from it; "
                    "if a framework replaced it, turn that off: use_distributed_sampler=False (Lightning, Fabric), "
                    "add_dist_sampler=False (Ray)"
                )
            elif not parts and self._stream is not None and self._stream.ended:
                parts = f". {CYCLE}"
            raise UsageError(f"{error}{parts}") from None
        if opened.context is not None and not isinstance(opened.context, _Batch):
            raise UsageError(
                f"{what}() of round {opened.draw.round}, which something else drew from this allocator; give each "
                "sampler and each RandomConditioning an Allocator of its own"
            )
        return opened

    def _rows_given(self, indices: Any) -> IntArray:
        """Return dataset indices as int64 [m]; ValueError for anything else."""
        rows = to_array(indices, "indices")
        return int_vector("indices", rows, high=self.allocator.partition.n_items, hint=_ONE_REGION_EACH)

    def _check_regions(self, indices: Any, regions: Any) -> None:
        """Raise ValueError unless the partition has the rows in those regions, which are numbers or names."""
        items, partition = self._rows_given(indices), self.allocator.partition
        ours: Any = partition.regions_of(items)
        if isinstance(regions, list | tuple) and any(isinstance(name, str) for name in cast("list[Any]", regions)):
            given: Any = np.array([str(name) for name in cast("list[Any]", regions)], object)
            ours = np.array(partition.names, object)[ours]
            if len(given) != len(items):
                raise ArgumentError(f"regions: expected {len(items)} names, one a row, got {len(given)}")
        else:
            given = int_vector("regions", to_array(regions, "regions"), length=len(items), high=partition.n_regions)
        if (wrong := (given != ours).nonzero()[0]).size:
            row = wrong[0]
            raise ArgumentError(
                f"regions: {len(wrong)} of {len(items)} rows are of another region than in the partition, the first is "
                f"item {items[row]}: region {shown(given.tolist()[row])} in its sample, {shown(ours.tolist()[row])} "
                "there. The dataset "
                "was sorted, shuffled or filtered after the partition was made, or the partition has other numbers: "
                "make it from the labels of this very dataset. Or the dataset gives another sample where one cannot be "
                "read: let it return None, and leave None out in collate_fn; or mark the sample, and pass credit="
            )

    def _check_asked_for(self, opened: OpenRound) -> None:
        """Raise ValueError if the loader did not ask for all rows of the round that is to be closed."""
        left = 0 if self._stream is None else self._stream.left
        rounds = self.allocator.rounds
        if left and rounds.n_reported == len(rounds) - 1:
            size, ranks = self._block(len(opened.draw.items)), self._ranks.size
            n = size.stop - size.start
            shards = f"; on {ranks} ranks give the sampler num_replicas= and rank=" if ranks > self.num_replicas else ""
            raise ArgumentError(
                f"batch: {n - left} of the {n} rows of round {opened.draw.round} were asked for, and it is to be "
                f"closed: the loader's batches must be the sampler's rounds, {n} rows on this rank "
                "(sampler.attach(loader) checks that); for parts of a batch pass step=False to all observe() but the "
                f"last{shards}"
            )

    def _check(self, opened: OpenRound, parts: list[Part]) -> IntArray | None:
        """Return which row of the draw each reported one is, as far as the host knows; None: not of all.

        Raises:
            ValueError: Rows that are not of the draw, more often than they were drawn, or more than a rank can have.
        """
        draw, known = opened.draw, [part.ids for part in parts if part.ids is not None]
        place = self._match(np.concatenate(known), draw) if known else None
        reported, room = sum(part.n for part in parts), self._room(draw)
        if reported > room:
            of_all = self._ranks.size > 1 and reported == len(draw.items)
            gathered = f", {GATHERED}" if of_all else ""
            ranks = (
                f"; in a distributed run batch_size counts all ranks with different data together (batch_size="
                f"{self.batch_size}, {self._ranks.size} ranks); {GROUP}"
                if self._ranks.size > 1
                else ""
            )
            raise ArgumentError(
                f"indices: {reported} rows reported in a batch of {room} on this rank{gathered}; a sample that is a "
                f"batch by itself is one row, and its loss is the mean of its losses{ranks}"
            )
        return place if len(known) == len(parts) else None

    def _room(self, draw: Draw) -> int:
        """Return the most rows of a round that one rank can have."""
        return min(len(draw.items), -(-self.batch_size // self._ranks.size))

    def _send(self, opened: OpenRound, parts: list[Part], place: IntArray | None) -> None:
        """Report a batch: at once on one process with losses on the host, otherwise once its rows have arrived."""
        self._check_asked_for(opened)
        draw, waits = opened.draw, True
        if self._ranks.size > 1:
            room, lag = self._room(draw), self.allocator.lag
            arrived = self._ranks.gather(wire(parts), room=room, round_=draw.round, lag=lag)

            def close() -> None:
                self._credit(opened, *unpack(np.concatenate(arrived())))

        else:
            waits = any(part.waits for part in parts)

            def close() -> None:
                self._credit(opened, *read(parts), place=place)

        self._report(opened, close, waits=waits)

    def _report(self, opened: OpenRound, close: Callable[[], None], *, waits: bool) -> None:
        self.allocator.rounds.report(close, wait=waits)
        batch: _Batch | None = opened.context
        if batch is None:
            return
        batch.parts = []
        if batch.snapshots:  # a stateful loader may hand out the snapshot of this batch now
            self.allocator.rounds.settle()

    def _credit(
        self,
        opened: OpenRound,
        items: IntArray,
        losses: FloatArray,
        credit: BoolArray | None,
        place: IntArray | None = None,
    ) -> None:
        """Credit the rows of all ranks, in the order of the global batch, and close the round."""
        draw = opened.draw
        place = self._match(items, draw) if place is None else place
        order = place.argsort()
        if credit is not None:
            order = order[credit[order]]
        self._close(opened, place, draw.regions[place[order]], losses[order])

    def _close(self, opened: OpenRound, place: IntArray | None, regions: IntArray, losses: FloatArray) -> None:
        """Close the round with these losses; `place`: the rows of the draw that were reported, None: all."""
        self.allocator.close_round(regions, losses)
        self._closed = opened.draw, opened.draw.items[:0] if place is None else np.delete(opened.draw.items, place)
        self._ranks.note(self.allocator.round, self.allocator.digest)
        if self._keeps_snapshots:
            self._complete_snapshots(opened)

    def _match(self, items: IntArray, draw: Draw) -> IntArray:
        """Return which row of `draw` each of `items` is; ValueError, which names the cause, unless each is one."""
        later = [opened.draw for opened in self.allocator.rounds if opened.draw.round > draw.round]
        resumed = self._silent is not None
        return match(items, [draw, *later], self._block, closed=self._closed, ranks=self._ranks.size, resumed=resumed)

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as of the last observed batch, the allocator's included. Not collective.

        Observe, then save: a batch that is not observed yet is drawn again by the run that resumes. Without workers a
        warning says so once.
        """
        rounds = self.allocator.rounds
        rounds.settle()
        handed_out = len(rounds) > 0 and self._stream is not None and self._stream.left == 0
        if handed_out and self.allocator.lag == 0 and not self._keeps_snapshots and not self._said_saved:
            self._said_saved = True  # here, not in the allocator, whose state is being asked for
            warnings.warn(
                f"state of before round {self.allocator.round}, whose batch the loader has handed out: if the "
                "optimizer has stepped with it, the run that resumes trains it again. Call observe(), then save. If it "
                "was not trained on, all is well",
                AriaWarning,
                stacklevel=outside(),
            )
        return self._state()

    def _state(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "epoch_start": self._epoch_start,
            **self._settings(),
            "allocator": self.allocator.state_dict(),
        }

    def _settings(self) -> dict[str, int]:
        """Return what must be equal for a state to fit."""
        return {
            "batch_size": self.batch_size,
            "num_samples": self.num_samples,
            "drop_last": int(self.drop_last),
            "data_rows_per_batch": -1 if self.data_rows_per_batch is None else self.data_rows_per_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next `iter` yields the rest of its epoch, on any number of ranks.

        Raises:
            StateError: (a ValueError) the state is damaged or of another configuration; nothing is changed. For a run
                that goes on with another batch size, other workers or other data, its remedy carries over what can be.
        """
        allocation = take(state, "allocator", dict)
        for key, ours in self._settings().items():
            if (theirs := take(state, key, int)) != ours:
                why = f"state of another sampler: {key}={theirs} there, {ours} here"
                raise misfit(why, self.allocator, allocation, "sampler", new_epoch=True)
        epoch, epoch_start = take(state, "epoch", int), take(state, "epoch_start", int)
        load_allocation(self.allocator, allocation, "sampler")
        self.epoch, self._epoch_start = epoch, epoch_start
        self._forget_open()
        self._closed = None
        self._silent = 0 if 0 < self.allocator.round - epoch_start < self._batches else None
        self._ranks.forget()

    def _forget_open(self) -> None:
        """Forget all batches in flight: they are drawn again."""
        self.allocator.rewind()
        self._stream = None

    def _snapshot(self, stream: Stream) -> dict[str, Any]:
        """Return what a stateful loader keeps with the batch just drawn.

        It takes its snapshot when it queues a batch, and hands it out after the batch was trained on. So the
        dictionary is completed as the rounds up to that batch close, and not changed any more afterwards.
        """
        self._keeps_snapshots = True
        rounds = self._epoch_start + stream.batch if stream.batch >= 0 else self.allocator.round
        snapshot = {"rounds": rounds, "sampler": self._state()}
        for opened in self.allocator.rounds:
            if opened.draw.round == rounds - 1:
                _batch_of(opened).snapshots.append(snapshot)
        return snapshot

    def _complete_snapshots(self, closed: OpenRound) -> None:
        """Bring the snapshots of a round that closed, and of those still open, up to date."""
        snapshots = [
            snapshot
            for opened in (closed, *self.allocator.rounds)
            if isinstance(opened.context, _Batch)
            for snapshot in opened.context.snapshots
        ]
        if snapshots:
            state = self._state()
            for snapshot in snapshots:
                snapshot["sampler"] = state


@dataclass(eq=False)
class _Batch(Batch):
    """An open round as the sampler sees it."""

    snapshots: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


def _batch_of(opened: OpenRound) -> _Batch:
    """Return what is remembered of an open round."""
    if opened.context is None:
        opened.context = _Batch()
    return opened.context


def _parts_of(opened: OpenRound) -> list[Part]:
    """Return what was reported of an open round so far."""
    return [] if opened.context is None else opened.context.parts


_SKIPPED = 2
_ONE_REGION_EACH = (
    "the index of a sample is its number in the dataset: see WithIndex; and the partition is made for that dataset, "
    "Partition.from_labels(labels) with one label for each of its samples"
)
