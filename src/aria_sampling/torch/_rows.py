"""Rows of feedback, (item, loss), in the one form that they travel in: int64 [m, 2].

The loss is there as the bits of a float64: an id would not survive in a float, and a loss would not in an int.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from aria_sampling._typing import FloatArray, IntArray
from aria_sampling._validation import LOSS_HINTS
from aria_sampling.drawing import Draw
from aria_sampling.torch._transfer import to_array

__all__ = ["match_rows", "pack", "unpack"]


def pack(items: Any, losses: Any, *, name: str = "indices") -> Tensor:
    """Return items and losses, of which at least one is on an accelerator, as rows on that device, waiting for nothing.

    Raises:
        ValueError: Not one-dimensional, of different lengths, of another kind of dtype, or no tensors at all; `name`
            is what the items are called.
    """
    items, losses = _vector(name, items, "integers"), _vector("losses", losses, "numbers, one a row")
    if items.is_floating_point() and len(items):
        raise ValueError(f"{name}: expected integers, got dtype {items.dtype}")
    if len(items) != len(losses):
        raise ValueError(f"losses: expected {len(items)} numbers, got {len(losses)}")
    device = losses.device if losses.device.type != "cpu" else items.device
    if device.type == "mps":  # no float64 there
        items, losses, device = items.cpu(), losses.cpu(), torch.device("cpu")
    bits = losses.to(device, torch.float64, non_blocking=True).view(torch.int64)
    return torch.stack([items.to(device, torch.int64, non_blocking=True), bits], dim=1)


def _vector(name: str, values: Any, what: str) -> Tensor:
    """Return `values` as a tensor [n] of real numbers, detached; ValueError, naming it, for anything else."""
    try:
        tensor = torch.as_tensor(values).detach()
    except Exception as error:  # None, text, a list of lists
        raise ValueError(
            f"{name}: expected a one-dimensional tensor of {what}, got {type(values).__name__} ({error})"
        ) from None
    if tensor.layout != torch.strided:
        raise ValueError(f"{name}: expected a dense tensor, got one of layout {tensor.layout}: pass its to_dense()")
    if tensor.ndim != 1:
        hint = LOSS_HINTS[tensor.ndim > 1] if name == "losses" else ""
        shape = tuple(tensor.shape)
        raise ValueError(f"{name}: expected a one-dimensional tensor of {what}, got shape {shape}{hint}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"{name}: expected {what}, got dtype {tensor.dtype}")
    return tensor


def unpack(rows: Any) -> tuple[IntArray, FloatArray]:
    """Return the items int64 [m] and losses float64 [m] of rows."""
    rows = to_array(rows)
    return rows[:, 0], np.ascontiguousarray(rows[:, 1]).view(np.float64)


def match_rows(items: IntArray, draw: Draw) -> IntArray:
    """Return which row of `draw` each of `items` is, int64 [m], every row at most once, equal items in order.

    Raises:
        ValueError: An item that is not in the draw, or more often than it was drawn.
    """
    if np.array_equal(items, draw.items):
        return np.arange(len(items))
    drawn, given = np.argsort(draw.items, kind="stable"), np.argsort(items, kind="stable")
    wanted, there = items[given], draw.items[drawn]
    nth = np.arange(len(wanted)) - np.searchsorted(wanted, wanted)  # of equal items
    place = np.searchsorted(there, wanted) + nth
    found = place < len(there)
    found[found] = there[place[found]] == wanted[found]
    if not found.all():
        strange = wanted[~found]
        absent = strange[~np.isin(strange, draw.items)]
        if len(absent):
            raise ValueError(
                f"indices: {len(absent)} of {len(items)} rows are not in the oldest open batch (round {draw.round}), "
                f"the first is {absent[0]}. Call observe() once for every batch, in order; if you do, something "
                "replaced or reordered this sampler, the loader's batches are not the sampler's (batch_size), or the "
                "index of a sample is not its number in the dataset (WithIndex adds that)"
            )
        raise ValueError(
            f"indices: {len(strange)} of {len(items)} rows of round {draw.round} are reported more often than they "
            f"were drawn, the first is {strange[0]}. Report each row once; if you do, several ranks got the same rows: "
            "give the sampler num_replicas= and rank=, or let the framework deal them out"
        )
    rows = np.empty(len(items), np.int64)
    rows[given] = drawn[place]
    return rows
