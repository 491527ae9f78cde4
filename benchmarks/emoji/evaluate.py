"""How far a student is from its teacher, on prompts, noise and timesteps that no run's seed can change.

Per split and condition, as means over the prompts:

- `discrepancy`: mean squared difference of the networks' outputs, over a fixed grid of timesteps on the noised emoji;
- `noisy`: the same over the noisy half of the grid (t >= T/2);
- `noise`: `discrepancy` in units of predicted noise, which at a timestep is the output's times the share of signal;
- `direction`: mean squared difference of output(c) - output(null), over the grid: what the prompt adds;
- `generation`: both models draw from the same initial noise (DDIM, classifier-free guidance); mean squared difference
  of the two images with pixels in [0, 1].

Apart from the training since the teacher's side is the same for all runs: it is computed once and kept in files whose
names are hashes of all that goes into them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import models
from .world import CONDITIONS, SPLITS, Scenario, stream

GRID = (62, 187, 312, 437, 562, 687, 812, 937)  # the middles of eight equal parts of 0..999
GUIDANCE = 2.0
METRICS = ("discrepancy", "noisy", "noise", "direction", "generation")
_NOISE, _SHOW = 202, 203  # first words of generators' keys


@dataclass(frozen=True)
class EvalSize:
    """How much is evaluated: at most `prompts` prompts a split, `sampling_steps` DDIM steps, `shown` emoji drawn."""

    prompts: int = 64
    sampling_steps: int = 30
    shown: int = 12


@dataclass(frozen=True)
class Inputs:
    """What both models are asked: conditions float[n, D], noised emoji float[n, G, 3, 16, 16], initial noise."""

    condition: torch.Tensor
    noisy: torch.Tensor
    initial: torch.Tensor
    sampling_steps: int

    def key(self, teacher: str) -> str:
        """A hash of the inputs and of the teacher's own hash."""
        digest = hashlib.sha256(f"{teacher} {GRID} {GUIDANCE} {self.sampling_steps}".encode())
        for tensor in (self.condition, self.noisy, self.initial):
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
        return digest.hexdigest()[:24]


@dataclass(frozen=True)
class Answers:
    """What one model answers: its outputs with the condition and without, [n, G, 3, 16, 16], and its images."""

    told: torch.Tensor
    null: torch.Tensor
    images: torch.Tensor


def split_inputs(scenario: Scenario, split: str, condition: str, size: EvalSize) -> Inputs:
    """The inputs of one split and condition; no run's seed enters."""
    prompts = scenario.eval_prompts(split, condition, size.prompts)
    rng = stream(_NOISE, SPLITS.index(split), CONDITIONS.index(condition))
    n, grid = len(prompts), len(GRID)
    noise = torch.from_numpy(rng.standard_normal((n, grid, 3, 16, 16), dtype=np.float32))
    initial = torch.from_numpy(rng.standard_normal((n, 3, 16, 16), dtype=np.float32))
    pixels = torch.from_numpy(scenario.world.pixels[scenario.world.prompt_emoji[prompts]])
    images = pixels[:, None].expand_as(noise).flatten(0, 1)
    noisy = models.training_scheduler().add_noise(images, noise.flatten(0, 1), torch.tensor(GRID).repeat(n))
    condition_rows = torch.from_numpy(scenario.world.embeddings[prompts])
    return Inputs(condition_rows, noisy.unflatten(0, (n, grid)), initial, size.sampling_steps)


@torch.inference_mode()
def predict_grid(model: Any, inputs: Inputs, *, null: bool, every: int = 1, batch: int = 128) -> torch.Tensor:
    """Outputs [n, ceil(G / every), 3, 16, 16] on every `every`-th timestep of the grid."""
    noisy = inputs.noisy[:, ::every]
    timesteps = torch.tensor(GRID[::every]).repeat(len(noisy))
    condition = torch.zeros_like(inputs.condition) if null else inputs.condition
    condition = condition.repeat_interleave(noisy.shape[1], dim=0)
    parts = zip(noisy.flatten(0, 1).split(batch), timesteps.split(batch), condition.split(batch), strict=True)
    return torch.cat([models.predict(model, *part) for part in parts]).unflatten(0, noisy.shape[:2])


def answer(model: Any, inputs: Inputs) -> Answers:
    """All that a model is asked on one split."""
    steps = inputs.sampling_steps
    images = models.sample(model, inputs.condition, inputs.initial, guidance=GUIDANCE, steps=steps)
    return Answers(predict_grid(model, inputs, null=False), predict_grid(model, inputs, null=True), images)


def teacher_answers(teacher: Any, fingerprint: str, inputs: Inputs, cache: Path) -> Answers:
    """The teacher's answers, from the cache if it has them."""
    path = cache / f"teacher-{inputs.key(fingerprint)}.npz"
    if not path.exists():
        found = answer(teacher, inputs)
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        with partial.open("wb") as file:
            np.savez(file, told=found.told.numpy(), null=found.null.numpy(), images=found.images.numpy())
        os.replace(partial, path)
    with np.load(path) as stored:
        return Answers(*(torch.from_numpy(stored[name]) for name in ("told", "null", "images")))


def compare(student: Answers, teacher: Answers) -> dict[str, float]:
    """The metrics of one split."""
    late = torch.tensor([t >= models.TIMESTEPS // 2 for t in GRID])
    gap = (student.told - teacher.told).square().mean((0, 2, 3, 4), dtype=torch.float64)
    direction = (student.told - student.null) - (teacher.told - teacher.null)
    return {
        "discrepancy": float(gap.mean()),
        "noisy": float(gap[late].mean()),
        "noise": float((gap * models.SIGNAL[list(GRID)].square()).mean()),
        "direction": float(direction.square().mean(dtype=torch.float64)),
        "generation": float(((student.images - teacher.images) / 2).square().mean(dtype=torch.float64)),
    }


def show_inputs(scenario: Scenario, size: EvalSize) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditions and initial noise of the emoji drawn in figures."""
    condition = torch.from_numpy(scenario.world.embeddings[scenario.show_prompts(size.shown)])
    noise = stream(_SHOW, 0).standard_normal((len(condition), 3, 16, 16), dtype=np.float32)
    return condition, torch.from_numpy(noise)


def draw_shown(model: Any, scenario: Scenario, size: EvalSize) -> np.ndarray:
    """uint8[n, 16, 16, 3]: what the model draws for the prompts shown in figures."""
    images = models.sample(model, *show_inputs(scenario, size), guidance=GUIDANCE, steps=size.sampling_steps)
    return ((images.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
