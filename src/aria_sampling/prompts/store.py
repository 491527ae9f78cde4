"""`Prompts`: the captions of a pool by their item numbers, mapped from the disk. `open` gives those that are saved."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import as_path, int_vector, integer, shown, shown_path
from aria_sampling.errors import ArgumentError, StoreError
from aria_sampling.prompts._arrow import pyarrow
from aria_sampling.prompts._layout import WRITER, Fingerprint, Header, Source, read_header
from aria_sampling.prompts._rules import Counts

__all__ = ["Prompts", "open"]

_MOST_BATCHES = 4096  # that stay looked up; each is some hundred bytes, its texts stay on the disk
_SOURCE = "source"


class Prompts(Sequence[str]):
    """The captions of a pool, and columns beside them. ``len(pool)`` is the number of items, ``pool[i]`` a text.

    Texts stay on the disk and are mapped, so any number of them takes a few MB. Processes share them. It is a value:
    what another process appends does not show. It can be pickled, which takes its path along.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        self._folder, self._header = folder, header
        self._lock = threading.Lock()
        pa = pyarrow()
        self._files: list[Any] = []
        for part in header.parts:
            try:
                self._files.append(pa.ipc.open_file(pa.memory_map(str(folder / part.name))))
                n_batches = self._files[-1].num_record_batches
            except (OSError, pa.ArrowInvalid) as error:
                raise _damaged(folder / part.name, str(error)) from None
            if n_batches != len(part.batches):
                raise _damaged(folder / part.name, f"{n_batches} batches, expected {len(part.batches)}")
        sizes = [size for part in header.parts for size in part.batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._where = [(file, index) for file, part in enumerate(header.parts) for index in range(len(part.batches))]
        self._held: dict[int, Any] = {}

    # ------------------------------------------------------------ what it is

    def __len__(self) -> int:
        return self._header.n_items

    def __repr__(self) -> str:
        return f"Prompts({shown_path(self._folder)!r}, {len(self)} items)"

    def __reduce__(self) -> tuple[Any, ...]:
        return Prompts, (self._folder.absolute(), self._header)

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._folder

    @property
    def fingerprint(self) -> str:
        """A digest of all texts in their order, 32 hexadecimal digits. Columns do not count."""
        return self._header.fingerprint

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns: those that were kept, ``source`` and ``row``."""
        return tuple(dict.fromkeys((*self._header.columns, _SOURCE, "row")))

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the items come from: a name, the items from `begin` to before `end`, and counts of what was read."""
        return self._header.sources

    @property
    def counts(self) -> Counts:
        """What was read in all, and what was left out."""
        return sum((source.counts for source in self.sources), Counts())

    @property
    def duplicates(self) -> str:
        """What became of captions that came twice: "drop", "keep" or "refuse"."""
        return self._header.duplicates

    # ------------------------------------------------------------ texts

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: Any) -> str | list[str]:
        """Return the text of an item, or of a range of items. A negative number is refused: it is no item."""
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            return self.take(np.arange(begin, end, step))
        number = integer("item", index, low=0, high=max(0, len(self) - 1))
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._batch(batch).column(0)[number - int(self._starts[batch])].as_py()

    def take(self, items: Any) -> list[str]:
        """Return the texts of items, int64 [n], in that order; an item may come twice.

        Raises:
            ValueError: A number that is no item, such as -1.
        """
        numbers = int_vector("items", items, high=len(self))
        batches = np.searchsorted(self._starts, numbers, side="right") - 1
        within = (numbers - self._starts[batches]).tolist()
        column, held, texts = None, -1, list[str]()
        for batch, place in zip(batches.tolist(), within, strict=True):
            if batch != held:
                column, held = self._batch(batch).column(0), batch
            texts.append(column[place].as_py())  # pyright: ignore
        return texts

    def __iter__(self) -> Iterator[str]:
        for _, texts in self.batches():
            yield from texts

    def batches(self, size: int = 8192, *, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of an item, and texts from there on: `size` at a time, of the items `begin` to `end`."""
        integer("size", size, low=1)
        begin = integer("begin", begin, low=0, high=len(self))
        end = len(self) if end is None else integer("end", end, low=begin, high=len(self))
        for first in range(begin, end, size):
            last = min(first + size, end)
            yield first, [text for column in self._slices(0, first, last) for text in column.to_pylist()]

    def find(self, captions: Iterable[str]) -> IntArray:
        """Return the item of each caption, int64 [n], the first that has exactly this text; -1 where none has.

        All texts are read once, 10⁷ of them in some seconds.

        Raises:
            ValueError: A caption is no text.
        """
        wanted = list(captions) if not isinstance(captions, str) else [captions]
        for place, caption in enumerate(wanted):
            if not isinstance(caption, str):  # pyright: ignore
                raise ArgumentError(f"captions[{place}]: expected text, got {shown(caption)}")
        left, found = set(wanted), dict[str, int]()
        for first, texts in self.batches():
            for place, text in enumerate(texts):
                if text in left:
                    found[text] = first + place
                    left.remove(text)
            if not left:
                break
        return np.array([found.get(caption, -1) for caption in wanted], np.int64)

    def digest(self, begin: int = 0, end: int | None = None) -> str:
        """Return what `fingerprint` would be of the items from `begin` to before `end` alone. It reads them."""
        begin = integer("begin", begin, low=0, high=len(self))
        end = len(self) if end is None else integer("end", end, low=begin, high=len(self))
        found = Fingerprint()
        for column in self._slices(0, begin, end):
            found.add_arrow(column)
        return found.hex()

    # ------------------------------------------------------------ columns

    def column(self, name: str, *, null: Any = None) -> AnyArray:
        """Return a column as an array [n]: bool, int64, float64, or of text.

        ``source`` and ``row`` say where items come from. Text takes memory: `codes` and `table` take less.

        Args:
            name: One of `columns`.
            null: What stands where there is no value. If it is None and there are such items, they are refused.

        Raises:
            ValueError: There is no such column, or it has nulls and `null` is None.
        """
        if name == _SOURCE and _SOURCE not in self._header.columns:
            codes, names = self.codes(_SOURCE)
            return np.array(names, object)[codes]
        kind = self._kind(name)
        parts: list[AnyArray] = []
        n_null = 0
        for column in self._slices(name, 0, len(self)):
            n_null += column.null_count
            filled = column if null is None else _filled(column, null, f"{kind}, as the column {name!r} is")
            parts.append(filled.to_numpy(zero_copy_only=False))
        if n_null and null is None:
            value = {"bool": False, "int": -1, "float": 0.0, "text": ""}[kind]
            raise ArgumentError(
                f"column {name!r}: {n_null} of {len(self)} items have no value there; say what stands for none",
                remedy=f"values = pool.column({name!r}, null={value!r})",
            )
        return np.concatenate(parts) if parts else np.empty(0)

    def codes(self, name: str) -> tuple[IntArray, tuple[str, ...]]:
        """Return a column of text as numbers, int64 [n], and the texts that they stand for, in the order they come.

        Items without a value have the text "". What `Partition.from_labels(codes, names=names)` takes.

        Raises:
            ValueError: There is no such column, or it is none of text.
        """
        if name == _SOURCE and _SOURCE not in self._header.columns:
            filled = [source for source in self.sources if source.end > source.begin]
            names = tuple(dict.fromkeys(source.name for source in filled))
            code = {each: number for number, each in enumerate(names)}
            sizes = [source.end - source.begin for source in filled]
            return np.repeat(np.array([code[source.name] for source in filled], np.int64), sizes), names
        if self._kind(name) != "text":
            raise ArgumentError(f"column {name!r}: expected one of text, it is {self._kind(name)}; see pool.column")
        pa = pyarrow()
        known: dict[str, int] = {}
        parts: list[AnyArray] = []
        for column in self._slices(name, 0, len(self)):
            found = pa.compute.fill_null(column, "").dictionary_encode()
            own = [known.setdefault(text, len(known)) for text in found.dictionary.to_pylist()]
            parts.append(np.array(own, np.int64)[found.indices.to_numpy(zero_copy_only=False)])
        return np.concatenate([np.empty(0, np.int64), *parts]), tuple(known)

    def table(self) -> Any:
        """Return all as a `pyarrow.Table`, mapped, not read: the column ``text``, ``row``, and those that were kept.

        Files that were appended have come from pools with the same columns, so there is one schema.
        """
        batches = [self._batch(index) for index in range(len(self._where))]
        return pyarrow().Table.from_batches(batches)

    def _kind(self, name: str) -> str:
        """Return the type of a column that is stored; ValueError if there is none."""
        if name == "row":
            return "int"
        if name not in self._header.columns:
            raise ArgumentError(f"column {shown(name)}: expected one of {', '.join(map(repr, self.columns))}")
        return self._header.columns[name]

    # ------------------------------------------------------------ batches on the disk

    def _batch(self, index: int) -> Any:
        """Return a batch, mapped."""
        batch = self._held.get(index)
        if batch is None:
            file, place = self._where[index]
            with self._lock:
                try:
                    batch = self._files[file].get_batch(place)
                except (OSError, pyarrow().ArrowInvalid) as error:
                    raise _damaged(self._folder / self._header.parts[file].name, str(error)) from None
                if len(self._held) >= _MOST_BATCHES:
                    self._held.clear()
                self._held[index] = batch
        return batch

    def _slices(self, column: int | str, begin: int, end: int) -> Iterator[Any]:
        """Yield the arrays of Arrow that a column of some items is made of."""
        batch = int(np.searchsorted(self._starts, begin, side="right")) - 1
        while begin < end:
            start, stop = int(self._starts[batch]), min(int(self._starts[batch + 1]), end)
            yield self._batch(batch).column(column).slice(begin - start, stop - begin)
            begin, batch = stop, batch + 1

    def verify(self) -> None:
        """Read all that is on the disk; StoreError if a bit differs from what was written."""
        pa = pyarrow()
        found = Fingerprint()
        for index, (file, _) in enumerate(self._where):
            batch = self._batch(index)
            try:
                batch.validate(full=True)
            except pa.ArrowInvalid as error:
                raise _damaged(self._folder / self._header.parts[file].name, str(error)) from None
            found.add_arrow(batch.column(0))
        if found.hex() != self.fingerprint:
            raise _damaged(self._folder, "the texts are not those that were written")


def _filled(column: Any, null: Any, what: str) -> Any:
    """Return a column with a value in the place of nulls; ValueError, with `what` was expected, for another type."""
    pa = pyarrow()
    try:
        return pa.compute.fill_null(column, pa.scalar(null, column.type))
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
        raise ArgumentError(f"null={shown(null)}: expected {what}") from None


def _damaged(path: Path, reason: str) -> StoreError:
    """Return the error for a store that is not what was written."""
    return StoreError(f"{shown_path(path)}: is damaged ({reason[:200]}); write it again by {WRITER}")


def open(path: str | os.PathLike[str], *, verify: bool = False) -> Prompts:
    """Return the store of prompts in a folder. It takes milliseconds, whatever its size.

    Args:
        path: The folder.
        verify: Read all texts and compare them with the fingerprint. Without, a flipped bit goes unnoticed.

    Raises:
        ValueError: `StoreError`: there is no whole store.
        ImportError: pyarrow is not installed.
    """
    folder = as_path("path", path)
    pool = Prompts(folder, read_header(folder))
    if verify:
        pool.verify()
    return pool
