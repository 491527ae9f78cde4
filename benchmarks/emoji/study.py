"""Many runs: planned, spread over processes, resumed, and gathered into `results.json`.

A run is finished when its JSON file stands under `runs/`; files are written beside their place and moved, so a file is
whole or absent, and a study that was stopped goes on where it was. Apart from `distill.py`, which knows one run only.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing as mp
import os
import queue
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import fields
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from benchmarks import EDITION

from . import evaluate, models
from .distill import RunSettings, distill
from .methods import METHODS, RECORDS, TITLES
from .world import CONDITIONS, DATA, SPLITS, Emoji, Scenario, scenario


def fingerprint() -> str:
    """A hash of the data and the teacher: runs and cached answers of others are not reused."""
    digest = hashlib.sha256()
    for name in ("images.npz", "emoji.json", "embeddings.npz", "teacher.safetensors"):
        digest.update((DATA / name).read_bytes())
    return digest.hexdigest()[:16]


def run_name(settings: RunSettings, data: str) -> str:
    """The name of a run's files: readable, and unique by a hash of everything that decides its outcome."""
    everything = json.dumps([settings.as_json(), METHODS[settings.method].key, data, EDITION], sort_keys=True)
    return (
        f"{settings.student}-{settings.method}-s{settings.seed}-{hashlib.sha256(everything.encode()).hexdigest()[:10]}"
    )


def _outcome(settings: RunSettings) -> str:
    """Equal for settings of one outcome: where nothing is switched, the pool and its regions are never seen."""
    ignored = () if METHODS[settings.method].settings is not None else ("lam", "pool", "n_regions")
    return json.dumps({k: v for k, v in settings.as_json().items() if k not in ignored}, sort_keys=True)


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


class _Worker:
    """What a process keeps between its runs: the world and the teacher, on one thread."""

    def __init__(self, report: Callable[[tuple[str, int, str]], None]) -> None:
        torch.set_num_threads(1)  # more threads sum in another order: results would depend on the machine's load
        threadpool_limits(1)  # k-means, too: two processes of two threads on two cores are twenty times slower
        self.world, self.teacher, self.data = Emoji.load(), models.load_teacher(DATA), fingerprint()
        self.report = report

    def scenario(self, settings: RunSettings) -> Scenario:
        """What the settings make of the world."""
        return scenario(self.world, settings.unseen, settings.pool, settings.paired_share)

    def answer(self, settings: RunSettings, split: str, condition: str, cache: Path) -> None:
        """Puts the teacher's answers of one split into the cache."""
        inputs = evaluate.split_inputs(self.scenario(settings), split, condition, settings.evaluation)
        evaluate.teacher_answers(self.teacher, self.data, inputs, cache)

    def run(self, settings: RunSettings, out: Path, cache: Path) -> None:
        """One run, with its files."""
        name = run_name(settings, self.data)
        result, shown = distill(
            settings,
            self.scenario(settings),
            self.teacher,
            self.data,
            cache,
            lambda steps, text: self.report(
                (f"{settings.method} {settings.student} seed {settings.seed}", steps, text)
            ),
        )
        np.savez_compressed(out / "runs" / f"{name}.npz", images=shown)
        write_atomically(
            out / "runs" / f"{name}.json", json.dumps({"name": name, "edition": EDITION, "data": self.data, **result})
        )


_worker: _Worker | None = None


def _start_worker(messages: Any) -> None:
    global _worker  # noqa: PLW0603 - one a process, made once
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _worker = _Worker(messages.put)


def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone: a study that was killed leaves nobody at work."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _call(what: str, *args: Any) -> None:
    assert _worker is not None
    getattr(_worker, what)(*args)


def _spread(tasks: Sequence[tuple[Any, ...]], jobs: int, listen: Callable[[tuple[str, int, str]], None]) -> None:
    """Carries out (method of `_Worker`, arguments...) in order, in this process or in `jobs` others."""
    if jobs == 1:
        worker = _Worker(listen)
        for what, *args in tasks:
            getattr(worker, what)(*args)
        return
    context = mp.get_context("spawn")
    messages = context.Queue()
    with ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(messages,)) as executor:
        pending: set[Future[None]] = {executor.submit(_call, *task) for task in tasks}
        try:
            while pending:
                done, pending = wait(pending, timeout=0.3, return_when=FIRST_COMPLETED)
                while True:
                    try:
                        listen(messages.get_nowait())
                    except queue.Empty:
                        break
                for future in done:
                    future.result()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def run_study(plans: Mapping[Path, Sequence[RunSettings]], cache: Path, jobs: int) -> None:
    """Carries out what is not finished yet of each folder's runs; `gather` collects them.

    A run that has the outcome of another is not made twice: its record is the other's, whose name stands in it.
    """
    data = fingerprint()
    planned = {out / "runs" / f"{run_name(s, data)}.json": (s, out) for out, plan in plans.items() for s in plan}
    todo = {path: run for path, run in planned.items() if not path.exists()}
    sources: dict[str, Path] = {}
    for path in sorted(planned, key=todo.__contains__):  # what is finished first
        sources.setdefault(_outcome(planned[path][0]), path)
    lent = {path: source for path, (s, _) in todo.items() if (source := sources[_outcome(s)]) != path}
    made = [run for path, run in todo.items() if path not in lent]
    print(
        f"{len(planned)} runs, {len(planned) - len(todo)} of them finished before, {len(lent)} the same as others; "
        f"{jobs} at a time",
        flush=True,
    )
    for _, out in todo.values():
        (out / "runs").mkdir(parents=True, exist_ok=True)
    if made:
        _make(made, cache, jobs)
    for path, source in lent.items():
        record = json.loads(source.read_text(encoding="utf-8"))
        own = {"name": path.stem, **todo[path][0].as_json(), "same_run_as": record.get("same_run_as", record["name"])}
        if source.with_suffix(".npz").exists():
            shutil.copy(source.with_suffix(".npz"), path.with_suffix(".npz"))
        write_atomically(path, json.dumps({**record, **own}))


def _make(made: Sequence[tuple[RunSettings, Path]], cache: Path, jobs: int) -> None:
    """The teacher's answers that the runs need, then the runs."""
    answers: dict[Any, tuple[Any, ...]] = {}
    for settings, _ in made:
        for split in SPLITS:
            for condition in CONDITIONS:
                key = (settings.unseen, settings.evaluation, split, condition)
                answers.setdefault(key, ("answer", settings, split, condition, cache))
    total = sum(settings.steps for settings, _ in made)
    with tqdm(desc="teacher's answers, then runs", total=total, unit="step", mininterval=1) as bar:
        state: dict[str, str] = {}
        tasks = [*answers.values(), *(("run", settings, out, cache) for settings, out in made)]
        _spread(tasks, jobs, lambda message: _show(bar, state, message))


def _show(bar: Any, state: dict[str, str], message: tuple[str, int, str]) -> None:
    name, steps, text = message
    state.pop(name, None)  # the latest last
    state[name] = text
    bar.set_description_str("runs", refresh=False)
    bar.set_postfix_str("; ".join(f"{key}: {value}" for key, value in list(state.items())[-2:]), refresh=False)
    bar.update(steps)


def restore(results: Path, out: Path) -> int:
    """Puts the runs of a committed `CELL.json` under `out` as finished, and returns how many.

    Those of the first edition, too: their record says so. Runs of other data, or of other settings of their method, are
    left: their names tell.
    """
    data, found = fingerprint(), json.loads(results.read_text(encoding="utf-8"))
    (out / "runs").mkdir(parents=True, exist_ok=True)
    restored = 0
    for run in found:
        name = run["name"] if run["method"] in RECORDS else run_name(settings_of(run), data)
        if run["data"] != data or (run["edition"] == EDITION and run["name"] != name):
            continue
        restored += 1
        path = out / "runs" / f"{name}.json"
        if not path.exists():
            write_atomically(path, json.dumps(run))
    return restored


def settings_of(run: Mapping[str, Any]) -> RunSettings:
    """The settings in a run's record."""
    settings = {field.name: run[field.name] for field in fields(RunSettings)}
    settings |= {"unseen": tuple(run["unseen"]), "evaluation": evaluate.EvalSize(**run["evaluation"])}
    return RunSettings(**settings)


def gather(out: Path) -> list[dict[str, Any]]:
    """All finished runs in `out`, in a fixed order; also written to `results.json`."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "runs").glob("*.json"))]
    order = list(TITLES)
    runs.sort(key=lambda run: (run["unseen"], run["student"], run["steps"], order.index(run["method"]), run["seed"]))
    if runs:
        write_atomically(out / "results.json", as_json(runs))
    return runs


def as_json(runs: Sequence[dict[str, Any]]) -> str:
    """A list of runs, a line each; what regions were given and believed over time where the figures show it."""
    first, methods = min((run["seed"] for run in runs), default=0), {run["method"] for run in runs}
    traced = methods & {"rc", "aria", "first_aria"} or methods
    kept: list[dict[str, Any]] = []
    for run in runs:
        if regions := run["regions"]:
            shown = {key: regions[key] for key in ("sizes", "unseen_share", "draws")}
            if run["seed"] == first and run["method"] in traced and "steps" in regions:
                rows = [i for i, step in enumerate(regions["steps"]) if step % 200 == 0 or step == run["steps"]]
                shown |= {key: [regions[key][i] for i in rows] for key in ("steps", "discrepancy", "probability")}
            run = {**run, "regions": shown}
        kept.append(run)
    return "[\n" + ",\n".join(json.dumps(run) for run in kept) + "\n]\n"


def load_results(out: Path) -> list[dict[str, Any]]:
    """What `results.json` holds."""
    path = out / "results.json"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: run `python -m benchmarks.emoji distill --out {out}` first.")
    return json.loads(path.read_text(encoding="utf-8"))
