"""Feedback that the trainer has reported and the allocator has not taken in yet.

With a lag, the losses of a round are not needed at once. They wait here while their copy from the device or
their exchange with other ranks goes on beside the next training step, and are taken in when a draw needs them,
oldest first. What a draw may know is fixed by the lag alone, so waiting longer or shorter changes no stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from aria_sampling.allocator import Allocator
from aria_sampling.drawing import Draw

__all__ = ["WEIGHTS_BEFORE", "Inbox"]

WEIGHTS_BEFORE = ". Weights are those of an open draw: ask for those of a batch before observe() or step() closes it"


@dataclass(eq=False)
class Inbox:
    """Reported rounds that are still open, oldest first, each with what closes it."""

    allocator: Allocator
    waiting: deque[Callable[[], None]] = field(default_factory=deque[Callable[[], None]])

    def reporting(self, what: str) -> Draw:
        """Return the draw that the next report is about: the oldest open one not reported; RuntimeError if none."""
        opened = self.allocator.open_rounds
        if len(self.waiting) >= len(opened):
            raise RuntimeError(
                f"{what}() without an open batch: each batch of the sampler (or draw()) opens one round, and one "
                f"observe() or step() closes it{WEIGHTS_BEFORE if what == 'weights' else ''}"
            )
        return opened[len(self.waiting)]

    def put(self, close: Callable[[], None], *, wait: bool) -> None:
        """Take in what closes the round that `reporting` named; at once unless it may `wait`."""
        self.waiting.append(close)
        if not wait or self.allocator.lag == 0:
            self.settle()

    def make_room(self) -> None:
        """Close as many of the reported rounds as the next draw needs closed."""
        while self.waiting and len(self.allocator.open_rounds) > self.allocator.lag:
            self._close_oldest()

    def settle(self) -> None:
        """Close all reported rounds, waiting for what is on its way. Not collective."""
        while self.waiting:
            self._close_oldest()

    def _close_oldest(self) -> None:
        try:
            self.waiting.popleft()()
        except BaseException:
            self.waiting.clear()  # its round and those after it are open still: they can be reported again, in order
            raise
