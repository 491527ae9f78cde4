"""What is measured: each function returns the rows of one part of `results.json`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria

from . import loading, ranks
from .contenders import ARIA, aria_round, numpy_choice, peers, pool, torch_weighted, torchrl_prioritized
from .timing import once, race

BYTES_PER_ITEM = 6.5  # of a pool with its order, and a little


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seconds: float = 12.0  # a race of many contenders
    peer_pools: tuple[int, ...] = (1_000_000, 10_000_000)
    pools: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7, 10**8, 10**9)
    regions: tuple[int, ...] = (10, 100, 1024, 10_000, 65_536, 1_000_000)
    rows: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    items: int = 20_000_000  # of the pool in the studies of regions and rows
    first: int = 10_000_000  # of the pool of the first draw, and of memory
    workers: tuple[int, ...] = (0, 1, 2, 4)
    batches: int = 12  # of an epoch of the loader
    loading: float = 10.0  # seconds for each number of workers and kind of data
    ranks: tuple[int, ...] = (1, 2, 4)
    rank_rounds: int = 200


FULL = Size()
SMALL = Size(
    seconds=1.0,
    peer_pools=(1_000_000,),
    pools=(10**4, 10**6),
    regions=(100, 1024, 10_000),
    rows=(32, 256, 2048),
    items=1_000_000,
    first=1_000_000,
    workers=(0, 1),
    batches=2,
    loading=0.5,
    ranks=(1, 2),
    rank_rounds=20,
)
REGIONS, ROWS = 1024, 256


def rounds(size: Size) -> dict[str, Any]:
    """A round of every sampler, by pool; the allocator with its other estimator, too."""
    out: dict[str, Any] = {}
    for n_items in size.peer_pools:
        partition = pool(n_items, REGIONS)
        others = peers(n_items, REGIONS, ROWS)
        contenders = {
            ARIA: aria_round(partition, ROWS),
            "aria-sampling, Ema": aria_round(partition, ROWS, estimator=aria.Ema()),
            **{name: call for name, call in others.items() if call is not None},
        }
        out[str(n_items)] = race(contenders, seconds=size.seconds)
        out["missing"] = [name for name, call in others.items() if call is None and n_items <= 1 << 24]
    return out


def pools(size: Size) -> dict[str, Any]:
    """A round by the number of items, with 1,024 regions; pools that do not fit the memory are left out."""
    fits = [n for n in size.pools if n * BYTES_PER_ITEM < 0.6 * available()]
    contenders = {str(n): aria_round(pool(n, REGIONS), ROWS) for n in fits}
    first = "1000000"
    ordered = {first: contenders.pop(first), **contenders}
    return {"times": race(ordered, seconds=size.seconds), "left_out": [n for n in size.pools if n not in fits]}


def regions(size: Size) -> dict[str, Any]:
    """A round by the number of regions."""
    contenders = {str(k): aria_round(pool(size.items, k), ROWS) for k in size.regions}
    for call in contenders.values():  # a state that no longer changes its shape: every region was visited or waits
        for _ in range(8):
            call()
    return race(contenders, seconds=size.seconds)


def rows(size: Size) -> dict[str, Any]:
    """A round by the number of rows."""
    partition = pool(size.items, REGIONS)
    return race({str(n): aria_round(partition, n) for n in size.rows}, seconds=size.seconds)


def first_draw(size: Size) -> dict[str, float]:
    """Seconds of processor time from labels or weights in memory to the first index, `size.first` items."""
    import torch
    from torch.utils.data import WeightedRandomSampler

    n = size.first
    partition, weights = pool(n, REGIONS), torch.rand(n, dtype=torch.float64) + 0.5
    labels = np.random.default_rng(0).permutation(partition.labels)
    out = {
        f"{ARIA}, from a partition": once(lambda: aria.Allocator(partition).draw(ROWS)),
        f"{ARIA}, from labels": once(lambda: aria.Allocator(aria.Partition.from_labels(labels)).draw(ROWS)),
        "torch WeightedRandomSampler, a batch": once(lambda: next(iter(WeightedRandomSampler(weights, ROWS)))),
        "torch WeightedRandomSampler, an epoch": once(lambda: next(iter(WeightedRandomSampler(weights, n)))),
    }
    if torchrl_prioritized(2, 2) is not None:

        def first() -> None:
            sampler = torchrl_prioritized(n, ROWS)
            assert sampler is not None
            sampler()

        out["torchrl PrioritizedSampler"] = once(first)
    return out


MAKERS: dict[str, Callable[[int], object]] = {
    ARIA: lambda n: aria_round(pool(n, REGIONS), ROWS),
    "torch WeightedRandomSampler": lambda n: torch_weighted(n, ROWS),
    "numpy Generator.choice": lambda n: numpy_choice(n, ROWS),
    "torchrl PrioritizedSampler": lambda n: torchrl_prioritized(n, ROWS),
}


def memory(size: Size) -> dict[str, Any]:
    """Bytes an item, by how much a fresh process grows (at most, and after a round); bytes of state a region."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as fresh:
        items = {name: fresh.submit(_growth, name, size.first).result() for name in MAKERS}
    state = {}
    for k in (REGIONS, 65_536):
        saved = aria.Allocator(pool(2 * k, k)).state_dict()
        arrays = [*saved["estimator"].values(), *saved["policy"].values(), *saved["cursors"].values(), saved["log_phi"]]
        state[str(k)] = sum(len(array["data"]) for array in arrays) / k
    return {"per_item": {name: value for name, value in items.items() if value}, "state_per_region": state}


def _growth(name: str, n_items: int) -> dict[str, float] | None:
    """Bytes an item that this process grows by; None if the sampler is not there."""
    call = MAKERS[name](1000)
    if call is None:
        return None
    call()  # type: ignore[operator]
    before = resident("VmRSS")
    call = MAKERS[name](n_items)
    call()  # type: ignore[operator]
    return {"after": (resident("VmRSS") - before) / n_items, "most": (resident("VmHWM") - before) / n_items}


def resident(what: str) -> int:
    """Bytes of memory of this process, now (VmRSS) or at most so far (VmHWM). Linux."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(text.split(f"{what}:")[1].split()[0])


def available() -> int:
    """Bytes of memory that are free for use."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return 1024 * int(text.split("MemAvailable:")[1].split()[0])


def loader(size: Size) -> dict[str, Any]:
    """Samples a second of a DataLoader, by workers."""
    return loading.study(size.workers, size.batches, size.loading)


def merging(size: Size) -> dict[str, Any]:
    """What closing a round takes on several ranks."""
    return {str(world): ranks.study(world, size.rank_rounds) for world in size.ranks}


STUDIES: dict[str, Callable[[Size], dict[str, Any]]] = {
    "rounds": rounds,
    "pools": pools,
    "regions": regions,
    "rows": rows,
    "first_draw": first_draw,
    "memory": memory,
    "loader": loader,
    "ranks": merging,
}
