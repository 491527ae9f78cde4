"""Random conditioning on NumPy arrays: which rows of a batch switch to another condition, and to which.

Random conditioning (RC, arXiv 2504.02011) distils on a noised image with, at times, the condition of
something else: with probability p(t), larger the noisier the image, the row's own condition gives way to
one of the pool. There the pool is drawn from uniformly; here an `Allocator` draws. It belongs in the main
process, where the timesteps are known: a switch inside a dataset's workers can be neither steered nor
credited.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from aria_sampling._errors import StateError
from aria_sampling._state import decode_all, encode_all, take
from aria_sampling._typing import BoolArray, FloatArray, IntArray
from aria_sampling._validation import float_vector, int_vector, integer, real
from aria_sampling.allocator import Allocator, Draw, take_in
from aria_sampling.drawing import random_words, uniforms
from aria_sampling.estimation import TimestepProfile
from aria_sampling.progress import SCHEMA, check_schema

__all__ = ["ConstantSwitch", "ExponentialSwitch", "RandomConditioning", "SigmoidSwitch", "Switch", "SwitchSchedule"]


class SwitchSchedule(ABC):
    """How likely a row is to switch, by how noisy it is."""

    @abstractmethod
    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch, float64 [n] in [0, 1], at ``noise = t / T`` in [0, 1)."""


@dataclass(frozen=True)
class ExponentialSwitch(SwitchSchedule):
    """p(t) = exp(-rate·(1 - t/T)): the default of RC, there with rate 5 (a mean of 0.199 over timesteps).

    Raises:
        ValueError: `rate` negative or not finite.
    """

    rate: float = 5.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("rate", self.rate, low=0)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return np.exp(-self.rate * (1 - noise))


@dataclass(frozen=True)
class SigmoidSwitch(SwitchSchedule):
    """p(t) = 1 / (1 + exp(-steepness·(t/T - midpoint))).

    Raises:
        ValueError: `steepness` negative, or `midpoint` outside [0, 1].
    """

    steepness: float = 20.0
    midpoint: float = 0.7

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("steepness", self.steepness, low=0)
        real("midpoint", self.midpoint, low=0, high=1)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return 0.5 * (1 + np.tanh(self.steepness * (noise - self.midpoint) / 2))  # cannot overflow


@dataclass(frozen=True)
class ConstantSwitch(SwitchSchedule):
    """p(t) = probability; 0 switches nothing, 1 everything.

    Raises:
        ValueError: `probability` outside [0, 1].
    """

    probability: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("probability", self.probability, low=0, high=1)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return np.full_like(noise, self.probability)


@dataclass(frozen=True, eq=False)
class Switch:
    """What to switch in one batch of B rows, s of which switch.

    Attributes:
        mask: Which rows switch, bool [B].
        items: The pool items whose conditions they get, in the order of the rows, int64 [s].
        regions: Region of each, int64 [s].
        weights: Importance weight of each, float64 [s]; see `Draw.weights`.
        round: Number of the round.
    """

    mask: BoolArray
    items: IntArray
    regions: IntArray
    weights: FloatArray
    round: int


class RandomConditioning:
    """Switches conditions in a training loop, and credits what comes of it to their regions.

    >>> import aria_sampling as aria
    >>> allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 1, 1]), target="uniform")
    >>> switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(1.0))
    >>> s = switch.draw([10, 500, 990])  # the timesteps of a batch
    >>> s.mask.tolist(), sorted(s.items.tolist()) == sorted(set(s.items.tolist()))
    ([True, True, True], True)
    >>> switch.observe([0.1, 0.2, 0.3])  # the loss of every row

    Args:
        allocator: Draws the conditions. Its lag is the number of batches drawn ahead, 0 in a plain loop.
        schedule: Probability to switch by noise level; default ``ExponentialSwitch(5.0)``.
        num_train_timesteps: T of the noise scheduler.
        normalise: Divide each loss by what is expected at its timestep (`TimestepProfile`) before it is
            credited, so that regions are compared at equal noise. Estimates are then ratios around 1.

    Raises:
        ValueError: An argument of the wrong type or out of its range.
    """

    def __init__(
        self,
        allocator: Allocator,
        *,
        schedule: SwitchSchedule | None = None,
        num_train_timesteps: int = 1000,
        normalise: bool = True,
    ) -> None:
        if not isinstance(allocator, Allocator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"allocator: expected an Allocator, got {allocator!r}")
        schedule = ExponentialSwitch() if schedule is None else schedule
        if not isinstance(schedule, SwitchSchedule):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"schedule: expected a SwitchSchedule, got {schedule!r}")
        self.allocator = allocator
        self.schedule = schedule
        self.num_train_timesteps = integer("num_train_timesteps", num_train_timesteps, low=1)
        if not isinstance(normalise, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"normalise={normalise!r}: expected True or False")
        self.normalise = normalise
        n_bins = min(20, self.num_train_timesteps)
        self.profile = TimestepProfile(self.num_train_timesteps, n_bins=n_bins)
        self._profile_state = self.profile.init()
        self._open: dict[int, _OpenSwitch] = {}  # by round

    def draw(self, timesteps: Any, *, paired: Any = None) -> Switch:
        """Decide which rows of a batch switch and draw their conditions. Opens one round.

        Args:
            timesteps: Of each row, integers [B] in ``0..num_train_timesteps-1``.
            paired: The pool item of each row's own condition, integers [B]; -1 where it is not in the
                pool. Rows that keep it train its region anyway, and count as effort it already gets.

        Raises:
            ValueError: Another shape, dtype or length, or a value out of range, also of what a schedule of your
                own returns. Nothing is changed.
            FeedbackLagError: Earlier rounds are still open; see `Allocator.draw`.
        """
        steps = timestep_vector(timesteps, self.num_train_timesteps)
        own = None
        if paired is not None:
            pool = self.allocator.partition
            own = int_vector("paired", paired, length=len(steps), low=-1, high=pool.n_items)
        round_ = self.allocator.round + len(self.allocator.open_rounds)
        chance = float_vector("schedule", self.schedule(steps / self.num_train_timesteps), length=len(steps))
        if not ((chance >= 0) & (chance <= 1)).all():  # False for NaN, which would switch nothing and say nothing
            raise ValueError(f"schedule: expected probabilities in [0, 1], got {chance.min()} to {chance.max()}")
        mask = uniforms(random_words(self.allocator.seed, _SWITCH_STREAM, round_, len(steps))) < chance
        present = None
        if own is not None:
            present = self.allocator.partition.regions_of(own[~mask & (own >= 0)])
        n = int(mask.sum())
        draw = self.allocator.draw(n, present=present) if n else self.allocator.skip(present=present)
        self._open = {key: value for key, value in self._open.items() if self.allocator.round <= key < round_}
        full = self.allocator.target[draw.regions] / draw.probabilities  # for the profile, whatever the correction
        own_draw = Draw(draw.items, draw.regions, draw.probabilities, full, round_, draw.forced)
        self._open[round_] = _OpenSwitch(mask, steps[mask], own_draw)
        # copies: what the trainer does to its arrays must not move the credit
        return Switch(mask.copy(), draw.items.copy(), draw.regions.copy(), draw.weights.copy(), round_)

    def observe(self, losses: Any, *, step: bool = True) -> None:
        """Credit the switched rows of the oldest open batch with their losses, and close its round.

        Args:
            losses: The loss of every row of that batch, real [B], switched or not. Before any weighting
                by timestep or SNR if you can, though the profile takes most of that out as well.
            step: Close the round. Pass False to call `step` yourself.

        Raises:
            ValueError: Another shape, dtype or length; a scalar. Nothing is changed.
            RuntimeError: No batch is open, or its losses were reported before.
        """
        opened = self._oldest("observe")
        if opened.losses is not None:
            raise RuntimeError(
                f"observe() was called twice for the batch of round {opened.draw.round}: report its losses once"
            )
        rows = float_vector("losses", losses, length=len(opened.mask))[opened.mask]
        opened.losses = rows.copy()
        if not step:
            return
        try:
            self.step()
        except BaseException:
            opened.losses = None  # they can be reported again
            raise

    def step(self) -> None:
        """Close the oldest open round, with or without feedback; if that fails, it is open as it was.

        RuntimeError if none is open.
        """
        opened = self._oldest("step")
        rows, profile = opened.losses, self._profile_state
        if rows is None or not len(rows):
            self.allocator.step()
        else:
            profile = {name: array.copy() for name, array in profile.items()}
            profile = self.profile.update(profile, opened.timesteps, rows, opened.draw.weights)
            take_in(self.allocator, opened.draw.regions, self._credit(opened, rows))
        self._profile_state = profile
        del self._open[opened.draw.round]

    def _credit(self, opened: _OpenSwitch, rows: FloatArray) -> FloatArray:
        """Return what to credit to the regions of the switched rows for their losses, float64 [s]."""
        if not self.normalise:
            return rows
        state = self._profile_state
        if np.isnan(self.profile.expected(state, opened.timesteps)).any():
            # nothing is known before the first losses: compare these with each other
            state = self.profile.update(self.profile.init(), opened.timesteps, rows, opened.draw.weights)
        return self.profile.ratio(state, opened.timesteps, rows)

    def _oldest(self, what: str) -> _OpenSwitch:
        opened = self._open.get(self.allocator.round) if self.allocator.open_rounds else None
        if opened is None:
            raise RuntimeError(f"{what}() without an open batch: call draw() of this RandomConditioning first")
        return opened

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue from the last closed round, the allocator's state included."""
        return {
            "schema": SCHEMA,
            "config": self._config(),
            "profile": encode_all(self._profile_state),
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Open batches are forgotten.

        Raises:
            StateError: (a ValueError) the state is damaged, or of another schema, pool or configuration.
                Nothing is changed.
        """
        state = check_schema(state)
        if (found := take(state, "config", str)) != self._config():
            raise StateError(f"state of another configuration: {found} there, {self._config()} here")
        profile = decode_all("profile", take(state, "profile", dict), self._profile_state)
        self.allocator.load_state_dict(take(state, "allocator", dict))
        self._profile_state = profile
        self._open.clear()

    def _config(self) -> str:
        """Return what must be equal for a state to fit, as text."""
        return f"schedule={self.schedule!r}, profile={self.profile!r}, normalise={self.normalise}"


def timestep_vector(timesteps: Any, num_train_timesteps: int) -> IntArray:
    """Return timesteps as int64 [n]; ValueError, which says how to make them, for floats or values out of range."""
    hint = (
        "make RandomConditioning with num_train_timesteps=noise_scheduler.config.num_train_timesteps; if the times are "
        f"continuous, t in [0, 1], pass (t * {num_train_timesteps}).long().clamp(max={num_train_timesteps - 1})"
    )
    return int_vector("timesteps", timesteps, high=num_train_timesteps, hint=hint)


_SWITCH_STREAM = 1


@dataclass(eq=False)
class _OpenSwitch:
    """A batch whose losses are still to come."""

    mask: BoolArray
    timesteps: IntArray
    draw: Draw
    losses: FloatArray | None = None
