"""What a training loop has around its loss: arguments, an accelerator, randomness by step, checkpoints, pictures.

All randomness of a pass through the loop is a function of (seed, rank, pass). So nothing depends on how far a loader
reads ahead, or on what else draws random numbers. A resumed run equals an uninterrupted one bit for bit.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import ProjectConfiguration
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both scripts take, by the names that diffusers' scripts have for it."""
    add = parser.add_argument
    add("--smoke", action="store_true", help="a tiny random model on random images: no files, no hub, seconds")
    add("--pretrained_model_name_or_path", help="hub id or local folder of a Stable Diffusion 1 or 2 pipeline")
    add("--revision")
    add("--train_data_dir", help="folder of images with a metadata.jsonl: file_name, text")
    add("--caption_column", default="text")
    add("--regions", type=Path, help="file of the regions, made if it is not there; default OUTPUT_DIR/regions.npz")
    add("--n_regions", type=int, default=256, help="regions that k-means makes")
    add("--policy", choices=["aria", "uniform", "pool"], default="aria", help="what draws; uniform, pool: controls")
    add("--output_dir", type=Path, default=Path("runs/integration"))
    add("--resolution", type=int, default=512)
    add("--random_flip", action="store_true")
    add("--train_batch_size", type=int, default=16, help="per device")
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--max_train_steps", type=int, default=10_000, help="optimizer steps")
    add("--learning_rate", type=float, default=5e-5)
    add("--lr_scheduler", default="constant")
    add("--lr_warmup_steps", type=int, default=0)
    add("--max_grad_norm", type=float, default=1.0)
    add("--mixed_precision", choices=["no", "fp16", "bf16"])
    add("--use_ema", action="store_true")
    add("--dataloader_num_workers", type=int, default=0)
    add("--checkpointing_steps", type=int, default=500)
    add("--checkpoints_total_limit", type=int)
    add("--resume_from_checkpoint", help="folder of a checkpoint, or 'latest'")
    add("--validation_prompts", nargs="*", default=[])
    add("--validation_steps", type=int, default=500)
    add("--logging_steps", type=int, default=50)
    add("--report_to", default="tensorboard", help="a tracker that accelerate knows, 'all', or 'none'")
    add("--seed", type=int, default=0)


SMOKE = {
    "resolution": 32,
    "n_regions": 12,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "max_train_steps": 12,
    "learning_rate": 1e-3,
    "use_ema": True,
    "checkpointing_steps": 6,
    "validation_prompts": ["a red cat in snow", "a golden tapir at night"],
    "validation_steps": 12,
    "logging_steps": 3,
}


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments; with ``--smoke`` those that are not given become those of `SMOKE`."""
    if parser.parse_known_args(argv)[0].smoke:
        parser.set_defaults(**SMOKE)
    args = parser.parse_args(argv)
    if not args.smoke and not (args.pretrained_model_name_or_path and args.train_data_dir):
        parser.error("--pretrained_model_name_or_path and --train_data_dir are needed, or --smoke")
    args.regions = args.regions or args.output_dir / "regions.npz"
    return args


def make_accelerator(args: argparse.Namespace) -> Accelerator:
    """Return the accelerator, with the trackers begun."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=args.output_dir, logging_dir=args.output_dir / "logs"),
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
    )
    plain = {key: value for key, value in vars(args).items() if isinstance(value, int | float | str)}
    accelerator.init_trackers("aria", plain)
    return accelerator


def weight_dtype(accelerator: Accelerator) -> torch.dtype:
    """Return the dtype of the parts that are not trained."""
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)


def optimizer_for(args: argparse.Namespace, accelerator: Accelerator, parameters: Any) -> tuple[Any, Any]:
    """Return AdamW and its schedule, which accelerate advances once on every process."""
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate)
    scale = accelerator.num_processes
    schedule = get_scheduler(
        args.lr_scheduler,
        optimizer=optimizer,
        num_warmup_steps=args.lr_warmup_steps * scale,
        num_training_steps=args.max_train_steps * scale,
    )
    return optimizer, schedule


class Clock:
    """How far a run is, saved with its checkpoints."""

    def __init__(self) -> None:
        self.step = 0  # of the optimizer
        self.passes = 0  # through the loop: one batch, one round
        self.epoch = 0
        self.batch = 0  # of the epoch

    def state_dict(self) -> dict[str, int]:
        """Return the numbers."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        vars(self).update(state)


def generator(seed: int, rank: int, passes: int, device: Any = "cpu") -> torch.Generator:
    """Return a generator for one pass of one rank."""
    key = int(np.random.SeedSequence([seed, rank, passes]).generate_state(1, np.uint64)[0] >> 1)
    return torch.Generator(device).manual_seed(key)


def flipped(pixels: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Return the images, each mirrored with probability 1/2."""
    chosen = torch.rand((len(pixels), 1, 1, 1), generator=source, device=pixels.device) < 0.5
    return torch.where(chosen, pixels.flip(3), pixels)


def to_latents(vae: Any, pixels: torch.Tensor, source: torch.Generator) -> torch.Tensor:
    """Return latents of images, sampled, in the scale that the UNet is trained on, float32."""
    with torch.no_grad():
        sampled = vae.encode(pixels.to(vae.dtype)).latent_dist.sample(generator=source)
    return sampled.float() * vae.config.scaling_factor


def line(clock: Clock, loss: float, allocator: Any) -> str:
    """Return one line on how a run goes."""
    known = allocator.metrics()
    names = ("round", "visited", "discrepancy", "effective_regions", "top_boost", "passes")
    return f"step {clock.step}: loss {loss:.4f} | " + ", ".join(f"{name} {known[name]:.3g}" for name in names)


# -- checkpoints


def save(accelerator: Accelerator, args: argparse.Namespace, step: int) -> None:
    """Write ``checkpoint-STEP``; on every rank, since each has a random state. A half-written one has another name."""
    done, begun = args.output_dir / f"checkpoint-{step}", args.output_dir / f"unfinished-{step}"
    accelerator.save_state(str(begun))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(done, ignore_errors=True)
        begun.rename(done)
        if args.checkpoints_total_limit:
            for old in checkpoints(args.output_dir)[: -args.checkpoints_total_limit]:
                shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def resume(accelerator: Accelerator, args: argparse.Namespace, clock: Clock) -> None:
    """Load the checkpoint that the arguments name, if they do; ValueError if it is not there."""
    if not (wanted := args.resume_from_checkpoint):
        return
    there = checkpoints(args.output_dir)
    if wanted == "latest" and not there:
        raise ValueError(f"--resume_from_checkpoint latest: no checkpoint in {args.output_dir}")
    accelerator.load_state(str(there[-1] if wanted == "latest" else wanted))
    accelerator.print(f"resumed at step {clock.step}")


# -- averaged weights and pictures


def make_ema(args: argparse.Namespace, accelerator: Accelerator, model: Any) -> EMAModel | None:
    """Return the moving average of a model's weights, registered for checkpoints, or None."""
    if not args.use_ema:
        return None
    ema = EMAModel(model.parameters())
    ema.to(accelerator.device)
    accelerator.register_for_checkpointing(ema)
    return ema


@contextlib.contextmanager
def averaged(ema: EMAModel | None, model: Any) -> Iterator[None]:
    """Give the model its averaged weights for a while."""
    if ema is None:
        yield
        return
    ema.store(model.parameters())
    ema.copy_to(model.parameters())
    try:
        yield
    finally:
        ema.restore(model.parameters())


@torch.no_grad()
def draw_pictures(
    accelerator: Accelerator, args: Any, parts: Any, unet: Any, *, prompts: Any, null: Any, step: int
) -> None:
    """Draw a picture for every prompt embedding [n, length, width], into a file and the trackers that take images."""
    scheduler = DDIMScheduler.from_config(parts.noise_scheduler.config)
    pipeline = StableDiffusionPipeline(
        parts.vae, None, None, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    with accelerator.autocast():
        pictures = pipeline(
            prompt_embeds=prompts,
            negative_prompt_embeds=null.expand_as(prompts),
            num_inference_steps=4 if args.smoke else 25,
            height=args.resolution,
            width=args.resolution,
            generator=torch.Generator().manual_seed(args.seed),
            output_type="np",
        ).images
    row = np.concatenate(list(pictures), axis=1)
    pipeline.numpy_to_pil(row[None])[0].save(args.output_dir / f"validation-{step}.png")
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"validation": pictures}, step=step, **layout)
