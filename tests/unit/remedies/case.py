"""What a case of `tests/unit/test_errors.py` is: code that fails, and goes through once the error's remedy is run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A call of this library that fails with a remedy.

    Attributes:
        name: What is wrong, in a few words.
        setup: Python lines that make the variables which the remedy names. `aria`, `np` and `torch` are there.
        call: The line that fails.
        again: What goes through after the remedy; None: the same call.
    """

    name: str
    setup: str
    call: str
    again: str | None = None
