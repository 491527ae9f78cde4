"""A state that does not fit, and what a run can go on with all the same.

Between two runs people change the batch size, the workers or the data. Then the same stream cannot go on, and what was
learnt can. It is apart because a sampler and a mixture have the same ways out, each under its own name.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from aria_sampling.allocator import Allocator
from aria_sampling.errors import StateError

__all__ = ["load_allocation", "misfit"]


def load_allocation(allocator: Allocator, allocation: dict[str, Any], face: str) -> None:
    """Load the allocator's part of the state of a face; see `Allocator.load_state_dict`.

    Raises:
        StateError: It does not fit. The remedy is the allocator's, in terms of the state of `face`.
    """
    try:
        allocator.load_state_dict(allocation)
    except StateError as error:
        if not str(error).startswith(_MISFITS):
            raise
        why = str(error)
        for way in (f". Try: {error.remedy}", "; adopt() carries"):  # in terms of the allocator's state
            why = why.partition(way)[0]
        refused = misfit(why, allocator, allocation, face)
    else:
        return
    raise refused


def misfit(
    why: str, allocator: Allocator, allocation: dict[str, Any], face: str, *, new_epoch: bool = False
) -> StateError:
    """Return the error for a state of a face that does not fit, with the line that takes over from it what can be.

    Args:
        why: What differs.
        allocator: Of the face that is to go on.
        allocation: The allocator's part of the state.
        face: What the face is called in that line.
        new_epoch: It has to begin a new epoch.
    """
    load = f'{face}.allocator.load_state_dict(state["allocator"])'
    begin = f"; {face}.new_epoch()" if new_epoch else ""
    anew = "a new epoch" if new_epoch else "the sources from their beginning"
    if _fits(allocator, lambda trial: trial.load_state_dict(allocation)):
        return StateError(f"{why}; the allocation fits, and can go on with {anew}", remedy=f"{load}{begin}")
    config: Any = allocation.get("config")
    there = cast("dict[str, Any]", config) if isinstance(config, dict) else {}
    if there.get("estimator") != repr(allocator.estimator):  # damaged, or its estimates are of another kind
        return StateError(why)
    if allocator.round or len(allocator.rounds):
        return StateError(
            f"{why}; before its first draw another allocator can take over the estimates, by allocator.adopt(state, "
            "partition=the_partition_it_had)"
        )
    lag = int(there.get("lag", 0))

    def with_its_lag(trial: Allocator) -> None:
        trial.lag = lag
        trial.load_state_dict(allocation)

    if lag > allocator.lag and _fits(allocator, with_its_lag):
        return StateError(
            f"{why}; with the larger lag that it had it goes on" + (f", with {anew}" if new_epoch else " as it was"),
            remedy=f"{face}.allocator.lag = {lag}" + (f"; {load}{begin}" if new_epoch else ""),
        )
    same_pool = allocation.get("fingerprint") == allocator.partition.fingerprint
    return StateError(
        f"{why}; the stream cannot go on, and what was learnt can, in a new one"
        + ("" if same_pool else ", with the old partition at hand"),
        remedy=f'{face}.allocator.adopt(state["allocator"], partition='
        + (f"{face}.allocator.partition)" if same_pool else "old_partition)"),
    )


def _fits(allocator: Allocator, load: Callable[[Allocator], None]) -> bool:
    """Return whether `load` goes through on a copy of the allocator."""
    try:
        load(copy.copy(allocator))
    except (StateError, ValueError):
        return False
    return True


_MISFITS = ("state of another pool", "state of another configuration")
