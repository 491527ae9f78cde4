"""The rounds that are timed: draw 256 items, report a loss for each, and take the losses into account."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

import aria_sampling as aria

from .timing import Call

SEED, ROWS = 0, 256
WARM = 100  # rounds before the first that is timed


def pool(n_items: int, n_regions: int, *, width: int = 0) -> aria.Partition:
    """A pool of regions of unequal size, each one block of items; with centres of that width if it is not 0.

    Made without sorting, so that 10^9 items fit the memory of a small machine; the same as `Partition.from_labels` of
    its labels.
    """
    rng = np.random.default_rng(SEED)
    share = rng.gamma(4.0, size=n_regions)
    offsets = np.rint(np.cumsum(share / share.sum()) * (n_items - n_regions)).astype(np.int64)
    offsets = np.concatenate(([0], offsets + np.arange(1, n_regions + 1)))  # at least one item each
    labels = np.repeat(np.arange(n_regions, dtype=np.uint16 if n_regions <= 1 << 16 else np.uint32), np.diff(offsets))
    order = np.arange(n_items, dtype=np.uint32)
    centers = rng.normal(size=(n_regions, width)).astype(np.float32) if width else None
    for array in (labels, order, offsets):
        array.flags.writeable = False
    names = aria.Partition.from_labels(np.arange(n_regions)).names
    return aria.Partition(labels, order, offsets, names, centers, f"speed-{n_items}-{n_regions}")


def coverage(partition: aria.Partition) -> aria.Coverage:
    """Data in half of the regions, ten times as much in some as in others."""
    rng = np.random.default_rng(SEED)
    counts = np.where(rng.random(partition.n_regions) < 0.5, rng.integers(1, 100, partition.n_regions), 0)
    return aria.Coverage(partition, counts=counts.astype(float))


def _losses(partition: aria.Partition) -> tuple[np.ndarray, np.ndarray]:
    """The level of each region, and noise of each row."""
    rng = np.random.default_rng(SEED)
    return rng.gamma(4.0, 0.25, partition.n_regions), rng.gamma(4.0, 0.25, ROWS)


def settled(round_: Call) -> Call:
    """The round, after some of them."""
    for _ in range(WARM):
        round_()
    return round_


def aria_round(partition: aria.Partition, *, covered: bool = False, rows: int = ROWS) -> Call:
    """`draw`, `observe` and `step` of an allocator with the library's defaults."""
    allocator = aria.Allocator(partition, coverage=coverage(partition) if covered else None, seed=SEED)
    level, noise = _losses(partition)

    def round_() -> None:
        draw = allocator.draw(rows)
        allocator.observe(draw.regions, level[draw.regions] * noise[:rows])
        allocator.step()

    return settled(round_)


def conditioning_round(partition: aria.Partition, rows: int = ROWS) -> Call:
    """`draw` and `observe` of a RandomConditioning with coverage, on tensors of a batch on the CPU."""
    import torch

    allocator = aria.Allocator(partition, coverage=coverage(partition), seed=SEED)
    switch = aria.RandomConditioning(allocator)
    source = torch.Generator().manual_seed(SEED)
    steps, losses = torch.randint(1000, (rows,), generator=source), torch.rand(rows, generator=source) + 0.5

    def round_() -> None:
        switch.draw(steps)
        switch.observe(losses)

    return settled(round_)


class Storage:
    """What torchrl's sampler asks of its storage."""

    ndim = 1

    def __init__(self, n_items: int) -> None:
        self.shape = (n_items,)

    def __len__(self) -> int:
        return self.shape[0]


def torchrl_round(n_items: int) -> Call | None:
    """torchrl's PrioritizedSampler, `sample` and `update_priority`; None where it is not installed or does not load."""
    flags = sys.getdlopenflags()
    try:
        # Its wheels are each built for one torch. What they miss in another is of autograd and not used by the trees,
        # so it is looked up when it is called for, not when the library is loaded.
        sys.setdlopenflags(os.RTLD_LAZY)
        from torchrl._torchrl import SumSegmentTreeFp32  # noqa: F401
        from torchrl.data.replay_buffers.samplers import PrioritizedSampler
    except ImportError:
        return None
    finally:
        sys.setdlopenflags(flags)
    import torch

    storage: Any = Storage(n_items)
    sampler = PrioritizedSampler(max_capacity=n_items, alpha=1.0, beta=1.0)
    sampler.update_priority(torch.arange(n_items), torch.rand(n_items) + 0.5, storage=storage)
    losses = torch.rand(ROWS) + 0.5

    def round_() -> None:
        index, _ = sampler.sample(storage, ROWS)
        sampler.update_priority(index, losses, storage=storage)

    return settled(round_)


def rule_round(n_bins: int) -> Call:
    """The rule of guided diffusion's resampler over regions (Nichol and Dhariwal 2021, "Improved DDPM", section 4).

    p is in proportion to the root of the mean square of a bin's last ten losses, with 0.1% uniform. It knows bins, no
    items; NumPy alone, so that it is there on every machine.
    """
    rng = np.random.default_rng(SEED)
    last, seen, losses = np.ones((n_bins, 10)), np.full(n_bins, 10), rng.random(ROWS) + 0.5

    def round_() -> None:
        p = np.sqrt((last**2).mean(axis=1))
        p = 0.999 * p / p.sum() + 0.001 / n_bins
        for bin_, loss in zip(rng.choice(n_bins, ROWS, p=p).tolist(), losses.tolist(), strict=True):
            last[bin_, seen[bin_] % 10] = loss
            seen[bin_] += 1

    return round_
