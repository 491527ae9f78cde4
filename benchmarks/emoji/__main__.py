"""The study's commands; `python -m benchmarks.emoji distill --help` lists what can be changed."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import agree, compare, pages, summary
from .cells import BASE, CELLS, MAIN_METHODS, SEEDS, TUNING
from .distill import RunSettings
from .evaluate import EvalSize
from .figures import draw_all
from .methods import METHODS
from .models import STUDENTS
from .stats import cells, table
from .study import as_json, gather, load_results, restore, run_study, write_atomically
from .world import POOLS, Emoji, scenario

DOCS = Path(__file__).resolve().parents[2] / "docs" / "_static"
TUNING_CELL = "Animals & Nature,Food & Drink"


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.emoji", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    run = commands.add_parser("distill", help="distil students under several methods, and compare them")
    run.add_argument("--methods", default="none,rc,uniform,aria", help=f"of {', '.join(METHODS)}")
    run.add_argument("--students", default="depth3", help=f"of {', '.join(STUDENTS)}")
    run.add_argument("--unseen", default=TUNING_CELL, help="groups without images, separated by commas")
    run.add_argument("--seeds", default="0,1,2")
    run.add_argument("--steps", type=int, default=1200)
    run.add_argument("--batch", type=int, default=RunSettings.batch)
    run.add_argument("--lr", type=float, default=RunSettings.lr)
    run.add_argument("--lam", type=float, default=RunSettings.lam, help="rate of the exponential switch")
    run.add_argument("--regions", type=int, default=RunSettings.n_regions, help="aria has four times as many")
    run.add_argument("--pool", choices=POOLS, default=RunSettings.pool)
    run.add_argument("--paired-share", type=float, default=RunSettings.paired_share, help="of the images, kept")
    run.add_argument("--eval-prompts", type=int, default=EvalSize.prompts, help="at most, for each split")
    run.add_argument("--smoke", action="store_true", help="a few steps and a tiny evaluation: does it run at all")

    study = commands.add_parser("study", help="the cells of the study: one factor at a time from a base cell")
    study.add_argument("--cells", default="base", help=f"all, or of {', '.join((*TUNING, *CELLS))}")
    study.add_argument("--methods", default=",".join(MAIN_METHODS), help=f"all, or of {', '.join(METHODS)}")
    study.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    study.add_argument("--restore", type=Path, help="folder of CELL.json files: their runs need not be made again")
    study.add_argument("--docs", action="store_true", help="also copy the figures to docs/_static")
    study.add_argument("--smoke", action="store_true", help="a few steps and a tiny evaluation: does it run at all")

    same = commands.add_parser("agree", help="compare the study's runs in a folder with the committed ones")
    same.add_argument("--out", type=Path, required=True, help="folder of a study made without --restore")
    commands.add_parser("pages", help="fill the tables of README and docs from the committed runs")
    draw = commands.add_parser("figures", help="redraw table and figures from results.json")
    for command in (run, study):
        jobs = min(2, os.cpu_count() or 1)
        command.add_argument("--jobs", type=int, default=jobs, help="processes, one thread each")
    for command in (run, study, draw):
        command.add_argument("--out", type=Path, required=True, help="folder of runs, table and figures")
    return parser


def _plan(args: argparse.Namespace) -> list[RunSettings]:
    """The runs of a command, methods innermost: after a stop, whole seeds are there to compare."""
    unseen = scenario(Emoji.load(), args.unseen).unseen
    methods, students = _known("--methods", args.methods, METHODS), _known("--students", args.students, STUDENTS)
    seeds = [int(seed) for seed in _names(args.seeds)]
    common = {
        "steps": args.steps,
        "batch": args.batch,
        "lr": args.lr,
        "lam": args.lam,
        "n_regions": args.regions,
        "pool": args.pool,
        "paired_share": args.paired_share,
        "evaluation": EvalSize(prompts=args.eval_prompts),
    }
    if args.smoke:
        common = _smoke(common)
    return [
        RunSettings(method, student, unseen, seed, **common)
        for student in students
        for seed in seeds
        for method in methods
    ]


def _known(what: str, given: str, known: Iterable[str]) -> list[str]:
    """The names given, or all; it ends the command for one that is not known."""
    names = list(known) if given == "all" else _names(given)
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"{what}: {', '.join(unknown)} not known; there are {', '.join(known)}")
    return names


def _smoke(settings: dict[str, Any]) -> dict[str, Any]:
    """The same, but small."""
    small = {
        name: min(settings.get(name, getattr(RunSettings, name)), most)
        for name, most in (("steps", 6), ("batch", 8), ("n_regions", 48))
    }
    size = EvalSize(prompts=3, sampling_steps=3, shown=4)
    return {**settings, **small, "curve_every": 3, "trace_every": 1, "evaluation": size}


def _study(args: argparse.Namespace) -> None:
    """Carries out the runs of some cells, one folder and one file a cell, and sums up all that is there."""
    methods = _known("--methods", args.methods, METHODS)
    plans: dict[str, list[RunSettings]] = {}
    for name in _known("--cells", args.cells, (*TUNING, *CELLS)):
        settings = TUNING[name] if name in TUNING else {**BASE, **CELLS[name][1]}
        settings = {**settings, "unseen": scenario(Emoji.load(), settings["unseen"]).unseen}
        if args.smoke:
            settings = _smoke(settings)
        if args.restore and (args.restore / f"{name}.json").exists():
            print(f"{name}: {restore(args.restore / f'{name}.json', args.out / 'runs' / name)} runs restored")
        plans[name] = [
            RunSettings(method=method, seed=int(seed), **settings) for seed in _names(args.seeds) for method in methods
        ]
    run_study({args.out / "runs" / name: plan for name, plan in plans.items()}, args.out / "cache", args.jobs)
    for name in plans:
        if not (runs := gather(args.out / "runs" / name)):
            continue
        write_atomically(args.out / f"{name}.json", as_json(runs))
        write_atomically(args.out / f"{name}.md", table(runs))
        pictures = draw_all(runs, args.out / "runs" / name)
        largest = max(cells(runs).values(), key=lambda cell: len(cell.runs))
        write_atomically(args.out / f"{name}_methods.md", compare.markdown(largest))
        if name == "base":
            compare.draw(largest, args.out / f"{name}.png")
            (args.out / name).mkdir(exist_ok=True)
            for picture in pictures:
                shutil.copy(picture, args.out / name)
    print(summary.write(args.out))
    if args.docs:
        for found in ("base/headline.png", "base.png", "cells.png"):
            if (args.out / found).exists():
                shutil.copy(args.out / found, DOCS)


def main(argv: list[str] | None = None) -> None:
    """Carries out one command."""
    args = _parser().parse_args(argv)
    if args.command == "study":
        _study(args)
        return
    if args.command == "pages":
        for path, text in pages.pages().items():
            write_atomically(path, text)
        return
    if args.command == "agree":
        print(agree.compare(args.out))
        return
    if args.command == "distill":
        run_study({args.out: _plan(args)}, args.out / "cache", args.jobs)
        gather(args.out)
    results = load_results(args.out)
    write_atomically(args.out / "table.md", table(results))
    print(table(results))
    pictures = draw_all(results, args.out)
    print(f"Table: {args.out / 'table.md'}\nPictures:")
    for path in pictures:
        print(f"  {path}")


if __name__ == "__main__":
    main()
