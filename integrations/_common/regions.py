"""The regions of a list of captions: by a column, or by k-means on the embeddings of a text encoder.

They are made once and kept in a file, since k-means on millions of captions takes its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aria_sampling as aria
from integrations._common import corpus
from integrations._common.models import encode


def load_or_make(path: Path, captions: list[str], make: Callable[[], aria.Partition]) -> aria.Partition:
    """Return the partition of `captions` that the file at `path` holds, or make it and write the file.

    Raises:
        ValueError: The file is there and belongs to other captions.
    """
    if corpus.holds(path, captions, option="--regions"):
        return aria.Partition.load(path)
    pool = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    pool.save(path)
    corpus.claim(path, captions)
    return pool


def by_column(values: list[str]) -> aria.Partition:
    """Return the partition with one region for every different value."""
    names, labels = np.unique(values, return_inverse=True)
    return aria.Partition.from_labels(labels, names=names.tolist())


@torch.no_grad()
def by_embedding(captions: list[str], n_regions: int, tokenizer: Any, text_encoder: Any) -> aria.Partition:
    """Return the partition by k-means on the pooled output of the text encoder, normalised to length 1."""
    chunks = [captions[begin : begin + 256] for begin in range(0, len(captions), 256)]
    pooled = torch.cat([encode(tokenizer, text_encoder, chunk).pooler_output.float().cpu() for chunk in chunks])
    unit = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return aria.KMeansPartitioner(n_regions=n_regions, seed=0).fit(unit)


def novel_target(folder: Path, pool: aria.Partition, items: list[int], power: float) -> np.ndarray:
    """Return the target ``sizes * novelty**power``, given the items of the pool that have images, float64 [n_regions].

    It is kept in `folder` and read there when a run is resumed, as another machine may differ in the last bits.
    """
    counts = np.bincount(pool.labels[np.unique(items)], minlength=pool.n_regions)
    settings = hashlib.blake2b(f"{pool.fingerprint} {power} {counts.tolist()}".encode(), digest_size=8).hexdigest()
    path = folder / f"target-{settings}.npy"
    if not path.exists():
        np.save(path, pool.sizes * aria.novelty(pool, counts) ** power)
    return np.load(path)
