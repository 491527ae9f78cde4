"""`Draw`, and `OpenRounds`: the one ledger of draws whose feedback is still to come.

The allocator opens rounds and closes them. A face (a sampler, random conditioning, a mixture of streams) reports the
losses of a batch, which may take a while: a copy from the device or an exchange between ranks goes on beside the next
training step. A reported round is closed when a draw needs it, oldest first. What a draw may know is fixed by the lag
alone, so waiting longer or shorter changes no stream.

It is apart from the allocator because every face uses it, and none keeps a ledger of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from aria_sampling._arrays import FloatArray, IntArray
from aria_sampling.errors import UsageError

__all__ = ["Draw", "OpenRound", "OpenRounds", "Tally"]


@dataclass(frozen=True, eq=False)
class Draw:
    """The rows of one round, in the order in which they are to be used. Its arrays cannot be written to.

    Attributes:
        items: Items of the pool, int64 [n].
        regions: Region of each, int64 [n].
        probabilities: Effective probability of that region in this draw, forced visits included, float64 [n]. It is
            the region's, not the item's.
        weights: Importance weight target / probability of each row, float64 [n]: at most 1/exploration, or twice
            that in a draw with forced visits. They make an average over the drawn rows an unbiased one over the
            target. Training without them puts the effort where the allocator says.
        round: Number of the round, from 0.
        forced: How many regions were visited because they had been left alone for too long.
    """

    items: IntArray
    regions: IntArray
    probabilities: FloatArray
    weights: FloatArray
    round: int
    forced: int = 0


class Tally(NamedTuple):
    """Sums over the draws so far.

    Attributes:
        drawn: Rows drawn.
        data_rows: Rows with data of their own that trained in the same rounds.
        recent: Rows drawn, decayed as online coverage is.
        size: Moving average of the size of draws that were not empty.
        level: Water level of the last draw, from which the next one's is found; 0: there was none.
    """

    drawn: int = 0
    data_rows: int = 0
    recent: float = 0.0
    size: float = 0.0
    level: float = 0.0


@dataclass(eq=False)
class OpenRound:
    """A draw whose feedback is still to come.

    Attributes:
        draw: The draw.
        tally: The sums, this draw included.
        pace: What `pacing.paced` came to; empty without a cap.
        present: Regions of the rows that trained anyway, int64 [m]; None unless coverage is online.
        reports: What was observed of it so far: regions and losses.
        context: What a face must remember of the batch.
        close: Credits the reported losses and closes the round; None: they were not reported yet.
    """

    draw: Draw
    tally: Tally
    pace: FloatArray = field(default_factory=lambda: np.empty((2, 0)))
    present: IntArray | None = None
    reports: list[tuple[IntArray, FloatArray]] = field(default_factory=list[tuple[IntArray, FloatArray]])
    context: Any = None
    close: Callable[[], None] | None = None


class OpenRounds:
    """The open rounds of one allocator, oldest first.

    Args:
        counters: int64; the first entry is the number of closed rounds. It is the allocator's own array, and the only
            thing that says which rounds are open: it changes in the moment in which a round is stored.
    """

    def __init__(self, counters: IntArray) -> None:
        self._counters = counters
        self._rounds: list[OpenRound] = []
        self.lag = 0

    def _open(self) -> list[OpenRound]:
        """Return the open rounds. Those that were stored go, at once: a signal handler may ask for them in between."""
        closed = self._counters[0]
        if self._rounds and self._rounds[0].draw.round < closed:
            self._rounds = [opened for opened in self._rounds if opened.draw.round >= closed]
        return self._rounds

    def __len__(self) -> int:
        """Number of open rounds."""
        return len(self._open())

    def __iter__(self) -> Iterator[OpenRound]:
        """Yield the open rounds, oldest first."""
        return iter(tuple(self._open()))

    def append(self, opened: OpenRound) -> None:
        """Add the round that was drawn last."""
        self._open().append(opened)

    @property
    def newest(self) -> OpenRound | None:
        """The round that was drawn last; None if none is open."""
        rounds = self._open()
        return rounds[-1] if rounds else None

    def oldest(self, what: str) -> OpenRound:
        """Return the oldest open round; RuntimeError, naming the call `what`, if none is open."""
        rounds = self._open()
        if not rounds:
            raise UsageError(_NONE_OPEN.format(what), remedy="draw = allocator.draw(n)")
        return rounds[0]

    # -- reports of faces ------------------------------------------------------------------------------

    @property
    def n_reported(self) -> int:
        """Number of open rounds that were reported."""
        return sum(opened.close is not None for opened in self._open())

    def reporting(self, what: str) -> OpenRound:
        """Return the oldest open round that was not reported yet; RuntimeError, naming the call, if there is none."""
        for opened in self._open():
            if opened.close is None:
                return opened
        raise UsageError(_NONE_OPEN.format(what) + (_WEIGHTS_BEFORE if what == "weights" else ""))

    def report(self, close: Callable[[], None], *, wait: bool) -> None:
        """Note what closes the round that `reporting` names. It is called at once unless it may `wait` and lag > 0."""
        self.reporting("observe").close = close
        if not wait or self.lag == 0:
            self.settle()

    def make_room(self) -> None:
        """Close as many of the reported rounds as the next draw needs closed."""
        while len(rounds := self._open()) > self.lag and self._closed(rounds[0]):
            pass

    def settle(self) -> None:
        """Close all reported rounds, waiting for what is on its way. Not collective.

        In the middle of closing one, where a signal handler may ask for it to save a state, it does nothing.
        """
        while (rounds := self._open()) and self._closed(rounds[0]):
            pass

    def _closed(self, oldest: OpenRound) -> bool:
        """Close the oldest open round if it was reported; return whether it was."""
        if oldest.close is None:
            return False
        try:
            close, oldest.close = oldest.close, None  # taken: a signal handler in between finds nothing to close
            if oldest.draw.round == self._counters[0]:
                close()
        except BaseException:
            for opened in self._open():
                opened.close = None  # its round and those after it are open still: they can be reported again, in order
            raise
        return True


def joined(reports: list[tuple[IntArray, FloatArray]]) -> tuple[IntArray, FloatArray]:
    """Return all regions and losses that were reported of a round, in their order."""
    if len(reports) == 1:
        return reports[0]
    regions = [np.empty(0, np.int64), *(regions for regions, _ in reports)]
    return np.concatenate(regions), np.concatenate([np.empty(0), *(losses for _, losses in reports)])


_NONE_OPEN = (
    "{}() without an open round: each draw(), or each batch of a sampler, opens one round, and one observe() or step() "
    "closes it"
)
_WEIGHTS_BEFORE = ". Weights are those of an open draw: ask for those of a batch before observe() or step() closes it"
