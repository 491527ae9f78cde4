"""`Progress`: what an allocation has come to, as of the last closed round, and how it is saved.

It is apart from the allocator so that the saved state is one value with one definition: what is in here is in a
checkpoint, what is not can be computed from it (open rounds are drawn again, the same).

The arrays stay the same objects for the whole life of an allocator. They change in one place, `_kernel.store`, which
does all of it or nothing; so a call that fails, or Ctrl-C, finds a round closed or open, and never in between.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import AnyArray, Arrays, FloatArray, IntArray, State, decode_all, encode_all, take
from aria_sampling._check import shown
from aria_sampling.errors import StateError
from aria_sampling.estimators import Estimator
from aria_sampling.partition import Partition
from aria_sampling.rounds import Tally

__all__ = ["SCHEMA", "Change", "Progress", "check_fit", "check_pool", "learnt_by", "losses_in_words", "normalised_in"]

SCHEMA = 5
_AS_REPORTED, _NORMALISED = "as reported", "normalised by noise level"
_ROUND, _DRAWS, _DROPPED, _FORCED, _DRAWN, _DATA_ROWS, _VISITED, _GENERATION = range(8)  # of counters
_RECENT, _SIZE, _LEVEL, _COLD, _SHIFT = range(5)  # of scalars
_MOST_GENERATIONS = 2**62


@dataclass(frozen=True, eq=False)
class Change:
    """What the feedback of one round made of the scores.

    Attributes:
        round: The round.
        regions: Regions with a new score, ascending, int64 [m]; None: all.
        scores: Their scores, float64 [m].
        cold: The score of regions never visited.
        shift: What is subtracted from scores before they are exponentiated.
    """

    round: int
    regions: IntArray | None
    scores: FloatArray
    cold: float
    shift: float


@dataclass(eq=False)
class Progress:
    """The state as of the last closed round. Make it with `start`.

    Attributes:
        estimator: State of the estimator.
        policy: State of the policy.
        visits: Draws from each region, int64 [n_regions].
        last: Number of the non-empty draw that visited each region last, int64 [n_regions]; -1: none.
        score: Log score of each region as the next draw may know it, float64 [n_regions]; NaN: never visited.
        changes: What became of the scores after that, one entry a round with feedback: at most lag of them.
        present: With online coverage, the rows of each region that came anyway, float64 [n_regions]; else empty.
        pace: With a cap, what `pacing.paced` keeps of regions, float64 [2, n_regions]; else empty.
        counters: int64: closed rounds, non-empty draws, dropped losses, forced visits, rows drawn, data rows,
            regions with feedback, generation.
        scalars: float64: rows drawn lately, size of a draw, water level, cold score, shift.
        warned: Warnings that were given.
        belief: Estimated mean of each region, as of its last visit, and the effective number of losses behind it,
            float64 [n_regions, 2]; 0, 0 for one never visited.
        belief_sums: Their sums by block; see kernel.hpp.
    """

    estimator: State
    policy: State
    visits: IntArray
    last: IntArray
    score: FloatArray
    present: FloatArray
    pace: FloatArray
    counters: IntArray
    scalars: FloatArray
    belief: FloatArray
    belief_sums: FloatArray
    lag: int = 0
    changes: deque[Change] = field(default_factory=deque[Change])
    warned: set[str] = field(default_factory=set[str])

    @classmethod
    def start(
        cls, estimator: State, policy: State, *, n_regions: int, pace: FloatArray | None, lag: int, online: bool
    ) -> Progress:
        """Return the progress before the first round."""
        return cls(
            estimator=estimator,
            policy=policy,
            visits=np.zeros(n_regions, np.int64),
            last=np.full(n_regions, -1, np.int64),
            score=np.full(n_regions, np.nan),
            present=np.zeros(n_regions if online else 0),
            pace=np.empty((2, 0)) if pace is None else pace,
            counters=np.zeros(8, np.int64),
            scalars=np.zeros(5),
            belief=np.zeros((n_regions, 2)),
            belief_sums=np.zeros((-(-n_regions // 64), 2)),
            lag=lag,
        )

    # -- what it says ----------------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """Number of closed rounds."""
        return int(self.counters[_ROUND])

    @property
    def draws(self) -> int:
        """Number of non-empty draws."""
        return int(self.counters[_DRAWS])

    @property
    def dropped(self) -> int:
        """Losses dropped so far."""
        return int(self.counters[_DROPPED])

    @property
    def forced(self) -> int:
        """Forced visits so far."""
        return int(self.counters[_FORCED])

    @property
    def generation(self) -> int:
        """How often the allocation was adopted by another allocator."""
        return int(self.counters[_GENERATION])

    @property
    def tally(self) -> Tally:
        """Sums over the closed rounds."""
        recent, size, level = self.scalars[:3].tolist()
        return Tally(int(self.counters[_DRAWN]), int(self.counters[_DATA_ROWS]), recent, size, level)

    @property
    def n_cold(self) -> int:
        """Number of regions never visited."""
        return len(self.visits) - int(self.counters[_VISITED])

    @property
    def cold(self) -> float:
        """The score of regions never visited, as the next draw may know it."""
        return float(self.scalars[_COLD])

    @property
    def shift(self) -> float:
        """What is subtracted from scores, as the next draw may know it."""
        return float(self.scalars[_SHIFT])

    @property
    def newest(self) -> tuple[float, float]:
        """The cold score and the shift after the last closed round."""
        known = self._known_changes()
        return (known[-1].cold, known[-1].shift) if known else (self.cold, self.shift)

    def highest(self, regions: IntArray, scores: FloatArray, target: FloatArray) -> float:
        """Return the highest score of a region that was visited and has a target, after one more change; -inf: none."""
        now = self.score.copy()
        for change in self._known_changes():
            now[slice(None) if change.regions is None else change.regions] = change.scores
        now[regions] = scores
        return float(now.max(initial=-np.inf, where=(target > 0) & ~np.isnan(now)))

    def _known_changes(self) -> list[Change]:
        """Return the changes of closed rounds: not one that was noted for a round which is being closed."""
        return [change for change in tuple(self.changes) if change.round < self.counters[_ROUND]]

    def changes_up_to(self, round_: int) -> Iterator[Change]:
        """Yield the changes by the feedback of rounds up to that one which `score` does not have yet."""
        for change in self._known_changes():
            if change.round <= round_:
                yield change

    # -- closing a round -------------------------------------------------------------------------------

    def store(
        self,
        *,
        regions: IntArray,
        rows: dict[str, FloatArray],
        shared: dict[str, FloatArray],
        policy: State,
        belief: FloatArray,
        change: Change | None,
        drawn: IntArray,
        forced: int,
        dropped: int,
        tally: Tally,
        pace: FloatArray,
        present: FloatArray | None,
    ) -> None:
        """Store what a round has brought, all at once.

        Args:
            regions: Regions with feedback, ascending, [m].
            rows: The estimator's rows of these.
            shared: The estimator's shared arrays.
            policy: The policy's state, whole.
            belief: Mean and count of `regions`, [m, 2].
            change: What became of the scores.
            drawn: Region of every row that was drawn, [n].
            forced: Forced visits in the round.
            dropped: Losses dropped in it.
            tally: The sums, this round included.
            pace: What `pace` becomes; empty: it stays.
            present: What `present` becomes; None: it stays.
        """
        whole = _pairs(self.estimator.shared, shared)
        if policy is not self.policy:
            whole += _pairs(self.policy.rows, policy.rows) + _pairs(self.policy.shared, policy.shared)
        if present is not None:
            whole.append((self.present, present))
        if pace.size:
            whole.append((self.pace, pace))
        while self.changes and self.changes[-1].round >= self.counters[_ROUND]:
            self.changes.pop()  # it was noted for this round by a call that failed
        if change is not None:
            self.changes.append(change)
        by_row = [(self.estimator.rows[name], np.ascontiguousarray(array)) for name, array in rows.items()]
        _kernel.store(
            regions, by_row, whole, belief, self.belief, self.belief_sums, drawn, self.visits, self.last,
            self.counters, dropped, forced, tally.drawn, tally.data_rows,
            self.scalars, tally.recent, tally.size, tally.level,
        )  # fmt: skip

    def catch_up(self) -> None:
        """Take into `score` what the next draw may know. It changes nothing that a state could show."""
        changes = self.changes
        while changes and changes[0].round < self.round - self.lag:
            change = changes[0]
            if change.regions is None:
                self.score[:] = change.scores
            else:
                self.score[change.regions] = change.scores
            self.scalars[_COLD], self.scalars[_SHIFT] = change.cold, change.shift
            changes.popleft()  # last: what Ctrl-C leaves undone is done again, to the same end

    def restart(self, generation: int) -> None:
        """Go back to before the first round, with what was learnt: the next draw may know all of it."""
        for change in self._known_changes():
            self.score[slice(None) if change.regions is None else change.regions] = change.scores
            self.scalars[_COLD], self.scalars[_SHIFT] = change.cold, change.shift
        self.changes.clear()
        visited = self.counters[_VISITED]
        self.counters[:] = 0
        self.counters[_VISITED], self.counters[_GENERATION] = visited, generation

    # -- saving ----------------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Arrays]:
        """Return all that is saved, as named arrays of one shape from the first round on, by part.

        The scores are those after each of the last lag + 1 rounds, oldest first: float64 [lag + 1, n_regions].
        """
        scores, levels = np.empty((self.lag + 1, len(self.score))), np.empty((self.lag + 1, 2))
        now, level, changes = self.score.copy(), (self.cold, self.shift), deque(self._known_changes())
        for row in range(self.lag + 1):
            while changes and changes[0].round <= self.round - 1 - self.lag + row:
                change = changes.popleft()
                now[slice(None) if change.regions is None else change.regions] = change.scores
                level = change.cold, change.shift
            scores[row], levels[row] = now, level
        scalars = self.scalars[:3]
        return {
            "estimator_rows": dict(self.estimator.rows),
            "estimator_shared": dict(self.estimator.shared),
            "policy_rows": dict(self.policy.rows),
            "policy_shared": dict(self.policy.shared),
            "draws": {
                "visits": self.visits, "last": self.last, "belief": self.belief, "scores": scores,
                "levels": levels, "counters": self.counters, "scalars": scalars,
                **({"present": self.present} if self.present.size else {}),
                **({"pace": self.pace} if self.pace.size else {}),
            },
        }  # fmt: skip

    def to_state(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        parts = {part: encode_all(arrays) for part, arrays in self.arrays().items()}
        return {"round": self.round, "warned": sorted(self.warned), **parts}

    def digest(self) -> bytes:
        """Return 16 bytes that two states share if, and but for chance only if, they are equal bit for bit."""
        digest = hashlib.blake2b(digest_size=16)
        for _, arrays in sorted(self.arrays().items()):
            for name in sorted(arrays):
                digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
        return digest.digest()

    def load(self, state: Any, *, lag: int) -> None:
        """Go to the progress that `to_state` described. Nothing is changed if it raises.

        Args:
            state: What `to_state` returned.
            lag: The lag that the state was saved with.

        Raises:
            StateError: It has not the shape of this one, or holds what cannot be.
        """
        like = self.arrays()
        like["draws"] |= {"scores": np.empty((lag + 1, len(self.score))), "levels": np.empty((lag + 1, 2))}
        found = {part: decode_all(part, take(state, part, dict), arrays) for part, arrays in like.items()}
        warned = cast("list[Any]", take(state, "warned", list))
        draws = found["draws"]
        counters, scalars = draws["counters"], draws["scalars"]
        for name, least in (("visits", 0), ("last", -1), ("present", 0), ("counters", 0), ("scalars", 0)):
            if name in draws and not (np.isfinite(draws[name]) & (draws[name] >= least)).all():
                raise StateError(
                    f"state entry 'draws.{name}': expected finite numbers >= {least}, got {shown(draws[name])}"
                )
        if "pace" in draws and not np.isfinite(draws["pace"]).all():
            raise StateError(f"state entry 'draws.pace': expected finite numbers, got {shown(draws['pace'])}")
        if np.isinf(draws["belief"]).any() or np.isnan(draws["belief"]).any() or (draws["belief"][:, 1] < 0).any():
            raise StateError(
                f"state entry 'draws.belief': expected finite means and counts, got {shown(draws['belief'])}"
            )
        if (draws["scores"] == np.inf).any() or not (draws["levels"][:, 1] < np.inf).all():
            raise StateError(f"state entry 'draws.scores': expected numbers below inf, got {shown(draws['scores'])}")
        if (round_ := take(state, "round", int)) != counters[_ROUND]:
            raise StateError(f"state entry 'round': expected {counters[_ROUND]}, as in its counters, got {round_}")
        estimator = State(found["estimator_rows"], found["estimator_shared"])
        belief = draws["belief"]
        changes = deque(_changes(draws["scores"], draws["levels"], first=round_ - lag))
        whole = _pairs(self.estimator.rows, estimator.rows) + _pairs(self.estimator.shared, estimator.shared)
        whole += _pairs(self.policy.rows, found["policy_rows"]) + _pairs(self.policy.shared, found["policy_shared"])
        names = [name for name in ("visits", "last", "present", "pace", "counters") if name in draws]
        whole += [(getattr(self, name), draws[name]) for name in names]
        whole += [
            (self.scalars, np.concatenate([scalars, draws["levels"][0]])),
            (self.score, np.ascontiguousarray(draws["scores"][0])),
        ]
        sums = np.empty_like(self.belief_sums)
        _kernel.sum_beliefs(belief, sums)
        counters[_VISITED] = (belief[:, 1] > 0).sum()
        self.changes.clear()
        _kernel.replace([*whole, (self.belief, belief), (self.belief_sums, sums)])
        self.lag, self.changes, self.warned = lag, changes, set(map(str, warned))


def _pairs(targets: dict[str, FloatArray], values: dict[str, FloatArray]) -> list[tuple[AnyArray, AnyArray]]:
    """Return which array is to be filled with which."""
    return [(targets[name], np.ascontiguousarray(array)) for name, array in values.items()]


def _changes(scores: FloatArray, levels: FloatArray, *, first: int) -> Iterator[Change]:
    """Yield the changes between the rows of the table of scores; the second row is that after round `first`."""
    for row in range(1, len(scores)):
        differ = scores[row].view(np.int64) != scores[row - 1].view(np.int64)
        if differ.any() or not np.array_equal(levels[row], levels[row - 1], equal_nan=True):
            regions = np.flatnonzero(differ)
            cold, shift = levels[row].tolist()
            yield Change(first + row - 1, regions, scores[row][regions], cold, shift)


def learnt_by(state: Any, partition: Partition, estimator: Estimator) -> tuple[State, int]:
    """Return what an estimator had learnt in a saved allocation of `partition`, and its generation.

    Raises:
        StateError: The state is damaged, of another schema or pool, or of another estimator.
    """
    config = take(state, "config", dict)
    check_fit(
        state,
        fingerprint=partition.fingerprint,
        n_regions=partition.n_regions,
        config={**config, "estimator": repr(estimator)},
    )
    like = estimator.init(partition.n_regions)
    rows = decode_all("estimator_rows", take(state, "estimator_rows", dict), like.rows)
    shared = decode_all("estimator_shared", take(state, "estimator_shared", dict), like.shared)
    like_counters = {"counters": np.zeros(_GENERATION + 1, np.int64)}
    saved = {"counters": take(take(state, "draws", dict), "counters", dict)}
    generation = int(decode_all("draws", saved, like_counters)["counters"][_GENERATION])
    if not 0 <= generation < _MOST_GENERATIONS:
        raise StateError(f"state entry 'draws.counters': expected a generation of 0 or more, got {generation}")
    return State(rows, shared), generation


def losses_in_words(normalised: bool) -> str:
    """Return what losses are, as states say it."""
    return _NORMALISED if normalised else _AS_REPORTED


def normalised_in(state: Any) -> bool:
    """Return whether losses were divided by what is usual at their noise level; StateError if `state` says neither."""
    losses = take(state, "losses", str)
    if losses not in (_AS_REPORTED, _NORMALISED):
        raise StateError(f"state entry 'losses': expected {_AS_REPORTED!r} or {_NORMALISED!r}, got {shown(losses)}")
    return losses == _NORMALISED


def check_fit(
    state: Any,
    *,
    fingerprint: str,
    n_regions: int,
    config: dict[str, str],
    hint: str = "",
    remedy: str | None = None,
) -> None:
    """Raise StateError, which says what differs and what can be done, unless an allocator's `state` fits."""
    if (its := take(state, "schema", int)) != SCHEMA:
        raise StateError(f"state of another version of this library: schema={its}, this one reads {SCHEMA}")
    check_pool(state, fingerprint=fingerprint, n_regions=n_regions, config=config, hint=hint, remedy=remedy)


def check_pool(
    state: Any,
    *,
    fingerprint: str,
    n_regions: int,
    config: dict[str, str],
    hint: str = "",
    remedy: str | None = None,
) -> None:
    """Raise StateError, which says what differs, unless `state` is of that pool and of that configuration."""
    for key, kind, here in (("n_regions", int, n_regions), ("fingerprint", str, fingerprint)):
        if (there := take(state, key, kind)) != here:
            raise StateError(
                f"state of another pool: it has {key}={shown(there)}, this one {shown(here)}{hint}", remedy=remedy
            )
    there = take(state, "config", dict)
    differ = [
        f"{key}: {shown(there.get(key))} there, {shown(config.get(key))} here"
        for key in sorted({*there, *config})
        if there.get(key) != config.get(key)
    ]
    if differ:
        raise StateError("state of another configuration: " + "; ".join(differ) + hint, remedy=remedy)
