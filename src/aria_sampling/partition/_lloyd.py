"""k-means on rows in memory: seeds by a tree, Lloyd iterations, and regions that are too large cut up.

Seeding by k-means++ on all rows takes K passes, which is more than all that follows. Here the rows go into about √K
cells first. Every cell gets seeds in proportion to its inertia, found by k-means++ inside the cell: √K times fewer
comparisons. From `TREE` regions on the iterations stay inside the cells as well, a tree of two levels.

Everything is a generator of centres, so that a caller can show how far it is, and stop with what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, FloatArray, IntArray
from aria_sampling.partition._assign import Rows, nearest, scale_of
from aria_sampling.partition._progress import Progress, silent

__all__ = ["TREE", "Frame", "cut", "lloyd", "n_steps", "sampled", "seeds", "split"]

TREE = 10_000  # regions from which on iterations stay inside the cells

_FLAT = 64  # up to so many regions there are no cells
_PER_SEED = 64  # rows that seeds are chosen from, for each
_COARSE_ITERATIONS = 5
_MOST_ROUNDS = 50
_ROOM = 0.8  # of its cap is what a child should fill: it gets items of its neighbours, too
_SAME = 1e-6  # squared distances, in units of the squared norms, that are rounding errors


def n_steps(k: int, max_iter: int) -> int:
    """Return how many sets of centres `seeds` and then `lloyd` give at most."""
    cells = 0 if k <= _FLAT else _n_cells(k)
    return 1 + cells + (max_iter if k < TREE else 0)


def sampled(rng: np.random.Generator, n: int, m: int) -> IntArray:
    """Return m of n numbers, ascending: one, at random, of each of m stretches of equal length."""
    whole, rest = divmod(n, m)
    step = np.arange(m + 1)
    edges = step * whole + step * rest // m
    return edges[:-1] + rng.integers(np.diff(edges))


def _n_cells(k: int) -> int:
    return round(k**0.5)


def seeds(x: AnyArray, k: int, rng: np.random.Generator, *, max_iter: int, unit: bool) -> Iterator[AnyArray]:
    """Yield starting centres, float32 [k, d], better ones each time; the array is one and the same.

    Args:
        x: float32 [n, d], n >= k: near the origin, or of norm 1 each.
        k: How many.
        rng: Moves on.
        max_iter: Lloyd iterations inside a cell, at most.
        unit: Whether centres have norm 1.
    """
    if k <= _FLAT:
        yield _plus_plus(_some(x, _PER_SEED * k, rng), k, rng)
        return
    few = _some(x, _PER_SEED * _n_cells(k), rng)
    coarse = _last(lloyd(few, _plus_plus(few, _n_cells(k), rng), max_iter=_COARSE_ITERATIONS, unit=unit))
    cell = nearest(Rows("x", x), coarse, dtype=np.int32)
    inertia = np.bincount(cell, weights=_squared_distances(x, cell, coarse), minlength=len(coarse)).astype(float)
    order, sizes = np.argsort(cell, kind="stable"), np.bincount(cell, minlength=len(coarse))
    ends, begins = np.cumsum(sizes), np.cumsum(_allotted(sizes, inertia, k))
    parts = [
        (order[end - size : end], slice(int(begin - n), int(begin)))
        for end, size, begin, n in zip(ends, sizes, begins, np.diff(begins, prepend=0), strict=True)
    ]
    centers = np.concatenate([x[np.sort(rng.permutation(items)[: where.stop - where.start])] for items, where in parts])
    yield centers
    for items, where in parts:
        n = where.stop - where.start
        if n in (0, len(items)):  # every row is a centre
            yield centers
            continue
        rows = x[items]
        first = _plus_plus(_some(rows, _PER_SEED * n, rng), n, rng)
        centers[where] = _last(lloyd(rows, first, max_iter=max_iter, unit=unit))
        yield centers


def lloyd(x: AnyArray, centers: AnyArray, *, max_iter: int, unit: bool, device: Any = None) -> Iterator[AnyArray]:
    """Yield the centres after each Lloyd iteration, float32 [k, d], a new array each, until nothing moves any more."""
    rows, before = Rows("x", x), None
    for _ in range(max_iter):
        labels = nearest(rows, centers, device=device, dtype=np.int32)
        if before is not None and np.array_equal(labels, before):
            return
        before = labels
        centers = _means(x, labels, centers, unit=unit)
        yield centers


def _last(found: Iterator[AnyArray]) -> AnyArray:
    """Return the last of several arrays."""
    return list(found)[-1]


def _some(x: AnyArray, m: int, rng: np.random.Generator) -> AnyArray:
    """Return m rows, or all if there are no more."""
    return x if len(x) <= m else x[sampled(rng, len(x), m)]


def _allotted(sizes: IntArray, inertia: FloatArray, k: int) -> IntArray:
    """Return how many of k centres each cell gets, int64: in proportion to its inertia, at most one a row.

    In many dimensions that is what the best quantiser does: all regions have nearly the same inertia (Gersho 1979).
    A cell with rows gets one at least, as far as there are enough.
    """
    share = k * (inertia / inertia.sum() if inertia.sum() > 0 else sizes / sizes.sum())
    given = np.minimum(np.maximum(np.floor(share).astype(np.int64), 1), sizes)
    while (left := k - int(given.sum())) != 0:
        least = 1 if given.max() > 1 else 0
        free = np.flatnonzero(given < sizes if left > 0 else given > least)
        missing = (share - given)[free] * np.sign(left)
        given[free[np.argsort(-missing, kind="stable")[: abs(left)]]] += np.sign(left)
    return given


def _plus_plus(x: AnyArray, k: int, rng: np.random.Generator) -> AnyArray:
    """Return k of the rows, float32 [k, d], by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Each next one is the best of 2 + log(k) candidates, drawn by squared distance to the nearest so far.
    """
    norms = np.einsum("nd,nd->n", x, x)
    chosen = np.empty(k, np.int64)
    chosen[0] = rng.integers(len(x))
    distance = _to_some(x, norms, chosen[:1])[0]
    for i in range(1, k):
        reach = np.cumsum(distance, dtype=np.float64)
        if not reach[-1] > 0:  # fewer different rows than k
            chosen[i:] = rng.integers(len(x), size=k - i)
            break
        drawn: FloatArray = rng.random(2 + int(np.log(k))) * reach[-1]
        tried = np.minimum(np.searchsorted(reach, drawn, side="right"), len(x) - 1).astype(np.int64)
        nearer = np.minimum(_to_some(x, norms, tried), distance)
        best = int(nearer.sum(axis=1, dtype=np.float64).argmin())
        chosen[i], distance = tried[best], nearer[best]
    return x[chosen]


def _to_some(x: AnyArray, norms: AnyArray, chosen: IntArray) -> AnyArray:
    """Return the squared distances of all rows to some of them, float32 [m, n]; 0 where they are alike."""
    both = norms[chosen][:, None] + norms
    distance = both - 2 * (x[chosen] @ x.T)
    distance[distance <= _SAME * both] = 0
    return distance


def _means(x: AnyArray, labels: AnyArray, centers: AnyArray, *, unit: bool) -> AnyArray:
    """Return the mean of the rows of each region, float32 [k, d]; as a direction of norm 1 if `unit`.

    A region without rows takes the row that is farthest from its centre, as scikit-learn's does; if no row is away from
    its centre, it stays where it was.
    """
    from scipy.sparse import csr_matrix  # pyright: ignore

    k, n = len(centers), len(x)
    sizes = np.bincount(labels, minlength=k)
    order = np.argsort(labels, kind="stable").astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    pick: Any = csr_matrix((np.ones(n, np.float32), order, ends), shape=(k, n))  # pyright: ignore
    means = np.asarray(pick @ x, np.float32)
    if unit:
        lengths = np.sqrt(np.einsum("kd,kd->k", means, means, dtype=np.float64))
        held = lengths > 0
        means[held] /= lengths[held, None].astype(np.float32)
    else:
        held = sizes > 0
        means[held] /= sizes[held, None].astype(np.float32)
    means[~held] = centers[~held]
    empty = np.flatnonzero(sizes == 0)
    if empty.size:
        away = _squared_distances(x, labels, centers)
        far = np.argsort(-away, kind="stable")[: empty.size]
        far = far[away[far] > 0]
        means[empty[: far.size]] = x[far]
    return means


def _squared_distances(x: AnyArray, labels: AnyArray, centers: AnyArray) -> AnyArray:
    """Return the squared distance of each row to its centre, float32 [n]."""
    found = np.empty(len(x), np.float32)
    step = max(1, (1 << 20) // x.shape[1])
    for begin in range(0, len(x), step):
        part = slice(begin, begin + step)
        apart = x[part] - centers[labels[part]]
        found[part] = np.einsum("nd,nd->n", apart, apart)
    return found


# ------------------------------------------------------------------------------------------------- a cap on regions


def split(
    rows: Rows,
    centers: AnyArray,
    cap: int,
    rng: np.random.Generator,
    *,
    unit: bool,
    device: Any = None,
    progress: Progress = silent,
) -> tuple[AnyArray, AnyArray]:
    """Return the nearest centre of each row, uint32 [n], and centres, more of them, so that none has more than `cap`.

    A region that is too large gives way to regions of its own rows, by k-means, and all rows are compared again, until
    none is too large. Only rows that no centre can tell apart stay together too long; `cut` takes them.
    """
    solid = np.zeros(len(centers), bool)
    for _ in range(_MOST_ROUNDS):
        progress.stage("assigning", len(rows))
        labels = nearest(rows, centers, device=device, progress=progress, dtype=np.uint32)
        sizes = np.bincount(labels, minlength=len(centers))
        large = np.flatnonzero((sizes > cap) & ~solid)
        if not large.size:
            return labels, centers
        chosen = np.zeros(len(centers), bool)
        chosen[large] = True
        items = np.flatnonzero(chosen[labels])
        items = items[np.argsort(labels[items], kind="stable")]
        children: list[AnyArray] = []
        progress.stage("splitting", len(large))
        for region, own in zip(large, np.split(items, np.cumsum(sizes[large])[:-1]), strict=True):
            found = _children(rows, own, cap, rng, unit=unit)
            if len(found) < 2:
                solid[region], chosen[region] = True, False
            else:
                children.append(found)
            progress.update()
        centers = np.concatenate([centers[~chosen], *children])
        solid = np.concatenate([solid[~chosen], *(np.zeros(len(found), bool) for found in children)])
    return nearest(rows, centers, device=device, dtype=np.uint32), centers


def _children(rows: Rows, items: IntArray, cap: int, rng: np.random.Generator, *, unit: bool) -> AnyArray:
    """Return the centres that a region of these items is split into, all different, float32 [k, d]."""
    k = max(2, int(np.ceil(len(items) / (_ROOM * cap))))
    x = rows.take(items[sampled(rng, len(items), min(len(items), _PER_SEED * k))])
    frame = Frame(x, unit=unit)
    centers = _last(seeds(x, min(k, len(x)), rng, max_iter=_COARSE_ITERATIONS, unit=unit))
    centers = _last(chain([centers], lloyd(x, centers, max_iter=_COARSE_ITERATIONS, unit=unit)))
    return np.unique(frame.undone(centers), axis=0)


def cut(labels: AnyArray, centers: AnyArray, cap: int) -> tuple[AnyArray, AnyArray]:
    """Return labels and centres where regions of more than `cap` rows are cut by the order of the rows."""
    sizes = np.bincount(labels, minlength=len(centers))
    large, n_centers = np.flatnonzero(sizes > cap), len(centers)
    copies: list[AnyArray] = []
    for region in large:
        parts = np.array_split(np.flatnonzero(labels == region), -(-int(sizes[region]) // cap))
        for part in parts[1:]:
            labels[part] = n_centers
            n_centers += 1
        copies.append(np.repeat(centers[region : region + 1], len(parts) - 1, axis=0))
    return labels, np.concatenate([centers, *copies])


class Frame:
    """Where rows are measured from, and in which unit: moves them there, in place, and centres back.

    Sums of float32 are exact enough near the origin only, and products where numbers are neither huge nor tiny.

    Args:
        x: float32 [n, d], changed: rows of norm 1 if `unit`, else of mean 0.
        unit: Whether only directions count.
    """

    def __init__(self, x: AnyArray, *, unit: bool) -> None:
        self._mean, self._scale = np.zeros(x.shape[1]), scale_of(float(max(x.max(), -x.min())))
        if self._scale != 1:
            x *= np.float32(self._scale)
        if unit:
            self._scale = 1.0
            lengths = np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64))
            np.divide(x, lengths[:, None], out=x, where=lengths[:, None] > 0, casting="same_kind")
        else:
            self._mean = x.mean(axis=0, dtype=np.float64)
            np.subtract(x, self._mean, out=x, casting="same_kind")

    def undone(self, centers: AnyArray) -> AnyArray:
        """Return centres where they came from, float32 [k, d]."""
        return ((centers + self._mean) / self._scale).astype(np.float32)
