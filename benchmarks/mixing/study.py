"""Many runs: planned, spread over processes, resumed, and gathered into `results.json`.

A run is finished when its JSON file stands under `runs/`; a study that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing as mp
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

import aria_sampling as aria
from benchmarks import EDITION

from .corpus import Corpus, load
from .methods import METHODS
from .train import RunSettings, run

LARGEST = 256  # held-out sequences of a group that are measured


def run_study(plan: Sequence[RunSettings], out: Path, jobs: int) -> dict[str, Any]:
    """Carries out what is not finished yet and writes `results.json`: every run of the plan."""
    (out / "runs").mkdir(parents=True, exist_ok=True)
    corpus = load(largest=LARGEST)
    paths = {settings: out / "runs" / _file_name(settings, corpus.fingerprint) for settings in plan}
    todo = [settings for settings in plan if not paths[settings].exists()]
    print(
        f"{len(plan)} runs, {len(plan) - len(todo)} of them finished before; {jobs} at a time, into {out}", flush=True
    )
    if jobs == 1:
        for settings in todo:
            _carry_out(settings, corpus, paths[settings])
    else:
        with ProcessPoolExecutor(jobs, mp.get_context("spawn")) as executor:
            for future in [executor.submit(_carry_out, settings, None, paths[settings]) for settings in todo]:
                future.result()
    results = {
        "corpus": {
            "python": corpus.python,
            "fingerprint": corpus.fingerprint,
            "groups": list(corpus.pool.names),
            "train": corpus.pool.sizes.tolist(),
            "held_out": [len(group) for group in corpus.held_out],
        },
        "edition": EDITION,
        "versions": {"aria_sampling": aria.__version__, "torch": torch.__version__},
        "runs": [json.loads(paths[settings].read_text(encoding="utf-8")) for settings in plan],
    }
    _write(out / "results.json", _as_lines(results))
    return results


def _carry_out(settings: RunSettings, corpus: Corpus | None, path: Path) -> None:
    result = run(settings, load(largest=LARGEST) if corpus is None else corpus)
    _write(path, json.dumps(_rounded(result)))
    print(f"{settings.method} seed {settings.seed}: {result['cpu_seconds']:.0f} s", flush=True)


def _file_name(settings: RunSettings, fingerprint: str) -> str:
    everything = json.dumps([settings.as_json(), fingerprint, EDITION], sort_keys=True)
    return f"{settings.method}-s{settings.seed}-{hashlib.sha256(everything.encode()).hexdigest()[:10]}.json"


def _rounded(value: Any) -> Any:
    """Floats to six digits: what lies beyond says nothing, and makes diffs of results hard to read."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _as_lines(results: dict[str, Any]) -> str:
    """JSON with one line a run."""
    head = {key: value for key, value in results.items() if key != "runs"}
    runs = ",\n".join(json.dumps(run) for run in results["runs"])
    return f'{json.dumps(head)[:-1]}, "runs": [\n{runs}\n]}}\n'


def _write(path: Path, text: str) -> None:
    """The whole file or none."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def load_results(out: Path) -> dict[str, Any]:
    """What `results.json` holds."""
    path = out / "results.json"
    if not path.exists():
        raise SystemExit(f"{path} does not exist: run `python -m benchmarks.mixing --out {out}` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def plan_of(methods: Sequence[str], seeds: Sequence[int], **changes: Any) -> list[RunSettings]:
    """Runs, seed after seed, so that a study that was stopped has whole pairs."""
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise SystemExit(f"methods: expected some of {', '.join(METHODS)}, got {', '.join(unknown)}")
    return [RunSettings(method, seed, **changes) for seed in seeds for method in methods]
