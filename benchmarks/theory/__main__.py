"""Runs the theory benchmark: the known world, the bake-off and the waits, then table and figures."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria
from benchmarks import EDITION

from . import bakeoff, coverage, gaps
from .figures import draw_all
from .loop import Settings
from .report import table

DOCS = Path(__file__).resolve().parents[2] / "docs" / "_static"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.theory", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/theory"), help="where to write (default: %(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="a few seconds: does it run at all; its numbers mean little"
    )
    parser.add_argument("--figures", action="store_true", help="redraw table and figures from the results in --out")
    parser.add_argument("--docs", action="store_true", help="also copy the figures to docs/_static/theory_*.png")
    return parser


def compute(*, quick: bool) -> dict[str, Any]:
    """All numbers, the same on every run of one NumPy."""
    settings, seeds = (Settings(rounds=40), 2) if quick else (Settings(), 20)
    size = bakeoff.Size(rounds=100, replicates=20) if quick else bakeoff.Size()
    scenarios = (0, 2) if quick else range(len(bakeoff.SCENARIOS))
    cells = [(s, r) for s in scenarios for r in range(len(bakeoff.REGIMES))]
    results = {
        "quick": quick,
        "edition": EDITION,
        "versions": {"aria_sampling": aria.__version__, "numpy": np.__version__},
        "loop": coverage.study(settings, seeds),
        "bakeoff": bakeoff.study(size, cells),
        "gaps": gaps.study(100 if quick else 4000),
    }
    return _rounded(results)


def _rounded(value: Any) -> Any:
    """Floats to six digits: what lies beyond says nothing, and makes diffs of results hard to read."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main(argv: list[str] | None = None) -> None:
    """Carries out the command."""
    args = _parser().parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    started = time.perf_counter()
    if args.figures:
        if not path.exists():
            raise SystemExit(f"{path} does not exist: run `python -m benchmarks.theory --out {args.out}` first.")
        results = json.loads(path.read_text(encoding="utf-8"))
    else:
        results = compute(quick=args.quick)
        # lists of numbers on one line each
        text = re.sub(r"\[[^][{}]*\]", lambda m: " ".join(m[0].split()), json.dumps(results, indent=1))
        path.write_text(text + "\n", encoding="utf-8")
    text = table(results)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    for picture in draw_all(results, args.out):
        print(picture)
        if args.docs:
            DOCS.mkdir(exist_ok=True)
            print(shutil.copy(picture, DOCS / f"theory_{picture.name}"))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
