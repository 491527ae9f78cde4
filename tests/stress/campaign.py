"""The failure campaign in full, and its figures: what `docs/explanation/reliability.md` reports.

    python -m tests.stress.campaign [--part kills] [--out tests/stress/results] [--docs]

Run from the root of the repository. Each part writes `<part>.json`; without ``--part`` all of them run, about half an
hour on two cores. ``--figures`` draws from the results that are there. The exit status is 1 if anything went wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("results")


def kills(*, quick: bool) -> dict[str, Any]:
    """SIGKILL at random moments and at every named point, in every kind of run."""
    from tests.stress.killing import campaign, everywhere
    from tests.stress.training import MODES, PLANTS, Plan

    outcomes = []
    for number, mode in enumerate(MODES):
        points = everywhere(mode)[:4] if quick else everywhere(mode)
        outcomes.append(campaign(Plan(mode, seed=number), points=points, random_kills=4 if quick else 40, seed=number))
    notice = ((plant, campaign(Plan("loader", 24, plant=plant), points=[("write", 3)]).problems) for plant in PLANTS)
    noticed = {plant: [said.splitlines()[-1][:120] for said in problems[:1]] for plant, problems in notice}
    problems = [f"{outcome.plan.mode}: {problem}" for outcome in outcomes for problem in outcome.problems]
    return {
        "runs": {outcome.plan.mode: {"starts": outcome.starts, "replayed": outcome.replayed} for outcome in outcomes},
        "kills": [{**kill, "why": ""} for outcome in outcomes for kill in outcome.kills],  # a trace names folders
        "planted": noticed,
        "problems": problems + [f"did not notice: {plant}" for plant, said in noticed.items() if not said],
    }


def ranks(*, quick: bool) -> dict[str, Any]:
    """Two and four processes: equal digests, delays, deaths."""
    from tests.stress.ranks import study

    return study(300 if quick else 10_000)


def soak(*, quick: bool) -> dict[str, Any]:
    """A million rounds."""
    from tests.stress.soak import soak as run

    return asdict(run(4_000, 1_000) if quick else run(1_000_000, 10_000))


PARTS = {"kills": kills, "ranks": ranks, "soak": soak}


def rounded(value: Any) -> Any:
    """Floats to four digits: what lies beyond says nothing."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results as JSON, with innermost lists and dictionaries on one line each."""
    text = json.dumps(rounded(results), indent=1)
    text = re.sub(r"[\[{][^][{}]*[\]}]", lambda match: " ".join(match[0].split()), text)
    path.write_text(text + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """What it ran on, as far as it may matter."""
    import torch

    return {
        "aria_sampling": aria.__version__,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
    }


def main(argv: list[str] | None = None) -> int:
    """Carry out the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.campaign", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go (default: beside this script)")
    parser.add_argument("--quick", action="store_true", help="a minute: does it run at all")
    parser.add_argument("--figures", action="store_true", help="run nothing, draw the figures again")
    parser.add_argument("--docs", action="store_true", help="figures to docs/_static/reliability_*.png, not to --out")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    for name in [] if args.figures else args.part or PARTS:
        began = time.monotonic()
        results = PARTS[name](quick=args.quick)
        minutes = (time.monotonic() - began) / 60
        write(args.out / f"{name}.json", {"versions": versions(), "minutes": minutes, **results})
        print(
            f"{name}: {minutes:.1f} minutes, {len(results['problems'])} problems", *results["problems"][:5], sep="\n  "
        )
        bad += len(results["problems"])
    from tests.stress.figures import draw_all

    for path in draw_all(args.out, ROOT / "docs" / "_static" if args.docs else args.out):
        print(path)
    return bad > 0


if __name__ == "__main__":
    raise SystemExit(main())
