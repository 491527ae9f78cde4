"""Measures what a round costs beside its peers, and says which aims are met; writes JSON and a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aria_sampling as aria
from aria_sampling import _kernel
from benchmarks import EDITION

from .measures import FULL, MEASURES, SMOKE, quick
from .report import table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/speed"), help="where to write (default: %(default)s)")
    parser.add_argument("--only", default="", help=f"some, into the results that are there: {','.join(MEASURES)}")
    parser.add_argument("--smoke", action="store_true", help="all of it, small: does it run")
    parser.add_argument("--table", action="store_true", help="write the table anew from the results in --out")
    parser.add_argument("--quick", action="store_true", help="the check of CI, seconds: status 1 if a round is slow")
    return parser


def machine() -> dict[str, Any]:
    """What it ran on, and what else was running."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    versions = {"aria_sampling": aria.__version__, "numpy": np.__version__, "torch": torch.__version__}
    load = round(os.getloadavg()[0], 1)
    return {"cpu": cpu[1] if cpu else platform.processor(), "cores": os.cpu_count(), "load": load, "versions": versions}


def main(argv: list[str] | None = None) -> None:
    """Carries out the command."""
    args = _parser().parse_args(argv)
    torch.set_num_threads(1)  # a round is too small to be shared out
    if args.quick:
        if not _kernel.COMPILED:
            print("SKIPPED: the kernel's Python reference is in use")
            return
        text, met = quick()
        print(text)
        raise SystemExit(0 if met else 1)
    path = args.out / "results.json"
    args.out.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() and (args.only or args.table) else {}
    if args.table and not results:
        raise SystemExit(f"{path} does not exist: run `python -m benchmarks.speed --out {args.out}` first.")
    if not args.table:
        results |= {"edition": EDITION, "smoke": args.smoke, "machine": machine()}
        for name in args.only.split(",") if args.only else MEASURES:
            results[name] = MEASURES[name](SMOKE if args.smoke else FULL)
            print(f"{name}: done", flush=True)
        rounded = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.4g}"))
        path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")
    text = table(json.loads(path.read_text(encoding="utf-8")))
    (args.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
