"""A round of each sampler: draw `rows` items, report a loss for each, and take the losses into account.

Peers get what they need to adapt: priorities or weights follow the reported losses in every round. Those that cannot
(torchdata's node keeps the weights it was made with) only draw, and their names say so.
"""

from __future__ import annotations

import itertools
import os
import sys
from typing import Any

import numpy as np

import aria_sampling as aria

from .timing import Call

ARIA = "aria-sampling"
SEED = 0


def pool(n_items: int, n_regions: int) -> aria.Partition:
    """A pool of regions of unequal size, each one block of items.

    Made without sorting, so that 10^9 items fit the memory of a small machine; the same as `Partition.from_labels`
    of its labels.
    """
    rng = np.random.default_rng(SEED)
    share = rng.gamma(4.0, size=n_regions)
    offsets = np.rint(np.cumsum(share / share.sum()) * (n_items - n_regions)).astype(np.int64)
    offsets = np.concatenate(([0], offsets + np.arange(1, n_regions + 1)))  # at least one item each
    labels = np.repeat(np.arange(n_regions, dtype=np.uint16 if n_regions <= 1 << 16 else np.uint32), np.diff(offsets))
    small = aria.Partition.from_labels(np.arange(n_regions))
    for array in (labels, offsets):
        array.flags.writeable = False
    order = np.arange(n_items, dtype=np.uint32)
    return aria.Partition(labels, order, offsets, small.names, None, f"speed-{n_items}-{n_regions}")


def aria_round(partition: aria.Partition, rows: int, **settings: Any) -> Call:
    """`draw`, `observe` and `step` of an allocator that has settled."""
    allocator = aria.Allocator(partition, seed=SEED, **settings)
    rng = np.random.default_rng(SEED)
    level, noise = rng.gamma(4.0, 0.25, partition.n_regions), rng.gamma(4.0, 0.25, rows)

    def round_() -> None:
        draw = allocator.draw(rows)
        allocator.observe(draw.regions, level[draw.regions] * noise)
        allocator.step()

    return round_


def torch_weighted(n_items: int, rows: int) -> Call:
    """torch's WeightedRandomSampler, made anew in every round since its weights are fixed."""
    import torch
    from torch.utils.data import WeightedRandomSampler

    weights = torch.rand(n_items, dtype=torch.float64) + 0.5
    losses = torch.rand(rows, dtype=torch.float64) + 0.5

    def round_() -> None:
        weights[list(WeightedRandomSampler(weights, rows))] = losses

    return round_


def numpy_choice(n_items: int, rows: int) -> Call:
    """`numpy.random.Generator.choice` with probabilities that change in every round."""
    rng = np.random.default_rng(SEED)
    weights, losses = rng.random(n_items) + 0.5, rng.random(rows) + 0.5

    def round_() -> None:
        weights[rng.choice(n_items, rows, p=weights / weights.sum())] = losses

    return round_


class Storage:
    """What torchrl's sampler asks of its storage."""

    ndim = 1

    def __init__(self, n_items: int) -> None:
        self.shape = (n_items,)

    def __len__(self) -> int:
        return self.shape[0]


def torchrl_prioritized(n_items: int, rows: int) -> Call | None:
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
    losses = torch.rand(rows) + 0.5

    def round_() -> None:
        index, _ = sampler.sample(storage, rows)
        sampler.update_priority(index, losses, storage=storage)

    return round_


def loss_resampler(n_bins: int, rows: int) -> Call:
    """The rule of guided diffusion's resampler over regions (Nichol and Dhariwal 2021, "Improved DDPM", section 4).

    p is in proportion to the root of the mean square of a bin's last ten losses, after ten of every bin were seen, with
    0.1% uniform. It knows bins, no items.
    """
    rng = np.random.default_rng(SEED)
    last, seen, losses = np.ones((n_bins, 10)), np.full(n_bins, 10), rng.random(rows) + 0.5

    def round_() -> None:
        p = np.sqrt((last**2).mean(axis=1))
        p = 0.999 * p / p.sum() + 0.001 / n_bins
        for bin_, loss in zip(rng.choice(n_bins, rows, p=p).tolist(), losses.tolist(), strict=True):
            last[bin_, seen[bin_] % 10] = loss
            seen[bin_] += 1

    return round_


def torchdata_node(n_items: int, n_sources: int, rows: int) -> Call | None:
    """torchdata's MultiNodeWeightedSampler, one source a region; it only draws. None where torchdata is missing."""
    try:
        from torchdata.nodes import IterableWrapper, MultiNodeWeightedSampler
    except ImportError:
        return None
    weights = {str(k): float(w) for k, w in enumerate(np.random.default_rng(SEED).random(n_sources) + 0.5)}
    sources = {name: IterableWrapper(range(n_items // n_sources)) for name in weights}
    node = MultiNodeWeightedSampler(sources, weights, stop_criteria="CYCLE_FOREVER")
    node.reset()
    return lambda: list(itertools.islice(node, rows))


def peers(n_items: int, n_regions: int, rows: int) -> dict[str, Call | None]:
    """All of them, None for what is not there. WeightedRandomSampler cannot take more than 2^24 items."""
    return {
        "torchrl PrioritizedSampler": torchrl_prioritized(n_items, rows),
        "torch WeightedRandomSampler": torch_weighted(n_items, rows) if n_items <= 1 << 24 else None,
        "numpy Generator.choice": numpy_choice(n_items, rows),
        "loss resampler (over regions)": loss_resampler(n_regions, rows),
        "torchdata weighted node (draws only)": torchdata_node(n_items, n_regions, rows),
    }
