"""Arrays as plain Python values, so that a state can be saved by anything.

A state dictionary holds ints, floats, strings, bytes, lists and dictionaries only: `torch.load` accepts
it with ``weights_only=True``, JSON-with-base64 or pickle do too, and the core needs no torch. Arrays
travel as little-endian bytes beside their dtype and shape.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from aria_sampling._errors import StateError
from aria_sampling._typing import AnyArray, State

__all__ = ["decode", "decode_all", "encode", "encode_all", "take"]


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


def encode_all(state: State) -> dict[str, Any]:
    """Return every array of `state` encoded under its own name."""
    return {name: encode(array) for name, array in state.items()}


def decode_all(name: str, value: Any, like: State) -> State:
    """Return the arrays of `value`; StateError unless names, shapes and dtypes are those of `like`."""
    value = _mapping(name, value)
    if set(value) != set(like):
        raise StateError(f"state entry {name!r}: expected the keys {sorted(like)}, got {sorted(value)}")
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
        raise StateError(f"state: expected an entry {key!r}, got only {sorted(state)}")
    value = state[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise StateError(f"state entry {key!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """Return `value`; StateError, naming it, unless it is a dictionary."""
    if not isinstance(value, dict):
        raise StateError(f"{name}: expected a dictionary, got {type(value).__name__}")
    return {str(key): entry for key, entry in cast("dict[Any, Any]", value).items()}
