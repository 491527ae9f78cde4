"""`RandomConditioning` on tensors, on one process or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aria_sampling import conditioning
from aria_sampling._typing import AnyArray, FloatArray, IntArray
from aria_sampling._validation import float_vector, int_vector
from aria_sampling.allocator import Allocator
from aria_sampling.conditioning import SwitchSchedule
from aria_sampling.torch._inbox import Inbox
from aria_sampling.torch._ranks import Ranks
from aria_sampling.torch._rows import pack, unpack
from aria_sampling.torch._transfer import Transfer, on_device, to_array

__all__ = ["RandomConditioning", "Switch"]


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
    """`aria_sampling.RandomConditioning` for tensors: the same arguments, the same stream, on one process or many.

    Args:
        allocator: Draws the conditions. Its lag is the number of batches drawn ahead, 0 in a plain loop. With
            a lag of 1, losses leave the device, and are exchanged between ranks, beside the next training step.
        schedule: Probability to switch by noise level; default ``ExponentialSwitch(5.0)``.
        num_train_timesteps: T of the noise scheduler.
        normalise: Divide each loss by what is expected at its timestep before it is credited.
        group: The `torch.distributed` process group whose ranks share the allocation; default: all of them.
        check_every: The state of all ranks is compared at every so many rounds.

    Raises:
        ValueError: An argument of the wrong type or out of its range.

    Draw the timesteps on the CPU and move them afterwards, and give `paired` as it is there, too: taking either from an
    accelerator costs a synchronisation a batch.

    Where torch.distributed is initialised, the batch is that of all ranks together, in their order; `draw`,
    `observe` and `step` are collective: every rank calls them for every batch, whether its rows switch or not.
    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        schedule: SwitchSchedule | None = None,
        num_train_timesteps: int = 1000,
        normalise: bool = True,
        group: Any = None,
        check_every: int = 64,
    ) -> None:
        self.core = conditioning.RandomConditioning(
            allocator, schedule=schedule, num_train_timesteps=num_train_timesteps, normalise=normalise
        )
        self._ranks = Ranks(group, check_every)
        self._inbox = Inbox(allocator)
        self._counts: dict[int, list[int]] = {}  # rows of every rank, by open round
        self._reported: tuple[int, Any] = (-1, None)  # the round being reported, and its losses on this rank

    @property
    def allocator(self) -> Allocator:
        """The allocator that draws the conditions."""
        return self.core.allocator

    def draw(self, timesteps: Any, *, paired: Any = None) -> Switch:
        """Return what to switch of this rank's rows, on the device of `timesteps`. Opens one round.

        Args:
            timesteps: Of each row, integers [B] in ``0..num_train_timesteps-1``, a tensor or an array.
            paired: The pool item of each row's own condition, integers [B]; -1 where it is not in the pool.

        Raises:
            ValueError: Another shape, dtype or length, or a value out of range. Nothing is changed.
            FeedbackLagError: Earlier rounds are still open; see `Allocator.draw`.
        """
        steps = conditioning.timestep_vector(to_array(timesteps), self.core.num_train_timesteps)
        own = None
        if paired is not None:
            high = self.allocator.partition.n_items
            own = int_vector("paired", to_array(paired), length=len(steps), low=-1, high=high)
        self._inbox.make_room()
        self._ranks.note(self.allocator.round, self.allocator.digest)
        counts = [len(steps)]
        if self._ranks.size > 1:
            steps, own, counts = self._of_all_ranks(steps, own)
        switch = self.core.draw(steps, paired=own)
        self._counts = {key: value for key, value in self._counts.items() if self.allocator.round <= key < switch.round}
        self._counts[switch.round] = counts
        begin = sum(counts[: self._ranks.rank])
        mask = switch.mask[begin : begin + counts[self._ranks.rank]]
        first = int(switch.mask[:begin].sum())
        mine = slice(first, first + int(mask.sum()))
        device = timesteps.device if isinstance(timesteps, Tensor) else torch.device("cpu")

        def tensor(array: AnyArray) -> Tensor:
            return torch.as_tensor(array).to(device, non_blocking=True)

        weights = switch.weights[mine].astype(np.float32)
        return Switch(
            tensor(mask), tensor(switch.items[mine]), tensor(switch.regions[mine]), tensor(weights), switch.round
        )

    def _of_all_ranks(self, steps: IntArray, own: IntArray | None) -> tuple[IntArray, IntArray | None, list[int]]:
        """Return timesteps and own conditions of the rows of all ranks in their order, and how many rows each has."""
        nothing = np.full(len(steps), _NO_PAIRED)
        parts = self._ranks.exchange(np.stack([steps, nothing if own is None else own], axis=1))
        rows = np.concatenate(parts)
        paired = None if (rows[:, 1] == _NO_PAIRED).all() else np.maximum(rows[:, 1], -1)
        return rows[:, 0], paired, [len(part) for part in parts]

    def observe(self, losses: Any, *, step: bool = True) -> None:
        """Credit the switched rows of the oldest batch with their losses, and close its round.

        Args:
            losses: The loss of every row of this rank, real [B], switched or not, a tensor on any device of
                any float dtype, or an array. It is detached here, and copied.
            step: Close the round. Pass False to call `step` yourself.

        Raises:
            ValueError: Another shape, dtype or length; a scalar. Nothing is changed.
            RuntimeError: No batch is open, or its losses were reported before.
        """
        round_ = self._inbox.reporting("observe").round
        if self._reported[0] == round_:
            raise RuntimeError(
                f"observe() was called twice for the batch of round {round_}: report the losses of a batch once"
            )
        length = self._rows_of("observe", round_)[self._ranks.rank]
        if on_device(losses):
            rows: Any = pack(torch.arange(length), losses)
        else:
            values = float_vector("losses", to_array(losses), length=length)
            rows = np.stack([np.arange(length), np.ascontiguousarray(values).view(np.int64)], axis=1)
        self._reported = (round_, rows)
        if not step:
            return
        try:
            self.step()
        except BaseException:
            self._reported = (-1, None)  # they can be reported again
            raise

    def step(self) -> None:
        """Close the oldest open round, with or without feedback. Collective in a distributed run.

        Raises:
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state. With a lag it may be raised later.
        """
        round_ = self._inbox.reporting("step").round
        counts = self._rows_of("step", round_)
        rows = self._reported[1] if self._reported[0] == round_ else np.empty((0, 2), np.int64)
        if self._ranks.size > 1:
            lag = self.allocator.lag
            arrived = self._ranks.gather(torch.as_tensor(rows), room=max(counts), round_=round_, lag=lag)
            self._inbox.put(lambda: self._close(arrived(), counts), wait=True)
        elif isinstance(rows, Tensor):
            transfer = Transfer(rows)
            self._inbox.put(lambda: self._close(transfer.arrays(), counts), wait=True)
        else:
            self._inbox.put(lambda: self._close([rows], counts), wait=False)
        self._reported = (-1, None)

    def _rows_of(self, what: str, round_: int) -> list[int]:
        """Return how many rows each rank has in an open round; RuntimeError if it was drawn by somebody else."""
        if round_ not in self._counts:
            raise RuntimeError(f"{what}() of round {round_}, which this RandomConditioning did not draw")
        return self._counts[round_]

    def _close(self, parts: list[Any], counts: list[int]) -> None:
        """Credit the losses of all ranks and close the round; ranks that reported none have none."""
        if any(len(part) for part in parts):
            losses: list[FloatArray] = [
                unpack(part)[1] if len(part) else np.full(count, np.nan)
                for part, count in zip(parts, counts, strict=True)
            ]
            self.core.observe(np.concatenate(losses))
        else:
            self.core.step()
        self._ranks.note(self.allocator.round, self.allocator.digest)

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self._inbox.settle()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the NumPy form: the two are interchangeable. Not collective."""
        self._inbox.settle()
        return self.core.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`; see `aria_sampling.RandomConditioning.load_state_dict`."""
        self.core.load_state_dict(state)
        self._inbox.waiting.clear()
        self._counts.clear()
        self._reported = (-1, None)
        self._ranks.forget()


_NO_PAIRED = -2
