"""Find ranks that train on the same rows, and so were counted as ranks with data of their own.

Under sequence or tensor parallelism several ranks hold one sample together. Random conditioning that takes them for
data ranks gives one sample two prompts. Their timesteps are equal, but those of data ranks may be, too, where all seed
their generators alike. Their losses are equal to the bit, and those of data ranks are not for long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aria_sampling._arrays import BoolArray, FloatArray, IntArray
from aria_sampling.errors import RankError

__all__ = ["Twins"]


class _Report(NamedTuple):
    """What one rank reported in one round: its losses as bytes, how many say anything, and in how many bits."""

    round: int
    losses: bytes
    rows: int
    bits: int


@dataclass(frozen=True)
class Twins:
    """What each rank reported of late, as a value.

    Attributes:
        reports: Of each rank, the last few of its rounds that say anything. A round says nothing where the rank
            switched no row, or had losses of 0 and non-finite ones alone.
    """

    reports: tuple[tuple[_Report, ...], ...] = ()

    def after(self, round_: int, losses: FloatArray, mask: BoolArray, counts: list[int]) -> Twins:
        """Return the value after one more round.

        Args:
            round_: Its number.
            losses: Of the rows of all ranks, float64 [B]; 0 where a rank reported none.
            mask: Which of them switched, bool [B].
            counts: Number of rows of each rank.

        Raises:
            RankError: Two ranks reported losses that are equal bit for bit, in three rounds running. In more, where
                these are few numbers of low precision, which may be equal by chance.
        """
        rank_of = np.repeat(np.arange(len(counts)), counts)
        says = np.isfinite(losses) & (losses != 0)
        switched, rows, bits = (
            np.bincount(rank_of, weights, len(counts)).astype(np.int64)
            for weights in (says & mask, says, _precision(losses) * says)
        )
        reports = list(self.reports or ((),) * len(counts))
        seen: dict[tuple[_Report, ...], int] = {}
        begin = 0
        for rank, count in enumerate(counts):
            if switched[rank]:
                block = losses[begin : begin + count].tobytes()
                report = _Report(round_, block, int(rows[rank]), int(bits[rank]))
                enough, reports[rank] = _shortest((*reports[rank], report))
                if enough and (other := seen.setdefault(reports[rank], rank)) != rank:
                    raise RankError(
                        f"ranks {other} and {rank} reported losses that are equal bit for bit, in "
                        f"{len(reports[rank])} rounds running up to round {round_}: they hold the same rows, as the "
                        "ranks of one sequence- or tensor-parallel group do. Make RandomConditioning with group=, a "
                        "process group of ranks with different data (one rank of each such group)"
                    )
            begin += count
        return Twins(tuple(reports))


def _precision(losses: FloatArray) -> IntArray:
    """Return how many bits the significand of each takes, int64 [n]: up to 8 for bfloat16, 24 for float32."""
    fraction = losses.view(np.int64) & (2**52 - 1)
    lowest = np.frexp((fraction & -fraction).astype(np.float64))[1] - 1  # number of trailing zeros; -1 if there is none
    return np.where(fraction > 0, 53 - lowest, 1).astype(np.int64)


def _shortest(reports: tuple[_Report, ...]) -> tuple[bool, tuple[_Report, ...]]:
    """Return whether reports are too many to be equal by chance, and the last ones, so many as that takes."""
    rows = bits = 0
    for number, report in enumerate(reversed(reports), start=1):
        rows, bits = rows + report.rows, bits + report.bits
        if number >= _ROUNDS and (rows >= _ROWS or bits >= _BITS):
            return True, reports[-number:]
    return False, reports


_ROUNDS = 3
_ROWS = 8
_BITS = 64
