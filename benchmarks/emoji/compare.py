"""One cell: a line a method, against random conditioning and against ARIA.

Apart from `summary.py`, which has a line a cell. Only seeds that both sides of a difference have count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.plotting import STYLE
from benchmarks.statistics import adjusted

from .methods import TITLES
from .stats import REFERENCE, Cell
from .summary import METRIC, SPLIT, entry


def markdown(cell: Cell) -> str:
    """The table of a cell."""
    others = [method for method in cell.methods if method != REFERENCE]
    p = {
        reference: adjusted(
            [[] if m == reference else cell.differences(m, METRIC, SPLIT, reference=reference) for m in others]
        )
        for reference in (REFERENCE, "aria")
    }
    text = [
        f"{cell.title}.",
        "",
        "Generation error, change against `rc` in per cent, paired by seed, with 95% intervals from three seeds on; p",
        "values adjusted after Holm over the lines of two seeds or more, against `rc` and against `aria`; the share of",
        "switched rows that went to prompts of unseen groups, and over what part of these it was spread (its effective",
        "number: 100% if they were drawn alike).",
        "",
        "| method | edition | seeds | unseen | unseen, held-out | rare | seen | against `aria` | p, RC | p, ARIA "
        "| to unseen | spread over |",
        "|---" * 12 + "|",
    ]
    for index, method in enumerate(others):
        share, spread = cell.to_unseen(method), cell.spread(method)
        row = [TITLES[method], cell.editions(method), str(len(cell.by_seed(method, METRIC, SPLIT)))]
        row += [entry(cell.change(method, *key)) for key in ((SPLIT,), (SPLIT, "held_out"), ("rare",), ("seen",))]
        row.append("" if method == "aria" else entry(cell.change(method, SPLIT, reference="aria")))
        row += ["" if (value := p[reference][index]) is None else f"{value:.3f}" for reference in (REFERENCE, "aria")]
        row.append("" if share is None else f"{share:.0%}")
        row.append("" if spread is None else f"{spread:.0%}")
        text.append("| " + " | ".join(row) + " |")
    text += ["", f"The runs of `{REFERENCE}` are of edition {cell.editions(REFERENCE)}."]
    believed = [(method, found) for method in cell.methods if (found := told_apart(cell, method))]
    if believed:
        text += [
            "",
            "Last estimates of the discrepancy, means over prompts in regions of which nine tenths or more are unseen",
            "and in those of which a tenth or less is, and in how many pairs of two such regions the first has the",
            "higher one (50% by chance): "
            + "; ".join(f"under `{name}` {a:.2f} and {b:.2f}, {wins:.0%}" for name, (a, b, wins) in believed)
            + ".",
        ]
    return "\n".join(text) + "\n"


def told_apart(cell: Cell, method: str) -> tuple[float, float, float] | None:
    """The last estimates in regions of unseen prompts and of others, means over prompts, and how often the former win.

    That is over pairs of regions, ties for a half: the area under the ROC curve, Mann and Whitney's U over its most.
    """
    runs = [run for run in cell.runs if run["method"] == method and "discrepancy" in (run["regions"] or {})]
    if not runs:
        return None
    regions = runs[0]["regions"]
    sizes, unseen = np.array(regions["sizes"], float), np.array(regions["unseen_share"])
    estimate = np.array(regions["discrepancy"][-1], float)
    kinds = [kind & np.isfinite(estimate) for kind in (unseen >= 0.9, unseen <= 0.1)]
    if not all(kind.any() for kind in kinds):
        return None
    means = [float(np.average(estimate[kind], weights=sizes[kind])) for kind in kinds]
    wins = mannwhitneyu(*(estimate[kind] for kind in kinds)).statistic / kinds[0].sum() / kinds[1].sum()
    return means[0], means[1], float(wins)


def draw(cell: Cell, path: Path) -> None:
    """Every method a line, the best on unseen prompts first."""
    from .figures import colour, dot, name_of, plt, sides

    changes = {m: value.mean for m in cell.methods if m != REFERENCE and (value := cell.change(m, SPLIT))}
    order = sorted(changes, key=changes.__getitem__)
    with plt.rc_context(STYLE):
        figure, axes = sides(1.3 + 0.3 * len(order))
        for axis, split in axes:
            for y, method in enumerate(order):
                if value := cell.change(method, split):
                    dot(axis, value, y, colour(method))
        names = [f"{name_of(method)} ({len(cell.by_seed(method, METRIC, SPLIT))})" for method in order]
        axes[0][0].set_yticks(range(len(order)), names)
        axes[0][0].set_ylim(len(order) - 0.5, -0.5)
        figure.suptitle(f"{cell.title}; in brackets the number of seeds", x=0.01, ha="left", fontsize=10)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.15 / figure.get_figheight()))
        figure.savefig(path)
        plt.close(figure)
