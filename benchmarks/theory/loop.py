"""One training run in the known world: an `Allocator` steers SGD, and what it believes is held against the truth.

Apart from `world.py`, which knows nothing of allocation, and from `coverage.py`, which judges many such runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import aria_sampling as aria

from .world import World

Array = Any

EXPLORATION, ALPHA = 0.2, 0.05


@dataclass(frozen=True)
class Settings:
    """Size of a run. The changing regions change at half time."""

    rounds: int = 600
    draw: int = 256
    learning_rate: float = 0.15
    memory: int = 20  # rounds that an average remembers, at an even share of the draws
    every: int = 5  # rounds between two looks at the certificate

    @property
    def change(self) -> int:
        """First round after the change."""
        return self.rounds // 2


@dataclass(frozen=True)
class Tracking:
    """A way to track: an estimator under a policy, and whether `Allocator.certificate` vouches for it."""

    name: str
    title: str
    estimator: aria.Estimator
    policy: aria.Policy
    certified: bool = True


def trackings(world: World, settings: Settings) -> tuple[Tracking, ...]:
    """The four that are compared; their memories are alike where a region gets an even share."""
    per_round = settings.draw / len(world.regions)
    sample = aria.Ema(rate=1 / (settings.memory * per_round), per="sample")
    visit = aria.Ema(rate=1 / settings.memory, per="visit")
    return (
        Tracking("sample", "Ema per sample, adaptive", sample, aria.Proportional()),
        Tracking("visit", "Ema per visit, adaptive", visit, aria.Proportional()),
        Tracking("fixed", "Ema per sample, fixed shares", sample, aria.PoolPolicy()),
        Tracking("bank", "EmaBank, adaptive", aria.EmaBank(), aria.Proportional(), certified=False),
    )


@dataclass(frozen=True, eq=False)
class Run:
    """What happened. Looks are rounds ``looks``; arrays of a look are [looks, n_regions].

    Attributes:
        truth: The discrepancy in every round, [rounds, n_regions].
        looks: Rounds at which the rest was recorded.
        mean, stderr: The estimate after that round.
        age: What a drift bound of 1 a round adds to the radius: bias of a certificate is linear in the drift.
        noise: The part of the radius that covers sampling noise.
        loss_sd: True standard deviation of a single loss.
        counts: Draws of every region in all rounds.
    """

    truth: Array
    looks: Array
    mean: Array
    stderr: Array
    age: Array
    noise: Array
    loss_sd: Array
    counts: Array

    def drift(self, world: World, settings: Settings, *, with_change: bool) -> Array:
        """The largest step of each discrepancy so far, [looks, n_regions]: the least drift bound that is true.

        A bound on the realised path is enough for the theorems: they add the drift path by path. Without the
        change, it is a bound that the changing regions break once, which is what users of any bound risk.
        """
        steps = np.abs(np.diff(self.truth, axis=0, prepend=self.truth[:1]))
        if not with_change:
            steps[settings.change, world.of_kind("changing")] = 0
        return np.maximum.accumulate(steps)[self.looks]

    def radius(self, drift: Array) -> Array:
        """Radii of the certificate for a drift bound, [looks, n_regions]."""
        return self.noise + drift * self.age


def proxy(world: World, tracking: Tracking, settings: Settings) -> Array:
    """The sub-Gaussian proxy to ask a certificate with, [n_regions]: Lmax/2 for a single loss (Hoeffding's lemma).

    Per visit the theorem reckons with a single loss a visit. Systematic draws never bring fewer than
    floor(n · exploration · q) here, so the mean of a visit has that proxy over the root of this number.
    """
    sigma = world.loss_bound() / 2
    if getattr(tracking.estimator, "per", None) == "visit":
        sigma = sigma / np.sqrt(least_count(world, settings))
    return sigma


def least_count(world: World, settings: Settings) -> Array:
    """What every draw brings each region at least, float [n_regions]."""
    share = np.bincount(world.labels) / len(world.labels)
    return np.maximum(np.floor(settings.draw * EXPLORATION * share * (1 - 1e-9)), 1.0)


def run(world: World, tracking: Tracking, settings: Settings, seed: int) -> Run:
    """Train the student once."""
    allocator = aria.Allocator(
        aria.Partition.from_labels(world.labels),
        estimator=tracking.estimator,
        policy=tracking.policy,
        exploration=EXPLORATION if tracking.policy.baseline is None else None,
        seed=seed,
    )
    rng = np.random.default_rng([seed, 3])
    sigma = proxy(world, tracking, settings)
    w = np.zeros_like(world.before)
    truth = np.empty((settings.rounds, len(w)))
    counts = np.zeros_like(truth)
    looks = np.arange(settings.every - 1, settings.rounds, settings.every)
    seen = {name: np.full((len(looks), len(w)), np.nan) for name in ("mean", "stderr", "age", "noise", "loss_sd")}
    for t in range(settings.rounds):
        place = world.before if t < settings.change else world.after
        draw = allocator.draw(settings.draw)
        rows = world.rows(rng, draw.items, w, place)
        allocator.observe(draw.regions, rows.loss)
        allocator.step()
        truth[t] = world.discrepancy(w, place)
        counts[t] = np.bincount(rows.regions, minlength=len(w))
        if (t + 1) % settings.every == 0:
            look, estimate = t // settings.every, allocator.estimate()
            seen["mean"][look], seen["stderr"][look] = estimate.mean, estimate.stderr
            seen["loss_sd"][look] = world.loss_sd(w, place)
            if tracking.certified:
                certificate = allocator.certificate(drift=1.0, sigma=sigma, alpha=ALPHA)
                seen["age"][look], seen["noise"][look] = certificate.bias, certificate.noise
        w = world.sgd(w, rows, settings.learning_rate)
    return Run(truth=truth, looks=looks, counts=counts, **seen)
