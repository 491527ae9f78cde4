"""Captioned images: a local folder with a ``metadata.jsonl``, or random ones for ``--smoke``.

Nothing here is random while training. Loaders read ahead, so a run could not resume what a dataset draws.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, default_collate

from aria_sampling.prompts import read


def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch; the indices stay a list, on the host, where the allocator needs them, whatever the device is."""
    index = [example.pop("index") for example in examples]
    return {**default_collate(examples), "index": index}


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a JSON Lines file by the one reader of captions; none is left out.

    Raises:
        ValueError: An empty line, or one that is no object, named by its number.
    """
    found: list[dict[str, Any]] = []
    for number, line in enumerate(read(path, format="text", empty="refuse"), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            raise ValueError(f"{path}, line {number}: expected an object of JSON, got {line[:50]!r}")
        found.append(entry)
    return found


class CaptionedFolder(Dataset[Any]):
    """Images of a folder whose ``metadata.jsonl`` has a line ``{"file_name": ..., "text": ...}`` for each.

    Args:
        folder: Where ``metadata.jsonl`` is; file names are relative to it.
        resolution: Images are scaled so that the shorter side has it, and cut to the middle square.
        caption_column: Name of the entry with the caption.

    Raises:
        ValueError: No such file, no lines, an empty line, one without file name or caption, or a caption that is no
            text.
    """

    def __init__(self, folder: str, resolution: int, caption_column: str = "text") -> None:
        self.folder, self.resolution = Path(folder), resolution
        listed = self.folder / "metadata.jsonl"
        if not listed.is_file():
            raise ValueError(f"--train_data_dir {folder}: expected a metadata.jsonl in it")
        self.lines = entries(listed)
        for number, line in enumerate(self.lines, 1):
            if missing := {"file_name", caption_column} - set(line):
                raise ValueError(f"{listed}, line {number}: no {sorted(missing)}, only {sorted(line)}")
            if not isinstance(caption := line[caption_column], str):
                raise ValueError(
                    f"{listed}, line {number}: expected {caption_column!r} to be one text, got {str(caption)[:50]!r}"
                )
        if not self.lines:
            raise ValueError(f"{listed}: expected at least one line")
        self.captions: list[str] = [line[caption_column] for line in self.lines]

    def column(self, name: str) -> list[str]:
        """Return one entry of all lines, as text; ValueError if one has none."""
        without = [number for number, line in enumerate(self.lines, 1) if name not in line]
        if without:
            raise ValueError(
                f"--region_column {name}: {len(without)} lines of metadata.jsonl have none, the first is "
                f"line {without[0]}"
            )
        return [str(line[name]) for line in self.lines]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.lines)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``pixel_values``, float [3, resolution, resolution] in [-1, 1], and ``text``."""
        size = self.resolution
        with Image.open(self.folder / self.lines[index]["file_name"]) as opened:
            scale = size / min(opened.size)
            image = opened.convert("RGB").resize([max(size, round(side * scale)) for side in opened.size])
        left, top = ((side - size) // 2 for side in image.size)
        pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32) / 127.5 - 1
        return {"pixel_values": torch.from_numpy(pixels).permute(2, 0, 1), "text": self.captions[index]}


class RandomImages(Dataset[Any]):
    """Noise in a colour of its own for every caption, 32 x 32."""

    def __init__(self, captions: list[str]) -> None:
        self.captions = captions

    def column(self, name: str) -> list[str]:
        """Return the third word of every caption, whatever `name`. In `some_prompts` it is the animal."""
        del name
        return [caption.split()[2] for caption in self.captions]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.captions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``pixel_values`` and ``text``, as `CaptionedFolder` does."""
        rng = np.random.default_rng(index)
        pixels = np.clip(rng.uniform(-1, 1, (3, 1, 1)) + 0.3 * rng.standard_normal((3, 32, 32)), -1, 1)
        return {"pixel_values": torch.from_numpy(pixels.astype(np.float32)), "text": self.captions[index]}


def some_prompts() -> list[str]:
    """Return 200 prompts, 25 for each of 8 animals."""
    colours = ("red", "green", "blue", "golden", "white")
    animals = ("cat", "dog", "owl", "fox", "whale", "heron", "beetle", "tapir")
    places = ("in snow", "at night", "by rivers", "on hills", "in fog")
    return [f"a {colour} {animal} {place}" for animal in animals for colour in colours for place in places]
