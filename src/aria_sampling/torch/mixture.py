"""`RegionMixture`: adaptive mixing of streams, for corpora that can only be iterated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from aria_sampling._errors import StateError
from aria_sampling._state import take
from aria_sampling._typing import IntArray
from aria_sampling._validation import float_vector, int_vector, integer
from aria_sampling.allocator import Allocator, take_in
from aria_sampling.partition import Partition
from aria_sampling.torch._inbox import WEIGHTS_BEFORE, Inbox
from aria_sampling.torch._ranks import Ranks
from aria_sampling.torch._rows import pack, unpack
from aria_sampling.torch._source import Source
from aria_sampling.torch._transfer import Transfer, on_device, to_array

__all__ = ["RegionMixture"]


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
        num_replicas: Number of ranks among which the samples of a round are dealt out.
        rank: Number of this rank, which has sources of its own.
        group: The `torch.distributed` process group whose ranks share the allocation; default: all of them.
        check_every: The state of all ranks is compared at every so many rounds.

    Raises:
        ValueError: No sources, another number than the allocator's regions, or an argument out of its range.

    A sample that is a dictionary gets an entry "region"; any other becomes ``(region, sample)``, region being the
    number of its source. Iterate it with ``num_workers=0``: a worker process would draw from a copy of the
    allocator that never sees a loss. Give workers to the sources.

    Resuming is exact for sources with ``state_dict`` and ``load_state_dict`` (Hugging Face's IterableDataset,
    torchdata's loaders and nodes), and for other iterables that yield the same samples in the same order each time,
    of which as many are skipped as were taken. It is refused for iterators, which cannot go back.
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
            raise ValueError(f"sources: expected a dictionary of at least one iterable, got {sources!r}")
        names = [str(name) for name in sources]
        if allocator is None:
            allocator = Allocator(Partition.from_labels(np.arange(len(names)), names=names), target="uniform")
        if not isinstance(allocator, Allocator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"allocator: expected an Allocator, got {allocator!r}")
        if allocator.partition.n_regions != len(names):
            raise ValueError(f"sources: expected {allocator.partition.n_regions}, one a region, got {len(names)}")
        self.allocator = allocator
        self.names = tuple(names)
        self.batch_size = integer("batch_size", batch_size, low=1)
        self.num_replicas = integer("num_replicas", num_replicas, low=1)
        self.rank = integer("rank", rank, low=0, high=self.num_replicas - 1)
        if self.batch_size % self.num_replicas:
            raise ValueError(f"batch_size={batch_size}: expected a multiple of num_replicas={num_replicas}")
        self.num_samples = num_samples
        if num_samples is not None and integer("num_samples", num_samples, low=1) % self.batch_size:
            raise ValueError(f"num_samples={num_samples}: expected a multiple of batch_size={batch_size}")
        self._sources = [Source(name, iterable) for name, iterable in zip(names, sources.values(), strict=True)]
        self._ranks = Ranks(group, check_every)
        self._inbox = Inbox(allocator)
        self._parts: list[Any] = []  # rows reported of the round that is being reported
        self._parts_round = -1
        self._epoch_start = allocator.round
        self._taken: dict[int, tuple[list[dict[str, Any]], list[Any]]] = {}  # by round: states before, samples
        self._pass = 0

    # -- samples ---------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Samples that this rank gets in an epoch. TypeError if it never ends."""
        if self.num_samples is None:
            raise TypeError("a RegionMixture without num_samples has no length: it never ends")
        return self.num_samples // self.num_replicas

    def __iter__(self) -> Iterator[Any]:
        """Yield what is left of the epoch, or a new one if nothing is: from the last observed batch on.

        Nothing is changed before the first sample is asked for.
        """
        if get_worker_info() is not None:
            raise RuntimeError(
                "RegionMixture in a worker process: its allocator would never see a loss. Use num_workers=0, and give "
                "workers to the sources"
            )
        return self._rounds()

    def _rounds(self) -> Iterator[Any]:
        self._inbox.settle()
        self.allocator.rewind()
        self._parts = []
        self._pass += 1
        this_pass = self._pass
        rounds = None if self.num_samples is None else self.num_samples // self.batch_size
        if rounds and self.allocator.round - self._epoch_start >= rounds:
            self._epoch_start = self.allocator.round
        self._ranks.note(self.allocator.round, self.allocator.digest)
        block = self.batch_size // self.num_replicas
        while True:
            if self._pass != this_pass:
                raise RuntimeError("a newer iterator of this mixture, or a loaded state, took the place of this one")
            self._inbox.make_room()
            if (
                rounds is not None
                and self.allocator.round + len(self.allocator.open_rounds) >= self._epoch_start + rounds
            ):
                return
            draw = self.allocator.draw(self.batch_size)
            mine = draw.regions[self.rank * block : (self.rank + 1) * block].tolist()
            yield from self._samples(draw.round, mine)

    def _samples(self, round_: int, regions: list[int]) -> list[Any]:
        """Return the samples of a round, which are taken from their sources once, however often it is drawn."""
        self._taken = {key: value for key, value in self._taken.items() if key >= self.allocator.round}
        if round_ not in self._taken:
            before = [source.state() for source in self._sources]
            try:
                samples = [_labelled(region, self._sources[region].take()) for region in regions]
            except BaseException:  # what was taken of the others cannot be put back: going on would skip it in silence
                for source in self._sources:
                    source.lost = True
                raise
            self._taken[round_] = before, samples
        return self._taken[round_][1]

    # -- feedback --------------------------------------------------------------------------------------

    def observe(self, regions: Any, losses: Any, *, step: bool = True) -> None:
        """Credit the losses of a batch to the regions of its samples, and close its round.

        Args:
            regions: Region of each sample as the mixture gave it, integers [m], a tensor on any device or an array.
            losses: Loss of each, floating [m], likewise; detached here, and copied.
            step: Close the round; pass False for all but the last part of a batch. Collective in a
                distributed run.

        Raises:
            ValueError: Another shape, dtype or length, a region out of range, or more samples than were yielded.
            RuntimeError: No batch is open.
        """
        draw = self._inbox.reporting("observe")
        if on_device(regions, losses):
            rows: Any = pack(regions, losses, name="regions")
        else:
            given = self._regions_given(regions)
            values = float_vector("losses", to_array(losses), length=len(given))
            rows = torch.as_tensor(np.stack([given, np.ascontiguousarray(values).view(np.int64)], axis=1))
        parts = self._parts if self._parts_round == draw.round else []
        most, reported = self._room(), sum(map(len, parts)) + len(rows)
        if reported > most:
            raise ValueError(f"regions: {reported} samples reported in a batch of {most} on this rank")
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

        Collective in a distributed run.

        Raises:
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state. With a lag it may be raised later.
        """
        draw = self._inbox.reporting("step")
        parts = self._parts if self._parts_round == draw.round else []
        device = next((part.device for part in parts if part.device.type != "cpu"), torch.device("cpu"))
        rows = torch.cat([torch.empty((0, 2), dtype=torch.int64, device=device), *(part.to(device) for part in parts)])
        if self._ranks.size > 1:
            arrived = self._ranks.gather(rows, room=self._room(), round_=draw.round, lag=self.allocator.lag)
            self._inbox.put(lambda: self._close(np.concatenate(arrived())), wait=True)
        else:
            transfer = Transfer(rows)
            self._inbox.put(lambda: self._close(transfer.arrays()[0]), wait=device.type != "cpu")
        self._parts, self._parts_round = [], -1

    def _regions_given(self, regions: Any) -> IntArray:
        """Return regions of samples as int64 [m]; ValueError for anything else."""
        try:
            return int_vector("regions", to_array(regions), high=len(self.names))
        except ValueError as error:
            raise ValueError(f"{error}; pass on what came with the batch: its entry 'region', or its first") from None

    def _room(self) -> int:
        return -(-self.batch_size // self._ranks.size)

    def _close(self, rows: IntArray) -> None:
        take_in(self.allocator, *unpack(rows))
        self._ranks.note(self.allocator.round, self.allocator.digest)

    def weights(self, regions: Any) -> Tensor:
        """Return the importance weight of each sample of the batch being reported, float32 [m], where `regions` are.

        Raises:
            ValueError: A region that was not drawn in that batch, or another shape or dtype.
            RuntimeError: No batch is open.
        """
        draw = self._inbox.reporting("weights")
        given = self._regions_given(regions)
        by_region = np.full(len(self.names), np.nan)
        by_region[draw.regions] = draw.weights
        if np.isnan(by_region[given]).any():
            strange = given[np.isnan(by_region[given])]
            raise ValueError(
                f"regions: expected regions of the batch of round {draw.round}, got {strange[0]}{WEIGHTS_BEFORE}"
            )
        weights = torch.as_tensor(by_region[given].astype(np.float32))
        return weights.to(regions.device) if isinstance(regions, Tensor) else weights

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self._inbox.settle()

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the state as of the last observed batch: the allocator's, and where each of this rank's sources was.

        Not collective. What sources with a state of their own return is part of it as it comes.
        """
        self._inbox.settle()
        taken = self._taken.get(self.allocator.round)
        return {
            "names": list(self.names),
            "batch_size": self.batch_size,
            "epoch_start": self._epoch_start,
            "sources": [source.state() for source in self._sources] if taken is None else taken[0],
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next `iter` yields the rest of its epoch.

        Raises:
            StateError: (a ValueError) the state is damaged or of another configuration, or a source cannot go to where
                it was: it has fewer samples now, is an iterator, or either has or had a state of its own. Nothing is
                changed.
        """
        for key, mine in (("names", list(self.names)), ("batch_size", self.batch_size)):
            if (its := take(state, key, type(mine))) != mine:
                raise StateError(f"state of another mixture: {key}={its!r} there, {mine!r} here")
        places = cast("list[Any]", take(state, "sources", list))
        if len(places) != len(self._sources):
            raise StateError(f"state: expected {len(self._sources)} entries in 'sources', got {len(places)}")
        for source, place in zip(self._sources, places, strict=True):
            source.check(place)
        epoch_start, allocation = take(state, "epoch_start", int), take(state, "allocator", dict)
        moved: list[Callable[[], None]] = []
        try:
            for source, place in zip(self._sources, places, strict=True):
                moved.append(source.go_to(place))
            self.allocator.load_state_dict(allocation)
        except BaseException:
            for go_back in moved:
                go_back()
            raise
        self._epoch_start = epoch_start
        self._inbox.waiting.clear()
        self._taken.clear()
        self._parts = []
        self._pass += 1
        self._ranks.forget()


def _labelled(region: int, sample: Any) -> Any:
    """Return the sample with its region."""
    if not isinstance(sample, Mapping):
        return region, sample
    return {**cast("Mapping[str, Any]", sample), "region": region}
