"""`RandomConditioning`: decides which rows of a batch switch, draws their conditions and credits what comes of it.

It belongs in the main process, where the timesteps are known: a switch inside a dataset's workers can be neither
steered nor credited. Arrays and tensors take the same way through this file; what differs between them is in the
backends. What is open is kept by `Allocator.rounds`; of a batch, its round carries what has to be remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import Arrays, BoolArray, FloatArray, IntArray, decode_all, encode_all, take
from aria_sampling._check import float_vector, instance, int_vector, integer, shown
from aria_sampling._compile import uncompiled
from aria_sampling.allocator import Allocator
from aria_sampling.conditioning._backend import Backend, Ranks, Report, backend_of, ranks_of
from aria_sampling.conditioning._twins import Twins
from aria_sampling.conditioning.profile import TimestepProfile
from aria_sampling.conditioning.schedules import ExponentialSwitch, SwitchSchedule
from aria_sampling.errors import ArgumentError, StateError, UsageError
from aria_sampling.rounds import OpenRound

__all__ = ["RandomConditioning", "Switch"]


@dataclass(frozen=True, eq=False)
class Switch:
    """What to switch in one batch of B rows, s of which switch.

    Arrays if the timesteps (or noise levels) were, with weights in float64; tensors on their device, with weights in
    float32, if they were.

    Attributes:
        mask: Which rows switch, bool [B].
        items: The pool items whose conditions they get, in the order of the rows, int64 [s].
        regions: Region of each, int64 [s].
        weights: Importance weight of each, float [s]; see `Draw.weights`.
        round: Number of the round.
    """

    mask: Any
    items: Any
    regions: Any
    weights: Any
    round: int


class RandomConditioning:
    """Switches conditions in a training loop, and credits what comes of it to their regions.

    >>> import aria_sampling as aria
    >>> allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 0, 1, 1]))
    >>> switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(1.0))
    >>> s = switch.draw([10, 500, 990])  # the timesteps of a batch
    >>> s.mask.tolist(), len(set(s.items.tolist()))
    ([True, True, True], 3)
    >>> switch.observe([0.1, 0.2, 0.3])  # the loss of every row

    Give it tensors or arrays, and it answers in kind. All values of a batch must be of one kind.

    Args:
        allocator: Draws the conditions. Its lag is the number of batches drawn ahead, 0 in a plain loop. On an
            accelerator use 1: losses then leave the device, and are exchanged between ranks, beside the next training
            step.
        schedule: Probability to switch by noise level; default ``ExponentialSwitch(5.0)``.
        num_train_timesteps: T of the noise scheduler.
        normalise: Divide each loss by what is expected at its noise level (`TimestepProfile`) before it is credited,
            so that regions are compared at equal noise. Estimates are then ratios around 1.
        group: The `torch.distributed` process group of the ranks with different data; default: all ranks. Ranks that
            hold one sample together (sequence or tensor parallel) must not be in one group: they would get different
            conditions for it. This is noticed only after some rounds, and only where their losses are equal to the bit.
        check_every: The state of all ranks is compared at every so many rounds.
        draws_ahead: How many batches may be drawn while an earlier one was neither observed nor closed by `step`. 0: a
            batch that was left out (out of memory, a loss that is not finite) is found at the next draw, not credited
            with the losses of the batch after it.

    Raises:
        ValueError: An argument of the wrong type or out of its range; a schedule with an answer outside [0, 1].

    Warns:
        AriaWarning: The schedule switches clean rows more often than noisy ones. Or, while batches are drawn, no
            timestep of the first thousand rows is above a quarter of `num_train_timesteps`.

    Where torch.distributed is in use, the batch is that of all ranks together, in their order. `draw`, `observe` and
    `step` are collective: every rank calls them for every batch, whether its rows switch or not.
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
        draws_ahead: int = 0,
    ) -> None:
        self.allocator: Allocator = instance("allocator", allocator, Allocator)
        self.schedule: SwitchSchedule = instance(
            "schedule", ExponentialSwitch() if schedule is None else schedule, SwitchSchedule
        )
        self.num_train_timesteps = integer("num_train_timesteps", num_train_timesteps, low=1, high=_MOST_TIMESTEPS)
        if not isinstance(normalise, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"normalise={shown(normalise)}: expected True or False")
        self.normalise = self.allocator.normalised = normalise
        self.profile = TimestepProfile()
        self.group = group
        self._check_every = integer("check_every", check_every, low=1)
        self._draws_ahead = integer("draws_ahead", draws_ahead, low=0)
        steps = np.arange(self.num_train_timesteps)
        self._chances = self._chance(steps / self.num_train_timesteps).copy()  # by timestep
        self._bins = steps * self.profile.n_bins // self.num_train_timesteps
        cleaner, noisier = self._chances[[int(level * self.num_train_timesteps) for level in (0.1, 0.9)]]
        if noisier < cleaner:
            self.allocator.warn_once(
                "schedule",
                f"schedule: {shown(self.schedule)} switches {cleaner:.1%} of the rows at noise level 0.1 and "
                f"{noisier:.1%} at 0.9. Random conditioning switches noisy rows; noise level 1 is pure noise",
            )
        self._past = self._coming = _Learnt(self.profile.init())  # `_coming` takes over once its last round is closed
        self._drawing: tuple[int, _Batch] | None = None  # a round that is being drawn, and its batch
        self._many: Ranks | None = None
        self._rows_seen = self._highest = 0  # of the first rows, to notice timesteps of another scale

    # -- a round -------------------------------------------------------------------------------------------------

    @uncompiled
    def draw(self, timesteps: Any = None, *, noise: Any = None, paired: Any = None) -> Switch:
        """Decide which rows of a batch switch and draw their conditions. Opens one round.

        Args:
            timesteps: Of each row, integers [B] in ``0..num_train_timesteps-1``, larger is noisier: what
                ``scheduler.add_noise`` takes in DDPM training. Flow-matching scripts (SD3, Flux) have ``indices`` that
                run the other way, which can't be told from here: ``draw(indices)`` would switch the *clean* half. Their
                ``timesteps = scheduler.timesteps[indices]`` are floats, and the call is
                ``draw(noise=noise_levels(scheduler, timesteps))``, with `noise_levels` of
                `aria_sampling.integrations.diffusers`.
            noise: Of each row, in place of timesteps: floats [B] in [0, 1], 1 is pure noise. For flow matching these
                are the ``sigmas``, as they are.
            paired: The pool item of each row's own condition, integers [B]; -1 where it is not in the pool. Needed
                with a coverage made by ``Coverage.online``, and refused without: rows that keep their own condition
                train its region.

        Draw timesteps on the CPU and move them afterwards, and give `paired` as it is there, too: to take either from
        an accelerator costs a synchronisation a batch.

        Raises:
            ValueError: Another shape, dtype or length; a value out of range; tensors and arrays together; both of
                timesteps and noise, or neither; a schedule with an answer outside [0, 1]. Nothing is changed.
            RuntimeError: An earlier batch was not reported, and `draws_ahead` does not allow for it.
            FeedbackLagError: Earlier rounds are still open; see `Allocator.draw`.
        """
        name, rows = self._rows(timesteps, noise)
        backend = backend_of(rows)
        given = {name: rows}
        if paired is not None:
            _check_kind("paired", paired, backend, name)
            given["paired"] = paired
        arrays = backend.arrays(given)
        chance, bins = self._at_timesteps(arrays[name]) if noise is None else self._at_noise(arrays[name])
        own = self._own(arrays.get("paired"), length=len(chance))

        rounds, ranks = self.allocator.rounds, self._ranks()
        self._finish_draw()
        self._refuse_skipped()
        rounds.make_room()
        counts = [len(chance)]
        if ranks is not None:
            ranks.note(self.allocator.round, self.allocator.digest)
            chance, bins, own, counts = self._of_all_ranks(ranks, chance, bins, own)
        round_ = self.allocator.round + len(rounds)
        mask = _kernel.uniforms(_kernel.stream_key(self.allocator.key, _STREAM, round_), len(chance)) < chance
        n = int(np.count_nonzero(mask))
        batch = _Batch(self, backend, mask, bins[mask], counts, ranks)
        self._drawing = round_, batch
        if own is None:
            draw = self.allocator.draw(n, data_rows=len(mask) - n)
        else:
            kept = own[~mask]
            draw = self.allocator.draw(n, present=self.allocator.partition.regions_of(kept[kept >= 0]))
        self._finish_draw()

        items, regions, weights = draw.items, draw.regions, draw.weights
        if ranks is not None:
            begin = sum(counts[: ranks.rank])
            first = int(np.count_nonzero(mask[:begin]))
            mask = mask[begin : begin + counts[ranks.rank]]
            block = slice(first, first + int(np.count_nonzero(mask)))
            items, regions, weights = items[block], regions[block], weights[block]
        return Switch(*backend.outputs(rows, mask, items, regions, weights), round_)

    def _refuse_skipped(self) -> None:
        """Raise UsageError if a batch was left out, where the lag alone would let it pass."""
        waiting = [
            opened.draw.round
            for opened in self.allocator.rounds
            if opened.close is None and isinstance(opened.context, _Batch) and opened.context.report is None
        ]
        if self._draws_ahead < len(waiting) <= self.allocator.lag:
            raise UsageError(
                f"draw(): the batch of round {waiting[0]} was neither observed nor closed, and losses would go to the "
                "batch before theirs; call switch.step() for a batch that is left out. A loop that draws "
                f"batches ahead says so: RandomConditioning(..., draws_ahead={len(waiting)})",
                remedy="switch.step()",
            )

    @uncompiled
    def observe(self, losses: Any, *, step: bool = True, credit: Any = None, of: Switch | None = None) -> None:
        """Credit the switched rows of the oldest open batch with their losses, and close its round.

        Args:
            losses: The loss of every row of that batch (of this rank), real [B], switched or not, of the kind of its
                timesteps; a tensor may be on any device and require gradients. Copied here. Before any weighting by
                timestep or SNR if you can, though the profile takes most of that out as well.
            step: Close the round. Pass False to call `step` yourself.
            credit: Which rows to credit, bool [B]; default all. Pass False for a row whose condition was dropped after
                the switch (the null caption of classifier-free guidance).
            of: What `draw` returned for this batch, to be sure: another batch is refused.

        Raises:
            ValueError: Another shape, dtype, kind or length; a scalar. Nothing is changed.
            RuntimeError: No batch is open, its losses were reported before, or the oldest is not that of `of`.
        """
        opened, batch = self._reporting("observe")
        if of is not None and of.round != opened.draw.round:
            raise UsageError(
                f"observe(): losses of round {of.round}, and the oldest batch that was not reported is that of round "
                f"{opened.draw.round}; call switch.step() for each batch that is left out",
                remedy="switch.step()",
            )
        if batch.report is not None:
            raise UsageError(
                f"observe() was called twice for the batch of round {opened.draw.round}: report its losses once, and "
                "close the round",
                remedy="switch.step()",
            )
        _check_kind("losses", losses, batch.backend, "timesteps or noise levels of this batch")
        if credit is not None:
            _check_kind("credit", credit, batch.backend, "timesteps or noise levels of this batch")
        length = batch.counts[0 if batch.ranks is None else batch.ranks.rank]
        report = batch.backend.report(losses, credit, length=length, alone=batch.ranks is None)
        try:
            batch.report = report
            if step:
                self.step()
        except BaseException:
            batch.report = None  # it can be reported again
            raise

    @uncompiled
    def step(self) -> None:
        """Close the oldest open round, with or without feedback; if that fails, it is open as it was.

        Raises:
            RuntimeError: No batch is open.
            RankError: Another rank is at another round, or had another state, or two ranks hold the same rows. With a
                lag it may be raised later, by `draw` or `synchronize`.
        """
        opened, batch = self._reporting("step")
        report, ranks = batch.report, batch.ranks
        if ranks is None:
            waits = report is not None and report.waits
            read = partial(_alone, report)
        else:
            waits = True
            read = ranks.gather(report, room=max(batch.counts), round_=opened.draw.round, lag=self.allocator.lag or 0)
        try:
            batch.report = None  # a round that fails to close later is reported anew
            self.allocator.rounds.report(partial(self._close, opened, batch, read), wait=waits)
        except BaseException:
            batch.report = report
            raise

    def synchronize(self) -> None:
        """Wait for all feedback that is on its way, so that the allocator has taken in every closed batch."""
        self.allocator.rounds.settle()

    # -- what a round is made of -----------------------------------------------------------------------------------

    @staticmethod
    def _rows(timesteps: Any, noise: Any) -> tuple[str, Any]:
        """Return the argument of `draw` that was given, with its name."""
        if (timesteps is None) == (noise is None):
            raise ArgumentError(
                f"timesteps and noise: expected one of them, got {'neither' if noise is None else 'both'}; call "
                "draw(timesteps) with integers 0..T-1, or draw(noise=noise) with floats in [0, 1]"
            )
        return ("timesteps", timesteps) if noise is None else ("noise", noise)

    def _chance(self, noise: FloatArray) -> FloatArray:
        """Return the schedule's probabilities at noise levels, float64 [n]."""
        chance = float_vector("schedule", self.schedule(noise), length=len(noise))
        if not ((chance >= 0) & (chance <= 1)).all():  # False for NaN, which would switch nothing and say nothing
            raise ArgumentError(f"schedule: expected probabilities in [0, 1], got {chance.min()} to {chance.max()}")
        return chance

    def _at_timesteps(self, timesteps: Any) -> tuple[FloatArray, IntArray]:
        """Return the probability to switch, float64 [B], and the range of noise levels, int64 [B], of each row."""
        try:
            steps = int_vector("timesteps", timesteps, high=self.num_train_timesteps)
        except ValueError as error:
            hint, remedy = _timestep_hint(timesteps, self.num_train_timesteps)
            if remedy is not None:
                raise ArgumentError(f"{error}; {hint}", remedy=remedy) from None
            raise
        if self._rows_seen < _ENOUGH_ROWS and len(steps):
            self._rows_seen += len(steps)
            self._highest = max(self._highest, int(steps.max()))
            if self._rows_seen >= _ENOUGH_ROWS and 4 * self._highest < self.num_train_timesteps:
                self.allocator.warn_once(
                    "timesteps",
                    f"timesteps: of {self._rows_seen} rows none was above {self._highest}, of num_train_timesteps="
                    f"{self.num_train_timesteps}, so hardly any row switches. Are they places in a shorter list (LCM's "
                    "index)? Then pass the timesteps that stand there. Or has the scheduler fewer timesteps? Then set "
                    "num_train_timesteps",
                )
        return self._chances[steps], self._bins[steps]

    def _at_noise(self, noise: Any) -> tuple[FloatArray, IntArray]:
        """Return what `_at_timesteps` does, for noise levels."""
        levels = float_vector("noise", noise)
        if len(levels) and (dtype := np.asarray(noise).dtype).kind in "iu":
            raise ArgumentError(
                f"noise: expected floats in [0, 1], got integers of dtype {dtype}; timesteps go in without a name",
                remedy="s = switch.draw(noise)",
            )
        if len(levels) and not (levels.min() >= 0 and levels.max() <= 1):  # NaN included
            raise ArgumentError(
                f"noise: expected values in [0, 1], got {levels.min()} to {levels.max()}; timesteps of a scheduler of "
                "diffusers become noise levels by noise_levels(scheduler, timesteps) of "
                "aria_sampling.integrations.diffusers; sigmas of EDM, by sigmas**2 / (sigma_data**2 + sigmas**2)"
            )
        return self._chance(levels), self.profile.bins(levels)

    def _own(self, paired: Any, *, length: int) -> IntArray | None:
        """Return the pool item of each row's own condition, int64 [B], where the coverage counts them; None if not."""
        coverage = self.allocator.coverage
        online = coverage is not None and coverage.is_online
        if not online:
            if paired is not None:
                raise ArgumentError(
                    "paired: expected None, since this allocator does not count rows as they come: make it with "
                    "coverage=Coverage(partition, items=...), the pool items that have data, and leave paired out "
                    "(better, if they are known before training); or with coverage=Coverage.online(partition)",
                    remedy="s = switch.draw(timesteps)",
                )
            return None
        if paired is None:
            raise ArgumentError(
                "paired: expected the pool item of each row's own condition, -1 where it is not in the pool, which "
                "Coverage.online counts, got None; if the items that have data are known before training, make the "
                "Allocator with coverage=Coverage(partition, items=...) and leave paired out"
            )
        return int_vector("paired", paired, length=length, low=-1, high=self.allocator.partition.n_items)

    def _ranks(self) -> Ranks | None:
        """Return the ranks of the run; None if this process is alone."""
        if self._many is None:
            self._many = ranks_of(self.group, self._check_every)
        return self._many if self._many is not None and self._many.size > 1 else None

    def _of_all_ranks(
        self, ranks: Ranks, chance: FloatArray, bins: IntArray, own: IntArray | None
    ) -> tuple[FloatArray, IntArray, IntArray | None, list[int]]:
        """Return the arguments for the rows of all ranks in their order, and how many rows each has."""
        item = np.full(len(bins), -1) if own is None else own
        mine = np.stack([chance.view(np.int64), (item + 1) * self.profile.n_bins + bins], axis=1)
        parts = ranks.exchange(mine)
        rows = np.concatenate(parts)
        items, bins = np.divmod(rows[:, 1], self.profile.n_bins)
        chance = np.ascontiguousarray(rows[:, 0]).view(np.float64)
        return chance, bins, None if own is None else items - 1, [len(part) for part in parts]

    def _finish_draw(self) -> None:
        """Let the round that was drawn last carry its batch. If Ctrl-C comes before, the next call does it."""
        if self._drawing is not None:
            round_, batch = self._drawing
            opened = self.allocator.rounds.newest
            if opened is not None and opened.draw.round == round_ and opened.context is None:
                opened.context = batch
            self._drawing = None

    def _reporting(self, what: str) -> tuple[OpenRound, _Batch]:
        """Return the round that the next report is about, and its batch; RuntimeError if there is none of our own."""
        self._finish_draw()
        opened = self.allocator.rounds.reporting(what)
        batch = opened.context
        if not isinstance(batch, _Batch) or batch.owner is not self:
            raise UsageError(
                f"{what}() without an open batch: round {opened.draw.round}, the oldest that was not reported, is one "
                "which this RandomConditioning did not draw"
            )
        return opened, batch

    def _close(
        self, opened: OpenRound, batch: _Batch, read: Callable[[], list[tuple[FloatArray, BoolArray | None] | None]]
    ) -> None:
        """Credit the losses of all ranks and close the round, or do neither; ranks that reported none have none."""
        losses, credit = _joined(read(), batch.counts)
        before = self._learnt
        twins = before.twins
        if batch.ranks is not None:
            twins = twins.after(opened.draw.round, losses, batch.mask, batch.counts)
        regions, bins, losses, weights = opened.draw.regions, batch.bins, losses[batch.mask], opened.draw.weights
        if credit is not None:
            rows = credit[batch.mask]
            regions, bins, losses, weights = regions[rows], bins[rows], losses[rows], weights[rows]
        profile, expected, ratio = before.profile, before.expected, losses
        if self.normalise and len(losses):
            profile = self.profile.update(before.profile, bins, losses, weights)
            expected = self.profile.expected(profile)
            # before the first losses nothing is known: these are compared with each other
            usual = expected if before.expected is None else before.expected
            if usual is not None:
                with np.errstate(over="ignore"):  # infinite is not finite: dropped and counted like any such loss
                    ratio = losses / usual[bins]
        rows, switched = before.rows + len(batch.mask), before.switched + len(batch.bins)
        self._past = before
        self._coming = _Learnt(profile, expected, rows, switched, twins, last=opened.draw.round)
        self.allocator.close_round(regions, ratio, reported=losses)
        if batch.ranks is not None:
            batch.ranks.note(self.allocator.round, self.allocator.digest)

    @property
    def _learnt(self) -> _Learnt:
        """What was learnt of the rows of all rounds that are closed: it changes in the moment in which one is."""
        return self._coming if self.allocator.round > self._coming.last else self._past

    # -- what it knows ---------------------------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """Return those of the allocator, and ``switched``, the share of all rows so far that switched."""
        learnt = self._learnt
        share = learnt.switched / learnt.rows if learnt.rows else float("nan")
        return {**self.allocator.metrics(), "switched": share}

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue from the last closed round, the allocator's state included.

        Plain values. Not collective; waits for feedback that is on its way. Open batches are drawn again.
        """
        self.allocator.rounds.settle()
        learnt = self._learnt
        return {
            "schema": _SCHEMA,
            "config": self._config(),
            "profile": encode_all(learnt.profile),
            "rows": learnt.rows,
            "switched": learnt.switched,
            "allocator": self.allocator.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Open batches are forgotten.

        Raises:
            StateError: (a ValueError) the state is damaged, or of another version, pool or configuration. Nothing is
                changed.
        """
        learnt = self._from_state(state)
        self.allocator.load_state_dict(take(state, "allocator", dict))
        self._past = self._coming = learnt
        if self._many is not None:
            self._many.forget()

    def _from_state(self, state: Any) -> _Learnt:
        """Return what was learnt of the rows; StateError if the state is damaged, or not of this configuration."""
        if (schema := take(state, "schema", int)) != _SCHEMA:
            raise StateError(f"state of another version of this library: schema={schema}, this one reads {_SCHEMA}")
        there, here = take(state, "config", dict), self._config()
        differ = [
            f"{key}: {str(there.get(key))[:100]} there, {str(here.get(key))[:100]} here"
            for key in sorted({*there, *here})
            if there.get(key) != here.get(key)
        ]
        if differ:
            raise StateError(
                f"state of another configuration: {'; '.join(differ)[:400]}. Make RandomConditioning with the settings "
                "of the state; or, to go on with these, load state['allocator'] into the allocator alone, and the "
                "profile begins anew",
                remedy="switch.allocator.load_state_dict(state['allocator'])",
            )
        profile = decode_all("profile", take(state, "profile", dict), self.profile.init())
        weight = profile["weight"]
        if not (np.isfinite(profile["total"]) & (weight >= 0) & (weight <= 1)).all():
            raise StateError("state entry 'profile': expected finite totals and weights in [0, 1]")
        rows, switched = take(state, "rows", int), take(state, "switched", int)
        if not 0 <= switched <= rows:
            raise StateError(f"state: expected 0 <= switched <= rows, got switched={switched}, rows={rows}")
        return _Learnt(profile, self.profile.expected(profile), rows, switched)

    def _config(self) -> dict[str, str]:
        """Return what must be equal for a state to fit, as text."""
        return {
            "schedule": repr(self.schedule),
            "num_train_timesteps": str(self.num_train_timesteps),
            "normalise": str(self.normalise),
            "profile": repr(self.profile),
        }


@dataclass(frozen=True, eq=False)
class _Learnt:
    """What was learnt of the rows of closed rounds, as a value.

    Attributes:
        profile: State of the profile.
        expected: Expected loss by range of noise levels, float64 [n_bins]; None: nothing is known.
        rows: Number of rows.
        switched: How many of them switched.
        twins: Ranks that seem to hold the same rows.
        last: The last of these rounds; -1: there was none, or it does not matter.
    """

    profile: Arrays
    expected: FloatArray | None = None
    rows: int = 0
    switched: int = 0
    twins: Twins = field(default_factory=Twins)
    last: int = -1


@dataclass(eq=False)
class _Batch:
    """What an open round carries of its batch.

    Attributes:
        owner: Whose batch it is.
        backend: Kind of its values.
        mask: Which rows of all ranks switch, bool [B].
        bins: Range of noise levels of each switched row, int64 [s].
        counts: Number of rows of each rank.
        ranks: The ranks; None if this process is alone.
        report: Its losses, between ``observe(step=False)`` and `step`.
    """

    owner: RandomConditioning = field(repr=False)
    backend: Backend
    mask: BoolArray
    bins: IntArray
    counts: list[int]
    ranks: Ranks | None
    report: Report | None = None


def _alone(report: Report | None) -> list[tuple[FloatArray, BoolArray | None] | None]:
    """Return the report of the only process in the form of those of several."""
    return [None if report is None else report.read()]


def _joined(
    parts: list[tuple[FloatArray, BoolArray | None] | None], counts: list[int]
) -> tuple[FloatArray, BoolArray | None]:
    """Return the losses of the rows of all ranks, float64 [B], and which to credit, bool [B]; None: all.

    A rank that reported none has losses of 0, which are not to be credited.
    """
    if len(parts) == 1 and parts[0] is not None:
        return parts[0]
    losses, credit = np.zeros(sum(counts)), np.zeros(sum(counts), bool)
    begin = 0
    for part, count in zip(parts, counts, strict=True):
        if part is not None:
            losses[begin : begin + count] = part[0]
            credit[begin : begin + count] = True if part[1] is None else part[1]
        begin += count
    return losses, credit


def _check_kind(name: str, value: Any, backend: Backend, first: str) -> None:
    """Raise ValueError unless a value is of the backend's kind, which is that of `first`."""
    if (other := backend_of(value)) is not backend:
        raise ArgumentError(
            f"{name}: expected {backend.noun}, as the {first} came, got {other.noun}",
            remedy=f"{name} = {backend.convert.format(name)}",
        )


def _timestep_hint(timesteps: Any, most: int) -> tuple[str, str | None]:
    """Return what values may be that are no timesteps ``0..most-1``, and the line that helps; None if none does."""
    try:
        values = np.asarray(timesteps)
    except Exception:  # as the message says already
        return "", None
    if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iuf" or not values.min() >= 0:
        return "", None
    text = "timesteps" if hasattr(timesteps, "shape") else "np.asarray(timesteps)"
    if values.dtype.kind == "f":
        if values.max() <= 1:
            return "floats in [0, 1] are noise levels", f"s = switch.draw(noise={text})"
        return (
            (
                "floats beyond 1 are timesteps of a flow-matching scheduler, which noise_levels() of "
                "aria_sampling.integrations.diffusers makes noise levels of",
                f"s = switch.draw(noise={text} / {most})",
            )
            if values.max() <= most
            else ("", None)
        )
    if values.min() >= 1 and values.max() == most:
        return "they count from 1, or are a flow-matching scheduler's floats, rounded", f"timesteps = {text} - 1"
    return (
        "they are of a scheduler with more steps",
        "switch = aria.RandomConditioning(allocator, num_train_timesteps=noise_scheduler.config.num_train_timesteps)",
    )


_ENOUGH_ROWS = 1000
_STREAM = 1  # of `_kernel.stream_key`: the draw's own is 0
_MOST_TIMESTEPS = 10**6  # a table has an entry for each
_SCHEMA = 1
