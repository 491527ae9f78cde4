"""Tensors on their way to the host, without stalling the device they come from.

A copy from an accelerator is queued behind the work that is already there, into pinned memory; only whoever
reads it waits, and only for that copy. Tensors that are on the host already are taken as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aria_sampling._typing import AnyArray

__all__ = ["Transfer", "on_device", "to_array"]


def on_device(*values: Any) -> bool:
    """Return whether any of `values` is a tensor that is not on the host."""
    return any(isinstance(value, Tensor) and value.device.type != "cpu" for value in values)


def to_array(value: Any) -> Any:
    """Return a tensor as an array (floats as float64, exactly), waiting for its device; anything else as it came.

    Raises:
        ValueError: A tensor that is not dense.
    """
    if not isinstance(value, Tensor):
        return value
    if value.layout != torch.strided:
        raise ValueError(f"expected a dense tensor, got one of layout {value.layout}: pass its to_dense()")
    host = value.detach().cpu()  # before the conversion: some devices have no float64
    return (host.double() if host.is_floating_point() else host).numpy()


class Transfer:
    """A copy of tensors to the host, begun now and read later.

    Args:
        tensors: On any devices. Those on CUDA (or ROCm) are copied asynchronously, in the order of the current
            stream, so that they may be changed in place right afterwards; others are copied at once.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self._events: list[torch.cuda.Event] = []
        self._hosts = [self._begin(tensor.detach()) for tensor in tensors]

    def _begin(self, tensor: Tensor) -> Tensor:
        if not tensor.is_cuda:
            return tensor.cpu() if tensor.device.type != "cpu" else tensor.clone()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(tensor.device))
        self._events.append(event)
        return host

    def arrays(self) -> list[AnyArray]:
        """Return the tensors as arrays, floats as float64, waiting for the copies alone."""
        for event in self._events:
            event.synchronize()
        return [np.asarray(to_array(host)) for host in self._hosts]
