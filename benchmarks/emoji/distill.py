"""One distillation run: a student learns the teacher's output, with prompts switched by the method.

Everything random is a function of (seed, step): images, captions, timesteps, noise, null rows and the mask of switched
rows are the same for all methods at a seed. Only what the switched rows switch *to* differs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aria_sampling as aria

from . import evaluate, models
from .evaluate import EvalSize
from .methods import METHODS, make_switch, regions_of, unseen_share
from .world import CONDITIONS, SPLITS, Scenario, stream

NULL_SHARE = 0.1
_BATCH = 301  # first word of a generator's key

Progress = Callable[[int, str], None]
"""Called with a number of finished steps and a line about the state of the run."""


@dataclass(frozen=True)
class RunSettings:
    """All that decides a run's outcome, beside the data and the teacher."""

    method: str
    student: str
    unseen: tuple[str, ...]
    seed: int
    steps: int = 1200
    batch: int = 48
    lr: float = 1e-3
    lam: float = 5.0
    n_regions: int = 512
    pool: str = "all"
    paired_share: float = 1.0
    curve_every: int = 100
    trace_every: int = 50
    evaluation: EvalSize = field(default_factory=EvalSize)

    def as_json(self) -> dict[str, Any]:
        """The settings in JSON's types."""
        return {**asdict(self), "unseen": list(self.unseen)}


@dataclass(frozen=True)
class Batch:
    """One step's rows: images and captions of paired emoji, before any switch."""

    images: torch.Tensor  # float[B, 3, 16, 16]
    prompts: np.ndarray  # int64[B]
    timesteps: np.ndarray  # int64[B]
    noise: torch.Tensor  # float[B, 3, 16, 16]
    null: np.ndarray  # bool[B]


def draw_batch(scenario: Scenario, seed: int, step: int, size: int) -> Batch:
    """The batch of a step: paired emoji uniformly, under their name or one of their other prompts."""
    world, rng = scenario.world, stream(_BATCH, seed, step)
    rows = scenario.paired[rng.integers(len(scenario.paired), size=size)]
    prompts = rng.integers(world.prompt_start[rows], world.prompt_start[rows + 1])
    timesteps = rng.integers(models.TIMESTEPS, size=size)
    null = rng.random(size) < NULL_SHARE
    noise = torch.from_numpy(rng.standard_normal((size, 3, 16, 16), dtype=np.float32))
    return Batch(torch.from_numpy(world.pixels[rows]), prompts, timesteps, noise, null)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up over the first twentieth, then half a cosine down to a hundredth of the peak."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


class RegionTrace:
    """What the allocator believed and did, every so many steps: rows of one number a region."""

    def __init__(self, n_regions: int) -> None:
        self.steps: list[int] = []
        self.discrepancy: list[list[float | None]] = []
        self.probability: list[list[float]] = []
        self.draws = np.zeros(n_regions, np.int64)  # since the start

    def count(self, regions: np.ndarray) -> None:
        np.add.at(self.draws, regions, 1)

    def record(self, step: int, allocator: Any) -> None:
        mean = allocator.estimate().mean
        self.steps.append(step)
        self.discrepancy.append([float(f"{x:.4g}") if np.isfinite(x) else None for x in mean])
        self.probability.append([float(f"{x:.4g}") for x in allocator.probabilities])

    def as_json(self) -> dict[str, Any]:
        keys = ("steps", "discrepancy", "probability")
        return {**{key: getattr(self, key) for key in keys}, "draws": self.draws.tolist()}


class Loop:
    """A student in training: a step is a batch with its conditions switched, the loss, the update, and the report."""

    def __init__(self, settings: RunSettings, scenario: Scenario, teacher: Any, switch: Any) -> None:
        self.settings, self.scenario, self.teacher, self.switch = settings, scenario, teacher, switch
        self.student = models.STUDENTS[settings.student](teacher).train()
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=settings.lr, weight_decay=0.01)

    def step(self, step: int) -> tuple[np.ndarray, Any]:
        """One step of training; returns the losses float32[B], and what was drawn or None."""
        settings, scenario = self.settings, self.scenario
        batch = draw_batch(scenario, settings.seed, step, settings.batch)
        condition, live = scenario.world.embeddings[batch.prompts], np.flatnonzero(~batch.null)
        condition[batch.null] = 0
        drawn = None
        if self.switch is not None:
            drawn = self.switch.draw(batch.timesteps[live])
            condition[live[drawn.mask]] = scenario.pool_embeddings[drawn.items]
        timesteps, rows = torch.from_numpy(batch.timesteps), torch.from_numpy(condition)
        noisy = models.training_scheduler().add_noise(batch.images, batch.noise, timesteps)
        with torch.inference_mode():
            target = models.predict(self.teacher, noisy, timesteps, rows)
        losses = (models.predict(self.student, noisy, timesteps, rows) - target).square().mean((1, 2, 3))
        self.optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, settings.steps, settings.lr)
        self.optimizer.step()
        observed = losses.detach().numpy()
        if self.switch is not None:
            self.switch.observe(observed[live])
        return observed, drawn


def partition_of(settings: RunSettings, scenario: Scenario) -> aria.Partition:
    """The regions of the run's method; its number is for cells of 512, others in proportion."""
    n_regions = METHODS[settings.method].n_regions
    if n_regions is not None:
        n_regions = max(1, n_regions * settings.n_regions // RunSettings.n_regions)
    return regions_of(scenario, n_regions, settings.seed)


def make_loop(settings: RunSettings, scenario: Scenario, teacher: Any) -> tuple[Loop, aria.Partition]:
    """The loop of a run before its first step, and its regions."""
    partition = partition_of(settings, scenario)
    switch = make_switch(METHODS[settings.method], partition, scenario, seed=settings.seed, lam=settings.lam)
    return Loop(settings, scenario, teacher, switch), partition


def distill(
    settings: RunSettings, scenario: Scenario, teacher: Any, fingerprint: str, cache: Path, progress: Progress
) -> tuple[dict[str, Any], np.ndarray]:
    """Runs to the end. Returns the run's record in JSON's types, and the emoji it draws, uint8[n, 16, 16, 3]."""
    began = time.perf_counter()
    loop, partition = make_loop(settings, scenario, teacher)
    student, switch = loop.student, loop.switch
    inputs = {
        (split, condition): evaluate.split_inputs(scenario, split, condition, settings.evaluation)
        for split in SPLITS
        for condition in CONDITIONS
    }
    answers = {key: evaluate.teacher_answers(teacher, fingerprint, value, cache) for key, value in inputs.items()}
    curve: list[dict[str, float]] = []
    trace = RegionTrace(partition.n_regions)
    switched = 0

    def record(step: int) -> None:
        if step % settings.curve_every == 0 or step == settings.steps:
            point: dict[str, float] = {"step": step}
            for split in SPLITS:
                told = evaluate.predict_grid(student, inputs[split, "pool"], null=False, every=2)
                gap = (told - answers[split, "pool"].told[:, ::2]).square().mean(dtype=torch.float64)
                point[split] = float(gap)
            curve.append(point)
        if switch is not None and (step % settings.trace_every == 0 or step == settings.steps):
            trace.record(step, switch.allocator)

    record(0)
    for step in range(settings.steps):
        losses, drawn = loop.step(step)
        if drawn is not None:
            trace.count(drawn.regions)
            switched += len(drawn.items)
        record(step + 1)
        progress(1, f"loss {losses.mean():.4f}")
    student.eval()
    progress(0, "evaluating")
    metrics = {
        split: {
            condition: {
                **evaluate.compare(evaluate.answer(student, inputs[split, condition]), answers[split, condition]),
                "prompts": len(inputs[split, condition].condition),
            }
            for condition in CONDITIONS
        }
        for split in SPLITS
    }
    regions = None
    if switch is not None:
        shares = [round(float(x), 4) for x in unseen_share(scenario, partition)]
        regions = {"sizes": partition.sizes.tolist(), "unseen_share": shares, **trace.as_json()}
    result = {
        **settings.as_json(),
        "seconds": round(time.perf_counter() - began, 1),
        "parameters": sum(p.numel() for p in student.parameters()),
        "switched_rows": switched,
        "metrics": metrics,
        "curve": curve,
        "regions": regions,
    }
    return result, evaluate.draw_shown(student, scenario, settings.evaluation)
