"""What a method is told of each step: the losses, as everywhere, or something that might serve better than they do.

Apart from `distill.py` so that the loop stays one and the same. All read the student and train nothing; what they cost
is not counted against them, since the question is whether a better signal makes a better allocation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import models
from .evaluate import GRID
from .world import Scenario, stream

_PROBE = 302  # first word of a generator's key
_LATE = np.array([t for t in GRID if t >= models.TIMESTEPS // 2])  # where prompts are switched


@dataclass(frozen=True)
class Rows:
    """A step's rows: what both models saw, what they said, and which prompts were drawn."""

    noisy: torch.Tensor  # float[B, 3, 16, 16]
    timesteps: torch.Tensor  # int64[B]
    told: torch.Tensor  # float[B, 3, 16, 16]: the student's output
    target: torch.Tensor  # float[B, 3, 16, 16]: the teacher's
    losses: np.ndarray  # float[B]
    live: np.ndarray  # int64[n]: rows that have a prompt
    drawn: Any  # the `aria.Switch` of the rows in `live`


class Loss:
    """The losses that are there anyway: what a user would report."""

    def __init__(
        self, switch: Any, student: Any, teacher: Any, scenario: Scenario, finished: Callable[[], Any] | None = None
    ) -> None:
        self.switch, self.student, self.teacher, self.scenario = switch, student, teacher, scenario
        self.finished = finished  # distils another student, to the end

    def report(self, step: int, rows: Rows) -> None:
        """Closes the round of a step."""
        self.switch.observe(rows.losses[rows.live])


class Direction(Loss):
    """The squared error of output(prompt) - output(null)."""

    def report(self, step: int, rows: Rows) -> None:
        """Closes the round of a step."""
        null = torch.zeros(len(rows.noisy), self.scenario.pool_embeddings.shape[1])
        with torch.inference_mode():
            student = models.predict(self.student, rows.noisy, rows.timesteps, null)
            teacher = models.predict(self.teacher, rows.noisy, rows.timesteps, null)
        error = ((rows.told.detach() - student) - (rows.target - teacher)).square().mean((1, 2, 3))
        self.switch.observe(error.numpy()[rows.live])


class Probe(Loss):
    """Of each region `per_region` prompts, the same all along, on noised images that are there, at late timesteps."""

    per_region = 8

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        partition, rng = self.switch.allocator.partition, stream(_PROBE, 0)
        members = (np.flatnonzero(partition.labels == region) for region in range(partition.n_regions))
        items = np.concatenate([rng.choice(of, self.per_region) for of in members])
        self.regions = np.repeat(np.arange(partition.n_regions), self.per_region)
        self.condition = torch.from_numpy(self.scenario.pool_embeddings[items])
        self.timesteps = torch.from_numpy(np.resize(_LATE, len(items)))
        pixels = torch.from_numpy(self.scenario.world.pixels[rng.choice(self.scenario.paired, len(items))])
        noise = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
        self.noisy = models.training_scheduler().add_noise(pixels, noise, self.timesteps)
        self.target = self.predict(self.teacher, self.condition)

    @torch.inference_mode()
    def predict(self, model: Any, condition: torch.Tensor) -> torch.Tensor:
        """What a model says to all of it, float[K * per_region, 3, 16, 16]."""
        parts = zip(self.noisy.split(128), self.timesteps.split(128), condition.split(128), strict=True)
        return torch.cat([models.predict(model, *part) for part in parts])

    def squares(self, other: torch.Tensor) -> np.ndarray:
        """Mean squared difference from the teacher's answers, float[K * per_region]."""
        return (other - self.target).square().mean((1, 2, 3)).numpy()


class Truth(Probe):
    """The discrepancy of every region, measured anew every 50 steps, and no losses at all.

    Made for `Ema(rate=1, per="visit")`, which believes the latest and nothing else.
    """

    every = 50

    def report(self, step: int, rows: Rows) -> None:
        """Closes the round of a step."""
        if step % self.every == 0:
            self.switch.allocator.observe(self.regions, self.squares(self.predict(self.student, self.condition)))
        self.switch.step()


class OfStart(Probe):
    """The loss over the discrepancy that the region began with."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.reference = self.squares(self.reference_answers()).reshape(-1, self.per_region).mean(1)

    def reference_answers(self) -> torch.Tensor:
        """What the untrained student says."""
        return self.predict(self.student, self.condition)

    def report(self, step: int, rows: Rows) -> None:
        """Closes the round of a step."""
        losses = rows.losses[rows.live]
        losses[rows.drawn.mask] /= self.reference[rows.drawn.regions]
        self.switch.observe(losses)


class OfEffect(OfStart):
    """The loss over what the prompts of the region change in the teacher's output."""

    def reference_answers(self) -> torch.Tensor:
        """What the teacher says without a prompt."""
        return self.predict(self.teacher, torch.zeros_like(self.condition))


class OfReference(OfStart):
    """The loss over the discrepancy that a student of random conditioning, of another seed, has in the end."""

    def reference_answers(self) -> torch.Tensor:
        """What that student says."""
        assert self.finished is not None
        return self.predict(self.finished(), self.condition)


SIGNALS = {
    "loss": Loss,
    "direction": Direction,
    "truth": Truth,
    "of_start": OfStart,
    "of_effect": OfEffect,
    "of_reference": OfReference,
}
