"""The errors this library raises beyond the built-in ones.

They live apart so that every layer can raise them. Each is a subclass of the built-in error that a
caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

import inspect
from typing import Any

__all__ = [
    "ArgumentError",
    "AriaError",
    "AriaWarning",
    "FeedbackLagError",
    "MissingDependencyError",
    "PartitionFileError",
    "RankError",
    "StateError",
    "StoreError",
    "UnsizedError",
    "UsageError",
    "WriteError",
    "lag_message",
    "outside",
]


class AriaWarning(UserWarning):
    """Something works, but not as its user probably wants. Each warning comes once an allocator."""


class AriaError(Exception):
    """Base of the errors that this library raises. Catch the built-in error that each subclass is, too.

    Args:
        message: What came, what was expected, and what to do; cut in the middle so that message and remedy have
            900 characters at most.
        remedy: A line of Python that mends it, over the names of arguments as the documentation uses them. It is
            shown at the end of the message.

    Attributes:
        remedy: That line; None where the message says all, such as the range of a number.
    """

    remedy: str | None = None

    def __init__(self, *args: Any, remedy: str | None = None) -> None:
        if args and isinstance(args[0], str):
            tail = "" if remedy is None else f". Try: {remedy}"
            room = _MOST_SAID - len(tail)
            text = args[0] if len(args[0]) <= room else f"{args[0][:_HEAD]} ... {args[0][_HEAD + 5 - room :]}"
            args = (text + tail, *args[1:])
        super().__init__(*args)
        self.remedy = remedy


class ArgumentError(AriaError, ValueError):
    """An argument of the wrong kind, or out of its range. Nothing was changed."""


class UsageError(AriaError, RuntimeError):
    """A call that cannot be answered now, such as `observe` without an open round. Nothing was changed."""


class MissingDependencyError(AriaError, ImportError):
    """A package that is not installed."""


class UnsizedError(AriaError, TypeError):
    """The length of something that never ends."""


class FeedbackLagError(AriaError, RuntimeError):
    """A draw needs feedback that has not arrived: the loader runs further ahead than ``lag`` allows.

    The message names the smallest lag that would have let this draw go ahead.
    """


class StateError(AriaError, ValueError):
    """A saved state does not fit this object: another pool, configuration or schema, or damaged."""


class PartitionFileError(AriaError, ValueError):
    """A partition file is truncated, damaged, or not a partition file at all."""


class StoreError(AriaError, ValueError):
    """A folder of prompts or of embeddings is unfinished, damaged, or no such folder at all."""


class WriteError(AriaError, OSError):
    """A file could not be written: the disk is full, or the folder is read-only. What was there before is as it was."""


class RankError(AriaError, RuntimeError):
    """The ranks of a distributed run have come apart: another round, or another state. The message names them."""


_MOST_SAID, _HEAD = (
    900,
    200,
)  # characters; the end is kept, where the cause stands if a worker process hands an error on


def outside() -> int:
    """Return the ``stacklevel`` with which a warning of the calling function points at the caller of this library."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == __name__.split(".")[0]:
        level, frame = level + 1, frame.f_back
    return level


def lag_message(closed: int, open_rounds: int, lag: int) -> str:
    """Return what to say when a draw runs ahead of its feedback: the likelier cause first."""
    newest = closed + open_rounds - 1
    still = f"round {closed} is" if open_rounds == 1 else f"rounds {closed} to {newest} are"
    forgotten = "Each draw() must be followed by observe() and step(), or by step() alone where there is no feedback."
    ahead = (
        f"If a loader draws ahead (workers, prefetch), make the Allocator with lag={open_rounds} or more "
        "(num_workers * prefetch_factor; one more under accelerate)."
    )
    first, second = (ahead, forgotten) if lag else (forgotten, ahead)  # who set a lag knows of a loader ahead
    needs = f"draw of round {newest + 1}: needs the feedback of round {newest - lag} (lag={lag})"
    return f"{needs}, but {still} still open. {first} {second}"
