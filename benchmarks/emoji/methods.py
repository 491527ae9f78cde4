"""The methods compared: each is a policy over the same regions, and nothing else.

Apart from `distill.py` so that the loop can be seen to be one and the same for all. A new method is one more entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

import aria_sampling as aria
from benchmarks.mixing.methods import OnlineMixing

from .models import TIMESTEPS
from .peers import LastLosses, SecondMoment
from .world import Scenario, stream

PARTITIONS = ("kmeans", "subgroups", "random", "unseen")
_RANDOM_REGIONS = 401  # first word of a generator's key


@dataclass(frozen=True)
class Method:
    """How conditions are drawn from the pool. `policy` is None where rows never switch."""

    title: str
    policy: aria.Policy | None
    target: str | float | tuple[float, ...] = "pool"
    paired: bool | str = (
        False  # whether rows that keep their caption count as effort; "noisy": of them those with t >= T/2
    )
    signal: str = "loss"  # of `signals.SIGNALS`
    floor: float = 0.2
    max_gap: int | None = None
    present_weight: float = 1.0
    normalise: bool = True
    estimator: aria.Estimator = field(default_factory=aria.EmaBank)
    partition: str | None = None  # other regions than the cell's

    @property
    def key(self) -> str:
        """What tells it from other methods: the settings that are not the default, whatever it is called."""
        default = Method(self.title, None)
        return " ".join(f"{k}={v!r}" for k, v in sorted(vars(self).items()) if v != getattr(default, k))


_D = aria.Proportional(exponent=1.0)
_FILL = aria.Proportional(exponent=0.0)  # the discrepancy plays no part: what the target and paired rows make of it

METHODS: dict[str, Method] = {
    "none": Method("no switching", None),
    "rc": Method("random conditioning", aria.PoolPolicy()),
    "uniform": Method("uniform over regions", aria.UniformPolicy(), target="uniform"),
    "aria": Method("ARIA", _D, paired=True, present_weight=10.0),
    "aria_fill": Method("ARIA without discrepancy", _FILL, paired=True, present_weight=10.0),
    "aria_nopaired": Method("ARIA without paired", _D),
    **{
        f"aria_w{weight}": Method(f"ARIA, an image for {weight} draws", _D, paired=True, present_weight=float(weight))
        for weight in (1, 3, 100)
    },
    **{
        f"aria_uniform_w{weight}": Method(
            f"ARIA, regions alike, an image for {weight} draws",
            _D,
            target="uniform",
            paired=True,
            present_weight=float(weight),
        )
        for weight in (1, 3, 10, 100)
    },
    "aria_w100_floor5": Method(
        "ARIA, an image for 100 draws, floor 0.05", _D, paired=True, present_weight=100.0, floor=0.05
    ),
    "aria_w100_floor5_gap": Method(
        "ARIA, an image for 100 draws, floor 0.05, no forced visits",
        _D,
        paired=True,
        present_weight=100.0,
        floor=0.05,
        max_gap=10**9,
    ),
    "fill_uniform_w1": Method("regions alike, filled up", _FILL, target="uniform", paired=True),
    "sqrt": Method("square root of the size", _FILL, target=0.5, floor=1.0),
    "aria_squared": Method("ARIA, D squared", aria.Proportional(2.0), paired=True, present_weight=10.0),
    "aria_floor5": Method("ARIA, floor 0.05", _D, paired=True, present_weight=10.0, floor=0.05),
    "aria_floor50": Method("ARIA, floor 0.5", _D, paired=True, present_weight=10.0, floor=0.5),
    "aria_ema": Method("ARIA, one EMA", _D, paired=True, present_weight=10.0, estimator=aria.Ema()),
    "aria_raw": Method("ARIA, raw losses", _D, paired=True, present_weight=10.0, normalise=False),
    "aria_reducible": Method("ARIA, reducible", aria.Reducible(), paired=True, present_weight=10.0),
    "reducible": Method("reducible, regions alike", aria.Reducible(), target="uniform"),
    "minimax": Method("minimax, regions alike", aria.Minimax(), target="uniform"),
    "second_moment": Method(
        "second-moment resampler", SecondMoment(), target="uniform", floor=0.001, estimator=LastLosses()
    ),
    "aria_truth": Method(
        "ARIA, true discrepancies",
        _D,
        paired=True,
        present_weight=10.0,
        signal="truth",
        estimator=aria.Ema(rate=1.0, per="visit"),
    ),
    **{
        f"aria_{signal}": Method(f"ARIA, {title}", _D, paired=True, present_weight=10.0, signal=signal)
        for signal, title in (
            ("direction", "error of the direction"),
            ("of_start", "loss over the start's"),
            ("of_effect", "loss over the teacher's effect"),
        )
    },
    "aria_noisy": Method("ARIA, images count where noisy", _D, paired="noisy", present_weight=10.0),
    "odm": Method(
        "Online Data Mixing", OnlineMixing(), target="uniform", floor=1e-9, estimator=aria.Ema(rate=1.0, per="visit")
    ),
    "oracle": Method(
        "oracle: told which prompts have no images", _FILL, target=(0.03, 0.97), floor=1.0, partition="unseen"
    ),
}


def regions_of(scenario: Scenario, kind: str, n_regions: int, seed: int) -> aria.Partition:
    """The pool cut into regions.

    "kmeans": on the prompts' embeddings; labels of groups play no part. "random": at random. "subgroups": Unicode's.
    For the oracle alone, "unseen": seen and unseen ones.
    """
    world, emoji = scenario.world, scenario.world.prompt_emoji[scenario.pool]
    if kind == "kmeans":
        return aria.KMeansPartitioner(n_regions=n_regions, seed=seed).fit(scenario.pool_embeddings)
    if kind == "random":
        return aria.Partition.from_labels(stream(_RANDOM_REGIONS, seed).permutation(np.arange(len(emoji)) % n_regions))
    if kind == "subgroups":
        return aria.Partition.from_labels(np.unique(world.subgroups[emoji], return_inverse=True)[1])
    if kind == "unseen":
        return aria.Partition.from_labels(scenario.is_unseen[emoji].astype(np.int64))
    raise ValueError(f"partition={kind!r}: expected one of {PARTITIONS}")


def unseen_share(scenario: Scenario, partition: aria.Partition) -> np.ndarray:
    """float64[K]: the share of a region's prompts that belong to unseen groups; for figures only."""
    unseen = scenario.is_unseen[scenario.world.prompt_emoji[scenario.pool]]
    return np.bincount(partition.labels, weights=unseen, minlength=partition.n_regions) / partition.sizes


def make_switch(method: Method, partition: aria.Partition, *, seed: int, lam: float, lag: int = 0) -> Any:
    """The method's `aria.RandomConditioning`, or None for no switching."""
    if method.policy is None:
        return None
    allocator = aria.Allocator(
        partition,
        estimator=method.estimator,
        policy=method.policy,
        floor=method.floor,
        max_gap=method.max_gap,
        target=method.target,
        present_weight=method.present_weight,
        seed=seed,
        lag=lag,
    )
    schedule = aria.ExponentialSwitch(rate=lam)
    return aria.RandomConditioning(
        allocator, schedule=schedule, num_train_timesteps=TIMESTEPS, normalise=method.normalise
    )
