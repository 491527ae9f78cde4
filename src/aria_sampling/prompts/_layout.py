"""How a prompt store lies on the disk.

A folder has files of Arrow IPC, which are never changed, and ``prompts.json``, which says which of them hold which
items. That file is replaced in one step, last. A folder without it is no store, and a file that it does not name
belongs to nobody: it was left by a process that was killed, and the next writer removes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import shown_path
from aria_sampling._disk import TEMPORARY, read_commit
from aria_sampling.errors import ArgumentError, StoreError
from aria_sampling.partition._kinds import recognised
from aria_sampling.prompts._rules import Counts

__all__ = ["FORMAT", "HEADER", "LOCK", "WRITER", "Fingerprint", "Header", "Part", "Source", "leftovers", "read_header"]

HEADER, LOCK = "prompts.json", ".lock"
FORMAT = "aria-sampling prompts 1"
WRITER = "prompts.write(FOLDER, FILES), or aria-sampling prompts import FILES --out FOLDER"
_NAME = "prompts-"


class Fingerprint:
    """A digest of captions in their order, whatever pieces they come in. Equal digests: the same pool."""

    def __init__(self) -> None:
        self._lengths, self._texts = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)

    def add(self, lengths: AnyArray, texts: Any) -> None:
        """Take captions in: their lengths in bytes of UTF-8, int64, and these bytes one after another."""
        self._lengths.update(np.asarray(lengths, "<i8").tobytes())
        self._texts.update(texts)

    def add_encoded(self, encoded: list[bytes]) -> None:
        """Take captions in, each as UTF-8."""
        self.add(np.fromiter(map(len, encoded), np.int64, len(encoded)), b"".join(encoded))

    def add_arrow(self, column: Any) -> None:
        """Take an array of Arrow strings in, without a copy of the texts."""
        if not len(column):
            return
        _, offsets, texts = column.buffers()
        ends = np.frombuffer(offsets, "<i4", len(column) + 1, 4 * column.offset)
        self.add(np.diff(ends).astype(np.int64), memoryview(texts)[ends[0] : ends[-1]] if texts is not None else b"")

    def copy(self) -> Fingerprint:
        """Return one of its own that goes on from here."""
        other = Fingerprint()
        other._lengths, other._texts = self._lengths.copy(), self._texts.copy()
        return other

    def hex(self) -> str:
        """Return it, 32 digits."""
        return hashlib.blake2b(self._lengths.digest() + self._texts.digest(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Part:
    """One file of Arrow: its name, its size in bytes, and how many items each of its batches has."""

    name: str
    size: int
    batches: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where some items come from.

    Attributes:
        name: Path of the file as it was given, or the kind of an object in memory.
        begin: The first of its items.
        end: One more than the last.
        counts: What was read there, and what was left out.
    """

    name: str
    begin: int
    end: int
    counts: Counts


@dataclass(frozen=True)
class Header:
    """What ``prompts.json`` says.

    Attributes:
        n_items: How many captions there are.
        fingerprint: Digest of all of them.
        columns: Name to type of the columns beside them.
        duplicates: "drop", "keep" or "refuse": what became of captions that come twice.
        parts: The files.
        sources: Where the items come from, in their order.
    """

    n_items: int
    fingerprint: str
    columns: dict[str, str]
    duplicates: str
    parts: tuple[Part, ...]
    sources: tuple[Source, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Header:
        """Return what `to_json` made; it may raise anything for other values."""
        parts = tuple(Part(part["name"], int(part["size"]), tuple(part["batches"])) for part in value["parts"])
        sources = tuple(
            Source(one["name"], int(one["begin"]), int(one["end"]), Counts(**one["counts"])) for one in value["sources"]
        )
        header = Header(
            int(value["n_items"]), value["fingerprint"], dict(value["columns"]), value["duplicates"], parts, sources
        )
        ends = [0, *(source.end for source in sources)]
        fits = (
            sum(sum(part.batches) for part in parts) == header.n_items == ends[-1]
            and all(source.begin == end for source, end in zip(sources, ends, strict=False))
            and all(Path(part.name).name == part.name for part in parts)
        )
        if not fits:
            raise ArgumentError("its numbers of items do not fit each other")
        return header


def read_header(folder: Path) -> Header:
    """Return the header of a store.

    Raises:
        StoreError: There is none, it is damaged, or a file is missing or has another size.
    """
    name = shown_path(folder)
    try:
        header = Header.from_json(read_commit(folder / HEADER, FORMAT, "a store of prompts", WRITER))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(_no_store(folder)) from None
    except (KeyError, TypeError, ArgumentError) as error:
        raise StoreError(f"{name}: {HEADER} is damaged ({error!r:.200}); write it again by {WRITER}") from error
    for part in header.parts:
        path = folder / part.name
        size = path.stat().st_size if path.is_file() else None
        if size != part.size:
            came = "it is not there" if size is None else f"it has {size} bytes"
            raise StoreError(f"{name}: {part.name}: expected {part.size} bytes, and {came}; write it again by {WRITER}")
    return header


def _no_store(folder: Path) -> str:
    """Return what to say where there is no header."""
    name = shown_path(folder)
    if folder.is_dir():
        begun = any(folder.glob(f"*{_NAME}*")) or (folder / LOCK).exists()
        what = "an import that did not end is there" if begun else f"no {HEADER} is in this folder"
        return f"{name}: {what}; captions become a store by {WRITER}"
    if not folder.exists():
        return f"{name}: there is no such folder; a store is made by {WRITER}"
    came = (recognised(folder) or "it is a file").replace("it is", "got", 1)
    return f"{name}: expected the folder of a store of prompts, {came}; captions become a store by {WRITER}"


def leftovers(folder: Path, named: Iterable[str]) -> list[Path]:
    """Return the files that an unfinished or a former import left in a folder: all of ours that are not `named`."""
    named = set(named)
    return [
        path
        for path in folder.iterdir()
        if path.name.startswith(TEMPORARY) or (path.name.startswith(_NAME) and path.name not in named)
    ]
