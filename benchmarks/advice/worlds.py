"""Worlds in which it is known what any allocation would have led to.

Region k has discrepancy ``f_k + A_k g(x_k / c_k)``, and a loss is that times lognormal noise of mean 1. The curve g is
a power law, ``(1 + x)^-a``; an exponential, ``exp(-x)``; or a sigmoid, which stays for a while, falls, and is done. The
student has learnt x_k of region k: its own draws, or, in part or whole, what draws elsewhere taught it. With
`shared` that is ``x_k = (1 - shared) N_k + shared · q_k · N``: at shared = 1 no allocation changes anything. With
`teaches`, x is that matrix times N.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import aria_sampling as aria

Array = Any  # float64


@dataclass(frozen=True, eq=False)
class World:
    """The curves of all regions, [n_regions] each."""

    sizes: Array
    floor: Array
    height: Array
    scale: Array
    power: float = 1.0
    shared: float = 0.0
    curve: Literal["power", "exponential", "sigmoid"] = "power"
    teaches: Array = None  # [n_regions, n_regions]: what a draw of the region of the column is worth in that of the row

    def discrepancy(self, draws: Array, target: Array) -> Array:
        learnt = (1 - self.shared) * draws + self.shared * target * draws.sum()
        if self.teaches is not None:
            learnt = self.teaches @ draws
        x = learnt / self.scale
        if self.curve == "power":
            left = (1 + x) ** -self.power
        elif self.curve == "exponential":
            left = np.exp(-x)
        else:
            left = (1 + np.exp(-6)) / (1 + np.exp(np.minimum(6 * (x - 1), 300)))
        return self.floor + self.height * left


def _lognormal(rng: np.random.Generator, n: int, sd: float) -> Array:
    return np.exp(sd * rng.standard_normal(n))


def _learnable(rng: np.random.Generator, n: int) -> Array:
    """A third of the regions has much to learn, the others next to nothing."""
    return np.where(rng.random(n) < 0.3, 3.0, 0.02)


def _hopeless(rng: np.random.Generator, n: int) -> Array:
    """A third of the regions has a loss that nothing removes."""
    return np.where(rng.random(n) < 0.3, 3.0, 0.1)


def _neighbours(n: int) -> Array:
    """A draw teaches its own region half, and the two on either side a quarter each; regions lie on a ring."""
    one = np.eye(n)
    return 0.5 * one + 0.25 * (np.roll(one, 1, axis=0) + np.roll(one, -1, axis=0))


def _teachers(n: int) -> Array:
    """A draw of one of the first tenth of the regions teaches all regions, any other its own alone."""
    first = max(n // 10, 1)
    matrix = np.eye(n)
    matrix[:, :first] += 0.5 / first
    return matrix


def _only_teachers(n: int) -> Array:
    """A draw of one of the first tenth of the regions teaches all regions alike, any other nothing."""
    first = max(n // 10, 1)
    matrix = np.zeros((n, n))
    matrix[:, :first] = 0.25 * n / first / 10
    return matrix


def _build(n: int, *, sizes: Any = 50, floor: Any = 0.0, height: Any = 1.0, spread: Any = 1.0, **rest: Any) -> World:
    one = np.ones(n)
    return World((one * sizes).astype(int), one * floor, one * height, 400.0 * one * spread, **rest)


WORLDS: dict[str, tuple[str, Callable[[np.random.Generator, int], World]]] = {
    "alike": ("all regions alike", lambda rng, n: _build(n, power=0.5)),
    "nothing to learn": (
        "all alike, and nothing is learnt",
        lambda rng, n: _build(n, floor=1.0, height=0.0, power=0.5),
    ),
    "alike, sizes apart": (
        "all alike, but for their sizes",
        lambda rng, n: _build(n, sizes=10 + 30 * rng.pareto(1.2, n), power=0.5),
    ),
    "heights apart": ("differ by a factor", lambda rng, n: _build(n, height=_lognormal(rng, n, 1.0), power=0.5)),
    "reducible parts apart": (
        "a third has much to learn, the others little",
        lambda rng, n: _build(n, floor=0.3, height=_learnable(rng, n), power=1.0),
    ),
    "speeds apart": (
        "differ by a factor and in how fast they learn",
        lambda rng, n: _build(n, floor=0.2, height=_lognormal(rng, n, 0.7), spread=_lognormal(rng, n, 1.0), power=0.7),
    ),
    "floors apart": (
        "learn alike, but a third keeps a large loss that misleads Proportional",
        lambda rng, n: _build(n, floor=_hopeless(rng, n), power=0.7),
    ),
    "shared, heights apart": (
        "differ by a factor; every draw teaches all",
        lambda rng, n: _build(n, height=_lognormal(rng, n, 1.0), power=0.5, shared=1.0),
    ),
    "shared, floors apart": (
        "as floors apart; every draw teaches all",
        lambda rng, n: _build(n, floor=_hopeless(rng, n), power=0.7, shared=1.0),
    ),
    "half shared, reducible parts apart": (
        "as reducible parts apart; half of what is learnt is shared",
        lambda rng, n: _build(n, floor=0.3, height=_learnable(rng, n), power=1.0, shared=0.5),
    ),
    "shared, reducible parts apart": (
        "as reducible parts apart; every draw teaches all",
        lambda rng, n: _build(n, floor=0.3, height=_learnable(rng, n), power=1.0, shared=1.0),
    ),
    "exponential": (
        "fall exponentially, to nothing, and differ by a factor",
        lambda rng, n: _build(n, height=_lognormal(rng, n, 0.7), spread=0.3, curve="exponential"),
    ),
    "exponential, to floors": (
        "fall exponentially, at their own speeds, to floors of their own",
        lambda rng, n: _build(
            n,
            floor=0.2 * _lognormal(rng, n, 0.7),
            height=_lognormal(rng, n, 0.7),
            spread=0.3 * _lognormal(rng, n, 0.7),
            curve="exponential",
        ),
    ),
    "tutorial": (
        "the world of the tutorial, in expectation: sizes by Zipf's law, exponential",
        lambda rng, n: _build(
            n, sizes=4000 / np.arange(1, n + 1), height=rng.chisquare(16, n), spread=0.325, curve="exponential"
        ),
    ),
    "sigmoid, finished": (
        "stay, fall, and have finished; they keep losses that differ",
        lambda rng, n: _build(n, floor=_lognormal(rng, n, 0.5), height=3.0, spread=0.1, curve="sigmoid"),
    ),
    "sigmoid": (
        "stay, then fall, at their own times",
        lambda rng, n: _build(
            n, floor=0.2, height=_lognormal(rng, n, 0.5), spread=0.3 * _lognormal(rng, n, 0.7), curve="sigmoid"
        ),
    ),
    "interacting, neighbours": (
        "as reducible parts apart; half of what a draw teaches goes to two other regions",
        lambda rng, n: _build(n, floor=0.3, height=_learnable(rng, n), power=1.0, teaches=_neighbours(n)),
    ),
    "interacting, teachers": (
        "differ by a factor; draws of a tenth of the regions teach all",
        lambda rng, n: _build(n, height=_lognormal(rng, n, 1.0), power=0.7, teaches=_teachers(n)),
    ),
    "interacting, teachers alone": (
        "differ by a factor, in floors and sizes; draws of a tenth of the regions teach all, the others nothing",
        lambda rng, n: _build(
            n,
            sizes=10 + 30 * rng.pareto(1.2, n),
            floor=0.2 * _lognormal(rng, n, 0.7),
            height=_lognormal(rng, n, 0.7),
            power=0.7,
            teaches=_only_teachers(n),
        ),
    ),
}


@dataclass(frozen=True)
class Setting:
    """Size of a run."""

    regions: int
    rounds: int
    every: int
    draw: int = 64
    noise: float = 0.7  # coefficient of variation of a loss
    target: Any = "pool"
    policy: aria.Policy | None = None  # the default


def run(world: World, setting: Setting, seed: int) -> tuple[aria.History, Array]:
    """One run; its history, and the draws of every region."""
    rng = np.random.default_rng([seed, 7])
    pool = aria.Partition.from_labels(np.repeat(np.arange(len(world.sizes)), world.sizes))
    allocator = aria.Allocator(pool, target=setting.target, policy=setting.policy, seed=seed)
    history = aria.History(allocator, every=setting.every)
    variance = np.log1p(setting.noise**2)
    draws = np.zeros(len(world.sizes))
    for _ in range(setting.rounds):
        draw = allocator.draw(setting.draw)
        noise = np.exp(np.sqrt(variance) * rng.standard_normal(setting.draw) - variance / 2)
        allocator.observe(draw.regions, world.discrepancy(draws, allocator.target)[draw.regions] * noise)
        allocator.step()
        history.record()
        draws += np.bincount(draw.regions, minlength=len(draws))
    return history, draws


def true_gain(world: World, target: Array, draws: Array, shares: Array) -> float:
    """How much higher the discrepancy would be, had the draws been dealt by `shares`, relative to what it is."""
    now = (target * world.discrepancy(draws, target)).sum()
    return float((target * world.discrepancy(shares * draws.sum(), target)).sum() / now - 1)
