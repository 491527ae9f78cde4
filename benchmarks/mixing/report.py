"""Metrics, paired comparisons corrected for their number, and the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.statistics import holm, interval

from .methods import METHODS

ALPHA = 0.05
METRICS = {
    "macro": "all groups alike",
    "micro": "by size, as in the pool",
    "worst": "worst group",
    "small": "smallest quarter of the groups",
}
REFERENCE = "uniform"


def metrics_of(losses: Sequence[float], sizes: Sequence[int]) -> dict[str, float]:
    """The four metrics of held-out losses by group.

    >>> metrics_of([4.0, 2.0, 1.0, 1.0], [1, 2, 3, 4])
    {'macro': 2.0, 'micro': 1.5, 'worst': 4.0, 'small': 4.0}
    """
    values, mass = np.asarray(losses), np.asarray(sizes)
    small = np.argsort(mass, kind="stable")[: max(1, len(mass) // 4)]
    return {
        "macro": float(values.mean()),
        "micro": float(np.average(values, weights=mass)),
        "worst": float(values.max()),
        "small": float(values[small].mean()),
    }


def by_seed(results: Mapping[str, Any], method: str, metric: str) -> dict[int, float]:
    """A metric of a method, by seed."""
    sizes = results["corpus"]["train"]
    runs = (run for run in results["runs"] if run["method"] == method)
    return {run["seed"]: metrics_of(run["losses"], sizes)[metric] for run in runs}


def methods_in(results: Mapping[str, Any]) -> list[str]:
    """The methods that were run, in the registry's order."""
    found = {run["method"] for run in results["runs"]}
    return [name for name in METHODS if name in found]


def differences(results: Mapping[str, Any], method: str, reference: str, metric: str) -> list[float]:
    """Method minus reference at each seed that both have."""
    mine, other = by_seed(results, method, metric), by_seed(results, reference, metric)
    return [mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())]


def comparison(results: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str, str], str]:
    """Per (method, reference, metric): the difference in per cent of the reference, and a star if it survives Holm."""
    keys = [(method, reference, metric) for method, reference in pairs for metric in METRICS]
    found = [differences(results, *key) for key in keys]
    p = [float(stats.ttest_1samp(d, 0.0).pvalue) if len(d) > 1 and np.ptp(d) > 0 else 1.0 for d in found]
    cells = {}
    for key, values, adjusted in zip(keys, found, holm(p), strict=True):
        unit = 100 / float(np.mean(list(by_seed(results, *key[1:]).values())))
        difference = interval(values)
        half = "" if difference.half is None else f" ± {unit * difference.half:.1f}"
        cells[key] = f"{unit * difference.mean:+.1f}{half}%{' *' if adjusted < ALPHA else ''}"
    return cells


def drawn_share(results: Mapping[str, Any], method: str) -> np.ndarray:
    """Share of all sequences drawn that came from each group, over the seeds, float64 [K]."""
    drawn = np.sum([run["drawn"] for run in results["runs"] if run["method"] == method], 0)
    return drawn / drawn.sum()


def hardness(results: Mapping[str, Any], method: str) -> tuple[float, float]:
    """Rank correlations over groups, means over seeds: final loss with what the second half removed, and with size."""
    runs = [run for run in results["runs"] if run["method"] == method]
    sizes = results["corpus"]["train"]
    left = [stats.spearmanr(r["losses"], np.subtract(r["halfway"], r["losses"])).statistic for r in runs]
    size = [stats.spearmanr(r["losses"], sizes).statistic for r in runs]
    return float(np.mean(left)), float(np.mean(size))


def table(results: Mapping[str, Any]) -> str:
    """Markdown: all methods, what feedback adds, and the groups."""
    methods, corpus = methods_in(results), results["corpus"]
    seeds = sorted({run["seed"] for run in results["runs"]})
    seconds = sum(run["cpu_seconds"] for run in results["runs"])
    first = results["runs"][0]
    lines = [
        "Held-out loss in bits a byte, means over seeds; lower is better. Differences are paired by seed and",
        "in per cent of the reference's mean, with its 95% interval (Student's t over seeds). A star: its p-value,",
        f"corrected for all comparisons of its table (Holm), is below {ALPHA}.",
        "",
        f"Library edition {results['edition']}, Python {corpus['python']}, corpus {corpus['fingerprint']}, "
        f"{len(corpus['groups'])} groups, "
        f"{sum(corpus['train'])} sequences; {first['steps']} steps of {first['batch']}; seeds "
        f"{', '.join(map(str, seeds))}; {seconds / 60:.0f} core-minutes in all.",
        "",
    ]
    heads = " | ".join(METRICS.values())
    if REFERENCE in methods:
        cells = comparison(results, [(m, REFERENCE) for m in methods if m != REFERENCE])
        lines += ["## All methods, against uniform", "", f"| method | {heads} |", "|---" * 5 + "|"]
        for method in methods:
            entries = []
            for metric in METRICS:
                mean = np.mean(list(by_seed(results, method, metric).values()))
                cell = cells.get((method, REFERENCE, metric))
                entries.append(f"{mean:.3f}" + (f" ({cell})" if cell else ""))
            lines.append(f"| {METHODS[method].title} | {' | '.join(entries)} |")
    pairs = [(m, METHODS[m].start) for m in methods if METHODS[m].start in methods]
    if pairs:
        cells = comparison(results, pairs)
        lines += ["", "## What feedback adds: each against the mixture without it that it departs from", ""]
        lines += [f"| method | against | {heads} |", "|---" * 6 + "|"]
        for method, start in pairs:
            entries = " | ".join(cells[method, start, metric] for metric in METRICS)
            lines.append(f"| {METHODS[method].title} | {METHODS[start].title} | {entries} |")
    lines += [
        "",
        "## The groups",
        "",
        "Share of the draws in per cent, forced visits included; final held-out loss under `uniform`.",
        "",
    ]
    shown = [m for m in methods if m not in ("pool", "uniform")]
    lines += [f"| group | sequences | pool | loss | {' | '.join(shown)} |", "|---" * (4 + len(shown)) + "|"]
    shares = {m: 100 * drawn_share(results, m) for m in methods}
    losses = [r["losses"] for r in results["runs"] if r["method"] == REFERENCE]
    total = sum(corpus["train"])
    for k in np.argsort(corpus["train"])[::-1]:
        loss = f"{np.mean([row[k] for row in losses]):.2f}" if losses else ""
        entries = " | ".join(f"{shares[m][k]:.1f}" for m in shown)
        size = corpus["train"][k]
        lines.append(f"| {corpus['groups'][k]} | {size} | {100 * size / total:.1f} | {loss} | {entries} |")
    lines += [
        "",
        "Rank correlation over groups of the final loss with what the second half of training took off it, and with",
        "size, means over seeds:",
    ]
    for method in ("pool", "uniform"):
        if method in methods:
            left, size = hardness(results, method)
            lines.append(f"{METHODS[method].title} {left:+.2f}, {size:+.2f}{';' if method == 'pool' else '.'}")
    return "\n".join(lines) + "\n"
