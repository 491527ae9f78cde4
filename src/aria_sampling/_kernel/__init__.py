"""The arithmetic of a round: compiled (`kernel.hpp`), or, bit for bit the same and slower, in Python (`reference.py`).

Set ``ARIA_KERNEL=reference`` to have the Python one. Where the compiled one cannot be loaded, the Python one serves,
with one warning. It is apart so that everything above it works on plain arrays and knows of neither.
"""

from __future__ import annotations

import os
import warnings

from aria_sampling.errors import AriaWarning

_WANTED = os.environ.get("ARIA_KERNEL", "compiled")
if _WANTED not in ("compiled", "reference"):
    raise ImportError(f"ARIA_KERNEL={_WANTED!r}: expected 'compiled' or 'reference'")

_found = _WANTED == "compiled"
if _found:
    try:
        from aria_sampling._kernel.compiled import *  # noqa: F403
    except ImportError as error:
        _found = False
        warnings.warn(
            f"the compiled kernel cannot be loaded ({error}); the Python one gives the same draws, 10 to 100 times "
            "slower. Install a wheel of aria-sampling, or a C++ compiler before `pip install`; ARIA_KERNEL=reference "
            "silences this",
            AriaWarning,
            stacklevel=2,
        )
if not _found:
    from aria_sampling._kernel.reference import *  # noqa: F403

COMPILED = _found
"""Whether the compiled kernel is in use."""
