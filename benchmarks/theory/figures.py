"""The pictures, from `results.json`; how to read them is in README.md. matplotlib is loaded here and nowhere else."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.plotting import STYLE

from .gaps import FORCED, FREE

TRUTH, BELIEF, ALARM = "#222222", "#0072b2", "#d1495b"
TITLES = {
    "stationary": "stationary: beyond the student's capacity",
    "decaying": "decaying: being learnt",
    "changing": "changing: its teacher moves at half time",
}


def draw_tracking(loop: Mapping[str, Any], path: Path) -> None:
    """(a) Estimate, radius and truth over time."""
    trace, settings = loop["trackings"]["sample"]["trace"], loop["settings"]
    rounds = np.array(trace["rounds"])
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.7), sharey=True)
    for axis, (kind, title) in zip(axes, TITLES.items(), strict=True):
        truth, mean, radius = (np.array(trace[name][kind]) for name in ("truth", "mean", "radius"))
        band = axis.fill_between(
            rounds, np.maximum(mean - radius, 0), mean + radius, color=BELIEF, alpha=0.18, linewidth=0
        )
        (believed,) = axis.plot(rounds, mean, color=BELIEF, linewidth=1.6)
        (true,) = axis.plot(rounds, truth, color=TRUTH, linewidth=1.4, linestyle=(0, (4, 2)))
        axis.set(title=title, xlabel="round", xlim=(0, settings["rounds"]))
        out = np.abs(mean - truth) > radius
        if kind == "changing":
            axis.axvline(settings["change"], color="#999999", linewidth=0.8, linestyle=":")
        if out.any():
            (alarm,) = axis.plot(rounds[out], truth[out], "o", color=ALARM, markersize=4.5)
            axis.legend([alarm], ["truth outside the band: the drift\nbound given was broken here"], loc="upper left")
    settled = rounds >= 0.05 * settings["rounds"]  # the first radii are far wider
    tops = [np.max(np.add(trace["mean"][kind], trace["radius"][kind])[settled]) for kind in TITLES]
    axes[0].set_ylim(0, 1.3 * max(tops))
    axes[0].set_ylabel("teacher-student discrepancy")
    axes[0].legend(
        [true, believed, band],
        ["truth, in closed form", "estimate (Ema)", "estimate ± certified radius"],
        loc="upper left",
    )
    share = round(100 * (1 - settings["alpha"]))
    note = (
        f"One run. The radii hold for all regions and rounds at once with probability {share}%, whatever the "
        "allocation, given a bound on the noise (Lmax/2, from a true bound on the loss) and on the drift (the largest "
        "step so far, but for the change itself). Estimates are much closer: that is the price of a promise for the "
        "worst case."
    )
    figure.tight_layout()
    _note(figure, note, 185)
    _save(figure, path)


def draw_bakeoff(bakeoff: Mapping[str, Any], path: Path) -> None:
    """(b) Every tracker against the best fixed average of each cell."""
    measure = bakeoff["measures"]["relative"]
    cells, names = measure["cells"], list(measure["summary"])
    grid = np.array([[cell["ratios"][name] for cell in cells] for name in names])
    summary = np.array([[measure["summary"][name][what] for what in ("geomean", "worst")] for name in names])
    figure, (axis, side) = plt.subplots(
        1, 2, figsize=(15, 3.9), sharey=True, gridspec_kw={"width_ratios": [len(cells), 3.2], "wspace": 0.03}
    )
    for ax, values in ((axis, grid), (side, summary)):
        ax.imshow(np.log2(np.maximum(values, 1)), cmap="YlOrRd", vmin=0, vmax=4, aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            bright = value > 6
            text = f"{value:.2f}" if ax is side else (f"{value:.1f}" if value < 9.95 else f"{value:.0f}")
            ax.text(column, row, text, ha="center", va="center", fontsize=8.5, color="white" if bright else "#222222")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    axis.set_yticks(range(len(names)), names)
    axis.get_yticklabels()[0].set_fontweight("bold")
    axis.set_xticks(range(len(cells)), [cell["regime"] for cell in cells], rotation=90)
    side.set_xticks(range(2), ["geo.\nmean", "worst"])
    start = 0
    while start < len(cells):
        name = cells[start]["scenario"]
        end = start + sum(cell["scenario"] == name for cell in cells)
        axis.text((start + end - 1) / 2, -0.7, name.replace("heavy ", "heavy\n"), ha="center", va="bottom")
        if start:
            axis.axvline(start - 0.5, color="white", linewidth=3)
        start = end
    figure.suptitle(
        "Mean squared error over that of the best fixed average in hindsight (1 = as good)", x=0.125, y=1.06, ha="left"
    )
    size = bakeoff["size"]
    note = (
        f"Errors relative to the true discrepancy. {len(cells)} cells: scenarios (how the discrepancy moves, how noisy "
        f"losses are) × visits (dense, sparse, bursty); {size['replicates']} replicates of {size['rounds']} rounds. "
        "'Best fixed': the one memory of its family that does best over all cells. No fixed one is good everywhere."
    )
    _note(figure, note, 210, y=-0.14)
    _save(figure, path)


def draw_gaps(gaps: Mapping[str, Any], path: Path) -> None:
    """(c) How long regions wait, with and without forced visits, against what is often said."""
    figure, axis = plt.subplots(figsize=(8, 4.2))
    folklore, guarantee = gaps["folklore"], gaps["guarantee"]
    wait = np.arange(max(gaps["longest"].values()) + 8)
    chance = gaps["draw"] / gaps["regions"]
    axis.semilogy(
        wait, (1 - chance) ** wait, color="#999999", linewidth=1, label="$(1-np)^g$: the least possible without forcing"
    )
    for name, colour, marker in ((FREE, ALARM, "o"), (FORCED, BELIEF, "s")):
        share = np.array(gaps["longer_than"][name])
        some = np.flatnonzero(share > 0)
        label = f"{name}: longest {gaps['longest'][name]}"
        axis.semilogy(some, share[some], marker, color=colour, markersize=3.2, label=label)
    low = 2e-6
    axis.set(ylim=(low, 2), xlim=(0, wait[-1]), xlabel="g: draws", ylabel="share of waits longer than g draws")
    for at, colour, text, side in (
        (folklore, "#555555", f"folklore: never longer than\n1/(np), rounded up: {folklore}", "left"),
        (guarantee, BELIEF, f"guaranteed with\nforced visits: {guarantee}", "left"),
    ):
        axis.axvline(at, ymax=0.72, color=colour, linewidth=1, linestyle=":")
        axis.text(at + 0.8, 2.2 * low, text, ha=side, va="bottom", fontsize=9, color=colour)
    axis.legend(loc="upper right")
    axis.set_title(f"A region that is due every {folklore} draws can wait far longer")
    _note(figure, f"{gaps['regions']} equal regions, {gaps['rounds']} draws of {gaps['draw']} rows each.", 110, y=-0.02)
    _save(figure, path)


def _note(figure: Any, text: str, width: int, y: float = 0.0) -> None:
    figure.text(0.01, y, "\n".join(textwrap.wrap(text, width)), fontsize=8.5, color="#555555", va="top")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_all(results: Mapping[str, Any], out: Path) -> list[Path]:
    """All figures, into `out`; returns their paths."""
    parts = {"tracking": (draw_tracking, "loop"), "bakeoff": (draw_bakeoff, "bakeoff"), "gaps": (draw_gaps, "gaps")}
    paths = []
    with mpl.rc_context(STYLE):
        for name, (draw, part) in parts.items():
            paths.append(out / f"{name}.png")
            draw(results[part], paths[-1])
    return paths
