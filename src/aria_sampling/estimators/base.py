"""What an estimator is: a rule that turns the feedback of each round into an `Estimate` of every region.

An estimator object holds settings only. What it has learnt is a value, a `State`, that the allocator keeps and saves.
``init`` makes it, ``update`` returns new rows for the regions that a round visited, and ``estimate`` reads it:

>>> from aria_sampling import Ema, Feedback
>>> estimator = Ema(rate=0.5)
>>> state = estimator.init(3)
>>> feedback = Feedback.from_rows([2, 0, 2], [4.0, 1.0, 6.0], n_regions=3)
>>> rows = {name: array[feedback.regions] for name, array in state.rows.items()}
>>> rows, shared = estimator.update(rows, state.shared, feedback)
>>> state.rows["average"][feedback.regions] = rows["average"]  # the allocator does this
>>> estimator.estimate(state).mean.tolist()  # region 1 was never visited
[1.0, nan, 5.0]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import BoolArray, FloatArray, IntArray, State
from aria_sampling._check import float_vector, int_vector, integer

__all__ = ["Estimate", "Estimator", "Feedback", "borrowed", "read_out"]

LOSS_LIMIT = 1e150  # from here on a loss counts as not finite: its square would overflow float64
TINY = 1e-300  # a denominator that is less than this is 0: that of a region never visited


@dataclass(frozen=True, eq=False)
class Feedback:
    """The losses of one round, summed up by region: all that an estimator may use of them.

    Attributes:
        regions: The regions that were visited, ascending, int64 [m].
        count: Number of losses in each, float64 [m], positive. Whole numbers, but in the one round that
            `Allocator.adopt` makes of an old allocation.
        mean: Their mean, float64 [m].
        m2: The sum of their squared deviations from that mean, float64 [m].
        dropped: Number of losses left out because they were not finite (or at least 1e150 in size).
    """

    regions: IntArray
    count: FloatArray
    mean: FloatArray
    m2: FloatArray
    dropped: int

    @classmethod
    def from_rows(cls, regions: Any, losses: Any, *, n_regions: int) -> Feedback:
        """Sum up one loss a row, in row order (so that any split into micro-batches gives the same bits).

        Args:
            regions: Integers [n] in ``0..n_regions-1``.
            losses: Real [n].
            n_regions: Number of regions.

        Raises:
            ValueError: Another shape, dtype or length, or a region out of range.
        """
        n_regions = integer("n_regions", n_regions, low=1)
        regions = int_vector("regions", regions, high=n_regions)
        losses = float_vector("losses", losses, length=len(regions))
        return cls(*_kernel.aggregate(np.ascontiguousarray(regions), np.ascontiguousarray(losses), n_regions))


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is believed of regions: of all of them, or of some.

    Attributes:
        mean: Estimated mean loss, in the unit of the loss, float64 [n_regions]. NaN for a region never visited;
            `Allocator.estimate` lends it the count-weighted mean of the visited ones.
        stderr: Standard error of `mean` from sampling noise (not from drift), float64 [n_regions];
            infinite for a region never visited.
        count: Effective number of losses behind `mean` (how many equally weighted ones would be as
            accurate), float64 [n_regions]; 0 for a region never visited.
        age: Mean age of those losses in rounds, float64 [n_regions]; infinite if never visited.
    """

    mean: FloatArray
    stderr: FloatArray
    count: FloatArray
    age: FloatArray

    @property
    def cold(self) -> BoolArray:
        """Which regions were never visited, bool [n_regions]."""
        return self.count == 0


def borrowed(estimate: Estimate) -> Estimate:
    """Return `estimate`, in which regions never visited have the count-weighted mean of the others (NaN if none)."""
    cold = estimate.cold
    if not cold.any():
        return estimate
    count = estimate.count.sum()
    total = np.where(cold, 0.0, estimate.count * estimate.mean).sum()
    return replace(estimate, mean=np.where(cold, total / count if count > 0 else np.nan, estimate.mean))


class Estimator(ABC):
    """A rule that tracks the mean loss of every region. Subclass it to bring your own.

    Subclasses hold settings only, and should be frozen dataclasses: their ``repr`` is stored with a saved state and
    compared on load. State goes by value: no method changes its arguments, or returns arrays that it was given.
    """

    @abstractmethod
    def init(self, n_regions: int) -> State:
        """Return the state before any feedback.

        ``rows`` holds float64 arrays [n_regions, ...], what is known of each region. ``shared`` holds float64 arrays of
        any shape, what is known of all regions together. Names and shapes never change, and every number is finite.
        """

    @abstractmethod
    def update(
        self, rows: dict[str, FloatArray], shared: dict[str, FloatArray], feedback: Feedback
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Return the rows and shared arrays after one more round: new arrays of the same names and shapes.

        Args:
            rows: The rows of ``feedback.regions``, each float64 [m, ...].
            shared: The shared arrays.
            feedback: Of one closed round. It may be empty (m = 0): the round still counts.
        """

    @abstractmethod
    def estimate(self, state: State) -> Estimate:
        """Return the current `Estimate`; its arrays share no memory with `state`.

        `state` may hold the rows of some regions only. The estimate of a region depends on its own row and on
        ``state.shared``, so that asking for some rows gives the same bits as asking for all. A region never visited has
        mean NaN, count 0, and infinite stderr and age.
        """


def read_out(mean: FloatArray, count: FloatArray, age: FloatArray, cv2: FloatArray) -> Estimate:
    """Return an `Estimate` for losses that scatter in proportion to their mean.

    Args:
        mean: float64 [m].
        count: float64 [m]. Where it is 0, the region was never visited, and the other fields say so.
        age: float64 [m], a difference of clocks: what rounding takes below 0 is 0.
        cv2: float64 [2]. The first over the second is the squared coefficient of variation of a loss, pooled over
            regions; so the standard error is ``sqrt(cv2 / count) * abs(mean)``.
    """
    mean, stderr, age = _kernel.read_out(mean, count, age, cv2)
    return Estimate(mean, stderr, count, age)
