"""Nearest centres, in chunks: what partitioners, `Partition.assign` and `Coverage` share.

Embeddings may be larger than memory, in half precision: an array, a memory map, or any object with ``shape``,
``dtype``, ``len()``, slices and a sorted array of row numbers as an index, such as a folder of shards. They are read a
chunk at a time and converted to float32 there. No copy of the whole is made.
"""

from __future__ import annotations

import importlib.util
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, BoolArray, IntArray
from aria_sampling._check import as_array, is_tensor, kind_of, shown
from aria_sampling.errors import ArgumentError, MissingDependencyError
from aria_sampling.partition._progress import Progress, silent

__all__ = ["Nearest", "Rows", "as_embeddings", "checked_device", "nearest", "scale_of"]

_MOST_SHOWN = 170  # characters of a dtype
_CHUNK_BYTES = 1 << 23  # of what exists at one time: a chunk as float32, and its scores
_GPU_CHUNK_BYTES = 1 << 29
_AT_ONCE = 4096  # centres in one product
_LEAST_FOR_GPU = 1 << 40  # multiplications; for fewer, loading torch takes longer than they do
_UNIT = 1e-6  # squared norms of float32 vectors that were made 1 differ from it by less


# ------------------------------------------------------------------------------------------------------ rows


class Rows:
    """Embeddings of any kind, real [n, d], read a chunk at a time.

    Attributes:
        name: The argument they came as.
        shape: (n, d).
        source: An array, or an object that gives one for a slice and for a sorted array of row numbers.
        direction: Whether each row must have one: rows of zeros have none.
    """

    def __init__(self, name: str, values: Any, *, width: int | None = None, direction: bool = False) -> None:
        self.name, self.direction = name, direction
        source: Any = values
        if not (_is_store(values) or isinstance(source, np.memmap)):
            source = as_array(name, values, "a non-empty array [n, d]")
            if np.ma.is_masked(values):  # what is masked is no number
                source = np.where(np.ma.getmaskarray(values), np.nan, source)
        self.source: Any = source
        self.shape: tuple[int, ...] = tuple(map(int, self.source.shape))
        if len(self.shape) != 2 or 0 in self.shape:
            came, remedy = _what(name, values, self.source)
            raise ArgumentError(f"{name}: expected a non-empty array [n, d], got {came}", remedy=remedy)
        dtype = np.dtype(self.source.dtype)
        if dtype.kind not in "iuf":
            remedy = f'{name} = {name}.select_dtypes("number")' if hasattr(values, "select_dtypes") else None
            raise ArgumentError(f"{name}: expected real numbers, got dtype {str(dtype)[:_MOST_SHOWN]}", remedy=remedy)
        if width is not None and self.shape[1] != width:
            raise ArgumentError(f"{name}: expected {width} columns, got {self.shape[1]}")

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    def chunks(self, rows: int) -> Iterator[tuple[int, AnyArray]]:
        """Yield where each chunk of so many rows begins, and the chunk, of the dtype that it is stored in."""
        for begin in range(0, len(self), rows):
            chunk = np.asarray(self.source[begin : begin + rows])
            wanted = min(rows, len(self) - begin), self.shape[1]
            if chunk.shape != wanted:
                raise ArgumentError(
                    f"{self.name}: expected {list(wanted)} numbers from row {begin} on, as its shape says, got "
                    f"{list(chunk.shape)}"
                )
            yield begin, chunk
            _forget(self.source, chunk)

    def take(self, items: IntArray, *, out: AnyArray | None = None) -> AnyArray:
        """Return the rows `items`, ascending, as float32 [m, d]; ValueError if one is not finite."""
        found = np.empty((len(items), self.shape[1]), np.float32) if out is None else out
        step = max(1, _CHUNK_BYTES // (8 * self.shape[1]))
        for begin in range(0, len(items), step):
            some = np.asarray(self.source[items[begin : begin + step]])
            with np.errstate(over="ignore"):
                found[begin : begin + step] = some
            if not self.sound(found[begin : begin + step]):
                self.refuse_unsound()
            _forget(self.source, None)
        return found

    def sound(self, chunk: AnyArray) -> bool:
        """Whether all rows of a chunk are finite as float32, and have a direction if they must."""
        return bool(_finite(chunk).all()) and self.directed(chunk)

    def directed(self, chunk: AnyArray) -> bool:
        """Whether all rows of a chunk have a direction, or need none."""
        return not self.direction or bool(chunk.any(axis=1).all())

    def refuse_unsound(self) -> None:
        """Raise ValueError that says how many rows are not `sound`; nothing if all are."""
        bad, first, zero, first_zero = 0, -1, 0, -1
        for begin, chunk in self.chunks(max(1, _CHUNK_BYTES // (8 * self.shape[1]))):
            wrong = np.flatnonzero(~_finite(chunk))
            first = first if bad or not wrong.size else begin + int(wrong[0])
            bad += wrong.size
            if self.direction:
                wrong = np.flatnonzero(~chunk.any(axis=1))
                first_zero = first_zero if zero or not wrong.size else begin + int(wrong[0])
                zero += wrong.size
        if bad:
            raise ArgumentError(
                f"{self.name}: expected finite numbers (as float32), got NaN or infinity in {bad} rows, the first is "
                f"row {first}"
            )
        if zero:
            raise ArgumentError(
                f"{self.name}: expected rows with a direction (spherical=True), got zeros alone in {zero} rows, the "
                f"first is row {first_zero}; an encoder gives them for an empty text: leave such items out of the pool"
            )


def as_embeddings(name: str, values: Any) -> AnyArray:
    """Return `values` as a real array [n, d] of the dtype that came, every value finite as float32.

    Raises:
        ValueError: Naming it, for another shape or dtype, or a non-finite value.
    """
    rows = Rows(name, values)
    rows.refuse_unsound()
    return np.asarray(rows.source[:])


def _finite(chunk: AnyArray) -> BoolArray:
    """Return which rows are finite as float32, bool [m]."""
    with np.errstate(over="ignore"):
        finite: BoolArray = np.isfinite(chunk.astype(np.float32, copy=False))
    return np.logical_and.reduce(finite, axis=1)


def _is_store(values: Any) -> bool:
    """Whether it holds rows of numbers without being an array: what `np.asarray` would read whole, or not at all."""
    if is_tensor(values) or hasattr(values, "nnz") or isinstance(values, np.ndarray):
        return False
    try:
        np.dtype(values.dtype)
        return len(values.shape) == 2 and hasattr(values, "__getitem__") and len(values) == values.shape[0]
    except Exception:  # no such attribute, a dtype of another library, whatever an object raises
        return False


def _forget(source: Any, chunk: AnyArray | None) -> None:
    """Let go of the pages of a memory map that were read: they would count as this process' memory.

    Not of a private map (mode "c"), whose changes are in its pages. None: of all pages.
    """
    pages: Any = getattr(source, "_mmap", None)
    if (
        source.__class__ is not np.memmap
        or source.mode not in ("r", "r+")
        or pages is None
        or not hasattr(mmap, "MADV_DONTNEED")
    ):
        return
    if chunk is None:
        pages.madvise(mmap.MADV_DONTNEED)
    elif chunk.flags.c_contiguous and np.may_share_memory(chunk, source):
        begin = chunk.ctypes.data - np.frombuffer(pages, np.uint8).ctypes.data
        first, last = begin // mmap.PAGESIZE, (begin + chunk.nbytes) // mmap.PAGESIZE
        if last > first:
            pages.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def _what(name: str, values: Any, array: AnyArray) -> tuple[str, str | None]:
    """Return what came instead of an array [n, d], and the line that makes one of it, None if there is none.

    The line is for the container that came: what reshapes an array may fail on a list or a tensor.
    """
    if array.ndim == 0:
        return f"{kind_of(values)} {shown(values)}", None
    if array.ndim == 1 and array.size and array.dtype == object:
        first = array[0]
        remedy = f"{name} = np.stack({name})" if _is_vector(first) else None
        if hasattr(first, "toarray"):  # rows of a sparse matrix
            remedy = f"{name} = np.vstack([row.toarray() for row in {name}])"
        elif is_tensor(first):
            remedy = f"{name} = torch.stack(list({name}))"
        return f"{array.size} objects, the first is of type {kind_of(first)}", remedy
    if array.ndim == 1 and array.size and array.dtype.kind in "iuf":
        own = name if is_tensor(values) else f"np.asarray({name})"
        return f"shape {array.shape}; pass {own}[:, None] if these are items, {own}[None] if it is one item", None
    if array.ndim > 2 and 0 not in array.shape:
        rows = f"{name}.flatten(1)" if is_tensor(values) else f"np.reshape({name}, (len({name}), -1))"
        return f"shape {array.shape}; what belongs to an item goes into one row", f"{name} = {rows}"
    return f"shape {tuple(array.shape)}", None


def _is_vector(value: Any) -> bool:
    """Whether it is one embedding: a list, an array, a Series."""
    try:
        return np.ndim(value) == 1
    except Exception:  # whatever an object's __array__ raises
        return False


# ------------------------------------------------------------------------------------------------------ centres


class Nearest:
    """Centres made ready to be compared with chunks of rows, real [m, d].

    |x - c|² = |x|² - 2x·c + |c|² cancels badly in float32 where centres lie close together and far from the origin
    (years, pixels, a common direction). So everything is measured from the centre in the middle. A centre, not the
    mean, since differences of neighbours are exact and so ties stay ties. Centres whose norms are all 1 up to rounding
    are compared by direction: then neither the length of a row matters nor the rounding of these norms.

    Args:
        centers: float32 [K, d].
        device: None: NumPy. Else a device of torch.
    """

    def __init__(self, centers: AnyArray, *, device: Any = None) -> None:
        norms = np.einsum("kd,kd->k", centers, centers, dtype=np.float64)
        mean = centers.mean(axis=0, dtype=np.float64)
        from_mean = norms - 2 * np.einsum("kd,d->k", centers, mean)
        self._unit = bool((np.abs(norms - 1) <= _UNIT).all())
        self._centers = centers
        self._origin = centers[from_mean.argmin()]
        with np.errstate(over="ignore"):
            extent = float(
                max(np.abs(centers.max(axis=0) - self._origin).max(), np.abs(centers.min(axis=0) - self._origin).max())
            )
        self._scale = np.float32(scale_of(extent))
        parts = [self._part(centers[begin : begin + _AT_ONCE]) for begin in range(0, len(centers), _AT_ONCE)]
        self._torch = (
            None if device is None else _Torch(parts, None if self._unit else self._origin, self._scale, device)
        )
        self._parts = parts
        self._rows = self._scores = np.empty((0, 0), np.float32)

    def _part(self, centers: AnyArray) -> AnyArray:
        """Return what rows that end in 1 are multiplied by to get x·c - |c|²/2, float32 [d + 1, k]."""
        moved = (centers.astype(np.float64) - self._origin) * float(self._scale)
        half = np.zeros(len(moved)) if self._unit else np.einsum("kd,kd->k", moved, moved) / 2
        with np.errstate(over="ignore"):
            return np.concatenate([moved.T, -half[None]]).astype(np.float32)

    @property
    def at_once(self) -> int:
        """Number of rows that a chunk should have."""
        width, across = self._parts[0].shape
        return max(1, (_CHUNK_BYTES if self._torch is None else _GPU_CHUNK_BYTES) // (4 * (across + 2 * width)))

    def __call__(self, chunk: AnyArray) -> tuple[IntArray, BoolArray | None]:
        """Return the nearest centre (the lowest of equals) of each row, int64 [m]; and which rows are not finite.

        The latter are bool [m], or None if all are finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            labels, scores = self._compare(chunk) if self._torch is None else self._torch(chunk)
        strange = np.flatnonzero(~np.isfinite(scores))
        if not strange.size:
            return labels, None
        finite = _finite(chunk[strange])  # numbers whose products float32 cannot hold
        labels[strange[finite]] = self._precisely(chunk[strange[finite]])
        if finite.all():
            return labels, None
        bad = np.zeros(len(chunk), bool)
        bad[strange[~finite]] = True
        return labels, bad

    def _compare(self, chunk: AnyArray) -> tuple[IntArray, AnyArray]:
        """Return the best centre of each row, and its score."""
        n, across = len(chunk), self._parts[0].shape[1]
        if len(self._rows) < n:
            self._rows = np.ones((n, chunk.shape[1] + 1), np.float32)
            self._scores = np.empty((n, across), np.float32)
        rows, values = self._rows[:n], chunk.astype(np.float32, copy=False)
        if self._unit:
            rows[:, :-1] = values
        else:
            np.subtract(values, self._origin, out=rows[:, :-1])
        if self._scale != 1:
            rows[:, :-1] *= self._scale
        best, top = np.zeros(n, np.int64), np.empty(0, np.float32)
        for number, part in enumerate(self._parts):
            scores: AnyArray = self._scores[:n] if part.shape[1] == across else np.empty((n, part.shape[1]), np.float32)
            np.matmul(rows, part, out=scores)
            place = scores.argmax(axis=1)
            highest = scores[np.arange(n), place]
            if number == 0:
                best, top = place.astype(np.int64, copy=False), highest
            else:
                better = (highest > top) | np.isnan(highest)
                best[better] = place[better] + number * _AT_ONCE
                top[better] = highest[better]
        return best, top

    def _precisely(self, rows: AnyArray) -> IntArray:
        """Return the nearest centre of a few rows, by float64, int64 [m]."""
        centers = self._centers.astype(np.float64)
        if self._unit:
            return (rows.astype(np.float64) @ centers.T).argmax(axis=1)
        return np.array([np.square(centers - row).sum(axis=1).argmin() for row in rows.astype(np.float64)], np.int64)


def scale_of(extent: float) -> float:
    """Return the power of 2 by which numbers up to `extent` are multiplied so that float32 holds their products."""
    if extent == 0 or 2.0**-20 <= extent <= 2.0**20:
        return 1.0
    return 2.0 ** -max(-126, min(126, int(np.frexp(extent)[1]))) if np.isfinite(extent) else 2.0**-126


class _Torch:
    """The comparison of `Nearest` on a device of torch: the same float32 products, summed in another order."""

    def __init__(self, parts: list[AnyArray], origin: AnyArray | None, scale: np.float32, device: Any) -> None:
        import torch  # pyright: ignore

        self._torch: Any = torch
        self._device = device
        self._products: list[Any] = [torch.tensor(part[:-1], device=device) for part in parts]
        self._halves: list[Any] = [torch.tensor(part[-1], device=device) for part in parts]
        self._origin: Any = None if origin is None else torch.tensor(origin, device=device)
        self._scale = float(scale)

    def __call__(self, chunk: AnyArray) -> tuple[IntArray, AnyArray]:
        """Return the best centre of each row, and its score."""
        torch = self._torch
        with torch.no_grad():
            rows = torch.tensor(chunk, device=self._device).to(torch.float32)
            rows = rows if self._origin is None else rows - self._origin
            rows = rows if self._scale == 1 else rows * self._scale
            best: Any = None
            top: Any = None
            for number, (product, half) in enumerate(zip(self._products, self._halves, strict=True)):
                highest, place = torch.addmm(half, rows, product).max(dim=1)
                if number == 0:
                    best, top = place, highest
                else:
                    better = (highest > top) | highest.isnan()
                    best = torch.where(better, place + number * _AT_ONCE, best)
                    top = torch.where(better, highest, top)
            return best.cpu().numpy(), top.cpu().numpy()


def checked_device(value: Any, multiplications: float) -> Any:
    """Return the device to compare on: None for NumPy, else one of torch. See `KMeansPartitioner` for the rule.

    Raises:
        ValueError: `value` is no device, or is not there.
        ImportError: It needs torch, which is not installed.
    """
    if isinstance(value, str) and value == "cpu":
        return None
    if value is None:
        if multiplications < _LEAST_FOR_GPU or importlib.util.find_spec("torch") is None:
            return None
        import torch  # pyright: ignore

        return torch.device("cuda") if torch.cuda.is_available() else None
    try:
        import torch  # pyright: ignore
    except ImportError as error:
        raise MissingDependencyError(
            f"device={shown(value)} needs torch: pip install 'aria-sampling[torch]'; device='cpu' does without"
        ) from error
    try:
        device = torch.device(value)
        torch.empty(1, device=device)
    except Exception as error:  # RuntimeError, AssertionError and others, by the kind of device
        why = " ".join(str(error).split())[:200]
        raise ArgumentError(
            f"device={shown(value)}: expected None, 'cpu', or a device of torch that is here, got another ({why})"
        ) from None
    return device


def nearest(
    rows: Rows, centers: AnyArray, *, device: Any = None, progress: Progress = silent, dtype: Any = np.int64
) -> AnyArray:
    """Return the number of the nearest centre (Euclidean; the lowest of equals) for each row, `dtype` [n].

    Args:
        rows: Real [n, d].
        centers: float32 [K, d].
        device: As `checked_device` returns it.
        progress: Told of every chunk, in rows.
        dtype: Of the result.

    Raises:
        ValueError: A row is not finite as float32.
    """
    compare = Nearest(centers, device=device)
    labels = np.empty(len(rows), dtype)
    for begin, chunk in rows.chunks(compare.at_once):
        found, bad = compare(chunk)
        if bad is not None or not rows.directed(chunk):
            rows.refuse_unsound()
        labels[begin : begin + len(chunk)] = found
        progress.update(len(chunk))
    return labels
