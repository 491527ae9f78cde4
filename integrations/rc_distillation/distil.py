"""One pass of random conditioning with distillation: timesteps, switched prompts, and the losses of every row.

ARIA's part is two calls: `draw` and `observe` of the switch. `benchmark.py` passes a switch of another kind, which
draws prompts by hand, to measure what these calls cost.
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
    """Of every row: student against teacher at the output and over blocks, float [B]; whether it has a caption."""

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
        switch: `aria_sampling.RandomConditioning`, or what has its `draw` and `observe`.
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
        self._student = _Outputs(plain, block_names(plain, size))
        self._teacher = _Outputs(parts.unet, [teacher_name(name, size) for name in block_names(plain, size)])

    def losses(self, batch: Any, passes: int) -> Losses:
        """Return the losses of a batch; opens one round of the switch, which `observe` closes."""
        parts, scheduler = self.parts, self.parts.noise_scheduler
        pixels, device = batch["pixel_values"], batch["pixel_values"].device
        here = loop.generator(self.seed, self.rank, passes)  # on the CPU, where the switch is decided
        there = loop.generator(self.seed, self.rank, passes, device)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(pixels),), generator=here)
        live = torch.rand(len(pixels), generator=here) >= self.null_share

        switched = self.switch.draw(steps)  # ARIA
        texts = self.conditions.of_image[batch["index"]].masked_scatter(switched.mask, switched.items)
        texts = torch.where(live, texts, self.conditions.null)

        latents = loop.to_latents(parts.vae, loop.flipped(pixels, there) if self.flip else pixels, there)
        noise = torch.randn(latents.shape, generator=there, device=device)
        steps = steps.to(device, non_blocking=True)
        noised, hidden = scheduler.add_noise(latents, noise, steps), self.conditions(texts)
        with torch.no_grad():
            dtype = parts.unet.dtype
            wanted = parts.unet(noised.to(dtype), steps, hidden.to(dtype)).sample
        found = self.student(noised, steps, hidden).sample
        return Losses(_squared(found, wanted), self._student.distance(self._teacher), live)

    def observe(self, losses: Losses) -> None:
        """Report the output loss of every row; rows that lost their caption are not credited. Closes the round."""
        self.switch.observe(losses.output, credit=losses.live)  # ARIA


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
        total = torch.stack([_squared(ours, theirs) for ours, theirs in pairs]).sum(dim=0)
        self._kept, other._kept = {}, {}
        return total


def _squared(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of every row, float32 [B]."""
    return (found.float() - wanted.float()).square().mean(dim=(1, 2, 3))
