"""The picture, from `results.json`; README.md says how to read it. matplotlib is loaded here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.plotting import STYLE
from benchmarks.statistics import interval

from .methods import METHODS
from .report import REFERENCE, by_seed, differences, drawn_share, methods_in

STATIC = ("pool", "sqrt", "uniform")
COLOURS = {
    "pool": "#222222", "sqrt": "#222222", "uniform": "#222222", "pool_visits": "#999999",
    "aria_pool": "#d1495b", "aria_uniform": "#d1495b",
    "reducible_pool": "#0072b2", "reducible_uniform": "#0072b2", "group_dro": "#8e6bb0", "odm": "#cc9a00",
    "doremi": "#2a9d60",
}  # fmt: skip


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Both averages of every method; how the loss of groups goes with what is left to learn; who gets the draws."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), gridspec_kw={"width_ratios": [1.25, 1, 1]})
        _frontier(axes[0], results)
        _learnable(axes[1], results)
        _shares(axes[2], results)
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)


def _frontier(axis: Any, results: Mapping[str, Any]) -> None:
    methods = methods_in(results)
    mean = {m: [np.mean(list(by_seed(results, m, metric).values())) for metric in ("micro", "macro")] for m in methods}
    static = [mean[m] for m in STATIC if m in methods]
    axis.plot(*np.transpose(static), color="#999999", linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    for method in methods:
        x, y = mean[method]
        if method != REFERENCE and REFERENCE in methods:
            halves = [interval(differences(results, method, REFERENCE, m)).half or 0 for m in ("micro", "macro")]
            axis.errorbar(x, y, xerr=halves[0], yerr=halves[1], color=COLOURS[method], linewidth=1, alpha=0.5, zorder=2)
        face = "white" if method.endswith("_pool") else COLOURS[method]
        label = None if method in STATIC else METHODS[method].title
        axis.scatter([x], [y], s=50, zorder=3, edgecolor=COLOURS[method], facecolor=face, label=label)
        if method in STATIC:
            axis.annotate(METHODS[method].title, (x, y), (-7, -5), textcoords="offset points", ha="right", va="top")
    axis.set(xlabel="loss by size, as in the pool [bits a byte]", ylabel="loss with all groups alike [bits a byte]")
    axis.set_title("Held-out loss: lower left is better")
    axis.margins(x=0.2, y=0.12)
    axis.legend(fontsize=8.5, loc="upper right")


def _learnable(axis: Any, results: Mapping[str, Any]) -> None:
    runs = [run for run in results["runs"] if run["method"] == REFERENCE]
    if not runs:
        return
    final, halfway = (np.mean([run[name] for run in runs], 0) for name in ("losses", "halfway"))
    left, sizes, names = halfway - final, np.asarray(results["corpus"]["train"]), results["corpus"]["groups"]
    axis.scatter(final, left, s=12 + 180 * np.sqrt(sizes / sizes.max()), color="#0072b2", alpha=0.45, linewidth=0)
    for k in {int(k) for k in (final.argmin(), final.argmax(), left.argmin(), left.argmax(), sizes.argmax())}:
        axis.annotate(names[k], (final[k], left[k]), (0, 9), textcoords="offset points", ha="center", fontsize=8.5)
    axis.set(xlabel="final loss [bits a byte]", ylabel="taken off by the second half [bits a byte]")
    axis.set_ylim(0, 1.15 * left.max())
    axis.margins(x=0.12)
    axis.set_title("Groups under uniform (area: size)")


def _shares(axis: Any, results: Mapping[str, Any]) -> None:
    sizes = np.asarray(results["corpus"]["train"])
    order = np.argsort(sizes)
    for method in methods_in(results):
        share = 100 * drawn_share(results, method)[order]
        if method in STATIC:
            axis.plot(sizes[order], share, color="#999999", linewidth=1, linestyle=(0, (4, 2)))
            axis.annotate(
                METHODS[method].title, (sizes[order][0], share[0]), (-2, 4), textcoords="offset points", fontsize=8.5
            )
        elif not method.endswith("_pool"):
            axis.plot(sizes[order], share, ".", color=COLOURS[method])
    axis.set(xscale="log", yscale="log", xlabel="training sequences of the group", ylabel="share of the draws [%]")
    axis.set_title("Who is drawn (colours as on the left)")
