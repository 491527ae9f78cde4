"""Measures what a round costs, against other samplers in the same run; writes JSON, a table and figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aria_sampling as aria

from . import quick
from .figures import draw_all
from .report import table
from .studies import FULL, SMALL, STUDIES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "_static"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"), help="where to write (default: %(default)s)")
    parser.add_argument(
        "--only", default="", help=f"some of the studies, into the results in --out: {','.join(STUDIES)}"
    )
    parser.add_argument("--smoke", action="store_true", help="all of it, small: does it run")
    parser.add_argument("--figures", action="store_true", help="redraw table and figures from the results in --out")
    parser.add_argument("--docs", action="store_true", help="also copy the figures to docs/_static/speed_*.png")
    parser.add_argument("--quick", action="store_true", help="rounds against their yardsticks only, under a minute")
    parser.add_argument("--against", type=Path, help="with --quick: fail if a ratio is twice that of this file")
    return parser


def machine() -> dict[str, Any]:
    """What it ran on, and what else was running."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    versions = {"aria_sampling": aria.__version__, "numpy": np.__version__, "torch": torch.__version__}
    load = [round(value, 1) for value in os.getloadavg()]
    return {"cpu": cpu[1] if cpu else platform.processor(), "cores": os.cpu_count(), "load": load, "versions": versions}


def write(path: Path, results: dict[str, Any]) -> None:
    """Write JSON with lists of numbers on one line each, floats to five digits."""
    rounded = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.5g}"))
    text = re.sub(r"\[[^][{}]*\]", lambda m: " ".join(m[0].split()), json.dumps(rounded, indent=1))
    path.write_text(text + "\n", encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    """Carries out the command."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(1)  # a round is too small to be shared out
    args.out.mkdir(parents=True, exist_ok=True)
    if args.quick:
        results = {"machine": machine(), **quick.measure()}
        write(args.out / "quick.json", results)
        print(quick.table(results))
        if args.against:
            raise SystemExit(quick.compare(results, json.loads(args.against.read_text(encoding="utf-8"))))
        return
    path = args.out / "results.json"
    if args.figures and not path.exists():
        raise SystemExit(f"{path} does not exist: run `python -m benchmarks.speed --out {args.out}` first.")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() and (args.figures or args.only) else {}
    if not args.figures:
        names = args.only.split(",") if args.only else list(STUDIES)
        size = SMALL if args.smoke else FULL
        results |= {"smoke": args.smoke, "items": size.items, "first": size.first, "machine": machine()}
        for name in names:
            started = time.perf_counter()
            results[name] = STUDIES[name](size)
            results.setdefault("seconds", {})[name] = time.perf_counter() - started
            results.setdefault("load", {})[name] = os.getloadavg()[0]
            print(f"{name}: {results['seconds'][name]:.0f} s", flush=True)
            write(path, results)
        results = json.loads(path.read_text(encoding="utf-8"))
    text = table(results)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)
    for picture in draw_all(results, args.out):
        print(picture)
        if args.docs:
            print(shutil.copy(picture, DOCS / f"speed_{picture.name}"))


if __name__ == "__main__":
    main()
