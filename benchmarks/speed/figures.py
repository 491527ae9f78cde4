"""The pictures, from `results.json`; how to read them is in README.md. matplotlib is loaded here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.plotting import STYLE

OURS, THEIRS, PLAIN = "#0072b2", "#999999", "#d1495b"


def draw_all(results: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what there are results for; return the files."""
    pictures = {
        "peers": (_peers, {"rounds"}),
        "scaling": (_scaling, {"pools", "regions", "rows"}),
        "loader": (_loader, {"loader"}),
    }
    files = []
    with plt.rc_context(STYLE):
        for name, (draw, needed) in pictures.items():
            if needed <= set(results):
                figure = draw(results)
                figure.savefig(folder / f"{name}.png")
                plt.close(figure)
                files.append(folder / f"{name}.png")
    return files


def _time(us: float) -> str:
    if us < 1000:
        return f"{us:.0f} µs"
    return f"{us / 1000:.1f} ms" if us < 100_000 else f"{us / 1000:.0f} ms"


def _peers(results: Mapping[str, Any]) -> Any:
    """Bars: a round of every sampler."""
    pools = [pool for pool in results["rounds"] if pool != "missing"]
    figure, axes = plt.subplots(1, len(pools), figsize=(6.2 * len(pools), 3.6), sharey=True, squeeze=False)
    names = list(results["rounds"][pools[-1]])[::-1]
    for axis, pool in zip(axes[0], pools, strict=True):
        found = results["rounds"][pool]
        for place, name in enumerate(names):
            if name in found:
                cell = found[name]
                spread = [[cell["median"] - cell["q25"]], [cell["q75"] - cell["median"]]]
                color = OURS if name.startswith("aria") else THEIRS
                axis.barh(place, cell["median"], color=color, xerr=spread, error_kw={"lw": 1, "ecolor": "#444444"})
                axis.text(cell["q75"] * 1.15, place, _time(cell["median"]), va="center")
        axis.set(xscale="log", xlabel="time of a round, µs (log scale)", title=f"a pool of {int(pool):,} items")
        axis.set_xlim(50, max(cell["q75"] for cell in found.values()) * 6)
        axis.set_yticks(range(len(names)), names)
        axis.tick_params(axis="y", length=0)
    figure.suptitle("Draw 256 items, report 256 losses, adapt: what a round costs", x=0.02, ha="left", fontsize=13)
    figure.tight_layout()
    _note(
        figure,
        "Medians of processor time; lines span the middle half of the calls. All took turns in one run, one thread "
        "each. The last two keep no weights of items.",
    )
    return figure


def _scaling(results: Mapping[str, Any]) -> Any:
    """Three lines: a round by items, regions, rows."""
    items = results["items"]
    panels = (
        ("items in the pool", results["pools"]["times"], "1,024 regions, 256 rows", 1024),
        ("regions", results["regions"], f"{items:,} items, 256 rows", 1024),
        ("rows of a round", results["rows"], f"{items:,} items, 1,024 regions", 256),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.7), sharey=True)
    for axis, (what, found, title, _) in zip(axes, panels, strict=True):
        x = np.array(sorted(map(int, found)))
        cells = [found[str(n)] for n in x]
        axis.fill_between(x, [c["q25"] for c in cells], [c["q75"] for c in cells], color=OURS, alpha=0.2, linewidth=0)
        axis.plot(x, [c["median"] for c in cells], "o-", color=OURS, markersize=4)
        axis.set(xscale="log", yscale="log", xlabel=f"{what} (log scale)", title=title)
        for n, cell in ((x[0], cells[0]), (x[-1], cells[-1])):
            axis.annotate(
                _time(cell["median"]), (n, cell["median"]), xytext=(0, 8), textcoords="offset points", ha="center"
            )
        axis.margins(x=0.12)
    axes[0].set_ylabel("time of a round, µs")
    axes[0].set_ylim(100, None)
    figure.suptitle("What a round of aria-sampling depends on: not on the pool", x=0.02, ha="left", fontsize=13)
    figure.tight_layout()
    _note(figure, "Medians of processor time, and bands over the middle half of the calls. One thread.")
    return figure


def _loader(results: Mapping[str, Any]) -> Any:
    """Dots: throughput over that of RandomSampler."""
    titles = {
        "Tensors": "rows of a tensor in memory (data cost nothing)",
        "Pictures": "JPEG pictures, decoded for every sample",
    }
    figure, axes = plt.subplots(1, len(results["loader"]), figsize=(10.5, 3.4), sharey=True)
    for axis, (kind, cells) in zip(axes, results["loader"].items(), strict=True):
        for place, cell in enumerate(cells.values()):
            low, middle, high = (100 * value for value in cell["ratio"])
            axis.errorbar(place, middle, [[middle - low], [high - middle]], fmt="o", color=OURS, capsize=3)
            axis.annotate(f"{middle:.0f}%", (place, middle), xytext=(8, 0), textcoords="offset points", va="center")
        axis.axhline(100, color=PLAIN, linewidth=1)
        axis.axhspan(95, 105, color=PLAIN, alpha=0.08, linewidth=0)
        axis.set_xticks(range(len(cells)), list(cells))
        axis.set(xlabel="workers of the loader", title=titles[kind], xlim=(-0.5, len(cells) - 0.3))
    axes[0].set_ylabel("samples a second,\n% of RandomSampler's")
    axes[0].set_ylim(0, 200)
    figure.suptitle("A loader that adapts, against torch's RandomSampler", x=0.02, ha="left", fontsize=13)
    figure.tight_layout()
    _note(
        figure,
        "Epochs of both loaders in turns; medians of the ratio, lines over its middle half. Batches of 32. "
        "Red: the same speed, ±5%.",
    )
    return figure


def _note(figure: Any, text: str) -> None:
    figure.text(0.02, -0.02, text, fontsize=8.5, color="#555555", va="top", ha="left")
