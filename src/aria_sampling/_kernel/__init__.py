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

COMPILED = False
if _WANTED == "compiled":
    try:
        from aria_sampling._kernel import _core as _core

        COMPILED = True
    except ImportError as error:
        warnings.warn(
            f"the compiled kernel cannot be loaded ({error}); the Python one gives the same draws, 10 to 100 times "
            "slower. Install a wheel of aria-sampling, or a C++ compiler before `pip install`; ARIA_KERNEL=reference "
            "silences this",
            AriaWarning,
            stacklevel=2,
        )
if COMPILED:
    from aria_sampling._kernel.compiled import *  # noqa: F403
else:
    from aria_sampling._kernel.reference import *  # noqa: F403
