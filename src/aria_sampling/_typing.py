"""Array types used in signatures, so that a reader sees a dtype and not a nest of brackets."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["AnyArray", "BoolArray", "FloatArray", "IntArray", "State"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
AnyArray = NDArray[Any]

State = dict[str, AnyArray]
"""What an estimator or a policy remembers: named arrays and nothing else, so that it can be saved."""
