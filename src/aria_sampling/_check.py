"""Checks of arguments, and the one form that their messages take.

Every message names the argument, what was expected and what came. The functions return the value in
the form the rest of the library works with (``int``, ``float``, ``int64`` or ``float64`` arrays).
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, FloatArray, IntArray
from aria_sampling.errors import ArgumentError

__all__ = ["LOSS_HINTS", "as_array", "float_vector", "instance", "int_vector", "integer", "real", "shown"]


def shown(value: Any) -> str:
    """Return `value` as text for a message, cut to 200 characters. Only the first part of a long list is read."""
    try:
        kind = type(value)  # pyright: ignore
        if issubclass(kind, list | tuple) and len(value) > _FIRST:
            return f"{_cut(repr(value[:_FIRST])[:-1])}, ... ({len(value)} in all)"
        return _cut(repr(value[:_MOST_SHOWN] if issubclass(kind, str | bytes) else value))
    except Exception:  # whatever an object's __repr__ raises
        return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    """Return `text`, cut to 170 characters."""
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 4]} ..."


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
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, got {type(value).__name__}") from None
    if number < low or number > most:
        raise ArgumentError(f"{name}={number}: expected {expected}")
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
        raise ArgumentError(f"{name}={shown(value)}: expected {expected}, got {type(value).__name__}") from None
    below = number <= low if open_low else number < low
    above = number >= high if open_high else number > high
    if not math.isfinite(number) or below or above:
        raise ArgumentError(f"{name}={number!r}: expected {expected}")
    return number


def as_array(name: str, values: Any, what: str, dtype: type[np.float64] | None = None) -> AnyArray:
    """Return `values` as an array of any shape; ValueError, with `what` was expected, if that fails.

    Lists, arrays, Series of pandas and polars, and torch tensors of any device and dtype, with a gradient or without.
    Sparse matrices are refused.
    """
    if type(values) is not np.ndarray:
        _refuse_sparse(name, values, what)
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):
            return np.asarray(_array_of_tensor(values), dtype)
        return np.asarray(values, dtype)
    except Exception as error:  # whatever an object's __array__ raises
        raise ArgumentError(
            f"{name}: expected {what}, got {type(values).__name__}, which NumPy cannot read ({_cut(str(error))})"
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
        came = f"a sparse {type(values).__name__} of shape {tuple(values.shape)}"
        flat = ".ravel()" if what.startswith("a one-dimensional") else ""
        raise ArgumentError(f"{name}: expected {what}, got {came}; pass {name}.{dense}{flat}")


def _vector(name: str, values: Any, length: int | None, what: str) -> AnyArray:
    """Return `values` as a one-dimensional array of the wanted length, of whatever dtype came."""
    array = as_array(name, values, f"a one-dimensional array of {what}")
    if array.ndim != 1:
        hint = LOSS_HINTS[array.ndim > 1] if name == "losses" and array.dtype.kind in "iuf" else ""
        raise ArgumentError(
            f"{name}: expected a one-dimensional array of {what}, got "
            + (f"shape {array.shape}" if array.ndim else f"{type(values).__name__} {shown(values)}")
            + hint
        )
    if length is not None and len(array) != length:
        raise ArgumentError(f"{name}: expected {length} {what}, got {len(array)}")
    return _tightened(array) if array.dtype == object else array


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
    "; average over all but the first dimension: loss.flatten(1).mean(1), in NumPy loss.reshape(len(loss), -1).mean(1)",
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
        raise ArgumentError(f"{name}: expected integers, got dtype {array.dtype}{hint}")
    least, most = int(array.min()), int(array.max())
    if least < low or most >= (2**63 if high is None else high):
        wanted = f"in [{low}, {high})" if high is not None else f">= {low}" if least < low else "below 2**63"
        raise ArgumentError(f"{name}: expected values {wanted}, got {least} to {most}{hint}")
    return array.astype(np.int64, copy=False)


def float_vector(name: str, values: Any, *, length: int | None = None) -> FloatArray:
    """Return `values` as float64[n]; non-finite numbers pass. Raises ValueError for other shapes or dtypes."""
    array = _vector(name, values, length, "numbers")
    if array.dtype.kind not in "iuf":
        raise ArgumentError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array.astype(np.float64, copy=False)
