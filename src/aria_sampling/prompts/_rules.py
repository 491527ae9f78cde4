"""What is a caption: one rule for each case, for all kinds of files, and counts of what was left out.

| in the place of a caption | what happens |
|---|---|
| a text | it is taken as it is, to the last blank |
| no letters but white space, or none at all | `empty`: left out, or refused |
| null, NaN, a missing entry | `null`: left out, or refused |
| a list | `lists`: each of its captions, the first, or refused; the rules hold for what is in it |
| anything else, a text of more than 131,072 characters, half a surrogate pair | refused |

What comes twice is a matter of the store, see `_duplicates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from aria_sampling._arrays import IntArray
from aria_sampling._check import is_null, kind_of, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._arrow import pyarrow
from aria_sampling.prompts._tables import MOST, Piece

__all__ = ["Counts", "Rules", "Taken", "take"]

_CHOICES = {"empty": ("drop", "refuse"), "null": ("drop", "refuse"), "lists": ("each", "first", "refuse")}


@dataclass(frozen=True)
class Rules:
    """What becomes of what is no single caption; see the module.

    Raises:
        ValueError: A word that is none of the choices.
    """

    empty: str = "drop"
    null: str = "drop"
    lists: str = "each"

    def __post_init__(self) -> None:
        """Check the words."""
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ArgumentError(
                    f"{name}={shown(getattr(self, name))}: expected one of {', '.join(map(repr, choices))}"
                )


@dataclass(frozen=True)
class Counts:
    """How many rows were read, and what became of them: ``captions == items + empty + null + duplicates``.

    Attributes:
        rows: Read.
        captions: In these rows. A list has as many as it has entries, but one with `lists` "first", and an empty list
            is one that is empty.
        items: That were taken.
        empty: Left out, since there was nothing but white space.
        null: Left out, since there was none.
        duplicates: Left out, since they had come before.
    """

    rows: int = 0
    captions: int = 0
    items: int = 0
    empty: int = 0
    null: int = 0
    duplicates: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the sums."""
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Taken:
    """The captions of a piece.

    Attributes:
        texts: Each of them.
        rows: Their rows in the file, int64.
        kept: The columns beside, arrays of Arrow, of the same length.
        counts: What was read and left out.
        piece: Where they come from.
    """

    texts: list[str]
    rows: IntArray
    kept: dict[str, Any]
    counts: Counts
    piece: Piece

    def place(self, index: int) -> str:
        """Where one of them stands, for messages."""
        return self.piece.place(int(self.rows[index]) - self.piece.row)


def take(piece: Piece, rules: Rules) -> Taken:
    """Return the captions of a piece; ValueError, naming the place, for what is refused."""
    texts: list[str] = []
    index: list[int] = []
    empty = null = captions = 0
    for place, whole in enumerate(piece.captions):
        if type(whole) is str:  # nearly all of them
            entries: Sequence[Any] = (whole,)
        elif isinstance(whole, list | tuple | np.ndarray):
            entries = _entries(cast("Any", whole), place, piece, rules)
        else:
            entries = (whole,)
        for value in entries:
            captions += 1
            if isinstance(value, str):
                if value.strip():
                    if len(value) > MOST:
                        raise ArgumentError(f"{piece.place(place)}: {_TOO_LONG}, got {len(value)}: {shown(value)}")
                    texts.append(value if type(value) is str else str(value))  # NumPy's own, for one
                    index.append(place)
                elif rules.empty == "refuse":
                    raise ArgumentError(
                        f"{piece.place(place)}: expected a caption, got {'an empty one' if not value else shown(value)}"
                        "; empty='drop' leaves such out"
                    )
                else:
                    empty += 1
            elif is_null(value):
                if rules.null == "refuse":
                    raise ArgumentError(
                        f"{piece.place(place)}: expected a caption, got none; null='drop' leaves such out"
                    )
                null += 1
            else:
                raise ArgumentError(f"{piece.place(place)}: expected a caption, got {kind_of(value)} {shown(value)}")
    _encodable(texts, index, piece)
    where = np.array(index, np.int64)
    kept = piece.kept
    if kept and (len(where) != len(piece.captions) or captions != len(piece.captions)):
        pa = pyarrow()
        kept = {name: array.take(pa.array(where)) for name, array in kept.items()}
    counts = Counts(len(piece.captions), captions, len(texts), empty, null)
    return Taken(texts, where + piece.row, kept, counts, piece)


_TOO_LONG = f"expected a caption of at most {MOST} characters"


def _entries(whole: Any, place: int, piece: Piece, rules: Rules) -> Sequence[Any]:
    """Return the captions in a list of them; one that is empty for an empty list."""
    if rules.lists == "refuse":
        raise ArgumentError(
            f"{piece.place(place)}: expected a caption, got a list of {len(whole)}; lists='each' takes all of a list, "
            "lists='first' the first"
        )
    entries = list(whole) or [""]
    return entries[:1] if rules.lists == "first" else entries


def _encodable(texts: list[str], index: list[int], piece: Piece) -> None:
    """Raise ValueError for a text that cannot be written as UTF-8, which JSON can carry."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        pass
    else:
        return
    for place, text in zip(index, texts, strict=True):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(
                f"{piece.place(place)}: expected text, got half a surrogate pair, {text[error.start]!a}, "
                f"in {shown(text)}"
            ) from None
