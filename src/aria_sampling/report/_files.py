"""A report from saved files, as ``aria-sampling report HISTORY POOL OUT`` writes it.

HISTORY is the state of a `History`, saved by ``torch.save``; POOL the partition, saved by `Partition.save`; OUT the
HTML file to write. The settings of the allocator are in neither file: pass the history itself to `html` to have them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aria_sampling._arrays import decode, take
from aria_sampling.allocator import Allocator
from aria_sampling.errors import ArgumentError
from aria_sampling.history import History
from aria_sampling.partition import Partition
from aria_sampling.report._page import write


def from_files(history: Path, pool: Path, out: Path) -> Path:
    """Write the page and return its path; ValueError that names the file that cannot be read or written."""
    import torch

    try:
        partition = Partition.load(pool)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"POOL {pool}: {error}") from None
    try:
        state: Any = torch.load(history, weights_only=True)
    except Exception as error:  # whatever torch meets in a file that is none of its own
        raise ArgumentError(
            f"HISTORY {history}: expected what torch.save(history.state_dict(), ...) wrote; {type(error).__name__}"
        ) from None
    try:
        config: dict[str, str] = take(state, "config", dict)
        allocator = Allocator(partition, target=decode("target", take(state, "target", dict)))
        record = History(
            allocator, every=int(take(config, "every", str)), max_records=int(take(config, "max_records", str))
        )
        record.load_state_dict(state)
    except ValueError as error:
        raise ArgumentError(f"HISTORY {history}: {error}") from None
    try:
        return write(record, out, "")
    except OSError as error:
        raise ArgumentError(f"OUT {out}: {error}") from None
