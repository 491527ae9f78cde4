"""The regions of a list of captions: by a column, or by k-means on the embeddings of a text encoder.

They are made once and kept in a file, with a digest of the captions beside it: numbers of items mean nothing for
another list, and a file of another list is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aria_sampling as aria
from integrations._common.models import encode


def load_or_make(path: Path, captions: list[str], make: Callable[[], aria.Partition]) -> aria.Partition:
    """Return the partition of `captions` that the file at `path` holds, or make it and write the file.

    Raises:
        ValueError: The file is there and belongs to other captions.
    """
    beside = path.with_suffix(".json")
    found = {"captions": len(captions), "digest": _digest(captions)}
    if path.exists():
        pool = aria.Partition.load(path)
        kept = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {"captions": pool.n_items}
        if kept != found:
            raise ValueError(
                f"{path}: the regions of another list of {kept['captions']} captions, here are {found['captions']}: "
                "give --regions another file name, or delete it and it is made anew"
            )
        return pool
    pool = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(found), encoding="utf-8")
    pool.save(path)
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


def _digest(captions: list[str]) -> str:
    return hashlib.blake2b(json.dumps(captions).encode(), digest_size=16).hexdigest()
