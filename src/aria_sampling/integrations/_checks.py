"""What is the same under any host: how a batch gives its indices, and how a glue refuses what it cannot serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aria_sampling._check import several_losses, shown
from aria_sampling.errors import ArgumentError

__all__ = ["average", "index_of", "refuse"]


def refuse(reason: Any, message: str) -> None:
    """Raise ValueError with `message` if there is a `reason`."""
    if reason:
        raise ArgumentError(message)


def average(losses: Any, rows: int) -> str:
    """Return which loss to report where there are several a row, or pixels, or tokens; empty if there is one."""
    found = None if losses is None else several_losses(losses, rows, name="loss")
    if found is None:
        return ""
    counts = ", where `counted` is True for what counts (labels != -100)" if "counted" in found[1] else ""
    return f", where one a row is {found[1]}{counts}"


def index_of(batch: Any, key: str = "index") -> Any:
    """Return the dataset indices of a batch, ``batch["index"]``.

    Let a ``collate_fn`` return them as a list: hosts move tensors to the device, and a list stays on the host, where
    the sampler looks indices up without waiting.

    Raises:
        ValueError: The batch has no such entry; says how to bring it along.
    """
    there: Mapping[str, Any] = cast(Any, batch) if isinstance(batch, Mapping) else {}
    refuse(
        key not in there,
        f"batch: expected an entry {key!r}, got a {type(cast(Any, batch)).__name__} with {shown(sorted(there))}: wrap "
        f"the dataset, DataLoader(WithIndex(dataset), ...), and let collate_fn return also "
        f'"{key}": [example["{key}"] for example in examples]',
    )
    return there[key]
