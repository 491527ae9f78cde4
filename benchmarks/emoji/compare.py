"""One cell with all that was tried in it: a line a method, against random conditioning and against ARIA.

Apart from `summary.py`, which has a line a cell. Only seeds that both sides of a difference have count.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.plotting import STYLE
from benchmarks.statistics import adjusted

from .methods import METHODS
from .stats import REFERENCE, Cell, to_unseen
from .summary import METRIC, SPLIT, entry

FRONTIER = {
    "RC, square root of the size, uniform": ("rc", "sqrt", "uniform"),
    "ARIA, target from the pool's to uniform": ("aria", "aria_tau5", "aria_uniform"),
}
"""Lines of `draw_frontier`: from the pool's shares to equal ones."""


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
        "| method | seeds | unseen | unseen, held-out | rare | seen | against `aria` | p, RC | p, ARIA | to unseen "
        "| spread over |",
        "|---" * 11 + "|",
    ]
    for index, method in enumerate(others):
        share, spread = cell.to_unseen(method), cell.spread(method)
        row = [METHODS[method].title, str(len(cell.by_seed(method, METRIC, SPLIT)))]
        row += [entry(cell.change(method, *key)) for key in ((SPLIT,), (SPLIT, "held_out"), ("rare",), ("seen",))]
        row.append("" if method == "aria" else entry(cell.change(method, SPLIT, reference="aria")))
        row += ["" if (value := p[reference][index]) is None else f"{value:.3f}" for reference in (REFERENCE, "aria")]
        row.append("" if share is None else f"{share:.0%}")
        row.append("" if spread is None else f"{spread:.0%}")
        text.append("| " + " | ".join(row) + " |")
    text += _why(cell)
    return "\n".join(text) + "\n"


def _why(cell: Cell) -> list[str]:
    """What the runs say about shares and discrepancy, in words."""
    slope, seen, most = elasticity(cell), elasticity(cell, "seen"), tilt(cell)
    if slope is None or seen is None:
        return []
    text = [
        "",
        f"Over all runs the error of unseen prompts goes as the power {slope:.3f} of the share of draws they get:",
        f"twice the share takes {1 - 2**slope:.1%} off it. That of seen prompts goes as its power {seen:+.3f}.",
    ]
    if most is not None:
        text.append(f"With that power, dividing the draws by the discrepancy can take off {most:.1%} more at most.")
    if (mixed := by_mixture(cell)) is not None:
        share, pure, blended, seen_alone = mixed
        text += [
            f"Of the unseen prompts {share:.0%} are in regions with seen ones, too. Under `aria` a prompt of such a",
            f"region is drawn {blended:.1f} times, of a region of unseen ones alone {pure:.1f} times, of seen ones",
            f"alone {seen_alone:.1f} times.",
        ]
    if believed := [(method, found) for method in (REFERENCE, "aria") if (found := told_apart(cell, method))]:
        text += [
            "Last estimates of the discrepancy, means over prompts in regions of which nine tenths or more are unseen",
            "and in those of which a tenth or less is, and in how many pairs of two such regions the first has the",
            "higher one (50% by chance): "
            + "; ".join(f"under `{name}` {a:.2f} and {b:.2f}, {wins:.0%}" for name, (a, b, wins) in believed)
            + ".",
        ]
    return text


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


def by_mixture(cell: Cell, method: str = "aria") -> tuple[float, float, float, float] | None:
    """The share of unseen prompts in mixed regions; draws per prompt in all-unseen, mixed and all-seen regions.

    Of the first seed of `method`; None without it or where there is no region of some kind.
    """
    runs = sorted((run for run in cell.runs if run["method"] == method and run["regions"]), key=lambda run: run["seed"])
    if not runs:
        return None
    sizes, unseen, draws = (np.array(runs[0]["regions"][key], float) for key in ("sizes", "unseen_share", "draws"))
    kinds = unseen == 1, (unseen > 0) & (unseen < 1), unseen == 0
    if not all(kind.any() for kind in kinds):
        return None
    share = float((sizes * unseen)[kinds[1]].sum() / (sizes * unseen).sum())
    pure, mixed, seen = (float(draws[kind].sum() / sizes[kind].sum()) for kind in kinds)
    return share, pure, mixed, seen


def elasticity(cell: Cell, split: str = SPLIT) -> float | None:
    """The slope of log error over log share of rows that went to unseen prompts, least squares over the runs.

    None unless two shares differ.
    """
    runs = [(share, run["metrics"][split]["pool"][METRIC]) for run in cell.runs if (share := to_unseen(run))]
    if len({share for share, _ in runs}) < 2:
        return None
    x, y = np.log(np.array(runs, float)).T
    return float(np.polyfit(x, y, 1)[0])


def tilt(cell: Cell) -> float | None:
    """The most that knowing D could take off the error of unseen prompts, at the effort they have; None if unknown.

    If a region's error is A n**-b, the effort n that is best in sum is proportional to A**(1 / (1 + b)), and its error
    is (mean A**(1 / (1 + b)))**(1 + b) where that of equal effort is mean A (theory page, "Allocation"). Here b is the
    slope of `elasticity`, and A the last estimates of mostly unseen regions under RC, whose noise adds to the spread.
    """
    runs = [run for run in cell.runs if run["method"] == REFERENCE and "discrepancy" in (run["regions"] or {})]
    slope = elasticity(cell)
    if not runs or slope is None:
        return None
    regions, power = runs[0]["regions"], 1 / (1 - slope)
    unseen = np.array(regions["unseen_share"]) > 0.5
    weight, a = np.array(regions["sizes"])[unseen], np.array(regions["discrepancy"][-1], float)[unseen]
    return float(1 - np.average(a**power, weights=weight) ** (1 / power) / np.average(a, weights=weight))


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


def draw_shares(cell: Cell, path: Path) -> None:
    """Every method a dot: the error by the share of switched rows that went to prompts without images."""
    from .figures import COLOURS, colour, name_of, plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
        for axis, split in zip(axes, (SPLIT, "seen"), strict=True):
            for method in sorted(cell.methods, key=lambda method: cell.to_unseen(method) or 0.0):
                share, change = cell.to_unseen(method), cell.change(method, split)
                if share is None or change is None:
                    continue
                size, alpha, label = (70, 1.0, name_of(method)) if method in COLOURS else (22, 0.7, None)
                axis.scatter(share, change.mean, s=size, color=colour(method), alpha=alpha, label=label, zorder=3)
            axis.set_xscale("log")
            ticks = (0.05, 0.1, 0.2, 0.5, 1.0)
            axis.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
            axis.minorticks_off()
            axis.set(xlabel="of the switched rows, to prompts without images")
            axis.set_title(f"prompts {'without' if split == SPLIT else 'with'} images ({split})")
            axis.grid(color="#e6e6e6")
            axis.set_axisbelow(True)
        axes[0].set_ylabel("picture error against RC in %")
        axes[0].legend(loc="lower left")
        slope, title = elasticity(cell), f"{cell.title}; small dots: everything else that was tried"
        if slope is not None:
            rule = (
                f"Twice the share of draws for prompts without images goes with {1 - 2**slope:.0%} less error on them"
            )
            title = f"{rule}\n{title}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)


def draw_frontier(cell: Cell, path: Path) -> None:
    """What prompts with images pay for those without."""
    from .figures import colour, name_of, plt

    def at(method: str) -> tuple[float, float] | None:
        x, y = (cell.change(method, split) for split in ("seen", SPLIT))
        return (x.mean, y.mean) if x and y else None

    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 5.2))
        for methods in FRONTIER.values():
            line = [found for method in methods if (found := at(method))]
            axis.plot(*zip(*line, strict=True), color=colour(methods[0]), linewidth=1.2, zorder=1)
        shown = {"none", "aria_novel4", "oracle"}.union(*FRONTIER.values())
        points = {method: found for method in cell.methods if method in shown and (found := at(method))}
        for index, method in enumerate(sorted(points, key=lambda method: points[method])):
            axis.scatter(*points[method], s=60, color=colour(method), zorder=3)
            offset = (0, (7, -15, 19, -27)[index % 4])  # above and below, near and far: labels of neighbours keep apart
            axis.annotate(
                name_of(method), points[method], offset, textcoords="offset points", fontsize=8.5, ha="center"
            )
        axis.margins(0.14)
        axis.set(xlabel="error on prompts with images (seen), change against RC in %")
        axis.set_ylabel("error on prompts without (unseen), change against RC in %")
        axis.set_title(f"Left and below is better ({cell.title})", fontsize=10)
        axis.grid(color="#e6e6e6")
        axis.set_axisbelow(True)
        figure.savefig(path)
        plt.close(figure)
