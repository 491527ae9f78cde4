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
from benchmarks.statistics import Interval, adjusted, interval, pooled

from .cells import CELLS
from .stats import REFERENCE, Cell, cells

METRIC, SPLIT = "generation", "unseen"
SHOWN = ("none", "uniform", "first_aria", "first_novel4", "aria", "oracle")
SHOWN_SPLITS = ("unseen", "seen", "rare")
TESTED = ("first_aria", "first_novel4", "aria")


@dataclass(frozen=True)
class Line:
    """A cell of `CELLS`, and the runs there are in it."""

    name: str
    title: str
    cell: Cell

    @property
    def seeds(self) -> str:
        """How many seeds the methods shown have: "5", or from the fewest on, "3 to 5"."""
        counts = {len(self.cell.by_seed(method, METRIC, SPLIT)) for method in (REFERENCE, *SHOWN)} - {0} or {0}
        return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))

    def share_of_oracle(self, method: str) -> float | None:
        """What part of the oracle's gain over `rc` a method has, on seeds all three have; None if there is no gain."""
        errors = [self.cell.by_seed(name, METRIC, SPLIT) for name in (REFERENCE, method, "oracle")]
        reference, mine, best = (sum(e[s] for s in set.intersection(*map(set, errors))) for e in errors)
        return None if best >= reference else (reference - mine) / (reference - best)

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


def entry(value: Interval | None) -> str:
    """A change in per cent, with its interval if it has one."""
    if value is None:
        return ""
    return f"{value.mean:+.1f}" + ("" if value.half is None else f" ± {value.half:.1f}")


def changes(
    found: Sequence[Line], method: str, split: str = SPLIT, reference: str = REFERENCE
) -> list[Interval | None]:
    """A method's change in every cell, in per cent; the spread between seeds is that of all cells together."""
    values = [line.cell.changes(method, split, reference=reference) for line in found]
    spread = pooled(values)
    return [interval(each, spread) if each else None for each in values]


def across(found: Sequence[Line], method: str, split: str) -> tuple[float, float, float] | None:
    """Median, least and largest of a method's changes over the cells; None if it was run in none."""
    means = [value.mean for value in changes(found, method, split) if value]
    return (float(np.median(means)), min(means), max(means)) if means else None


def markdown(found: Sequence[Line]) -> str:
    """The tables over all cells: the errors of all methods, and what there is to say of those that are tested."""
    shown = [method for method in SHOWN if any(method in line.cell.methods for line in found)]
    text = [
        "Generation error on unseen prompts, in per cent of `rc`'s, paired by seed with 95% intervals, here and below",
        "with the spread between seeds that the column has in all cells together, about the cells' means.",
        f"Edition of the library that made the runs: {_editions(found, (REFERENCE, *shown))}.",
        "",
        "| cell | seeds | " + " | ".join(shown) + " |",
        "|---" * (len(shown) + 2) + "|",
    ]
    columns = [changes(found, method) for method in shown]
    for index, line in enumerate(found):
        row = [line.title, line.seeds, *(entry(column[index]) for column in columns)]
        text.append("| " + " | ".join(row) + " |")
    text += [*_spreads(found, shown, REFERENCE), "", *_short(found, shown)]
    for method in TESTED:
        if any(method in line.cell.methods for line in found):
            text += _tested(found, method)
    return "\n".join(text) + "\n"


def _editions(found: Sequence[Line], methods: Sequence[str]) -> str:
    """Which editions made the runs of each method."""
    made = {method: sorted({line.cell.editions(method) for line in found} - {""}) for method in methods}
    return "; ".join(f"{method} {' and '.join(editions)}" for method, editions in made.items())


def _short(found: Sequence[Line], shown: Sequence[str]) -> list[str]:
    """The median of every method over the cells, and its range."""
    text = [
        "Median over the cells that a method was run in, in brackets the range:",
        "",
        "| method | cells | " + " | ".join(SHOWN_SPLITS) + " |",
        "|---" * 5 + "|",
    ]
    for method in shown:
        row = [method, str(sum(method in line.cell.methods for line in found))]
        for split in SHOWN_SPLITS:
            span = across(found, method, split)
            row.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*span) if span else "")
        text.append("| " + " | ".join(row) + " |")
    return text


def _tested(found: Sequence[Line], method: str) -> list[str]:
    """What there is to say of one method in every cell."""
    others = (REFERENCE, "uniform")
    tested = [[line.cell.changes(method, SPLIT, reference=other) for line in found] for other in others]
    p = [adjusted(values, pooled(values)) for values in tested]
    columns = [
        changes(found, method, reference="uniform"),
        *(changes(found, method, split) for split in ("seen", "rare")),
    ]
    text = [
        "",
        f"`{method}`: its difference from uniform; p values adjusted after Holm over the cells; the part of the",
        "oracle's gain that it has; the share of the steps after which its discrepancy on unseen prompts is at RC's",
        "last; what seen and rare prompts pay; the share of switched rows that went to unseen prompts (RC, and here).",
        "",
        "| cell | seeds | − uniform | p, RC | p, uniform | of oracle | steps | seen | rare | to unseen |",
        "|---" * 10 + "|",
    ]
    for index, line in enumerate(found):
        share, steps = line.share_of_oracle(method), line.steps(method)
        less, seen, rare = (entry(column[index]) for column in columns)
        row = [line.title, str(len(line.cell.by_seed(method, METRIC, SPLIT))), less]
        row += ["" if (value := values[index]) is None else f"{value:.3f}" for values in p]
        row += ["" if share is None else f"{share:.0%}", "" if steps is None else f"{steps:.2f}", seen, rare]
        shares = [line.cell.to_unseen(name) for name in (REFERENCE, method)]
        row.append(" → ".join("?" if share is None else f"{share:.0%}" for share in shares))
        text.append("| " + " | ".join(row) + " |")
    return [*text, *_overall(found, method), *_spreads(found, (method,), "uniform")]


def _spreads(found: Sequence[Line], methods: Sequence[str], reference: str) -> list[str]:
    """The standard deviations behind the intervals."""
    text: list[str] = []
    for method in methods:
        spread = pooled([line.cell.changes(method, SPLIT, reference=reference) for line in found])
        if spread is not None:
            text.append(f"{method} − {reference} {spread.sd:.1f} ({spread.df} degrees of freedom)")
    return ["", f"Standard deviation between seeds, in points: {'; '.join(text)}."] if text else []


def _overall(found: Sequence[Line], method: str) -> list[str]:
    """In how many cells a method's mean is below the others', and its median over the cells."""
    text = [""]
    for reference in (REFERENCE, *(name for name in ("uniform", *TESTED) if name != method)):
        values = [change.mean for line in found if (change := line.cell.change(method, SPLIT, reference=reference))]
        if values:
            text.append(
                f"`{method}` against `{reference}`: below in {sum(value < 0 for value in values)} of {len(values)} "
                f"cells, median {np.median(values):+.1f}%, from {min(values):+.1f} to {max(values):+.1f}%."
            )
    shares = [share for line in found if (share := line.share_of_oracle(method)) is not None]
    if shares:
        text.append(f"Of the oracle's gain: median {np.median(shares):.1%} of {len(shares)} cells.")
    return text


def draw(found: Sequence[Line], path: Path) -> None:
    """Every cell a line, every method a dot with the interval of its difference from RC."""
    from .figures import COLOURS, SHORT, dot, plt, sides

    with plt.rc_context(STYLE):
        figure, axes = sides(1.6 + 0.7 * len(found))
        for axis, split in axes:
            for offset, method in enumerate(SHOWN):
                for y, value in enumerate(changes(found, method, split)):
                    if value:
                        label = SHORT[method] if not y else None
                        dot(axis, value, y + 0.15 * (offset - (len(SHOWN) - 1) / 2), COLOURS[method], label)
        labels = [f"{line.title}\n{line.seeds} seed{'s' if line.seeds != '1' else ''}" for line in found]
        axes[0][0].set_yticks(range(len(found)), labels)
        axes[0][0].set_ylim(len(found) - 0.5, -0.5)
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=len(SHOWN) + 1)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.4 / figure.get_figheight()))
        figure.savefig(path)
        plt.close(figure)
