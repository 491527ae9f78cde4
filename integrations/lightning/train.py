"""Train a small class-conditional diffusion model with Lightning, drawing more from the classes that still improve.

The images come from an .npz file, `--data images.npz`: "images", floating [n, height, width] with mean 0 and variance
1, and "labels", integers [n] from 0. `--smoke` makes small images and takes less than a minute on one core, offline.
README.md shows the difference to an ordinary script.
"""

import argparse
import warnings
from itertools import count
from pathlib import Path

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import aria_sampling as aria
from aria_sampling.integrations.lightning import AriaCallback
from aria_sampling.torch import WithIndex


class Diffusion(lightning.LightningModule):
    """Predicts the noise in an image, given its class and the noise level."""

    def __init__(self, pixels, classes, width):
        super().__init__()
        self.condition = nn.Embedding(classes, width)
        self.level = nn.Linear(2, width)
        self.image = nn.Linear(pixels, width)
        self.net = nn.Sequential(
            nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, pixels)
        )

    def forward(self, noisy, angle, labels):
        """Return the predicted noise, float [b, pixels]; `angle` [b] goes from 0, all image, to pi / 2, all noise."""
        level = torch.stack([angle.sin(), angle.cos()], dim=1)
        return self.net(self.image(noisy) + self.level(level) + self.condition(labels))

    def training_step(self, batch, batch_idx):
        """Return the losses of a batch."""
        _index, (images, labels) = batch
        # Lightning's checkpoints hold no random state. Seeded by the batch, the noise of a resumed run is the same.
        seed = self.trainer.fit_loop.total_batch_idx * self.trainer.world_size + self.global_rank
        generator = torch.Generator(images.device).manual_seed(seed)
        images = images.flatten(1)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        angle = torch.rand(len(images), generator=generator, device=images.device) * torch.pi / 2
        noisy = angle.cos()[:, None] * images + angle.sin()[:, None] * noise
        loss = (self(noisy, angle, labels) - noise).square().mean(dim=1)
        self.log("loss", loss.mean())
        return {"loss": loss.mean(), "per_sample_loss": loss}

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), 2e-3)


def read(path):
    """Return the images and labels of a file."""
    with np.load(path) as data:
        return data["images"].astype(np.float32), data["labels"].astype(np.int64)


def made_up():
    """Return 1000 pictures of stripes, 8 by 8, in eight directions. The later directions are rarer and vary more."""
    rng = np.random.default_rng(0)
    share = 0.6 ** np.arange(8)
    labels = np.concatenate([np.arange(8), rng.choice(8, 992, p=share / share.sum())])
    y, x = np.mgrid[:8, :8] / 8
    turn = np.pi * labels[:, None, None] / 8
    shift = rng.uniform(0, labels / 8)[:, None, None]
    images = np.sqrt(2) * np.sin(2 * np.pi * (2 * (x * np.cos(turn) + y * np.sin(turn)) + shift))
    return images.astype(np.float32), labels


def parse():
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help='an .npz file with "images" and "labels"')
    parser.add_argument("--smoke", action="store_true", help="made-up images, 200 steps, saved and resumed once")
    parser.add_argument("--output_dir", default="runs/lightning")
    parser.add_argument("--max_epochs", type=int, default=50)
    parser.add_argument("--batch_size", type=int, default=64, help="on each device")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--policy", choices=["aria", "uniform"], default="aria", help="uniform: the control")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    arguments = parser.parse_args()
    if not arguments.smoke and arguments.data is None:
        parser.error("give --data images.npz, or --smoke")
    if arguments.smoke:
        arguments.max_epochs, arguments.batch_size = 10, 50
    return arguments


def fit(arguments, resume):
    """Train; return the module and the allocator."""
    lightning.seed_everything(0, verbose=False)
    images, labels = read(arguments.data) if arguments.data else made_up()
    dataset = TensorDataset(torch.as_tensor(images), torch.as_tensor(labels))
    workers = {"num_workers": arguments.num_workers, "persistent_workers": arguments.num_workers > 0}
    pool = aria.Partition.from_labels(labels)
    allocator = aria.Allocator(pool, target="uniform", policy=aria.Reducible(), seed=0)
    if arguments.policy == "uniform":
        allocator = aria.Allocator(pool, policy=aria.UniformPolicy(), seed=0)
    sampler = allocator.sampler(batch_size=arguments.batch_size * arguments.devices, num_samples=len(dataset))
    loader = DataLoader(WithIndex(dataset), batch_size=arguments.batch_size, sampler=sampler, **workers)
    module = Diffusion(images[0].size, labels.max() + 1, width=64 if arguments.smoke else 512)
    saving = ModelCheckpoint(
        arguments.output_dir,
        every_n_train_steps=50,
        save_top_k=-1,
        filename="{step}",
        enable_version_counter=False,
    )
    trainer = lightning.Trainer(
        max_epochs=arguments.max_epochs,
        accelerator="cpu" if arguments.smoke else "auto",
        devices=arguments.devices,
        logger=CSVLogger(arguments.output_dir),
        log_every_n_steps=20,
        enable_progress_bar=not arguments.smoke,
        enable_model_summary=False,
        callbacks=[saving, AriaCallback(sampler)],
        use_distributed_sampler=False,
    )
    trainer.fit(module, loader, ckpt_path=resume)
    sampler.synchronize()
    return module, allocator


def main():
    """Train, and print the loss and the share of each region."""
    arguments = parse()
    if arguments.smoke:
        warnings.filterwarnings("ignore", module="lightning")  # it says that the loader cannot resume, and it can
    module, allocator = fit(arguments, arguments.resume)
    print(f"\n{'class':>5} {'images':>6} {'loss':>6} {'share':>6}")
    losses, shares = allocator.estimate().mean, allocator.probabilities
    for row in zip(count(), allocator.partition.sizes, losses, shares):
        print("{:>5} {:6} {:6.3f} {:6.2f}".format(*row))
    if arguments.smoke:
        again, resumed = fit(arguments, str(Path(arguments.output_dir) / "step=50.ckpt"))
        same = all(map(torch.equal, module.state_dict().values(), again.state_dict().values()))
        if not same or resumed.digest() != allocator.digest():
            raise SystemExit("the resumed run differs from the whole one")
        print("resumed in the middle of an epoch: the same parameters and the same allocation, bit for bit")


if __name__ == "__main__":
    main()
