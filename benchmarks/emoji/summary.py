"""One line a cell: what the methods change against random conditioning where there are no images, over the whole study.

Apart from `stats.py`, which knows one cell. The figure is for readers who read figures only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plotting import STYLE
from benchmarks.statistics import holm, interval, p_value

from .cells import CELLS
from .methods import METHODS
from .stats import REFERENCE, Cell, cells

METRIC, SPLIT = "generation", "unseen"
SHOWN = ("none", "uniform", "aria", "oracle")
_TESTED = (("aria", "rc"), ("aria", "uniform"))


@dataclass(frozen=True)
class Line:
    """A cell of `CELLS`, and the runs there are in it."""

    name: str
    title: str
    cell: Cell

    @property
    def seeds(self) -> int:
        """Seeds of `rc`."""
        return len(self.cell.by_seed(REFERENCE, METRIC, SPLIT))

    def per_cent(
        self, method: str, split: str = SPLIT, reference: str = REFERENCE
    ) -> tuple[float, float | None] | None:
        """The mean difference and half its 95% interval, in per cent of the reference's mean; None without runs."""
        found = self.cell.differences(method, METRIC, split, reference=reference)
        if not found:
            return None
        unit = 100 / float(np.mean(list(self.cell.by_seed(reference, METRIC, split).values())))
        known = interval(found)
        return known.mean * unit, None if known.half is None else known.half * unit

    def share_of_oracle(self) -> float | None:
        """What part of the oracle's gain over `rc` ARIA has; None where the oracle gains nothing."""
        mine, best = self.per_cent("aria"), self.per_cent("oracle")
        return None if mine is None or best is None or best[0] >= 0 else mine[0] / best[0]

    def steps(self, method: str) -> float | None:
        """The share of the steps after which the mean curve of unseen conditions is at `rc`'s last value or below."""
        curves = {
            name: [run["curve"] for run in self.cell.runs if run["method"] == name] for name in (REFERENCE, method)
        }
        if not all(curves.values()):
            return None
        goal = np.mean([curve[-1][SPLIT] for curve in curves[REFERENCE]])
        mean = np.mean([[point[SPLIT] for point in curve] for curve in curves[method]], axis=0)
        below = np.flatnonzero(mean <= goal)
        return None if not len(below) else curves[method][0][below[0]]["step"] / self.cell.first["steps"]


def lines(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Line]:
    """The cells in `CELLS`'s order, of runs by the name of their cell."""
    found: list[Line] = []
    for name in CELLS:
        if name in groups:
            (cell,) = cells(groups[name]).values()
            found.append(Line(name, CELLS[name][0], cell))
    return found


def write(folder: Path) -> str:
    """Table and figure of all cells in `folder`, which has a file a cell, go beside them; returns the table."""
    files = {name: folder / f"{name}.json" for name in CELLS}
    found = lines({name: json.loads(path.read_text("utf-8")) for name, path in files.items() if path.exists()})
    text = markdown(found)
    (folder / "cells.md").write_text(text, encoding="utf-8")
    draw(found, folder / "cells.png")
    return text


def _entry(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return ""
    return f"{value[0]:+.1f}" + ("" if value[1] is None else f" ± {value[1]:.1f}")


def markdown(found: Sequence[Line]) -> str:
    """The table over all cells."""
    adjusted = {
        pair: holm([p_value(line.cell.differences(pair[0], METRIC, SPLIT, reference=pair[1])) for line in found])
        for pair in _TESTED
    }
    text = [
        "Generation error on unseen prompts, in per cent of `rc`'s, paired by seed with 95% intervals; then ARIA's",
        "difference from uniform; p values adjusted after Holm over the lines of this table; the part of the oracle's",
        "gain that ARIA has; the share of the steps after which its discrepancy on unseen prompts is at RC's last; and",
        "what seen prompts pay.",
        "",
        "| cell | seeds | " + " | ".join(SHOWN) + " | ARIA − uniform | p, RC | p, uniform | of oracle | steps | seen |",
        "|---" * (len(SHOWN) + 8) + "|",
    ]
    for index, line in enumerate(found):
        share, steps = line.share_of_oracle(), line.steps("aria")
        row = [line.title, str(line.seeds), *(_entry(line.per_cent(method)) for method in SHOWN)]
        row.append(_entry(line.per_cent("aria", reference="uniform")))
        row += [f"{adjusted[pair][index]:.3f}" for pair in _TESTED]
        row += ["" if share is None else f"{share:.0%}", "" if steps is None else f"{steps:.2f}"]
        row.append(_entry(line.per_cent("aria", split="seen")))
        text.append("| " + " | ".join(row) + " |")
    return "\n".join(text) + "\n"


def draw(found: Sequence[Line], path: Path) -> None:
    """Every cell a line, every method a dot with the interval of its difference from RC."""
    from .figures import COLOURS, SHORT, plt

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 1.6 + 0.62 * len(found)), sharey=True)
        for axis, split in zip(axes, ("unseen", "seen"), strict=True):
            for offset, method in enumerate(SHOWN):
                for y, line in enumerate(found):
                    if (value := line.per_cent(method, split)) is None:
                        continue
                    at, colour = y + 0.17 * (offset - 1.5), COLOURS[method]
                    if value[1] is not None:
                        axis.plot([value[0] - value[1], value[0] + value[1]], [at, at], color=colour, linewidth=2)
                    axis.scatter([value[0]], [at], s=36, color=colour, zorder=3, label=SHORT[method] if not y else None)
            axis.axvline(0, color=COLOURS["rc"], linewidth=1)
            axis.set(title=f"prompts {'without' if split == 'unseen' else 'with'} images ({split})")
            axis.set_xlabel("error of the picture, change against RC in % (left is better)")
            axis.grid(axis="x", color="#e6e6e6")
            axis.set_axisbelow(True)
        labels = [f"{line.title}\n{line.seeds} seed{'s' if line.seeds > 1 else ''}" for line in found]
        axes[0].set_yticks(range(len(found)), labels)
        axes[0].set_ylim(len(found) - 0.5, -0.5)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="upper center", ncols=len(SHOWN))
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.4 / figure.get_figheight()))
        figure.savefig(path)
        plt.close(figure)


def draw_frontier(cell: Cell, path: Path) -> None:
    """What prompts with images pay for those without: every method of a cell a dot."""
    from .figures import COLOURS, SHORT, plt

    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8.5, 5.2))
        for method in cell.methods:
            x, y = (
                1000 * float(np.mean(list(cell.by_seed(method, METRIC, split).values()))) for split in ("seen", SPLIT)
            )
            colour = COLOURS.get(method, COLOURS["aria"] if method.startswith("aria") else "#444444")
            axis.scatter([x], [y], s=60, color=colour, zorder=3)
            label = SHORT.get(method, METHODS[method].title)
            axis.annotate(label, (x, y), (7, 0), textcoords="offset points", va="center", fontsize=8.5)
        axis.margins(0.12)
        axis.set(xlabel="error on prompts with images (seen), ×10⁻³", ylabel="error on prompts without (unseen), ×10⁻³")
        seeds = len({run["seed"] for run in cell.runs})
        axis.set_title(f"Left and below is better ({cell.title}, {seeds} seed{'s' if seeds > 1 else ''})", fontsize=10)
        axis.grid(color="#e6e6e6")
        axis.set_axisbelow(True)
        figure.savefig(path)
        plt.close(figure)
