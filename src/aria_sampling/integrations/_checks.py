"""What is the same under any host: how a batch gives its indices, and how a glue refuses what it cannot serve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from aria_sampling._check import shown
from aria_sampling.errors import ArgumentError

__all__ = ["average", "index_of", "refuse"]


def refuse(reason: Any, message: str) -> None:
    """Raise ValueError with `message` if there is a `reason`."""
    if reason:
        raise ArgumentError(message)


def average(losses: Any, rows: int) -> str:
    """Return which loss to report where there are several a row, or pixels; empty if there is one."""
    if (
        losses is None
        or losses.ndim == 0
        or not rows
        or (losses.ndim == 1 and (len(losses) <= rows or len(losses) % rows))
    ):
        return ""
    flat = f"reshape({rows}, {len(losses) // rows})" if losses.ndim == 1 else "flatten(1)"
    return f", where one a row is loss{'' if losses.ndim == 2 else '.' + flat}.mean(dim=1)"


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
