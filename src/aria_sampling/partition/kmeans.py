"""`KMeansPartitioner`: regions by k-means on embeddings, fitted on a subsample, assigned a chunk at a time.

Coarse regions do not need a converged clustering of the whole pool: fitted on 64 points a region, the
inertia is within a few per cent of a full fit, and a million embeddings take seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import integer, shown, switch
from aria_sampling.errors import ArgumentError, AriaWarning, outside
from aria_sampling.partition._assign import Rows, checked_device
from aria_sampling.partition._lloyd import TREE, Frame, cut, lloyd, n_steps, sampled, seeds, split
from aria_sampling.partition._progress import Progress
from aria_sampling.partition.partition import Partition, checked_names, of_filled, of_nearest
from aria_sampling.partition.partitioner import Partitioner

__all__ = ["KMeansPartitioner"]

_POINTS, _FEWEST_POINTS = 64, 16  # a region
_MOST_NUMBERS = 1 << 30  # of the subsample: 4 GiB
_MARGIN = 0.85  # of the cap, where it is held on the subsample: sizes in the pool differ from those by chance


@dataclass(frozen=True, kw_only=True)
class KMeansPartitioner(Partitioner):
    """Partition a pool by k-means on its embeddings.

    Embeddings are not copied whole. Centres are fitted on a subsample. Then each item goes to the nearest of them, a
    chunk at a time, so a memory map or a folder of shards may be larger than memory.

    Args:
        n_regions: Number of regions, at least 1.
        seed: Of the subsample and of the starting centres.
        points_per_region: Size of the subsample that the centres are fitted on, for each region. Default: 64, or as
            many as 4 GiB hold as float32, but 16 at least.
        max_iter: Lloyd iterations on the subsample.
        spherical: Compare directions alone, as by cosine: for embeddings of text, whose lengths mean nothing. Centres
            have norm 1.
        max_size: Most items of a region; None for no limit. See the notes.
        device: Where rows and centres are compared. None: on a GPU by torch if both are there and there are more than
            10^12 products to compute, else by NumPy. "cpu": by NumPy. Else a device of torch, such as "cuda:1".
        progress: Show how far it is, by tqdm if that is installed.

    Notes:
        Seeds: rows go into √n_regions cells, and greedy k-means++ finds the seeds in each cell. Up to 9,999 regions
        Lloyd iterations on the subsample follow. From 10,000 on these stay inside the cells: a tree of two levels.
        Items are compared with all centres in either case.

        `max_size`: A region with more items gives way to regions of its own items, by k-means, and all items are
        compared again, until no region is too large. So there may be more than `n_regions` regions, and each item still
        is in the region of its nearest centre. Where more than `max_size` items have one and the same embedding, they
        go into several regions with equal centres, by their numbers.

        Ctrl-C while centres are fitted ends the fitting: the partition is that of the centres so far, with a warning.
        At least the seeds must be there. Ctrl-C while items are assigned raises `KeyboardInterrupt`, which has the
        centres as ``error.centers``; `Partition.from_centers` takes them.

        The result is the same, bit for bit, for the same embeddings and seed on one machine with as many threads. On a
        GPU sums have another order: an item that is as near to two centres, up to the rounding of float32, may be in
        the other region.

    Raises:
        ValueError: An argument is not in its range.
    """

    n_regions: int
    seed: int = 0
    points_per_region: int | None = None
    max_iter: int = 10
    spherical: bool = False
    max_size: int | None = None
    device: Any = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        integer("n_regions", self.n_regions, low=1)
        integer("seed", self.seed, low=0, high=2**32 - 1)
        if self.points_per_region is not None:
            integer("points_per_region", self.points_per_region, low=1)
        integer("max_iter", self.max_iter, low=1)
        if self.max_size is not None:
            integer("max_size", self.max_size, low=1)
        for name in ("spherical", "progress"):
            switch(name, getattr(self, name))

    def fit(self, embeddings: Any, *, names: Sequence[str] | None = None) -> Partition:
        """Cluster `embeddings`, real [n_items, d], and return the `Partition` with its centres.

        Save the partition and load it rather than fitting again. Centres that end up with no item are dropped with
        a warning, so the partition may have fewer than `n_regions` regions.

        Args:
            embeddings: A list, array, memory map, tensor or DataFrame; or any object with ``shape``, ``dtype``,
                ``len()``, slices and a sorted array of row numbers as an index. Of any precision.
            names: One name a region; default the region's number. Not with `max_size`.

        Raises:
            ValueError: Another shape, a non-finite value, fewer items than regions, or `names` of another length; rows
                of zeros, if `spherical`; a device that is not there.
            KeyboardInterrupt: While items were assigned, or before there were any centres.
        """
        rows = Rows("embeddings", embeddings, direction=self.spherical)
        if len(rows) < self.n_regions:
            raise ArgumentError(f"embeddings: expected at least n_regions={self.n_regions} rows, got {len(rows)}")
        if names is not None:
            if self.max_size is not None:
                raise ArgumentError(
                    "names: expected None with max_size, which makes as many regions as it takes, got "
                    f"{shown(names)}; Partition.named gives names to regions that are there"
                )
            names = checked_names(names, self.n_regions)  # before minutes of fitting
        device = checked_device(self.device, float(len(rows)) * self.n_regions * rows.shape[1])
        with Progress(self.progress) as progress:
            centers = self._centers(rows, progress, device)
            try:
                if self.max_size is None:
                    return of_nearest(rows, centers, names=names, device=device, progress=progress)
                rng = np.random.default_rng([self.seed, 1])
                unit = self.spherical
                labels, centers = split(rows, centers, self.max_size, rng, unit=unit, device=device, progress=progress)
            except KeyboardInterrupt as interrupt:
                raise _with_centers(interrupt, centers) from None
        return of_filled(*cut(labels, centers, self.max_size), expected=self.n_regions)

    def _centers(self, rows: Rows, progress: Progress, device: Any) -> AnyArray:
        """Return the centres fitted on a subsample, float32 [n_regions, d]; more of them if there is a `max_size`."""
        rng = np.random.default_rng(self.seed)
        points = self.points_per_region
        if points is None:
            points = max(_FEWEST_POINTS, min(_POINTS, _MOST_NUMBERS // (self.n_regions * rows.shape[1])))
        n_fit = min(len(rows), self.n_regions * points)
        x = rows.take(np.arange(n_fit) if n_fit == len(rows) else sampled(rng, len(rows), n_fit))
        frame = Frame(x, unit=self.spherical)
        total = n_steps(self.n_regions, self.max_iter)
        progress.stage("fitting", total)
        centers, done = x[:0], 0
        try:
            for better in self._steps(x, rng, len(rows), device):
                centers, done = better, done + 1
                progress.update()
        except KeyboardInterrupt:
            if done == 0:
                raise
            warnings.warn(
                f"k-means was interrupted after {done} of {total} steps; the regions are those of its centres so far. "
                "Interrupt once more to stop for good",
                AriaWarning,
                stacklevel=outside(),
            )
        return frame.undone(centers)

    def _steps(self, x: AnyArray, rng: np.random.Generator, n_items: int, device: Any) -> Iterator[AnyArray]:
        """Yield better and better centres."""
        centers = x[:0]
        for centers in seeds(x, self.n_regions, rng, max_iter=self.max_iter, unit=self.spherical):
            yield centers
        if self.n_regions < TREE:
            for better in lloyd(x, centers, max_iter=self.max_iter, unit=self.spherical, device=device):
                centers = better
                yield centers
        if self.max_size is not None:
            margin = 1.0 if len(x) == n_items else _MARGIN
            cap = max(1, int(margin * self.max_size * len(x) / n_items))
            yield split(Rows("embeddings", x), centers, cap, rng, unit=self.spherical, device=device)[1]


def _with_centers(interrupt: KeyboardInterrupt, centers: AnyArray) -> KeyboardInterrupt:
    """Return an interrupt that has the centres, so that the time spent on them is not lost."""
    interrupt.add_note(
        "The centres are fitted, and kept as error.centers (sys.last_value.centers in a notebook): "
        "aria.Partition.from_centers(embeddings, centers) goes on from there."
    )
    interrupt.centers = centers  # pyright: ignore
    return interrupt
