"""Fine-tune a Stable-Diffusion-class model on captioned images that an allocator draws, region by region.

A script in the manner of diffusers' ``train_text_to_image.py``, with the drop-in sampler in it. ARIA's lines are marked
so. `integrations/_common` holds what any such script has. From the root of the repository:

    python -m integrations.diffusers_text_to_image.train --smoke
    accelerate launch -m integrations.diffusers_text_to_image.train --help
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import compute_snr
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.integrations.accelerate import attach, index_of, log
from aria_sampling.torch import WithIndex
from integrations._common import loop, models, regions
from integrations._common.images import CaptionedFolder, RandomImages, collate, some_prompts

POLICIES = {"aria": None, "uniform": aria.UniformPolicy(), "pool": aria.PoolPolicy()}  # None: the default


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    loop.add_arguments(parser)
    parser.add_argument("--region_column", help="entry of metadata.jsonl that is the region; default: k-means")
    parser.add_argument("--weighted", action="store_true", help="weight the loss by q/p: the objective of the dataset")
    parser.add_argument("--snr_gamma", type=float, help="min-SNR weighting of the loss; 5 is usual")
    return loop.parse(parser, argv)


def snr_weights(noise_scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the min-SNR weight of each row, float [B]: min(SNR, gamma) / SNR, or / (SNR + 1) for velocities."""
    snr = compute_snr(noise_scheduler, timesteps)
    velocity = noise_scheduler.config.prediction_type == "v_prediction"
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def make_pool(args: argparse.Namespace, accelerator: Any, dataset: Any, parts: models.Parts) -> aria.Partition:
    """Return the regions of the dataset, from their file if it is there; the main process makes them."""

    def make() -> aria.Partition:
        if args.region_column:
            return aria.Partition.from_labels(dataset.column(args.region_column))
        return regions.by_embedding(dataset.captions, args.n_regions, parts)

    with accelerator.main_process_first():
        return regions.load_or_make(args.regions, dataset.captions, make)


def main(argv: list[str] | None = None) -> aria.Allocator:  # noqa: PLR0915 - a training script reads top to bottom
    """Train, and return the allocator."""
    args = arguments(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator = loop.make_accelerator(args)
    set_seed(args.seed)
    device = accelerator.device
    if args.smoke:
        parts, dataset = models.tiny(args.seed), RandomImages(some_prompts()[:100])
    else:
        parts = models.load(args.pretrained_model_name_or_path, args.revision)
        dataset = CaptionedFolder(args.train_data_dir, args.resolution, args.caption_column)
    parts.freeze("vae", "text_encoder", device=device, dtype=loop.weight_dtype(accelerator))
    scheduler = parts.noise_scheduler

    pool = make_pool(args, accelerator, dataset, parts)  # ARIA: what is drawn, and from where
    allocator = aria.Allocator(pool, policy=POLICIES[args.policy], seed=args.seed)
    rows = args.train_batch_size * accelerator.num_processes
    sampler = allocator.sampler(batch_size=rows, num_samples=len(dataset), drop_last=True)
    loader = DataLoader(
        WithIndex(dataset),
        batch_size=args.train_batch_size,
        sampler=sampler,
        drop_last=True,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        generator=torch.Generator(),  # to iterate takes a number from it; torch's global one is the host's own
    )

    optimizer, schedule = loop.optimizer_for(args, accelerator, parts.unet.parameters())
    unet, optimizer, loader, schedule = accelerator.prepare(parts.unet, optimizer, loader, schedule)
    ema, clock = loop.make_ema(args, accelerator, parts.unet), loop.Clock()
    accelerator.register_for_checkpointing(clock)
    attach(accelerator, loader, overlap=True)  # ARIA: checks, lag, checkpoints
    loop.resume(accelerator, args, clock)

    def conditions(texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            return models.encode(parts.tokenizer, parts.text_encoder, texts)[0].float()

    def per_sample_loss(batch: Any, source: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of every row before any weights, float [B], and the timesteps."""
        pixels = loop.flipped(batch["pixel_values"], source) if args.random_flip else batch["pixel_values"]
        latents = loop.to_latents(parts.vae, pixels, source)
        noise = torch.randn(latents.shape, generator=source, device=device)
        steps = torch.randint(scheduler.config.num_train_timesteps, (len(latents),), generator=source, device=device)
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, steps) if velocity else noise
        found = unet(scheduler.add_noise(latents, noise, steps), steps, conditions(batch["text"])).sample
        return F.mse_loss(found.float(), target, reduction="none").mean(dim=(1, 2, 3)), steps

    def validate() -> None:
        if accelerator.is_main_process and args.validation_prompts:
            with loop.averaged(ema, parts.unet):
                prompts, null = conditions(args.validation_prompts), conditions([""])
                loop.draw_pictures(accelerator, args, parts, parts.unet, prompts=prompts, null=null, step=clock.step)

    while clock.step < args.max_train_steps:
        for batch in loader:
            source = loop.generator(args.seed, accelerator.process_index, clock.passes, device)
            with accelerator.accumulate(unet):
                losses, steps = per_sample_loss(batch, source)
                weights = torch.ones_like(losses)
                if args.snr_gamma is not None:
                    weights = weights * snr_weights(scheduler, steps, args.snr_gamma)
                if args.weighted:
                    weights = weights * sampler.weights(index_of(batch)).to(device)  # ARIA: the dataset's objective
                accelerator.backward((losses * weights).mean())
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(unet.parameters(), args.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            sampler.observe(index_of(batch), losses)  # ARIA: in every pass, before the weights
            clock.passes += 1
            if not accelerator.sync_gradients:
                continue
            clock.step += 1
            if ema is not None:
                ema.step(parts.unet.parameters())
            if clock.step % args.logging_steps == 0:
                mean = accelerator.gather(losses.detach()).mean().item()
                accelerator.log({"train_loss": mean, "lr": schedule.get_last_lr()[0]}, step=clock.step)
                log(accelerator, allocator, clock.step)  # ARIA: its metrics beside the loss
                accelerator.print(loop.line(clock, mean, allocator))
            if clock.step % args.checkpointing_steps == 0:
                loop.save(accelerator, args, clock.step)
            if clock.step % args.validation_steps == 0:
                validate()
            if clock.step >= args.max_train_steps:
                break

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with loop.averaged(ema, parts.unet):
            StableDiffusionPipeline(
                parts.vae,
                parts.text_encoder,
                parts.tokenizer,
                parts.unet,
                scheduler,
                None,
                None,
                requires_safety_checker=False,
            ).save_pretrained(args.output_dir / "pipeline")
    sampler.synchronize()
    accelerator.end_training()
    return allocator


if __name__ == "__main__":
    main()
