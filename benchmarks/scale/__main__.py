"""Measures what it costs to make a pool of any size, and says which aims are met; writes JSON, a table and a figure."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria
from benchmarks import EDITION

from .measures import FULL, SMOKE, alone, plan
from .report import figure, table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="where to write (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path("runs/scale/data"), help="where embeddings go, some 7 GB")
    parser.add_argument(
        "--only", default="", help=f"some parts, into the results that are there: {','.join(plan(FULL))}"
    )
    parser.add_argument("--smoke", action="store_true", help="all of it, small: does it run")
    parser.add_argument("--table", action="store_true", help="write table and figure anew from the results in --out")
    parser.add_argument("--threads", type=int, default=1, help="of BLAS (default 1)")
    return parser


def machine() -> dict[str, Any]:
    """What it ran on, and what else was running."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    versions = {"aria_sampling": aria.__version__, "numpy": np.__version__}
    load = round(os.getloadavg()[0], 1)
    return {"cpu": cpu[1] if cpu else platform.processor(), "cores": os.cpu_count(), "load": load, "versions": versions}


def main(argv: list[str] | None = None) -> None:
    """Carries out the command."""
    args = _parser().parse_args(argv)
    path = args.out / "results.json"
    args.out.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() and (args.only or args.table) else {}
    if args.table and not results:
        raise SystemExit(f"{path} does not exist: run `python -m benchmarks.scale --out {args.out}` first.")
    if not args.table:
        size = SMOKE if args.smoke else FULL
        results |= {"edition": EDITION, "smoke": args.smoke, "machine": machine(), "threads": args.threads}
        parts = plan(size)
        for part in args.only.split(",") if args.only else parts:
            results[part] = {}
            for name, (function, given) in parts[part].items():
                results[part][name] = alone(function, size, args.data, given, threads=args.threads)
                print(f"{part}: {name}: {results[part][name]}", flush=True)
                rounded = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.4g}"))
                path.write_text(json.dumps(rounded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    results = json.loads(path.read_text(encoding="utf-8"))
    text = table(results)
    (args.out / "table.md").write_text(text, encoding="utf-8")
    if "rivals" in results:
        figure(results, args.out / "scale.png")
    print(text)


if __name__ == "__main__":
    main()
