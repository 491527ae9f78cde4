"""Do runs made here say what the committed ones say: the same draws, and errors how far apart?

Make some without `--restore` (`study --cells base --methods rc,aria --seeds 10 --out DIR`), then `agree --out DIR`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def compare(out: Path, results: Path = RESULTS) -> str:
    """A line for every run that is in a `CELL.json` of both folders, under one name: so of one data and settings."""
    text = []
    for path in sorted(results.glob("*.json")):
        if not (out / path.name).exists():
            continue
        ours, theirs = (
            {run["name"]: run for run in json.loads(p.read_text(encoding="utf-8"))} for p in (out / path.name, path)
        )
        for name in ours.keys() & theirs.keys():
            text.append(f"{path.stem} {name}: {said(ours[name], theirs[name])}")
    return "\n".join(sorted(text)) or (
        f"nothing to compare: no CELL.json in {out} has a run of {results.name}; make some there with `study`, without "
        "--restore, under the packages of constraints.txt"
    )


def said(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What two runs of one name differ in."""
    draws = [None if run["regions"] is None else run["regions"]["draws"] for run in (ours, theirs)]
    pairs = zip(_numbers(ours["metrics"]), _numbers(theirs["metrics"]), strict=True)
    furthest = max(abs(a - b) / abs(b) if b else abs(a) for a, b in pairs)
    drawn = "no draws" if draws == [None, None] else f"draws {'equal' if draws[0] == draws[1] else 'differ'}"
    return f"{drawn}, errors within {furthest:.1e} of the committed ones"


def _numbers(tree: Any) -> Iterator[float]:
    """All numbers in it, in a fixed order."""
    if isinstance(tree, Mapping):
        for key in sorted(tree):
            yield from _numbers(tree[key])
    else:
        yield float(tree)
