"""The methods compared: each is a policy over the same regions, and nothing else.

Apart from `distill.py` so that the loop can be seen to be one and the same for all. A new method is one more entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import aria_sampling as aria

from .models import TIMESTEPS
from .world import Scenario


@dataclass(frozen=True)
class Method:
    """How conditions are drawn from the pool. `policy` is None where rows never switch."""

    title: str
    policy: Callable[[], aria.Policy] | None
    target: str = "pool"
    paired: bool = False  # whether rows that keep their own caption count as effort its region gets


METHODS: dict[str, Method] = {
    "none": Method("no switching", None),
    "rc": Method("random conditioning", aria.PoolPolicy),
    "uniform": Method("uniform over regions", aria.UniformPolicy, target="uniform"),
    "aria": Method("ARIA", lambda: aria.Proportional(exponent=1.0), target="uniform", paired=True),
    "aria_nopaired": Method("ARIA without paired", lambda: aria.Proportional(exponent=1.0), target="uniform"),
}


def regions_of(scenario: Scenario, n_regions: int, seed: int) -> aria.Partition:
    """The pool cut into regions by k-means on the prompts' embeddings; labels of groups play no part."""
    embeddings = scenario.world.embeddings[scenario.pool]
    return aria.KMeansPartitioner(n_regions=n_regions, seed=seed).fit(embeddings)


def unseen_share(scenario: Scenario, partition: aria.Partition) -> np.ndarray:
    """float64[K]: the share of a region's prompts that belong to unseen groups; for figures only."""
    unseen = scenario.is_unseen[scenario.world.prompt_emoji[scenario.pool]]
    return np.bincount(partition.labels, weights=unseen, minlength=partition.n_regions) / partition.sizes


def make_switch(method: Method, partition: aria.Partition, *, seed: int, lam: float) -> Any:
    """The method's `aria.RandomConditioning`, or None for no switching."""
    if method.policy is None:
        return None
    allocator = aria.Allocator(
        partition, estimator=aria.EmaBank(), policy=method.policy(), floor=0.2, target=method.target, seed=seed
    )
    schedule = aria.ExponentialSwitch(rate=lam)
    return aria.RandomConditioning(allocator, schedule=schedule, num_train_timesteps=TIMESTEPS)
