"""Which captions came before, found in constant memory: digests of 128 bits, sorted a part at a time on the disk.

The digests are dealt into parts by their first byte. Equal captions come into one part, and a part is small enough to
sort. Two different captions have one digest with a probability below 10⁻²⁰ in a pool of 10⁹.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, BoolArray

__all__ = ["Duplicates"]

_PARTS = 256
_HELD = 1 << 26  # bytes of digests in memory before they go to the disk
_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("number", "<i8")])
_MOST_IN_MEMORY = 1 << 26  # captions


class Duplicates:
    """Digests of captions by their numbers, as a context manager that removes what it has on the disk.

    Args:
        folder: For its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-duplicates-")
        self._held: list[AnyArray] = []
        self._bytes = 0
        self._spilt = False
        self._next = 0

    def __enter__(self) -> Duplicates:
        """Return itself."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Remove the files."""
        self._folder.cleanup()

    def add(self, encoded: list[bytes]) -> None:
        """Take the captions with the next numbers in, each as UTF-8."""
        blake2b = hashlib.blake2b
        digests = b"".join([blake2b(text, digest_size=16).digest() for text in encoded])
        rows = np.empty(len(encoded), _ROW)
        pairs = np.frombuffer(digests, "<u8").reshape(-1, 2)
        rows["high"], rows["low"] = pairs[:, 0], pairs[:, 1]
        rows["number"] = np.arange(self._next, self._next + len(encoded))
        self._next += len(encoded)
        self._held.append(rows)
        self._bytes += rows.nbytes
        if self._bytes > _HELD:
            self._spill()

    def _spill(self) -> None:
        """Deal what is in memory to the files."""
        rows = np.concatenate(self._held)
        part = rows["low"] % _PARTS
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(_PARTS + 1))
        for number in range(_PARTS):
            with self._path(number).open("ab") as file:
                rows[order[ends[number] : ends[number + 1]]].tofile(file)
        self._held, self._bytes, self._spilt = [], 0, True

    def _path(self, number: int) -> Path:
        return Path(self._folder.name) / f"{number:03d}"

    def _parts(self) -> Iterator[AnyArray]:
        """Yield the digests, equal ones in one array."""
        if not self._spilt:
            yield np.concatenate([np.empty(0, _ROW), *self._held])
            return
        if self._held:
            self._spill()
        for number in range(_PARTS):
            yield np.fromfile(self._path(number), _ROW)

    def later(self, since: int = 0) -> tuple[BoolArray, tuple[int, int] | None]:
        """Return which captions had come before, of those from number `since` on, bool [n - since], and an example.

        The example is the first of them and the number of its first occurrence; None if none had come before.
        """
        n = self._next - since
        flags: Any
        if n > _MOST_IN_MEMORY:
            flags = np.memmap(Path(self._folder.name) / "flags", bool, "w+", shape=(n,))
        else:
            flags = np.zeros(n, bool)
        example: tuple[int, int] | None = None
        for rows in self._parts():
            order = np.lexsort((rows["number"], rows["low"], rows["high"]))
            high, low, number = (rows[name][order] for name in ("high", "low", "number"))
            again = np.zeros(len(rows), bool)
            again[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
            places = np.flatnonzero(again & (number >= since))
            flags[number[places] - since] = True
            if len(places):
                place = int(places[np.argmin(number[places])])
                begin = place - int(np.argmin(again[place::-1]))
                if example is None or number[place] < example[0]:
                    example = int(number[place]), int(number[begin])
        return flags, example
