"""The regions of a list of captions, and what images cover of them. Both are made once and kept in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import aria_sampling as aria
from integrations._common import corpus
from integrations._common.models import Parts, encode


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


@torch.no_grad()
def embed(captions: list[str], parts: Parts) -> np.ndarray:
    """Return the pooled output of the text encoder, normalised to length 1, float32 [n, width]."""
    chunks = [captions[begin : begin + 256] for begin in range(0, len(captions), 256)]
    pooled = [encode(parts.tokenizer, parts.text_encoder, chunk).pooler_output.float().cpu() for chunk in chunks]
    return torch.nn.functional.normalize(torch.cat(pooled), dim=1).numpy()


def by_embedding(captions: list[str], n_regions: int, parts: Parts) -> aria.Partition:
    """Return the partition by k-means on `embed`."""
    return aria.KMeansPartitioner(n_regions=n_regions, seed=0).fit(embed(captions, parts))


def covered(folder: Path, pool: aria.Partition, prompts: list[str], captions: list[str], parts: Parts) -> aria.Coverage:
    """Return what images with these captions cover of a pool of prompts.

    Captions that are in the pool count by their number, others by their embedding. The coverage is kept in `folder`,
    so that every rank and every resumed run has the same, to the bit.
    """
    path = folder / f"coverage-{corpus.digest([pool.fingerprint, *captions])}.npz"
    if path.exists():
        return aria.Coverage.load(path, pool)
    number = {prompt: item for item, prompt in enumerate(prompts)}
    items = [number[caption] for caption in captions if caption in number]
    others = [caption for caption in captions if caption not in number]
    coverage = aria.Coverage(pool, items=items, embeddings=embed(others, parts) if others else None)
    coverage.save(path)
    return coverage
