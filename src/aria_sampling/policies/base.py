"""What a policy is: a rule that says how much more a region deserves than its target share.

A policy returns the logarithm of a score, one number a region. The allocator makes probabilities of it:
``p = (1 - exploration) * q * score / sum(q * score) + exploration * q``. It multiplies the target q, and does not
replace it: so the result does not depend on how finely the pool was cut. The exploration bounds every weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from aria_sampling._arrays import FloatArray, State
from aria_sampling._check import integer
from aria_sampling.estimators.base import Estimate

__all__ = ["Policy"]


class Policy(ABC):
    """A rule that turns estimates into scores. Subclass it to bring your own.

    Subclasses hold settings only, and should be frozen dataclasses: their ``repr`` is stored with a saved state and
    compared on load. State goes by value: no method changes its arguments, or returns arrays that it was given.

    There are two kinds, and a subclass says which:

    - ``local = True``: a score depends on its own region's estimate alone. Write ``log_score(estimate, shared)``. It is
      asked for the regions that a round visited, so its cost does not grow with the number of regions.
    - ``local = False``: scores depend on all regions, or on the past. Write ``init`` and ``update`` as well, and
      ``log_score(state)``. Every round then costs a pass over all regions.

    Attributes:
        local: Which kind it is.
        baseline: Set by the two baselines: the allocator then draws from that target itself, and never asks for scores.
    """

    local: ClassVar[bool] = False
    baseline: ClassVar[Literal["pool", "uniform"] | None] = None

    def init(self, n_regions: int) -> State:
        """Return the state before any feedback: by default, none.

        ``rows`` holds float64 arrays [n_regions, ...], ``shared`` float64 arrays of any shape. Names and shapes never
        change, and every number is finite. A local policy has no rows.
        """
        integer("n_regions", n_regions, low=1)
        return State({}, {})

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state after a round that brought feedback: new arrays, or `state` itself where nothing changes.

        Not called where ``local = True``. `estimate` is of all regions. Its mean is neither negative (it was clamped
        at 0) nor NaN (a region never visited has the count-weighted mean of the others).
        """
        return state

    @abstractmethod
    def log_score(self, *args: Any, **kwargs: Any) -> FloatArray:
        """Return the logarithm of the score of each region, float64.

        With ``local = True`` the arguments are ``(estimate, shared)``: an `Estimate` of m regions, as `update` gets it,
        and the shared arrays of the state. The result has the shape [m]. Otherwise the argument is ``state``, and the
        result has the shape [n_regions].

        Only differences between regions matter. -inf means never, but for exploration; +inf and NaN are errors.
        """
