"""Find ranks that train on the same rows, and so were counted as ranks with data of their own.

Under sequence or tensor parallelism several ranks hold one sample together. Random conditioning that takes them for
data ranks gives one sample two prompts. Their timesteps are equal, but those of data ranks may be, too, where all seed
their generators alike. Their losses are equal to the bit, and those of data ranks are not for long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._arrays import BoolArray, FloatArray
from aria_sampling.errors import RankError

__all__ = ["Twins"]


@dataclass(frozen=True)
class Twins:
    """What each rank reported of late, as a value.

    Attributes:
        reports: Of each rank, the last few of its rounds that say anything, each as its number and its losses as
            bytes. A round says nothing where the rank switched no row or had none but losses of 0 and non-finite ones.
    """

    reports: tuple[tuple[tuple[int, bytes], ...], ...] = ()

    def after(self, round_: int, losses: list[FloatArray | None], masks: list[BoolArray]) -> Twins:
        """Return the value after one more round.

        Args:
            round_: Its number.
            losses: Of the rows of each rank, float64 [any]; None for a rank that reported none.
            masks: Which of them switched, bool [any].

        Raises:
            RankError: Two ranks reported losses that are equal bit for bit, in three rounds running.
        """
        reports = list(self.reports or ((),) * len(losses))
        seen: dict[tuple[tuple[int, bytes], ...], int] = {}
        for rank, (values, mask) in enumerate(zip(losses, masks, strict=True)):
            if values is None or not (np.isfinite(values) & (values != 0))[mask].any():
                continue
            report = reports[rank] = (*reports[rank], (round_, values.tobytes()))[-_ROUNDS:]
            if len(report) == _ROUNDS and (other := seen.setdefault(report, rank)) != rank:
                raise RankError(
                    f"ranks {other} and {rank} reported losses that are equal bit for bit, in {_ROUNDS} rounds running "
                    f"up to round {round_}: they hold the same rows, as the ranks of one sequence- or tensor-parallel "
                    "group do. Make RandomConditioning with group=, a process group of ranks with different data (one "
                    "rank of each such group)"
                )
        return Twins(tuple(reports))


_ROUNDS = 3
