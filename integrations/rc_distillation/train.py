"""Distil a Stable-Diffusion-class model into one with fewer blocks, with prompts that an allocator draws.

Random conditioning (arXiv 2504.02011): the noisier the image, the more often its caption gives way to a prompt from a
large pool, so that the student learns prompts without images. ARIA's lines are marked so, here and in `distil.py`.
From the root of the repository:

    python -m integrations.rc_distillation.train --smoke
    accelerate launch -m integrations.rc_distillation.train --help
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from diffusers import StableDiffusionPipeline
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.integrations.accelerate import attach, log
from aria_sampling.prompts import read
from aria_sampling.torch import WithIndex
from integrations._common import loop, models, regions
from integrations._common.images import CaptionedFolder, RandomImages, collate, some_prompts
from integrations.rc_distillation.conditions import Conditions
from integrations.rc_distillation.distil import Distiller
from integrations.rc_distillation.student import SIZES, prune

POLICIES = {"aria": None, "uniform": aria.UniformPolicy(), "pool": aria.PoolPolicy()}  # "pool": plain RC


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    loop.add_arguments(parser)
    parser.add_argument(
        "--prompts", type=Path, help="the pool: a file of captions, such as text, one a line; default: the captions"
    )
    parser.add_argument("--student", choices=SIZES, default="base")
    parser.add_argument("--switch_rate", type=float, default=5.0, help="rate of p(t) = exp(-rate * (1 - t/T))")
    parser.add_argument("--feature_weight", type=float, default=1.0)
    parser.add_argument("--null_share", type=float, default=0.1, help="rows with the empty caption")
    parser.add_argument(
        "--embeddings", type=Path, help="cache of all text embeddings; without it texts are encoded in the loop"
    )
    return loop.parse(parser, argv)


def load(args: argparse.Namespace) -> tuple[models.Parts, Any, list[str]]:
    """Return the models, the images and the pool of prompts."""
    if args.smoke:
        prompts = some_prompts()
        return models.tiny(args.seed), RandomImages(prompts[:75]), prompts  # five of eight animals have no image
    images = CaptionedFolder(args.train_data_dir, args.resolution, args.caption_column)
    prompts = list(dict.fromkeys(images.captions))
    if args.prompts:
        prompts = list(dict.fromkeys(read(args.prompts)))  # every prompt is one item
    return models.load(args.pretrained_model_name_or_path, args.revision), images, prompts


def make_allocator(
    args: argparse.Namespace, accelerator: Any, parts: models.Parts, images: Any, prompts: list[str]
) -> aria.Allocator:
    """ARIA: the pool of prompts in regions, what the images cover of it, and what draws from it."""
    with accelerator.main_process_first():
        pool = regions.load_or_make(args.regions, prompts, lambda: regions.by_embedding(prompts, args.n_regions, parts))
        plain = args.policy != "aria"  # controls know of no images
        coverage = None if plain else regions.covered(args.output_dir, pool, prompts, images.captions, parts)
    # with a lag of 1 losses may arrive one step later
    return aria.Allocator(pool, coverage=coverage, policy=POLICIES[args.policy], seed=args.seed, lag=1)


def main(argv: list[str] | None = None) -> aria.Allocator:  # noqa: PLR0915 - a training script reads top to bottom
    """Distil, and return the allocator."""
    args = arguments(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = loop.make_accelerator(args)
    set_seed(args.seed)
    parts, images, prompts = load(args)
    student = prune(parts.unet, args.student)
    parts.freeze("vae", "text_encoder", "unet", device=accelerator.device, dtype=loop.weight_dtype(accelerator))

    allocator = make_allocator(args, accelerator, parts, images, prompts)
    switch = aria.RandomConditioning(
        allocator,
        schedule=aria.ExponentialSwitch(args.switch_rate),
        num_train_timesteps=parts.noise_scheduler.config.num_train_timesteps,
    )
    conditions = Conditions(prompts, images.captions, parts.tokenizer, parts.text_encoder)
    shown, empty = conditions.encode(args.validation_prompts or [""]), conditions.encode([""])
    if args.embeddings:
        with accelerator.main_process_first():
            conditions.fill_cache(args.embeddings)

    loader = DataLoader(
        WithIndex(images),
        batch_size=args.train_batch_size,
        shuffle=True,
        drop_last=True,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
    )
    optimizer, schedule = loop.optimizer_for(args, accelerator, student.parameters())
    model, optimizer, loader, schedule = accelerator.prepare(student, optimizer, loader, schedule)
    ema, clock = loop.make_ema(args, accelerator, student), loop.Clock()
    accelerator.register_for_checkpointing(clock)
    attach(accelerator, switch, noise_scheduler=parts.noise_scheduler)  # ARIA: checks, checkpoints
    loop.resume(accelerator, args, clock)
    distiller = Distiller(
        parts,
        model,
        student,
        args.student,
        conditions=conditions,
        switch=switch,
        null_share=args.null_share,
        seed=args.seed,
        rank=accelerator.process_index,
        flip=args.random_flip,
    )

    while clock.step < args.max_train_steps:
        loader.set_epoch(clock.epoch)
        # the right way to resume this loader, since ARIA does not draw the images
        rest = accelerator.skip_first_batches(loader, clock.batch) if clock.batch else loader
        for batch in rest:
            with accelerator.accumulate(model):
                losses = distiller.losses(batch, clock.passes)
                accelerator.backward((losses.output + args.feature_weight * losses.features).mean())
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), args.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            distiller.observe(losses)  # ARIA: in every pass
            clock.passes += 1
            clock.batch += 1
            if not accelerator.sync_gradients:
                continue
            clock.step += 1
            if ema is not None:
                ema.step(student.parameters())
            if clock.step % args.logging_steps == 0:
                mean = accelerator.gather(torch.stack([losses.output, losses.features], 1).detach()).mean(0).tolist()
                accelerator.log({"output_loss": mean[0], "feature_loss": mean[1]}, step=clock.step)
                log(accelerator, switch, clock.step)  # ARIA: its metrics beside the losses
                accelerator.print(loop.line(clock, mean[0], allocator))
            if clock.step % args.checkpointing_steps == 0:
                loop.save(accelerator, args, clock.step)
            if clock.step % args.validation_steps == 0 and accelerator.is_main_process and args.validation_prompts:
                with loop.averaged(ema, student):
                    loop.draw_pictures(accelerator, args, parts, student, prompts=shown, null=empty, step=clock.step)
            if clock.step >= args.max_train_steps:
                break
        else:
            clock.epoch, clock.batch = clock.epoch + 1, 0

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with loop.averaged(ema, student):
            StableDiffusionPipeline(
                parts.vae,
                parts.text_encoder,
                parts.tokenizer,
                student,
                parts.noise_scheduler,
                None,
                None,
                requires_safety_checker=False,
            ).save_pretrained(args.output_dir / "pipeline")
    switch.synchronize()
    accelerator.end_training()
    return allocator


if __name__ == "__main__":
    main()
