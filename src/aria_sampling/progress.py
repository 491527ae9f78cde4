"""`Progress`: everything about an allocation that changes when a round closes, and how it is saved.

It is apart from the allocator so that the saved state is one value with one definition: what is in here
is in a checkpoint, what is not can be recomputed (open rounds are drawn again).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aria_sampling._errors import StateError
from aria_sampling._state import decode, decode_all, encode, encode_all, take
from aria_sampling._typing import FloatArray, State
from aria_sampling.allocation import Policy
from aria_sampling.drawing import Cursors
from aria_sampling.estimation import Estimate, Estimator, Feedback

__all__ = ["SCHEMA", "Progress"]

SCHEMA = 1


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
    def start(cls, estimator: Estimator, policy: Policy, *, n_regions: int, lag: int) -> Progress:
        """Return the progress before the first round."""
        phis: deque[FloatArray | None] = deque(maxlen=lag + 1)
        return cls(estimator.init(n_regions), policy.init(n_regions), Cursors.start(n_regions), phis)

    def log_phi(self, round_: int, lag: int) -> FloatArray | None:
        """Return the log φ that a draw of that round may use: the one after round ``round_ - 1 - lag``."""
        index = round_ - 1 - lag - (self.round - len(self.phis))
        return self.phis[index] if index >= 0 else None

    def learn(self, estimator: Estimator, policy: Policy, feedback: Feedback) -> None:
        """Take in the feedback of the round that closes, which may be none."""
        self.estimator = estimator.update(self.estimator, feedback)
        if len(feedback.regions):
            now = estimator.estimate(self.estimator)
            clamped = Estimate(np.maximum(now.mean, 0.0), now.stderr, now.count, now.age)
            self.policy = policy.update(self.policy, clamped)
            self.phis.append(policy.log_phi(self.policy))
        else:
            self.phis.append(self.phis[-1] if self.phis else None)
        self.dropped += feedback.dropped
        self.round += 1

    def to_state(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {
            "round": self.round,
            "dropped": self.dropped,
            "forced": self.forced,
            "estimator": encode_all(self.estimator),
            "policy": encode_all(self.policy),
            "cursors": encode_all(self.cursors.to_state()),
            # torch.load(weights_only=True) refuses empty bytes, so nothing is not an empty array
            "log_phi": [{} if phi is None else encode(phi) for phi in self.phis],
        }

    def from_state(self, state: Any) -> Progress:
        """Return the progress that `to_state` described; StateError unless it has the shape of this one."""
        phis: deque[FloatArray | None] = deque(maxlen=self.phis.maxlen)
        round_ = take(state, "round", int)
        saved = take(state, "log_phi", list)
        if round_ < 0 or len(saved) != min(round_, phis.maxlen or 0):
            raise StateError(f"state: {len(saved)} entries in 'log_phi' do not go with round {round_}")
        n_regions = len(self.cursors.visits)
        for value in saved:
            phi = None if value == {} else decode("log_phi", value)
            if phi is not None and (phi.shape != (n_regions,) or phi.dtype != np.float64):
                raise StateError(
                    f"state entry 'log_phi': expected float64[{n_regions}], got {phi.dtype}{list(phi.shape)}"
                )
            phis.append(phi)
        return Progress(
            estimator=decode_all("estimator", take(state, "estimator", dict), self.estimator),
            policy=decode_all("policy", take(state, "policy", dict), self.policy),
            cursors=Cursors.from_state(decode_all("cursors", take(state, "cursors", dict), self.cursors.to_state())),
            phis=phis,
            round=round_,
            dropped=take(state, "dropped", int),
            forced=take(state, "forced", int),
        )
