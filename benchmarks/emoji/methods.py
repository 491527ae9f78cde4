"""The methods compared: each is a way to draw prompts, and changes nothing else in a run.

Apart from `distill.py` so that the loop can be seen to be one and the same for all. A new method is one more entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import aria_sampling as aria

from .models import TIMESTEPS
from .world import Scenario


@dataclass(frozen=True)
class Method:
    """How conditions are drawn from the pool.

    Attributes:
        title: For tables and figures.
        n_regions: Number of regions in a cell of 512; in proportion in others. None: two, with and without images,
            which only the oracle may see.
        settings: Arguments of `aria.Allocator`, beside the partition, the coverage and the seed. None: rows never
            switch.
        coverage: Arguments of `aria.Coverage`, beside the partition and the prompts with images. None: no coverage.
    """

    title: str
    n_regions: int | None = 512
    settings: Mapping[str, Any] | None = field(default_factory=dict[str, Any])
    coverage: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """All that decides its draws, as text."""
        return repr([self.n_regions, *(of and sorted(of.items()) for of in (self.settings, self.coverage))])


METHODS: dict[str, Method] = {
    "none": Method("no switching", settings=None),
    "rc": Method("random conditioning", settings={"policy": aria.PoolPolicy()}),
    "uniform": Method("uniform over regions", settings={"policy": aria.UniformPolicy()}),
    "aria": Method("ARIA", 2048, coverage={}),  # Allocator(pool, coverage=Coverage(pool, items=...)), nothing else set
    # one thing changed
    "aria_nocoverage": Method("ARIA, images not counted", 2048),
    "aria_counts": Method("ARIA, images counted by region alone", 2048, coverage={"power": 0}),
    "aria_blind": Method("ARIA, no discrepancy", 2048, {"policy": aria.Proportional(0.0)}, {}),
    "aria_e05": Method("ARIA, exploration 0.05", 2048, {"exploration": 0.05}, {}),
    "aria_g2": Method("ARIA, power 2", 2048, coverage={"power": 2.0}),
    "aria_ema": Method("ARIA, one EMA", 2048, {"estimator": aria.Ema()}, {}),
    "aria_lag8": Method("ARIA, lag 8", 2048, {"lag": 8}, {}),
    "oracle": Method(
        "oracle: told which prompts have no images",
        None,
        {"policy": aria.Proportional(0.0), "target": (0.03, 0.97), "exploration": 1.0},
    ),
}

RECORDS = {"first_aria": "first edition: images counted", "first_novel4": "first edition: by novelty"}
"""Methods of the library's first edition whose runs are kept to compare with: their titles. They cannot be run."""

TITLES = {
    **{name: METHODS[name].title for name in ("none", "rc", "uniform")},
    **RECORDS,
    **{name: method.title for name, method in METHODS.items()},
}
"""Of all methods that there are runs of, in the order of tables."""


def regions_of(scenario: Scenario, n_regions: int | None, seed: int) -> aria.Partition:
    """The pool cut by k-means on its embeddings, labels of groups play no part; None: the oracle's two regions."""
    if n_regions is None:
        unseen = scenario.is_unseen[scenario.world.prompt_emoji[scenario.pool]]
        return aria.Partition.from_labels(unseen.astype(np.int64))
    return aria.KMeansPartitioner(n_regions=n_regions, seed=seed).fit(scenario.pool_embeddings)


def unseen_share(scenario: Scenario, partition: aria.Partition) -> np.ndarray:
    """float64[K]: the share of a region's prompts that belong to unseen groups; for figures only."""
    unseen = scenario.is_unseen[scenario.world.prompt_emoji[scenario.pool]]
    return np.bincount(partition.labels, weights=unseen, minlength=partition.n_regions) / partition.sizes


def with_images(scenario: Scenario) -> dict[str, np.ndarray]:
    """What `aria.Coverage` is told: every prompt of an emoji that has an image to distil on, once each.

    As ``items`` those that are in the pool: all of them, but for the pools "names" and "long_tail", which leave prompts
    out. These go in as ``embeddings``. In a diluted pool the blends of prompts are items without images.
    """
    world = scenario.world
    captions = np.flatnonzero(np.isin(world.prompt_emoji, scenario.paired))
    items = scenario.pool_item[captions]
    told = {"items": items[items >= 0]}
    if (items < 0).any():
        told["embeddings"] = world.embeddings[captions[items < 0]]
    return told


def make_switch(method: Method, partition: aria.Partition, scenario: Scenario, *, seed: int, lam: float) -> Any:
    """The method's `aria.RandomConditioning`, or None for no switching."""
    if method.settings is None:
        return None
    coverage = None
    if method.coverage is not None:
        coverage = aria.Coverage(partition, **with_images(scenario), **method.coverage)
    allocator = aria.Allocator(partition, coverage=coverage, seed=seed, **method.settings)
    return aria.RandomConditioning(allocator, schedule=aria.ExponentialSwitch(rate=lam), num_train_timesteps=TIMESTEPS)
