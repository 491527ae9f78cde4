"""Epochs of a DataLoader without workers: one that draws from an allocator, and one with a plain RandomSampler."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import aria_sampling as aria
from aria_sampling.torch import dataloader

from .timing import Call

BATCH, ITEMS, REGIONS = 32, 100_000, 256
Sample = tuple[int, torch.Tensor]


class Tensors(Dataset[Sample]):
    """Rows of a tensor in memory: data for free, the hardest case for a sampler."""

    def __init__(self) -> None:
        self.rows = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Sample:
        return index, self.rows[index % 64]


class Pictures(Tensors):
    """JPEG pictures of 256 x 256 pixels, decoded for every sample: data as they usually come."""

    def __init__(self) -> None:
        from PIL import Image

        rng, self.files = np.random.default_rng(0), list[bytes]()
        for _ in range(16):
            pixels = np.kron(rng.integers(0, 255, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(self.files[index % 16])))
        return index, torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)


def random_epoch(dataset: Tensors, batches: int) -> Call:
    """An epoch in random order; a loss is made for every row and goes nowhere."""
    sampler = torch.utils.data.RandomSampler(dataset, num_samples=batches * BATCH)
    return _epoch(DataLoader(dataset, BATCH, sampler=sampler), lambda index, loss: None)


def aria_epoch(dataset: Tensors, batches: int) -> Call:
    """An epoch drawn from an allocator, to which a loss is reported for every row."""
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(ITEMS) % REGIONS), seed=0)
    loader = dataloader(dataset, allocator, batch_size=BATCH, num_samples=batches * BATCH)
    return _epoch(loader, loader.sampler.observe)


def _epoch(loader: Any, observe: Any) -> Call:
    def epoch() -> None:
        for index, data in loader:
            observe(index, data.flatten(1)[:, 0] + 1.0)

    return epoch
