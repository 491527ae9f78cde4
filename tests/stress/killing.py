"""Runs `training` in processes that are killed and started again until it is done; compares with a run left alone.

Processes are forked from a server that has imported torch (`multiprocessing`'s forkserver), so that one costs little.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from tests.stress import training
from tests.stress.training import POINTS, Plan

HANG = 120.0  # seconds after which a process that should have ended is taken to hang


@cache
def server():
    """The context whose processes are forked from a warm server with a single thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "torch",
            "torch.utils.data",
            "torch._dynamo",
            "torch.distributed",
            "torchdata.stateful_dataloader",
            "aria_sampling.torch",
        ]
    )
    return context


def kill_group(process) -> None:
    """End a process with all its children: a loader's worker whose parent died while it started never notices."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


@dataclass
class Outcome:
    """What became of a run that was killed again and again."""

    plan: Plan
    problems: list[str] = field(default_factory=list)
    kills: list[dict] = field(default_factory=list)  # where each hit
    starts: int = 0
    replayed: int = 0  # batches that were trained on more than once


class Run:
    """A folder with a training run in it, and what its process did last."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        folder.mkdir(exist_ok=True)

    def start(self, *, point: str = "", nth: int = 0, after: float | None = None) -> dict:
        """Go on with the run, to be killed at that point, or so many seconds after its start. Return how it ended."""
        (self.folder / "place").write_bytes(b"\0")
        arguments = (self.plan, self.folder, point, nth)
        process = server().Process(target=training.main, args=arguments)
        process.start()
        began = self._wait_for_start(process)
        if after is not None:
            process.join(max(0.0, began + after - time.monotonic()))
            process.kill()  # the main process alone: nobody tidies up
        process.join(HANG)
        hung = process.is_alive()
        kill_group(process)
        place = (self.folder / "place").read_bytes()[0]
        end = {"code": process.exitcode, "hung": hung, "at": POINTS[place - 1] if place else "before the start"}
        if process.exitcode not in (0, -9):
            end["why"] = (self.folder / "stderr").read_text()[-300:].strip()
        return {**end, "seconds": time.monotonic() - began, "round": self.rounds_done()}

    def _wait_for_start(self, process) -> float:
        """Wait until the run is about to train; return the time."""
        limit = time.monotonic() + HANG
        while process.is_alive() and time.monotonic() < limit and (self.folder / "place").read_bytes() == b"\0":
            time.sleep(0.001)
        return time.monotonic()

    def lines(self) -> list:
        journal = self.folder / "journal"
        return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []

    def rounds_done(self) -> int:
        return max((line[0] + 1 for line in self.lines()), default=0)

    @property
    def result(self) -> dict | None:
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


def compare(straight: Run, killed: Run, outcome: Outcome) -> None:
    """Note every difference between the run left alone and the killed one."""
    expected = dict(straight.lines())
    seen = Counter()
    for round_, items in killed.lines():
        seen[round_] += 1
        if expected.get(round_) != items:
            outcome.problems.append(f"another batch in round {round_}: {items}, not {expected.get(round_)}")
    if set(seen) != set(expected):
        outcome.problems.append(f"rounds {sorted(set(seen) ^ set(expected))} are in one run only")
    if killed.result != straight.result:
        outcome.problems.append("the final parameters or the allocation differ")
    outcome.replayed += sum(seen.values()) - len(seen)


def campaign(plan: Plan, *, points=(), random_kills: int = 0, seed: int = 0) -> Outcome:
    """Kill runs of `plan` at each of `points`, (name, nth), then at random moments; compare with one left alone."""
    outcome = Outcome(plan)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        straight = Run(Plan(plan.mode, plan.rounds, plan.every, plan.seed), Path(name) / "straight")
        left_alone = straight.start()
        assert straight.result is not None, left_alone
        pending = list(points)
        for number in itertools.count():
            if not pending and sum(kill["random"] for kill in outcome.kills) >= random_kills:
                break
            killed = Run(plan, Path(name) / f"killed{number}")
            while killed.result is None and not outcome.problems:
                missing = random_kills - sum(kill["random"] for kill in outcome.kills)
                how = {}
                if pending:
                    how = dict(zip(("point", "nth"), pending.pop(0), strict=True))
                elif missing > 0:
                    how = {"after": float(rng.uniform(0, 0.7 * left_alone["seconds"]))}
                fresh = killed.rounds_done() == 0
                end = killed.start(**how)
                outcome.starts += 1
                if end["code"] == 0 and "point" in how and not fresh:
                    pending.insert(0, (how["point"], how["nth"]))  # too little was left of this run: in the next one
                    how = {}
                _note(end, how, outcome)
            if outcome.problems:
                break
            compare(straight, killed, outcome)
    return outcome


def _note(end: dict, how: dict, outcome: Outcome) -> None:
    """Take in how a process ended."""
    if end["hung"]:
        outcome.problems.append(f"hung, {how}")
    elif end["code"] == -9 or (end["code"] and how.get("point") == "worker"):
        outcome.kills.append(
            {"mode": outcome.plan.mode, "random": "after" in how, "asked": how.get("point", ""), **end}
        )
    elif end["code"]:
        outcome.problems.append(f"could not go on after {len(outcome.kills)} kills: {end['why']}")
    elif "point" in how:
        outcome.problems.append(f"was never at {how}")


def everywhere(mode: str) -> list[tuple[str, int]]:
    """Every named point of a run in that mode, early and late."""
    points = [("start", 0), *((point, nth) for point in POINTS[1:-1] for nth in (0, 7))]
    return points + ([("worker", 3), ("worker", 8)] if mode in ("workers", "stateful") else [])
