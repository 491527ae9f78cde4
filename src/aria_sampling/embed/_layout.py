"""How embeddings lie on the disk.

A folder has shards, files of NumPy, each with the embeddings of some thousand items in their order. The name of a shard
has a digest of its texts in it, so that a run knows which ones are done. ``embeddings.json`` names the shards of the
whole and what made them. It is written last; until then, ``plan.json`` says what is being made.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._check import shown, shown_path
from aria_sampling._disk import read_commit
from aria_sampling.errors import ArgumentError, StoreError

__all__ = ["HEADER", "LOCK", "PLAN", "WRITER", "Plan", "Shard", "read_header", "read_plan", "shard_size"]

HEADER, PLAN, LOCK = "embeddings.json", "plan.json", ".lock"
WRITER = "embed.write(FOLDER, POOL, encoder=...), or aria-sampling embed POOL --encoder ... --out FOLDER"
_FORMAT, _PLAN_FORMAT = "aria-sampling embeddings 1", "aria-sampling plan of embeddings 1"
_CLOSE = 0.02  # of the largest number: what float16 and another device may change


@dataclass(frozen=True)
class Shard:
    """One file: its name, and the items from `begin` to before `end`."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """What is to be made, or was.

    Attributes:
        encoder: The text that names the encoder, or the class of one that was passed.
        width: Numbers a text.
        dtype: Of these.
        zeros: "refuse" or "keep".
        shard_rows: Items of a shard; the last has fewer.
        n_items: Of the pool.
        prompts: Fingerprint of its captions.
        probe: Embeddings of its first captions, by which another encoder of the same name is recognised.
        shards: Those of the whole; empty in a plan.
    """

    encoder: str
    width: int
    dtype: str
    zeros: str
    shard_rows: int
    n_items: int
    prompts: str
    probe: tuple[tuple[float, ...], ...]
    shards: tuple[Shard, ...] = ()

    def spans(self) -> list[tuple[int, int]]:
        """Return the items of each shard, from begin to before end."""
        return [
            (begin, min(begin + self.shard_rows, self.n_items)) for begin in range(0, self.n_items, self.shard_rows)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"format": _FORMAT if self.shards else _PLAN_FORMAT, **asdict(self)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Plan:
        """Return what `to_json` made; it may raise anything for other values."""
        more = {name: entry for name, entry in value.items() if name != "format"}
        more["probe"] = tuple(tuple(map(float, row)) for row in more["probe"])
        more["shards"] = tuple(Shard(**shard) for shard in more["shards"])
        plan = Plan(**more)
        if plan.shards and [(shard.begin, shard.end) for shard in plan.shards] != plan.spans():
            raise ArgumentError("its shards do not fit its number of items")
        return plan

    def differs(self, other: Plan) -> str:
        """Return what another one has differently, for a message; "" if its shards can be taken.

        The width and the probe count where both are known. Whether zeros are refused does not count: a run that was
        refused for them goes on with "keep".
        """
        for name in ("encoder", "dtype", "shard_rows", "width"):
            own, others = getattr(self, name), getattr(other, name)
            if own != others and not (name == "width" and 0 in (own, others)):
                return f"{name}={shown(others)}, not {shown(own)}"
        n = min(len(self.probe), len(other.probe))
        own, others = np.array(self.probe[:n]), np.array(other.probe[:n])
        if np.abs(own - others).max(initial=0) > _CLOSE * np.abs(own).max(initial=0):
            return "other vectors for the first captions: another encoder of that name, or other captions"
        return ""

    def done(self, shards: tuple[Shard, ...]) -> Plan:
        """Return the header of the whole."""
        return replace(self, shards=shards)


def read_header(folder: Path) -> Plan:
    """Return what a folder of embeddings holds.

    Raises:
        StoreError: It holds none that are whole.
    """
    name = shown_path(folder)
    try:
        plan = Plan.from_json(read_commit(folder / HEADER, _FORMAT, "a folder of embeddings", WRITER))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{name}: {_nothing(folder)}; embeddings are made by {WRITER}") from None
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{name}: {HEADER} is damaged ({error!r:.200}); write it again by {WRITER}") from error
    for shard in plan.shards:
        path, wanted = folder / shard.name, shard_size(plan, shard.end - shard.begin)
        size = path.stat().st_size if path.is_file() else None
        if size != wanted:
            came = "it is not there" if size is None else f"it has {size} bytes"
            raise StoreError(f"{name}: {shard.name}: expected {wanted} bytes, and {came}; remove it and run it again")
    return plan


def _nothing(folder: Path) -> str:
    """Return what a folder is that holds no whole embeddings."""
    if not folder.exists():
        return "there is no such folder"
    if not folder.is_dir():
        return "expected a folder of embeddings, got a file"
    try:
        plan = read_plan(folder)
    except StoreError:
        plan = None
    if plan is None:
        return f"no {HEADER} is in this folder"
    there = len(list(folder.glob("embeddings-*.npy")))
    return f"{min(there, len(plan.spans()))} of {len(plan.spans())} shards are done; run it again to go on"


def read_plan(folder: Path) -> Plan | None:
    """Return the plan of embeddings that are being made in a folder, None if there is none."""
    try:
        return Plan.from_json(read_commit(folder / PLAN, _PLAN_FORMAT, "a plan of embeddings", WRITER))
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ArgumentError) as error:
        raise StoreError(
            f"{shown_path(folder)}: {PLAN} is damaged ({error!r:.200}); overwrite=True begins anew"
        ) from None


def shard_size(plan: Plan, rows: int) -> int:
    """Return how many bytes the file of a shard has."""
    return header_of(plan, rows)[1] + rows * plan.width * np.dtype(plan.dtype).itemsize


def header_of(plan: Plan, rows: int) -> tuple[bytes, int]:
    """Return what a shard's file begins with, and its length."""
    import io

    written = io.BytesIO()
    entries = {"descr": np.dtype(plan.dtype).newbyteorder("<").str, "fortran_order": False, "shape": (rows, plan.width)}
    np.lib.format.write_array_header_1_0(written, entries)
    return written.getvalue(), len(written.getvalue())
