"""pyarrow, which the prompt store is made of: imported where it is used, and named where it is missing.

It has no type stubs, so its objects are `Any` here.
"""

from __future__ import annotations

from typing import Any

from aria_sampling.errors import MissingDependencyError

__all__ = ["pyarrow"]


def pyarrow() -> Any:
    """Return pyarrow with the parts that are used here; ImportError, with the extra to install, if it is missing."""
    try:
        import pyarrow  # pyright: ignore
        import pyarrow.compute  # pyright: ignore
        import pyarrow.ipc  # pyright: ignore
        import pyarrow.parquet  # pyright: ignore
    except ImportError as error:
        raise MissingDependencyError(
            "a store of prompts, Parquet, Arrow and packed text need pyarrow: pip install 'aria-sampling[text]'"
        ) from error
    return pyarrow  # pyright: ignore
