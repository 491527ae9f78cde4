"""Contenders timed in turns, so that whatever else a machine does hits all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Call = Callable[[], object]
BLOCK = 16  # calls in a row, so that a contender's own data is in the caches as far as they hold it
SLOW = 0.05  # seconds after which a turn ends, however few the calls


def race(contenders: Mapping[str, Call], *, seconds: float, least: int = 3) -> dict[str, dict[str, Any]]:
    """What a call of each costs, in microseconds.

    Args:
        contenders: The first is the one that the others are compared with.
        seconds: How long to go on, all contenders together.
        least: Turns that each takes in any case.

    Returns:
        Of each: ``median``, ``q25``, ``q75`` and ``min`` of a call by the wall clock; ``cpu``, the processor time of a
        call, median over turns; ``calls``; and ``times_first`` = [q25, median, q75] over turns of its wall time
        over that of the first contender in the same turn.
    """
    names = list(contenders)
    wall: dict[str, list[list[float]]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for call in contenders.values():
        turn(call)
    gc.collect()
    end, turns = time.perf_counter() + seconds, 0
    while turns < least or time.perf_counter() < end:
        for name in names[turns % len(names) :] + names[: turns % len(names)]:
            times, spent = turn(contenders[name])
            wall[name].append(times)
            cpu[name].append(spent / len(times))
        turns += 1
    typical = {name: np.array([np.median(times) for times in wall[name]]) for name in names}
    return {
        name: {
            **_spread(np.concatenate(wall[name]) * 1e6),
            "cpu": 1e6 * float(np.median(cpu[name])),
            "calls": sum(map(len, wall[name])),
            "times_first": np.quantile(typical[name] / typical[names[0]], [0.25, 0.5, 0.75]).tolist(),
        }
        for name in names
    }


def turn(call: Call) -> tuple[list[float], float]:
    """Seconds of each call in a row of up to `BLOCK`, and the processor time of all of them."""
    times: list[float] = []
    spent, begin = time.process_time(), time.perf_counter()
    last = begin
    while len(times) < BLOCK and last - begin < SLOW:
        call()
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return times, time.process_time() - spent


def _spread(values: np.ndarray) -> dict[str, float]:
    q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return {"median": median, "q25": q25, "q75": q75, "min": float(values.min())}


def once(call: Call, repeats: int = 3) -> float:
    """Median seconds of a call that is made a few times only."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
