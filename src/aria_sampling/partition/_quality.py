"""`quality`: how good regions are for an allocation, and `quality_curve`: how many of them to take.

An allocator sees regions, and nothing inside them. So what counts is how much of the discrepancy's variance is between
regions, whether another sample of the pool would give the same regions, and how uneven they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, FloatArray, IntArray
from aria_sampling._check import float_vector, instance, int_vector, integer, kind_of, shown, switch
from aria_sampling.errors import ArgumentError, AriaWarning
from aria_sampling.partition._assign import Rows
from aria_sampling.partition._progress import Progress
from aria_sampling.partition.kmeans import KMeansPartitioner
from aria_sampling.partition.partition import Partition
from aria_sampling.partition.partitioner import Partitioner

__all__ = ["Quality", "QualityCurve", "quality", "quality_curve"]

_GROUPS, _FEWEST_GROUPS, _MOST_SUMS = 20, 4, 1 << 22  # of the jackknife; regions times groups
_TESTED = 20_000  # items on which embeddings are explained and refits compared
_POINTS = 128  # a region: what a refit sees at most
_MOST_REFITS = 100
_LARGEST_LOSS = 1e150
_LADDER = (16, 64, 256, 1024, 4096)
_ITEMS_PER_REGION = 32  # at least, on the ladder


@dataclass(frozen=True)
class Quality:
    """How good a partition is, in a few numbers. None where what it takes was not given.

    Attributes:
        n_regions: Number of regions.
        smallest: Items of the smallest region that has any.
        median: Items of the median region.
        largest: Items of the largest region.
        effective_regions: exp of the entropy of the sizes.
        between: Share of the variance of the losses over the pool that is between regions, corrected for chance: 0 on
            average where regions have nothing to do with losses, and so at times below 0; 1 if losses differ by region
            alone. It bounds what any allocation over these regions can gain.
        between_error: Its standard error.
        measured: Share of the items that are in regions with a loss.
        explained: Share of the variance of the embeddings that is between regions.
        stability: Adjusted Rand index of two partitions fitted on different halves of the pool, mean of the refits: 1
            if both put the same items together, 0 if they agree by chance.
        stability_error: Its standard error; NaN after a single refit.
    """

    n_regions: int
    smallest: int
    median: float
    largest: int
    effective_regions: float
    between: float | None = None
    between_error: float | None = None
    measured: float | None = None
    explained: float | None = None
    stability: float | None = None
    stability_error: float | None = None

    def __str__(self) -> str:
        """All that is known, in a few lines."""
        lines = [
            f"{self.n_regions} regions of {self.smallest} to {self.largest} items, median {self.median:g}, as uneven "
            f"as {self.effective_regions:.1f} equal ones"
        ]
        if self.between is not None:
            lines.append(
                f"{100 * self.between:.1f} ± {200 * (self.between_error or 0):.1f}% of the variance of losses is "
                f"between regions (95%; {100 * (self.measured or 0):.0f}% of the items are in regions with a loss)"
            )
        if self.explained is not None:
            lines.append(f"{100 * self.explained:.1f}% of the variance of embeddings is between regions")
        if self.stability is not None:
            lines.append(f"stability: adjusted Rand index {self.stability:.2f} between fits on two halves of the pool")
        return "\n".join(lines)


@dataclass(frozen=True)
class QualityCurve:
    """The qualities of partitions with more and more regions.

    Attributes:
        qualities: One a number of regions, ascending.
        recommended: The smallest number whose share of the variance of losses is within one standard error of the best
            (the rule of Breiman et al. 1984). None without losses: embeddings alone do not tell how many to take.
    """

    qualities: tuple[Quality, ...]
    recommended: int | None

    def values(self, name: str) -> FloatArray:
        """Return one attribute of all qualities, float64 [m]; NaN where it is None. ValueError if there is none."""
        if name not in Quality.__dataclass_fields__:
            raise ArgumentError(f"name={shown(name)}: expected one of {', '.join(Quality.__dataclass_fields__)}")
        found = [getattr(each, name) for each in self.qualities]
        return np.array([np.nan if value is None else value for value in found], np.float64)


def quality(
    partition: Partition,
    embeddings: Any = None,
    losses: Any = None,
    *,
    items: Any = None,
    partitioner: Partitioner | None = None,
    refits: int = 3,
    seed: int = 0,
) -> Quality:
    """Return how good a partition is for an allocation.

    >>> import numpy as np
    >>> partition = Partition.from_labels(np.arange(1000) % 10)
    >>> noise = np.random.default_rng(0).normal(size=1000)
    >>> print(quality(partition, losses=partition.labels + noise))
    10 regions of 100 to 100 items, median 100, as uneven as 10.0 equal ones
    89.9 ± 0.9% of the variance of losses is between regions (95%; 100% of the items are in regions with a loss)

    Args:
        partition: The regions.
        embeddings: Real [n_items, d], see `KMeansPartitioner.fit`: for `explained` and `stability`.
        losses: One discrepancy or loss an item, real [n_items], NaN where none is known; or [m] for `items`, where an
            item may come several times. For `between`.
        items: The items that `losses` are of, integers [m].
        partitioner: What is fitted again for `stability`. Default: k-means with as many regions, where the partition
            has centres. Its partitions must have centres.
        refits: Pairs of fits for `stability`, each on at most 128 items a region, 0 to 100.
        seed: Of what is sampled.

    Notes:
        With w_k the share of items in region k among all measured regions, and m_k, s_k², n_k mean, variance and number
        of its losses, the variance between is ``sum(w (m - sum(w m))²) - sum(w (1 - w) s² / n)``, the variance within
        is ``sum(w s²)``. Both are unbiased for any n_k >= 2; a region with one loss takes the pooled variance. It is
        omega² (Hays 1963) for regions of unequal size and variance. The standard error is that of a jackknife which
        leaves out a twentieth of every region's losses at a time.

    Raises:
        ValueError: Lengths that do not fit, or no finite loss in two items of one region; a number out of range; a
            partitioner whose partitions have no centres.
    """
    instance("partition", partition, Partition)
    refits = integer("refits", refits, low=0, high=_MOST_REFITS)
    rng = np.random.default_rng(integer("seed", seed, low=0))
    if partitioner is not None:
        instance("partitioner", partitioner, Partitioner)
    filled = partition.sizes[partition.sizes > 0]
    shares = filled / filled.sum()
    found = Quality(
        n_regions=partition.n_regions,
        smallest=int(filled.min()),
        median=float(np.median(filled)),
        largest=int(filled.max()),
        effective_regions=float(np.exp(-(shares * np.log(shares)).sum())),
    )
    if losses is not None:
        found = replace(found, **_of_losses(partition, losses, items, rng))
    elif items is not None:
        raise ArgumentError("items: expected losses= beside it, got none")
    if embeddings is not None:
        rows = Rows("embeddings", embeddings)
        if len(rows) != partition.n_items:
            raise ArgumentError(f"embeddings: expected {partition.n_items} rows, one an item, got {len(rows)}")
        found = replace(found, explained=_explained(partition, rows, rng))
        if partitioner is None and partition.centers is not None:
            partitioner = KMeansPartitioner(n_regions=partition.n_regions, spherical=_unit(partition.centers))
        if partitioner is not None and refits:
            found = replace(found, **_stability(rows, partition.n_regions, partitioner, refits, rng))
    elif partitioner is not None:
        raise ArgumentError("partitioner: expected embeddings= beside it, got none")
    return found


def quality_curve(
    embeddings: Any,
    losses: Any = None,
    *,
    items: Any = None,
    n_regions: Sequence[int] | None = None,
    partitioner: Callable[[int], Partitioner] | None = None,
    refits: int = 1,
    seed: int = 0,
    progress: bool = False,
) -> QualityCurve:
    """Return the qualities of partitions with more and more regions; `aria_sampling.report.regions_figure` shows them.

    Args:
        embeddings: Real [n_items, d], see `KMeansPartitioner.fit`.
        losses: As for `quality`.
        items: As for `quality`.
        n_regions: Numbers to try, at least one. Default: 16, 64, 256, 1024 and 4096, as far as each region has 32 items
            on average.
        partitioner: Called with a number of regions. Default: k-means.
        refits: As for `quality`.
        seed: Of k-means and of what is sampled.
        progress: Show how far it is.

    Raises:
        ValueError: As `quality` and the partitioner.
    """
    rows = Rows("embeddings", embeddings)
    if n_regions is None:
        n_regions = [k for k in _LADDER if k * _ITEMS_PER_REGION <= len(rows)] or [min(len(rows), 2)]
    numbers = sorted(set(int_vector("n_regions", n_regions, low=1).tolist()))
    if not numbers:
        raise ArgumentError("n_regions: expected at least one number, got none")
    if partitioner is not None and not callable(partitioner):
        raise ArgumentError(
            f"partitioner: expected a function of a number of regions, got {kind_of(partitioner)}",
            remedy="partitioner = lambda n: aria.KMeansPartitioner(n_regions=n)",
        )
    found: list[Quality] = []
    with Progress(switch("progress", progress)) as stages:
        stages.stage("partitions", len(numbers))
        for number in numbers:
            each = KMeansPartitioner(n_regions=number, seed=seed) if partitioner is None else partitioner(number)
            instance("partitioner", each, Partitioner)
            pool = each.fit(rows.source)
            found.append(quality(pool, rows.source, losses, items=items, partitioner=each, refits=refits, seed=seed))
            stages.update()
    return QualityCurve(tuple(found), _recommended(found))


def _recommended(found: Sequence[Quality]) -> int | None:
    """Return the smallest number of regions that is within one standard error of the best; None without losses."""
    shares = [(each.between, each.between_error, each.n_regions) for each in found]
    known = [(share, error, n) for share, error, n in shares if share is not None and error is not None]
    if not known:
        return None
    best, error, _ = max(known)
    return min(n for share, _, n in known if share >= best - error)


# ------------------------------------------------------------------------------------------------ losses


def _of_losses(partition: Partition, losses: Any, items: Any, rng: np.random.Generator) -> dict[str, float]:
    """Return `between`, `between_error` and `measured`."""
    if items is None:
        values = float_vector("losses", losses, length=partition.n_items)
        regions = partition.labels
    else:
        numbers = int_vector("items", items, high=partition.n_items)
        values = float_vector("losses", losses, length=len(numbers))
        regions = partition.regions_of(numbers)
    known = np.isfinite(values) & (np.abs(values) < _LARGEST_LOSS)
    values, regions = values[known], regions[known].astype(np.int64)
    weights = partition.sizes.astype(np.float64)
    counts = np.bincount(regions, minlength=partition.n_regions)
    if not (counts[weights > 0] > 1).any():
        raise ArgumentError(
            f"losses: expected two finite losses in one region at least, got {len(values)} finite losses in "
            f"{np.count_nonzero(counts)} regions"
        )
    values = values - values.mean()
    spread = float(np.abs(values).max())
    values = values / spread if spread > 0 else values
    n_groups = min(_GROUPS, max(_FEWEST_GROUPS, _MOST_SUMS // partition.n_regions))
    group = _groups(regions, counts, n_groups, rng)
    shape = partition.n_regions, n_groups
    cell = regions * n_groups + group
    sums = np.stack([np.bincount(cell, weights=values**power, minlength=shape[0] * shape[1]) for power in range(3)])
    sums = sums.reshape(3, *shape)
    whole = sums.sum(axis=2)
    left = np.array([_share(*_components(whole - sums[:, :, g], weights)) for g in range(n_groups)])
    error = np.sqrt((n_groups - 1) / n_groups * np.square(left - left.mean()).sum())
    return {
        "between": _share(*_components(whole, weights)),
        "between_error": float(error),
        "measured": float(weights[counts > 0].sum() / weights.sum()),
    }


def _groups(regions: IntArray, counts: IntArray, n_groups: int, rng: np.random.Generator) -> IntArray:
    """Return the group of each loss, int64 [m]: at random, and as many of each as there can be in every region."""
    shuffled = rng.permutation(len(regions))
    order = shuffled[np.argsort(regions[shuffled], kind="stable")]
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    group = np.empty(len(order), np.int64)
    group[order] = (rank + np.repeat(rng.integers(n_groups, size=len(counts)), counts)) % n_groups
    return group


def _components(sums: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Return the variance between regions and that within, both unbiased.

    Args:
        sums: Number, sum, and sum of squares of each region's losses, float64 [3, n_regions].
        weights: Of the regions, not negative, float64 [n_regions].
    """
    held = (sums[0] > 0) & (weights > 0)
    n, total, squares = sums[:, held]
    w = weights[held] / weights[held].sum()
    mean = total / n
    within = np.maximum(squares - n * mean**2, 0)
    pooled = within.sum() / max(float((n - 1).sum()), 1.0)
    variance, several = np.full(len(n), pooled), n > 1
    variance[several] = within[several] / (n[several] - 1)
    between = np.dot(w, np.square(mean - np.dot(w, mean))) - np.dot(w * (1 - w), variance / n)
    return float(between), float(np.dot(w, variance))


def _share(between: float, within: float) -> float:
    """Return the share of the variance that is between regions; 0 if there is none at all."""
    return between / (between + within) if between + within > 0 else 0.0


# -------------------------------------------------------------------------------------------- embeddings


def _unit(centers: AnyArray) -> bool:
    """Whether centres are compared by direction."""
    return bool((np.abs(np.einsum("kd,kd->k", centers, centers, dtype=np.float64) - 1) <= 1e-6).all())


def _explained(partition: Partition, rows: Rows, rng: np.random.Generator) -> float:
    """Return the share of the variance of embeddings between regions, on a sample of the items."""
    items = np.sort(rng.permutation(partition.n_items)[:_TESTED]) if len(rows) > _TESTED else np.arange(len(rows))
    x, labels = rows.take(items).astype(np.float64), partition.labels[items].astype(np.int64)
    if partition.centers is not None:
        if _unit(partition.centers):
            x /= np.maximum(np.linalg.norm(x, axis=1), 1e-300)[:, None]
        within = np.square(x - partition.centers[labels]).sum() / len(x)
        total = np.square(x - x.mean(axis=0)).sum() / len(x)
    else:
        filled, place = np.unique(labels, return_inverse=True)
        sums = np.zeros((len(filled), x.shape[1]))
        np.add.at(sums, place, x)
        within = np.square(x - (sums / np.bincount(place)[:, None])[place]).sum() / max(len(x) - len(filled), 1)
        total = np.square(x - x.mean(axis=0)).sum() / max(len(x) - 1, 1)
    return float(1 - within / total) if total > 0 else 0.0


def _stability(
    rows: Rows, n_regions: int, partitioner: Partitioner, refits: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return `stability` and `stability_error`."""
    half = min(len(rows) // 2, max(_POINTS * n_regions, _TESTED))
    if half < n_regions:
        raise ArgumentError(
            f"refits: expected 0 for {n_regions} regions of {len(rows)} items, which have no two halves with an item a "
            f"region, got {refits}",
            remedy="refits = 0",
        )
    tested = rows.take(np.sort(rng.permutation(len(rows))[:_TESTED]))
    found: list[float] = []
    for _ in range(refits):
        items = rng.permutation(len(rows))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AriaWarning)  # of regions without an item, in a half
            pools = [partitioner.fit(rows.take(np.sort(items[i * half : (i + 1) * half]))) for i in (0, 1)]
        if any(pool.centers is None for pool in pools):
            raise ArgumentError(
                f"partitioner: expected one whose partitions have centers, got {shown(partitioner)}; or refits=0"
            )
        found.append(_adjusted_rand(*(pool.assign(tested) for pool in pools)))
    error = float(np.std(found, ddof=1) / np.sqrt(refits)) if refits > 1 else float("nan")
    return {"stability": float(np.mean(found)), "stability_error": error}


def _adjusted_rand(a: IntArray, b: IntArray) -> float:
    """Return the adjusted Rand index of two labellings (Hubert and Arabie 1985)."""

    def pairs(counts: AnyArray) -> float:
        return float((counts.astype(np.float64) * (counts - 1)).sum() / 2)

    both = pairs(np.unique(a * (int(b.max()) + 1) + b, return_counts=True)[1])
    one, other = (pairs(np.unique(labels, return_counts=True)[1]) for labels in (a, b))
    by_chance = one * other / max(len(a) * (len(a) - 1) / 2, 1)
    most = (one + other) / 2
    return 1.0 if most == by_chance else (both - by_chance) / (most - by_chance)
