"""The iterator that a loader gets of an `AriaSampler`: apart, so that the sampler's own state is all in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from operator import length_hint
from typing import Any

from aria_sampling._arrays import take

__all__ = ["Stream"]


class Stream(Iterator[int]):
    """One pass of a loader over a sampler: torchdata's StatefulDataLoader saves it, others just iterate.

    Args:
        rows: Gives the rows of the next batch; StopIteration at the end of the epoch.
        save: Gives what a stateful loader keeps with the batch just drawn.
        load: Goes to where a sampler's state was taken.
    """

    def __init__(
        self,
        rows: Callable[[Stream], list[int]],
        save: Callable[[Stream], dict[str, Any]],
        load: Callable[[dict[str, Any]], None],
    ) -> None:
        self._next_rows, self._save, self._load = rows, save, load
        self._rows: Iterator[int] = iter(())
        self.batch = -1  # the next one of the epoch; -1: nothing was asked for yet
        self.closed = -1  # rounds closed when it began
        self.ended = False
        self.displaced = False  # another one, that had not ended
        self._begin()

    def _begin(self) -> None:
        self._flat = chain.from_iterable(_Batches(self))

    @property
    def left(self) -> int:
        """Rows of the batch drawn last that were not asked for yet."""
        return length_hint(self._rows)

    def __iter__(self) -> Iterator[int]:
        """The same rows, without a call of Python for each: what torch's batch sampler takes a batch from."""
        return self._flat

    def __next__(self) -> int:
        return next(self._flat)

    def next_batch(self) -> Iterator[int]:
        """Return the rows of the next batch; StopIteration at the end of the epoch."""
        try:
            self._rows = iter(self._next_rows(self))
        except BaseException:
            self._begin()  # a chain that has failed has ended: the next call tries again
            raise
        return self._rows

    def state_dict(self) -> dict[str, Any]:
        return self._save(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load(take(state, "sampler", dict))


class _Batches(Iterator[Iterator[int]]):
    """The batches of a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __next__(self) -> Iterator[int]:
        return self._stream.next_batch()
