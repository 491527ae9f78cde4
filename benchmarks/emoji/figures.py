"""The pictures of the study, from `results.json` and the emoji that each run drew; how to read them is in README.md.

Colours belong to methods and stay the same everywhere. matplotlib is loaded here and nowhere else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np

from benchmarks.plotting import STYLE
from benchmarks.statistics import Interval

from . import evaluate, models
from .evaluate import EvalSize
from .methods import TITLES
from .stats import REFERENCE, Cell, cells
from .world import DATA, Emoji, Scenario, scenario

COLOURS = {
    "none": "#8a8a8a",
    "rc": "#0072b2",
    "uniform": "#cc9a00",
    "first_aria": "#e0959f",
    "first_novel4": "#b48291",
    "aria": "#d1495b",
    "oracle": "#2a9d6f",
}
SHORT = {
    "none": "no switching",
    "rc": "RC",
    "uniform": "uniform",
    "first_aria": "first edition, counted",
    "first_novel4": "first edition, novelty",
    "aria": "ARIA",
    "oracle": "oracle",
}
HEADLINE = ("none", "rc", "uniform", "aria", "oracle")
PICTURED = ("none", "rc", "aria")  # of the headline: whose emoji are shown


def colour(method: str) -> str:
    """A method's own colour, ARIA's for its variants, or grey."""
    return COLOURS.get(method) or COLOURS.get(method.split("_", maxsplit=1)[0], "#444444")


def name_of(method: str) -> str:
    """What a method is called in figures."""
    return SHORT.get(method, TITLES[method])


def sides(height: float) -> tuple[Any, list[tuple[Any, str]]]:
    """A figure with a panel for unseen and one for seen prompts, of changes against RC; returns (axis, split) pairs."""
    figure, axes = plt.subplots(1, 2, figsize=(11, height), sharey=True)
    for axis, split in zip(axes, ("unseen", "seen"), strict=True):
        axis.axvline(0, color=COLOURS["rc"], linewidth=1, label="RC")
        axis.set(title=f"prompts {'without' if split == 'unseen' else 'with'} images ({split})")
        axis.set_xlabel("picture error against RC in % (left is better)")
        axis.grid(axis="x", color="#e6e6e6")
        axis.set_axisbelow(True)
    return figure, list(zip(axes, ("unseen", "seen"), strict=True))


def dot(axis: Any, value: Interval, y: float, color: str, name: str | None = None) -> None:
    """A mean, with its interval if it has one."""
    if value.half is not None:
        axis.plot([value.mean - value.half, value.mean + value.half], [y, y], color=color, linewidth=2)
    axis.scatter([value.mean], [y], s=36, color=color, zorder=3, label=name)


def _drawn(cell: Cell, out: Path, world: Scenario) -> tuple[list[str], list[tuple[str, np.ndarray]]] | None:
    """The prompts, and rows of (label, uint8[n, 16, 16, 3]): the teacher's, then some methods' at the first seed.

    None if a run has no pictures: they are not committed, so a run that was restored has none.
    """
    found: list[tuple[str, np.ndarray]] = []
    for method in [method for method in _whole(cell) if method in PICTURED]:
        run = min((run for run in cell.runs if run["method"] == method), key=lambda run: run["seed"])
        path = out / "runs" / f"{run['name']}.npz"
        if not path.exists():
            return None
        with np.load(path) as stored:
            found.append((name_of(method), stored["images"]))
    size = EvalSize(**cell.first["evaluation"])
    teacher = evaluate.draw_shown(models.load_teacher(DATA), world, size)
    return [world.world.prompts[i] for i in world.show_prompts(size.shown)], [("teacher", teacher), *found]


def _strip(axes: Any, images: np.ndarray, scale: int = 8, gap: int = 1) -> None:
    """A row of emoji, each pixel a square."""
    tiles = np.pad(images, ((0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
    row = tiles.transpose(1, 0, 2, 3).reshape(tiles.shape[1], -1, 3).repeat(scale, 0).repeat(scale, 1)
    axes.imshow(row, interpolation="nearest", aspect="equal")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _emoji_rows(figure: Any, rows: Sequence[tuple[str, np.ndarray]], prompts: Sequence[str]) -> None:
    """Rows of emoji under their prompts."""
    axes = figure.subplots(len(rows), 1, gridspec_kw={"hspace": 0.05}, squeeze=False)[:, 0]
    for axis, (label, images) in zip(axes, rows, strict=True):
        _strip(axis, images)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
    tile = 18 * 8
    for i, prompt in enumerate(prompts):
        text = "\n".join(textwrap.wrap(prompt, 12))
        axes[0].text((i + 0.5) * tile, -0.06 * tile, text, ha="center", va="bottom", fontsize=8, color="#444444")


def draw_regions(cell: Cell, path: Path) -> None:
    """Allocation and discrepancy by region over time, regions sorted by their share of unseen prompts."""
    chosen = [name for name in (REFERENCE, "aria") if name in cell.methods] or list(cell.methods)
    runs = [min((r for r in cell.runs if r["method"] == m), key=lambda r: r["seed"]) for m in chosen]
    runs = [run for run in runs if run["regions"] and "probability" in run["regions"]]
    if not runs:
        return
    probability = [np.array(run["regions"]["probability"], float).T for run in runs]
    discrepancy = [np.array(run["regions"]["discrepancy"], float).T for run in runs]
    shares = [np.array(run["regions"]["unseen_share"]) for run in runs]  # methods may have regions of their own
    figure, axes = plt.subplots(2, len(runs), figsize=(5.2 * len(runs) + 1, 7), squeeze=False, sharex=True)
    for row, (grids, label) in enumerate(
        (
            (probability, "share of the draws,\nregions alike = 1"),
            (discrepancy, "discrepancy estimate,\nmean at its timestep = 1"),
        )
    ):
        shown = [grid * len(grid) for grid in grids] if row == 0 else grids
        values = np.concatenate([grid[:, 1:].ravel() for grid in shown])
        low, high = (float(np.nanquantile(values, p)) for p in (0.02, 0.98))
        for column, (run, grid) in enumerate(zip(runs, shown, strict=True)):
            axis, last = axes[row, column], run["regions"]["steps"][-1]
            picture = axis.imshow(
                grid[np.argsort(-shares[column], kind="stable")], aspect="auto", interpolation="nearest",
                cmap="viridis" if row == 0 else "magma", vmin=low, vmax=high, extent=(0, last, 1, 0),
            )  # fmt: skip
            border = float((shares[column] > 0.5).mean())
            axis.axhline(border, color="white", linewidth=1.2)
            axis.set_yticks(
                [border / 2, (border + 1) / 2], ["mostly\nunseen", "mostly\nseen"] if column == 0 else ["", ""]
            )
            axis.set_title(f"{name_of(run['method'])}: {'allocation' if row == 0 else 'discrepancy'}")
            if row == 1:
                axis.set_xlabel("step")
        figure.colorbar(picture, ax=axes[row].tolist(), label=label, pad=0.02)
    figure.suptitle(f"Every line is a region of the pool ({cell.title}, seed {runs[0]['seed']})", x=0.02, ha="left")
    figure.savefig(path)
    plt.close(figure)


def draw_curves(cell: Cell, path: Path) -> None:
    """Discrepancy of unseen and of seen conditions while training, mean and range over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8))
    for axis, split in zip(axes, ("unseen", "seen"), strict=True):
        tail: list[float] = []
        for method in _whole(cell):
            curves = [run["curve"] for run in cell.runs if run["method"] == method]
            steps = [point["step"] for point in curves[0]]
            values = np.array([[point[split] for point in curve] for curve in curves])
            axis.plot(steps, values.mean(0), color=colour(method), label=name_of(method), linewidth=1.8)
            axis.fill_between(steps, values.min(0), values.max(0), color=colour(method), alpha=0.15, linewidth=0)
            tail += values.mean(0)[max(1, len(steps) // 6) :].tolist()
        axis.set_ylim(0.95 * min(tail), 1.05 * max(tail))
        axis.set(xlabel="step", ylabel="teacher-student discrepancy", title=f"{split} conditions")
    axes[0].legend()
    figure.suptitle(cell.title, x=0.02, ha="left")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _whole(cell: Cell) -> list[str]:
    """The methods of the headline that were run on every seed of the cell; all that were, if it has none of these."""
    seeds = {run["seed"] for run in cell.runs}
    whole = [method for method in cell.methods if cell.by_seed(method, "generation", "unseen").keys() == seeds]
    return [method for method in whole if method in HEADLINE] or whole


def _dots(axis: Any, cell: Cell, split: str) -> None:
    """A row a method: small dots are seeds; the large one their mean, with the interval of its difference from RC."""
    methods = _whole(cell)
    for y, method in enumerate(methods):
        values = list(cell.by_seed(method, "generation", split).values())
        mean, difference = float(np.mean(values)), cell.difference(method, "generation", split)
        if difference is not None and difference.half is not None:
            ends = [mean - difference.half, mean + difference.half]
            axis.plot(ends, [y, y], color=colour(method), linewidth=2.5, solid_capstyle="round")
        below = [y + 0.17] * len(values)  # beside the bar, where they can be seen (the axis runs downwards)
        axis.scatter(values, below, s=16, color=colour(method), alpha=0.7, linewidth=0, zorder=3)
        axis.scatter([mean], [y], s=70, color=colour(method), zorder=4)
        if method == REFERENCE:
            axis.axvline(mean, color=colour(method), linewidth=0.8, linestyle=":")
        text = f"{mean:.4f}"
        if difference is not None:
            reference = float(np.mean(list(cell.by_seed(REFERENCE, "generation", split).values())))
            text += f"  ({100 * difference.mean / reference:+.1f}%)"
        axis.annotate(text, (mean, y), (0, 9), textcoords="offset points", ha="center", fontsize=8.5)
    axis.set_yticks(range(len(methods)), [name_of(method) for method in methods])
    axis.set_ylim(len(methods) - 0.5, -0.7)
    axis.margins(x=0.22)
    axis.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
    axis.grid(axis="x", color="#e6e6e6")
    axis.set_axisbelow(True)


def draw_headline(cell: Cell, out: Path, world: Scenario, path: Path) -> None:
    """One picture for a stranger: emoji above, the error of each method below. None without the runs' pictures."""
    if (drawn := _drawn(cell, out, world)) is None:
        return
    prompts, rows = drawn
    tile = min(1.0, 9.4 / len(prompts))
    above, below = tile * len(rows) + 1.1, 0.5 * len(_whole(cell)) + 1.75  # inches
    figure = plt.figure(figsize=(11, above + below))
    top, bottom = figure.subfigures(2, 1, height_ratios=[above, below])
    _emoji_rows(top, rows, prompts)
    top.subplots_adjust(left=0.13, right=0.99, bottom=0.05 / above, top=1 - 1.0 / above)
    top.suptitle(
        "Distilling a text-to-image model for prompts it has no images of: the teacher, and smaller students",
        x=0.01, y=1 - 0.1 / above, ha="left", fontsize=12, fontweight="bold",
    )  # fmt: skip
    left, right = bottom.subplots(1, 2, sharey=True)
    _dots(left, cell, "unseen")
    _dots(right, cell, "seen")
    left.set(title="prompts without images (unseen)", xlabel="error of the student's picture")
    right.set(title="prompts with images (seen)", xlabel="error of the student's picture")
    bottom.subplots_adjust(left=0.13, right=0.99, bottom=1.0 / below, top=1 - 0.45 / below, wspace=0.08)
    seeds = len({run["seed"] for run in cell.runs})
    note = (
        f"Mean squared difference from the teacher's picture from the same noise, pixels in [0, 1]; lower is better. "
        f"{cell.title}; {seeds} seed{'s' if seeds > 1 else ''}."
    )
    if seeds > 1:
        note += " Small dots: seeds. Bars: 95% interval of the difference from RC, paired by seed."
    bottom.text(0.01, 0.05 / below, "\n".join(textwrap.wrap(note, 160)), fontsize=8, color="#555555", va="bottom")
    figure.savefig(path)
    plt.close(figure)


def draw_all(runs: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """All figures of all cells, under `out`/figures; the headline of each cell last. Returns their paths."""
    paths: list[Path] = []
    data = Emoji.load()
    with mpl.rc_context(STYLE):
        for name, cell in cells(runs).items():
            folder, world = out / "figures" / name, scenario(data, cell.first["unseen"])
            folder.mkdir(parents=True, exist_ok=True)
            draw_regions(cell, folder / "regions.png")
            draw_curves(cell, folder / "curves.png")
            draw_headline(cell, out, world, folder / "headline.png")
            found = [folder / f"{what}.png" for what in ("regions", "curves", "headline")]
            paths += [path for path in found if path.exists()]
    return paths
