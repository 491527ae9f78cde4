"""Contenders timed in turns, so that whatever else a machine does hits all of them alike.

What counts is processor time of this process, all its work on one thread: other processes of a busy machine do not
count, though they still cool its caches.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

import numpy as np

Call = Callable[[], object]
TURN = 0.004  # seconds of processor time that a turn should take


def race(contenders: Mapping[str, Call], *, seconds: float, least: int = 5) -> dict[str, dict[str, float]]:
    """What a call of each costs, in seconds of processor time.

    Args:
        contenders: By name.
        seconds: How long to go on, all together.
        least: Turns that each takes in any case.

    Returns:
        Of each: ``min`` and ``median`` over its turns of the mean of a turn's calls, and ``calls``.
    """
    calls = {name: max(1, round(TURN / once(call))) for name, call in contenders.items()}
    names, taken = list(contenders), {name: list[float]() for name in contenders}
    gc.collect()
    end, turns = time.perf_counter() + seconds, 0
    while turns < least or time.perf_counter() < end:
        for name in names[turns % len(names) :] + names[: turns % len(names)]:
            taken[name].append(turn(contenders[name], calls[name]))
        turns += 1
    return {
        name: {"min": min(times), "median": float(np.median(times)), "calls": calls[name] * turns}
        for name, times in taken.items()
    }


def turn(call: Call, n: int) -> float:
    """Seconds of processor time a call, the mean of n in a row."""
    begin = time.process_time()
    for _ in range(n):
        call()
    return (time.process_time() - begin) / n


def once(call: Call) -> float:
    """Seconds of processor time of a call that has been made before."""
    call()
    return max(turn(call, 3), 1e-7)
