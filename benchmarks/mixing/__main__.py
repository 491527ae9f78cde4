"""Runs the mixing study and writes results, table and figure; see README.md in this folder."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from .figures import draw
from .methods import METHODS
from .report import table
from .study import load_results, plan_of, run_study

DOCS = Path(__file__).resolve().parents[2] / "docs" / "_static"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixing", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/mixing"), help="where to write (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2,3,4", help="comma-separated (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="seconds: does it run at all; its numbers mean nothing")
    parser.add_argument("--figures", action="store_true", help="redraw table and figure from the results in --out")
    parser.add_argument("--docs", action="store_true", help="also copy the figure to docs/_static/mixing.png")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Carries out the command."""
    args = _parser().parse_args(argv)
    if args.figures:
        results = load_results(args.out)
    else:
        size = {"steps": 4, "batch": 8, "width": 8} if args.smoke else {}
        plan = plan_of(args.methods.split(","), [int(seed) for seed in args.seeds.split(",")], **size)
        results = run_study(plan, args.out, args.jobs)
    text = table(results)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    draw(results, args.out / "mixing.png")
    print(args.out / "mixing.png")
    if args.docs:
        print(shutil.copy(args.out / "mixing.png", DOCS / "mixing.png"))


if __name__ == "__main__":
    main()
