"""What `RandomConditioning` needs to know of arrays and of tensors: how they come in, go out, and are waited for.

Everything between is NumPy. The backend of arrays is here; the first tensor, or a distributed run, brings that of
PyTorch (`aria_sampling.torch._backend`), which this layer may not import by name: who has no torch never needs it.
"""

from __future__ import annotations

import importlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Protocol

import numpy as np

from aria_sampling._arrays import AnyArray, BoolArray, FloatArray, IntArray
from aria_sampling._check import as_array, float_vector
from aria_sampling.errors import ArgumentError

__all__ = [
    "ARRAYS",
    "Backend",
    "HostReport",
    "Ranks",
    "Report",
    "backend_of",
    "host_report",
    "ranks_of",
]


class Report(ABC):
    """Losses of a batch, and which of its rows they are to be credited for, on their way to the host.

    Attributes:
        waits: Whether `read` may have to wait for a device.
    """

    waits: ClassVar[bool]

    @abstractmethod
    def read(self) -> tuple[FloatArray, BoolArray | None]:
        """Return the losses, float64 [B], and the rows to credit, bool [B]; None: all."""


@dataclass(frozen=True, eq=False)
class HostReport(Report):
    """A report that has arrived."""

    waits = False

    losses: FloatArray
    credit: BoolArray | None

    def read(self) -> tuple[FloatArray, BoolArray | None]:
        """Return what came; see `Report`."""
        return self.losses, self.credit


class Ranks(Protocol):
    """The processes that share an allocation; see `aria_sampling.torch._backend`."""

    @property
    def size(self) -> int:
        """Number of ranks."""
        ...

    @property
    def rank(self) -> int:
        """Number of this rank."""
        ...

    def note(self, closed: int, digest: Callable[[], str], /) -> None:
        """Remember the digest of the state after `closed` rounds, if it is one to be compared."""
        ...

    def forget(self) -> None:
        """Forget all digests: another state was loaded."""
        ...

    def exchange(self, rows: IntArray, /) -> list[IntArray]:
        """Return the rows of all ranks by rank, int64 [any, 2] each. Collective, and waits."""
        ...

    def gather(
        self, report: Report | None, *, room: int, round_: int, lag: int
    ) -> Callable[[], list[tuple[FloatArray, BoolArray | None] | None]]:
        """Begin to collect the reports of all ranks; return a function that waits for them. Collective.

        Args:
            report: Of this rank; None if it has none.
            room: The most rows that any rank may have, equal on all.
            round_: Number of the round.
            lag: Of the allocator.
        """
        ...


class Backend(ABC):
    """One kind of values: arrays, or tensors.

    Attributes:
        noun: One of them, for messages.
        convert: What makes one of them of `{}`, which is of the other kind, for messages.
    """

    noun: ClassVar[str]
    convert: ClassVar[str]

    @abstractmethod
    def arrays(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return values by name as arrays, or as what NumPy makes arrays of, waiting for their device.

        Raises:
            ValueError: One that no array can be made of.
        """

    @abstractmethod
    def outputs(
        self, like: Any, mask: BoolArray, items: IntArray, regions: IntArray, weights: FloatArray
    ) -> tuple[Any, Any, Any, Any]:
        """Return copies of the arrays as values of this kind, where `like` is."""

    @abstractmethod
    def report(self, losses: Any, credit: Any, *, length: int, alone: bool) -> Report:
        """Return a copy of the losses of a batch, begun now and read later.

        Args:
            losses: Of each row, real [length].
            credit: Which rows are credited, bool [length], or None.
            length: Number of rows.
            alone: Whether this is the only process.

        Raises:
            ValueError: Another shape, dtype or length.
        """


class _Arrays(Backend):
    """NumPy arrays, and what NumPy makes arrays of: lists, arrays of other libraries."""

    noun = "an array"
    convert = "{}.detach().cpu().double().numpy()"

    def arrays(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values as they are; see `Backend`."""
        return values

    def outputs(
        self, like: Any, mask: BoolArray, items: IntArray, regions: IntArray, weights: FloatArray
    ) -> tuple[Any, Any, Any, Any]:
        """Return copies; see `Backend`."""
        return mask.copy(), items.copy(), regions.copy(), weights.copy()

    def report(self, losses: Any, credit: Any, *, length: int, alone: bool) -> Report:
        """Return copies; see `Backend`."""
        return host_report(losses, credit, length=length)


ARRAYS = _Arrays()


def host_report(losses: Any, credit: Any, *, length: int) -> HostReport:
    """Return a report of arrays, copied; ValueError for another shape, dtype or length."""
    values = float_vector("losses", losses, length=length)
    if credit is not None:
        array: AnyArray = as_array("credit", credit, "a one-dimensional array of bools")
        if array.ndim != 1 or len(array) != length or (array.dtype != np.bool_ and length):
            raise ArgumentError(
                f"credit: expected {length} bools, True for the rows to credit, got shape {array.shape} of dtype "
                f"{array.dtype}"
            )
        credit = array.astype(np.bool_)
    owned = isinstance(losses, np.ndarray) and values is not losses  # a Series shares its memory
    return HostReport(values if owned else values.copy(), credit)


def backend_of(value: Any) -> Backend:
    """Return the backend of a value: PyTorch's for a tensor, NumPy's for all else."""
    if type(value) is np.ndarray:
        return ARRAYS
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return ARRAYS if torch is None or not isinstance(value, torch.Tensor) else _torch().TENSORS


def ranks_of(group: Any, check_every: int) -> Ranks | None:
    """Return the ranks of a process group (None: the default group); None where torch.distributed is not in use."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return _torch().SwitchRanks(group, check_every)


@cache
def _torch() -> Any:
    """Return the module for tensors."""
    return importlib.import_module("aria_sampling.torch._backend")
