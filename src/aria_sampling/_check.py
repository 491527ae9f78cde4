"""Checks of arguments, and the one form that their messages take.

Every message names the argument, what was expected and what came. The functions return the value in
the form the rest of the library works with (``int``, ``float``, ``int64`` or ``float64`` arrays). Remedies are lines
for the container that came: what mends an array may fail on a list, a tensor or a Series.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray
from aria_sampling.errors import ArgumentError

__all__ = [
    "LOSS_HINTS",
    "as_array",
    "as_path",
    "by_name",
    "float_vector",
    "instance",
    "int_vector",
    "integer",
    "is_null",
    "is_tensor",
    "kind_of",
    "nulls",
    "real",
    "refuse_several",
    "several_losses",
    "shown",
    "shown_path",
    "switch",
]


def shown(value: Any) -> str:
    """Return `value` as text for a message, cut to 200 characters. Only the first part of a long list is read."""
    try:
        kind = type(value)  # pyright: ignore
        if issubclass(kind, list | tuple) and len(value) > _FIRST:
            return f"{_cut(repr(value[:_FIRST])[:-1])}, ... ({len(value)} in all)"
        return _cut(repr(value[:_MOST_SHOWN] if issubclass(kind, str | bytes) else value))
    except Exception:  # whatever an object's __repr__ raises
        return f"<{kind_of(value)}>"


def kind_of(value: Any) -> str:
    """Return the name of a value's type for a message, cut to 80 characters."""
    return type(value).__name__[:80]


def _cut(text: str) -> str:
    """Return `text`, cut to 170 characters."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 4]} ..."


def shown_path(path: str | os.PathLike[str]) -> str:
    """Return a path for a message, cut to 170 characters: its end, which says more, is kept."""
    text = os.fspath(path)
    return text if len(text) <= _MOST_SHOWN else f"... {text[4 - _MOST_SHOWN :]}"


_FIRST = 20  # elements of a list
_MOST_SHOWN = 170  # characters, so that 200 are never passed


def instance(name: str, value: Any, kind: type) -> Any:
    """Return `value`; ValueError unless it is an instance of `kind`."""
    if not isinstance(value, kind):
        hint = ": pass an instance, not the class" if isinstance(value, type) else ""
        raise ArgumentError(f"{name}: expected an instance of {kind.__name__}, got {shown(value)}{hint}")
    return value


def integer(name: str, value: Any, *, low: int, high: int | None = None) -> int:
    """Return `value` as an int in ``[low, high]``, never more than an int64; raise ValueError for anything else."""
    most = _INT64_MAX if high is None else high
    if type(value) is int and low <= value <= most:
        return value
    expected = f"an integer >= {low} that fits an int64" if high is None else f"an integer in [{low}, {high}]"
    if isinstance(value, (bool, np.bool_)):
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, got a bool")
    try:
        number = operator.index(value)
    except Exception:  # whatever an object's __index__ raises
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, got {kind_of(value)}") from None
    if number < low or number > most:
        raise ArgumentError(f"{name}={shown(number)}: expected {expected}")
    return number


_INT64_MAX = 2**63 - 1


def real(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return `value` as a finite float between `low` and `high`; raise ValueError for anything else."""
    left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
    expected = f"a finite number in {left}{low:g}, {high:g}{right}"
    if isinstance(value, bool | np.bool_ | str | bytes):
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, not a bool or text")
    try:
        number = float(value)
    except Exception:  # whatever an object's __float__ raises
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, got {kind_of(value)}") from None
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if not math.isfinite(number) or below or above:
        raise ArgumentError(f"{name}={number!r}: expected {expected}")
    return number


def switch(name: str, value: Any) -> bool:
    """Return `value`; ValueError unless it is True or False."""
    if value is True or value is False:
        return value
    if type(value) is np.bool_:
        return bool(value)
    raise ArgumentError(f"{name}={shown(value)}: expected True or False, got {kind_of(value)}")


def as_path(name: str, value: Any) -> Path:
    """Return `value` as a path; ValueError unless it is text or a path."""
    try:
        return Path(value)
    except TypeError:
        came = f"{kind_of(value)} {shown(value)}"
        raise ArgumentError(f"{name}: expected the path of a file, got {came}") from None


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor of torch, which need not be installed."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def as_array(name: str, values: Any, what: str, dtype: type[np.float64] | None = None) -> AnyArray:
    """Return `values` as an array of any shape; ValueError, with `what` was expected, if that fails.

    Lists, arrays, Series of pandas and polars, and torch tensors of any device and dtype, with a gradient or without;
    lists of tensors, too. Sparse matrices are refused.
    """
    if type(values) is not np.ndarray:
        _refuse_sparse(name, values, what)
    try:
        if is_tensor(values):
            return np.asarray(_array_of_tensor(values), dtype)
        if isinstance(values, list | tuple) and values and is_tensor(values[0]):
            several = cast("list[Any]", values)
            return np.asarray([_array_of_tensor(value) if is_tensor(value) else value for value in several], dtype)
        return np.asarray(cast("Any", values), dtype)
    except Exception as error:  # whatever an object's __array__ raises
        raise ArgumentError(
            f"{name}: expected {what}, got {kind_of(values)}, which NumPy cannot read ({_cut(str(error))})"
        ) from error


def _array_of_tensor(tensor: Any) -> AnyArray:
    """Return a torch tensor of any device as an array, float64 if NumPy lacks its dtype (bfloat16)."""
    tensor = tensor.detach().cpu()
    try:
        return np.asarray(tensor)
    except TypeError:
        return np.asarray(tensor.double())


def _refuse_sparse(name: str, values: Any, what: str) -> None:
    """Raise ValueError if `values` is sparse, of SciPy or torch: as an array it would be one object, or nothing."""
    dense = "toarray()" if hasattr(values, "toarray") and hasattr(values, "nnz") else ""
    if str(getattr(values, "layout", "")).startswith("torch.sparse"):
        dense = "to_dense()"
    if dense:
        shape = tuple(values.shape)
        gib = math.prod(shape) * 8 / 2**30
        large = f", {gib:.0f} GiB as an array of float64: reduce its columns first (TruncatedSVD of scikit-learn)"
        came = f"a sparse {kind_of(values)} of shape {shape}{large if gib > _MOST_DENSE else ''}"
        flat = ".ravel()" if what.startswith("a one-dimensional") else ""
        remedy = f"{name} = {name}.{dense}{flat}" if name.isidentifier() and gib <= _MOST_DENSE else None
        raise ArgumentError(f"{name}: expected {what}, got {came}", remedy=remedy)


_MOST_DENSE = 8  # GiB
_FLOAT64 = np.dtype(np.float64)


def is_null(value: Any) -> bool:
    """Whether it is None, NaN, NaT or pandas.NA."""
    try:
        return value is None or type(value).__name__ == "NAType" or bool(value != value)  # noqa: PLR0124
    except Exception:  # whatever an object's __ne__ raises
        return False


def nulls(array: AnyArray) -> BoolArray:
    """Return which elements of an array [n] are None, NaN or NA, bool [n]."""
    if array.dtype.kind == "f":
        return np.isnan(array)
    if array.dtype == object:
        return np.fromiter(map(is_null, array), bool, len(array))
    return np.zeros(len(array), bool)


def _vector(name: str, values: Any, length: int | None, what: str) -> AnyArray:
    """Return `values` as a one-dimensional array of the wanted length, of whatever dtype came."""
    array = as_array(name, values, f"a one-dimensional array of {what}")
    if name == "losses" and length is not None and array.shape != (length,):
        refuse_several(values, length, array)
    if array.ndim != 1:
        hint = LOSS_HINTS[array.ndim > 1] if name == "losses" and array.dtype.kind in "iuf" else ""
        raise ArgumentError(
            f"{name}: expected a one-dimensional array of {what}, got "
            + (f"shape {array.shape}" if array.ndim else f"{kind_of(values)} {shown(values)}")
            + hint,
            remedy=_flat(name, values, array),
        )
    if length is not None and len(array) != length:
        raise ArgumentError(f"{name}: expected {length} {what}, got {len(array)}")
    return _tightened(array) if array.dtype == object else array


def _flat(name: str, values: Any, array: AnyArray) -> str | None:
    """Return the line that makes an array [n] of one that has more dimensions; None if it cannot be known."""
    if array.size == 0 or not name.isidentifier():
        return None
    if array.ndim > 1 and array.size == max(array.shape):  # a column or a row
        return f"{name} = {name}.ravel()" if is_tensor(values) else f"{name} = np.ravel({name})"
    return None


def _tightened(array: AnyArray) -> AnyArray:
    """Return an array of objects [n] as one of numbers if all of them are (pandas' nullable dtypes), else itself."""
    try:
        tight = np.array(array.tolist())
    except ValueError:  # sequences of several lengths
        return array
    return tight if tight.ndim == 1 and tight.dtype.kind in "iuf" else array


LOSS_HINTS = (  # of no dimension, of too many
    "; a loss that is already averaged cannot be credited: compute it with reduction='none', take its mean over all "
    "but the first dimension, report that, and average afterwards",
    "; average over all but the first dimension, which is that of the rows",
)


def several_losses(losses: Any, n: int, array: AnyArray | None = None, name: str = "losses") -> tuple[str, str] | None:
    """Return what to say of several losses a row, and the expression that makes one of them; None for all else.

    Args:
        losses: As they came: an array, a list, a tensor on any device.
        n: Number of rows.
        array: The same as an array, if there is one. Without, values of tensors are read only if there are several.
        name: What the losses are called in the expression.
    """
    plain = array if array is not None or hasattr(losses, "shape") else as_array("losses", losses, "numbers")
    with_shape: Any = losses if plain is None else plain
    shape, size, dtype = tuple(with_shape.shape), math.prod(with_shape.shape), str(with_shape.dtype)
    if not n or not shape or size < n or shape == (n,) or not _REAL.search(dtype):
        return None
    container = name if is_tensor(losses) or isinstance(losses, np.ndarray) else f"np.asarray({name})"
    if size == n:
        return ("one dimension will do", f"{container}.ravel()") if max(shape) == n else None
    flat = len(shape) == 1 and shape[0] % n == 0
    if not flat and (len(shape) == 1 or shape[0] != n):
        return None
    rows = f".reshape({n}, -1)" if flat or len(shape) > 2 else ""
    axis = "dim=1" if is_tensor(losses) else "axis=1"
    if not getattr(with_shape, "is_meta", False):  # else a shape without values
        plain = as_array("losses", losses, "numbers") if plain is None else plain
        if zeros := int(np.count_nonzero(plain == 0)):
            return (
                f"{zeros} of them are exactly 0, as those of padding are. Report the mean over what counts: with "
                "`counted`, True where a loss counts (labels != -100), the sum of a row divided by its number. A mean "
                "over all would make short rows look easy. If all do count, report that mean",
                f"{container}{rows}.sum({axis}) / counted{rows}.sum({axis})",
            )
    apart = (
        f". This takes those of a row as side by side; if they lie {n} apart, reshape to {size // n}, {n}, and "
        "take the mean over the first"
    )
    return (
        "for several losses a row report their mean. If some are of padding, they must not count: the sum over the "
        f"others divided by their number{apart if flat else ''}",
        f"{container}{rows}.mean({axis})",
    )


_REAL = re.compile(r"^(torch\.)?b?(u?int|float)\d")  # of NumPy or torch


def refuse_several(losses: Any, n: int, array: AnyArray | None = None) -> None:
    """Raise ValueError, which says how to make one of them, for several losses a row; see `several_losses`."""
    found = several_losses(losses, n, array)
    if found is not None:
        with_shape: Any = array if array is not None else losses
        with_shape = with_shape if hasattr(with_shape, "shape") else as_array("losses", losses, "numbers")
        shape = tuple(with_shape.shape)
        came = f"shape {shape}" if len(shape) > 1 else f"{len(with_shape)}, which is {len(with_shape) // n} a row"
        raise ArgumentError(
            f"losses: expected {n} numbers, one a row, got {came}; {found[0]}", remedy=f"losses = {found[1]}"
        )


def int_vector(
    name: str, values: Any, *, length: int | None = None, low: int = 0, high: int | None = None, hint: str = ""
) -> IntArray:
    """Return `values` as int64[n] within ``[low, high)``.

    Raises ValueError for another number of dimensions or length, for floats, bools and strings (a float
    cannot carry every id), and for values out of range, these with `hint`, what to change; an empty array of any
    dtype is fine.
    """
    hint = f"; {hint}" if hint else ""
    array = _vector(name, values, length, "integers")
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise ArgumentError(
            f"{name}: expected integers, got dtype {_cut(str(array.dtype))}{_of_nulls(array)}{hint}",
            remedy=_as_integers(name, values, array),
        )
    least, most = int(array.min()), int(array.max())
    if least < low or most >= (2**63 if high is None else high):
        wanted = f"in [{low}, {high})" if high is not None else f">= {low}" if least < low else "below 2**63"
        raise ArgumentError(f"{name}: expected values {wanted}, got {least} to {most}{hint}")
    return array.astype(np.int64, copy=False)


def _of_nulls(array: AnyArray) -> str:
    """Return, for a message, how many of an array [n] are null; nothing if none is."""
    n_null = int(nulls(array).sum())
    return f" with None, NaN or NA in {n_null} of {len(array)} places" if n_null else ""


def _as_integers(name: str, values: Any, array: AnyArray) -> str | None:
    """Return the line that makes integers of an array [n] of whole floats; None for others."""
    if not name.isidentifier() or array.dtype.kind != "f":
        return None
    with np.errstate(invalid="ignore"):
        whole = (np.abs(array) < 2.0**53) & (array == np.trunc(array))
    if not whole.all():
        return None
    return f"{name} = {name}.long()" if is_tensor(values) else f"{name} = np.asarray({name}).astype(np.int64)"


def float_vector(name: str, values: Any, *, length: int | None = None) -> FloatArray:
    """Return `values` as float64[n]; non-finite numbers pass. Raises ValueError for other shapes or dtypes."""
    if type(values) is np.ndarray and values.dtype is _FLOAT64 and values.ndim == 1 and length in (None, len(values)):
        return values  # the usual case, at once
    array = _vector(name, values, length, "numbers")
    if array.dtype.kind not in "iuf":
        dtype = _cut(str(array.dtype))
        raise ArgumentError(f"{name}: expected real numbers, got dtype {dtype}{_of_nulls(array)}")
    return array.astype(np.float64, copy=False)


def by_name(name: str, values: Mapping[Any, Any], names: Sequence[str]) -> list[Any]:
    """Return the values of a dictionary in the order of the regions; ValueError unless it has one for each."""
    missing = [region for region in names if region not in values]
    others = [key for key in values if key not in set(names)]
    if missing or others or not names:
        raise ArgumentError(
            f"{name}: expected a value for each region by its name, {shown(list(names))}; "
            f"missing {shown(missing)}, not a region {shown(others)}",
        )
    return [values[region] for region in names]
