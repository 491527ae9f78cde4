"""The PyTorch side: `AriaSampler` for a `DataLoader`, `RandomConditioning` on tensors.

Nothing in here decides anything: it turns tensors into arrays and back, and lets `Allocator` and
`aria_sampling.RandomConditioning` do the work.

>>> import torch, aria_sampling as aria
>>> from torch.utils.data import DataLoader, TensorDataset
>>> dataset = TensorDataset(torch.arange(100))  # the index must come with the batch
>>> pool = aria.Partition.from_labels([index % 5 for index in range(100)])
>>> sampler = aria.Allocator(pool, seed=0).sampler(batch_size=10, num_samples=len(dataset))
>>> for (index,) in DataLoader(dataset, batch_size=10, sampler=sampler):
...     per_sample_loss = torch.rand(len(index))
...     sampler.observe(index, per_sample_loss)
>>> sampler.allocator.round
10
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from aria_sampling import conditioning
from aria_sampling._errors import StateError
from aria_sampling._state import take
from aria_sampling._typing import AnyArray, FloatArray
from aria_sampling._validation import int_vector, integer
from aria_sampling.allocator import Allocator
from aria_sampling.conditioning import SwitchSchedule

__all__ = ["AriaSampler", "RandomConditioning", "Switch"]


class AriaSampler(Sampler[int]):
    """Yields dataset indices for a `DataLoader`, batch by batch from an allocator.

    Args:
        allocator: Its partition has one region for every index of the dataset. Its lag must cover the
            batches that the loader draws ahead: 0 with ``num_workers=0``, else
            ``num_workers * prefetch_factor`` (``prefetch_factor`` is 2 by default).
        batch_size: Of the loader; one batch is one round.
        num_samples: Indices an epoch yields; the last batch may be smaller.
        drop_last: Leave that smaller batch out. Set it where the loader has ``drop_last=True``: a batch that
            the loader drops would be a round that nobody closes.

    Raises:
        ValueError: An argument of the wrong type or out of its range.

    Call `observe` once for every batch, in order. If a batch has no loss to report, call
    ``sampler.allocator.step()`` in its place. A new `iter` goes on after the last observed batch: a loop
    that was left in the middle of an epoch resumes with the rest of it.
    """

    def __init__(self, allocator: Allocator, *, batch_size: int, num_samples: int, drop_last: bool = False) -> None:
        if not isinstance(allocator, Allocator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"allocator: expected an Allocator, got {allocator!r}")
        self.allocator = allocator
        self.batch_size = integer("batch_size", batch_size, low=1)
        self.num_samples = integer("num_samples", num_samples, low=1)
        self.drop_last = bool(drop_last)
        self._batches = self.num_samples // self.batch_size if drop_last else -(-self.num_samples // self.batch_size)
        if self._batches == 0:
            raise ValueError(
                f"num_samples={num_samples}: expected at least batch_size={batch_size} with drop_last=True"
            )
        self.epoch = 0
        self._epoch_start = allocator.round  # rounds closed before the current epoch

    def __len__(self) -> int:
        """Indices in an epoch, however many of them are still to come."""
        return min(self.num_samples, self._batches * self.batch_size)

    def __iter__(self) -> Iterator[int]:
        """Yield what is left of the epoch, or a new one if nothing is."""
        self.allocator.rewind()
        if self.allocator.round - self._epoch_start >= self._batches:
            self._epoch_start = self.allocator.round
        for batch in range(self.allocator.round - self._epoch_start, self._batches):
            size = min(self.batch_size, self.num_samples - batch * self.batch_size)
            yield from self.allocator.draw(size).items.tolist()

    def set_epoch(self, epoch: int) -> None:
        """Record the epoch. The stream varies by round already, so nothing else depends on it."""
        self.epoch = integer("epoch", epoch, low=0)

    def observe(self, indices: Any, losses: Any, *, step: bool = True) -> None:
        """Credit the losses of a batch to the regions of its rows, and close its round.

        Args:
            indices: Dataset indices of the rows, integers [m], a tensor on any device or an array. Rows
                may be missing (a filtered batch), or come in several calls with ``step=False``.
            losses: Loss of each row, floating [m], a tensor on any device of any float dtype (detached
                here), or an array. Reading them from an accelerator waits for it.
            step: Close the round; pass False for all but the last part of a batch.

        Raises:
            ValueError: Another shape, dtype or length, or rows that are not of the oldest open batch
                (something between sampler and loop reorders, or rounds were not closed). Nothing is changed.
            RuntimeError: No batch is open.
        """
        items = int_vector("indices", _array(indices), high=self.allocator.partition.n_items)
        opened = self.allocator.open_rounds
        if opened:
            strange = items[~np.isin(items, opened[0].items)]
            if len(strange):
                raise ValueError(
                    f"indices: {len(strange)} of {len(items)} rows are not in the oldest open batch (round "
                    f"{opened[0].round}), the first is {strange[0]}. Call observe() once for every batch, in order; "
                    "if you do, something replaced or reordered this sampler"
                )
        self.allocator.observe(self.allocator.partition.regions_of(items), _array(losses))
        if step:
            self.allocator.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as of the last observed batch, the allocator's included."""
        return {
            "epoch": self.epoch,
            "epoch_start": self._epoch_start,
            "batch_size": self.batch_size,
            "num_samples": self.num_samples,
            "drop_last": int(self.drop_last),
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`: the next `iter` yields the rest of its epoch.

        Raises:
            StateError: (a ValueError) the state is damaged or of another configuration; nothing is changed.
        """
        for key in ("batch_size", "num_samples", "drop_last"):
            if (its := take(state, key, int)) != getattr(self, key):
                raise StateError(f"state of another sampler: {key}={its} there, {getattr(self, key)} here")
        epoch, epoch_start = take(state, "epoch", int), take(state, "epoch_start", int)
        self.allocator.load_state_dict(take(state, "allocator", dict))
        self.epoch, self._epoch_start = epoch, epoch_start


@dataclass(frozen=True, eq=False)
class Switch:
    """What to switch in one batch of B rows, s of which switch: `aria_sampling.Switch` as tensors.

    All on the device of the timesteps: `mask` bool [B]; `items` and `regions` int64 [s]; `weights`
    float32 [s]. `round` is an int.
    """

    mask: Tensor
    items: Tensor
    regions: Tensor
    weights: Tensor
    round: int


class RandomConditioning:
    """`aria_sampling.RandomConditioning` for tensors: the same arguments, the same stream.

    Draw the timesteps on the CPU and move them afterwards: taking them from an accelerator costs one
    synchronisation a batch, and so does reading the losses.
    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        schedule: SwitchSchedule | None = None,
        num_train_timesteps: int = 1000,
        normalise: bool = True,
    ) -> None:
        self.core = conditioning.RandomConditioning(
            allocator, schedule=schedule, num_train_timesteps=num_train_timesteps, normalise=normalise
        )

    @property
    def allocator(self) -> Allocator:
        """The allocator that draws the conditions."""
        return self.core.allocator

    def draw(self, timesteps: Any, *, paired: Any = None) -> Switch:
        """Return what to switch, on the device of `timesteps`; see `aria_sampling.RandomConditioning.draw`."""
        device = timesteps.device if isinstance(timesteps, Tensor) else torch.device("cpu")
        switch = self.core.draw(_array(timesteps), paired=None if paired is None else _array(paired))

        def tensor(array: AnyArray) -> Tensor:
            return torch.as_tensor(array).to(device, non_blocking=True)

        weights = switch.weights.astype(np.float32)
        return Switch(tensor(switch.mask), tensor(switch.items), tensor(switch.regions), tensor(weights), switch.round)

    def observe(self, losses: Any, *, step: bool = True) -> None:
        """Credit the loss of every row, a tensor [B]; see `aria_sampling.RandomConditioning.observe`."""
        self.core.observe(_array(losses), step=step)

    def step(self) -> None:
        """Close the oldest open round; see `aria_sampling.RandomConditioning.step`."""
        self.core.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the NumPy form: the two are interchangeable."""
        return self.core.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; see `aria_sampling.RandomConditioning.load_state_dict`."""
        self.core.load_state_dict(state)


def _array(values: Any) -> AnyArray | FloatArray:
    """Return a tensor as a NumPy array (floats as float64, exactly); anything else as it came."""
    if not isinstance(values, Tensor):
        return values
    values = values.detach()
    return (values.double() if values.is_floating_point() else values).cpu().numpy()
