"""`write` and `append`: captions become a store, all of them or none. See `_layout` for what lies on the disk."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import BoolArray
from aria_sampling._check import as_path, shown, shown_path
from aria_sampling._disk import Lock, commit, replacing, temporary, writing
from aria_sampling._progress import Progress
from aria_sampling.errors import ArgumentError, StoreError, UsageError
from aria_sampling.prompts._arrow import pyarrow
from aria_sampling.prompts._duplicates import Duplicates
from aria_sampling.prompts._kept import Kept, arrow_type
from aria_sampling.prompts._layout import HEADER, LOCK, Fingerprint, Header, Part, Source, leftovers, read_header
from aria_sampling.prompts._rules import Counts, Taken
from aria_sampling.prompts.reader import Captions, as_captions
from aria_sampling.prompts.store import Prompts
from aria_sampling.prompts.store import open as open_store

__all__ = ["append", "write"]

_CHOICES = ("drop", "keep", "refuse")
_ROWS, _BYTES = 1 << 16, 1 << 24  # of a batch on the disk


def write(
    path: str | os.PathLike[str],
    captions: Any,
    *,
    constants: Mapping[str, Any] | None = None,
    duplicates: str = "drop",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Prompts:
    """Make a store of prompts and return it. Items are numbered from 0, in the order of the captions.

    It is there whole or not at all: if this fails or is killed, what was in the folder before still opens.

    Args:
        path: Folder to make; its parent is there.
        captions: What `read` returned; or a path, a folder or a glob; or texts.
        constants: Columns with one value for all of these captions, such as ``{"has_image": True}``.
        duplicates: Captions that are equal to an earlier one, letter by letter: "drop", "keep" or "refuse" them.
        overwrite: Whether a store that is there may be replaced.
        progress: Whether to show a bar; None: if the errors go to a terminal and tqdm is installed.

    Raises:
        ValueError: Something in the captions is refused; no caption is left; a store is there, or other files.
        OSError: The disk is full, or the folder cannot be written.
        RuntimeError: Another process is writing to it.
        ImportError: pyarrow is not installed.
    """
    if duplicates not in _CHOICES:
        raise ArgumentError(f"duplicates={shown(duplicates)}: expected one of {', '.join(map(repr, _CHOICES))}")
    folder, source = as_path("path", path), as_captions(captions, constants)
    pyarrow()
    made = _make(folder, overwrite=bool(overwrite))
    try:
        return _import(folder, source, None, duplicates, progress)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
        raise


def append(
    path: str | os.PathLike[str],
    captions: Any,
    *,
    constants: Mapping[str, Any] | None = None,
    duplicates: str | None = None,
    progress: bool | None = None,
) -> Prompts:
    """Add captions to a store, behind those that are there, and return it. Items keep their numbers.

    It is done or not at all, as with `write`. A `Prompts` that is open stays as it is.

    Args:
        path: Folder of a store.
        captions: As in `write`, with the columns that the store has.
        constants: As in `write`.
        duplicates: As in `write`, earlier captions of the store included; None: as when it was written. All but
            "keep" read the whole store, about a second for a million captions.
        progress: As in `write`.

    Raises:
        ValueError: As in `write`; other columns are kept; there is no whole store.
        OSError: The disk is full, or the folder cannot be written.
        RuntimeError: Another process is writing to it.
        ImportError: pyarrow is not installed.
    """
    if duplicates is not None and duplicates not in _CHOICES:
        raise ArgumentError(
            f"duplicates={shown(duplicates)}: expected one of {', '.join(map(repr, _CHOICES))}, or None"
        )
    folder, source = as_path("path", path), as_captions(captions, constants)
    return _import(folder, source, open_store(folder), duplicates, progress)


def _make(folder: Path, *, overwrite: bool) -> bool:
    """Make the folder of a store, and return whether it was not there; ValueError if it holds something else."""
    name = shown_path(folder)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"path {name}: expected a folder to make, got a file")
    if folder.is_dir():
        if (folder / HEADER).exists():
            if not overwrite:
                raise ArgumentError(
                    f"path {name}: a store is there; prompts.append adds to it, overwrite=True replaces it"
                )
        elif others := [each for each in folder.iterdir() if each.name != LOCK and each not in leftovers(folder, ())]:
            raise ArgumentError(
                f"path {name}: expected an empty folder or a new one, got one with {min(others).name!r}"
            )
        return False
    if not folder.absolute().parent.is_dir():
        raise ArgumentError(f"path {name}: expected a folder to make in a folder that exists")
    with writing(folder):
        folder.mkdir()
    return True


def _import(
    folder: Path, captions: Captions, old: Prompts | None, duplicates: str | None, progress: bool | None
) -> Prompts:
    """Write captions behind those of `old`, or in the place of all that is there, and return the store."""
    with writing(folder):
        locked = Lock(folder / LOCK)
    with locked as lock:
        if not lock.held:
            raise UsageError(f"{shown_path(folder)}: another process is writing to this store")
        if old is not None:
            old = open_store(folder)  # nobody else has it now
        try:
            _swept(folder)
            header = _staged(folder, captions, old, duplicates or (old.duplicates if old else "drop"), progress)
            commit(folder / HEADER, header.to_json())
        finally:
            _swept(folder)
        return Prompts(folder, header)


def _swept(folder: Path) -> None:
    """Remove the files that do not belong to the store."""
    try:
        named = [part.name for part in read_header(folder).parts] if (folder / HEADER).exists() else []
    except StoreError:
        return  # it is to be replaced; nothing is known of what is in it
    for path in leftovers(folder, named):
        if path.is_dir():
            for each in path.iterdir():
                each.unlink()
            path.rmdir()
        else:
            path.unlink()


class _Batches:
    """A file of Arrow that is being written in batches of a good size."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.schema = schema
        self.sizes: list[int] = []
        self._file = path.open("wb")
        self._writer = pyarrow().ipc.new_file(self._file, schema)
        self._held: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, batch: Any) -> None:
        """Take some rows in."""
        if len(batch) > 1 and batch.nbytes > _BYTES:  # long captions
            half = len(batch) // 2
            self.add(batch.slice(0, half))
            self.add(batch.slice(half))
            return
        while self._rows + len(batch) > _ROWS:
            room = _ROWS - self._rows
            self._hold(batch.slice(0, room))
            batch = batch.slice(room)
            self._flush()
        self._hold(batch)
        if self._bytes > _BYTES:
            self._flush()

    def _hold(self, batch: Any) -> None:
        """Keep some rows until there are enough."""
        self._held.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes

    def _flush(self) -> None:
        """Write what is kept as one batch."""
        if self._rows:
            whole = pyarrow().Table.from_batches(self._held, self.schema).combine_chunks()
            (batch,) = whole.to_batches()
            self._writer.write_batch(batch)
            self.sizes.append(self._rows)
        self._held, self._rows, self._bytes = [], 0, 0

    def finish(self) -> None:
        """Write the rest and the end of the file."""
        self._flush()
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is; what cannot be written of it any more is no loss."""
        with contextlib.suppress(OSError):
            self._file.close()


@dataclass
class _Import:
    """What is going on while captions are written.

    Attributes:
        captions: What is read.
        old: The store that is appended to.
        kept: The columns beside.
        known: Digests of all captions, the old ones first; None if duplicates are kept.
        printed: The fingerprint, so far.
        counts: Of each source.
    """

    captions: Captions
    old: Prompts | None
    kept: Kept
    known: Duplicates | None
    printed: Fingerprint
    counts: list[Counts]


def _staged(folder: Path, captions: Captions, old: Prompts | None, duplicates: str, progress: bool | None) -> Header:
    """Write the file of new captions, and return the header that makes it part of the store."""
    staging = temporary(folder / "staging.arrow")
    n_old = 0 if old is None else len(old)
    with ExitStack() as stack:
        known = stack.enter_context(Duplicates(folder)) if duplicates != "keep" else None
        now = _Import(captions, old, captions.kept(), known, Fingerprint(), [Counts() for _ in captions.names])
        if old is not None:
            _known(old, now)
        before = now.printed.copy()
        batches = _written(staging, now, progress)
        total = sum(now.counts, Counts())
        again, example = (np.zeros(0, bool), None) if known is None else known.later(n_old)
        if example is not None:
            if duplicates == "refuse":
                raise _comes_twice(staging, now, example, n_old)
            batches, staging, now.printed = _filtered(folder, staging, batches, again, before)
            ends = np.cumsum([0, *(each.items for each in now.counts)])
            for number, each in enumerate(now.counts):
                gone = int(again[ends[number] : ends[number + 1]].sum())
                now.counts[number] = replace(each, items=each.items - gone, duplicates=gone)
        del again  # it may be mapped from what is removed now
    n_new = sum(each.items for each in now.counts)
    if n_old + n_new == 0:
        raise ArgumentError(
            f"captions: expected at least one, got none: of {total.rows} rows {total.empty} are empty and {total.null} "
            "have no caption"
        )
    parts = () if old is None else old._header.parts  # pyright: ignore[reportPrivateUsage]
    if n_new:
        final = folder / f"prompts-{len(parts):05d}-{secrets.token_hex(4)}.arrow"
        with replacing(final) as unfinished, writing(final):
            os.replace(staging, unfinished)
        parts = (*parts, Part(final.name, final.stat().st_size, tuple(batches.sizes)))
    begin, sources = n_old, () if old is None else old.sources
    for name, each in zip(captions.names, now.counts, strict=True):
        sources = (*sources, Source(name, begin, begin + each.items, each))
        begin += each.items
    return Header(n_old + n_new, now.printed.hex(), dict(now.kept.types), duplicates, parts, sources)


def _known(old: Prompts, now: _Import) -> None:
    """Take in the captions of the store that is appended to."""
    for column in old._slices(0, 0, len(old)):  # pyright: ignore[reportPrivateUsage]
        now.printed.add_arrow(column)
        if now.known is not None:
            with writing(old.path):
                now.known.add(column.cast(pyarrow().binary()).to_pylist())


def _written(path: Path, now: _Import, progress: bool | None) -> _Batches:
    """Write all captions, duplicates included, and count and digest them on the way."""
    pa = pyarrow()
    out: _Batches | None = None
    try:
        with Progress("reading captions", None, "captions", progress) as bar:
            for number, found in now.captions.taken(now.kept):
                _constants(now.kept, found)
                encoded = [text.encode() for text in found.texts]
                now.printed.add_encoded(encoded)
                texts = pa.array(encoded, pa.binary()).cast(pa.string())
                with writing(path.parent):
                    out = out or _Batches(path, _schema(now))
                    if now.known is not None:
                        now.known.add(encoded)
                    columns = [found.kept[name] for name in out.schema.names[2:]]
                    out.add(pa.record_batch([texts, pa.array(found.rows), *columns], out.schema))
                now.counts[number] += found.counts
                bar.add(len(texts))
        with writing(path.parent):
            done = out = out or _Batches(path, _schema(now))
            done.finish()
        return done
    finally:
        if out is not None:
            out.abandon()


def _constants(kept: Kept, found: Taken) -> None:
    """Add the columns that have one value for all."""
    pa = pyarrow()
    for name, value in kept.constants.items():
        found.kept[name] = pa.repeat(pa.scalar(value, arrow_type(kept.types[name])), len(found.texts))


def _schema(now: _Import) -> Any:
    """Return the columns of the file; ValueError unless they are those of the store that is appended to."""
    kept, old = now.kept, now.old
    for name in kept.names:
        kept.types.setdefault(name, "text")  # nothing was read
    if old is not None:
        wanted = old._header.columns  # pyright: ignore[reportPrivateUsage]
        if kept.types != wanted:
            raise ArgumentError(
                f"captions: expected the columns of the store, {shown(wanted)}, got {shown(kept.types)}; keep= of "
                "prompts.read names columns of a file, constants= gives one value to all captions"
            )
        kept.types = dict(wanted)  # in that order
    pa = pyarrow()
    beside = [(name, arrow_type(kind)) for name, kind in kept.types.items()]
    return pa.schema([("text", pa.string()), ("row", pa.int64()), *beside])


def _read_back(path: Path) -> Iterator[Any]:
    """Yield the batches of a file that was just written."""
    pa = pyarrow()
    with pa.memory_map(str(path)) as raw:
        file = pa.ipc.open_file(raw)
        for index in range(file.num_record_batches):
            yield file.get_batch(index)


def _filtered(
    folder: Path, staging: Path, staged: _Batches, again: BoolArray, printed: Fingerprint
) -> tuple[_Batches, Path, Fingerprint]:
    """Write the captions once more, without those that came before; remove the first file."""
    pa = pyarrow()
    path = temporary(folder / "filtered.arrow")
    begin = 0
    with writing(folder):
        out = _Batches(path, staged.schema)
        try:
            for batch in _read_back(staging):
                left = batch.filter(pa.array(~again[begin : begin + len(batch)]))
                printed.add_arrow(left.column(0))
                out.add(left)
                begin += len(batch)
            out.finish()
        finally:
            out.abandon()
        staging.unlink()
    return out, path, printed


def _comes_twice(staging: Path, now: _Import, example: tuple[int, int], n_old: int) -> ArgumentError:
    """Return the error for a caption that had come before, with both places."""
    number, first = example
    begin = n_old
    text, row = "", 0
    for batch in _read_back(staging):
        if begin <= number < begin + len(batch):
            text, row = batch.column(0)[number - begin].as_py(), batch.column(1)[number - begin].as_py()
        begin += len(batch)
    ends = n_old + np.cumsum([each.items for each in now.counts])
    name = now.captions.names[int(np.searchsorted(ends, number, side="right"))]
    return ArgumentError(
        f"{shown_path(name)}, row {row}: {shown(text)} has come before, as item {first}; duplicates='drop' leaves such "
        "out, 'keep' makes an item of each"
    )
