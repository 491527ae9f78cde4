"""Rows of captions from a file of any kind, a piece at a time, as they stand there; `_rules` says what becomes of them.

A piece has a few thousand rows at most, so memory is constant whatever the size of the file. Errors name the file and
the line, or the row where a format has no lines.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aria_sampling._check import kind_of, shown, shown_path
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._arrow import pyarrow
from aria_sampling.prompts._files import File
from aria_sampling.prompts._kept import Kept
from aria_sampling.prompts._lines import blocks

__all__ = ["MOST", "Piece", "Reading", "pieces", "pieces_of_table", "pieces_of_texts"]

MOST = 131_072  # characters of a caption; the csv module's own limit, so that one rule holds for all kinds
_ROWS = 8192
_BYTES = 1 << 22  # of the captions of a piece, about
_USUAL = ("caption", "captions", "text", "prompt", "prompts")


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        column: The one with the captions, by name or, without header, by number; None for the one that is obvious.
        encoding: Of text.
        header: Whether CSV and TSV begin with the names of their columns.
        quotes: Whether CSV and TSV quote fields.
    """

    column: str | int | None
    encoding: str
    header: bool
    quotes: bool


@dataclass(frozen=True)
class Piece:
    """Some rows.

    Attributes:
        captions: What stands for a caption in each row: a text, None, a list, or what should not be there.
        kept: The columns beside, arrays of Arrow of the same length.
        row: Number of the first row, from 0.
        place: Where a row of the piece stands, for messages.
    """

    captions: list[Any]
    kept: dict[str, Any]
    row: int
    place: Callable[[int], str]


def pieces(file: File, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the rows of a file.

    Raises:
        ValueError: The file cannot be read, has no such column, or a value beside a caption does not fit its column.
    """
    if file.kind in ("parquet", "arrow"):
        return _of_arrow(file, reading, kept)
    if file.kind == "jsonl":
        return _of_jsonl(file, reading, kept)
    return _of_text(file, reading, kept) if file.kind == "text" else _of_csv(file, reading, kept)


def _lines_from(name: str, first: int) -> Callable[[int], str]:
    """Return what says where the rows of a piece stand, one a line."""
    return lambda index: f"{shown_path(name)}, line {first + index}"


def _rows_from(name: str, first: int) -> Callable[[int], str]:
    """Return what says where the rows of a piece stand, by number from 0."""
    return lambda index: f"{shown_path(name)}, row {first + index}"


def _column(name: str, columns: Sequence[str], wanted: str | int | None) -> str:
    """Return the name of the column of captions; ValueError, with those that there are, if that is not clear."""
    listed = f"{shown_path(name)}: it has the columns {shown(list(columns))}"
    if wanted is None:
        if len(columns) == 1:
            return columns[0]
        usual = [column for column in columns if column.lower() in _USUAL]
        if len(usual) == 1:
            return usual[0]
        raise ArgumentError(f"{listed}; say which has the captions with column=")
    if isinstance(wanted, int):
        if not 0 <= wanted < len(columns):
            raise ArgumentError(f"column={wanted}: expected a number from 0 to {len(columns) - 1}; {listed}")
        return columns[wanted]
    if wanted not in columns:
        raise ArgumentError(f"column={shown(wanted)}: there is none of that name; {listed}")
    return wanted


def _all_there(name: str, columns: Sequence[str], kept: Kept) -> None:
    """Raise ValueError if a column to keep is not there."""
    missing = [column for column in kept.names if column not in columns]
    if missing:
        raise ArgumentError(
            f"keep={shown(missing)}: there is none of that name; {shown_path(name)}: it has the columns "
            f"{shown(list(columns))}"
        )


# ---------------------------------------------------------------- Parquet and Arrow


def _of_arrow(file: File, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the rows of a Parquet file, or of a file or a stream of Arrow."""
    name = shown_path(file.name)
    what = "Parquet" if file.kind == "parquet" else "Arrow"
    batches = _batches_of_parquet(file, reading, kept) if what == "Parquet" else _batches_of_arrow(file, reading, kept)
    row = 0
    while True:
        try:
            found = next(batches, None)
        except (ArgumentError, MemoryError, ImportError):
            raise
        except Exception as error:  # whatever pyarrow meets in a file that is damaged or of another kind
            raise ArgumentError(
                f"{name}: cannot be read as {what} to its end ({str(error)[:200]}); read up to row {row}"
            ) from None
        if found is None:
            return
        column, batch = found
        for begin in range(0, len(batch), _ROWS):
            part = batch.slice(begin, _ROWS)
            yield _piece_of_batch(file.name, part, column, row, kept)
            row += len(part)


def _batches_of_parquet(file: File, reading: Reading, kept: Kept) -> Iterator[tuple[str, Any]]:
    """Yield the name of the column of captions, and batches of it and of what is kept."""
    pa = pyarrow()
    with file.path.open("rb") as raw, pa.parquet.ParquetFile(raw) as table:
        columns = list(table.schema_arrow.names)
        column = _column(file.name, columns, reading.column)
        _all_there(file.name, columns, kept)
        for batch in table.iter_batches(batch_size=_rows_at_once(table, column), columns=[column, *kept.names]):
            yield column, batch


def _rows_at_once(table: Any, column: str) -> int:
    """Return how many rows of a Parquet file to read at once, by the mean size of a caption."""
    found = table.metadata
    if not found.num_rows:
        return 1
    group = found.row_group(0)
    parts = (group.column(index) for index in range(group.num_columns))
    large = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] == column)
    return max(1, min(_ROWS, _BYTES * max(1, group.num_rows) // max(1, large)))


def _batches_of_arrow(file: File, reading: Reading, kept: Kept) -> Iterator[tuple[str, Any]]:
    """Yield the same of a file of Arrow, mapped, or of a stream, as `datasets` of Hugging Face writes."""
    pa = pyarrow()
    with pa.memory_map(str(file.path)) as raw:
        stream = raw.read(6) != b"ARROW1"
        raw.seek(0)
        opened = pa.ipc.open_stream(raw) if stream else pa.ipc.open_file(raw)
        columns = list(opened.schema.names)
        column = _column(file.name, columns, reading.column)
        _all_there(file.name, columns, kept)
        batches = opened if stream else (opened.get_batch(index) for index in range(opened.num_record_batches))
        for batch in batches:
            part = batch.select([column, *kept.names])
            part.validate(full=True)  # what is mapped was never looked at: a damaged length would end the process
            yield column, part


def _piece_of_batch(name: str, batch: Any, column: str, row: int, kept: Kept) -> Piece:
    """Return some rows of Arrow."""
    place = _rows_from(name, row)
    captions = _python(batch.column(column), column, place)
    beside = {each: kept.of_arrow(each, batch.column(each), place) for each in kept.names}
    return Piece(captions, beside, row, place)


def _python(array: Any, column: str, place: Callable[[int], str]) -> list[Any]:
    """Return a column of captions as Python values; ValueError for bytes that are no UTF-8."""
    pa = pyarrow()
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type) or pa.types.is_binary_view(array.type):
        return [None if raw is None else _decoded(raw, index, place) for index, raw in enumerate(array.to_pylist())]
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [_decoded_scalar(array, index, column, place) for index in range(len(array))]


def _decoded(raw: bytes, index: int, place: Callable[[int], str]) -> str:
    """Return bytes of UTF-8 as text."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        came = raw[error.start : error.start + 4].hex(" ")
        raise ArgumentError(f"{place(index)}: expected UTF-8, got the bytes {came} ({error.reason})") from None


def _decoded_scalar(array: Any, index: int, column: str, place: Callable[[int], str]) -> Any:
    """Return one element of a column of text that has bytes in it which are no UTF-8."""
    try:
        return array[index].as_py()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{place(index)}: column {column!r}: expected UTF-8 ({error.reason})") from None


# ---------------------------------------------------------------- text


def _of_text(file: File, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the lines of plain text, a caption each."""
    if kept.names:
        raise ArgumentError(f"keep={shown(list(kept.names))}: {shown_path(file.name)} is plain text, without columns")
    for first, lines in blocks(file, reading.encoding):
        for begin in range(0, len(lines), _ROWS):
            part = [line[:-1] if line.endswith("\r") else line for line in lines[begin : begin + _ROWS]]
            yield Piece(part, {}, first - 1 + begin, _lines_from(file.name, first + begin))


def _of_jsonl(file: File, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the lines of JSON Lines: objects, or texts alone. An empty line is an empty caption."""
    column: str | None = None
    for number, lines in blocks(file, reading.encoding):
        for begin in range(0, len(lines), _ROWS):
            first = number + begin
            place = _lines_from(file.name, first)
            values = [_parsed(line, index, place) for index, line in enumerate(lines[begin : begin + _ROWS])]
            objects: list[dict[str, Any]] = [value if isinstance(value, dict) else {} for value in values]
            names = list(dict.fromkeys(name for each in objects for name in each))
            if column is None and names:
                column = _column(file.name, names, reading.column)
                _all_there(file.name, names, kept)
            captions: list[Any] = [
                each.get(str(column)) if isinstance(value, dict) else value
                for value, each in zip(values, objects, strict=True)
            ]
            beside = {name: kept.of_values(name, [each.get(name) for each in objects], place) for name in kept.names}
            yield Piece(captions, beside, first - 1, place)


def _parsed(line: str, index: int, place: Callable[[int], str]) -> Any:
    """Return what a line of JSON Lines holds; "" if it is empty."""
    if not line.strip():
        return ""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        whole = line.strip()
        hint = (
            "; a file that is one array is not JSON Lines: jq -c '.[]' FILE" if whole[0] in "[{" and index == 0 else ""
        )
        raise ArgumentError(f"{place(index)}: expected one value of JSON, got {shown(whole)} ({error}){hint}") from None
    if isinstance(found, list):
        raise ArgumentError(
            f"{place(index)}: expected an object or a text on every line, got an array: jq -c '.[]' FILE makes lines "
            "of it"
        )
    return found  # pyright: ignore


class _Rows:
    """Rows of CSV that become a piece: captions, the lines that they begin in, and fields beside them."""

    def __init__(self, file: File, kept: Kept) -> None:
        self.file, self.kept, self.row, self.size = file, kept, 0, 0
        self.captions: list[Any] = []
        self.lines: list[int] = []
        self.beside: dict[str, list[str]] = {name: [] for name in kept.names}

    def add(self, fields: list[str], line: int, places: dict[str, int], column: int) -> None:
        """Take a row in; one without any field is an empty line."""
        self.captions.append(fields[column] if fields else "")
        self.lines.append(line)
        self.size += len(self.captions[-1])
        for name, values in self.beside.items():
            values.append(fields[places[name]] if fields else "")

    def piece(self) -> Piece:
        """Return the rows, and begin anew."""
        lines, name, captions, row = self.lines, shown_path(self.file.name), self.captions, self.row

        def place(index: int) -> str:
            return f"{name}, line {lines[index]}"

        arrays = {each: self.kept.of_values(each, values, place, words=True) for each, values in self.beside.items()}
        self.row, self.size, self.captions, self.lines = row + len(captions), 0, [], []
        self.beside = {each: [] for each in self.beside}
        return Piece(captions, arrays, row, place)


def _of_csv(file: File, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the rows of CSV or TSV. A field that is empty is an empty caption."""
    counted = _Counted(file, reading.encoding)
    rows = csv.reader(
        counted,
        delimiter="\t" if file.kind == "tsv" else ",",
        quoting=csv.QUOTE_MINIMAL if reading.quotes else csv.QUOTE_NONE,
        strict=True,
    )
    first = _row(file, rows, counted)
    if first is None:
        return
    columns = _header(file, first, reading.header)
    column = _column(file.name, columns, reading.column)
    _all_there(file.name, columns, kept)
    places = {name: columns.index(name) for name in kept.names}
    gathered = _Rows(file, kept)
    if not reading.header:
        gathered.add(first, 1, places, columns.index(column))
    while True:
        line = counted.line
        fields = _row(file, rows, counted)
        if fields is None:
            break
        if fields and len(fields) != len(columns):
            raise ArgumentError(
                f"{shown_path(file.name)}, line {line}: expected {len(columns)} fields, as in the first line, got "
                f"{len(fields)}"
            )
        gathered.add(fields, line, places, columns.index(column))
        if len(gathered.captions) == _ROWS or gathered.size > _BYTES:
            yield gathered.piece()
    if gathered.captions:
        yield gathered.piece()


def _row(file: File, rows: Iterator[list[str]], counted: _Counted) -> list[str] | None:
    """Return the fields of the next row, None at the end; ValueError if the csv module cannot read it."""
    line = counted.line
    try:
        return next(rows, None)
    except csv.Error as error:
        raise _bad_csv(file, line, counted.line - 1, str(error)) from None


def _header(file: File, fields: list[str], header: bool) -> list[str]:
    """Return the names of the columns; without header they are numbers."""
    names = list(fields) if header else [str(number) for number in range(len(fields))]
    if len(set(names)) < len(names):
        raise ArgumentError(f"{shown_path(file.name)}, line 1: expected a name for each column, got {shown(names)}")
    return names


def _bad_csv(file: File, first: int, last: int, reason: str) -> ArgumentError:
    """Return the error for a row that the csv module cannot read."""
    span = f"line {first}" if last <= first else f"lines {first} to {last}"
    if "field larger" in reason:
        reason = f"a field of more than {MOST} characters: is a quote never closed?"
    elif "unexpected end" in reason:
        reason = "a quote is never closed"
    elif "new-line character" in reason:
        reason = "\\r in a field without quotes; lines end at \\n or \\r\\n"
    hint = "" if file.kind == "csv" else "; quotes=False takes quotes as they are"
    return ArgumentError(f"{shown_path(file.name)}, {span}: is not {file.kind.upper()} ({reason}){hint}")


class _Counted:
    r"""The lines of a file with their ends, for the csv module, and the number of the one that comes next."""

    def __init__(self, file: File, encoding: str) -> None:
        self.line = 1
        self._lines = (line for _, lines in blocks(file, encoding) for line in lines)

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.line += 1
        return line + "\n"


# ---------------------------------------------------------------- what is in memory


def pieces_of_texts(texts: Any) -> Iterator[Piece]:
    """Yield captions that came as a list, or one after another."""
    row, held = 0, list[Any]()
    for text in texts:
        held.append(text)
        if len(held) == _ROWS:
            yield Piece(held, {}, row, _rows_from("captions", row))
            row, held = row + _ROWS, []
    if held:
        yield Piece(held, {}, row, _rows_from("captions", row))


def pieces_of_table(table: Any, reading: Reading, kept: Kept) -> Iterator[Piece]:
    """Yield the rows of a table of pyarrow, pandas, polars or whatever else exports Arrow."""
    pa = pyarrow()
    stream = pa.RecordBatchReader.from_stream(table)
    column = _column(kind_of(table), stream.schema.names, reading.column)
    _all_there(kind_of(table), stream.schema.names, kept)
    row = 0
    for whole in stream:
        batch = whole.select([column, *kept.names])
        for begin in range(0, len(batch), _ROWS):
            part = batch.slice(begin, _ROWS)
            yield _piece_of_batch(kind_of(table), part, column, row, kept)
            row += len(part)
