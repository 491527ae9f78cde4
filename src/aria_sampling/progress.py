"""`Progress`: everything about an allocation that changes when a round closes, and how it is saved.

It is apart from the allocator so that the saved state is one value with one definition: what is in here
is in a checkpoint, what is not can be recomputed (open rounds are drawn again).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from aria_sampling._errors import StateError
from aria_sampling._state import decode, decode_all, encode, encode_all, take
from aria_sampling._typing import FloatArray, IntArray, State
from aria_sampling._validation import float_vector
from aria_sampling.allocation import Policy
from aria_sampling.drawing import Cursors, Draw
from aria_sampling.estimation import Ema, EmaBank, Estimate, Estimator, Feedback
from aria_sampling.partition import Partition

__all__ = ["SCHEMA", "OpenRound", "Progress", "check_fit", "check_schema"]

SCHEMA = 3
_READABLE = (1, 2, SCHEMA)


@dataclass(eq=False)
class OpenRound:
    """A draw whose feedback is still to come, and what is needed to make it a part of the saved state."""

    draw: Draw
    present: IntArray | None
    visited: IntArray
    counts: IntArray
    fed: list[tuple[IntArray, FloatArray]] = field(default_factory=list[tuple[IntArray, FloatArray]])

    def pass_by(self, cursors: Cursors) -> None:
        """Move `cursors` from before this draw to after it."""
        cursors.announce(len(self.draw.items), self.present)
        cursors.advance(self.visited, self.counts)

    def feedback(self, n_regions: int) -> Feedback:
        """Return the sum of all that was observed of it."""
        regions = np.concatenate([np.empty(0, np.int64), *(regions for regions, _ in self.fed)])
        losses = np.concatenate([np.empty(0), *(losses for _, losses in self.fed)])
        return Feedback.from_rows(regions, losses, n_regions=n_regions)


@dataclass(eq=False)
class Progress:
    """The state as of the last closed round.

    Attributes:
        estimator: State of the estimator.
        policy: State of the policy.
        cursors: What the draws of closed rounds left behind.
        phis: log φ after each of the last lag + 1 closed rounds; None: nothing was known yet.
        round: Number of closed rounds.
        dropped: Losses dropped so far.
        forced: Forced visits so far.
    """

    estimator: State
    policy: State
    cursors: Cursors
    phis: deque[FloatArray | None] = field(default_factory=deque[FloatArray | None])
    round: int = 0
    dropped: int = 0
    forced: int = 0

    @classmethod
    def start(cls, estimator: Estimator, policy: Policy, *, n_regions: int, lag: int, present_rate: float) -> Progress:
        """Return the progress before the first round; ValueError if a part of the user's answers in another shape."""
        cursors = Cursors.start(n_regions, rate=present_rate)
        progress = cls(estimator.init(n_regions), policy.init(n_regions), cursors, deque(maxlen=lag + 1))
        progress._estimate(estimator, fed=False)
        progress._log_phi(policy)
        return progress

    def log_phi(self, round_: int, lag: int) -> FloatArray | None:
        """Return the log φ that a draw of that round may use: the one after round ``round_ - 1 - lag``."""
        index = round_ - 1 - lag - (self.round - len(self.phis))
        return self.phis[index] if index >= 0 else None

    def following(self, estimator: Estimator, fed: IntArray, drawn: IntArray) -> tuple[Progress, Callable[[], None]]:
        """Return a progress to close a round on, and a function that leaves this one as it was if that fails.

        What a part may change in place is copied. Of the arrays that are shared, the rows that will change are kept.

        Args:
            estimator: Our own two change the rows of `fed` only; any other may change all.
            fed: Regions with feedback in that round, [m].
            drawn: Regions drawn in it, [m].
        """
        by_rows = type(estimator) in _OURS
        cursors = replace(self.cursors, present=self.cursors.present.copy())
        shared = [(array, drawn) for array in (cursors.visits, cursors.last)]
        if by_rows:  # a clock and the like, which are not by region, are kept whole
            whole = np.arange(2)
            shared += [(array, fed if len(array) > 2 else whole[: len(array)]) for array in self.estimator.values()]
        kept = [(array, rows, array.take(rows, axis=0)) for array, rows in shared]

        def put_back() -> None:
            for array, rows, values in kept:
                array[rows] = values

        state = dict(self.estimator) if by_rows else _copied(self.estimator)
        policy = _copied(self.policy)
        return replace(self, estimator=state, policy=policy, cursors=cursors, phis=self.phis.copy()), put_back

    def close(self, opened: OpenRound, estimator: Estimator, policy: Policy, feedback: Feedback) -> None:
        """Take in the oldest open round, with its feedback, which may be none.

        Raises:
            ValueError: A part of the user's answers with another shape or with NaN.
        """
        self.estimator = estimator.update(self.estimator, feedback)
        if len(feedback.regions):
            now = self._estimate(estimator, fed=True)
            self.policy = policy.update(self.policy, replace(now, mean=np.maximum(now.mean, 0.0)))
            log_phi = self._log_phi(policy)
            if not (log_phi < np.inf).all():  # NaN included
                raise ValueError(
                    f"policy: expected log_phi() of {type(policy).__name__} to return numbers below inf, got {log_phi}"
                )
            self.phis.append(log_phi)
        else:
            self.phis.append(self.phis[-1] if self.phis else None)
        opened.pass_by(self.cursors)
        self.forced += opened.draw.forced
        self.dropped += feedback.dropped
        self.round += 1

    def _estimate(self, estimator: Estimator, *, fed: bool) -> Estimate:
        """Return what the estimator believes; ValueError for another shape or dtype, or NaN once it was `fed`."""
        now = estimator.estimate(self.estimator)
        if type(estimator) in _OURS:
            return now
        who = f"estimator: estimate() of {type(estimator).__name__}"
        fields: dict[str, FloatArray] = {}
        for name in ("mean", "stderr", "count", "age"):
            values = float_vector(f"{who}, {name}", getattr(now, name, None), length=len(self.cursors.visits))
            if fed and not (np.isfinite(values) if name == "mean" else values >= 0).all():
                wanted = "finite numbers" if name == "mean" else "numbers that are not negative"
                raise ValueError(f"{who}, {name}: expected {wanted} once there is feedback, got {values}")
            fields[name] = values
        return Estimate(**fields)

    def _log_phi(self, policy: Policy) -> FloatArray:
        """Return log φ as float64 [n_regions]; ValueError for another shape or dtype."""
        who = f"policy: log_phi() of {type(policy).__name__}"
        return float_vector(who, policy.log_phi(self.policy), length=len(self.cursors.visits))

    def to_state(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "round": self.round,
            "dropped": self.dropped,
            "forced": self.forced,
            "estimator": encode_all(self.estimator),
            "policy": encode_all(self.policy),
            "cursors": encode_all(self.cursors.to_state()),
            "log_phi": encode(self._phi_table()),
        }

    def digest(self) -> bytes:
        """Return 16 bytes that two states share if, and but for chance only if, they are equal bit for bit."""
        digest = hashlib.blake2b(f"{self.round} {self.dropped} {self.forced}".encode(), digest_size=16)
        for state in (self.estimator, self.policy, self.cursors.to_state(), {"log_phi": self._phi_table()}):
            for name in sorted(state):
                digest.update(np.ascontiguousarray(state[name]).view(np.uint8).data)
        return digest.digest()

    def _phi_table(self) -> FloatArray:
        """Return log φ after each of the last lag + 1 rounds, oldest first, float64 [lag + 1, n_regions].

        A row of NaN stands for a round after which nothing was known, or that is still to come: the table has
        one shape from the first round on, as torch.distributed.checkpoint needs it.
        """
        table = np.full((self.phis.maxlen or 1, len(self.cursors.visits)), np.nan)
        for row, phi in enumerate(self.phis):
            if phi is not None:
                table[row] = phi
        return table

    def from_state(self, state: Any) -> Progress:
        """Return the progress that `to_state` described; StateError unless it has the shape of this one."""
        round_ = take(state, "round", int)
        if round_ < 0:
            raise StateError(f"state entry 'round': expected 0 or more, got {round_}")
        like = {"log_phi": self._phi_table()}
        table = decode_all("state", {"log_phi": take(state, "log_phi", dict)}, like)["log_phi"]
        if not np.isnan(table[min(round_, len(table)) :]).all():
            raise StateError(
                f"state entry 'log_phi': expected at most {round_} rows that are not NaN at round {round_}"
            )
        phis: deque[FloatArray | None] = deque(maxlen=self.phis.maxlen)
        for phi in table[: min(round_, len(table))]:
            phis.append(None if np.isnan(phi).any() else phi)
        cursors = decode_all("cursors", take(state, "cursors", dict), self.cursors.to_state())
        return Progress(
            estimator=decode_all("estimator", take(state, "estimator", dict), self.estimator),
            policy=decode_all("policy", take(state, "policy", dict), self.policy),
            cursors=Cursors.from_state(cursors, rate=self.cursors.rate),
            phis=phis,
            round=round_,
            dropped=take(state, "dropped", int),
            forced=take(state, "forced", int),
        )


_OURS = (Ema, EmaBank)  # not what is derived from them


def _copied(state: State) -> State:
    """Return the arrays of a state, copied."""
    return {name: array.copy() for name, array in state.items()}


def check_schema(state: Any) -> Any:
    """Return `state` in the form of this version; StateError unless it is of a schema that can be read."""
    its = take(state, "schema", int)
    if its not in _READABLE:
        raise StateError(f"state of another version of this library: schema={its}, this one reads {_READABLE}")
    if its == SCHEMA or "log_phi" not in state:
        return state
    if its == 1:
        state = _from_schema_1(state)
    config: dict[str, str] = take(state, "config", dict)
    return {**state, "schema": SCHEMA, "config": {**config, "present_rate": "0.02"}}


def check_fit(state: Any, pool: Partition, config: dict[str, str]) -> None:
    """Raise StateError, which says what differs, unless `state` is of that pool and of that configuration."""
    for key, kind, mine in (("n_regions", int, pool.n_regions), ("fingerprint", str, pool.fingerprint)):
        if (its := take(state, key, kind)) != mine:
            raise StateError(f"state of another pool: it has {key}={its!r}, this one {mine!r}")
    its = take(state, "config", dict)
    differ = [
        f"{key}: {its.get(key)} there, {config.get(key)} here"
        for key in sorted({*its, *config})
        if its.get(key) != config.get(key)
    ]
    if differ:
        raise StateError("state of another configuration: " + "; ".join(differ))


def _from_schema_1(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an allocator's state of schema 1.

    There log φ was a list with {} for what was not known, and a present row counted for one that is drawn.
    """
    rows = cast("list[Any]", take(state, "log_phi", list))
    config: dict[str, str] = {"present_weight": "1.0", **take(state, "config", dict)}
    lag = int(take(config, "lag", str))
    table = np.full((lag + 1, take(state, "n_regions", int)), np.nan)
    if len(rows) > len(table):
        raise StateError(f"state: {len(rows)} entries in 'log_phi' do not go with lag {lag}")
    for row, value in enumerate(rows):
        phi = table[row] if value == {} else decode("log_phi", value)
        if phi.shape != table[row].shape or phi.dtype != np.float64:
            raise StateError(
                f"state entry 'log_phi': expected float64[{table.shape[1]}], got {phi.dtype}{[*phi.shape]}"
            )
        table[row] = phi
    return {**state, "config": config, "log_phi": encode(table)}
