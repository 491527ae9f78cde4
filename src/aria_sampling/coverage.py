"""`Coverage`: what trains anyway. Which items of a pool have data of their own, and what these leave unknown.

It is apart from the partition, since one pool meets many data sets, and from the allocator, since it is known
before training and never changes. Two numbers a region come out of it: how much effort the region gets without
being drawn (`Coverage.counts`), and what share of it is unlike anything with data (`Coverage.uncovered`).

>>> import numpy as np
>>> from aria_sampling.partition import Partition
>>> pool = Partition.from_labels([0, 0, 1, 1, 2, 2], centers=[[0.0], [1.0], [9.0]])
>>> coverage = Coverage(pool, items=[0, 0, 1], length_scale=1.0)  # item 0 has two images, item 1 has one
>>> coverage.counts.tolist(), coverage.distinct.tolist()
([3.0, 0.0, 0.0], [2.0, 0.0, 0.0])
>>> np.round(coverage.uncovered, 2).tolist()  # region 1 is near region 0, region 2 is not
[0.33, 0.75, 1.0]
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray
from aria_sampling._check import as_array, as_path, by_name, float_vector, instance, is_tensor, nulls, real, shown_path
from aria_sampling.errors import ArgumentError, AriaWarning, StateError
from aria_sampling.partition._file import Format, read, write
from aria_sampling.partition.partition import Partition, checked_items

__all__ = ["Coverage"]

_MOST_REGIONS = 1 << 18  # beyond, the regions' own counts alone
_LN2 = 0.6931471805599453


@final
@dataclass(frozen=True, eq=False, repr=False, init=False)
class Coverage:
    """The items of a pool that have data of their own, such as prompts with images. A final, read-only value.

    Rows of data train the regions of these items whether the allocator draws them or not. An `Allocator` with a
    coverage draws where the data leave most to learn (theory page, T4.7 and T4.8). Coverage without anything in it
    equals no coverage.

    The vectors are computed with BLAS and may differ in the last bits between two machines. Compute a coverage once,
    `save` it, and `load` it in every rank and every resumed run.

    Args:
        partition: The pool.
        items: The items that have data, integers [m] in ``0..n_items-1`` in any order, an item with several rows of
            data as often as it has rows; or a bool mask [n_items]. List, array, tensor or Series. Captions that are not
            in the pool (-1, NaN, None) are refused: they go to `embeddings`.
        counts: Instead of `items` and `embeddings`: rows of data of each region, real [n_regions], not negative, in
            the order of ``partition.names`` or as a dictionary by these names.
        embeddings: Real [m, d]: captions with data that are no items of the pool, each of which goes to the region
            with the nearest centre. They count in addition to `items`. They come from the encoder that the pool's
            embeddings came from; only the width is checked.
        weight: How many drawn rows a row of data is worth, in [0, 1e9].
        power: Power of `uncovered` in the allocation, in [0, 64]; 0 ignores it.
        length_scale: Distance between centres over which regions are alike, positive. Default: half the median
            distance between two centres (over all pairs, also of each with itself; of 2,048 centres if there are more),
            1 if that is 0.
        noise: So many distinct items leave half of a region unknown that is far from all others, positive.

    Attributes:
        partition: The pool.
        counts: Rows of data of each region, repeats counted, float64 [n_regions].
        distinct: Distinct items and embeddings of each region, float64 [n_regions]; `counts` if these were given.
        uncovered: What the data leave unknown of each region, float64 [n_regions] in (0, 1]: 1 where a region is
            unlike anything with data, and at most ``noise / (distinct + noise)``. See the notes.
        weight: As given.
        power: As given; 0 without centres, above 262,144 regions, and online.
        length_scale: As given, or else computed; None where none was needed.
        noise: As given.
        half_life: Of online coverage, in rounds; None if nothing is forgotten.
        is_online: Whether the rows are known only as they come (`Coverage.online`).
        fingerprint: Hex digest of all that the coverage was made from; not of `uncovered`.

    Notes:
        `uncovered` is the posterior variance of a Gaussian process at the regions' centres (Rasmussen and Williams
        2006, eq. 2.26). Its prior variance is 1, its covariance at distance d is
        ``exp(-d**2 / (2 * length_scale**2))``, and every distinct item is an observation at its region's centre with
        noise of variance `noise`. It is exact up to 4,096 regions, and above if at most 2,048 regions have data.
        Beyond, the covariance between two distant regions is what 1,024 inducing points carry of it (512 above 131,072
        regions), while near regions, in blocks of at most 512, keep theirs (PIC: Snelson and Ghahramani 2007). That
        errs towards 1. Time then grows in proportion to the regions: seconds for some thousands, and tens of
        seconds for tens of thousands. Without centres, and above 262,144 regions, `uncovered` is
        ``noise / (distinct + noise)``.

    Raises:
        ValueError: None of `items`, `counts` and `embeddings` is given, or `counts` beside another; `items` out of
            range or no integers; `embeddings` that do not fit the centres, or a pool without any; `counts` of another
            length, negative or not finite; a number out of its range.

    Warns:
        AriaWarning: The pool has more than 262,144 regions, so that `uncovered` is by counts alone.
    """

    partition: Partition
    counts: FloatArray
    distinct: FloatArray
    uncovered: FloatArray
    weight: float
    power: float
    length_scale: float | None
    noise: float
    half_life: float | None
    is_online: bool
    fingerprint: str

    def __init__(
        self,
        partition: Partition,
        *,
        items: Any = None,
        counts: Any = None,
        embeddings: Any = None,
        weight: float = 10.0,
        power: float = 4.0,
        length_scale: float | None = None,
        noise: float = 1.0,
    ) -> None:
        instance("partition", partition, Partition)
        weight = real("weight", weight, low=0, high=1e9)
        power = real("power", power, low=0, high=64)
        noise = real("noise", noise, low=0, open_low=True)
        if length_scale is not None:
            length_scale = real("length_scale", length_scale, low=0, open_low=True)
        if items is None and counts is None and embeddings is None:
            raise ArgumentError(
                "items: expected items=, embeddings= or counts=, got none of them; pass items=[] if no item has data",
                remedy="coverage = aria.Coverage(partition, items=[])",
            )
        if counts is not None:
            rows = distinct = _checked_counts(partition, counts, items, embeddings)
        else:
            rows, distinct = _counted(partition, items, embeddings)
        centers = partition.centers
        if centers is not None and len(centers) > _MOST_REGIONS:
            if power > 0 and distinct.any():
                warnings.warn(
                    f"{len(centers)} regions are too many to compare with each other (at most {_MOST_REGIONS}), so "
                    "each is covered by its own data alone; use fewer regions, or silence this with power=0",
                    AriaWarning,
                    stacklevel=2,
                )
            centers = None
        given = length_scale
        uncovered = np.clip(noise / (distinct + noise), _LEAST, 1.0)
        if centers is not None and distinct.any():
            length_scale = _length_scale(centers) if length_scale is None else length_scale
            uncovered = np.minimum(uncovered, _posterior(centers, distinct, length_scale, noise))
        power = power if centers is not None else 0.0
        inputs = partition.fingerprint, _digest(centers), weight, power, given, noise, _digest(rows), _digest(distinct)
        self.__setstate__(
            {
                "partition": partition,
                "counts": rows,
                "distinct": distinct,
                "uncovered": uncovered,
                "weight": weight,
                "power": power,
                "length_scale": length_scale,
                "noise": noise,
                "half_life": None,
                "is_online": False,
                "fingerprint": _digest_of_text("static", *inputs),
            }
        )

    @classmethod
    def online(cls, partition: Partition, *, half_life: float | None = None, weight: float = 10.0) -> Coverage:
        """Return the coverage of rows that train anyway, but are known only as they come.

        The allocator counts them: ``allocator.draw(n, present=regions)``. Where the items with data are known before
        training, ``Coverage(partition, items=...)`` is better, since it works from the first round and knows which
        regions are unlike any with data.

        Args:
            partition: The pool.
            half_life: Rounds after which a row counts half, positive; None: it counts for ever.
            weight: How many drawn rows such a row is worth, in [0, 1e9].

        Raises:
            ValueError: An argument is out of its range.
        """
        instance("partition", partition, Partition)
        weight = real("weight", weight, low=0, high=1e9)
        if half_life is not None:
            half_life = real("half_life", half_life, low=0, open_low=True)
        return cls._of(
            partition=partition,
            counts=np.zeros(partition.n_regions),
            distinct=np.zeros(partition.n_regions),
            uncovered=np.ones(partition.n_regions),
            weight=weight,
            power=0.0,
            length_scale=None,
            noise=1.0,
            half_life=half_life,
            is_online=True,
            fingerprint=_digest_of_text("online", partition.fingerprint, weight, half_life),
        )

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it, so that it equals no coverage. Online coverage is never empty."""
        return not self.is_online and not self.counts.any()

    @property
    def keep(self) -> float:
        """What a round leaves of the counts of online coverage, in [0, 1]: ``0.5 ** (1 / half_life)``, or 1."""
        if self.half_life is None:
            return 1.0
        return float(_kernel.exp(np.array([-_LN2 / self.half_life]))[0])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the coverage to one file, atomically; `numpy.load` can read its vectors as well.

        Ranks and resumed runs that load it have the same vectors, to the bit.
        """
        header = {name: getattr(self, name) for name in _HEADER}
        header |= {"partition": self.partition.fingerprint, "centers": _digest(self._compared())}
        write(as_path("path", path), _FORMAT, {name: getattr(self, name) for name in _VECTORS}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], partition: Partition) -> Coverage:
        """Read a coverage that `save` wrote.

        Args:
            path: The file.
            partition: The pool that it was made with.

        Raises:
            StateError: The coverage is that of another pool, or of other centres; or the file is truncated, damaged,
                or no coverage file.
            FileNotFoundError: There is no such file.
        """
        instance("partition", partition, Partition)
        arrays, header = read(as_path("path", path), _FORMAT)
        again = "load the partition it was made with, or make the coverage again with this one"
        if header["partition"] != partition.fingerprint:
            raise StateError(
                f"{shown_path(path)}: expected the coverage of {partition!r}, got that of a pool with "
                f"{len(arrays['counts'])} regions and fingerprint {header['partition'][:12]!r}; {again}",
                remedy="coverage = aria.Coverage(partition, items=items)",
            )
        loaded = cls._of(partition=partition, **arrays, **{name: header[name] for name in _HEADER})
        if header["centers"] != _digest(loaded._compared()):
            raise StateError(
                f"{shown_path(path)}: expected a coverage made with the centers of {partition!r}, got others; {again}",
                remedy="coverage = aria.Coverage(partition, items=items)",
            )
        return loaded

    def _compared(self) -> AnyArray | None:
        """Return the centres that were compared with each other, float32 [n_regions, d]; None if none were."""
        centers = self.partition.centers
        return None if self.is_online or centers is None or len(centers) > _MOST_REGIONS else centers

    @classmethod
    def _of(cls, **state: Any) -> Coverage:
        """Return the coverage with these attributes."""
        coverage = object.__new__(cls)
        coverage.__setstate__(state)
        return coverage

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the attributes, arrays read-only: copying and pickling an array make it writable."""
        for name in _VECTORS:
            state[name].flags.writeable = False
        self.__dict__.update(state)

    def __eq__(self, other: object) -> bool:
        """Two coverages are equal if they were made from the same."""
        return self.fingerprint == other.fingerprint if isinstance(other, Coverage) else NotImplemented

    def __hash__(self) -> int:
        """Hash of the fingerprint."""
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        """Short form: how many regions have data, settings and fingerprint."""
        n_regions, tail = self.partition.n_regions, f"weight={self.weight:g}, fingerprint={self.fingerprint[:12]!r})"
        if self.is_online:
            return f"Coverage.online(n_regions={n_regions}, half_life={self.half_life}, {tail}"
        covered = int(np.count_nonzero(self.counts))
        return f"Coverage(n_regions={n_regions}, covered={covered}, power={self.power:g}, {tail}"


# ------------------------------------------------------------------------------------------------------ counting


def _checked_counts(partition: Partition, counts: Any, items: Any, embeddings: Any) -> FloatArray:
    """Return a copy of `counts`, float64 [n_regions]; ValueError unless they stand alone and are not negative."""
    if items is not None or embeddings is not None:
        other = "items" if items is not None else "embeddings"
        raise ArgumentError(f"counts: expected no {other}= beside it, got both; counts= says all there is of a region")
    if isinstance(counts, Mapping):
        counts = by_name("counts", cast("Mapping[Any, Any]", counts), partition.names)
    array = float_vector("counts", counts, length=partition.n_regions)
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.sum())
    if not finite or not (array >= 0).all():
        raise ArgumentError(
            f"counts: expected numbers >= 0 with a finite sum, got values from {array.min()} to {array.max()}"
        )
    return array.copy()


def _counted(partition: Partition, items: Any, embeddings: Any) -> tuple[FloatArray, FloatArray]:
    """Return the rows of data of each region, and those of distinct items and embeddings, float64 [n_regions] each."""
    rows, distinct = np.zeros(partition.n_regions), np.zeros(partition.n_regions)

    if items is not None:
        given = _checked_items(partition, items)
        once = np.unique(given)
        rows += np.bincount(partition.regions_of(given), minlength=partition.n_regions)
        distinct += np.bincount(partition.regions_of(once), minlength=partition.n_regions)
    if embeddings is not None:
        if partition.centers is None:
            raise ArgumentError(
                "embeddings: expected a partition with centers, to find their regions, got one made from labels alone; "
                "make it with a partitioner, or pass centers= to Partition.from_labels; or pass items= instead"
            )
        array = as_array("embeddings", embeddings, "real [m, d]")
        if array.ndim == 0 or len(array):
            regions = partition.assign(array)
            rows += np.bincount(regions, minlength=partition.n_regions)
            distinct += np.bincount(regions[_first_of_equals(array)], minlength=partition.n_regions)
    return rows, distinct


def _checked_items(partition: Partition, items: Any) -> IntArray:
    """Return the item numbers, int64 [m]; ValueError for others, -1 among them."""
    array = as_array("items", items, "item numbers [m], or a bool mask [n_items]")
    if array.dtype == object and array.ndim == 1 and not all(isinstance(item, int | float | None) for item in array):
        return checked_items(partition, items)
    if array.ndim == 1 and array.dtype.kind in "ifO" and array.size:
        outside = nulls(array)
        if not outside.all() and array[~outside].min() == -1:
            outside[~outside] = array[~outside] == -1
        if outside.any():
            _refuse_outside(partition, items, int(outside.sum()), array)
    return checked_items(partition, items)


def _refuse_outside(partition: Partition, items: Any, n_outside: int, array: AnyArray) -> None:
    """Raise ValueError for captions that are no items of the pool; left out silently, they would cover nothing."""
    what = "-1" if array.dtype.kind == "i" else "-1, None or NaN"
    came = f"items: expected items of the pool, got {what} in {n_outside} of {array.size} places"
    if isinstance(items, np.ndarray) and array.dtype.kind == "i":
        known, ours, others = "", "items[items >= 0]", "caption_embeddings[items < 0]"
    else:  # a list, a tensor, a Series, or floats
        cpu = ".cpu()" * is_tensor(items)
        known = f"known = np.asarray(items{cpu}, float) >= 0; "
        ours, others = f"np.asarray(items{cpu}, float)[known].astype(np.int64)", "caption_embeddings[~known]"
    if partition.centers is None:
        raise ArgumentError(
            f"{came}: captions that are not in the pool. They go to embeddings=, which needs a partition with centers "
            "(a partitioner makes them, or centers= of Partition.from_labels). Without them their images count nowhere",
            remedy=f"{known}coverage = aria.Coverage(partition, items={ours})",
        )
    raise ArgumentError(
        f"{came}: captions that are not in the pool. Their images count, too: pass their embeddings, by the encoder of "
        "the pool's (caption_embeddings: one row a place of items)",
        remedy=f"{known}coverage = aria.Coverage(partition, items={ours}, embeddings={others})",
    )


def _first_of_equals(embeddings: AnyArray) -> BoolArray:
    """Return which rows are unlike all rows before them, bool [m]."""
    seen: set[bytes] = set()
    first = np.zeros(len(embeddings), bool)
    for i, row in enumerate(embeddings):
        digest = hashlib.blake2b((row.astype(np.float32) + 0.0).tobytes(), digest_size=16).digest()  # -0 is 0
        first[i] = digest not in seen
        seen.add(digest)
    return first


# ------------------------------------------------------------------------------- posterior variance of the centres

_LEAST = 1e-12  # of `uncovered`
_MOST_COMPARED = 2048  # centres that the median distance is taken of
_SAME = 1e-14  # squared distances this small, in units of the two squared norms, are rounding errors
_EXACT_REGIONS, _EXACT_COVERED = 4096, 2048  # exact up to so many regions, and up to so many with data
_MOST_INDUCING = 1024
_MOST_WEIGHTS = 1 << 27  # inducing points * regions, float32
_MOST_CANDIDATES = 4096  # of which the inducing points are chosen
_MOST_IN_BLOCK = 512
_AT_A_TIME = 1 << 22  # covariances that exist at one time, float64
_SPREAD = 1e-9, 1e9  # noise of a mean of observations: centres in one place must not make the system singular
_JITTER = 1e-6  # the same for inducing points, which may lie in one place too


def _posterior(centers: AnyArray, distinct: FloatArray, length_scale: float, noise: float) -> FloatArray:
    """Return the posterior variance of each region, float64 [n_regions], given the mean of `distinct` observations.

    Some of `distinct` are positive.
    """
    n_covered = int(np.count_nonzero(distinct))
    exact = len(centers) <= _EXACT_REGIONS or n_covered <= _EXACT_COVERED
    x = np.empty(centers.shape, np.float64 if len(centers) <= _EXACT_REGIONS else np.float32)
    np.subtract(centers, centers.mean(axis=0, dtype=np.float64), out=x, casting="same_kind")
    with np.errstate(over="ignore", divide="ignore"):
        spread = np.where(distinct > 0, np.clip(noise / distinct, *_SPREAD), np.inf)
    return np.clip((_exact if exact else _local_and_global)(x, spread, length_scale), _LEAST, 1.0)


def _length_scale(centers: AnyArray) -> float:
    """Return half the median distance between centres, 1 if that is 0."""
    some = np.linspace(0, len(centers) - 1, min(len(centers), _MOST_COMPARED)).astype(np.int64)
    x = centers[some].astype(np.float64)
    return 0.5 * float(np.sqrt(np.median(_squared_distances(x - x.mean(axis=0), x - x.mean(axis=0))))) or 1.0


def _squared_distances(a: AnyArray, b: AnyArray) -> FloatArray:
    """Return the squared Euclidean distance of every row of `a` to every row of `b`, float64 [m, n].

    Four times as fast as SciPy's `cdist`, at 384 columns. Rows should be near the origin, for the squares cancel.
    """
    a, b = a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)
    norms = np.einsum("md,md->m", a, a)[:, None] + np.einsum("nd,nd->n", b, b)
    square = norms - 2 * (a @ b.T)
    square[square <= _SAME * norms] = 0.0
    return square


def _covariance(a: AnyArray, b: AnyArray, length_scale: float) -> FloatArray:
    """Return the prior covariance of every row of `a` with every row of `b`, float64 [m, n]."""
    scaled = np.sqrt(_squared_distances(a, b))
    with np.errstate(over="ignore", under="ignore"):
        scaled /= length_scale
        return np.exp(-0.5 * scaled * scaled)


def _root(matrix: FloatArray) -> FloatArray:
    """Return the lower Cholesky factor of a matrix, which is overwritten."""
    from scipy.linalg import cholesky  # pyright: ignore

    return cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)  # pyright: ignore


def _solved(root: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solution of ``root @ solution == right``; `root` is a lower triangle, `right` is overwritten."""
    from scipy.linalg import solve_triangular  # pyright: ignore

    return solve_triangular(root, right, lower=True, overwrite_b=True, check_finite=False)  # pyright: ignore


def _exact(x: AnyArray, spread: FloatArray, length_scale: float) -> FloatArray:
    """Return the posterior variance at each row of `x` [n, d], given an observation of variance `spread` at each.

    A spread that is infinite is none.
    """
    held = np.flatnonzero(np.isfinite(spread))
    among = _covariance(x[held], x[held], length_scale)
    among.flat[:: len(held) + 1] += spread[held]
    root = _root(among)
    left = np.empty(len(x))
    step = max(1, _AT_A_TIME // len(held))
    for begin in range(0, len(x), step):
        across = _covariance(x[held], x[begin : begin + step], length_scale)
        known = _solved(root, across)
        left[begin : begin + step] = 1 - np.einsum("hk,hk->k", known, known)
    return left


def _local_and_global(x: AnyArray, spread: FloatArray, length_scale: float) -> FloatArray:
    """Return nearly what `_exact` does, in time that grows as n and not as n**3.

    The process is that of inducing points, plus a rest for every block of near rows that is independent of the other
    blocks (PIC: Snelson and Ghahramani 2007, "Local and global sparse Gaussian process approximations").
    """
    points = x[_inducing(x, np.flatnonzero(np.isfinite(spread)), length_scale)]
    among = _covariance(points, points, length_scale)
    among.flat[:: len(points) + 1] += _JITTER
    root = _root(among)
    precision = np.eye(len(points))  # of the inducing points, whitened, given all observations
    weights = np.empty((len(x), len(points)), np.float32)  # of the whitened points in each row, given its block's
    left = np.empty(len(x))  # variance of each row, given its block's observations and the points
    for block in _blocks(x):
        whitened = _solved(root, _covariance(points, x[block], length_scale))
        rest = _covariance(x[block], x[block], length_scale) - whitened.T @ whitened
        left[block] = rest.diagonal()
        held = np.flatnonzero(np.isfinite(spread[block]))
        if held.size:
            noisy = rest[np.ix_(held, held)]
            noisy.flat[:: held.size + 1] += np.maximum(spread[block[held]], _JITTER)
            local = _root(noisy)
            near = _solved(local, rest[held])
            far = _solved(local, whitened[:, held].T)
            left[block] -= np.einsum("hk,hk->k", near, near)
            precision += far.T @ far
            whitened -= far.T @ near
        weights[block] = whitened.T
    root = _root(precision)
    step = max(1, _AT_A_TIME // len(points))
    for begin in range(0, len(x), step):
        shared = _solved(root, weights[begin : begin + step].T.astype(np.float64))
        left[begin : begin + step] += np.einsum("mk,mk->k", shared, shared)
    return left


def _inducing(x: AnyArray, held: IntArray, length_scale: float) -> IntArray:
    """Return the rows that serve as inducing points: one after the other the one that the ones before tell least of.

    That is the order of the pivots of a Cholesky factorisation. If `held` are many, 4,096 of them are considered.
    """
    from scipy.linalg.lapack import dpstrf  # pyright: ignore

    some = held[np.linspace(0, len(held) - 1, min(len(held), _MOST_CANDIDATES)).astype(np.int64)]
    _, pivots, rank, _ = dpstrf(_covariance(x[some], x[some], length_scale), lower=1, overwrite_a=1)  # pyright: ignore
    most = min(int(rank), _MOST_INDUCING, _MOST_WEIGHTS // len(x))  # pyright: ignore
    return some[np.asarray(pivots[:most], np.int64) - 1]  # pyright: ignore


def _blocks(x: AnyArray) -> list[IntArray]:
    """Return the rows in blocks of near ones, none larger than 512, by halving along the longest extent found."""
    blocks: list[IntArray] = []
    todo = [np.arange(len(x))]
    while todo:
        block = todo.pop()
        if len(block) <= _MOST_IN_BLOCK:
            blocks.append(block)
            continue
        some = x[block] - x[block].mean(axis=0)
        end = some[np.einsum("kd,kd->k", some, some).argmax()]
        other = some[np.einsum("kd,kd->k", some - end, some - end).argmax()]
        along = np.argsort(some @ (other - end), kind="stable")
        todo += [block[along[len(block) // 2 :]], block[along[: len(block) // 2]]]
    return blocks


# ------------------------------------------------------------------------------------------------ digests and files

_VECTORS = ("counts", "distinct", "uncovered")
_HEADER = ("weight", "power", "length_scale", "noise", "half_life", "is_online", "fingerprint")


def _digest(array: AnyArray | None) -> str | None:
    """Return the hex digest of an array's little-endian bytes; None for None."""
    if array is None:
        return None
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return hashlib.blake2b(little.view(np.uint8).data, digest_size=16).hexdigest()


def _digest_of_text(*parts: Any) -> str:
    """Return the hex digest of the representations of `parts`."""
    return hashlib.blake2b(f"aria-coverage-1:{parts!r}".encode(), digest_size=16).hexdigest()


def _fits(arrays: dict[str, AnyArray], header: dict[str, Any]) -> bool:
    """Whether the vectors of a file fit each other and the header."""
    n_regions, uncovered = len(arrays["counts"]), arrays["uncovered"]
    return (
        set(arrays) == set(_VECTORS)
        and all(array.dtype.str == "<f8" and array.shape == (n_regions,) for array in arrays.values())
        and all(bool((np.isfinite(array) & (array >= 0)).all()) for array in arrays.values())
        and bool(((uncovered > 0) & (uncovered <= 1)).all())
        and {*_HEADER, "partition", "centers"} <= set(header)
        and isinstance(header["partition"], str)
    )


_FORMAT = Format("coverage", 1, "Coverage.save", StateError, _fits)
