"""How close each estimator comes to the best fixed average in hindsight: 9 scenarios × 3 regimes of visits.

A cell has its own curve D(t), noise and visits; its replicates are the regions of one estimator, fed round by round
through the public interface. The competitors are fixed averages on a grid of memories, of three families, worked
out here at once as a reference (the tests hold two of them against `aria.Ema`):

- per sample: n losses in a round get the gain ``1 - r**n``;
- per visit: a round with losses gets the gain ``1 - r``;
- by time: a loss that is a rounds old weighs ``r**a``, normalised over the losses that there are.

``r = 2**(-1 / half-life)``; half-life 0 is the last visit alone, and infinity the plain mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import aria_sampling as aria

Array = Any

LIGHT, HEAVY = 0.6, 1.5  # sd of the log of the multiplicative noise


@dataclass(frozen=True)
class Scenario:
    """A discrepancy over time, as a function of t / 3000 in [0, 1], and how noisy its losses are."""

    name: str
    curve: Callable[[Array], Array]
    noise: float = LIGHT


def _flat(x: Array) -> Array:
    return np.ones_like(x)


def _jump(x: Array) -> Array:
    return np.where((x < 1 / 3) | (x >= 2 / 3), 1.0, 0.25)


def _hyperbola(x: Array) -> Array:
    return 1 / (1 + 30 * x)


SCENARIOS = (
    Scenario("stationary", _flat),
    Scenario("linear", lambda x: 1 - 0.8 * x),
    Scenario("jump", _jump),
    Scenario("1/t", _hyperbola),
    Scenario("exp", lambda x: np.exp(-4 * x)),
    Scenario("sine", lambda x: 1 + 0.6 * np.sin(6 * np.pi * x)),
    Scenario("heavy stationary", _flat, HEAVY),
    Scenario("heavy 1/t", _hyperbola, HEAVY),
    Scenario("heavy jump", _jump, HEAVY),
)
REGIMES = ("dense", "sparse", "bursty")
PHASE = 100  # rounds of each of the two phases of the bursty regime


def counts(regime: str, rounds: int, replicates: int, rng: np.random.Generator) -> Array:
    """Losses of every replicate in every round, int [rounds, replicates].

    dense: Poisson(3). sparse: one with probability 0.12. bursty: one with probability 0.05 for 100 rounds, then
    one in each of 100 rounds, and so on, every replicate at a phase of its own.
    """
    if regime == "dense":
        return rng.poisson(3, (rounds, replicates))
    chance = np.full((rounds, replicates), 0.12)
    if regime == "bursty":
        at = np.arange(rounds)[:, None] + rng.integers(0, 2 * PHASE, replicates)
        chance = np.where(at % (2 * PHASE) < PHASE, 0.05, 1.0)
    return (rng.random((rounds, replicates)) < chance).astype(np.int64)


class FixedAverages:
    """All fixed averages at once: arrays [families, half-lives, replicates]."""

    families = ("per sample", "per visit", "by time")

    def __init__(self, half_lives: Sequence[float], replicates: int, most: int) -> None:
        with np.errstate(divide="ignore"):
            rate = 2.0 ** (-1 / np.asarray(half_lives, float))
        self.rate = rate[:, None]
        # an infinite memory gains as a plain mean does: the limit of the bias-corrected average
        self.forever = np.flatnonzero(np.isinf(np.asarray(half_lives)))
        self.power = rate[:, None] ** np.arange(most + 1)  # [half-lives, n]
        shape = (3, len(rate), replicates)
        self.total, self.weight = np.zeros(shape), np.zeros(shape)
        self.aged = np.ones(shape[1:])  # by time: what the rounds since the last visit leave

    def update(self, n: Array, mean: Array) -> None:
        """Take in a round: n losses [replicates] of that mean (0 where n = 0)."""
        seen = n > 0
        keep_sample = self.power[:, n]
        gain_sample, gain_visit = 1 - keep_sample, (1 - self.rate) * seen
        keep_visit = 1 - gain_visit
        gain_sample[self.forever], gain_visit[self.forever] = n, seen
        self.aged *= self.rate
        keep_time = np.where(seen, self.aged, 1.0)
        pairs = ((keep_sample, gain_sample), (keep_visit, gain_visit), (keep_time, n))
        for total, weight, (keep, gain) in zip(self.total, self.weight, pairs, strict=True):
            total *= keep
            total += gain * mean
            weight *= keep
            weight += gain
        self.aged[:, seen] = 1.0

    def means(self) -> Array:
        """The averages, NaN before the first loss."""
        with np.errstate(invalid="ignore"):
            return self.total / self.weight


def taken_in(estimator: aria.Estimator, state: aria.State, feedback: aria.Feedback) -> aria.State:
    """The state after one more round: what an allocator does with an estimator."""
    told = {name: array[feedback.regions] for name, array in state.rows.items()}
    told, shared = estimator.update(told, state.shared, feedback)
    for name, array in state.rows.items():
        array[feedback.regions] = told[name]
    return aria.State(state.rows, shared)


DEFAULT = float(-np.log(2) / np.log1p(-aria.Ema().rate))  # half-life of the library's fixed average


@dataclass(frozen=True)
class Size:
    """How much is computed, and on what grid of memories: steps of √2 are within 3% of the best between them."""

    rounds: int = 3000
    replicates: int = 150
    every: int = 3  # rounds between two looks at the errors
    half_lives: tuple[float, ...] = (0.0, *sorted([DEFAULT, *(2.0 ** (i / 2) for i in range(-2, 29))]), float("inf"))


def cell(scenario: int, regime: int, size: Size) -> dict[str, Any]:
    """Mean squared errors in one scenario and regime, of `aria.EmaBank()` and of all fixed averages.

    Both absolute, of M - D, and relative, of (M - D) / D; over time and all replicates that have had a loss.
    """
    rng = np.random.default_rng([34, scenario, regime])  # a seed of its own for each cell, none chosen
    this, name = SCENARIOS[scenario], REGIMES[regime]
    truth = this.curve(np.arange(size.rounds) / size.rounds)
    n = counts(name, size.rounds, size.replicates, rng)
    grid = FixedAverages(size.half_lives, size.replicates, int(n.max()))
    bank = aria.EmaBank()
    state = bank.init(size.replicates)
    bank2, grid2, scored = np.zeros(2), np.zeros((2, *grid.total.shape[:2])), 0
    started = np.zeros(size.replicates, bool)
    for t in range(size.rounds):
        regions = np.repeat(np.arange(size.replicates), n[t])
        losses = truth[t] * np.exp(this.noise * rng.standard_normal(len(regions)) - this.noise**2 / 2)
        feedback = aria.Feedback.from_rows(regions, losses, n_regions=size.replicates)
        state = taken_in(bank, state, feedback)
        mean = np.zeros(size.replicates)
        mean[feedback.regions] = feedback.mean
        grid.update(n[t], mean)
        started[feedback.regions] = True
        if t % size.every == size.every - 1:
            scale = np.array([1.0, truth[t] ** -2])
            scored += int(started.sum())
            error = bank.estimate(state).mean[started] - truth[t]
            bank2 += scale * (error @ error)
            error = grid.means()[..., started] - truth[t]
            grid2 += scale[:, None, None] * np.einsum("fhr,fhr->fh", error, error)
    return {
        "scenario": this.name,
        "regime": name,
        "bank": (bank2 / scored).tolist(),
        "fixed": (grid2 / scored).tolist(),  # [absolute and relative, family, half-life]
    }


def study(size: Size, cells: Sequence[tuple[int, int]], report: Callable[[str], None] = print) -> dict[str, Any]:
    """All cells, and how each tracker compares with the best fixed average of each."""
    done = []
    for scenario, regime in cells:
        done.append(cell(scenario, regime, size))
        report(f"bake-off: {done[-1]['scenario']}, {done[-1]['regime']}")
    return {
        "size": {"rounds": size.rounds, "replicates": size.replicates, "every": size.every},
        "half_lives": ["inf" if np.isinf(h) else h for h in size.half_lives],
        "families": list(FixedAverages.families),
        "measures": {name: compare(done, size, i) for i, name in enumerate(("absolute", "relative"))},
    }


def compare(done: Sequence[dict[str, Any]], size: Size, measure: int) -> dict[str, Any]:
    """Ratios to the best fixed average of each cell: of the bank, the default, and the best of each family over all.

    "Best over all" has the least geometric mean over the cells: nobody could have known it beforehand either.
    """
    fixed = np.array([c["fixed"] for c in done])[:, measure]  # [cells, families, half-lives]
    best = fixed.min((1, 2))
    ratio = fixed / best[:, None, None]
    trackers = {
        "EmaBank()": np.array([c["bank"][measure] for c in done]) / best,
        "Ema()": ratio[:, 0, size.half_lives.index(DEFAULT)],
        "Ema(per='visit')": ratio[:, 1, size.half_lives.index(DEFAULT)],
    }
    geomean = np.exp(np.log(ratio).mean(0))
    for family, name in enumerate(FixedAverages.families):
        h = int(geomean[family].argmin())
        trackers[f"best fixed {name}, half-life {size.half_lives[h]:.3g}"] = ratio[:, family, h]
    rows = []
    for i, c in enumerate(done):
        family, h = np.unravel_index(fixed[i].argmin(), fixed[i].shape)
        rows.append(
            {
                "scenario": c["scenario"],
                "regime": c["regime"],
                "best_mse": float(best[i]),
                "best_family": FixedAverages.families[family],
                "best_half_life": "inf" if np.isinf(size.half_lives[h]) else round(size.half_lives[h], 2),
                "interior": bool(0 < h < len(size.half_lives) - 1),
                "ratios": {name: float(values[i]) for name, values in trackers.items()},
            }
        )
    summary = {
        name: {"geomean": float(np.exp(np.log(values).mean())), "worst": float(values.max())}
        for name, values in trackers.items()
    }
    return {"summary": summary, "cells": rows}
