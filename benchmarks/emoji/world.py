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
SPLITS = ("seen", "unseen", "rare")
CONDITIONS = ("pool", "held_out")
POOLS = ("all", "names", "long_tail", "diluted")
_EVAL_PROMPTS, _THIN, _TAIL, _BLEND = 201, 204, 205, 206  # first words of generators' keys


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


@dataclass(frozen=True)
class Scenario:
    """What one choice of unseen groups makes of the world.

    - *paired*: emoji whose images are there to distil on: of seen groups, not held out.
    - *pool*: prompts a condition may be drawn from: of every group, seen or not, but of no held-out concept.
    - splits: *unseen* groups; *rare*, the smallest quarter of the subgroups of the seen groups, by number of emoji;
      *seen*, the rest. Each in two conditions: prompts of concepts the pool is made of, and of held-out concepts.

    `pool_kind` is one of `POOLS`. "all": every prompt. "names": one prompt an emoji. "long_tail": of a subgroup a
    random share sqrt(size / largest size) of its prompts, so that sizes go as size^(3/2). "diluted": every prompt, and
    four times as many conditions halfway between the embeddings of two prompts of seen groups, so that the share of
    unseen ones falls to a fifth. `paired_share`: how much of the paired emoji is kept.
    """

    world: Emoji
    unseen: tuple[str, ...]
    pool_kind: str = "all"
    paired_share: float = 1.0

    def __post_init__(self) -> None:
        groups = set(self.world.groups.tolist())
        if not self.unseen or not set(self.unseen) < groups:
            raise ValueError(f"unseen={self.unseen!r}: expected some, not all, of the groups {sorted(groups)}")
        if self.pool_kind not in POOLS or not 0 < self.paired_share <= 1:
            raise ValueError(
                f"pool_kind={self.pool_kind!r}: expected one of {POOLS}; paired_share={self.paired_share!r}: a share"
            )

    @cached_property
    def is_unseen(self) -> np.ndarray:
        """bool[N]"""
        return np.isin(self.world.groups, self.unseen)

    @cached_property
    def paired(self) -> np.ndarray:
        """int64[n]: emoji with an image to distil on."""
        emoji = np.flatnonzero(~self.is_unseen & ~self.world.held_out)
        kept = round(len(emoji) * self.paired_share)
        return emoji if kept == len(emoji) else np.sort(stream(_THIN, 0).permutation(emoji)[:kept])

    @cached_property
    def pool(self) -> np.ndarray:
        """int64[M]: the prompt of every item of the pool; of a blend of two, the first of them."""
        world = self.world
        prompts = np.flatnonzero(~world.held_out[world.prompt_emoji])
        if self.pool_kind == "names":
            return np.intersect1d(prompts, world.prompt_start[:-1])
        if self.pool_kind == "long_tail":
            of = world.subgroups[world.prompt_emoji[prompts]]
            _, subgroup, sizes = np.unique(of, return_inverse=True, return_counts=True)
            keep = np.sqrt(sizes / sizes.max())[subgroup]
            return prompts[stream(_TAIL, 0).random(len(prompts)) < keep]
        if self.pool_kind == "diluted":
            return np.concatenate([prompts, self._blends[0]])
        return prompts

    @cached_property
    def _blends(self) -> np.ndarray:
        """int64[2, n]: pairs of prompts of seen groups, not held out, that are blended."""
        emoji = self.world.prompt_emoji
        seen = np.flatnonzero(~self.is_unseen[emoji] & ~self.world.held_out[emoji])
        return seen[stream(_BLEND, 0).integers(len(seen), size=(2, 4 * int((~self.world.held_out[emoji]).sum())))]

    @cached_property
    def pool_embeddings(self) -> np.ndarray:
        """float32[M, D]: the condition of every item of the pool."""
        found = self.world.embeddings[self.pool]
        if self.pool_kind == "diluted":
            one, other = (self.world.embeddings[blended] for blended in self._blends)
            found[-len(one) :] = (one + other) / 2
        return found

    @cached_property
    def pool_item(self) -> np.ndarray:
        """int64[P]: the pool item of a prompt, -1 where it is not in the pool."""
        items = np.full(len(self.world.prompts), -1)
        whole = len(self.pool) - (self._blends.shape[1] if self.pool_kind == "diluted" else 0)
        items[self.pool[:whole]] = np.arange(whole)
        return items

    @cached_property
    def rare_subgroups(self) -> tuple[str, ...]:
        """The smallest quarter of the subgroups of seen groups; ties by name."""
        names, sizes = np.unique(self.world.subgroups[~self.is_unseen], return_counts=True)
        order = sorted(zip(sizes.tolist(), names.tolist(), strict=True))
        return tuple(name for _, name in order[: len(order) // 4])

    def emoji_of(self, split: str, condition: str) -> np.ndarray:
        """int64[n]: the emoji of a split ("seen", "unseen", "rare") and condition ("pool", "held_out")."""
        rare = np.isin(self.world.subgroups, self.rare_subgroups)
        members = {"unseen": self.is_unseen, "rare": ~self.is_unseen & rare, "seen": ~self.is_unseen & ~rare}[split]
        return np.flatnonzero(members & (self.world.held_out == (condition == "held_out")))

    def eval_prompts(self, split: str, condition: str, count: int) -> np.ndarray:
        """int64[<= count]: fixed prompts to evaluate on, one of each of up to `count` emoji; no run's seed enters."""
        rng = stream(_EVAL_PROMPTS, SPLITS.index(split), CONDITIONS.index(condition))
        emoji = rng.permutation(self.emoji_of(split, condition))[:count]
        return rng.integers(self.world.prompt_start[emoji], self.world.prompt_start[emoji + 1])

    def show_prompts(self, count: int) -> np.ndarray:
        """int64[count]: names to draw in figures, by a rule made before any run: the first emoji in the pool of each
        of `count` subgroups of the unseen groups, evenly spaced."""
        emoji = self.emoji_of("unseen", "pool")
        _, first = np.unique(self.world.subgroups[emoji], return_index=True)
        first = np.sort(first)
        chosen = first[np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]
        return self.world.prompt_start[emoji[chosen]]


def scenario(world: Emoji, unseen: Sequence[str] | str, pool_kind: str = "all", paired_share: float = 1.0) -> Scenario:
    """A scenario from group names, or from one string of them separated by commas.

    >>> scenario(Emoji.load(), "Animals & Nature, Food & Drink").unseen
    ('Animals & Nature', 'Food & Drink')
    """
    parts = unseen.split(",") if isinstance(unseen, str) else unseen
    return Scenario(world, tuple(sorted(part.strip() for part in parts)), pool_kind, paired_share)
