"""What the tests of the PyTorch side share: a pool with tiny regions, losses that are awkward to sum, loaders.

A loss is a function of the item alone, so that whoever computes it, on whatever rank and in whatever order, gets
the same one. Losses of a region are orders of magnitude apart and a batch has several rows of each region: sums
in another order, or averages of averages, are other bits.
"""

import io
from itertools import islice

import numpy as np
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from tests.helpers import random_labels

ITEMS, REGIONS, BATCH = 90, 6, 24
LABELS = random_labels(np.random.default_rng(4), REGIONS, ITEMS)
LOSSES = np.random.default_rng(5).lognormal(0, 2, ITEMS) * (1 + LABELS)
NUM_SAMPLES = 5 * BATCH + 7  # the last of six batches is smaller, and nothing that 2 or 4 divide


def make(**settings):
    """An allocator over the pool; regions count alike, so the tiny ones come several times a batch."""
    return aria.Allocator(aria.Partition.from_labels(LABELS), **{"target": "uniform", "seed": 3, **settings})


def loss(index):
    """The loss of each item, float64."""
    return torch.as_tensor(LOSSES[np.asarray(index)])


def build(*, lag=0, state=None, loader_class=DataLoader, workers=0, prefetch=2, options=None, policy=None, **settings):
    """A sampler and a loader over the pool, with its epoch of `NUM_SAMPLES`."""
    settings = {"batch_size": BATCH, "num_samples": NUM_SAMPLES, **settings}
    sampler = make(lag=lag, policy=policy).sampler(**settings)
    if state is not None:
        sampler.load_state_dict(state)
    options = {"num_workers": workers, "prefetch_factor": prefetch if workers else None, **(options or {})}
    size = sampler.batch_size // sampler.num_replicas
    return sampler, loader_class(range(ITEMS), batch_size=size, sampler=sampler, **options)


def prepared(sampler, workers, prefetch=2, batch_size=BATCH, context=None, stateful=False):
    """A loader that accelerate has prepared, for all the processes there are."""
    from accelerate import Accelerator
    from accelerate.utils import DataLoaderConfiguration

    options = {"num_workers": workers, "prefetch_factor": prefetch if workers else None}
    options["multiprocessing_context"] = context if workers else None
    accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=stateful))
    return accelerator.prepare(DataLoader(range(ITEMS), batch_size=batch_size, sampler=sampler, **options))


def train(sampler, loader, batches=None):
    """Train on so many batches of one pass, or on all of them; the rows that came."""
    seen = []
    for index in islice(loader, batches):
        seen.append(index.tolist())
        sampler.observe(index, loss(index))
    return seen


def result(sampler):
    """All that a run left behind, to be compared bit for bit."""
    sampler.synchronize()
    estimate = sampler.allocator.estimate()
    return sampler.allocator.digest(), estimate.mean.tobytes(), estimate.count.tobytes()


def expected(batches, *, lag=0, num_samples=NUM_SAMPLES, batch=BATCH, losses=LOSSES):
    """The same run without any sampler or loader: global batches, and the digest after them."""
    allocator = make(lag=lag)
    sizes = [min(batch, num_samples - done) for done in range(0, num_samples, batch)]
    seen = []
    while allocator.round < batches:
        while len(allocator.open_rounds) <= lag and len(seen) < batches:
            seen.append(allocator.draw(sizes[len(seen) % len(sizes)]).items.tolist())
        draw = allocator.open_rounds[0]
        allocator.observe(draw.regions, losses[draw.items])
        allocator.step()
    return seen, allocator.digest()


def through_torch(state):
    """The state as `torch.load` gives it back, restricted to plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
