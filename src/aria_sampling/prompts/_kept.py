"""Columns beside the captions: their types, which are the same in all files of a pool.

There are four: bool, int (64 bits), float (64 bits) and text. A column of Parquet or Arrow has the one that its own
type fits. In JSON Lines the first values decide. Fields of CSV are text. ``"name:type"`` says another one, and values
are converted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aria_sampling._check import kind_of, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._arrow import pyarrow

__all__ = ["RESERVED", "TYPES", "Kept", "arrow_type", "constant_type", "parsed"]

TYPES = ("bool", "int", "float", "text")
RESERVED = ("text", "row")  # what the store's own columns are called
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_MOST_INT = 2**63


def arrow_type(kind: str) -> Any:
    """Return the type of Arrow for one of `TYPES`."""
    pa = pyarrow()
    return {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string()}[kind]


def constant_type(name: str, value: Any) -> str:
    """Return which of `TYPES` a value is of; ValueError, naming the column, if none."""
    for kind, own in (("bool", bool), ("int", int), ("float", float), ("text", str)):
        if isinstance(value, own):
            return kind
    raise ArgumentError(f"constants[{name!r}]: expected a bool, an int, a float or a text, got {shown(value)}")


class Kept:
    """Which columns are kept, and their types as far as they are known: filled in as files are read.

    Args:
        names: Such as ``"score"`` or ``"score:float"``.
        constants: Columns with one value for all.

    Attributes:
        names: Of the columns that are read.
        types: Name of a column to one of `TYPES`.
        constants: As they came.
    """

    def __init__(self, names: Sequence[str], constants: dict[str, Any]) -> None:
        self.types: dict[str, str] = {}
        self.constants = constants
        self._said: set[str] = set()
        listed: list[str] = []
        for column in names:
            name, mark, kind = str(column).rpartition(":")
            if mark and kind in TYPES:
                self.types[name] = kind
                self._said.add(name)
            else:
                name = str(column)
            listed.append(name)
        self.names = tuple(listed)
        for name in (*self.names, *constants):
            if name in RESERVED:
                raise ArgumentError(f"keep: a column may not be called {name!r}, which is one of the store's own")
            if [*self.names, *constants].count(name) > 1:
                raise ArgumentError(f"keep: the column {shown(name)} comes twice")
        self.types |= {name: constant_type(name, value) for name, value in constants.items()}

    def of_arrow(self, name: str, array: Any, place: Callable[[int], str]) -> Any:
        """Return a column of Parquet or Arrow in the type that it has in the store."""
        pa = pyarrow()
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        own = _kind_of_type(array.type)
        if own is None:
            raise ArgumentError(
                f"{place(0)}: column {name!r} is {str(array.type)[:80]}; expected bool, integers, floats or text: "
                "leave it out of keep="
            )
        if own == "null":
            return pa.nulls(len(array), arrow_type(self.types.setdefault(name, "text")))
        if self.types.setdefault(name, own) == own:
            try:
                return array.cast(arrow_type(own))
            except pa.ArrowInvalid as error:
                raise ArgumentError(f"{place(0)}: column {name!r}: {str(error)[:200]}") from None
        return self.of_values(name, array.to_pylist(), place)

    def of_values(self, name: str, values: Sequence[Any], place: Callable[[int], str], *, words: bool = False) -> Any:
        """Return a column of Python values in the type that it has in the store; None is null.

        With `words`, values are text for whatever they mean, as in CSV; then an empty one is null, unless it is text.
        """
        if name not in self.types:
            self.types[name] = "text" if words else self._first_type(name, values, place)
        kind = self.types[name]
        fits = _CONVERSIONS[kind] if words or name in self._said else _OWN_KIND[kind]
        converted: list[Any] = []
        for index, value in enumerate(values):
            null = value is None or (words and value == "" and kind != "text")
            found = None if null else fits(value)
            if found is None and not null:
                hint = f"; keep=['{name}:TYPE'] with one of {', '.join(TYPES)} says another one"
                raise ArgumentError(
                    f"{place(index)}: column {name!r}: expected {kind}, got {kind_of(value)} {shown(value)}"
                    + ("" if name in self._said else hint)
                )
            converted.append(found)
        return pyarrow().array(converted, arrow_type(kind))

    def _first_type(self, name: str, values: Sequence[Any], place: Callable[[int], str]) -> str:
        """Return the type of the first value, float if there are integers and floats alone, text if all are null."""
        kinds: list[str] = []
        for index, value in enumerate(values):
            if value is not None:
                kind = next((kind for kind, own in _OWN.items() if isinstance(value, own)), None)
                if kind is None:
                    raise ArgumentError(
                        f"{place(index)}: column {name!r}: expected a bool, a number or text, got {kind_of(value)}"
                    )
                kinds.append(kind)
        return "float" if set(kinds) == {"int", "float"} else [*kinds, "text"][0]


_OWN = {"bool": bool, "int": int, "float": float, "text": str}


def _kind_of_type(kind: Any) -> str | None:
    """Return which of `TYPES` a type of Arrow fits, "null" for that of nulls, None for others."""
    is_ = pyarrow().types
    if is_.is_null(kind):
        return "null"
    if is_.is_boolean(kind):
        return "bool"
    if is_.is_integer(kind):
        return "int"
    if is_.is_floating(kind):
        return "float"
    text = is_.is_string(kind) or is_.is_large_string(kind) or is_.is_string_view(kind)
    return "text" if text else None


def _bool(value: Any) -> bool | None:
    """Return a bool of a bool, 0 or 1, or a word for it; None for anything else."""
    if isinstance(value, bool):
        return value
    word = "" if isinstance(value, float) else str(value).strip().lower()
    return word in _TRUE if word in (*_TRUE, *_FALSE) else None


def _int(value: Any) -> int | None:
    """Return an int of an int or of its digits, None for anything else."""
    if isinstance(value, bool | float):
        return None
    try:
        number = int(value)
    except (ValueError, TypeError):
        return None
    return number if -_MOST_INT <= number < _MOST_INT else None


def _float(value: Any) -> float | None:
    """Return a float of a number or of its digits, None for anything else."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    """Return a text of a text or an int, None for anything else."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


_Conversion = Callable[[Any], Any]
_CONVERSIONS: dict[str, _Conversion] = {"bool": _bool, "int": _int, "float": _float, "text": _text}
_OWN_KIND: dict[str, _Conversion] = {
    "bool": lambda value: value if isinstance(value, bool) else None,
    "int": lambda value: _int(value) if isinstance(value, int) else None,
    "float": lambda value: _float(value) if isinstance(value, int | float) else None,
    "text": lambda value: value if isinstance(value, str) else None,
}


def parsed(text: str) -> Any:
    """Return the bool, int, float or text that a word of the command line stands for."""
    word = text.strip().lower()
    if word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
