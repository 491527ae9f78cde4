"""What is measured. Each function returns one part of `results.json`: seconds of processor time, or bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contenders import aria_round, conditioning_round, pool, rule_round, torchrl_round
from .timing import Call, race

TORCHRL, CONDITIONING, RULE = "torchrl", "RandomConditioning", "resampler's rule"
BYTES_PER_ITEM = 6.5  # of a pool with its order, and a little


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seconds: float = 20.0  # of each race
    items: int = 20_000_000  # of the pool of rounds
    peer: int = 10_000_000  # of torchrl's
    regions: tuple[int, ...] = (1024, 65_536, 1_000_000)
    pools: tuple[int, ...] = (10**6, 10**8, 10**9)
    batches: int = 64  # of an epoch of data for free; pictures have an eighth
    memory: int = 10_000_000


FULL = Size()
SMOKE = Size(0.5, 200_000, 10_000, (64, 1024), (10**4, 10**5), 16, 100_000)


def rounds(size: Size) -> dict[str, Any]:
    """A round by the number of regions, without and with coverage, and of torchrl; and one of RandomConditioning."""
    contenders: dict[str, Call | None] = {TORCHRL: torchrl_round(size.peer), RULE: rule_round(size.regions[0])}
    for k in size.regions:
        partition = pool(size.items, k, width=16 if k == size.regions[0] else 0)
        contenders[f"{k}"] = aria_round(partition)
        contenders[f"{k}, coverage"] = aria_round(partition, covered=True)
        if k == size.regions[0]:
            contenders[CONDITIONING] = conditioning_round(partition)
    return race({name: call for name, call in contenders.items() if call is not None}, seconds=size.seconds)


def pools(size: Size) -> dict[str, Any]:
    """A round by the number of items; pools that would take more than 60% of the free memory are left out."""
    fits = [n for n in size.pools if n * BYTES_PER_ITEM < 0.6 * available()]
    return race({str(n): aria_round(pool(n, size.regions[0])) for n in fits}, seconds=size.seconds)


def loaders(size: Size) -> dict[str, Any]:
    """An epoch of batches of 32 without workers, by data and sampler."""
    from .loading import Pictures, Tensors, aria_epoch, random_epoch

    found: dict[str, Any] = {}
    for dataset, batches in ((Tensors(), size.batches), (Pictures(), max(1, size.batches // 8))):
        pair = {"random": random_epoch(dataset, batches), "aria": aria_epoch(dataset, batches)}
        found[type(dataset).__name__] = race(pair, seconds=size.seconds)
    return found


def imports(size: Size) -> dict[str, float]:
    """Seconds that NumPy takes to import in a fresh process, and aria_sampling after it; the fastest of some."""
    code = (
        "import time, json; a = time.process_time(); import numpy; b = time.process_time(); import aria_sampling; "
        "print(json.dumps([b - a, time.process_time() - b]))"
    )
    found = [json.loads(_fresh("-c", code)) for _ in range(3 if size is SMOKE else 10)]
    return {"numpy": min(pair[0] for pair in found), "aria_sampling": min(pair[1] for pair in found)}


def memory(size: Size) -> dict[str, float]:
    """Bytes an item that a fresh process grows by when it makes a pool and takes rounds of it."""
    return {"bytes_per_item": float(_fresh("-m", __spec__.name, str(size.memory)))}


def _fresh(*command: str) -> str:
    return subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout


def resident() -> int:
    """Bytes of memory of this process. Linux."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split("VmRSS:")[1].split()[0])


def available() -> int:
    """Bytes of memory that are free for use. Linux."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return 1024 * int(text.split("MemAvailable:")[1].split()[0])


def operations(size: Size) -> dict[str, float]:
    """Operations of torch in a round of RandomConditioning on CPU tensors, by its profiler, the outermost alone.

    On an accelerator each is a call of its driver or more; calls of a driver need one to be counted.
    """
    from torch.profiler import ProfilerActivity, profile

    round_, rounds = conditioning_round(pool(10_000, 64)), 20
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(rounds):
            round_()
    return {CONDITIONING: sum(event.cpu_parent is None for event in profiler.events()) / rounds}


MEASURES: Mapping[str, Callable[[Size], dict[str, Any]]] = {
    "rounds": rounds,
    "pools": pools,
    "loaders": loaders,
    "imports": imports,
    "memory": memory,
    "operations": operations,
}

QUICK = {"1,024 regions": 0.8, "1,024 regions, coverage": 0.9, "65,536 regions": 2.4}
"""The check of CI: what a round may take at most, in units of the resampler's rule, which takes two thirds of torchrl's
round. Twice the aims."""


def quick(seconds: float = 8.0) -> tuple[str, bool]:
    """Ratios of rounds to the rule's in the same run, as text, and whether all are within `QUICK`."""
    small, large = pool(1_000_000, 1024), pool(1_000_000, 65_536)
    calls = {
        RULE: rule_round(1024),
        "1,024 regions": aria_round(small),
        "1,024 regions, coverage": aria_round(small, covered=True),
        "65,536 regions": aria_round(large),
    }
    found = race(calls, seconds=seconds)
    ratios = {name: found[name]["min"] / found[RULE]["min"] for name in QUICK}
    lines = [f"| {name} | {ratios[name]:.2f} | {most} |" for name, most in QUICK.items()]
    head = ["| a round of 256 rows | times the resampler's rule | at most |", "|---|---:|---:|"]
    return "\n".join([*head, *lines]), all(ratios[name] <= most for name, most in QUICK.items())


if __name__ == "__main__":
    aria_round(pool(1000, 10))()
    before = resident()
    n_items = int(sys.argv[1])
    call = aria_round(pool(n_items, 1024))
    print((resident() - before) / n_items)
