"""Calls that torch.compile leaves as they are: apart, because every face has some."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

__all__ = ["uncompiled"]

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def uncompiled(call: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Let torch.compile break its graph at `call`, which then runs as it does without.

    As `torch.compiler.disable`, which takes seconds to import, at the first call within a compiled function only.
    """

    @wraps(call)
    def outer(*args: Given.args, **options: Given.kwargs) -> Answer:
        if torch.compiler.is_dynamo_compiling():
            return _disabled(call)(*args, **options)
        return call(*args, **options)

    return outer


def _disabled(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` as torch.compile leaves it alone, the same every time."""
    if call not in _DISABLED:
        disable: Any = torch.compiler.disable  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        _DISABLED[call] = disable(call)
    return _DISABLED[call]


_DISABLED: dict[Callable[..., Any], Callable[..., Any]] = {}
