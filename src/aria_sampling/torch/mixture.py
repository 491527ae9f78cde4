"""`RegionMixture`: adaptive mixing of streams, for corpora that can only be iterated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from aria_sampling._arrays import BoolArray, FloatArray, IntArray, take
from aria_sampling._check import instance, int_vector, integer, shown
from aria_sampling._compile import uncompiled
from aria_sampling.allocator import Allocator
from aria_sampling.errors import ArgumentError, StateError, UnsizedError, UsageError
from aria_sampling.partition import Partition
from aria_sampling.rounds import Draw, OpenRound
from aria_sampling.torch._collective import Ranks
from aria_sampling.torch._feedback import WEIGHTS_BEFORE, Batch, Part, part_of, read, to_array, unpack, wire
from aria_sampling.torch._match import CYCLE, GATHERED, LOOK
from aria_sampling.torch._resume import load_allocation, misfit
from aria_sampling.torch._source import Source
from aria_sampling.torch.lag import lag_for, raise_lag, refuse_online

__all__ = ["RegionMixture"]

Loader = TypeVar("Loader")


class RegionMixture(IterableDataset[Any]):
    """An iterable dataset that takes each sample from the stream of the region that the allocator names.

    For webdataset, Hugging Face's streaming datasets, mosaicml's, or any iterables.

    >>> from torch.utils.data import DataLoader
    >>> mixture = RegionMixture({"news": range(0, 100), "code": range(100, 200)}, batch_size=4, num_samples=40)
    >>> for region, sample in DataLoader(mixture, batch_size=4):
    ...     mixture.observe(region, losses=1.0 + region)  # one loss a sample
    >>> mixture.allocator.round
    10

    Args:
        sources: An iterable for each region, by its name. One that ends is started again. An iterator, which
            cannot be started again, must not end.
        allocator: Over as many regions, in the order of `sources`; which items its partition has does not
            matter. Default: all regions with the same target, ``target="uniform"``.
        batch_size: Samples of one round, over all ranks.
        num_samples: Samples an epoch yields over all ranks, a multiple of `batch_size`; default: it never ends.
        num_replicas: Number of ranks over which the samples of a round are sharded.
        rank: Number of this rank, which has sources of its own.
        group: The `torch.distributed` process group of the ranks with different data, which share the allocation;
            default: all ranks.
        check_every: The state of all ranks is compared at every so many rounds.

    Raises:
        ValueError: No sources, another number than the allocator's regions, one iterator (or one object with a state
            of its own) for two regions, or an argument out of its range. While it is iterated: an empty source, an
            iterator that has ended, or samples that have an entry "region" already.

    A sample that is a dictionary gets an entry "region"; any other becomes ``(region, sample)``, region being the
    number of its source. None stays None, for a ``collate_fn`` that leaves out what could not be read. Iterate it with
    ``num_workers=0``: a worker process would draw from a copy of the allocator that never sees a loss. Give workers to
    the sources. A sample that is a batch by itself is one sample: report the mean of its losses.

    Resuming is as exact as the sources are. Those with ``state_dict`` and ``load_state_dict`` are asked to go to
    their place: torchdata's loaders and nodes do, and Hugging Face's IterableDataset does but for
    ``shuffle(buffer_size=...)``, whose buffer is not in its state (a warning says so). Other iterables must yield the
    same samples in the same order each time: as many are skipped as were taken, and if these are others than before a
    warning says so. Iterators cannot go back and are refused.
    """

    def __init__(
        self,
        sources: Mapping[Any, Any],
        allocator: Allocator | None = None,
        *,
        batch_size: int = 1,
        num_samples: int | None = None,
        num_replicas: int = 1,
        rank: int = 0,
        group: Any = None,
        check_every: int = 64,
    ) -> None:
        if not isinstance(sources, Mapping) or not sources:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"sources: expected a dictionary of at least one iterable, got {shown(sources)}")
        names = [str(name) for name in sources]
        if allocator is None:
            allocator = Allocator(Partition.from_labels(np.arange(len(names)), names=names), target="uniform")
        self.allocator: Allocator = instance("allocator", allocator, Allocator)
        refuse_online(self.allocator, "a RegionMixture")
        if allocator.partition.n_regions != len(names):
            raise ArgumentError(f"sources: expected {allocator.partition.n_regions}, one a region, got {len(names)}")
        regions = allocator.partition.names
        if regions != tuple(names) and set(regions) == set(names):
            raise ArgumentError(
                f"sources: expected them in the order of the allocator's regions, {shown(regions)}, got {shown(names)}",
                remedy="sources = dict(sorted(sources.items(), "
                "key=lambda source: allocator.partition.names.index(str(source[0]))))",
            )
        self.names = tuple(names)
        self.batch_size = integer("batch_size", batch_size, low=1)
        self.num_replicas = integer("num_replicas", num_replicas, low=1)
        self.rank = integer("rank", rank, low=0, high=self.num_replicas - 1)
        if self.batch_size % self.num_replicas:
            raise ArgumentError(
                f"batch_size={batch_size}: expected a multiple of num_replicas={num_replicas}; it counts the "
                "samples of all ranks together",
                remedy="batch_size = batch_size * num_replicas",
            )
        self.num_samples = num_samples
        if num_samples is not None and integer("num_samples", num_samples, low=1) % self.batch_size:
            raise ArgumentError(
                f"num_samples={num_samples}: expected a multiple of batch_size={batch_size}",
                remedy="num_samples = -(-num_samples // batch_size) * batch_size",
            )
        self._sources = [Source(name, iterable) for name, iterable in zip(names, sources.values(), strict=True)]
        for number, source in enumerate(self._sources):
            for other in self._sources[:number]:
                if source.moves and source.is_of(other):
                    raise ArgumentError(
                        f"sources: regions {other.name!r} and {source.name!r} read the same object, which has one "
                        "place for both, so neither could be put back there: give each region a stream of its own"
                    )
        self._ranks = Ranks(group, check_every)
        self._epoch_start = allocator.round
        self._again: deque[_Batch] = deque()  # batches in flight when the last pass was left: they come again
        self._taken_until = 0  # rounds before this have had their samples
        self._rest: Iterator[Any] = iter(())  # of the batch drawn last
        self._pass = 0

    # -- samples ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Samples that this rank gets in an epoch. TypeError if it never ends."""
        if self.num_samples is None:
            raise UnsizedError("a RegionMixture without num_samples has no length: it never ends; give it num_samples=")
        return self.num_samples // self.num_replicas

    def __bool__(self) -> bool:
        """True, so that ``mixture or default`` does not ask for a length."""
        return True

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch, or a new one if nothing is: from the last observed batch on.

        Nothing is changed before the first sample is asked for.
        """
        if get_worker_info() is not None:
            raise UsageError(
                "RegionMixture in a worker process: its allocator would never see a loss. Use num_workers=0, and give "
                "workers to the sources"
            )
        return self._rounds()

    def attach(self, loader: Loader, *, overlap: bool = False) -> Loader:
        """Return `loader`, checked, with the allocator's lag set to what it needs. Call it before the first batch.

        A plain loader without `overlap` needs none, and one that accelerate prepared a lag of 1.

        Raises:
            ValueError: A loader of another dataset, with workers, or whose batches are not the rounds of this mixture.
            FeedbackLagError: The allocation has begun with a smaller lag.
        """
        lag = lag_for(loader, overlap=overlap)
        inner: Any = getattr(loader, "base_dataloader", loader)
        block = self.batch_size // self.num_replicas
        plain = f"loader = DataLoader(mixture, batch_size={block})"
        if (dataset := inner.dataset) is not self:
            dealt = (
                "; something, such as accelerate's prepare(), deals out its samples to the ranks: leave the loader out "
                "of that, and on several ranks give the mixture num_replicas= and rank="
            )
            raise ArgumentError(
                f"loader: its samples come from {type(dataset).__name__}, not from this mixture"
                f"{dealt if getattr(dataset, 'dataset', None) is self else ''}",
                remedy=plain,
            )
        if inner.num_workers:
            raise ArgumentError(
                f"loader: with num_workers={inner.num_workers} copies of the allocator would draw, which never see a "
                "loss: use num_workers=0, and give workers to the sources",
                remedy=plain,
            )
        if (size := inner.batch_size or 1) != block:
            raise ArgumentError(
                f"loader: its batches are {size} samples, and this mixture gives {block} a round (batch_size="
                f"{self.batch_size}, num_replicas={self.num_replicas}): make both the same{_READY}",
                remedy=plain,
            )
        raise_lag(self.allocator, lag)
        return loader

    def _rounds(self) -> Iterator[Any]:
        self.allocator.rounds.settle()
        self._again = self._in_flight()
        self.allocator.rewind()
        self._rest = iter(())
        self._pass += 1
        this_pass = self._pass
        rounds = None if self.num_samples is None else self.num_samples // self.batch_size
        if rounds and self.allocator.round - self._epoch_start >= rounds:
            self._epoch_start = self.allocator.round
        self._ranks.note(self.allocator.round, self.allocator.digest)
        while True:
            if self._pass != this_pass:
                raise UsageError(
                    f"a newer iterator of this mixture, or a loaded state, took the place of this one. {_LOOK}"
                )
            if rounds and self.allocator.round + len(self.allocator.rounds) >= self._epoch_start + rounds:
                return
            draw = self.allocator.draw(self.batch_size)
            self._rest = iter(self._samples(draw))
            yield from self._rest

    @property
    def _at_end(self) -> bool:
        """Whether an epoch was drawn to its end, and all of it reported."""
        closed = self.allocator.round - self._epoch_start
        return self.num_samples is not None and closed == self.num_samples // self.batch_size and self._pass > 0

    def _in_flight(self) -> deque[_Batch]:
        """Return the batches that were taken from their sources and not closed, oldest first."""
        open_ = [opened.context for opened in self.allocator.rounds if isinstance(opened.context, _Batch)]
        closed = self.allocator.round
        return deque(batch for batch in (*open_, *self._again) if batch.round >= closed)

    def _samples(self, draw: Draw) -> list[Any]:
        """Return the samples of a round, which are taken from their sources once, however often it is drawn."""
        opened = self.allocator.rounds.newest
        assert opened is not None
        if self._again and self._again[0].round == draw.round:
            batch = self._again.popleft()
            batch.parts = []
        else:
            self._check_taken(draw.round)
            block = self.batch_size // self.num_replicas
            batch = self._take(draw.round, draw.regions[self.rank * block : (self.rank + 1) * block].tolist())
            self._taken_until = draw.round + 1
        opened.context = batch
        return batch.samples

    def _check_taken(self, round_: int) -> None:
        """Raise RuntimeError if the samples of that round, which are not in flight, were taken before."""
        if round_ < self._taken_until:
            raise UsageError(
                f"the samples of round {round_} were taken, and are gone: the allocator was put back without the "
                "mixture; load a state of the mixture to go on",
                remedy="mixture.load_state_dict(state)",
            )

    def _take(self, round_: int, regions: list[int]) -> _Batch:
        """Take samples of these regions from their sources."""
        before = [source.state() for source in self._sources]
        try:
            samples = [self._labelled(region) for region in regions]
        except BaseException:  # what was taken of the others cannot be put back: going on would skip it in silence
            for source in self._sources:
                source.lost = True
            raise
        return _Batch(round=round_, before=before, samples=samples)

    def _labelled(self, region: int) -> Any:
        """Return the next sample of a region, which says so; ValueError if it has another entry "region" already."""
        sample = self._sources[region].take()
        if sample is None:
            return None
        if not isinstance(sample, Mapping):
            return region, sample
        entries = cast("Mapping[str, Any]", sample)
        if "region" in entries:
            raise ArgumentError(
                f'sources: the samples of region {self.names[region]!r} have an entry "region" already, and the '
                "mixture would replace it: give that another name in the source"
            )
        return {**entries, "region": region}

    # -- feedback --------------------------------------------------------------------------------------

    @uncompiled
    def observe(self, regions: Any, losses: Any, *, step: bool = True, credit: Any = None) -> None:
        """Credit the losses of a batch to the regions of its samples, and close its round.

        Args:
            regions: Region of each sample as the mixture gave it, integers [m], a tensor on any device or an array.
            losses: Loss of each, floating [m], likewise; detached here, and copied.
            step: Close the round; pass False for all but the last part of a batch. Collective in a
                distributed run.
            credit: Which samples to credit, bool [m]; default: all. One with False counts as drawn and not as a dropped
                loss: its loss was of something else (a null caption, say).

        Raises:
            ValueError: Another shape, dtype or length, a region out of range, or samples that were not drawn. Nothing
                is changed.
            RuntimeError: No batch is open.
        """
        opened, ranks = self._reporting("observe"), self._ranks.size
        part = part_of(
            "regions",
            regions,
            losses,
            credit,
            high=len(self.names),
            hint=_WHERE,
            packed=ranks > 1,
            keep=not step,
        )
        batch = _batch_of(opened)
        parts = [*batch.parts, part]
        most, reported = self._room(), sum(part.n for part in parts)
        if reported > most:
            ready = most == 1 and not batch.parts and part.ids is not None and len(set(part.ids.tolist())) == 1
            gathered = f", {GATHERED}" if ranks > 1 and reported == len(opened.draw.items) else _READY
            raise ArgumentError(
                f"regions: {reported} samples reported in a batch of {most} on this rank{gathered}",
                remedy="regions, losses = regions[:1], losses.mean().reshape(1)"
                if ready and hasattr(losses, "reshape")
                else None,
            )
        known = [part.ids for part in parts if part.ids is not None]
        if known:
            self._check_drawn(np.concatenate(known), opened.draw)
        if ranks == 1:
            part.start()
        if step:
            self._send(opened, batch, parts)
        else:
            batch.parts = parts

    @uncompiled
    def step(self) -> None:
        """Close the batch being reported, with what was observed of it, which may be nothing.

        Collective in a distributed run.

        Raises:
            ValueError: Samples of the batch were not asked for yet: the loader's batches are smaller than the rounds.
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state. With a lag it may be raised later.
        """
        opened = self._reporting("step")
        batch = _batch_of(opened)
        self._send(opened, batch, batch.parts)

    def _reporting(self, what: str) -> OpenRound:
        """Return the round that the next report is about."""
        if self.num_replicas > 1 and self.num_replicas != (ranks := self._ranks.size):
            raise ArgumentError(
                f"mixture: num_replicas={self.num_replicas}, and its process group has {ranks} ranks: give it group=, "
                "the process group of the ranks with different data, after torch.distributed.init_process_group()"
            )
        try:
            opened = self.allocator.rounds.reporting(what)
        except UsageError as error:
            raise UsageError(f"{error}{f'. {CYCLE}' if self._at_end else ''}") from None
        if opened.context is not None and not isinstance(opened.context, Batch):
            raise UsageError(
                f"{what}() of round {opened.draw.round}, which something else drew from this allocator; give the "
                "mixture an Allocator of its own"
            )
        return opened

    def _send(self, opened: OpenRound, batch: Batch, parts: list[Part]) -> None:
        """Report a batch: at once on one process with losses on the host, otherwise once its rows have arrived."""
        rounds = self.allocator.rounds
        if (left := length_hint(self._rest)) and rounds.n_reported == len(rounds) - 1:
            n = self.batch_size // self.num_replicas
            raise ArgumentError(
                f"batch: {n - left} of the {n} samples of round {opened.draw.round} were asked for, and it is to be "
                f"closed: the loader's batch_size must be that of the mixture's rounds, {n} samples on this rank; for "
                f"parts of a batch pass step=False to all observe() but the last{_READY}",
                remedy=f"loader = mixture.attach(DataLoader(mixture, batch_size={n}))",
            )
        waits = True
        if self._ranks.size > 1:
            lag = self.allocator.lag
            arrived = self._ranks.gather(wire(parts), room=self._room(), round_=opened.draw.round, lag=lag)

            def close() -> None:
                self._close(opened, *unpack(np.concatenate(arrived())))

        else:
            waits = any(part.waits for part in parts)

            def close() -> None:
                self._close(opened, *read(parts))

        rounds.report(close, wait=waits)
        batch.parts = []

    def _room(self) -> int:
        return -(-self.batch_size // self._ranks.size)

    def _check_drawn(self, regions: IntArray, draw: Draw) -> None:
        """Raise ValueError unless regions were drawn as often as they are reported."""
        n_regions = len(self.names)
        more = np.bincount(regions, minlength=n_regions) - np.bincount(draw.regions, minlength=n_regions)
        if (more > 0).any():
            region = int(more.argmax())
            raise ArgumentError(
                f"regions: {more[more > 0].sum()} of {len(regions)} samples are not of the oldest open batch (round "
                f"{draw.round}): {more[region]} more of region {region} than were drawn. Call observe() once for every "
                f"batch, in order; {_WHERE}{_READY}"
            )

    def _close(self, opened: OpenRound, regions: IntArray, losses: FloatArray, credit: BoolArray | None) -> None:
        """Credit the samples of all ranks and close the round."""
        self._check_drawn(regions, opened.draw)
        if credit is not None:
            regions, losses = regions[credit], losses[credit]
        self.allocator.close_round(regions, losses)
        self._ranks.note(self.allocator.round, self.allocator.digest)

    @uncompiled
    def weights(self, regions: Any) -> Tensor:
        """Return the importance weight q / p of each sample of the batch being reported.

        Args:
            regions: As the mixture gave them, integers [m].

        Returns:
            float32 [m], on the device of `regions`.

        Raises:
            ValueError: A region that was not drawn in that batch, or another shape or dtype.
            RuntimeError: No batch is open.
        """
        draw = self.allocator.rounds.reporting("weights").draw
        given = int_vector("regions", to_array(regions, "regions"), high=len(self.names), hint=_WHERE)
        by_region = np.full(len(self.names), np.nan)
        by_region[draw.regions] = draw.weights
        if np.isnan(by_region[given]).any():
            missing = given[np.isnan(by_region[given])]
            raise ArgumentError(
                f"regions: expected regions of the batch of round {draw.round}, got {missing[0]}{WEIGHTS_BEFORE}"
            )
        weights = torch.as_tensor(by_region[given].astype(np.float32))
        return weights.to(regions.device) if isinstance(regions, Tensor) else weights

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self.allocator.rounds.settle()

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as of the last observed batch: the allocator's, and where each of this rank's sources was.

        Not collective. What sources with a state of their own return is part of it as it comes.
        """
        self.allocator.rounds.settle()
        in_flight = self._in_flight()
        if not in_flight or in_flight[0].round > self.allocator.round:
            self._check_taken(self.allocator.round)
        return {
            "names": list(self.names),
            "batch_size": self.batch_size,
            "num_replicas": self.num_replicas,
            "rank": self.rank,
            "epoch_start": self._epoch_start,
            "sources": in_flight[0].before if in_flight else [source.state() for source in self._sources],
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next `iter` yields the rest of its epoch.

        Raises:
            StateError: (a ValueError) the state is damaged, of another configuration, of another rank or of another
                number of ranks, whose sources were others. Or a source cannot go to where it was: it has fewer samples
                now, is an iterator, or either has or had a state of its own. Nothing is changed. The remedy carries
                over what was learnt; then the sources start from their beginning.
        """
        allocation = take(state, "allocator", dict)
        for key, ours in (("names", list(self.names)), ("batch_size", self.batch_size)):
            if (theirs := take(state, key, type(ours))) != ours:
                why = f"state of another mixture: {key}={shown(theirs)} there, {shown(ours)} here"
                raise misfit(why, self.allocator, allocation, "mixture")
        for key, ours, way in (
            ("num_replicas", self.num_replicas, "the shards of that many ranks are others than these"),
            ("rank", self.rank, "each rank saves a state of its own, and loads that: its sources are its own"),
        ):
            if (theirs := take(state, key, int)) != ours:
                why = f"state of another rank's mixture: {key}={theirs} there, {ours} here; {way}"
                raise misfit(why, self.allocator, allocation, "mixture")
        where = cast("list[Any]", take(state, "sources", list))
        if len(where) != len(self._sources):
            raise StateError(f"state: expected {len(self._sources)} entries in 'sources', got {len(where)}")
        for source, place in zip(self._sources, where, strict=True):
            source.check(place)
        epoch_start = take(state, "epoch_start", int)
        moved: list[Callable[[], None]] = []
        try:
            for source, place in zip(self._sources, where, strict=True):
                moved.append(source.go_to(place))
            load_allocation(self.allocator, allocation, "mixture")
        except BaseException:
            for go_back in moved:
                go_back()
            raise
        self._epoch_start = epoch_start
        self._again.clear()
        self._taken_until = self.allocator.round
        self._rest = iter(())
        self._pass += 1
        self._ranks.forget()
        if self.allocator.round:
            self._warn_of_sources()

    def _warn_of_sources(self) -> None:
        """Warn of sources that were put back, and are not where they were."""
        if forgetful := [source.name for source in self._sources if source.forgets]:
            self.allocator.warn_once(
                "shuffle buffer",
                f"sources: {shown(forgetful)} shuffle in a buffer that is not in their state: of each, as many samples "
                "as the buffer has are lost or come again. To resume exactly, shuffle the shards and not the samples",
            )
        if astray := [source.name for source in self._sources if source.strays]:
            self.allocator.warn_once(
                "other samples",
                f"sources: {shown(astray)} gave other samples, or in another order, than in the run that is resumed: "
                "of the present pass some come again and others are left out. To resume exactly, shuffle with a seed "
                "that is the same in every run. If only a random augmentation differs, all is well",
            )


@dataclass(eq=False)
class _Batch(Batch):
    """An open round as the mixture sees it: its samples, and where the sources were before they were taken."""

    round: int = -1
    before: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    samples: list[Any] = field(default_factory=list[Any])


def _batch_of(opened: OpenRound) -> Batch:
    """Return what is remembered of an open round, which somebody else may have drawn."""
    if opened.context is None:
        opened.context = Batch()
    return opened.context


_LOOK = LOOK.replace("sampler", "mixture")
_WHERE = "pass on what came with the batch: its entry 'region', or its first"
_READY = "; if a sample is itself a batch, report the mean of its losses: observe([region], [losses.mean()])"
