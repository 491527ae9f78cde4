"""What closing a round takes where several gloo processes share an allocation."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import aria_sampling as aria

REGIONS, ROWS, WARM = 1024, 256, 20


def study(world: int, rounds: int) -> dict[str, Any]:
    """Microseconds on rank 0, [q25, median, q75]: `observe` of a batch of 256 rows over all ranks, which gathers the
    losses and takes them in, and a bare all_gather of a payload of that size."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_member, args=(world, rounds, folder), nprocs=world)  # pyright: ignore
        times = np.load(Path(folder, "times.npy"))
    names = ("observe", "all_gather")[: len(times)]
    return {name: np.quantile(row * 1e6, [0.25, 0.5, 0.75]).tolist() for name, row in zip(names, times, strict=True)}


def _member(rank: int, world: int, rounds: int, folder: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(1_000_000) % REGIONS), seed=0)
    dealt = {"num_replicas": world, "rank": rank}
    sampler = allocator.sampler(batch_size=ROWS, num_samples=ROWS * (rounds + WARM), **dealt)
    stream, own = iter(sampler), ROWS // world
    payload = torch.zeros((own + 2, 2), dtype=torch.int64)
    parts, losses = [torch.empty_like(payload) for _ in range(world)], torch.rand(own) + 0.5
    times = np.zeros((2 if world > 1 else 1, rounds + WARM))
    for number in range(rounds + WARM):
        index = torch.tensor([next(stream) for _ in range(own)])
        _wait(world)
        begin = time.perf_counter()
        sampler.observe(index, losses)
        times[0, number] = time.perf_counter() - begin
        if world > 1:
            _wait(world)
            begin = time.perf_counter()
            dist.all_gather(parts, payload)
            times[1, number] = time.perf_counter() - begin
    if rank == 0:
        np.save(Path(folder, "times.npy"), times[:, WARM:])
    if world > 1:
        dist.destroy_process_group()


def _wait(world: int) -> None:
    if world > 1:
        dist.barrier()
