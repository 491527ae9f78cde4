"""What is measured. Each measurement is a function that runs in a process of its own, and returns plain values."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria

from . import world

Found = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How large things are."""

    rows: int = 1_000_000
    width: int = 384
    regions: int = 1024
    many_regions: tuple[int, ...] = (2048, 16_384)
    wide: int = 768
    wide_rows: int = 2_000_000
    copies: int = 10
    flat: tuple[int, ...] = (500_000, 1_000_000, 2_000_000)
    labels: int = 100_000_000
    held: int = 50_000
    full_iterations: int = 25


FULL = Size()
SMOKE = Size(20_000, 16, 64, (128, 256), 24, 3000, 3, (1000, 2000, 3000), 200_000, 2000, 5)


# ---------------------------------------------------------------------------------------- time and memory


@dataclass
class Cost:
    """What something took."""

    cpu: float = 0.0
    wall: float = 0.0
    peak: int = 0  # bytes beyond what there was at the beginning, without pages of files

    def found(self) -> Found:
        return {"cpu_s": self.cpu, "wall_s": self.wall, "peak_mb": self.peak / 1e6}


def _anonymous() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))


@contextlib.contextmanager
def cost() -> Iterator[Cost]:
    """Processor time of all threads, time on the clock, and the most memory at one time, looked at every 2 ms."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # glibc: what was freed before is not to be used again unseen
        ctypes.CDLL(None).malloc_trim(0)
    taken, begin, end = Cost(), _anonymous(), threading.Event()

    def watch() -> None:
        while not end.wait(0.002):
            taken.peak = max(taken.peak, _anonymous() - begin)

    thread = threading.Thread(target=watch)
    thread.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield taken
    finally:
        taken.cpu, taken.wall = time.process_time() - cpu, time.perf_counter() - wall
        end.set()
        thread.join()


def inertia(centers: Any, rows: np.ndarray) -> float:
    """Mean squared distance of rows that no fit has seen to the nearest centre."""
    pool = aria.Partition.from_labels(np.arange(len(centers)), centers=centers)
    return float(np.square(rows - pool.centers[pool.assign(rows)]).sum(axis=1).mean())


# ----------------------------------------------------------------------------------------- measurements


def fit(size: Size, folder: Path, *, dtype: str, regions: int) -> Found:
    """k-means and the assignment of all rows of a memory map."""
    rows = world.mapped(folder, size.rows, size.width, dtype)
    _imported(size)
    with cost() as taken:
        pool = aria.KMeansPartitioner(n_regions=regions).fit(rows)
    subsample = min(size.rows, 64 * regions) * size.width * 4 / 1e6
    held = world.embeddings(size.held, size.width, 10**6)
    more = {"subsample_mb": subsample, "regions": pool.n_regions, "inertia": inertia(pool.centers, held)}
    return {**taken.found(), **more, "largest": int(pool.sizes.max()), "smallest": int(pool.sizes.min())}


def _imported(size: Size) -> None:
    """Load what is imported late, which is no part of a measurement."""
    aria.KMeansPartitioner(n_regions=70).fit(world.embeddings(500, size.width, 0))


def assign(size: Size, folder: Path, *, n: int) -> Found:
    """The assignment of the first n rows of a memory map of half precision."""
    rows = world.mapped(folder, size.wide_rows, size.wide, "float16")[:n]
    pool = aria.Partition.from_labels(np.arange(size.regions), centers=world.embeddings(size.regions, size.wide, 7))
    with cost() as taken:
        pool.assign(rows)
    return {**taken.found(), "rows": n, "gb": rows.nbytes / 1e9}


def assign_shards(size: Size, folder: Path) -> Found:
    """The assignment of a folder of shards, and the partition of it."""
    rows = world.shards(folder, size.wide_rows, size.wide, size.copies)
    centers = world.embeddings(size.regions, size.wide, 7)
    with cost() as taken:
        pool = aria.Partition.from_centers(rows, centers)
    return {**taken.found(), "rows": pool.n_items, "gb": len(rows) * size.wide * 2 / 1e9}


def labels(size: Size, folder: Path, *, regions: int) -> Found:
    """Labels to a partition, its file, and the first draw of another process that opens it."""
    folder.mkdir(parents=True, exist_ok=True)
    given = np.random.default_rng(0).integers(0, regions, size.labels)
    given[:regions] = np.arange(regions)
    with cost() as taken:
        pool = aria.Partition.from_labels(given)
    with cost() as saved:
        pool.save(folder / "labels.aria")
    code = (
        "import sys, time, aria_sampling as aria\n"
        "begin = time.perf_counter(); pool = aria.Partition.load(sys.argv[1], mmap=True)\n"
        "opened = time.perf_counter() - begin; aria.Allocator(pool, seed=0).draw(256)\n"
        "print(opened, time.perf_counter() - begin)"
    )
    path = str(folder / "labels.aria")
    out = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    opened, drawn = map(float, out.split())
    bytes_ = os.path.getsize(path)
    Path(path).unlink()
    return {
        **taken.found(), "labels": size.labels, "given_mb": given.nbytes / 1e6, "regions": regions,
        "save_cpu_s": saved.cpu, "bytes_per_item": bytes_ / size.labels, "open_s": opened, "open_and_draw_s": drawn,
    }  # fmt: skip


def names(size: Size, folder: Path, *, centres: bool) -> Found:
    """Names, terms and typical captions of all regions."""
    rows = world.mapped(folder, size.rows, size.width, "float16")
    fixed = world.embeddings(size.regions, size.width, 7)
    pool = aria.Partition.from_centers(rows, fixed)
    aria.Partition.from_labels([0, 1]).named(["a dog", "ein Hünd"])
    with cost() as taken:
        named = pool.named(world.Captions(size.rows), embeddings=rows if centres else None)
    return {
        **taken.found(),
        "captions": size.rows,
        "regions": pool.n_regions,
        "with_terms": sum(map(bool, named.terms)),
    }


def ours(size: Size, folder: Path) -> Found:
    """k-means of this library among its rivals: rows in memory."""
    rows, held = _in_memory(size, folder)
    _imported(size)
    with cost() as taken:
        pool = aria.KMeansPartitioner(n_regions=size.regions).fit(rows)
    return {**taken.found(), "inertia": inertia(pool.centers, held)}


def scikit_learn_subsample(size: Size, folder: Path) -> Found:
    """What this library did before: scikit-learn's KMeans on 64 rows a region, then all rows assigned."""
    from sklearn.cluster import KMeans

    rows, held = _in_memory(size, folder)
    some = np.sort(np.random.default_rng(0).choice(len(rows), min(len(rows), 64 * size.regions), replace=False))
    with cost() as taken:
        model = KMeans(size.regions, n_init=1, max_iter=10, random_state=0).fit(rows[some])
        aria.Partition.from_centers(rows, model.cluster_centers_)
    return {**taken.found(), "inertia": inertia(model.cluster_centers_, held)}


def scikit_learn_full(size: Size, folder: Path) -> Found:
    """scikit-learn's KMeans on all rows, k-means++ and a bounded number of iterations."""
    from sklearn.cluster import KMeans

    rows, held = _in_memory(size, folder)
    with cost() as taken:
        model = KMeans(size.regions, n_init=1, max_iter=size.full_iterations, random_state=0).fit(rows)
    return {**taken.found(), "inertia": inertia(model.cluster_centers_, held), "iterations": int(model.n_iter_)}


def scikit_learn_batches(size: Size, folder: Path) -> Found:
    """scikit-learn's MiniBatchKMeans as it comes; it labels all rows."""
    from sklearn.cluster import MiniBatchKMeans

    rows, held = _in_memory(size, folder)
    with cost() as taken:
        model = MiniBatchKMeans(size.regions, n_init=1, random_state=0).fit(rows)
    return {**taken.found(), "inertia": inertia(model.cluster_centers_, held), "iterations": int(model.n_iter_)}


def faiss(size: Size, folder: Path, *, points: int) -> Found:
    """faiss' k-means on so many rows a region, 25 iterations as it comes, then all rows assigned."""
    import faiss as module

    rows, held = _in_memory(size, folder)
    with cost() as taken:
        model = module.Kmeans(
            size.width, size.regions, niter=25 if points > 64 else 10, seed=0, max_points_per_centroid=points
        )
        model.train(rows)
        for begin in range(0, len(rows), 65_536):
            model.index.search(rows[begin : begin + 65_536], 1)
    return {**taken.found(), "inertia": inertia(model.centroids, held)}


def _in_memory(size: Size, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    rows = np.array(world.mapped(folder, size.rows, size.width, "float32"))
    return rows, world.embeddings(size.held, size.width, 10**6)


RIVALS = {
    "aria-sampling": ("ours", {}),
    "scikit-learn KMeans on the subsample": ("scikit_learn_subsample", {}),
    "scikit-learn KMeans on all rows": ("scikit_learn_full", {}),
    "scikit-learn MiniBatchKMeans": ("scikit_learn_batches", {}),
    "faiss, 64 rows a region, 10 iterations": ("faiss", {"points": 64}),
    "faiss as it comes (256 rows a region, 25 iterations)": ("faiss", {"points": 256}),
}


def plan(size: Size) -> dict[str, dict[str, tuple[str, Found]]]:
    """All measurements by part and name: the function, and its arguments."""
    fitted = f"{size.rows:,} × {size.width} "
    return {
        "fit": {
            f"{fitted}{dtype}, {size.regions:,} regions": ("fit", {"dtype": dtype, "regions": size.regions})
            for dtype in ("float32", "float16")
        },
        "regions": {
            f"{fitted}float16, {k:,} regions": ("fit", {"dtype": "float16", "regions": k}) for k in size.many_regions
        },
        "assign": {f"{n:,} × {size.wide} float16": ("assign", {"n": n}) for n in size.flat},
        "shards": {f"{size.wide_rows * size.copies:,} × {size.wide} float16 in shards": ("assign_shards", {})},
        "labels": {f"{size.labels:,} labels, {k:,} regions": ("labels", {"regions": k}) for k in (size.regions, 100_000)
                   if k <= size.labels // 10},
        "names": {
            f"{size.rows:,} captions, {size.regions:,} regions, by {how}": ("names", {"centres": how == "centres"})
            for how in ("centres", "terms")
        },
        "rivals": {name: (function, {**given}) for name, (function, given) in RIVALS.items()},
    }  # fmt: skip


def alone(function: str, size: Size, folder: Path, given: Found, *, threads: int) -> Found:
    """Run one measurement in a process of its own; {"missing": why} where a package is not installed."""
    code = "import sys; from benchmarks.scale.measures import child; child(*sys.argv[1:])"
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", code, function, json.dumps(asdict(size)), str(folder), json.dumps(given)],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{function} {given} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def child(function: str, size: str, folder: str, given: str) -> None:
    """What `alone` runs: print what a measurement found."""
    call: Callable[..., Found] = globals()[function]
    whole = json.loads(size)
    chosen = replace(
        FULL, **{name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}
    )
    try:
        found = call(chosen, Path(folder), **json.loads(given))
    except ImportError as error:
        found = {"missing": str(error)}
    print(json.dumps(found))
