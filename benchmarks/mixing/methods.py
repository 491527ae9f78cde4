"""The methods compared: each is an allocator over the same groups, and nothing else.

The library's own parts are used at their defaults. The two peers are written in its terms from what their authors
published: `OnlineMixing` is one more policy, and DoReMi is `GroupDRO` on another loss, twice trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import aria_sampling as aria
from aria_sampling import Estimate, Policy, State


@dataclass(frozen=True)
class OnlineMixing(Policy):
    """Exp3 with the loss as reward, as in Online Data Mixing (Albalak and others, arXiv 2312.02406).

    The reward of a group is a moving average of loss / probability over the rounds that draw it; shares are
    ``(1 - K e) softmax(e' R) + e``, with ``e = min(1/K, sqrt(ln K / (K t)))`` and e' that of the round before.
    The estimator has to be ``Ema(rate=1, per="visit")``, so that the estimate is the group's latest mean loss; the
    target "uniform" and the exploration next to 0, as the shares explore by themselves.

    Args:
        smoothing: Weight of the past in the moving average.
    """

    smoothing: float = 0.9

    def init(self, n_regions: int) -> State:
        """Equal shares, no rewards."""
        rows = {"shares": np.full(n_regions, 1 / n_regions), "reward": np.zeros(n_regions)}
        return State(rows, {"round": np.zeros(1)})

    def update(self, state: State, estimate: Estimate) -> State:
        """One round of Exp3."""
        shares, reward, t = state.rows["shares"], state.rows["reward"], state.shared["round"]
        n_regions, drawn = len(shares), estimate.age == 0
        told = self.smoothing * reward + (1 - self.smoothing) * estimate.mean / shares
        reward = np.where(drawn, told, reward)
        before, now = (
            min(1 / n_regions, math.sqrt(math.log(n_regions) / (n_regions * max(at, 1)))) for at in (t[0], t[0] + 1)
        )
        softmax = np.exp(before * (reward - reward.max()))
        shares = (1 - n_regions * now) * softmax / softmax.sum() + now
        return State({"shares": shares, "reward": reward}, {"round": t + 1})

    def log_score(self, state: State) -> np.ndarray:
        """The shares' logarithms."""
        return np.log(state.rows["shares"])


LATEST = aria.Ema(rate=1.0, per="visit")  # the mean loss of the latest round that drew the group

# What DoReMi's proxy draws from (Xie and others, arXiv 2305.10429): step size 1 and smoothing 1e-3 are the paper's.
PROXY: dict[str, Any] = {
    "policy": aria.GroupDRO(step_size=1.0, scale=1.0), "estimator": LATEST, "target": "uniform", "exploration": 1e-3,
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    """How groups are drawn.

    Attributes:
        title: For tables and figures.
        settings: Arguments of `aria.Allocator`; a `target` of None is filled in by the run (DoReMi).
        start: The method without feedback that it departs from; None for these.
    """

    title: str
    settings: Callable[[], dict[str, Any]] = field(repr=False)
    start: str | None = None


_NO_FEEDBACK: dict[str, Any] = {"policy": aria.Proportional(0.0)}

METHODS: dict[str, Method] = {
    "pool": Method("pool", lambda: {"policy": aria.PoolPolicy()}),
    "sqrt": Method("sqrt of size", lambda: {**_NO_FEEDBACK, "target": 0.5}),
    "uniform": Method("uniform", lambda: {"policy": aria.UniformPolicy()}),
    "pool_visits": Method("pool, forced visits", lambda: {**_NO_FEEDBACK, "target": "pool"}),
    "aria_pool": Method("ARIA, pool", lambda: {"policy": aria.Proportional(), "target": "pool"}, "pool_visits"),
    "aria_uniform": Method("ARIA, uniform", lambda: {"policy": aria.Proportional(), "target": "uniform"}, "uniform"),
    "reducible_uniform": Method(
        "Reducible, uniform", lambda: {"policy": aria.Reducible(), "target": "uniform"}, "uniform"
    ),
    "group_dro": Method("Group DRO, uniform", lambda: {"policy": aria.GroupDRO(), "target": "uniform"}, "uniform"),
    "odm": Method(
        "Online Data Mixing",
        lambda: {"policy": OnlineMixing(), "estimator": LATEST, "target": "uniform", "exploration": 1e-9},
        "uniform",
    ),
    "doremi": Method("DoReMi (3 trainings)", lambda: {**_NO_FEEDBACK, "target": None}, "pool"),
}
