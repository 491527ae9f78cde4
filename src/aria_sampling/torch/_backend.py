"""Tensors for `aria_sampling.RandomConditioning`, which is written on arrays, and the ranks of a distributed run.

On the host a tensor and its array share their memory, so little is to be done. On an accelerator a switch goes out as
one packed copy from pinned memory, and losses come back as one copy that only its reader waits for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray
from aria_sampling._check import refuse_several
from aria_sampling.conditioning._backend import Backend, Report, host_report
from aria_sampling.errors import ArgumentError
from aria_sampling.torch._collective import Ranks
from aria_sampling.torch._feedback import Transfer, to_array

__all__ = ["TENSORS", "SwitchRanks"]

_from_numpy: Callable[[AnyArray], Tensor] = torch.from_numpy  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


class _Tensors(Backend):
    """PyTorch tensors, on any device."""

    noun = "a tensor"
    convert = "torch.as_tensor({})"

    def arrays(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return tensors as arrays, waiting once for those on a device; see `Backend`."""
        arrays: dict[str, Any] = {}
        for name, value in values.items():
            _dense(name, value)
            if _is_far(value):
                return dict(zip(values, Transfer(*values.values()).arrays(), strict=True))
            arrays[name] = _host(value)
        return arrays

    def outputs(
        self, like: Any, mask: BoolArray, items: IntArray, regions: IntArray, weights: FloatArray
    ) -> tuple[Any, Any, Any, Any]:
        """Return tensors on the device of `like`, weights as float32; see `Backend`."""
        if like.is_cuda:
            return _packed(like.device, mask, items, regions, weights)
        host = (
            _from_numpy(mask.copy()),
            _from_numpy(items.copy()),
            _from_numpy(regions.copy()),
            _from_numpy(weights.astype(np.float32)),
        )
        if like.device.type == "cpu":
            return host
        mask_, items_, regions_, weights_ = (tensor.to(like.device) for tensor in host)
        return mask_, items_, regions_, weights_

    def report(self, losses: Any, credit: Any, *, length: int, alone: bool) -> Report:
        """Return a report of the losses, which may be on their way from a device; see `Backend`."""
        _dense("losses", losses)
        if credit is not None:
            _dense("credit", credit)
        far = _is_far(losses)
        refuse_several(losses, length)
        if far and losses.ndim:
            return _DeviceReport(losses.detach(), credit, length=length, alone=alone)
        array = to_array(losses) if far else _host(losses)
        return host_report(array, None if credit is None else to_array(credit), length=length)


TENSORS = _Tensors()


def _dense(name: str, value: Tensor) -> None:
    """Raise ValueError, naming it, for a tensor that is not dense."""
    if value.layout != torch.strided:
        raise ArgumentError(
            f"{name}: expected a dense tensor, got one of layout {value.layout}", remedy=f"{name} = {name}.to_dense()"
        )


def _is_far(value: Tensor) -> bool:
    """Whether a tensor is on a device."""
    return not value.is_cpu


def _host(value: Tensor) -> AnyArray:
    """Return a tensor on the host as an array that shares its memory, or as float64 where NumPy lacks the dtype."""
    try:
        return value.numpy(force=True)
    except TypeError:  # bfloat16 and smaller
        return value.detach().double().numpy()


def _packed(
    device: torch.device, mask: BoolArray, items: IntArray, regions: IntArray, weights: FloatArray
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the arrays as tensors on a device, by one copy that nobody waits for."""
    n = len(items)
    sizes = (8 * n, 8 * n, 4 * n, len(mask))
    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    places = np.split(host.numpy(), np.cumsum(sizes)[:-1])
    for place, array in zip(places, (items, regions, weights.astype(np.float32), mask), strict=True):
        place.view(array.dtype)[:] = array
    there: Any = host.to(device, non_blocking=True)
    items_, regions_, weights_, mask_ = there.split(sizes)
    return mask_.view(torch.bool), items_.view(torch.int64), regions_.view(torch.int64), weights_.view(torch.float32)


class _DeviceReport(Report):
    """Losses on a device: copied there or on their way from it, so that the trainer may change its own.

    Args:
        losses: Detached, dense.
        credit: Which rows are credited, bool [length] on any device, or None.
        length: Number of rows.
        alone: Whether this is the only process: the copy to the host begins at once.
    """

    waits = True

    def __init__(self, losses: Tensor, credit: Tensor | None, *, length: int, alone: bool) -> None:
        if losses.ndim != 1 or losses.is_complex() or losses.dtype == torch.bool:
            raise ArgumentError(
                f"losses: expected real numbers, one a row, got shape {tuple(losses.shape)} of dtype {losses.dtype}"
            )
        if len(losses) != length:
            raise ArgumentError(f"losses: expected {length} numbers, got {len(losses)}")
        if credit is not None and (tuple(credit.shape) != (length,) or credit.dtype != torch.bool):
            raise ArgumentError(
                f"credit: expected {length} bools, True for the rows to credit, got shape {tuple(credit.shape)} "
                f"of dtype {credit.dtype}"
            )
        self._credited = credit is not None
        if not alone:
            self.rows = _rows(losses, credit)
        elif credit is None:
            self._transfer = Transfer(losses)
        else:
            flags = credit.to(losses.device, losses.dtype, non_blocking=True)
            self._transfer = Transfer(torch.stack([losses, flags]))

    def read(self) -> tuple[FloatArray, BoolArray | None]:
        """Return what came, waiting for its copy; see `Report`."""
        values = self._transfer.arrays()[0].astype(np.float64, copy=False)
        return (values[0], values[1] != 0) if self._credited else (values, None)


class SwitchRanks:
    """The ranks of a process group that share a `RandomConditioning`; see `conditioning._backend.Ranks`.

    Args:
        group: A `torch.distributed.ProcessGroup`; None: the default group.
        check_every: Digests of the state are compared at every so many closed rounds.
    """

    def __init__(self, group: Any, check_every: int) -> None:
        self._ranks = Ranks(group, check_every)
        self.note = self._ranks.note
        self.forget = self._ranks.forget
        self.exchange = self._ranks.exchange

    @property
    def size(self) -> int:
        """Number of ranks."""
        return self._ranks.size

    @property
    def rank(self) -> int:
        """Number of this rank."""
        return self._ranks.rank

    def gather(
        self, report: Report | None, *, room: int, round_: int, lag: int
    ) -> Callable[[], list[tuple[FloatArray, BoolArray | None] | None]]:
        """Begin to collect the reports of all ranks; see `conditioning._backend.Ranks`."""
        if report is None:
            rows = torch.empty((0, 2), dtype=torch.int64)
        elif isinstance(report, _DeviceReport):
            rows = report.rows
        else:
            losses, credit = report.read()
            rows = _rows(_from_numpy(losses), None if credit is None else _from_numpy(credit))
        arrived = self._ranks.gather(rows, room=room, round_=round_, lag=lag)

        def wait() -> list[tuple[FloatArray, BoolArray | None] | None]:
            return [
                (np.ascontiguousarray(part[:, 1]).view(np.float64), part[:, 0] != 0) if len(part) else None
                for part in arrived()
            ]

        return wait


def _rows(losses: Tensor, credit: Tensor | None) -> Tensor:
    """Return whether each row is credited, and the bits of its loss as a float64: int64 [n, 2], on their device."""
    if losses.device.type == "mps":  # no float64 there
        losses = losses.cpu()
    bits = losses.to(torch.float64).view(torch.int64)
    flags = torch.ones_like(bits) if credit is None else credit.to(losses.device, torch.int64, non_blocking=True)
    return torch.stack([flags, bits], dim=1)
