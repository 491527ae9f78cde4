"""The teacher, the students cut out of it, and the diffusion process: diffusers' own parts, no architecture of ours.

Models are `PixArtTransformer2DModel`s over 16x16 RGB in patches of 4 (one student is a `UNet2DConditionModel`),
conditioned on one token: the prompt's embedding; the null condition is all zeros. The networks put out velocity
(v-prediction), since noise itself is hard to put out for so small a network where there is much of it. The process is
Stable Diffusion 1's, as in the paper on random conditioning (scaled linear betas, T = 1000), rescaled so that the last
timestep is noise alone: the little signal that is left there otherwise gives away the colours of a 16x16 image, and a
model that relies on it is misled when it draws from noise. Apart from the rest since training, distilling and drawing
all need it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, PixArtTransformer2DModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

Model = PixArtTransformer2DModel | UNet2DConditionModel

TIMESTEPS = 1000
_BETAS: dict[str, Any] = {
    "num_train_timesteps": TIMESTEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "rescale_betas_zero_snr": True,
    "prediction_type": "v_prediction",
}


def build(*, condition_dims: int, depth: int = 5, heads: int = 5, head_dim: int = 32) -> PixArtTransformer2DModel:
    """A freshly initialised model from torch's global generator: seed it with `torch.manual_seed` around the call."""
    return PixArtTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_dim,
        cross_attention_dim=heads * head_dim,
        in_channels=3,
        out_channels=3,
        num_layers=depth,
        sample_size=16,
        patch_size=4,
        norm_num_groups=1,
        use_additional_conditions=False,
        caption_channels=condition_dims,
    )


_PROCESS = DDPMScheduler(**_BETAS)
SIGNAL, NOISE = _PROCESS.alphas_cumprod.sqrt(), (1 - _PROCESS.alphas_cumprod).sqrt()
"""By timestep, float[1000]: x_t = SIGNAL x + NOISE eps."""


def predict(model: Model, noisy: torch.Tensor, timesteps: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
    """The network's output v = sqrt(a_t) eps - sqrt(1 - a_t) x, float[B, 3, 16, 16].

    For images float[B, 3, 16, 16] at timesteps int[B], under conditions float[B, D].
    """
    output = model(noisy, encoder_hidden_states=condition.unsqueeze(1), timestep=timesteps, return_dict=False)[0]
    return output.float()


def to_noise(velocity: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The predicted noise that a velocity amounts to: eps = sqrt(a_t) v + sqrt(1 - a_t) x_t."""
    signal, noise = (values[timesteps].view(-1, 1, 1, 1) for values in (SIGNAL, NOISE))
    return signal * velocity + noise * noisy


def training_scheduler() -> DDPMScheduler:
    """Adds the noise in training and distillation: x_t = sqrt(a_t) x + sqrt(1 - a_t) eps."""
    return _PROCESS


def sampling_scheduler(steps: int) -> DDIMScheduler:
    """Draws: deterministic DDIM from the noisiest timestep down, the predicted image clipped to [-1, 1].

    Give its `step` `use_clipped_model_output`, or what guidance pushes out of range stays in the predicted noise.
    """
    scheduler = DDIMScheduler(**_BETAS, clip_sample=True, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    return scheduler


@torch.inference_mode()
def sample(
    model: Model,
    condition: torch.Tensor,
    noise: torch.Tensor,
    *,
    guidance: float = 2.0,
    steps: int = 30,
    batch: int = 128,
) -> torch.Tensor:
    """Images float[n, 3, 16, 16] in [-1, 1] for conditions float[n, D] from the given initial noise."""
    outputs: list[torch.Tensor] = []
    for rows, start in zip(condition.split(batch), noise.split(batch), strict=True):
        x = start
        scheduler = sampling_scheduler(steps)
        both = torch.cat([rows, torch.zeros_like(rows)])
        for t in scheduler.timesteps:
            told, null = predict(model, torch.cat([x, x]), t.expand(len(both)), both).chunk(2)
            guided = null + guidance * (told - null)
            x = scheduler.step(guided, int(t), x, use_clipped_model_output=True).prev_sample
        outputs.append(x.clamp(-1, 1))
    return torch.cat(outputs)


def kept_blocks(teacher_depth: int, depth: int) -> list[int]:
    """Which blocks of the teacher a student keeps: the first, the last, and evenly spaced ones between.

    >>> kept_blocks(5, 3), kept_blocks(5, 2), kept_blocks(5, 4)
    ([0, 2, 4], [0, 4], [0, 1, 3, 4])
    """
    if not 2 <= depth <= teacher_depth:
        raise ValueError(f"depth={depth!r} must lie between 2 and the teacher's {teacher_depth}.")
    return [int(i) for i in np.rint(np.linspace(0, teacher_depth - 1, depth) + 1e-9)]


def student_from_teacher(teacher: PixArtTransformer2DModel, depth: int) -> PixArtTransformer2DModel:
    """The teacher with blocks removed (BK-SDM's manner): all weights that stay are copies of the teacher's."""
    config = teacher.config
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten: leave the global generator alone
        student = build(
            condition_dims=config["caption_channels"],
            depth=depth,
            heads=config["num_attention_heads"],
            head_dim=config["attention_head_dim"],
        )
    new_index = {old: new for new, old in enumerate(kept_blocks(config["num_layers"], depth))}
    state: dict[str, torch.Tensor] = {}
    for name, value in teacher.state_dict().items():
        if not name.startswith("transformer_blocks."):
            state[name] = value.clone()
            continue
        _, old, rest = name.split(".", 2)
        if int(old) in new_index:
            state[f"transformer_blocks.{new_index[int(old)]}.{rest}"] = value.clone()
    student.load_state_dict(state)
    return student


def narrow_student(teacher: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """Of the teacher's depth and three fifths of its width, from scratch (the manner of RC's "C" students)."""
    config = teacher.config
    with _fresh():
        return build(condition_dims=config["caption_channels"], depth=config["num_layers"], heads=3)


def conv_student(teacher: PixArtTransformer2DModel) -> UNet2DConditionModel:
    """Stable Diffusion's kind of network, from scratch: a U-Net with cross-attention at its lower resolution."""
    with _fresh():
        return UNet2DConditionModel(
            sample_size=16,
            in_channels=3,
            out_channels=3,
            block_out_channels=(16, 48),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=4,
            cross_attention_dim=teacher.config["caption_channels"],
        )


@contextmanager
def _fresh() -> Iterator[None]:
    """Initial weights that are the same in every run, and the global generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


STUDENTS: dict[str, Callable[[PixArtTransformer2DModel], Model]] = {
    **{f"depth{depth}": partial(student_from_teacher, depth=depth) for depth in (4, 3, 2)},
    "narrow": narrow_student,
    "conv": conv_student,
}
"""Students by name; a new kind is one more entry."""


def save_teacher(model: PixArtTransformer2DModel, folder: Path, log: dict[str, Any]) -> None:
    """Writes `teacher.safetensors` (float16) and `teacher.json` (what `build` needs, beside the training log)."""
    config = model.config
    arguments = {
        "condition_dims": config["caption_channels"],
        "depth": config["num_layers"],
        "heads": config["num_attention_heads"],
        "head_dim": config["attention_head_dim"],
    }
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, folder / "teacher.safetensors")
    (folder / "teacher.json").write_text(
        json.dumps({"model": arguments, "training": log}, indent=1) + "\n", encoding="utf-8"
    )


def load_teacher(folder: Path) -> PixArtTransformer2DModel:
    """The committed teacher in float32, frozen."""
    arguments = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))["model"]
    with torch.random.fork_rng(devices=[]):
        model = build(**arguments)
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "teacher.safetensors").items()})
    return model.eval().requires_grad_(False)
