"""A job of several gloo processes: what each rank does, and how a job is started, disturbed and judged.

No model: losses are a function of item and round, so that any number of ranks can compute them. Every rank notes
digests of its allocation as it goes; rank 0 writes checkpoints.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

import aria_sampling as aria
from tests.stress.killing import kill_group, server

ITEMS, REGIONS, BATCH, EPOCH, STEPS = 300, 8, 12, 118, 50  # the last batch of an epoch has 10 rows
HANG = 120.0
KINDS = ("sampler", "conditioning")


@dataclass(frozen=True)
class Job:
    """What the ranks do, and what goes wrong."""

    kind: str
    world: int
    rounds: int
    lag: int = 1
    every: int = 50  # rounds between digests
    save_every: int = 0  # rounds between checkpoints
    timeout: float = 60.0  # of the collectives, seconds
    late_rank: int = -1  # sleeps now and then
    bad_rank: int = -1  # to which the following happens, once `bad_round` is being trained on
    bad_round: int = -1
    fault: str = ""  # "killed", "frozen", "diverged" or "another seed"


class Member:
    """One rank, as a training loop."""

    def __init__(self, job: Job, rank: int, folder: Path) -> None:
        self.job, self.rank, self.folder = job, rank, folder
        pool = aria.Partition.from_labels(np.arange(ITEMS) % REGIONS)
        seed = 7 + (job.fault == "another seed" and rank == job.bad_rank)
        coverage = aria.Coverage(pool, items=[0, 8, 16, 1])
        if job.kind == "conditioning":
            coverage = aria.Coverage.online(pool, half_life=30.0)
        self.allocator = aria.Allocator(pool, coverage=coverage, seed=seed, lag=job.lag)
        if job.kind == "sampler":
            options = {"num_replicas": job.world, "rank": rank}
            self.face = self.allocator.sampler(batch_size=BATCH, num_samples=EPOCH, check_every=25, **options)
        else:
            schedule = aria.ConstantSwitch(0.5)
            options = {"num_train_timesteps": STEPS, "check_every": 25}
            self.face = aria.RandomConditioning(self.allocator, schedule=schedule, **options)
        self.round = 0
        self.saved = folder / "checkpoint.pt"
        if self.saved.exists():
            state = torch.load(self.saved, weights_only=True)
            self.face.load_state_dict(state["draws"])
            self.round = state["round"]

    def train(self) -> None:
        job, source = self.job, np.random.default_rng(1)
        turn = self.sample if job.kind == "sampler" else self.condition
        with (self.folder / f"digests.{self.rank}").open("w") as notes:
            while self.round < job.rounds:
                if self.rank == job.late_rank and source.random() < 0.01:
                    time.sleep(source.exponential(0.02))
                if self.rank == job.bad_rank and self.round == job.bad_round:
                    self.fail()
                turn()
                self.round += 1
                if self.round % job.every == 0:
                    self.face.synchronize()
                    notes.write(json.dumps([self.round, self.allocator.digest()]) + "\n")
                    notes.flush()
                if job.save_every and self.round % job.save_every == 0 and self.rank == 0:
                    self.save()

    def save(self) -> None:
        beside = self.saved.with_name("checkpoint.tmp")
        torch.save({"round": self.round, "draws": self.face.state_dict()}, beside)
        os.replace(beside, self.saved)

    def fail(self) -> None:
        (self.folder / "fault").write_text(str(time.monotonic()))  # one clock for all processes of a machine
        if self.job.fault in ("killed", "frozen"):
            os.kill(os.getpid(), signal.SIGKILL if self.job.fault == "killed" else signal.SIGSTOP)
        elif self.job.fault == "diverged":
            self.allocator._progress.counters[2] ^= 1  # a single bit of the state of this rank flips

    indices = iter(())

    def sample(self) -> None:
        """Train on this rank's rows of a batch, some without a loss, some NaN, now and then half of it none."""
        batch = self.round % -(-EPOCH // BATCH)
        size = min(BATCH, EPOCH - batch * BATCH)
        begin, end = (size * r // self.job.world for r in (self.rank, self.rank + 1))
        items = list(islice(self.indices, end - begin))
        if not items:
            self.indices = iter(self.face)
            items = list(islice(self.indices, end - begin))
        assert len(items) == end - begin
        lost = self.round % 11 == 3
        rows = [
            (item, self.loss(item))
            for place, item in enumerate(items, begin)
            if (item + self.round) % 7 and not (lost and place >= size // 2)
        ]
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]):
            losses = torch.tensor([loss for _, loss in part], dtype=torch.float32)
            self.face.observe(torch.tensor([item for item, _ in part], dtype=torch.int64), losses, step=False)
        self.face.step()

    def condition(self) -> None:
        """Train on this rank's part of a batch, unequal parts, which may be empty."""
        source = np.random.default_rng(self.round)
        steps, own = source.integers(0, STEPS, BATCH), source.integers(-1, ITEMS, BATCH)
        cuts = np.sort(source.integers(0, BATCH + 1, 3)) if self.round % 3 else np.arange(1, 4) * BATCH // 4
        ends = [0, *cuts[:: 4 // self.job.world][: self.job.world - 1].tolist(), BATCH]
        mine = slice(ends[self.rank], ends[self.rank + 1])
        self.face.draw(torch.tensor(steps[mine]), paired=torch.tensor(own[mine]))
        losses = np.array([self.loss(item) for item in own[mine]], np.float32)
        if self.round % 11 == 3:
            self.face.step()
        else:
            self.face.observe(torch.as_tensor(losses))

    def loss(self, item: int) -> float:
        hidden = (item * 2654435761 + self.round * 40503) % 1000 / 1000
        return float("nan") if hidden < 0.02 else (1 + item % REGIONS) * (0.1 + hidden)


def work(job: Job, rank: int, folder: Path) -> None:
    """Be one rank, in a process of its own."""
    os.setpgid(0, 0)
    with (folder / f"stderr.{rank}").open("wb") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    if job.world > 1:
        place = f"file://{folder}/meet"
        timeout = timedelta(seconds=job.timeout)
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=job.world, timeout=timeout)
    member = Member(job, rank, folder)
    member.train()
    member.face.synchronize()
    (folder / f"final.{rank}").write_text(member.allocator.digest())
    if job.world > 1:
        dist.destroy_process_group()


def start(job: Job, folder: Path) -> list[dict]:
    """Run the job until every rank has ended; return how each did: exit code, seconds, the last line it said.

    The seconds are those since the fault, if there was one, else since the start.
    """
    for old in ("meet", "fault", *(f"{name}.{rank}" for name in ("final", "digests") for rank in range(job.world))):
        (folder / old).unlink(missing_ok=True)
    processes = [server().Process(target=work, args=(job, rank, folder)) for rank in range(job.world)]
    began = time.monotonic()
    for process in processes:
        process.start()
    ends: list[dict | None] = [None] * job.world
    limit = began + HANG + job.rounds * 0.1
    while None in ends and time.monotonic() < limit:
        for rank, process in enumerate(processes):
            process.join(0.02)
            if ends[rank] is None and not process.is_alive():
                ends[rank] = _ended(folder, rank, process.exitcode, began)
        if job.fault == "frozen" and sum(end is not None for end in ends) == job.world - 1:
            break  # the frozen one does not end by itself
    for process in processes:
        kill_group(process)
    return [end or {"code": None, "seconds": None, "said": ""} for end in ends]


def _ended(folder: Path, rank: int, code: int | None, began: float) -> dict:
    fault = folder / "fault"
    seconds = time.monotonic() - (float(fault.read_text()) if fault.exists() else began)
    lines = [line for line in (folder / f"stderr.{rank}").read_text().splitlines() if "Error" in line]
    return {"code": code, "seconds": seconds, "said": lines[-1][:300] if code and lines else ""}


def digests(job: Job, folder: Path) -> list[list]:
    """What every rank noted."""
    read = [(folder / f"digests.{rank}").read_text().splitlines() for rank in range(job.world)]
    return [[json.loads(line) for line in lines] for lines in read]


def finals(job: Job, folder: Path) -> set[str]:
    """The digests that the ranks ended with; one, if all is well."""
    return {(folder / f"final.{rank}").read_text() for rank in range(job.world)}


def same_digests(jobs: list[Job]) -> dict:
    """Run jobs that must all leave the same digests, every rank of each at every note; say how many were compared."""
    found, compared, problems, seconds = {}, 0, [], {}
    for job in jobs:
        with tempfile.TemporaryDirectory() as name:
            ends = start(job, Path(name))
            label = f"{job.kind}, {job.world} ranks" + (", one late" if job.late_rank >= 0 else "")
            seconds[label] = max(end["seconds"] or 0.0 for end in ends)
            if any(end["code"] != 0 for end in ends):
                problems.append(f"{label}: {ends}")
                continue
            for rank, notes in enumerate(digests(job, Path(name))):
                for round_, digest in notes:
                    compared += 1
                    if found.setdefault(round_, digest) != digest:
                        problems.append(f"{label}: rank {rank} differs after {round_} rounds")
    return {"compared": compared, "seconds": seconds, "problems": problems}


def interrupted(job: Job, worlds_after: tuple[int, ...]) -> dict:
    """Let a rank fail, see how the others end, and resume from the last checkpoint, on other numbers of ranks too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        alone = replace(job, world=1, bad_rank=-1, fault="", late_rank=-1, save_every=0)
        (folder / "alone").mkdir()
        start(alone, folder / "alone")
        expected = finals(alone, folder / "alone")
        ends = start(job, folder)
        others = [end for rank, end in enumerate(ends) if rank != job.bad_rank]
        problems = [f"hung or ended well: {end}" for end in others if not end["code"] or not end["said"]]
        checkpoint = (folder / "checkpoint.pt").read_bytes()
        reached = torch.load(folder / "checkpoint.pt", weights_only=True)["round"]
        for world in worlds_after:
            (folder / "checkpoint.pt").write_bytes(checkpoint)
            again = replace(job, world=world, bad_rank=-1, fault="")
            resumed = start(again, folder)
            if any(end["code"] != 0 for end in resumed) or finals(again, folder) != expected:
                problems.append(f"resumed on {world} ranks: another end, {resumed}")
    label = f"{job.kind}, rank {job.bad_rank} of {job.world} {job.fault}"
    return {"what": label, "timeout": job.timeout, "checkpoint": reached, "others": others, "problems": problems}


def study(rounds: int) -> dict:
    """The campaign's part about ranks."""
    same, cut = {}, []
    for kind in KINDS:
        jobs = [Job(kind, world, rounds, late_rank=late) for world, late in ((1, -1), (2, -1), (2, 1), (4, -1), (4, 2))]
        same[kind] = same_digests(jobs)
        for world, fault in ((2, "killed"), (4, "killed"), (4, "frozen")):
            job = Job(kind, world, 200, save_every=20, timeout=10.0, bad_rank=world // 2, bad_round=133, fault=fault)
            cut.append(interrupted(job, (world, 1)))
    problems = [problem for part in [*same.values(), *cut] for problem in part["problems"]]
    return {"rounds": rounds, "same": same, "interrupted": cut, "problems": problems}
