"""Embeddings and captions like those of a web pool, made up: topics of very unequal size, a common direction, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TOPICS, KINDS = 50, 3000
_AT_A_TIME = 50_000


def embeddings(n: int, width: int, seed: int) -> np.ndarray:
    """Rows of norm 1, float32 [n, width]: topics by Zipf, kinds inside of them, and noise, in a spectrum that falls."""
    fixed, rng = np.random.default_rng(width), np.random.default_rng([seed, width])
    spectrum = (1 + np.arange(width)) ** -0.5
    spectrum /= np.sqrt(np.square(spectrum).sum())
    topics, kinds = (fixed.normal(size=(count, width)) * spectrum for count in (TOPICS, KINDS))
    topic, kind = _zipf(rng, n, TOPICS, 1.0), _zipf(rng, n, KINDS, 0.8)
    kind = (kind + 61 * topic) % KINDS
    rows = 0.6 * topics[topic] + 0.7 * kinds[kind] + 0.6 * rng.normal(size=(n, width)) * spectrum + 0.3
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def _zipf(rng: np.random.Generator, n: int, k: int, power: float) -> np.ndarray:
    shares = (1 + np.arange(k)) ** -power
    return rng.choice(k, n, p=shares / shares.sum())


def mapped(folder: Path, n: int, width: int, dtype: str) -> np.ndarray:
    """A memory map of `embeddings`, written once."""
    path = folder / f"{n}x{width}.{dtype}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        file = np.lib.format.open_memmap(half, "w+", np.dtype(dtype), (n, width))
        for number, begin in enumerate(range(0, n, _AT_A_TIME)):
            file[begin : begin + _AT_A_TIME] = embeddings(min(_AT_A_TIME, n - begin), width, number)
        file.flush()
        half.rename(path)
    return np.load(path, mmap_mode="r")


def shards(folder: Path, n: int, width: int, times: int) -> Any:
    """A folder in which one file of float16 stands under so many names: rows to read, without their disk space."""
    from aria_sampling.partition._shards import Shards

    mapped(folder, n, width, "float16")
    many = folder / f"{times}x{n}x{width}"
    many.mkdir(exist_ok=True)
    for number in range(times):
        if not (many / f"{number}.npy").exists():
            (many / f"{number}.npy").hardlink_to(folder / f"{n}x{width}.float16.npy")
    return Shards(many)


class Captions:
    """Captions made when asked for: a word of the topic, one of the kind, words that are everywhere, and others."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def take(self, items: np.ndarray) -> list[str]:
        """Some captions."""
        topic, kind, other = items % TOPICS, items // TOPICS % KINDS, items * 2654435761 % 997
        return [
            f"a photo of the topic{t} with kind{k} on a word{o}, number {i}"
            for t, k, o, i in zip(topic, kind, other, items, strict=True)
        ]
