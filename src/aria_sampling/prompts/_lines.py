r"""The lines of a text file, in constant memory: one rule for what a line is, and the line that a bad byte is in.

A line ends at ``\n`` or ``\r\n`` and nowhere else. `str.splitlines` and most readers also split at U+2028, U+0085,
vertical tabs and form feeds, which captions contain. The text is UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

from aria_sampling._check import shown, shown_path
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._arrow import pyarrow
from aria_sampling.prompts._files import PACKED, File

__all__ = ["blocks", "checked_encoding"]

_READ = 1 << 20  # bytes at a time
_MOST = 1 << 24  # characters of a line
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def checked_encoding(encoding: Any) -> str:
    """Return the name of a text encoding; ValueError if Python has none of that name."""
    try:
        codecs.getincrementaldecoder(encoding)
        "".encode(encoding)
    except (LookupError, TypeError, AttributeError):
        raise ArgumentError(
            f"encoding={shown(encoding)}: expected the name of a text encoding, such as 'utf-8' or 'cp1252'"
        ) from None
    return encoding


def blocks(file: File, encoding: str) -> Iterator[tuple[int, list[str]]]:
    r"""Yield the number of a line, from 1, and some lines from there on, without their ``\n``; a ``\r`` is kept.

    Raises:
        ValueError: The file cannot be read or unpacked, a byte is not of the encoding, or a line never ends.
    """
    utf8 = codecs.lookup(encoding).name == "utf-8"
    decoder = codecs.getincrementaldecoder("utf-8-sig" if utf8 else encoding)("strict")
    number, rest = 1, ""
    for raw in _pieces(file):
        if utf8 and number == 1 and not rest and raw[:2] in _MARKS:
            raise ArgumentError(
                f"{shown_path(file.name)}, line 1: expected UTF-8, got {_MARKS[raw[:2]].upper()} by its byte order "
                "mark; pass encoding='utf-16'"
            )
        try:
            text = decoder.decode(raw, not raw)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(encoding, "ignore")
            line = number + (rest + before).count("\n")
            raise ArgumentError(
                f"{shown_path(file.name)}, line {line}: expected {encoding}, got the bytes "
                f"{error.object[error.start : error.start + 4].hex(' ')} there ({error.reason}); pass encoding=, such "
                "as 'cp1252', or mend the file"
            ) from None
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if lines:
            yield number, lines
            number += len(lines)
        if len(rest) > _MOST:
            alone = " (it has \\r alone, where \\n is expected)" if "\r" in rest else ""
            raise ArgumentError(f"{shown_path(file.name)}, line {number}: is longer than {_MOST} characters{alone}")
    if number == 1 and "\r" in rest[:-1]:
        raise ArgumentError(
            f"{shown_path(file.name)}, line 1: has \\r inside and no \\n behind; lines end at \\n or \\r\\n: convert "
            "the file, or end this line by \\n if it is one"
        )
    if rest:
        yield number, [rest]


def _pieces(file: File) -> Iterator[bytes]:
    """Yield the bytes of a file, unpacked, a piece at a time, and nothing more at its end."""
    try:
        with file.path.open("rb") as raw:
            begin = raw.read(4)
            raw.seek(0)
            how = next((name for start, name in PACKED.items() if begin.startswith(start)), None)
            stream: Any = raw if how is None else pyarrow().CompressedInputStream(raw, how)
            while piece := stream.read(_READ):
                yield piece
    except OSError as error:
        raise ArgumentError(
            f"{shown_path(file.name)}: cannot be read to its end ({str(error.strerror or error)[:200]})"
        ) from None
    yield b""
