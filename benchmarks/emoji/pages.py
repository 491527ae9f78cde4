"""The tables of the README and of `docs/benchmarks.md`, written from the committed runs: they cannot say another thing.

A table stands between `<!-- numbers:NAME -->` and `<!-- /numbers -->`; `python -m benchmarks.emoji pages` fills it in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.statistics import Interval

from .agree import RESULTS
from .cells import CELLS
from .methods import RECORDS
from .stats import REFERENCE
from .summary import METRIC, SHOWN_SPLITS, SPLIT, Line, across, changes, lines

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/benchmarks.md")
_PLACE = re.compile(r"(?<=<!-- numbers:)(\w+)( -->\n)(?:(?!<!-- ).)*(?=<!-- /numbers -->)", re.DOTALL)
_METHODS = {
    "none": "no switching",
    REFERENCE: "RC: every prompt alike",
    "uniform": "512 regions alike",
    **RECORDS,
    "aria": "ARIA, the default",
    "oracle": "oracle: told which prompts have no images",
}


def percent(value: float | Interval) -> str:
    """Whole per cent with a sign, and half the interval if there is one; the unit is the caller's.

    >>> percent(-29.6), percent(0.4), percent(Interval(3.5, 3.0)), percent(Interval(-0.2, None))
    ('−30', '0', '+4 ± 3', '0')
    """
    mean, half = (value.mean, value.half) if isinstance(value, Interval) else (value, None)
    text = f"{round(mean):+d}".replace("-", "−") if round(mean) else "0"
    return text if half is None else f"{text} ± {half:.0f}"


def _rows(head: str, rows: Sequence[Sequence[str]]) -> str:
    ruled = [head, "|---" * (head.count("|") - 1) + "|"]
    return "\n".join([*ruled, *(f"| {' | '.join(row)} |" for row in rows)])


def base(found: Sequence[Line]) -> str:
    """The base cell: errors of all methods, with the spread of this cell alone, and who got the draws."""
    (cell,) = (line.cell for line in found if line.name == "base")
    rows: list[list[str]] = []
    for method in (method for method in _METHODS if method in cell.methods):
        row = [_METHODS[method]]
        for split, condition in ((SPLIT, "pool"), (SPLIT, "held_out"), ("seen", "pool")):
            errors = list(cell.by_seed(method, METRIC, split, condition).values())
            text, change = f"{1e3 * np.mean(errors):.1f}", cell.change(method, split, condition)
            if split == SPLIT and method == "aria":
                text = f"**{text}**"
            row.append(text if method == REFERENCE or change is None else f"{text} ({percent(change)}%)")
        share = cell.to_unseen(method)
        rows.append([*row, "none" if share is None else f"{share:.0%}"])
    return _rows("| prompts drawn | unseen, in the pool | unseen, held out | seen | switched to unseen |", rows)


def short(found: Sequence[Line]) -> str:
    """Median and range over the cells, of the methods that were run in all of them."""
    rows: list[list[str]] = []
    for method in (method for method in _METHODS if method != REFERENCE and _everywhere(found, method)):
        row = [_METHODS[method]]
        for split in SHOWN_SPLITS:
            span = across(found, method, split)
            assert span is not None
            row.append("{}% ({} to {}%)".format(*map(percent, span)))
        rows.append(row)
    return _rows("| prompts drawn | unseen: no images | seen: with images | rare: with images, small groups |", rows)


def coverage(found: Sequence[Line]) -> str:
    """The cells where most regions have no image: unseen prompts, what seen ones pay, and who got the draws."""
    names = {"first_aria": "counted", "first_novel4": "by novelty", "aria": "ARIA", "oracle": "oracle"}
    shown = [method for method in names if any(method in line.cell.methods for line in found)]
    columns = [(split, method) for split in (SPLIT, "seen") for method in shown]
    values = [changes(found, method, split) for split, method in columns]
    rows: list[list[str]] = []
    for name in ("diluted", "few", "names", "long_tail"):
        index = [line.name for line in found].index(name)
        row = [found[index].title]
        row += ["" if (value := column[index]) is None else percent(value) for column in values]
        shares = (found[index].cell.to_unseen(method) for method in shown)
        rows.append([*row, ", ".join("?" if share is None else f"{share:.0%}" for share in shares)])
    heads = " | ".join(f"{split}: {names[method]}" for split, method in columns)
    return _rows(f"| cell | {heads} | draws to unseen |", rows)


def _everywhere(found: Sequence[Line], method: str) -> bool:
    return all(method in line.cell.methods for line in found)


TABLES = {"base": base, "short": short, "coverage": coverage}


def filled(text: str, found: Sequence[Line], page: str = "page") -> str:
    """A page with its tables as the runs have them.

    Raises:
        ValueError: A marker has no counterpart, so that a part of the page would go with the table, or an unknown name.
    """
    names = [match[1] for match in _PLACE.finditer(text)]
    marks = [text.count(mark) for mark in ("<!-- numbers:", "<!-- /numbers -->")]
    if marks != [len(names)] * 2 or not TABLES.keys() >= set(names):
        raise ValueError(
            f"{page}: expected each table between `<!-- numbers:NAME -->` and `<!-- /numbers -->`, NAME one of "
            f"{', '.join(TABLES)}; got {marks[0]} and {marks[1]} markers around {', '.join(names) or 'no table'}"
        )
    return _PLACE.sub(lambda match: f"{match[1]}{match[2]}{TABLES[match[1]](found)}\n", text)


def whole(found: Sequence[Line]) -> Sequence[Line]:
    """The cells, if the tables can be made of them: the pages say that all methods have equally many seeds.

    Raises:
        ValueError: A method has more seeds in one cell than another has in one, or a cell has no run of RC.
    """
    counts = {(m, len(line.cell.by_seed(m, METRIC, SPLIT))) for line in found for m in _METHODS}
    numbers = {count for method, count in counts if count or method == REFERENCE}
    if len(numbers) != 1 or 0 in numbers:
        raise ValueError(f"expected equally many seeds of every method in every cell, got {sorted(counts)}")
    return found


def pages(results: Path = RESULTS) -> dict[Path, str]:
    """The text that each page should have."""
    found = whole(lines({name: json.loads((results / f"{name}.json").read_text(encoding="utf-8")) for name in CELLS}))
    return {ROOT / page: filled((ROOT / page).read_text(encoding="utf-8"), found, page) for page in PAGES}
