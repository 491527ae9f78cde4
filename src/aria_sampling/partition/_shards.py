"""A folder of ``.npy`` files as one array of rows, of which one file is open at a time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import shown_path
from aria_sampling.errors import ArgumentError

__all__ = ["Shards"]


class Shards:
    """The rows of all ``.npy`` files of a folder, in the order of their names; numbers in names go by size.

    It takes slices and sorted arrays of row numbers, and returns arrays. Nothing is kept in memory.

    Attributes:
        paths: The files.
        shape: (n, d) of all together.
        dtype: That holds the numbers of each.

    Raises:
        ValueError: There is no such file, one is no array [n, d], or they differ in d.
    """

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = sorted(folder.glob("*.npy"), key=_by_number)
        if not self.paths:
            raise ArgumentError(f"{shown_path(folder)}: expected a folder of .npy files, got none in it")
        headers = [_header(path) for path in self.paths]
        widths = {shape[1] for shape, _ in headers}
        if len(widths) > 1:
            first = next(i for i, (shape, _) in enumerate(headers) if shape[1] != headers[0][0][1])
            raise ArgumentError(
                f"{shown_path(self.paths[first])}: expected {headers[0][0][1]} columns, as the files before it, got "
                f"{headers[first][0][1]}"
            )
        self._ends = np.cumsum([shape[0] for shape, _ in headers], dtype=np.int64)
        self.shape: tuple[int, int] = int(self._ends[-1]), widths.pop()
        self.dtype = np.result_type(*(dtype for _, dtype in headers))

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice | IntArray) -> AnyArray:
        """Return the rows of a slice, or those of ascending numbers."""
        items = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        found = np.empty((len(items), self.shape[1]), self.dtype)
        shard = np.searchsorted(self._ends, items, side="right")
        for number in map(int, np.unique(shard)):
            where = slice(*np.searchsorted(shard, [number, number + 1]).tolist())
            begin = int(self._ends[number - 1]) if number else 0
            own = items[where] - begin
            array = _mapped(self.paths[number])  # anew, so that the pages that were read are let go of
            consecutive = len(own) == own[-1] - own[0] + 1
            found[where] = array[int(own[0]) : int(own[-1]) + 1] if consecutive else array[own]
        return found


def _mapped(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of a file; ValueError unless it holds numbers [n, d]."""
    try:
        array = _mapped(path)
        if array.ndim == 2 and array.dtype.kind in "iuf":
            return array.shape, array.dtype
        came = f"{array.dtype} {list(array.shape)}"
    except Exception as error:  # whatever NumPy meets in a file that is none of its own, or cut off
        came = " ".join(str(error).split())[:160]
    raise ArgumentError(f"{shown_path(path)}: expected an .npy file of numbers [n, d], got {came}")


def _by_number(path: Path) -> list[Any]:
    """Return what files are sorted by: part-2 comes before part-10."""
    return [(part == "", int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", path.name)]
