"""Contenders timed in turns, so that whatever else a machine does hits all of them alike.

What is compared is processor time, which leaves out what other processes of a busy machine take; on an idle one it is
the time by the clock, as all contenders run on one thread.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], object]
BLOCK = 16  # calls in a row, so that a contender's own data is in the caches as far as they hold it
SLOW = 0.05  # seconds of processor time after which a turn ends, however few the calls


def race(contenders: Mapping[str, Call], *, seconds: float, least: int = 3) -> dict[str, dict[str, Any]]:
    """What a call of each costs, in microseconds.

    Args:
        contenders: The first is the one that the others are compared with.
        seconds: How long to go on, all contenders together.
        least: Turns that each takes in any case.

    Returns:
        Of each: ``median``, ``q25``, ``q75`` and ``min`` of the processor time of a call; ``clock``, the median by the
        clock; ``calls``; and ``times_first`` = [q25, median, q75] over turns of its median over that of the first.
    """
    names = list(contenders)
    taken: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for call in contenders.values():
        turn(call)
    gc.collect()
    end, turns = time.perf_counter() + seconds, 0
    while turns < least or time.perf_counter() < end:
        for name in names[turns % len(names) :] + names[: turns % len(names)]:
            taken[name].append(turn(contenders[name]))
        turns += 1
    typical = {name: np.array([np.median(times[0]) for times in taken[name]]) for name in names}
    out = {}
    for name in names:
        spent, clock = 1e6 * np.concatenate(taken[name], axis=1)
        q25, median, q75 = np.quantile(spent, [0.25, 0.5, 0.75]).tolist()
        out[name] = {
            **{"median": median, "q25": q25, "q75": q75, "min": float(spent.min())},
            "clock": float(np.median(clock)),
            "calls": len(spent),
            "times_first": np.quantile(typical[name] / typical[names[0]], [0.25, 0.5, 0.75]).tolist(),
        }
    return out


def turn(call: Call) -> np.ndarray:
    """Processor time and time by the clock of each call in a row of up to `BLOCK`, in seconds, [2, calls]."""
    times: list[tuple[float, float]] = []
    total = 0.0
    while not times or (len(times) < BLOCK and total < SLOW):
        clock, spent = time.perf_counter(), time.process_time()
        call()
        spent, clock = time.process_time() - spent, time.perf_counter() - clock
        times.append((spent, clock))
        total += spent
    return np.array(times).T


def once(call: Call) -> float:
    """Seconds of processor time of a call that is made three times, the median, or once if it takes a second."""
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) < 1:
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return float(np.median(taken))
