"""Trains the teacher on every emoji under every prompt of it; run once, its weights are committed.

    python -m benchmarks.emoji.train_teacher --out teacher-run     # about an hour on one core; resumes where it stopped

Apart from distillation: the teacher knows the whole world, held-out and unseen conditions included, as a teacher
trained on web data knows more than the images at hand. It draws everything from counter-based generators, so a run
that was stopped and resumed takes the steps it would have taken. The last thing it does is draw a sheet to look at.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from . import models
from .world import DATA, Emoji, stream

SHEET_PROMPTS = (
    "grinning face", "red heart", "dog face", "cat face", "tiger face", "octopus", "sunflower", "red apple", "pizza",
    "hamburger", "automobile", "airplane", "soccer ball", "guitar", "light bulb", "key", "flag: Japan", "flag: Brazil",
    "keycap: 5", "woman astronaut: medium skin tone", "thumbs up", "person running: dark skin tone", "rainbow", "house",
)  # fmt: skip
_TRAIN, _EVALUATE, _SHEET = 101, 102, 103  # the first word of a generator's key: streams for one purpose each


def pick_precision(name: str) -> torch.dtype:
    """float32, or bfloat16 autocast; "auto" takes bfloat16 only where the CPU has instructions for it."""
    if name == "fp32":
        return torch.float32
    capable = name == "bf16" or any(torch.cpu.get_capabilities().get(flag) for flag in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if capable else torch.float32


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Ema:
    """Exponential moving average of a model's weights, with a rate that starts fast."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int) -> None:
        rate = 1 - min(self.decay, (step + 1) / (step + 10))
        for name, value in model.state_dict().items():
            self.weights[name].lerp_(value, rate)


def share_of_emoji(world: Emoji) -> np.ndarray:
    """float64[N]: how often each emoji is drawn: every concept alike, or skin tones would be most of the training."""
    _, concept, tones = np.unique(world.concepts, return_inverse=True, return_counts=True)
    return 1 / (len(tones) * tones[concept])


def draw_batch(world: Emoji, seed: int, step: int, batch: int, null_share: float) -> tuple[torch.Tensor, ...]:
    """Images, noise, timesteps and conditions of one step: any prompt of an emoji alike, some null."""
    rng = stream(_TRAIN, seed, step)
    rows = rng.choice(len(world.names), size=batch, p=share_of_emoji(world))
    start, stop = world.prompt_start[rows], world.prompt_start[rows + 1]
    condition = world.embeddings[rng.integers(start, stop)]
    condition[rng.random(batch) < null_share] = 0
    noise = rng.standard_normal((batch, 3, 16, 16), dtype=np.float32)
    timesteps = rng.integers(models.TIMESTEPS, size=batch)
    return tuple(torch.from_numpy(x) for x in (world.pixels[rows], noise, timesteps, condition))


@torch.inference_mode()
def evaluate(model: Any, world: Emoji, seed: int, repeats: int = 2) -> float:
    """Mean squared error of the predicted noise over all emoji under their names, timesteps stratified."""
    scheduler, errors = models.training_scheduler(), []
    for repeat in range(repeats):
        rng = stream(_EVALUATE, seed, repeat)
        n = len(world.names)
        timesteps = torch.from_numpy(
            rng.permutation(((np.arange(n) + rng.random()) * models.TIMESTEPS / n).astype(np.int64))
        )
        noise = torch.from_numpy(rng.standard_normal((n, 3, 16, 16), dtype=np.float32))
        condition = torch.from_numpy(world.embeddings[world.prompt_start[:-1]])
        noisy = scheduler.add_noise(torch.from_numpy(world.pixels), noise, timesteps)
        for rows in torch.arange(n).split(256):
            velocity = models.predict(model, noisy[rows], timesteps[rows], condition[rows])
            predicted = models.to_noise(velocity, noisy[rows], timesteps[rows])
            errors.append((predicted - noise[rows]).square().mean((1, 2, 3)))
    return float(torch.cat(errors).mean())


def draw_sheet(model: Any, world: Emoji, path: Path, seed: int = 0) -> None:
    """A PNG: for each of the fixed prompts the true emoji, and below it two draws of the model."""
    from PIL import Image

    rows = [world.names.index(name) for name in SHEET_PROMPTS]
    condition = torch.from_numpy(world.embeddings[world.prompt_start[rows]])
    strips = [world.pixels[rows]]
    for k in range(2):
        noise = torch.from_numpy(stream(_SHEET, seed, k).standard_normal((len(rows), 3, 16, 16), dtype=np.float32))
        strips.append(models.sample(model, condition, noise).numpy())
    tiles = np.pad(np.stack(strips), ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)  # [3, n, 3, 18, 18]
    half = len(rows) // 2
    stacked = np.concatenate([tiles[:, :half], tiles[:, half:]])  # [6, n / 2, 3, 18, 18]
    sheet = stacked.transpose(0, 3, 1, 4, 2).reshape(6 * 18, half * 18, 3)
    image = Image.fromarray(((sheet + 1) * 127.5).round().clip(0, 255).astype(np.uint8))
    image.resize((image.width * 5, image.height * 5), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7500)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the sheet")
    parser.add_argument("--publish", type=Path, default=DATA, help="folder for the final weights")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    dtype, world, scheduler = pick_precision(args.precision), Emoji.load(), models.training_scheduler()
    torch.manual_seed(args.seed)
    model = models.build(condition_dims=world.embeddings.shape[1], depth=args.depth).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    ema = Ema(model, args.ema)
    curve: list[tuple[int, float, float]] = []  # step, mean squared error of velocity, of noise
    first, seconds, checkpoint = 0, 0.0, args.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        ema.weights = saved["ema"]
        curve, first, seconds = saved["curve"], saved["step"], saved["seconds"]
    last_time, window = time.perf_counter(), []
    bar = tqdm(range(first, args.steps), initial=first, total=args.steps, desc="teacher", mininterval=5)
    for step in bar:
        images, noise, timesteps, condition = draw_batch(world, args.seed, step, args.batch, 0.1)
        noisy = scheduler.add_noise(images, noise, timesteps)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            predicted = models.predict(model, noisy, timesteps, condition)
        loss = (predicted - scheduler.get_velocity(images, noise, timesteps)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr)
        optimizer.step()
        ema.update(model, step)
        error = (models.to_noise(predicted.detach(), noisy, timesteps) - noise).square().mean()
        window.append((loss.item(), error.item()))
        if (step + 1) % 50 == 0:
            curve.append((step + 1, *(round(float(x), 5) for x in np.mean(window, 0))))
            bar.set_postfix(v=f"{curve[-1][1]:.4f}", eps=f"{curve[-1][2]:.4f}")
            window = []
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            now = time.perf_counter()
            seconds, last_time = seconds + now - last_time, now
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema.weights}
            torch.save({**state, "curve": curve, "step": step + 1, "seconds": seconds}, args.out / "checkpoint.tmp")
            os.replace(args.out / "checkpoint.tmp", checkpoint)
    model.load_state_dict({k: v.half().float() for k, v in ema.weights.items()})  # what will be read back
    model.eval()
    error = evaluate(model, world, args.seed)
    flags = " ".join(f"--{k} {v}" for k, v in vars(args).items() if k not in ("out", "publish"))
    log = {
        "command": f"python -m benchmarks.emoji.train_teacher {flags} --out DIR",
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
        "eps_mse": round(error, 5),
        "loss_curve": curve,
    }
    models.save_teacher(model, args.publish, log)
    draw_sheet(model, world, args.out / "sheet.png", args.seed)
    print(f"eps-MSE {error:.4f} after {seconds:.0f} s; look at {args.out / 'sheet.png'}")


if __name__ == "__main__":
    main()
