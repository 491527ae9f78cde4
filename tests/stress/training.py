"""The victim: a small training run that checkpoints, resumes, and can be killed at any point.

It runs in a process of its own (see `killing`). What survives it is a folder: the checkpoint, and a journal with a line
for each batch that was trained on. `PLANTS` are ways to get resuming wrong, to see that the campaign notices.
"""

from __future__ import annotations

import io
import json
import mmap
import os
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

import aria_sampling as aria
from aria_sampling.torch import RegionMixture, lag_for

ITEMS, REGIONS, WIDTH = 240, 6, 5
BATCH, EPOCH = 10, 95  # the last batch of an epoch has 5 rows
LAG = 5
MODES = ("loader", "workers", "stateful", "conditioning", "mixture")
# Where a run can be: the kill at a named point is made just after it says so.
POINTS = ("start", "fetch", "fetched", "parts", "reported", "trained", "write", "written", "replaced", "done")
PLANTS = ("torn checkpoint", "no epoch_start", "dropped draw", "late state", "forgotten model")


@dataclass(frozen=True)
class Plan:
    """What to train, and what to get wrong. Small enough to be sent to another process."""

    mode: str
    rounds: int = 40
    every: int = 2  # rounds between checkpoints
    seed: int = 0
    plant: str = ""


@dataclass
class Tracker:
    """Tells the parent where the run is, and kills the run where it was told to."""

    place: mmap.mmap
    point: str = ""
    nth: int = 0  # counted from 0

    def at(self, point: str) -> None:
        self.place[0] = 1 + POINTS.index(point)
        if point == self.point:
            self.nth -= 1
            if self.nth < 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Rows(Dataset):
    """A regression problem; each sample says which one it is. It is told of each sample that is fetched."""

    def __init__(self, tracker: Tracker, seed: int) -> None:
        source = torch.Generator().manual_seed(seed)
        self.x = torch.randn(ITEMS, WIDTH, generator=source)
        self.y = (self.x.square().sum(1) * (1 + torch.arange(ITEMS) % REGIONS))[:, None]
        self.tracker = tracker
        self.main = os.getpid()

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int):
        if get_worker_info() is None:
            self.tracker.at("fetch")
        elif self.tracker.point == "fetch" and index % 16 == self.tracker.nth % 16:
            os.kill(self.main, signal.SIGKILL)  # while its workers are busy
        elif self.tracker.point == "worker" and index % 16 == self.tracker.nth % 16:
            os.kill(os.getpid(), signal.SIGKILL)  # the worker alone: the loader then raises in the main process
        return index, self.x[index], self.y[index]


class Stream:
    """An iterable source with a state of its own, for `RegionMixture`."""

    def __init__(self, rows: Rows, region: int) -> None:
        self.rows, self.items, self.at = rows, range(region, ITEMS, REGIONS), 0

    def __iter__(self):
        while self.at < len(self.items):
            self.at += 1
            yield self.rows[self.items[self.at - 1]]
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class Job:
    """Model, optimizer and whatever draws, for one of `MODES`: batches come from `batches`, losses go to `report`."""

    def __init__(self, plan: Plan, tracker: Tracker) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.tracker = plan, tracker
        self.model = torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 0.02)
        self.rows = Rows(tracker, plan.seed)
        labels = np.arange(ITEMS) % REGIONS
        pool = aria.Partition.from_labels(labels)
        self.loader = None
        if plan.mode == "conditioning":
            coverage = aria.Coverage.online(pool, half_life=20.0)
            self.allocator = aria.Allocator(pool, coverage=coverage, target="uniform", seed=plan.seed, lag=1)
            schedule = aria.ConstantSwitch(0.6)
            self.face = aria.RandomConditioning(self.allocator, schedule=schedule, num_train_timesteps=100)
        elif plan.mode == "mixture":
            pool = aria.Partition.from_labels(np.arange(REGIONS))
            self.allocator = aria.Allocator(pool, target="uniform", seed=plan.seed, lag=1)
            sources = {str(region): Stream(self.rows, region) for region in range(REGIONS)}
            self.face = RegionMixture(sources, self.allocator, batch_size=BATCH, num_samples=EPOCH // BATCH * BATCH)
        else:
            coverage = aria.Coverage(pool, items=np.arange(0, ITEMS, 7) // 2)
            self.allocator = aria.Allocator(pool, coverage=coverage, seed=plan.seed, lag=LAG)
            self.face = self.allocator.sampler(batch_size=BATCH, num_samples=EPOCH, data_rows_per_batch=4)
            self.loader = self._loader()
            assert lag_for(self.loader) <= LAG

    def _loader(self):
        kind = DataLoader
        if self.plan.mode == "stateful":
            from torchdata.stateful_dataloader import StatefulDataLoader as kind
        options = {"num_workers": 2, "multiprocessing_context": "fork"} if self.plan.mode != "loader" else {}
        return kind(self.rows, batch_size=BATCH, sampler=self.face, **options)

    @property
    def round(self) -> int:
        self.face.synchronize()
        return self.allocator.round

    def epoch(self):
        """Yield (what was drawn, x, y) of each batch until the epoch ends."""
        if self.plan.mode == "conditioning":
            while True:
                yield self._switched()
        if self.plan.mode == "mixture":
            batch = []
            for region, (item, x, y) in self.face:
                batch.append((region, item, x, y))
                if len(batch) == BATCH:
                    regions, items, xs, ys = zip(*batch, strict=True)
                    batch = []
                    yield (torch.tensor(items), torch.tensor(regions)), torch.stack(xs), torch.stack(ys)
        for items, x, y in self.loader or ():
            yield (items,), x, y

    def _switched(self):
        """A batch whose own rows and timesteps follow from the round; some of them switch to another item."""
        rng = np.random.default_rng((self.plan.seed, self.round + len(self.allocator.open_rounds)))
        own, steps = rng.integers(0, ITEMS, BATCH), rng.integers(0, 100, BATCH)
        self.tracker.at("fetch")
        items = torch.tensor(own)
        switch = self.face.draw(torch.tensor(steps), paired=items.clone())
        items[switch.mask] = switch.items
        return (items,), self.rows.x[items], self.rows.y[items]

    def report(self, what, losses) -> None:
        """Credit the losses: in two parts and some rows missing in every other round, then close it."""
        if self.plan.mode == "conditioning":
            self.face.observe(losses, step=False)
            self.tracker.at("parts")
            self.face.step()
            return
        rows = what[-1]
        half = len(rows) // 2
        self.face.observe(rows[:half], losses[:half], step=False)
        self.tracker.at("parts")
        self.face.observe(rows[half + 1 :], losses[half + 1 :], step=False)
        self.face.step()

    def state(self) -> dict:
        stateful = self.plan.mode == "stateful"
        state = self.loader.state_dict() if stateful else self.face.state_dict()
        learnt = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        return {**learnt, "round": self.round, "draws": state}

    def load(self, state: dict) -> int:
        """Continue from `state`; return the number of rounds it has behind it."""
        if self.plan.plant != "forgotten model":
            self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.plan.plant == "no epoch_start":
            state["draws"]["epoch_start"] = state["draws"]["allocator"]["round"]
        (self.loader if self.plan.mode == "stateful" else self.face).load_state_dict(state["draws"])
        if self.plan.plant == "dropped draw":
            self.allocator.draw(BATCH)
            self.allocator.step()
        return state["round"]

    def digest(self) -> str:
        """The final parameters and the allocation, to the last bit."""
        bits = b"".join(value.numpy().tobytes() for value in self.model.state_dict().values())
        return bits.hex() + self.allocator.digest()


def save(path: Path, state: dict, tracker: Tracker, *, torn: bool = False) -> None:
    """Write `state` so that `path` holds the old or the new one, whole, whenever the process dies."""
    raw = io.BytesIO()
    torch.save(state, raw)
    data = raw.getvalue()
    beside = path if torn else path.with_name("checkpoint.tmp")
    with beside.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        tracker.at("write")
        file.write(data[len(data) // 2 :])
        file.flush()
        os.fsync(file.fileno())
    tracker.at("written")
    os.replace(beside, path)
    tracker.at("replaced")


def main(plan: Plan, folder: Path, point: str = "", nth: int = 0) -> None:
    """Train from the checkpoint in `folder`, if there is one, to the end; `result.json` says how it ended.

    If training fails the process ends at once. torch tells of a dead worker by an exception out of a signal handler;
    where that comes while a queue to a worker is locked, the lock stays so, and tidying up at exit waits for ever.
    """
    os.setpgid(0, 0)  # so that whoever kills this process can end its workers too
    with (folder / "stderr").open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        _train(plan, folder, point, nth)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _train(plan: Plan, folder: Path, point: str, nth: int) -> None:
    torch.set_num_threads(1)
    with (folder / "place").open("r+b") as file:
        tracker = Tracker(mmap.mmap(file.fileno(), 1), point, nth)
    job, path = Job(plan, tracker), folder / "checkpoint.pt"
    done = job.load(torch.load(path, weights_only=True)) if path.exists() else 0
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    tracker.at("start")
    kept = job.state()
    while done < plan.rounds:
        for what, x, y in job.epoch():
            tracker.at("fetched")
            losses = (job.model(x) - y).square().mean(1)
            job.optimizer.zero_grad()
            losses.mean().backward()
            os.write(journal, (json.dumps([done, what[0].tolist()]) + "\n").encode())
            job.report(what, losses)
            tracker.at("reported")
            job.optimizer.step()
            tracker.at("trained")
            done += 1
            if done % plan.every == 0:
                state = job.state()
                if plan.plant == "late state":
                    state, kept = {**state, "draws": kept["draws"]}, state
                save(path, state, tracker, torn=plan.plant == "torn checkpoint")
            if done == plan.rounds:
                break
    job.face.synchronize()
    tracker.at("done")
    unfinished = folder / "result.tmp"  # a kill may come while it is written: there is a whole result, or none
    unfinished.write_text(json.dumps({"digest": job.digest(), "rounds": job.allocator.round}))
    unfinished.replace(folder / "result.json")
