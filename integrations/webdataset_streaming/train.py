"""Train a small class-conditional denoiser on webdataset shards, streaming more from the regions it does worst on.

Each region has a folder of shards in `--data shards/`: shards/web/00.tar, shards/books/00.tar, ... A sample has an
"image.npy", floating [height, width] with mean 0 and variance 1, and a "cls", the number of its class. `--smoke` writes
small shards first and takes less than a minute on one core, offline. README.md shows the difference to an ordinary
script.
"""

import argparse
import os
import random
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

import aria_sampling as aria
from aria_sampling.torch import RegionMixture


class Shards:
    """The samples of a folder of shards, shuffled. Seed and epoch alone decide the order of a pass.

    So a resumed run finds its place again: it passes over as many samples as were taken.

    Args:
        folder: Holds the .tar files.
        rank, ranks: This process reads every `ranks`-th shard.
        buffer: Samples that are shuffled together.
        workers: Processes that read.
    """

    def __init__(self, folder, *, rank=0, ranks=1, seed=0, buffer=200, workers=0):
        self.shards = sorted(str(path) for path in Path(folder).glob("*.tar"))[rank::ranks]
        if not self.shards:
            raise ValueError(f"{folder}: no .tar files for rank {rank} of {ranks}")
        self.name, self.seed, self.buffer, self.workers = Path(folder).name, seed, buffer, workers
        self.epoch = 0

    def set_epoch(self, epoch):
        """Make the next pass that of `epoch`. `RegionMixture` calls this when it starts the stream again."""
        self.epoch = epoch

    def __iter__(self):
        """Return an iterator over dictionaries of tensors."""
        key = f"{self.seed} {self.name} {self.epoch}"
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(random.Random(key).sample(self.shards, len(self.shards))),
            wds.split_by_worker,
            wds.tarfile_to_samples(),
            wds.shuffle(self.buffer, seed=key),
            wds.decode(),
            wds.rename(x="image.npy", label="cls"),
        )
        workers = min(self.workers, len(self.shards))
        return iter(DataLoader(pipeline, batch_size=None, num_workers=workers) if workers else pipeline)


class Denoiser(nn.Module):
    """Predicts an image of a class from its noisy version."""

    def __init__(self, pixels, classes, width):
        super().__init__()
        self.condition = nn.Embedding(classes, width)
        self.image = nn.Linear(pixels + 1, width)
        self.net = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, pixels))

    def forward(self, noisy, level, labels):
        """Return float [b, pixels]; `level` [b, 1] is the size of the noise."""
        return self.net(self.image(torch.cat([noisy, level], dim=1)) + self.condition(labels))


def write_shards(folder):
    """Write 3 shards of 40 samples for each of three regions, which have textures of three sizes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:8, :8] / 8
    for region, waves in {"coarse": 1, "medium": 2, "fine": 3}.items():
        Path(folder, region).mkdir(parents=True, exist_ok=True)
        for shard in range(3):
            with wds.TarWriter(str(Path(folder, region, f"{shard:02}.tar"))) as tar:
                for number in range(40):
                    label = number % 2
                    waved = np.sin(2 * np.pi * (waves * (x, y)[label] + rng.uniform(0, waves / 3)))
                    image = (np.sqrt(2) * waved).astype(np.float32)
                    tar.write({"__key__": f"{shard:02}{number:03}", "image.npy": image, "cls": label})


def parse():
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a folder that holds a folder of .tar files for each region")
    parser.add_argument("--smoke", action="store_true", help="writes shards, takes 150 steps, resumed once")
    parser.add_argument("--output_dir", default="runs/webdataset_streaming")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=0, help="processes that read, for each region")
    parser.add_argument("--policy", choices=["aria", "uniform"], default="aria", help="uniform: the control")
    parser.add_argument("--resume", help="a checkpoint to go on from")
    arguments = parser.parse_args()
    if not arguments.smoke and arguments.data is None:
        parser.error("give --data shards/, or --smoke")
    if arguments.smoke:
        arguments.data, arguments.steps = str(Path(arguments.output_dir) / "shards"), 150
        arguments.batch_size, arguments.classes = 30, 2
        write_shards(arguments.data)
    return arguments


def train(arguments, resume):
    """Train; return the model and the mixture."""
    torch.manual_seed(0)
    folders = sorted(path for path in Path(arguments.data).iterdir() if path.is_dir())
    sources = {folder.name: Shards(folder, workers=arguments.workers) for folder in folders}
    pool = aria.Partition.from_labels(range(len(sources)), names=list(sources))
    allocator = aria.Allocator(pool, target="uniform", seed=0)
    if arguments.policy == "uniform":
        allocator = aria.Allocator(pool, policy=aria.UniformPolicy(), seed=0)
    mixture = RegionMixture(sources, allocator, batch_size=arguments.batch_size)
    loader = DataLoader(mixture, batch_size=arguments.batch_size)
    pixels = np.asarray(next(iter(sources[folders[0].name]))["x"]).size
    model = Denoiser(pixels, arguments.classes, 64 if arguments.smoke else 512)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    noise = torch.Generator().manual_seed(0)
    begin = 0
    if resume:
        state = torch.load(resume, weights_only=True)
        begin = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        noise.set_state(state["noise"])
        mixture.load_state_dict(state["mixture"])
    writer = SummaryWriter(arguments.output_dir)
    for step, batch in enumerate(islice(loader, arguments.steps - begin), begin + 1):
        images = batch["x"].flatten(1).float()
        level = torch.rand((len(images), 1), generator=noise)
        noisy = images + level * torch.randn(images.shape, generator=noise)
        loss = (model(noisy, level, batch["label"]) - images).square().mean(dim=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        mixture.observe(batch["region"], loss)
        if step % 50 == 0:
            writer.add_scalar("loss", loss.mean(), step)
            for name, value in allocator.metrics().items():
                writer.add_scalar(f"aria/{name}", value, step)
            state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state["noise"] = noise.get_state()
            state["mixture"] = mixture.state_dict()
            path = Path(arguments.output_dir, f"step{step}.pt")
            torch.save(state, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
            print(f"step {step}: loss {loss.mean():.3f}, shares {allocator.probabilities.round(2).tolist()}")
    writer.close()
    return model, mixture


def main():
    """Train, and print the loss and the share of each region."""
    arguments = parse()
    model, mixture = train(arguments, arguments.resume)
    allocator = mixture.allocator
    print(f"\n{'region':10} {'loss':>6} {'share':>6}")
    for name, loss, share in zip(mixture.names, allocator.estimate().mean, allocator.probabilities, strict=True):
        print(f"{name:10} {loss:6.3f} {share:6.2f}")
    if arguments.smoke:
        again, resumed = train(arguments, Path(arguments.output_dir, "step50.pt"))
        same = all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))
        if not same or resumed.allocator.digest() != allocator.digest():
            raise SystemExit("the resumed run differs from the whole one")
        print("resumed at step 50: the same parameters and the same allocation, bit for bit")


if __name__ == "__main__":
    main()
