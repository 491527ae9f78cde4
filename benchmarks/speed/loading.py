"""A DataLoader that draws from an allocator, against one with a plain RandomSampler, epoch by epoch in turns."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import aria_sampling as aria
from aria_sampling.torch import dataloader

BATCH, ITEMS, REGIONS = 32, 100_000, 256
Sample = tuple[int, torch.Tensor]


class Tensors(Dataset[Sample]):
    """Rows of a tensor in memory: data that cost nothing, the hardest case for a sampler."""

    def __init__(self) -> None:
        self.rows = torch.zeros(64, 3, 32, 32)

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, index: int) -> Sample:
        return index, self.rows[index % 64]


class Pictures(Tensors):
    """JPEG pictures of 256 x 256 pixels, decoded for every sample: data as they usually come."""

    def __init__(self) -> None:
        from PIL import Image

        rng, self.files = np.random.default_rng(0), []
        for _ in range(16):
            pixels = np.kron(rng.integers(0, 255, (16, 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __getitem__(self, index: int) -> Sample:
        from PIL import Image

        pixels = np.asarray(Image.open(io.BytesIO(self.files[index % 16])))
        return index, torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(255)


def study(workers: tuple[int, ...], batches: int, seconds: float) -> dict[str, Any]:
    """Samples a second with both samplers, and their ratio over pairs of epochs as [q25, median, q75].

    Pairs go on for `seconds`, at least three of them. Epochs of pictures have `batches` batches, those of tensors more.
    """
    out: dict[str, Any] = {}
    for dataset in (Tensors(), Pictures()):
        for number in workers:
            many = batches if isinstance(dataset, Pictures) else 16 * batches
            pair = _plain(dataset, number, many), _adaptive(dataset, number, many)
            for epoch in pair:
                epoch()  # workers start
            end, taken = time.perf_counter() + seconds, []
            while len(taken) < 3 or time.perf_counter() < end:
                taken.append([epoch() for epoch in pair])
            rates = many * BATCH / np.array(taken)
            out.setdefault(type(dataset).__name__, {})[str(number)] = {
                "random": float(np.median(rates[:, 0])),
                "aria": float(np.median(rates[:, 1])),
                "ratio": np.quantile(rates[:, 1] / rates[:, 0], [0.25, 0.5, 0.75]).tolist(),
            }
    return out


def _plain(dataset: Tensors, workers: int, batches: int) -> Callable[[], float]:
    sampler = torch.utils.data.RandomSampler(dataset, num_samples=batches * BATCH)
    return _epoch(
        DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0),
        lambda index, loss: None,
    )


def _adaptive(dataset: Tensors, workers: int, batches: int) -> Callable[[], float]:
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(ITEMS) % REGIONS), seed=0)
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = dataloader(dataset, allocator, batch_size=BATCH, num_samples=batches * BATCH, **options)
    return _epoch(loader, loader.sampler.observe)


def _epoch(loader: Any, observe: Callable[[Any, Any], object]) -> Callable[[], float]:
    """A pass over the loader that reports a loss for every row; returns the seconds it takes."""

    def epoch() -> float:
        begin = time.perf_counter()
        for index, data in loader:
            observe(index, data.flatten(1)[:, 0] + 1.0)
        return time.perf_counter() - begin

    return epoch
