"""A piece of folklore that is false: a region due every 1/(n p) draws waits about that long, rounded up.

True of counts with a phase of their own for each region. But counts must sum to n, and any draw with mean counts
n p given the past lets a region wait for g draws with a chance of at least (1 - n p)**g. Forced visits end the wait.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import aria_sampling as aria
from aria_sampling import bounds

REGIONS, DRAW = 250, 32
GAP = -(-8 * REGIONS // DRAW)  # draws after which a visit is forced
FORCED, FREE = f"forced visits after {GAP} draws", "no forced visits"
POLICIES: dict[str, aria.Policy] = {FREE: aria.PoolPolicy(), FORCED: aria.Proportional(0.0)}


def waits(rounds: int, policy: aria.Policy, *, seed: int) -> Any:
    """All waits from visit to visit of all regions, in draws, when all regions have the same share."""
    pool = aria.Partition.from_labels(np.repeat(np.arange(REGIONS), 4))
    allocator = aria.Allocator(pool, policy=policy, seed=seed)
    last, found = np.zeros(REGIONS, np.int64), []
    for t in range(1, rounds + 1):
        visited = np.unique(allocator.draw(DRAW).regions)
        allocator.step()
        found.append(t - last[visited])
        last[visited] = t
    return np.concatenate(found)


def study(rounds: int) -> dict[str, Any]:
    """How often waits are longer than g, with and without forced visits."""
    out: dict[str, Any] = {
        "regions": REGIONS,
        "draw": DRAW,
        "rounds": rounds,
        "folklore": -(-REGIONS // DRAW),
        "guarantee": bounds.forced_gap(max_gap=GAP, n_regions=REGIONS, n=DRAW),
        "longest": {},
        "longer_than": {},
    }
    for name, policy in POLICIES.items():
        found = waits(rounds, policy, seed=5)
        out["longest"][name] = int(found.max())
        out["longer_than"][name] = [float((found > g).mean()) for g in range(int(found.max()) + 1)]
    return out
