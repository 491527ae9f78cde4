"""One pass of random conditioning with distillation: what is noised, what switches, and every row's losses.

What is ARIA's are `draw` and `observe` of the switch. `benchmark.py` gives it one of another kind, which draws prompts
by hand, to measure what these cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from integrations._common import loop
from integrations.rc_distillation.conditions import Conditions
from integrations.rc_distillation.student import block_names, teacher_name


@dataclass
class Losses:
    """Of every row, float [B]: teacher against student at the output, and over blocks. `live` rows have a caption."""

    output: torch.Tensor
    features: torch.Tensor
    live: torch.Tensor


class Distiller:
    """Teacher and student on the same noised images and the same conditions.

    Args:
        parts: VAE and noise scheduler, and the teacher as `unet`.
        student: As prepared by accelerate.
        plain: The student itself, whose blocks are compared with the teacher's.
        size: Of the student; see `student.SIZES`.
        conditions: The texts.
        switch: `aria_sampling.torch.RandomConditioning`, or what has its `draw` and `observe`.
        null_share: Share of rows that get the empty caption, for classifier-free guidance.
        seed: With the rank, key of all randomness but the switch's.
        rank: Of this process.
    """

    def __init__(
        self,
        parts: Any,
        student: Any,
        plain: Any,
        size: str,
        *,
        conditions: Conditions,
        switch: Any,
        null_share: float,
        seed: int,
        rank: int,
        flip: bool = False,
    ) -> None:
        self.parts, self.student, self.conditions, self.switch = parts, student, conditions, switch
        self.null_share, self.seed, self.rank, self.flip = null_share, seed, rank, flip
        self._told = _Outputs(plain, block_names(plain, size))
        self._wanted = _Outputs(parts.unet, [teacher_name(name, size) for name in block_names(plain, size)])

    def losses(self, batch: Any, passes: int) -> Losses:
        """Return the losses of a batch; opens one round of the switch, which `observe` closes."""
        parts, scheduler = self.parts, self.parts.noise_scheduler
        pixels, device = batch["pixel_values"], batch["pixel_values"].device
        here = loop.generator(self.seed, self.rank, passes)  # on the CPU, where the switch is decided
        there = loop.generator(self.seed, self.rank, passes, device)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(pixels),), generator=here)
        live = torch.rand(len(pixels), generator=here) >= self.null_share

        texts = self.conditions.of_image[batch["index"]]
        own = torch.where(texts < self.conditions.n_pool, texts, -1)  # rows that keep their caption train its region
        switched = self.switch.draw(steps[live], paired=own[live])
        texts[live] = texts[live].masked_scatter(switched.mask, switched.items)
        texts[~live] = self.conditions.null

        latents = loop.to_latents(parts.vae, loop.flipped(pixels, there) if self.flip else pixels, there)
        noise = torch.randn(latents.shape, generator=there, device=device)
        steps = steps.to(device, non_blocking=True)
        noised, hidden = scheduler.add_noise(latents, noise, steps), self.conditions(texts)
        with torch.no_grad():
            dtype = parts.unet.dtype
            wanted = parts.unet(noised.to(dtype), steps, hidden.to(dtype)).sample
        told = self.student(noised, steps, hidden).sample
        return Losses(_squared(told, wanted), self._told.distance(self._wanted), live)

    def observe(self, losses: Losses) -> None:
        """Report the output loss of the rows that have a caption; closes the round."""
        rows = losses.live.nonzero()[:, 0].to(losses.output.device, non_blocking=True)
        self.switch.observe(losses.output.detach()[rows])


class _Outputs:
    """Keeps the last outputs of some blocks of a network."""

    def __init__(self, network: Any, names: list[str]) -> None:
        self._kept: dict[str, torch.Tensor] = {}
        for name in names:
            network.get_submodule(name).register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            del module, inputs
            self._kept[name] = output[0] if isinstance(output, tuple) else output  # a down block gives its skips too

        return hook

    def distance(self, other: _Outputs) -> torch.Tensor:
        """Return the mean squared difference of every row, summed over blocks, float [B]; lets go of the outputs."""
        pairs = zip(self._kept.values(), other._kept.values(), strict=True)
        total = torch.stack([_squared(mine, its) for mine, its in pairs]).sum(dim=0)
        self._kept, other._kept = {}, {}
        return total


def _squared(told: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of every row, float32 [B]."""
    return (told.float() - wanted.float()).square().mean(dim=(1, 2, 3))
