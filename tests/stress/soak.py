"""A very long run of a sampler: memory and step time by the thousand rounds, and sums that have to be exact.

There is no loader and no model, so that a million rounds take minutes: indices are drawn ahead as far as the lag lets,
as a loader with workers does, and losses are made up.
"""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

import aria_sampling as aria

ITEMS, REGIONS, BATCH, EPOCH, LAG = 3000, 24, 16, 1000, 4  # the last batch of an epoch has 8 rows


@dataclass
class Soak:
    """What was measured every `chunk` rounds, and every promise that was broken."""

    rounds: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # resident, MB
    microseconds: list[float] = field(default_factory=list)  # a round, of processor time
    state_bytes: list[int] = field(default_factory=list)
    rows: int = 0
    fewest_cycles: int = 0  # of any region
    problems: list[str] = field(default_factory=list)


def resident() -> float:
    """Memory of this process that is in RAM, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def labels():
    """Regions of sizes from a handful to hundreds of items."""
    rng = np.random.default_rng(5)
    sizes = rng.dirichlet(np.full(REGIONS, 0.7))
    rest = rng.choice(REGIONS, ITEMS - 5 * REGIONS, p=sizes)
    return rng.permutation(np.concatenate([np.repeat(np.arange(REGIONS), 5), rest]))


def make():
    pool = aria.Partition.from_labels(labels())
    coverage = aria.Coverage(pool, items=np.arange(0, ITEMS, 5))
    allocator = aria.Allocator(pool, coverage=coverage, target="uniform", lag=LAG, seed=11)
    return allocator.sampler(batch_size=BATCH, num_samples=EPOCH, data_rows_per_batch=3)


def soak(rounds: int, chunk: int) -> Soak:
    """Run so many rounds."""
    report, sampler = Soak(), make()
    pool, drawn = sampler.allocator.partition, np.zeros(ITEMS, np.int64)
    source, indices = np.random.default_rng(0), iter(())
    while len(report.rounds) * chunk < rounds:
        began, ahead = time.process_time(), []
        for _ in range(chunk):
            while len(ahead) <= LAG:
                if not (batch := list(islice(indices, BATCH))):
                    if ahead:
                        break  # the epoch is drawn to its end; what was drawn ahead comes first
                    indices = iter(sampler)
                    continue
                ahead.append(batch)
            batch = ahead.pop(0)
            np.add.at(drawn, batch, 1)
            losses = (1 + pool.labels[batch]) * source.exponential(size=len(batch))
            losses[0] = np.nan if losses[0] < 0.05 else losses[0]
            sampler.observe(torch.tensor(batch), torch.as_tensor(losses, dtype=torch.bfloat16))
        spent = (time.process_time() - began) / chunk
        indices = iter(())  # leaves the pass early: the next one begins at the last observed batch
        report.rounds.append((len(report.rounds) + 1) * chunk)
        report.memory.append(resident())
        report.microseconds.append(spent * 1e6)
        state = sampler.state_dict()
        report.state_bytes.append(len(pickle.dumps(state)))
        check(report, sampler, state, drawn)
    return report


def check(report: Soak, sampler, state: dict, drawn) -> None:
    """Add to `report` whatever of the exact promises does not hold."""
    allocator, pool = sampler.allocator, sampler.allocator.partition
    rounds = report.rounds[-1]
    expected = rounds // 63 * EPOCH + rounds % 63 * BATCH
    report.rows = int(drawn.sum())
    visits = np.frombuffer(state["allocator"]["draws"]["visits"]["data"], "<i8")
    by_region = np.bincount(pool.labels, drawn, REGIONS).astype(np.int64)
    most, least = (np.array([f(drawn[pool.items_of(k)]) for k in range(REGIONS)]) for f in (np.max, np.min))
    cycles = by_region // pool.sizes
    report.fewest_cycles = int(cycles.min())
    fresh = make()
    fresh.load_state_dict(state)
    promises = {
        "rounds are counted exactly": allocator.round == rounds,
        "rows are conserved": report.rows == expected,
        "visits of every region are its rows": np.array_equal(visits, by_region),
        "items come equally often, to within the cycle that has begun": (least == cycles).all()
        and (most == cycles + (by_region % pool.sizes > 0)).all(),
        "draw counts are those of the state": np.array_equal(allocator.draw_counts, visits),
        "shares sum to 1 and keep to the exploration": abs(allocator.probabilities.sum() - 1) < 1e-12
        and (allocator.probabilities >= 0.2 * allocator.target * (1 - 1e-12)).all(),
        "a state loaded elsewhere is the same": fresh.allocator.digest() == allocator.digest(),
        "nothing is kept open": allocator.round + len(allocator.open_rounds) <= rounds + LAG,
    }
    report.problems += [f"after {rounds} rounds: not so that {name}" for name, holds in promises.items() if not holds]
