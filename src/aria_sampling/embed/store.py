"""`Embeddings`: the embeddings of a pool as one array that stays on the disk. `open` gives those that are saved."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import as_path, int_vector, integer, shown_path
from aria_sampling.embed._layout import WRITER, Plan, read_header
from aria_sampling.embed._tfidf import Tfidf
from aria_sampling.embed.batch import Encoder
from aria_sampling.embed.encoders import load
from aria_sampling.errors import ArgumentError, StoreError

__all__ = ["Embeddings", "open"]

_MOST_OPEN = 32  # shards that stay mapped
_CHUNK = 1 << 16  # rows


class Embeddings:
    """Embeddings [n_items, width] in shards on the disk: row i is that of item i.

    ``x[a:b]``, ``x[i]`` and ``x[indices]`` give arrays of NumPy and read these rows alone. ``np.asarray(x)`` reads all
    of them into memory. `chunks` goes through them.

    Attributes:
        shape: (n_items, width).
        dtype: float16 or float32.
    """

    ndim = 2

    def __init__(self, folder: Path, header: Plan) -> None:
        self._folder, self._header = folder, header
        self.shape = (header.n_items, header.width)
        self.dtype = np.dtype(header.dtype)
        self._mapped: OrderedDict[int, AnyArray] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        n, width = self.shape
        return f"Embeddings({shown_path(self._folder)!r}, {self.dtype} [{n}, {width}], encoder={self.encoder_name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Embeddings, (self._folder.absolute(), self._header)

    @property
    def path(self) -> Path:
        """Their folder."""
        return self._folder

    @property
    def encoder_name(self) -> str:
        """The text that names the encoder which made them, or the class of one that was passed."""
        return self._header.encoder

    @property
    def prompts(self) -> str:
        """The fingerprint of the captions that they are of: `Prompts.fingerprint` of the pool."""
        return self._header.prompts

    @property
    def nbytes(self) -> int:
        """Bytes of all of them, on the disk."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def encoder(self, *, device: str | None = None, batch_size: int | None = None) -> Encoder:
        """Return the encoder that made them, for captions that are not in the pool; see `load`.

        Raises:
            ValueError: It was an object that was passed, which is not saved.
        """
        if self.encoder_name.startswith("object:"):
            raise ArgumentError(
                f"encoder: these embeddings are by {self.encoder_name[7:]}, which was passed: use that one"
            )
        found = load(self.encoder_name, device=device, batch_size=batch_size)
        return found.restored(self._folder) if isinstance(found, Tfidf) else found

    # ------------------------------------------------------------ as an array

    def __getitem__(self, index: Any) -> AnyArray:
        """Return rows: of a number, of a slice, or of an array of numbers (int64 [m], fastest in order) or a mask.

        Raises:
            ValueError: A number that is no item, such as -1.
        """
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            return self._slice(begin, max(begin, end)) if step == 1 else self[np.arange(begin, end, step)]
        if np.ndim(index) == 0:
            item = integer("item", index, low=0, high=len(self) - 1)
            return self._slice(item, item + 1)[0]
        array = np.asarray(index)
        if array.dtype == bool:
            if array.shape != (len(self),):
                raise ArgumentError(f"index: expected a mask of {len(self)} items, got shape {array.shape}")
            array = np.flatnonzero(array)
        return self._rows(int_vector("index", array, high=len(self)))

    def _slice(self, begin: int, end: int) -> AnyArray:
        """Return the rows from `begin` to before `end`: mapped if they are in one shard, else copied."""
        rows = self._header.shard_rows
        if begin >= end:
            return np.empty((0, self.shape[1]), self.dtype)
        parts = [
            self._shard(number)[max(begin - number * rows, 0) : end - number * rows]
            for number in range(begin // rows, (end - 1) // rows + 1)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _rows(self, items: AnyArray) -> AnyArray:
        """Return the rows of items, int64 [m], in that order, one shard after another."""
        out = np.empty((len(items), self.shape[1]), self.dtype)
        shards = items // self._header.shard_rows
        order = np.argsort(shards, kind="stable")
        ends = np.flatnonzero(np.diff(shards[order])) + 1
        for places in np.split(order, ends) if len(items) else ():
            number = int(shards[places[0]])
            out[places] = self._shard(number)[items[places] - number * self._header.shard_rows]
        return out

    def _shard(self, number: int) -> AnyArray:
        """Return a shard, mapped."""
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        shard = self._header.shards[number]
        path = self._folder / shard.name
        try:
            found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{shown_path(path)}: is damaged ({str(error)[:200]}); remove it, and run {WRITER}"
            ) from None
        if found.shape != (shard.end - shard.begin, self.shape[1]) or found.dtype != self.dtype:
            raise StoreError(f"{shown_path(path)}: is damaged (it has {found.dtype} {list(found.shape)})")
        self._mapped[number] = found.view(np.ndarray)
        if len(self._mapped) > _MOST_OPEN:
            self._mapped.popitem(last=False)
        return self._mapped[number]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> AnyArray:
        """Return all rows in memory. `chunks` needs less."""
        if copy is False:
            raise ArgumentError("embeddings: expected copy=None or True, got False: they are on the disk, in shards")
        return np.array(self._slice(0, len(self)), dtype or self.dtype)

    def __iter__(self) -> Iterator[AnyArray]:
        for _, rows in self.chunks():
            yield from rows

    def chunks(self, rows: int = _CHUNK) -> Iterator[tuple[int, AnyArray]]:
        """Yield the number of an item and the embeddings from there on, `rows` at a time."""
        integer("rows", rows, low=1)
        for begin in range(0, len(self), rows):
            yield begin, self._slice(begin, min(begin + rows, len(self)))


def open(path: str | os.PathLike[str]) -> Embeddings:
    """Return the embeddings in a folder. Nothing is read but their names and sizes.

    Raises:
        ValueError: `StoreError`: there are none that are whole.
    """
    folder = as_path("path", path)
    return Embeddings(folder, read_header(folder))
