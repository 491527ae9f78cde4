"""`demo`: a folder of Parquet captions that looks like one from the web, made by a grammar. Nothing is downloaded.

Topics have names, so regions of these captions can be judged. The frequent topics have images and the rare ones have
none, which is the case that this library is for. As on the web, some captions are empty, are missing, or come twice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._check import as_path, integer, shown_path
from aria_sampling._disk import replacing, writing
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._arrow import pyarrow

__all__ = ["TOPICS", "demo"]

# Name of a topic: what there is, what it is like, where it is.
TOPICS: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "cats": (
        ("cat", "kitten", "tabby cat", "black cat", "siamese cat", "cat and its kitten"),
        ("sleepy", "curious", "fluffy", "playful", "grumpy", "tiny", "old", "striped"),
        ("on a sofa", "in a cardboard box", "under a blanket", "on a windowsill", "beside a ball of wool", "on a rug"),
    ),
    "dogs": (
        ("dog", "puppy", "corgi", "labrador", "husky", "terrier"),
        ("happy", "wet", "loyal", "muddy", "excited", "young", "brown", "sleeping"),
        ("running after a ball", "on a leash", "in a garden", "on a beach", "catching a frisbee", "with a stick"),
    ),
    "food": (
        ("bowl of soup", "loaf of bread", "plate of pasta", "slice of cake", "pizza", "salad"),
        ("steaming", "fresh", "homemade", "delicious", "spicy", "rustic", "simple", "colourful"),
        (
            "on a wooden table",
            "in a restaurant",
            "with a glass of wine",
            "on a white plate",
            "with herbs",
            "for dinner",
        ),
    ),
    "streets": (
        ("street", "crosswalk", "tram", "taxi", "skyscraper", "market square"),
        ("busy", "rainy", "empty", "narrow", "crowded", "quiet", "neon-lit", "snowy"),
        ("at night", "in Tokyo", "in New York", "at rush hour", "under street lamps", "in the old town"),
    ),
    "mountains": (
        ("mountain", "glacier", "valley", "summit", "ridge", "waterfall"),
        ("snowy", "steep", "misty", "majestic", "remote", "rocky", "sunlit", "high"),
        ("above the clouds", "at sunrise", "behind a pine forest", "in the alps", "with hikers", "over a lake"),
    ),
    "boats": (
        ("sailing boat", "fishing boat", "ferry", "canoe", "lighthouse", "yacht"),
        ("white", "small", "rusty", "elegant", "anchored", "wooden", "stranded", "fast"),
        ("in a harbour", "on a stormy sea", "near a pier", "on calm water", "off the coast", "at low tide"),
    ),
    "portraits": (
        ("woman", "man", "child", "old fisherman", "dancer", "violinist"),
        ("smiling", "serious", "young", "tired", "elegant", "thoughtful", "laughing", "freckled"),
        (
            "in soft light",
            "looking at the camera",
            "wearing a hat",
            "in front of a wall",
            "in profile",
            "in the studio",
        ),
    ),
    "flowers": (
        ("rose", "tulip", "sunflower", "orchid", "bouquet", "daisy"),
        ("red", "wilting", "blooming", "delicate", "yellow", "wild", "fragrant", "dewy"),
        ("in a vase", "in a meadow", "with a bee", "in spring", "close up", "on a grave"),
    ),
    "trains": (
        ("steam locomotive", "train", "railway station", "freight train", "subway car", "railway bridge"),
        ("vintage", "red", "long", "abandoned", "express", "crowded", "slow", "modern"),
        ("crossing a viaduct", "on platform nine", "leaving a tunnel", "in the countryside", "in winter", "at dusk"),
    ),
    "space": (
        ("nebula", "astronaut", "galaxy", "rocket", "planet with rings", "space station"),
        ("distant", "glowing", "lonely", "giant", "blue", "spiralling", "drifting", "icy"),
        ("among the stars", "in orbit", "near a black hole", "above the earth", "on the moon", "in deep space"),
    ),
    "dragons": (
        ("dragon", "wizard", "castle", "knight", "unicorn", "enchanted forest"),
        ("fire-breathing", "ancient", "magical", "fearless", "golden", "cursed", "legendary", "sleeping"),
        ("guarding a treasure", "in a fantasy world", "under two moons", "with a sword", "on a cliff", "in a saga"),
    ),
    "diagrams": (
        ("diagram of a cell", "flow chart", "circuit diagram", "floor plan", "map of the subway", "bar chart"),
        ("labelled", "simple", "technical", "hand-drawn", "minimal", "colour-coded", "old", "detailed"),
        ("for a textbook", "on graph paper", "with arrows", "as an infographic", "in three colours", "on a whiteboard"),
    ),
}
_STYLES = (
    "a photo of a {} {} {}",
    "{} {} {}",
    "an oil painting of a {} {} {}",
    "a {} {} {}, high resolution photo",
    "picture of one {} {} {}",
    "a watercolour of a {} {} {}",
)
_ENDS = ("", "", ", soft colours", ", in detail", " with a blurred background", ", vintage look", " from above")
_WITH_IMAGES = 5  # topics: the first; the others have few or none
_WEB = 3  # files without images


def demo(path: str | os.PathLike[str], *, n_captions: int = 4000, seed: int = 0) -> list[Path]:
    """Write a folder of Parquet files with captions, and return their paths.

    ``photos.parquet`` is of captions with images, mostly of five of the twelve topics. The files ``web-0.parquet`` and
    so on are of captions without. The columns are ``caption``, ``topic`` and ``has_image``.

    Args:
        path: Folder to make.
        n_captions: Rows in all, at least 100. Some are empty, missing, or come twice.
        seed: Of the grammar. Equal seeds give equal captions on any machine.

    Raises:
        ValueError: The folder has files, or an argument is out of its range.
        OSError: It cannot be written.
        ImportError: pyarrow is not installed.
    """
    folder, pa = as_path("path", path), pyarrow()
    integer("n_captions", n_captions, low=100, high=10**7)
    integer("seed", seed, low=0)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError(f"path {shown_path(folder)}: expected an empty folder or a new one")
    if not folder.absolute().parent.is_dir():
        raise ArgumentError(f"path {shown_path(folder)}: expected a folder to make, in a folder that exists")
    with writing(folder):
        folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    n_photos = n_captions // 5
    sizes = [n_photos, *(len(part) for part in np.array_split(np.arange(n_captions - n_photos), _WEB))]
    names = ["photos.parquet", *(f"web-{number}.parquet" for number in range(_WEB))]
    paths: list[Path] = []
    for name, size in zip(names, sizes, strict=True):
        photos = name == names[0]
        captions, topics = _captions(rng, size, photos=photos)
        table = pa.table({"caption": captions, "topic": topics, "has_image": [photos] * size})
        with replacing(folder / name) as unfinished, writing(folder / name):
            pa.parquet.write_table(table, unfinished)
        paths.append(folder / name)
    return paths


def _captions(rng: np.random.Generator, n: int, *, photos: bool) -> tuple[list[Any], list[str]]:
    """Return captions and their topics; some are empty, missing, or have come before."""
    names = list(TOPICS)
    share = np.arange(1, len(names) + 1) ** -0.5
    if photos:
        share[_WITH_IMAGES:] *= 0.05
        share[-2:] = 0
    ends = np.cumsum(share / share.sum())
    captions: list[Any] = []
    topics: list[str] = []
    for row in rng.random((n, 2)):
        draw, odd = float(row[0]), float(row[1])
        topic = names[min(int(np.searchsorted(ends, draw, side="right")), len(names) - 1)]
        if odd < 0.02 and captions:
            before = int(rng.integers(len(captions)))
            captions.append(captions[before])
            topics.append(topics[before])
            continue
        words = [part[int(rng.integers(len(part)))] for part in TOPICS[topic]]
        style = _STYLES[int(rng.integers(len(_STYLES)))]
        text = style.format(words[1], words[0], words[2]) + _ENDS[int(rng.integers(len(_ENDS)))]
        text = re.sub(r"\ba (?=[aeiou])", "an ", text)
        captions.append(None if odd > 0.99 else " " if odd > 0.98 else text)
        topics.append(topic)
    return captions, topics
