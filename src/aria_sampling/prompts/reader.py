"""`read`: the one reader of captions. The store, the command line, the scripts and the how-tos all read by it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aria_sampling._check import kind_of, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._files import File, files_of
from aria_sampling.prompts._kept import Kept
from aria_sampling.prompts._lines import checked_encoding
from aria_sampling.prompts._rules import Counts, Rules, Taken, take
from aria_sampling.prompts._tables import Piece, Reading, pieces, pieces_of_table, pieces_of_texts

__all__ = ["Captions", "as_captions", "read"]


_AS_USUAL, _DROPS, _NOTHING = Reading(None, "utf-8", True, True), Rules(), dict[str, Any]()


class Captions:
    """Captions from files or from memory, read anew each time they are iterated over, in constant memory.

    Made by `read`. Iterating yields each caption, a str.
    """

    def __init__(
        self,
        files: tuple[File, ...],
        memory: Any = None,
        *,
        reading: Reading = _AS_USUAL,
        rules: Rules = _DROPS,
        keep: tuple[str, ...] = (),
        constants: Mapping[str, Any] = _NOTHING,
    ) -> None:
        self._files, self._memory, self._reading, self._rules = files, memory, reading, rules
        self._keep, self._constants = keep, dict(constants)
        self._counts = Counts()

    @property
    def names(self) -> tuple[str, ...]:
        """What the sources are called: paths of files, or the kind of an object in memory."""
        return tuple(file.name for file in self._files) or (_called(self._memory),)

    @property
    def rules(self) -> Rules:
        """What becomes of what is no single caption."""
        return self._rules

    @property
    def counts(self) -> Counts:
        """Rows read and captions left out by the last iteration, as far as it came."""
        return self._counts

    def beside(self, constants: Mapping[str, Any]) -> Captions:
        """Return the same with more columns that have one value for all."""
        more = {**self._constants, **constants}
        Kept(self._keep, more)  # checks the names
        return Captions(
            self._files, self._memory, reading=self._reading, rules=self._rules, keep=self._keep, constants=more
        )

    def kept(self) -> Kept:
        """Return what is kept beside the captions, to be filled in by `taken`."""
        return Kept(self._keep, self._constants)

    def taken(self, kept: Kept) -> Iterator[tuple[int, Taken]]:
        """Yield the number of a source, and some of its captions."""
        self._counts = Counts()
        for number, pieces_ in enumerate(self._pieces(kept)):
            for piece in pieces_:
                found = take(piece, self._rules)
                self._counts += found.counts
                yield number, found

    def _pieces(self, kept: Kept) -> Iterator[Iterator[Piece]]:
        """Yield the rows of each source."""
        for file in self._files:
            yield pieces(file, self._reading, kept)
        if not self._files:
            table = hasattr(self._memory, "__arrow_c_stream__")
            yield pieces_of_table(self._memory, self._reading, kept) if table else pieces_of_texts(self._memory)

    def __iter__(self) -> Iterator[str]:
        """Yield each caption."""
        for _, found in self.taken(self.kept()):
            yield from found.texts


def _called(memory: Any) -> str:
    """Return what an object in memory is called in the store."""
    return "captions" if isinstance(memory, list | tuple) else kind_of(memory)


def read(
    sources: Any,
    *,
    column: str | int | None = None,
    keep: Sequence[str] = (),
    constants: Mapping[str, Any] | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    header: bool = True,
    quotes: bool = True,
    empty: str = "drop",
    null: str = "drop",
    lists: str = "each",
) -> Captions:
    """Return the captions of files, folders and globs; nothing is read before they are iterated over.

    Args:
        sources: A path, a folder, a glob, or several of these; or a table in memory (pyarrow, pandas, polars, whatever
            exports Arrow). Files are Parquet, Arrow (also the folders of `datasets.save_to_disk`), JSON Lines, CSV,
            TSV or plain text, a caption a line. Text may be packed as .gz, .zst or .bz2. Several sources come as
            given, the files of a folder or a glob by their names.
        column: Name of the column of captions, or its number. It may be left out if there is one column, or one that
            is called caption, captions, text, prompt or prompts.
        keep: Names of columns to keep beside the captions, such as ``["has_image", "score:float"]``. The types are
            bool, int, float and text.
        constants: Columns with one value for all captions read here, such as ``{"has_image": True}``.
        format: "parquet", "arrow", "jsonl", "csv", "tsv" or "text", if the names of the files do not say it.
        encoding: Of text. A byte order mark is not part of the first caption.
        header: Whether CSV and TSV begin with the names of their columns. Without, columns are numbered from 0.
        quotes: Whether CSV and TSV quote fields.
        empty: "drop" or "refuse" captions of nothing but white space.
        null: "drop" or "refuse" rows without a caption.
        lists: Take "each" caption of a list, the "first", or "refuse" lists.

    Raises:
        ValueError: An argument or a name of a file is not as above. What is wrong in a file is raised as it is read,
            and named by file and line, or by row, from 0, where a format has no lines.
    """
    if column is not None and (isinstance(column, bool) or not isinstance(column, str | int)):  # pyright: ignore
        raise ArgumentError(f"column={shown(column)}: expected the name or the number of a column")
    if isinstance(keep, str):
        raise ArgumentError(f"keep={keep!r}: expected a list of names, got a text")
    kept = tuple(str(name) for name in keep)
    reading = Reading(column, checked_encoding(encoding), bool(header), bool(quotes))
    rules = Rules(empty, null, lists)
    constants = dict(constants or {})
    Kept(kept, constants)  # checks the names
    if hasattr(sources, "__arrow_c_stream__"):
        return Captions((), sources, reading=reading, rules=rules, keep=kept, constants=constants)
    return Captions(files_of(sources, format), reading=reading, rules=rules, keep=kept, constants=constants)


def as_captions(value: Any, constants: Mapping[str, Any] | None = None) -> Captions:
    """Return what stands for captions as `Captions`: what `read` returned, a path, a table, or texts themselves.

    With `constants`, these are columns beside them.
    """
    found = _as_captions(value)
    return found.beside(constants) if constants else found


def _as_captions(value: Any) -> Captions:
    """Do what `as_captions` does without constants."""
    if isinstance(value, Captions):
        return value
    if isinstance(value, str | os.PathLike) or hasattr(value, "__arrow_c_stream__"):
        return read(value)
    if isinstance(value, bytes | Mapping):
        raise ArgumentError(f"captions: expected a path, what prompts.read returns, or texts, got {kind_of(value)}")
    if isinstance(value, list | tuple) and value and all(_is_file(each) for each in value[:20]):  # pyright: ignore
        raise ArgumentError(
            f"captions: expected texts, got names of files, {shown(value)}",
            remedy="from aria_sampling import prompts; captions = prompts.read(captions)",
        )
    if not hasattr(value, "__iter__"):  # pyright: ignore
        raise ArgumentError(
            f"captions: expected a path, what prompts.read returns, or texts, got {kind_of(value)} {shown(value)}"
        )
    return Captions((), value)


def _is_file(value: Any) -> bool:
    """Whether it is the name of a file that is there."""
    try:
        return isinstance(value, str | os.PathLike) and os.path.isfile(value)  # pyright: ignore
    except (OSError, ValueError):
        return False
