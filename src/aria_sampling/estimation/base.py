"""What an estimator is: a rule that turns the feedback of each round into an `Estimate` per region.

An estimator object holds its settings only. What it has learnt is a value apart (a dictionary of arrays),
which the allocator keeps, saves and passes back: ``init`` makes it, ``update`` advances it by a round, and
``estimate`` reads it.

>>> from aria_sampling import Ema, Feedback
>>> estimator = Ema(rate=0.5)
>>> state = estimator.init(3)
>>> state = estimator.update(state, Feedback.from_rows([0, 0, 2], [1.0, 3.0, 5.0], n_regions=3))
>>> estimator.estimate(state).mean.round(3).tolist()  # region 1 was not visited: the weighted mean
[2.0, 3.0, 5.0]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling._typing import BoolArray, FloatArray, IntArray, State
from aria_sampling._validation import float_vector, int_vector, integer

__all__ = ["Estimate", "Estimator", "Feedback", "fill_unvisited"]

LOSS_LIMIT = 1e150  # from here on a loss counts as non-finite: its square would overflow float64


@dataclass(frozen=True, eq=False)
class Feedback:
    """The losses of one round, summed up by region: all that an estimator may use of them.

    Attributes:
        regions: The regions that were visited, ascending, int64 [m].
        count: Number of losses in each, float64 [m], at least 1 (whole numbers).
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
        usable = np.abs(losses) < LOSS_LIMIT  # False for NaN
        regions, losses = regions[usable], losses[usable]
        count = np.bincount(regions, minlength=n_regions)
        visited = (count > 0).nonzero()[0]
        mean = np.bincount(regions, losses, n_regions)[visited] / count[visited]
        centre = np.zeros(n_regions)
        centre[visited] = mean
        m2 = np.bincount(regions, (losses - centre[regions]) ** 2, n_regions)[visited]
        dropped = int(len(usable) - usable.sum())
        return cls(visited, count[visited].astype(np.float64), mean, m2.astype(np.float64, copy=False), dropped)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What is believed of every region. A region never visited has count 0.

    Attributes:
        mean: Estimated mean loss, in the unit of the loss, float64 [n_regions]. For a region never
            visited it is the count-weighted mean of the visited ones, NaN if there are none.
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
        """Which regions were never visited, so that their mean is borrowed, bool [n_regions]."""
        return self.count == 0


class Estimator(ABC):
    """A rule that tracks the mean loss of every region. Subclass it to bring your own.

    Subclasses hold settings only, should be frozen dataclasses (their ``repr`` is stored with a saved
    state, and compared on load) and keep all they learn in the state they return.
    """

    @abstractmethod
    def init(self, n_regions: int) -> State:
        """Return the state before any feedback: arrays whose shapes and dtypes never change."""

    @abstractmethod
    def update(self, state: State, feedback: Feedback) -> State:
        """Return the state after one more closed round; `feedback` may be empty, the round still counts.

        The arrays of `state` may be changed in place: the caller gives them up. The cost must be
        O(m + 1) for m visited regions, or O(n_regions) vector operations at most.
        """

    @abstractmethod
    def estimate(self, state: State) -> Estimate:
        """Return the current `Estimate`. Must not change `state`, nor share memory with it."""


def fill_unvisited(mean: FloatArray, cv2: float, count: FloatArray, age: FloatArray) -> Estimate:
    """Return an `Estimate`, with the fields of regions never visited (count 0) filled in by convention.

    `cv2` is the squared coefficient of variation of a single loss: the standard error is
    ``sqrt(cv2 / count) * abs(mean)``.
    """
    cold = (count == 0).nonzero()[0]
    mean, safe = mean.copy(), count.copy()
    age = np.maximum(age, 0.0)  # a difference of clocks: rounding may go below 0
    if len(cold):
        mean[cold], safe[cold], age[cold] = 0.0, 1.0, np.inf
        weight = count.sum()
        mean[cold] = (count * mean).sum() / weight if weight > 0 else np.nan
    stderr = cv2 / safe
    np.sqrt(stderr, out=stderr)
    stderr *= np.abs(mean)
    stderr[cold] = np.inf
    return Estimate(mean, stderr, count.copy(), age)
