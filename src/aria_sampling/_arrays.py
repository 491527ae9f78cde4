"""Array types used in signatures, the value that a part's state is, and arrays as plain Python values.

A state dictionary holds ints, floats, strings, bytes, lists and dictionaries only. `torch.load` accepts it with
``weights_only=True``, pickle does too, and the core needs no torch. An array travels as little-endian bytes
beside its dtype and shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from aria_sampling.errors import StateError

__all__ = [
    "AnyArray",
    "Arrays",
    "BoolArray",
    "FloatArray",
    "IntArray",
    "State",
    "decode",
    "decode_all",
    "encode",
    "encode_all",
    "take",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]

Arrays = dict[str, AnyArray]


@dataclass(frozen=True, eq=False)
class State:
    """What an estimator or a policy remembers, as a value: named arrays and nothing else, so that it can be saved.

    Attributes:
        rows: What is known of each region: float64 arrays [n_regions, ...]. Where a part is asked about some
            regions only, the rows of those.
        shared: What is known of all regions together: float64 arrays of any shape.
    """

    rows: dict[str, FloatArray]
    shared: dict[str, FloatArray]


def encode(array: AnyArray) -> dict[str, Any]:
    """Return `array` as ``{"dtype": str, "shape": list[int], "data": bytes}``, little-endian."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": little.dtype.str, "shape": list(array.shape), "data": little.tobytes()}


def decode(name: str, value: Any) -> AnyArray:
    """Return the array that `encode` wrote; StateError, naming it, if it is not whole."""
    try:
        flat = np.frombuffer(value["data"], dtype=np.dtype(str(value["dtype"])))
        return flat.reshape(list(value["shape"])).astype(flat.dtype.newbyteorder("="), copy=True)
    except (KeyError, TypeError, ValueError) as error:
        raise StateError(f"state entry {name!r} is not a whole array: {error}") from error


def encode_all(state: Arrays) -> dict[str, Any]:
    """Return every array of `state` encoded under its own name."""
    return {name: encode(array) for name, array in state.items()}


def decode_all(name: str, value: Any, like: Arrays) -> Arrays:
    """Return the arrays of `value`; StateError unless names, shapes and dtypes are those of `like`."""
    value = _mapping(name, value)
    if set(value) != set(like):
        raise StateError(f"state entry {name!r}: expected the keys {_some(like)}, got {_some(value)}")
    arrays = {key: decode(f"{name}.{key}", value[key]) for key in like}
    for key, array in arrays.items():
        if array.shape != like[key].shape or array.dtype != like[key].dtype:
            raise StateError(
                f"state entry '{name}.{key}': expected {like[key].dtype}{list(like[key].shape)}, "
                f"got {array.dtype}{list(array.shape)}"
            )
    return arrays


def take(state: Any, key: str, kind: type[Any]) -> Any:
    """Return ``state[key]``; StateError unless `state` is a dictionary that has it, of type `kind`."""
    state = _mapping("state", state)
    if key not in state:
        raise StateError(f"state: expected an entry {key!r}, got only {_some(state)}")
    value = state[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StateError(f"state entry {key!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _some(keys: Iterable[str]) -> str:
    """Return keys as text of at most 170 characters."""
    text = str([key[:40] for key in sorted(keys)[:20]])
    return text if len(text) <= 170 else f"{text[:166]} ..."


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """Return `value`; StateError, naming it, unless it is a dictionary."""
    if not isinstance(value, dict):
        raise StateError(f"{name}: expected a dictionary, got {type(value).__name__}")
    return {str(key): entry for key, entry in cast("dict[Any, Any]", value).items()}
