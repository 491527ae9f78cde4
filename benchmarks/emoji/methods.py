"""The methods compared: each is a way to draw prompts, and changes nothing else in a run.

Most are a policy over the cell's regions; variants of ARIA and uniform change one setting: regions, lag, signal and so
on. Apart from `distill.py` so that the loop can be seen to be one and the same for all. A new method is one more entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

import aria_sampling as aria
from benchmarks.mixing.methods import LATEST, OnlineMixing

from .models import TIMESTEPS
from .peers import Growth, LastLosses, NearAllocator, Pooled, Regressed, SecondMoment
from .world import Scenario, stream

PARTITIONS = ("kmeans", "subgroups", "random", "unseen")
_RANDOM_REGIONS = 401  # first word of a generator's key


@dataclass(frozen=True)
class Method:
    """How conditions are drawn from the pool. `policy` is None where rows never switch."""

    title: str
    policy: aria.Policy | None
    target: str | float | tuple[float, ...] = "pool"
    paired: bool | str = False  # whether rows that keep their caption count as effort; "noisy": those with t >= T/2
    signal: str = "loss"  # of `signals.SIGNALS`
    floor: float = 0.2
    max_gap: int | None = None
    present_weight: float = 1.0
    present_rate: float = 0.02
    normalise: bool = True
    estimator: aria.Estimator = field(default_factory=aria.EmaBank)
    partition: str | None = None  # other regions than the cell's
    n_regions: int | None = None  # as many where the cell has 512, if that is free; in proportion elsewhere
    lag: int | None = None  # another lag than the cell's
    groups: int = 0  # of regions, whose means draw theirs; -1: a plane through the estimates of all regions instead
    novelty: float = 0.0  # power of the regions' novelty, given the prompts with images, in the target (over sizes)
    near: int = 1  # a row that keeps its own caption counts for as many regions, its own and the nearest

    @property
    def key(self) -> str:
        """What tells it from other methods: the settings that are not the default, whatever it is called."""
        default = Method(self.title, None)
        return " ".join(f"{k}={v!r}" for k, v in sorted(vars(self).items()) if v != getattr(default, k))


_NEVER = 10**9  # a gap that no run reaches: no visit is forced
_PEER: dict[str, Any] = {"target": "uniform", "max_gap": _NEVER, "partition": "subgroups"}
_FIRST = Method("first ARIA", aria.Proportional(), paired=True, present_weight=10.0)
_ARIA = replace(_FIRST, title="ARIA", present_rate=0.0, n_regions=2048)
_UNIFORM = Method("uniform over regions", aria.UniformPolicy(), target="uniform")
_FILL = aria.Proportional(exponent=0.0)  # the discrepancy plays no part: what the target and paired rows make of it


def _aria(title: str, **changes: Any) -> Method:
    return replace(_ARIA, title=f"ARIA, {title}", **changes)


def _first(title: str, **changes: Any) -> Method:
    """The default that was frozen first: 512 regions, and images forgotten at a rate of 0.02."""
    return replace(_FIRST, title=f"first ARIA, {title}", **changes)


def _uniform(title: str, **regions: Any) -> Method:
    return replace(_UNIFORM, title=f"uniform, {title}", **regions)


METHODS: dict[str, Method] = {
    "none": Method("no switching", None),
    "rc": Method("random conditioning", aria.PoolPolicy()),
    "uniform": _UNIFORM,
    "aria": _ARIA,
    # one setting changed
    **{f"aria_w{n}": _aria(f"present_weight={n}", present_weight=float(n)) for n in (1, 3, 100)},
    "aria_nopaired": _aria("images not counted", paired=False, present_weight=1.0),
    "aria_tau5": _aria("target size**0.5", target=0.5),
    "aria_uniform": _aria("target uniform", target="uniform"),
    **{f"aria_novel{p}": _aria(f"target size * novelty**{p}", novelty=float(p)) for p in (2, 4, 8)},
    "aria_novel4_nopaired": _aria(
        "target size * novelty**4, images not counted", novelty=4.0, paired=False, present_weight=1.0
    ),
    "aria_blind": _aria("no discrepancy", policy=_FILL),
    "aria_squared": _aria("D squared", policy=aria.Proportional(2.0)),
    "aria_reducible": _aria("reducible", policy=aria.Reducible()),
    "aria_floor5": _aria("floor 0.05", floor=0.05),
    "aria_floor50": _aria("floor 0.5", floor=0.5),
    "aria_ema": _aria("one EMA", estimator=aria.Ema()),
    "aria_raw": _aria("raw losses", normalise=False),
    **{f"aria_lag{n}": _aria(f"lag {n}", lag=n) for n in (8, 64)},
    **{f"aria_regions{n}": _aria(f"{n} regions", n_regions=n) for n in (8, 32, 96, 512)},
    "aria_random": _aria("2048 regions at random", partition="random"),
    "aria_subgroups": _aria("Unicode's 99 subgroups", partition="subgroups"),
    **{f"aria_pooled{p}": _aria(f"pooled, D**{p}", policy=aria.Proportional(float(p)), groups=128) for p in (1, 2, 4)},
    **{f"aria_growth{p}": _aria(f"pooled, growth**{p}", policy=Growth(float(p)), groups=128) for p in (2, 4, 8, 16)},
    **{
        f"aria_regressed{p}": _aria(f"regressed growth**{p}", policy=aria.Proportional(float(p)), groups=-1)
        for p in (8, 32)
    },
    # what the discrepancy does by itself, and more of it: on 512 regions, for more losses in each
    "loss4": _first("D**4, images not counted", policy=aria.Proportional(4.0), paired=False, present_weight=1.0),
    "growth8": _first("growth**8, images not counted", policy=Growth(8.0), paired=False, present_weight=1.0),
    "aria_regions512_growth8": _aria("512 regions, growth**8", policy=Growth(8.0), n_regions=512),
    # the default that was frozen first, and what was tried on it
    "first": _FIRST,
    "first_w100": _first("present_weight=100", present_weight=100.0),
    "first_w100_floor5": _first("present_weight=100, floor 0.05", present_weight=100.0, floor=0.05),
    "first_w100_floor5_gap": _first(
        "present_weight=100, floor 0.05, no forced visits", present_weight=100.0, floor=0.05, max_gap=_NEVER
    ),
    "first_near8": _first("images count for the 8 nearest regions", near=8),
    "first_noisy": _first("images count where noisy", paired="noisy"),
    "first_uniform": _first("target uniform", target="uniform"),
    **{
        f"first_uniform_w{n}": _first(f"target uniform, present_weight={n}", target="uniform", present_weight=float(n))
        for n in (1, 3, 100)
    },
    "first_blind": _first("no discrepancy", policy=_FILL),
    "first_uniform_w1_blind": _first(
        "target uniform, present_weight=1, no discrepancy", policy=_FILL, target="uniform", present_weight=1.0
    ),
    "first_direction": _first("error of the direction", signal="direction"),
    "first_of_start": _first("loss over the start's", signal="of_start"),
    **{
        f"first_of_start{n}": _first(
            f"(loss over the start's)**{n}", signal="of_start", policy=aria.Proportional(float(n))
        )
        for n in (2, 4)
    },
    "first_of_effect": _first("loss over the teacher's effect", signal="of_effect"),
    "first_of_reference": _first("loss over a finished student's", signal="of_reference"),
    "first_truth": _first("true discrepancies", signal="truth", estimator=LATEST),
    "first_regions2048": _first("2048 regions", n_regions=2048),
    "first_subgroups": _first("Unicode's 99 subgroups", partition="subgroups"),
    "first_uniform_subgroups": _first(
        "target uniform, Unicode's 99 subgroups", target="uniform", partition="subgroups"
    ),
    # uniform on other regions
    **{f"uniform_regions{n}": _uniform(f"{n} regions", n_regions=n) for n in (8, 32, 96, 2048)},
    "uniform_subgroups": _uniform("Unicode's 99 subgroups", partition="subgroups"),
    "uniform_random": _uniform("regions at random", partition="random"),
    # peers, and shares that nothing changes
    "sqrt": Method("square root of the size", _FILL, target=0.5, floor=1.0, max_gap=_NEVER),
    "reducible": Method("reducible, regions alike", aria.Reducible(), target="uniform"),
    "minimax": Method("minimax, regions alike", aria.Minimax(), target="uniform"),
    # on the 99 subgroups: with 512 regions they would not have begun to adapt before the last steps
    "second_moment": Method(
        "second-moment resampler, Unicode's 99 subgroups", SecondMoment(), floor=0.001, estimator=LastLosses(), **_PEER
    ),
    "odm": Method("Online Data Mixing, Unicode's 99 subgroups", OnlineMixing(), floor=1e-9, estimator=LATEST, **_PEER),
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


def _target(method: Method, partition: aria.Partition, scenario: Scenario) -> Any:
    """The method's target; with `novelty`, of the prompts of emoji that have images."""
    if not method.novelty:
        return method.target
    has_image = np.isin(scenario.world.prompt_emoji, scenario.paired)
    regions = partition.assign(scenario.world.embeddings[has_image])
    counts = np.bincount(regions, minlength=partition.n_regions)
    return partition.sizes * aria.novelty(partition, counts) ** method.novelty


def make_switch(
    method: Method, partition: aria.Partition, scenario: Scenario, *, seed: int, lam: float, lag: int = 0
) -> Any:
    """The method's `aria.RandomConditioning`, or None for no switching. `lag` is the cell's."""
    if method.policy is None:
        return None
    make = aria.Allocator if method.near == 1 else partial(NearAllocator, near=method.near)
    estimator = method.estimator
    if method.groups < 0:
        assert partition.centers is not None
        estimator = Regressed(partition.centers.astype(float), partition.sizes.astype(float))
    elif method.groups:
        assert partition.centers is not None
        groups = (
            aria.KMeansPartitioner(n_regions=min(method.groups, partition.n_regions), seed=seed)
            .fit(partition.centers)
            .labels
        )
        estimator = Pooled(estimator, tuple(groups.tolist()))
    allocator = make(
        partition,
        estimator=estimator,
        policy=method.policy,
        floor=method.floor,
        max_gap=method.max_gap,
        target=_target(method, partition, scenario),
        present_weight=method.present_weight,
        present_rate=method.present_rate,
        seed=seed,
        lag=lag if method.lag is None else method.lag,
    )
    schedule = aria.ExponentialSwitch(rate=lam)
    return aria.RandomConditioning(
        allocator, schedule=schedule, num_train_timesteps=TIMESTEPS, normalise=method.normalise
    )
