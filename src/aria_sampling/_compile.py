"""Calls that torch.compile leaves as they are: apart, because every face has some.

Nothing here imports torch. Who compiles a function has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = ["uncompiled"]

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def uncompiled(call: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Let torch.compile break its graph at `call`, which then runs as it does without, and so does all that it calls.

    Compiled, arrays of NumPy would be tensors in there. This is `torch.compiler.disable`, for as long as something is
    compiled alone: it takes seconds to import and microseconds a call.
    """

    @wraps(call)
    def outer(*args: Given.args, **options: Given.kwargs) -> Answer:
        if "torch._dynamo" in sys.modules and _compiles():
            return _disabled(call)(*args, **options)
        return call(*args, **options)

    return outer


def _compiles() -> bool:
    """Return whether torch.compile may compile what is called now.

    Not whether it is just doing so (`torch.compiler.is_dynamo_compiling`): a frame that it gives up runs as it is, and
    what that calls is compiled.
    """
    torch: Any = sys.modules["torch"]
    try:
        return torch._C._dynamo.eval_frame.get_eval_frame_callback() is not None
    except AttributeError:  # another version of torch
        return True


def _disabled(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` as torch.compile leaves it alone, the same every time."""
    disabled = _DISABLED.get(call)
    if disabled is None:
        disabled = _DISABLED[call] = sys.modules["torch"].compiler.disable(call)
    return disabled


_DISABLED: dict[Callable[..., Any], Callable[..., Any]] = {}
