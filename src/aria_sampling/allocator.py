"""`Allocator`: partition + estimator + policy + lag. Where the parts become one online allocation.

One round is ``draw`` -> ``observe`` (once, or in parts) -> ``step``:

>>> import aria_sampling as aria
>>> allocator = aria.Allocator(aria.Partition.from_labels([0] * 90 + [1] * 10), target="uniform", seed=0)
>>> for _ in range(200):
...     draw = allocator.draw(16)
...     allocator.observe(draw.regions, 1.0 + 3.0 * (draw.regions == 1))  # region 1 lags behind
...     allocator.step()
>>> allocator.probabilities.round(2).tolist()  # 0.8 * (1, 4) / 5 + 0.2 * (1, 1) / 2
[0.26, 0.74]

The order of events decides what a draw may know (lag determinism): draw r uses the feedback of rounds up
to r - 1 - lag, whether or not more has arrived, so the stream does not depend on timing.
"""

from __future__ import annotations

import hashlib
from collections import deque
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from aria_sampling._errors import FeedbackLagError, lag_message
from aria_sampling._typing import FloatArray, IntArray
from aria_sampling._validation import checked, float_vector, instance, int_vector, integer, real
from aria_sampling.allocation import Policy, Proportional
from aria_sampling.allocation.shares import capped, repeat_cap, shares, target_shares
from aria_sampling.drawing import Draw, draw_rows, forced_regions
from aria_sampling.estimation import Certificate, Ema, EmaBank, Estimate, Estimator, certify
from aria_sampling.partition import Partition
from aria_sampling.progress import SCHEMA, OpenRound, Progress, check_fit, check_schema

if TYPE_CHECKING:
    from aria_sampling.history import History
    from aria_sampling.report.advice import Advice
    from aria_sampling.torch import AriaSampler

__all__ = ["Allocator", "Draw"]


class Allocator:
    """Draws items of a pool region by region, more where the discrepancy persists.

    Args:
        partition: The pool, cut into regions.
        estimator: Tracks the discrepancy of every region; default `EmaBank`.
        policy: Turns estimates into effort; default `Proportional`.
        floor: Share of every draw that follows the target whatever the estimates say, in (0, 1]. Bounds
            the weights by 1/floor and keeps every region under observation. A baseline policy sets it to 1.
        target: What the regions are worth, the mass q. ``"pool"``: their size (keeps the pool's
            objective). ``"uniform"``: each region alike (lifts unseen and rare ones). A number tau in
            [0, 1]: size**tau. Or real [n_regions]; a region with 0 is never drawn. A baseline sets its own.
        max_gap: Non-empty draws after which a region that was not drawn is visited for certain; default
            ``ceil(8 * n_regions / n)``, n the moving average of the draw size. Baselines force nothing.
        max_repeat: The most that any item may be drawn per n_items draws, at least 1: caps the share of
            every region at ``max_repeat * size / n_items`` (in the target too), so that a tiny region
            cannot take over. Default no cap.
        correction: Exponent κ of the weights (q/p)**κ, in [0, 1]. 1, the default: weighted training keeps
            the target's objective, whatever was drawn. 0: weights are 1, and training optimises what is
            drawn. Between: the objective p**(1-κ)·q**κ. It changes `Draw.weights` only.
        present_weight: How many drawn rows a row of `present` counts for, in [0, 1e9]: how much of what a drawn
            row teaches a region it has from such a row already. 1 fills up evenly; large values leave the draws to the
            regions that have no such rows; 0 ignores them.
        present_rate: Rate at which rows of `present` are forgotten, in [0, 1]. The effort of a region is the ratio of
            two exponential moving averages over rounds: of its rows in `present`, and of the rows drawn. 0 forgets
            nothing: the ratio of the sums over all rounds, the least noisy where the rows come from a mixture that
            stays. Otherwise it is as noisy as a count over ``(2 - rate) / rate`` rounds, 99 by default: regions of
            which fewer rows than one come in as many look most of the time as if they had none, or few.
        seed: Key of all randomness, 0 <= seed < 2**64.
        lag: How many rounds may be open when the next is drawn, so how old the feedback behind a draw is:
            0 where draw, observe and step take turns; as many batches as a loader draws ahead otherwise.

    `floor`, `max_gap`, `correction`, `present_weight` and `seed` can be set later, too. They count from the next draw
    on, and to continue from a saved state takes those it was saved with.

    Raises:
        ValueError: An argument of the wrong type or out of its range; on setting as well. Nothing is changed.
        AttributeError: On setting `partition`, `estimator`, `policy` or `target`: what was learnt depends on them.
    """

    partition: Partition = checked()
    estimator: Estimator = checked()
    policy: Policy = checked()
    target: FloatArray = checked()
    seed: int = checked(partial(integer, low=0, high=2**64 - 1))
    max_gap: int | None = checked(lambda name, value: None if value is None else integer(name, value, low=1))
    correction: float = checked(partial(real, low=0, high=1))
    present_weight: float = checked(partial(real, low=0, high=1e9))
    floor: float = checked(partial(real, low=0, high=1, open_low=True))

    def __init__(
        self,
        partition: Partition,
        *,
        estimator: Estimator | None = None,
        policy: Policy | None = None,
        floor: float = 0.2,
        target: Any = "pool",
        max_gap: int | None = None,
        max_repeat: float | None = None,
        correction: float = 1.0,
        present_weight: float = 1.0,
        present_rate: float = 0.02,
        seed: int = 0,
        lag: int = 0,
    ) -> None:
        self.partition = instance("partition", partition, Partition)
        self.estimator = instance("estimator", EmaBank() if estimator is None else estimator, Estimator)
        self.policy = instance("policy", Proportional() if policy is None else policy, Policy)
        self.seed = seed
        self._lag = integer("lag", lag, low=0, high=_MOST_LAG)
        self.max_gap = max_gap
        self._max_repeat = None if max_repeat is None else real("max_repeat", max_repeat, low=1)
        self.correction = correction
        self.present_weight = present_weight
        self.floor = floor
        if (baseline := self.policy.baseline) is not None:
            self.floor = 1.0
        q = target_shares(target if baseline is None else baseline, partition.sizes)
        self._cap = None if self._max_repeat is None else repeat_cap(q, partition.sizes, self._max_repeat)
        q = q if self._cap is None else capped(q, self._cap)
        q.flags.writeable = False
        self.target = q
        self._start(real("present_rate", present_rate, low=0, high=1) + 0.0)  # -0.0 is 0.0

    def _start(self, present_rate: float) -> None:
        """Go to the state before the first round."""
        self._progress = Progress.start(
            self.estimator, self.policy, n_regions=self.partition.n_regions, lag=self._lag, present_rate=present_rate
        )
        self.rewind()

    @property
    def max_repeat(self) -> float | None:
        """The most that any item may be drawn per n_items draws. It cannot be set: the target has it in it."""
        return self._max_repeat

    @property
    def present_rate(self) -> float:
        """Rate at which rows of `present` are forgotten. It cannot be set: the counts depend on it."""
        return self._progress.cursors.rate

    @property
    def lag(self) -> int:
        """How many rounds may be open when the next is drawn. It can be set until the first draw.

        Raises:
            ValueError: On setting, for anything but a non-negative integer.
            RuntimeError: On setting, once a round was drawn: the stream depends on it.
        """
        return self._lag

    @lag.setter
    def lag(self, value: int) -> None:
        value = integer("lag", value, low=0, high=_MOST_LAG)
        if value == self._lag:
            return
        if self.round or self._open_rounds:
            raise RuntimeError(
                f"lag={value}: the allocation has begun with lag={self._lag}, and its stream depends on it"
            )
        self._lag = value
        self._start(self.present_rate)

    # -- a round ---------------------------------------------------------------------------------------

    def draw(self, n: int, *, present: Any = None) -> Draw:
        """Open a round and draw n items.

        Args:
            n: Number of items, at least 1.
            present: Regions of the rows that train anyway in this round, integers [m]: effort is filled
                up around what regions get without being drawn. Baselines ignore it.

        Raises:
            ValueError: n is no positive integer, or `present` no vector of regions. Nothing is changed.
            FeedbackLagError: The feedback this draw needs has not arrived: lag is too small.
        """
        return self._open(integer("n", n, low=1, high=_MOST_ROWS), present)

    def skip(self, *, present: Any = None) -> Draw:
        """Open a round that draws nothing, so that rounds keep step with training steps that need no draw.

        Raises as `draw` does.
        """
        return self._open(0, present)

    def _open(self, n: int, present: Any) -> Draw:
        if present is not None:
            present = int_vector("present", present, high=self.partition.n_regions).copy()
        if self.policy.baseline is not None:
            present = None
        if len(self._open_rounds) > self.lag:
            raise FeedbackLagError(lag_message(self.round, len(self._open_rounds), self.lag))
        round_ = self.round + len(self._open_rounds)
        try:
            self._ahead.announce(n, present)
            draw, visited, counts = draw_rows(
                self.partition,
                self._probabilities(round_),
                n,
                forced=self._forced_regions(n),
                visits=self._ahead.visits,
                seed=self.seed,
                round_=round_,
                target=self.target,
                correction=self.correction,
            )
            opened = OpenRound(draw, present, visited, counts)
            self._ahead.advance(visited, counts)
        except BaseException:  # out of memory, a policy of the user's, Ctrl-C: the next draw must not notice
            self._ahead = self._progress.cursors.copy()
            for earlier in self._open_rounds:
                earlier.pass_by(self._ahead)
            raise
        self._open_rounds.append(opened)
        return draw

    def _forced_regions(self, n: int) -> IntArray:
        """Return the regions that the coming draw of n must visit."""
        if self.policy.baseline is not None:
            return np.empty(0, np.int64)
        max_gap = self._ahead.default_max_gap() if self.max_gap is None else self.max_gap
        return forced_regions(self._ahead.gaps(), self.target, max_gap=max_gap, most=n // 2)

    def _probabilities(self, round_: int) -> FloatArray:
        """Return the probabilities of regions in a draw of that round, before forced visits."""
        log_phi = self._progress.log_phi(round_, self.lag)
        effort = self._ahead.effort()
        effort = None if effort is None else effort * self.present_weight
        return shares(self.target, log_phi, floor=self.floor, effort=effort, cap=self._cap)

    def observe(self, regions: Any, losses: Any) -> None:
        """Credit losses to regions, in the oldest open round. Any number of times, any subset of its rows.

        Args:
            regions: Integers [m], the region of each row.
            losses: Real [m], one loss a row, in any unit; their mean is the region's discrepancy.
                Non-finite ones (or of size 1e150 and more) are dropped and counted in `metrics`.

        Raises:
            ValueError: Another shape, dtype or length, or a region out of range. Nothing is changed.
            RuntimeError: No round is open.
        """
        opened = self._oldest("observe")
        regions = int_vector("regions", regions, high=self.partition.n_regions)
        losses = float_vector("losses", losses, length=len(regions))
        opened.fed.append((regions.copy(), losses.copy()))

    def step(self) -> None:
        """Close the oldest open round, with or without feedback. If that fails, the round is open as it was.

        Raises:
            ValueError: The estimator or the policy, a part of your own, answers with another shape or with NaN.
            RuntimeError: No round is open.
        """
        opened = self._oldest("step")
        feedback = opened.feedback(self.partition.n_regions)
        progress, put_back = self._progress.following(self.estimator, feedback.regions, opened.visited)
        try:
            progress.close(opened, self.estimator, self.policy, feedback)
            still_open = deque(islice(self._open_rounds, 1, None))
            self._progress, self._open_rounds = progress, still_open  # at once: Ctrl-C finds both done, or neither
        except BaseException:
            put_back()
            raise

    def rewind(self) -> None:
        """Forget all open rounds: the next draw is that of the oldest of them again, bit for bit."""
        self._open_rounds: deque[OpenRound] = deque()
        self._ahead = self._progress.cursors.copy()

    def _oldest(self, what: str) -> OpenRound:
        if not self._open_rounds:
            raise RuntimeError(
                f"{what}() without an open round: call draw() first; each draw() opens one round and "
                "each step() (or the observe() of a sampler) closes one"
            )
        return self._open_rounds[0]

    # -- what it knows ---------------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """Number of closed rounds."""
        return self._progress.round

    @property
    def open_rounds(self) -> tuple[Draw, ...]:
        """The draws whose rounds are open, oldest first."""
        return tuple(opened.draw for opened in self._open_rounds)

    @property
    def probabilities(self) -> FloatArray:
        """What the next draw follows, before forced visits: float64 [n_regions], summing to 1."""
        return self._probabilities(self.round + min(len(self._open_rounds), self.lag)).copy()

    @property
    def draws(self) -> IntArray:
        """Draws from each region in all closed rounds, int64 [n_regions]."""
        return self._progress.cursors.visits.copy()

    def estimate(self) -> Estimate:
        """Return what is believed of every region, all closed rounds considered (whatever the lag)."""
        return self.estimator.estimate(self._progress.estimator)

    def certificate(self, *, drift: Any, sigma: Any, alpha: float = 0.05) -> Certificate:
        """Return radii around `estimate` that hold for all regions and rounds with probability 1 - alpha.

        For `Ema` alone, under any policy: the theorem is chosen by how visits come about; see `Certificate`.

        Args:
            drift: Bound on the change of a discrepancy in one round, number or [n_regions].
            sigma: Sub-Gaussian proxy of one loss (Lmax / 2 for losses in [0, Lmax]), number or [n_regions].
            alpha: In (0, 1).

        Raises:
            ValueError: An argument out of its range, or the estimator is not an `Ema`.
        """
        if not isinstance(self.estimator, Ema):
            raise ValueError(
                f"certificate: needs the estimator Ema, whose weights do not depend on the losses, got "
                f"{type(self.estimator).__name__}: make the Allocator with estimator=aria_sampling.Ema(...)"
            )
        state, adaptive = self._progress.estimator, self.policy.baseline is None
        return certify(self.estimator, state, drift=drift, sigma=sigma, alpha=alpha, adaptive=adaptive)

    def metrics(self) -> dict[str, float]:
        """Return what is worth logging, as floats.

        ``round``, ``open_rounds``; ``dropped_losses`` and ``forced_visits`` so far; ``visited`` share of
        regions with feedback; ``discrepancy`` under the target and ``discrepancy_max``; ``effective_regions``
        (exp of the entropy of the probabilities); ``top_share`` and ``top_boost``, the largest probability
        and the largest ratio to the target; ``ess``, the effective sample size per row when losses are
        weighted, 1 / sum(q**2 / p); ``passes``, draws per item of the pool; ``uncertain``, the share of
        draws that go to regions whose estimate differs from the target's mean by less than its standard error.
        """
        p, q = self.probabilities, self.target
        estimate = self.estimate()
        held, drawn, known = q > 0, p > 0, estimate.count > 0
        discrepancy = float((q * estimate.mean).sum())
        return {
            "round": float(self.round),
            "open_rounds": float(len(self._open_rounds)),
            "dropped_losses": float(self._progress.dropped),
            "forced_visits": float(self._progress.forced),
            "visited": float(known.mean()),
            "discrepancy": discrepancy,
            "discrepancy_max": float(estimate.mean[known].max()) if known.any() else float("nan"),
            "effective_regions": float(np.exp(-(p[drawn] * np.log(p[drawn])).sum())),
            "top_share": float(p.max()),
            "top_boost": float((p[held] / q[held]).max()),
            "ess": float(1 / (q[held] ** 2 / p[held]).sum()),
            "passes": float(self._progress.cursors.visits.sum() / self.partition.n_items),
            "uncertain": float(p[~(np.abs(estimate.mean - discrepancy) > estimate.stderr)].sum()),
        }

    def advice(self, history: History) -> Advice:
        """Return what this allocation has gained over its baselines; see `History.advice`.

        Raises:
            ValueError: `history` is no `History`, or that of another allocator.
        """
        if getattr(history, "allocator", None) is not self or not hasattr(history, "advice"):
            raise ValueError(f"history: expected a History of this allocator, got another {type(history).__name__}")
        return history.advice()

    def sampler(self, *, batch_size: int, num_samples: int, **options: Any) -> AriaSampler:
        """Return a `torch.utils.data.Sampler` that draws from this allocator.

        All arguments are those of `aria_sampling.torch.AriaSampler`.
        """
        from aria_sampling.torch import AriaSampler

        return AriaSampler(self, batch_size=batch_size, num_samples=num_samples, **options)

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue from the last closed round, bit for bit.

        Ints, floats, strings, bytes, lists and dictionaries only; size O(n_regions * (lag + 1)). Open
        rounds are not part of it: after loading they are drawn again, the same.
        """
        return {
            "schema": SCHEMA,
            "fingerprint": self.partition.fingerprint,
            "n_regions": self.partition.n_regions,
            "config": self._config(),
            **self._progress.to_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Open rounds are forgotten.

        Raises:
            StateError: (a ValueError) the state is damaged, or of another schema, pool or configuration:
                the message says what differs. Nothing is changed.
        """
        state = check_schema(state)
        check_fit(state, self.partition, self._config())
        self._progress = self._progress.from_state(state)
        self.rewind()

    def digest(self) -> str:
        """Return a hex digest, of 128 bits, of pool, configuration and all that the closed rounds left behind.

        It is equal where two allocators agree bit for bit, so that ranks of a distributed run, or a resumed run
        and an uninterrupted one, can be compared by it.
        """
        settings = f"{self.partition.fingerprint} {sorted(self._config().items())} {self._progress.digest().hex()}"
        return hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()

    def _config(self) -> dict[str, str]:
        """Return what must be equal for a state to fit, as text."""
        target = hashlib.blake2b(self.target.astype("<f8").tobytes(), digest_size=8).hexdigest()
        settings = {name: repr(getattr(self, name)) for name in _SETTINGS}
        return {**settings, "target": target}


def take_in(allocator: Allocator, regions: Any, losses: Any) -> None:
    """Observe and step. If that fails, the round is open as it was, without these losses: they can be given again."""
    opened = allocator._oldest("step")  # pyright: ignore[reportPrivateUsage]
    before = len(opened.fed)
    try:
        allocator.observe(regions, losses)
        allocator.step()
    except BaseException:
        del opened.fed[before:]
        raise


_MOST_ROWS = 2**31 - 1  # of a round
_MOST_LAG = 2**20  # the state has a row of float64 [n_regions] for each round of lag
_SETTINGS = (
    "estimator", "policy", "floor", "max_gap", "max_repeat", "correction", "present_weight", "present_rate",
    "seed", "lag",
)  # fmt: skip
