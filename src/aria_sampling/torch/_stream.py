"""The iterator that a loader gets of an `AriaSampler`: apart, so that the sampler's own state is all in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aria_sampling._state import take

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

    def __next__(self) -> int:
        try:
            return next(self._rows)
        except StopIteration:
            self._rows = iter(self._next_rows(self))
            return next(self._rows)

    def state_dict(self) -> dict[str, Any]:
        return self._save(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._load(take(state, "sampler", dict))
