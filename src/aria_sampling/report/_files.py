"""A report from saved files, as ``aria-sampling report HISTORY POOL OUT`` writes it.

HISTORY is the state of a `History`, saved by ``torch.save``, alone or as a part of a checkpoint; POOL the partition,
saved by `Partition.save`; OUT the HTML file to write. Nothing is computed anew of the saved target: what a state says
is taken to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from aria_sampling.errors import ArgumentError
from aria_sampling.history import History
from aria_sampling.partition import Partition
from aria_sampling.report._page import html

_DEEPEST = 4  # levels of a checkpoint that are searched


def from_files(history: Path, pool: Path, out: Path) -> Path:
    """Write the page and return its path; ValueError that names the file that cannot be read or written."""
    import torch

    try:
        partition = Partition.load(pool)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"POOL {pool}: {error}") from None
    try:
        state: Any = torch.load(history, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever torch meets in a file that is none of its own
        raise ArgumentError(
            f"HISTORY {history}: expected what torch.save(history.state_dict(), ...) wrote; {type(error).__name__}"
        ) from None
    found = list(_histories(state, _DEEPEST))
    if len(found) != 1:
        count = "several histories" if found else f"no history in its {type(state).__name__}"
        raise ArgumentError(
            f"HISTORY {history}: expected what torch.save(history.state_dict(), ...) wrote, or a checkpoint with one "
            f"such state, got {count}. The state of an allocator, a sampler or a RandomConditioning has none: make an "
            "aria.History, call its record() after each step, and save its state_dict() too"
        )
    try:
        record = History.read(found[0], partition)
        return html(record, out)
    except OSError as error:
        raise ArgumentError(f"OUT {out}: {error}") from None
    except ValueError as error:
        raise ArgumentError(f"HISTORY {history}: {error}") from None


def _histories(state: Any, levels: int) -> Iterator[dict[str, Any]]:
    """Yield the states of histories in nested dictionaries."""
    if isinstance(state, dict):
        entries = cast("dict[Any, Any]", state)
        if {"columns", "spacing", "records"} <= set(entries):
            yield cast("dict[str, Any]", entries)
        elif levels:
            for entry in entries.values():
                yield from _histories(entry, levels - 1)
