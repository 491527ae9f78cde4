"""Means, intervals of differences paired by seed, and the tables made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks import EDITION
from benchmarks.statistics import Interval, interval

from .distill import RunSettings
from .evaluate import METRICS
from .methods import TITLES
from .world import CONDITIONS, SPLITS

REFERENCE = "rc"
_CELL = tuple(f.name for f in fields(RunSettings) if f.name not in ("method", "seed", "curve_every", "trace_every"))
_SPLIT_ORDER = ("unseen", "rare", "seen")
_ABOUT = {
    "generation": "Generation error: mean squared difference of the student's and the teacher's image from the same "
    "initial noise, pixels in [0, 1]",
    "discrepancy": "Discrepancy: mean squared difference of the networks' outputs over the grid of timesteps",
    "noisy": "Discrepancy in the noisy half (t >= T/2)",
    "noise": "Discrepancy in units of predicted noise",
    "direction": "Error of the conditional direction, output(prompt) - output(null)",
}


def to_unseen(run: Mapping[str, Any]) -> float | None:
    """The share of a run's switched rows that went to prompts of unseen groups, as regions have them; None: no rows."""
    regions = run["regions"]
    if not regions:
        return None
    draws = np.array(regions["draws"], float)
    return float(draws @ np.array(regions["unseen_share"]) / draws.sum())


def _mean(values: Sequence[float]) -> Interval:
    found = interval(values)
    return found if len(values) > 2 else Interval(found.mean, None)


def spread(run: Mapping[str, Any]) -> float | None:
    """Over what part of the unseen prompts a run's draws of them were spread: their effective number, over all of them.

    With d draws of a prompt, (mean d)^2 / mean d^2; all prompts of a region count as drawn alike. None: no draws.
    """
    regions = run["regions"]
    if not to_unseen(run):
        return None
    draws, unseen, sizes = (np.array(regions[key], float) for key in ("draws", "unseen_share", "sizes"))
    prompts, often = sizes * unseen, draws / sizes
    return float((prompts @ often) ** 2 / (prompts @ often**2) / prompts.sum())


@dataclass(frozen=True)
class Cell:
    """The runs that may be compared: alike in all but method and seed."""

    runs: tuple[Mapping[str, Any], ...]

    @property
    def first(self) -> Mapping[str, Any]:
        """One of the runs, for what they share."""
        return self.runs[0]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that were run, in the order of `TITLES`."""
        found = {run["method"] for run in self.runs}
        return tuple(name for name in TITLES if name in found)

    @property
    def title(self) -> str:
        """One line for headings."""
        run = self.first
        return f"{run['student']}, unseen: {', '.join(run['unseen'])}, {run['steps']} steps of {run['batch']}"

    def by_seed(self, method: str, metric: str, split: str, condition: str = "pool") -> dict[int, float]:
        """A metric of a method, by seed."""
        return {
            run["seed"]: run["metrics"][split][condition][metric]
            for run in sorted(self.runs, key=lambda run: run["seed"])
            if run["method"] == method
        }

    def editions(self, method: str) -> str:
        """Which editions of the library made the runs of a method: "1", "2" or "1, 2"."""
        found = {run.get("edition", EDITION) for run in self.runs if run["method"] == method}
        return ", ".join(map(str, sorted(found)))

    def to_unseen(self, method: str) -> float | None:
        """Mean of `to_unseen` over the runs of a method; None if it has none or does not switch."""
        return self._mean_of(to_unseen, method)

    def spread(self, method: str) -> float | None:
        """Mean of `spread` over the runs of a method; None if it has none or draws none."""
        return self._mean_of(spread, method)

    def _mean_of(self, what: Callable[[Mapping[str, Any]], float | None], method: str) -> float | None:
        found = [value for run in self.runs if run["method"] == method and (value := what(run)) is not None]
        return float(np.mean(found)) if found else None

    def differences(
        self, method: str, metric: str, split: str, condition: str = "pool", reference: str = REFERENCE
    ) -> list[float]:
        """Method minus reference, one a seed that both have."""
        mine, other = (self.by_seed(name, metric, split, condition) for name in (method, reference))
        return [mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())]

    def changes(
        self,
        method: str,
        split: str,
        condition: str = "pool",
        *,
        metric: str = "generation",
        reference: str = REFERENCE,
    ) -> list[float]:
        """Method minus reference, one a seed that both have, in per cent of the reference's mean over those seeds."""
        found = self.differences(method, metric, split, condition, reference)
        of, mine = (self.by_seed(name, metric, split, condition) for name in (reference, method))
        unit = 100 / float(np.mean([of[seed] for seed in of.keys() & mine.keys()])) if found else 1.0
        return [unit * value for value in found]

    def change(self, method: str, split: str, condition: str = "pool", **which: str) -> Interval | None:
        """The mean of `changes`, with its interval from three seeds on (from two it says little); None without any."""
        found = self.changes(method, split, condition, **which)
        return _mean(found) if found else None

    def difference(self, method: str, metric: str, split: str, condition: str = "pool") -> Interval | None:
        """Method minus `rc`, paired by seed, as `change`; None for `rc` itself or without a common seed."""
        found = self.differences(method, metric, split, condition)
        return None if method == REFERENCE or not found else _mean(found)


def cells(runs: Sequence[Mapping[str, Any]]) -> dict[str, Cell]:
    """The runs grouped into cells, under a short name fit for a folder."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault(json.dumps([run[key] for key in _CELL], sort_keys=True), []).append(run)
    named: dict[str, Cell] = {}
    for group in groups.values():
        run = group[0]
        words = "-".join("".join(c for c in name.split()[0].lower() if c.isalnum()) for name in run["unseen"])
        base = name = f"{run['student']}-{words}-{run['steps']}"
        number = 2
        while name in named:
            name, number = f"{base}-{number}", number + 1
        named[name] = Cell(tuple(group))
    return named


def _entry(cell: Cell, method: str, metric: str, split: str, condition: str) -> str:
    mean = float(np.mean(list(cell.by_seed(method, metric, split, condition).values())))
    change = cell.change(method, split, condition, metric=metric)
    if method == REFERENCE or change is None:
        return f"{mean:.5f}"
    half = "" if change.half is None else f" ± {change.half:.1f}"
    return f"{mean:.5f} ({change.mean:+.1f}{half}%)"


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: per cell and metric, methods by splits."""
    lines = [
        "Means over seeds; in brackets the difference from `rc` paired by seed, in per cent of `rc`'s mean over the",
        "seeds of both, with its 95% interval from three seeds on (Student's t over seeds). Lower is better.",
        "*unseen*: groups without images; *rare*: the smallest quarter of the other subgroups; *seen*: the rest.",
        "*held-out* prompts are in no pool and no paired set.",
    ]
    for cell in cells(runs).values():
        seeds = sorted({run["seed"] for run in cell.runs})
        seconds = np.mean([run["seconds"] for run in cell.runs])
        lines += ["", f"## {cell.title}", "", f"Seeds {', '.join(map(str, seeds))}; {seconds:.0f} s a run."]
        for metric in ("generation", *(name for name in METRICS if name != "generation")):
            columns = [(split, condition) for split in _SPLIT_ORDER for condition in CONDITIONS]
            heads = " | ".join(f"{split}{', held-out' if condition != 'pool' else ''}" for split, condition in columns)
            lines += ["", f"{_ABOUT[metric]}.", "", f"| method | {heads} |", "|---" * (len(columns) + 1) + "|"]
            for method in cell.methods:
                entries = " | ".join(_entry(cell, method, metric, *column) for column in columns)
                lines.append(f"| {method} | {entries} |")
    assert set(_SPLIT_ORDER) == set(SPLITS)
    return "\n".join(lines) + "\n"
