"""What a trainer reports of a batch, from the call to the allocator.

Three things happen on the way. Rows are checked at the door. Losses leave their device without stalling it: the copy is
queued behind the work that is there already, into pinned memory, and only whoever reads it waits. Rows that go to other
ranks travel in one form: int64 [m, 2], an id and the bits of a float64, since an id would not survive in a float, nor a
loss in an integer.

On one process, with losses on the host, nothing is packed and nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray
from aria_sampling._check import LOSS_HINTS, as_array, float_vector, int_vector, kind_of, refuse_several
from aria_sampling.errors import ArgumentError

__all__ = [
    "WEIGHTS_BEFORE",
    "Batch",
    "Part",
    "Transfer",
    "in_order",
    "loss_vector",
    "on_device",
    "pack",
    "part_of",
    "read",
    "to_array",
    "unpack",
    "wire",
]

WEIGHTS_BEFORE = ". Weights are those of an open draw: ask for those of a batch before observe() or step() closes it"


def on_device(*values: Any) -> bool:
    """Return whether any of `values` is a tensor that is not on the host."""
    return any(isinstance(value, Tensor) and value.device.type != "cpu" for value in values)


def to_array(value: Any, name: str = "tensor") -> Any:
    """Return a tensor as an array (floats as float64, exactly), waiting for its device; anything else as it came.

    Raises:
        ValueError: A tensor that is not dense, or sharded (a DTensor); `name` is what it is called.
    """
    if not isinstance(value, Tensor):
        return value
    _refuse_special(name, value)
    host = value.detach().cpu()  # before the conversion: some devices have no float64
    return (host.double() if host.is_floating_point() else host).numpy()


_PLAIN: Any = getattr(Tensor, "__torch_dispatch__", None)


def plain(tensor: Tensor) -> bool:
    """Return whether a tensor keeps its values itself. Others are DTensors, and results of collectives on their way."""
    return getattr(type(tensor), "__torch_dispatch__", _PLAIN) is _PLAIN


def _refuse_special(name: str, tensor: Tensor) -> None:
    """Raise ValueError, naming it, for a tensor that is sharded, on its way or not dense."""
    if not plain(tensor):
        whole = hasattr(tensor, "full_tensor")
        raise ArgumentError(
            f"{name}: expected a plain tensor, got {kind_of(tensor)}"
            + ("; full_tensor() makes one, and is collective: every rank of its mesh must call it" if whole else ""),
            remedy=f"{name} = {name}.full_tensor()" if whole else None,
        )
    if tensor.layout != torch.strided:
        raise ArgumentError(
            f"{name}: expected a dense tensor, got one of layout {tensor.layout}", remedy=f"{name} = {name}.to_dense()"
        )


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


# -- rows at the door ----------------------------------------------------------------------------------


@dataclass(eq=False)
class Batch:
    """What a face remembers of an open round: the parts that were reported of it so far."""

    parts: list[Part] = field(default_factory=list["Part"])

    @property
    def n(self) -> int:
        """Number of rows reported."""
        return sum(part.n for part in self.parts)


@dataclass(eq=False)
class Part:
    """Rows reported by one call.

    Attributes:
        n: Number of rows, m.
        ids: Their items or regions, int64 [m]; None if only the device knows them.
        credit: Which rows are credited, bool [m]; None: all, or what the packed rows say.
        data: The losses, float64 [m], a tensor on a device, or on their way from it; or packed rows, where the ids are
            on the device or the rows go to other ranks.
    """

    n: int
    ids: IntArray | None
    credit: BoolArray | None
    data: FloatArray | Transfer | Tensor

    @property
    def waits(self) -> bool:
        """Whether its losses are on their way from a device."""
        return isinstance(self.data, Transfer)

    def start(self) -> None:
        """Let what is on a device begin its way to the host: once all that the host knows was checked."""
        if isinstance(self.data, Tensor):
            self.data = Transfer(self.data)


def in_order(ids: Any, losses: Any, expected: IntArray) -> FloatArray | None:
    """Return the losses, float64 [m], of a whole batch as it was drawn, on the host; None for anything else.

    The common case, without a check more than it needs: ids that equal the expected ones are in range.
    """
    items: Any = ids
    if isinstance(ids, Tensor):
        if ids.dtype is not torch.int64 or not ids.is_cpu or ids.layout is not torch.strided or not plain(ids):
            return None
        items = ids.numpy()
    elif not isinstance(ids, np.ndarray) or items.dtype != np.int64:
        return None
    if items.shape != expected.shape or items.tobytes() != expected.tobytes():
        return None
    values: Any = losses
    if isinstance(losses, Tensor):
        if losses.dtype not in _NUMPY_HAS or not losses.is_cpu or losses.layout is not torch.strided:
            return None
        if not plain(losses):
            return None
        values = losses.detach().numpy()
    elif not isinstance(losses, np.ndarray) or values.dtype.kind != "f":
        return None
    return values.astype(np.float64, copy=False) if values.shape == expected.shape else None


_NUMPY_HAS = (torch.float32, torch.float64, torch.float16)


def part_of(
    name: str, ids: Any, losses: Any, credit: Any = None, *, high: int, hint: str = "", packed: bool, keep: bool
) -> Part:
    """Return the rows of one report, checked.

    Args:
        name: What the ids are called.
        ids: Integers [m] in ``[0, high)``, a tensor on any device or an array.
        losses: Numbers [m], likewise.
        credit: Which rows are credited, bool [m], likewise; None: all.
        high: Bound of the ids.
        hint: What to change if an id is out of range.
        packed: Pack them for other ranks.
        keep: Share no memory with what came, on the host. What is on a device is copied by `Part.start`.

    Raises:
        ValueError: Another shape, dtype or length, or ids out of range. What only the device knows is not looked at.
    """
    _refuse_one(name, ids, losses)
    if on_device(ids, losses, credit):
        if on_device(ids, credit):
            rows = pack(ids, losses, credit, name=name)
            return Part(len(rows), None, None, rows)
        items = int_vector(name, to_array(ids, name), high=high, hint=hint)
        if packed:
            rows = pack(torch.as_tensor(items), losses, credit, name=name)
            return Part(len(rows), items.copy(), None, rows)
        values = _vector("losses", losses, "numbers, one a row", len(items))
        return Part(len(items), items.copy(), _credit_vector(credit, len(items)), values)
    items = int_vector(name, to_array(ids, name), high=high, hint=hint)
    values = loss_vector(losses, len(items))
    credited = _credit_vector(credit, len(items))
    if packed:
        bits = np.ascontiguousarray(values).view(np.int64)
        bits = bits if credited is None else np.where(credited, bits, _UNCREDITED)
        return Part(len(items), items.copy(), None, torch.from_numpy(np.stack([items, bits], axis=1)))  # pyright: ignore[reportUnknownMemberType]
    if keep:
        items, values = items.copy(), values.copy()
    return Part(len(items), items, credited, values)


def _refuse_one(name: str, ids: Any, losses: Any) -> None:
    """Raise ValueError for a single id: what comes of a loader with ``batch_size=None``, one sample at a time.

    Its losses may be several, where the sample is a batch by itself.
    """
    if isinstance(ids, int | np.integer) or (isinstance(ids, Tensor) and ids.ndim == 0 and not ids.is_floating_point()):
        which, one = {"indices": "index", "regions": "region"}.get(name, name), int(cast("Any", ids))
        raise ArgumentError(
            f"{name}: expected a one-dimensional array of integers, one a loss, got the single {which} {one}; a "
            "sample that is a batch by itself is one row, and its loss is the mean of its losses",
            remedy=f"{name}, losses = [{one}], losses.mean().reshape(1)" if hasattr(losses, "reshape") else None,
        )


def loss_vector(losses: Any, n: int) -> FloatArray:
    """Return losses as float64 [n]; ValueError, which says what to do with several a row, for anything else."""
    values = to_array(losses, "losses")
    refuse_several(losses, n)
    return float_vector("losses", values, length=n)


def _credit_vector(credit: Any, n: int) -> BoolArray | None:
    """Return which rows are credited, bool [n]; None for all; ValueError for anything else."""
    if credit is None:
        return None
    array = as_array("credit", to_array(credit, "credit"), "bools, one a row")
    if array.shape != (n,) or (array.dtype != np.bool_ and n > 0):
        zeros_and_ones = array.shape == (n,) and array.dtype.kind in "iu" and bool(np.isin(array, (0, 1)).all())
        made = "credit.bool()" if isinstance(credit, Tensor) else "np.asarray(credit, bool)"
        raise ArgumentError(
            f"credit: expected bools, one a row, shape ({n},), got dtype {array.dtype}, shape {array.shape}; True is "
            "for a row whose loss is credited to its region",
            remedy=f"credit = {made}" if zeros_and_ones else None,
        )
    return array.astype(np.bool_)


def read(parts: list[Part]) -> tuple[IntArray, FloatArray, BoolArray | None]:
    """Return ids, losses and which are credited (None: all) of parts on one process, waiting for their device."""
    if len(parts) == 1 and not parts[0].waits and parts[0].ids is not None:
        return parts[0].ids, parts[0].data, parts[0].credit  # pyright: ignore[reportReturnType]
    ids, losses, credit = [np.empty(0, np.int64)], [np.empty(0)], [np.empty(0, np.bool_)]
    for part in parts:
        arrived: Any = part.data.arrays()[0] if isinstance(part.data, Transfer) else part.data
        if part.ids is None:
            its, values, credited = unpack(arrived)
        else:
            its, values, credited = part.ids, arrived, part.credit
        ids.append(its)
        losses.append(values)
        credit.append(np.ones(part.n, np.bool_) if credited is None else credited)
    return np.concatenate(ids), np.concatenate(losses), np.concatenate(credit)


# -- rows that travel ----------------------------------------------------------------------------------

# Bits in the place of a loss that is not to be credited: a signalling NaN, which no arithmetic returns.
_UNCREDITED = 0x7FF4_4152_4941_0001


def pack(ids: Any, losses: Any, credit: Any = None, *, name: str = "indices") -> Tensor:
    """Return rows, of which something is on an accelerator, as int64 [m, 2] on that device, waiting for nothing.

    Raises:
        ValueError: Not one-dimensional, of different lengths, of another kind of dtype, or no tensors at all; `name`
            is what the ids are called.
    """
    ids = _vector(name, ids, "integers")
    if ids.is_floating_point() and len(ids):
        raise ArgumentError(f"{name}: expected integers, got dtype {ids.dtype}")
    losses = _vector("losses", losses, "numbers, one a row", len(ids))
    if credit is not None:
        if isinstance(credit, Tensor):
            _refuse_special("credit", credit)
        credit = torch.as_tensor(credit if on_device(credit) else _credit_vector(credit, len(ids)))
        if credit.shape != ids.shape or credit.dtype != torch.bool:
            raise ArgumentError(
                f"credit: expected bools, one a row, shape ({len(ids)},), got dtype {credit.dtype}, shape "
                f"{tuple(credit.shape)}"
            )
    there = [each.device for each in (losses, ids, credit) if each is not None and on_device(each)]
    device = there[0] if there else losses.device
    if device.type == "mps":  # no float64 there
        ids, losses, device = ids.cpu(), losses.cpu(), torch.device("cpu")
    bits = losses.to(device, torch.float64, non_blocking=True).view(torch.int64)
    if credit is not None:
        bits = torch.where(credit.to(device, non_blocking=True), bits, _UNCREDITED)
    return torch.stack([ids.to(device, torch.int64, non_blocking=True), bits], dim=1)


def _vector(name: str, values: Any, what: str, length: int | None = None) -> Tensor:
    """Return `values` as a tensor [n] of real numbers, detached; ValueError, naming it, for anything else."""
    if isinstance(values, Tensor):
        _refuse_special(name, values)
    try:
        # a list by way of NumPy: torch would make float32 of its numbers
        tensor = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach()
    except Exception as error:  # None, text, a list of lists
        raise ArgumentError(
            f"{name}: expected a one-dimensional tensor of {what}, got {type(values).__name__} ({error})"
        ) from None
    if length is not None:
        refuse_several(tensor, length)
    if tensor.ndim != 1:
        hint = LOSS_HINTS[tensor.ndim > 1] if name == "losses" else ""
        shape = tuple(tensor.shape)
        raise ArgumentError(f"{name}: expected a one-dimensional tensor of {what}, got shape {shape}{hint}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise ArgumentError(f"{name}: expected {what}, got dtype {tensor.dtype}")
    if length is not None and len(tensor) != length:
        raise ArgumentError(f"{name}: expected {length} numbers, got {len(tensor)}")
    return tensor


def wire(parts: list[Part]) -> Tensor:
    """Return the packed rows of all parts, int64 [m, 2], on the device that one of them is on."""
    rows: list[Any] = [part.data for part in parts]
    device = next((each.device for each in rows if on_device(each)), torch.device("cpu"))
    nothing = torch.empty((0, 2), dtype=torch.int64, device=device)
    return torch.cat([nothing, *(each.to(device, non_blocking=True) for each in rows)])


def unpack(rows: Any) -> tuple[IntArray, FloatArray, BoolArray]:
    """Return ids int64 [m], losses float64 [m] and which of them are credited, bool [m], of packed rows."""
    rows = to_array(rows)
    bits = np.ascontiguousarray(rows[:, 1])
    return rows[:, 0], bits.view(np.float64), bits != _UNCREDITED
