"""The data as arrays, and who is seen, unseen, held out or underrepresented: the study's world.

Apart from models and training so that a reader can check in one short file what no method may see.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Emoji:
    """The committed data. Emoji are rows 0..N-1; prompts are rows 0..P-1, those of an emoji next to each other."""

    images: np.ndarray  # uint8[N, 16, 16, 3]
    names: tuple[str, ...]
    characters: tuple[str, ...]
    groups: np.ndarray  # str[N]
    subgroups: np.ndarray  # str[N]
    concepts: np.ndarray  # str[N]
    held_out: np.ndarray  # bool[N]
    prompts: tuple[str, ...]
    prompt_emoji: np.ndarray  # int64[P]: the emoji of a prompt
    prompt_start: np.ndarray  # int64[N + 1]: prompts of emoji i are start[i] .. start[i + 1] - 1, its name first
    embeddings: np.ndarray  # float32[P, D]

    @classmethod
    def load(cls, folder: Path = DATA) -> Emoji:
        """Reads `images.npz`, `emoji.json` and `embeddings.npz`."""
        records = json.loads((folder / "emoji.json").read_text(encoding="utf-8"))
        counts = np.array([len(record["prompts"]) for record in records])
        with np.load(folder / "embeddings.npz") as stored:
            embeddings = stored["codes"].astype(np.float32) * stored["scale"]
        with np.load(folder / "images.npz") as stored:
            images = stored["images"]
        return cls(
            images=images,
            names=tuple(record["name"] for record in records),
            characters=tuple(record["emoji"] for record in records),
            groups=np.array([record["group"] for record in records]),
            subgroups=np.array([record["subgroup"] for record in records]),
            concepts=np.array([record["concept"] for record in records]),
            held_out=np.array([record["held_out"] for record in records]),
            prompts=tuple(prompt for record in records for prompt in record["prompts"]),
            prompt_emoji=np.repeat(np.arange(len(records)), counts),
            prompt_start=np.concatenate([[0], np.cumsum(counts)]),
            embeddings=embeddings,
        )

    @cached_property
    def pixels(self) -> np.ndarray:
        """float32[N, 3, 16, 16] in [-1, 1]: what the models work on."""
        return np.ascontiguousarray(self.images.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1


def stream(*key: int) -> np.random.Generator:
    """A generator of its own for a key such as (purpose, seed, step): no draw depends on how many came before."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
