"""`Allocator`: partition + coverage + estimator + policy become one online allocation.

One round is ``draw`` -> ``observe`` (once, or in parts) -> ``step``:

>>> import aria_sampling as aria
>>> allocator = aria.Allocator(aria.Partition.from_labels([0] * 90 + [1] * 10), target="uniform", seed=0)
>>> for _ in range(200):
...     draw = allocator.draw(16)
...     allocator.observe(draw.regions, 1.0 + 3.0 * (draw.regions == 1))  # region 1 lags behind
...     allocator.step()
>>> allocator.probabilities.round(2).tolist()  # 0.8 * (1, 4) / 5 + 0.2 * (1, 1) / 2
[0.26, 0.74]

The order of events decides what a draw may know (lag determinism): draw r uses the feedback of rounds up to
r - 1 - lag, whether or not more has arrived. So the stream does not depend on timing.

Where things are: `drawing.py` has a draw, `learning.py` what losses make of the state, `state.py` what is saved,
`rounds.py` the open rounds, and `_kernel/` the arithmetic.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
import warnings
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, IntArray, decode_all, encode_all, take
from aria_sampling._check import float_vector, instance, int_vector, integer, kind_of, real, shown
from aria_sampling.adoption import Adopted, heirs, inherited
from aria_sampling.coverage import Coverage
from aria_sampling.drawing import Drawer, decayed, next_tally
from aria_sampling.errors import ArgumentError, AriaWarning, FeedbackLagError, UsageError, lag_message, outside
from aria_sampling.estimators import Certificate, Ema, EmaBank, Estimate, Estimator, borrowed, certify
from aria_sampling.learning import Learner, Learnt, first_state, fixed
from aria_sampling.pacing import capped, first_pace, repeat_cap
from aria_sampling.partition import Partition
from aria_sampling.policies import Policy, Proportional
from aria_sampling.rounds import Draw, OpenRound, OpenRounds, Tally, joined
from aria_sampling.shares import target_shares
from aria_sampling.state import SCHEMA, Progress, check_fit, learnt_by, losses_in_words, normalised_in
from aria_sampling.watch import Watch

if TYPE_CHECKING:
    from aria_sampling.torch import AriaSampler

__all__ = ["Allocator"]


class Allocator:
    """Draws items of a pool region by region, more where the discrepancy persists.

    Args:
        partition: The pool, cut into regions.
        coverage: What trains anyway, such as the prompts that have images (`Coverage`). Draws go where it leaves
            most unknown. Default: nothing is covered.
        estimator: Tracks the discrepancy of every region; default `EmaBank`.
        policy: Turns estimates into scores; default `Proportional`.
        target: What the regions are worth, the mass q. None or ``"pool"``: their size (keeps the pool's objective).
            ``"uniform"``: each region alike (lifts rare ones). A number tau in [0, 1]: size**tau. Or real
            [n_regions], in the order of ``partition.names``, or a dictionary by these names; a region with 0 is never
            drawn.
        exploration: Share of every draw that follows the target whatever is known, in (0, 1]; None is 0.2. It bounds
            the weights by 1/exploration and keeps every region under observation.
        max_repeat: How often any item may come per n_items rows, at least 1. In any run of whole draws of D rows
            together, an item comes at most ``ceil(max_repeat * D / n_items) + 1`` times. It caps the share of every
            region at ``max_repeat * size / n_items``, in the target too, so that a tiny region cannot take over. The
            rows of a region then come at even distances, and no visit is forced, so a region may wait for longer.
            Default: no cap.
        seed: Key of all randomness, 0 <= seed < 2**64.
        lag: How many rounds may be open when the next is drawn, so how old the feedback behind a draw is. 0 where
            draw, observe and step take turns; as many batches as a loader draws ahead otherwise. None: 0, or what
            the loader needs that the sampler is attached to.

    Raises:
        ValueError: An argument of the wrong type or out of its range; a baseline policy with a target, an exploration
            or a coverage, which it would ignore.

    All arguments are attributes, too. They cannot be set: what was learnt depends on them. To go on with other
    settings make another allocator and call its `adopt`.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        coverage: Coverage | None = None,
        estimator: Estimator | None = None,
        policy: Policy | None = None,
        target: Any = None,
        exploration: float | None = None,
        max_repeat: float | None = None,
        seed: int = 0,
        lag: int | None = None,
    ) -> None:
        self._partition = instance("partition", partition, Partition)
        self._estimator = instance("estimator", EmaBank() if estimator is None else estimator, Estimator)
        self._policy = instance("policy", Proportional() if policy is None else policy, Policy)
        self._seed = integer("seed", seed, low=0, high=2**64 - 1)
        self._lag = None if lag is None else integer("lag", lag, low=0, high=_MOST_LAG)
        self._max_repeat = None if max_repeat is None else real("max_repeat", max_repeat, low=1)
        if coverage is not None:
            coverage = _of_pool(instance("coverage", coverage, Coverage), partition)
        if (baseline := self._policy.baseline) is not None:
            _refuse(self._policy, target=target, exploration=exploration, coverage=coverage)
            target, exploration = baseline, 1.0
        self._coverage: Coverage | None = coverage
        self._covering = None if coverage is None or coverage.is_empty else coverage  # if there is anything in it
        self._exploration = (
            0.2 if exploration is None else real("exploration", exploration, low=0, high=1, open_low=True)
        )
        q = target_shares("pool" if target is None else target, partition.sizes, partition.names)
        self._cap = None if self._max_repeat is None else repeat_cap(q, partition.sizes, self._max_repeat)
        q = q if self._cap is None else capped(q, self._cap)
        q.flags.writeable = False
        self._target = q
        self._learner = Learner(self._estimator, self._policy, q)
        self._watch = Watch(
            partition.names,
            self.warn_once,
            target=q,
            policy=self._policy,
            exploration=self._exploration,
            covered=self._covering is not None,
        )
        self._normalised: bool | None = None  # what was set
        self._was_normalised = False  # what a loaded state says
        self._begin(uncovered=None)
        self._restart()

    def _begin(self, uncovered: FloatArray | None) -> None:
        """Make the state before the first round. `uncovered`: of a saved state, else the coverage's own."""
        covering = self._covering
        if covering is not None:
            uncovered = covering.uncovered if uncovered is None else uncovered
        self._uncovered = uncovered
        n_regions = self._partition.n_regions
        self._progress = Progress.start(
            first_state("estimator", self._estimator.init(n_regions), n_regions),
            first_state("policy", self._policy.init(n_regions), n_regions),
            n_regions=n_regions,
            pace=None if self._cap is None else first_pace(self._seed, n_regions),
            lag=self._lag or 0,
            online=covering is not None and covering.is_online,
        )

    # -- what it was made of ---------------------------------------------------------------------------

    @property
    def partition(self) -> Partition:
        """The pool, cut into regions."""
        return self._partition

    @property
    def coverage(self) -> Coverage | None:
        """What trains anyway."""
        return self._coverage

    @property
    def estimator(self) -> Estimator:
        """What tracks the discrepancies."""
        return self._estimator

    @property
    def policy(self) -> Policy:
        """What turns estimates into scores."""
        return self._policy

    @property
    def target(self) -> FloatArray:
        """The target q: what each region is worth, float64 [n_regions], summing to 1."""
        return self._target

    @property
    def exploration(self) -> float:
        """Share of every draw that follows the target whatever is known; 1 for a baseline."""
        return self._exploration

    @property
    def max_repeat(self) -> float | None:
        """How often any item may come per n_items rows; None: no cap."""
        return self._max_repeat

    @property
    def seed(self) -> int:
        """Key of all randomness."""
        return self._seed

    @property
    def key(self) -> int:
        """Key of the present stream: the seed, or after `adopt` another number made of it."""
        generation = self._progress.generation
        return self._seed if generation == 0 else _kernel.stream_key(self._seed, _GENERATIONS, generation)

    @property
    def lag(self) -> int:
        """How many rounds may be open when the next is drawn. It can be set until the first draw.

        Raises:
            ValueError: On setting, for anything but a non-negative integer.
            RuntimeError: On setting, once a round was drawn: the stream depends on it.
        """
        return self._progress.lag

    @lag.setter
    def lag(self, value: int) -> None:
        value = integer("lag", value, low=0, high=_MOST_LAG)
        if value != self.lag:
            self._not_begun(
                f"lag={value}: the allocation has begun with lag={self.lag}, and its stream depends on it; give the "
                "Allocator its lag when you make it, or attach the loader before the first draw"
            )
            self._progress.lag = self.rounds.lag = value
        self._lag = value

    @property
    def normalised(self) -> bool:
        """Whether losses are divided by what is usual at their noise level: estimates are then ratios around 1.

        A `RandomConditioning` sets it. Set it if you divide losses by a `TimestepProfile` of your own. No draw depends
        on it. It is saved with the state, so that a `History` and its report know what estimates mean.

        Raises:
            ValueError: On setting, for anything but a bool.
        """
        return self._was_normalised if self._normalised is None else self._normalised

    @normalised.setter
    def normalised(self, value: bool) -> None:
        if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"normalised={shown(value)}: expected True or False")
        self._normalised = value

    def _not_begun(self, why: str) -> None:
        """Raise RuntimeError, saying `why`, once a round was drawn."""
        if self.round or len(self.rounds):
            raise UsageError(why)

    # -- a round ---------------------------------------------------------------------------------------

    def draw(self, n: int, *, data_rows: int | None = None, present: Any = None) -> Draw:
        """Open a round and draw n items.

        Args:
            n: Number of items; 0 opens an empty round, for a training step that needs none.
            data_rows: Rows with data of their own (of the items in a static coverage) that train in the same round.
                What counts is their ratio to the rows drawn, over all rounds so far. Default: as many as are drawn.
                It plays no part with online coverage, where `present` says more.
            present: With `Coverage.online`, the region of each row that trains anyway in this round, integers [m].

        Raises:
            ValueError: n or `data_rows` is negative or no integer; `present` without online coverage, or none with
                it, or no vector of regions. Nothing is changed.
            FeedbackLagError: The feedback that this draw needs has not arrived: lag is too small.
        """
        n = integer("n", n, low=0, high=_MOST_ROWS)
        if data_rows is not None:
            data_rows = integer("data_rows", data_rows, low=0, high=_MOST_ROWS)
        present = self._checked_present(present)
        self._own("draw")
        rounds = self.rounds
        rounds.make_room()
        if (n_open := len(rounds)) > self.lag:
            ahead = f"allocator = aria.Allocator(partition, lag={n_open})"
            raise FeedbackLagError(
                lag_message(self.round, n_open, self.lag), remedy=ahead if self.lag else "allocator.step()"
            )
        drawer = self._drawer
        if drawer.round != self.round + n_open:  # an interrupted call moved its cursors and noted no round
            drawer = self._drawer = self._new_drawer(rounds)
        drawer.apply(self._progress.changes_up_to(drawer.round - 1 - self.lag))
        tally = next_tally(self._tally, n, data_rows, self._covering)
        try:
            if present is not None:
                drawer.take_in(present)
            opened = drawer.draw(n, tally, present)
            rounds.append(opened)
        except BaseException:  # out of memory, Ctrl-C: the next draw must not notice
            self._drawer = self._new_drawer(rounds)
            raise
        return opened.draw

    def _own(self, what: str) -> None:
        """Raise UsageError unless the calling thread is the one that drew first: a round is no place for two."""
        if self._owner is None:
            self._owner = get_ident()
        if self._owner != get_ident():
            raise UsageError(
                f"{what}() in another thread than the one that drew first: rounds would come apart. Iterate the loader "
                "and report the losses in one thread; a thread may fetch and decode the rows that were drawn"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the owner is a thread of this process."""
        return {**vars(self), "_owner": None}

    @property
    def _tally(self) -> Tally:
        """The sums over all draws, those of open rounds included."""
        newest = self.rounds.newest
        return self._progress.tally if newest is None else newest.tally

    def _checked_present(self, present: Any) -> IntArray | None:
        """Return `present` as int64 [m] of its own; None where it plays no part."""
        online = self._covering is not None and self._covering.is_online
        if not online and present is None:
            return None
        if not online:
            raise ArgumentError(
                "present: expected with online coverage only; make the Allocator with "
                "coverage=aria.Coverage.online(partition), or with coverage=aria.Coverage(partition, items=...) if the "
                "items with data are known beforehand"
            )
        if present is None:
            raise ArgumentError(
                "present: expected the regions of the rows that train anyway, since coverage is online; [] for a round "
                "without any",
                remedy="draw = allocator.draw(n, present=[])",
            )
        return int_vector("present", present, high=self._partition.n_regions).copy()

    def observe(self, regions: Any, losses: Any) -> None:
        """Credit losses to regions, in the oldest open round. Any number of times, any subset of its rows.

        Args:
            regions: Integers [m], the region of each row.
            losses: Real [m], one loss a row, in any unit; their mean is the region's discrepancy. Losses that are not
                finite, or of size 1e150 and more, are dropped and counted in `metrics`.

        Raises:
            ValueError: Another shape, dtype or length, or a region out of range. Nothing is changed.
            RuntimeError: No round is open.
        """
        self._own("observe")
        opened = self.rounds.oldest("observe")
        opened.reports.append(self._checked_report(opened, regions, losses))

    def _checked_report(self, opened: OpenRound, regions: Any, losses: Any) -> tuple[IntArray, FloatArray]:
        """Return regions and losses as arrays of our own."""
        if regions is not opened.draw.regions or regions.flags.writeable:  # a draw's own cannot be written to
            regions = int_vector("regions", regions, high=self._partition.n_regions).copy()
        return regions, float_vector("losses", losses, length=len(regions)).copy()

    def step(self) -> None:
        """Close the oldest open round, with or without feedback. If that fails, the round is open as it was.

        Raises:
            ValueError: The estimator or the policy, a part of your own, answers with another shape or with NaN.
            RuntimeError: No round is open.
        """
        self._own("step")
        opened = self.rounds.oldest("step")
        self._close(opened, opened.reports)

    def close_round(self, regions: Any, losses: Any, *, reported: FloatArray | None = None) -> None:
        """Observe and step in one: what `observe` was given before counts, too. If it fails, nothing is changed.

        Args:
            regions: As for `observe`.
            losses: As for `observe`.
            reported: The losses as a face got them, where it has made `losses` of them: warnings look at these.

        Raises as `observe` and `step` do.
        """
        self._own("observe")
        opened = self.rounds.oldest("step")
        report = self._checked_report(opened, regions, losses)
        self._close(opened, [*opened.reports, report], reported)

    def _close(
        self, opened: OpenRound, reports: list[tuple[IntArray, FloatArray]], reported: FloatArray | None = None
    ) -> None:
        """Close a round with the losses that were reported of it."""
        regions, losses = joined(reports)
        progress = self._progress
        learnt = self._learner.rows(progress, regions, losses)
        before = progress.belief.take(learnt.regions, axis=0) if progress.round % _LOOK_EVERY == 0 else None
        look, alike = (progress.round + 1) % _WATCH_EVERY == 0, None
        if look:  # before anything is changed: it may ask a user's estimator
            alike = self._watch.alike(progress.round + 1, lambda: self._estimator.estimate(fixed(progress.estimator)))
        self._store(opened, learnt)
        self._watch.losses(regions, losses if reported is None else reported)
        if learnt.lowest < 0:
            self._watch.estimates(learnt.regions, learnt.belief[:, 0], learnt.stderr)
        if learnt.dropped:
            self._watch.dropped(regions, losses)
        if before is not None:
            self._watch.level(np.where(before[:, 1] > 0, before[:, 0], np.nan), learnt.mean)
        if look:
            self._watch.visits(progress.visits, progress.belief[:, 1])
            self._watch.regions(progress, alike=alike)

    def _store(self, opened: OpenRound, learnt: Learnt) -> None:
        """Store what a round has brought, all at once, and let the next draw know of it."""
        present = opened.present
        self._progress.store(
            regions=learnt.regions,
            rows=learnt.rows,
            shared=learnt.shared,
            policy=learnt.policy,
            belief=learnt.belief,
            change=learnt.change,
            drawn=opened.draw.regions,
            forced=opened.draw.forced,
            dropped=learnt.dropped,
            tally=opened.tally,
            pace=opened.pace,
            present=None if present is None else decayed(self._progress.present, present, self._online),
        )
        self._catch_up()

    def _catch_up(self) -> None:
        """Let the next draw know what it may. If Ctrl-C comes between, it is done by the next call that needs it."""
        self._drawer.apply(self._progress.changes_up_to(self.round - 1 - self.lag))
        self._progress.catch_up()

    @property
    def _online(self) -> Coverage:
        assert self._coverage is not None
        return self._coverage

    def rewind(self) -> None:
        """Forget all open rounds: the next draw is that of the oldest of them again, bit for bit."""
        after = self._twin()
        after._restart()
        self._become(after)

    def settled(self) -> Allocator:
        """Return a view of this allocator, to be read alone, as of its last closed round: what is open is left out."""
        view = self._twin()
        view._restart()
        return view

    def _twin(self) -> Allocator:
        """Return another name for this allocator's parts, to try on it what `_become` then makes true at once."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __copy__(self) -> Allocator:
        """Return an independent allocator; what never changes is shared with this one.

        Open rounds are copied without what a face remembers of them: process groups and loaders have no copies.
        """
        fixed = (self._partition, self._coverage, self._estimator, self._policy, self._target, self._uncovered)
        faces = [part for opened in self.rounds for part in (opened.context, opened.close)]
        return copy.deepcopy(self, {id(part): part for part in fixed} | {id(part): None for part in faces})

    def _become(self, after: Allocator) -> None:
        """Go to another state at once: what fails before, or Ctrl-C, changes nothing."""
        vars(self).update(vars(after))

    def _restart(self) -> None:
        """Draw on from the last closed round, in whatever thread does it."""
        self._owner: int | None = None
        self.rounds = OpenRounds(self._progress.counters)
        self.rounds.lag = self.lag
        self._drawer = self._new_drawer(self.rounds)

    def _new_drawer(self, rounds: OpenRounds) -> Drawer:
        """Return what draws on from the last of the open rounds."""
        coverage, base, data = self._covering, self._target, self._progress.present
        if coverage is not None and not coverage.is_online:
            data = coverage.counts
            if coverage.power > 0:
                assert self._uncovered is not None
                most = self._uncovered[self._target > 0].max()  # only ratios count; a sharp power must not end at 0
                base = base * _kernel.exp(coverage.power * _kernel.log(self._uncovered / most))
        return Drawer(
            self._partition,
            target=self._target,
            base=base,
            coverage=coverage,
            data=data,
            cap=self._cap,
            exploration=self._exploration,
            forcing=self._policy.baseline is None and self._cap is None,
            key=self.key,
            progress=self._progress,
            open_rounds=rounds,
        )

    # -- what it knows ---------------------------------------------------------------------------------

    @property
    def round(self) -> int:
        """Number of closed rounds."""
        return self._progress.round

    @property
    def open_rounds(self) -> tuple[Draw, ...]:
        """The draws whose rounds are open, oldest first."""
        return tuple(opened.draw for opened in self.rounds)

    @property
    def probabilities(self) -> FloatArray:
        """What the next draw follows, before forced visits: float64 [n_regions], summing to 1.

        With coverage it takes the data rows of the rounds so far; those of the next draw may move it.
        """
        ahead = self.round + min(len(self.rounds), self.lag) - 1 - self.lag
        self._drawer.apply(self._progress.changes_up_to(ahead))
        return self._drawer.probabilities(self._tally)

    @property
    def draw_counts(self) -> IntArray:
        """Draws from each region in all closed rounds, int64 [n_regions]."""
        return self._progress.visits.copy()

    def estimate(self) -> Estimate:
        """Return what is believed of every region, all closed rounds considered (whatever the lag).

        A region never visited has the count-weighted mean of the others, and an infinite standard error.
        """
        return borrowed(self._estimator.estimate(fixed(self._progress.estimator)))

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
        if not isinstance(self._estimator, Ema):
            raise ArgumentError(
                f"certificate: needs the estimator Ema, whose weights do not depend on the losses, got "
                f"{kind_of(self._estimator)}",
                remedy="allocator = aria.Allocator(partition, estimator=aria.Ema())",
            )
        state, adaptive = self._progress.estimator, self._policy.baseline is None
        return certify(self._estimator, state, drift=drift, sigma=sigma, alpha=alpha, adaptive=adaptive)

    def metrics(self) -> dict[str, float]:
        """Return what is worth logging, as floats.

        ``round``, ``open_rounds``; ``dropped_losses`` and ``forced_visits`` so far; ``visited`` share of regions with
        feedback; ``discrepancy`` under the target and ``discrepancy_max``; ``effective_regions`` (exp of the entropy
        of the probabilities); ``top_share`` and ``top_boost``, the largest probability and the largest ratio to the
        target; ``ess``, the effective sample size per row when losses are weighted, 1 / sum(q**2 / p); ``passes``,
        draws per item of the pool; ``uncertain``, the share of draws that go to regions whose estimate differs from
        the target's mean by less than its standard error.
        """
        p, q = self.probabilities, self._target
        estimate = self.estimate()
        held, drawn, known = q > 0, p > 0, estimate.count > 0
        discrepancy = float((q * estimate.mean).sum())
        return {
            "round": float(self.round),
            "open_rounds": float(len(self.rounds)),
            "dropped_losses": float(self._progress.dropped),
            "forced_visits": float(self._progress.forced),
            "visited": float(known.mean()),
            "discrepancy": discrepancy,
            "discrepancy_max": float(estimate.mean[known].max()) if known.any() else float("nan"),
            "effective_regions": float(np.exp(-(p[drawn] * np.log(p[drawn])).sum())),
            "top_share": float(p.max()),
            "top_boost": float((p[held] / q[held]).max()),
            "ess": float(1 / (q[held] ** 2 / p[held]).sum()),
            "passes": float(self._progress.tally.drawn / self._partition.sizes.sum()),
            "uncertain": float(p[~(np.abs(estimate.mean - discrepancy) > estimate.stderr)].sum()),
        }

    def warn_once(self, name: str, message: str) -> None:
        """Give an `AriaWarning`, unless one of that name was given before, also in the runs that this one resumes."""
        if name not in self._progress.warned:
            self._progress.warned.add(name)
            warnings.warn(message, AriaWarning, stacklevel=outside())

    def sampler(self, *, batch_size: int, num_samples: int, **options: Any) -> AriaSampler:
        """Return a `torch.utils.data.Sampler` that draws from this allocator.

        All arguments are those of `aria_sampling.torch.AriaSampler`.
        """
        face = importlib.import_module("aria_sampling.torch")
        return face.AriaSampler(self, batch_size=batch_size, num_samples=num_samples, **options)

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to continue from the last closed round, bit for bit.

        Ints, floats, strings, bytes, lists and dictionaries only; size O(n_regions * (lag + 1)). Open rounds are not
        part of it: after loading they are drawn again, the same.
        """
        return {
            "schema": SCHEMA,
            "fingerprint": self._partition.fingerprint,
            "n_regions": self._partition.n_regions,
            "config": self._config(),
            "losses": losses_in_words(self.normalised),
            "coverage": encode_all({} if self._uncovered is None else {"uncovered": self._uncovered}),
            **self._progress.to_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`. Open rounds are forgotten.

        Raises:
            StateError: (a ValueError) the state is damaged, or of another schema, pool or configuration: the message
                says what differs and what can be done. Nothing is changed.
        """
        lag = self._lag_of(state)
        check_fit(
            state,
            fingerprint=self._partition.fingerprint,
            n_regions=self._partition.n_regions,
            config={**self._config(), "lag": str(lag)},
            hint="; adopt() carries estimates over, in an allocator of the same estimator that has not drawn yet",
            remedy=self._way_on(state),
        )
        like = {} if self._uncovered is None else {"uncovered": self._uncovered}
        saved = decode_all("coverage", take(state, "coverage", dict), like)
        after = self._twin()
        after._was_normalised = normalised_in(state)
        after._begin(saved.get("uncovered"))
        after._progress.load(state, lag=lag)
        after._restart()
        self._become(after)

    def _way_on(self, state: Any) -> str | None:
        """Return the line by which this allocator can go on from a state of another configuration or pool, if any."""
        if self.round or len(self.rounds):
            return None
        there = cast("dict[Any, Any]", take(state, "config", dict))
        lag = int(there.get("lag", 0)) if str(there.get("lag")).isdecimal() else 0
        same_pool = state.get("fingerprint") == self._partition.fingerprint
        if same_pool and lag > self.lag and {**there, "lag": ""} == {**self._config(), "lag": ""}:
            return f"allocator.lag = {lag}"
        if there.get("estimator") != repr(self._estimator):
            return None
        return f"allocator.adopt(state, partition={'allocator.partition' if same_pool else 'old_partition'})"

    def _lag_of(self, state: Any) -> int:
        """Return the lag to load `state` with: the state's own where none was chosen here."""
        if self._lag is not None:
            return self._lag
        try:
            return integer("lag", int(state["config"]["lag"]), low=0, high=_MOST_LAG)
        except (KeyError, TypeError, ValueError):
            return self.lag

    def adopt(self, state: dict[str, Any], *, partition: Partition, mapping: Any = None) -> Adopted:
        """Carry over what another allocation learnt, of another pool, other regions or other settings.

        Only before the first draw. What is carried over are the estimates of regions: the mean of each, with no more
        losses behind it than there were. Regions are matched by the first of these that is possible: `mapping`, equal
        names, the items that both pools have under the same number, the nearest old centre. The stream is a new one,
        and `draw_counts` begin at 0. In a distributed run every rank calls it.

        Args:
            state: What the other allocator's `state_dict` returned. Its estimator must be this one's.
            partition: The partition that it had.
            mapping: For each region here its region there, integers [n_regions]; -1 for none.

        Returns:
            Which regions were matched (``carried``) and which were not (``fresh``), and a message that says how.

        Raises:
            RuntimeError: A round was drawn.
            StateError: The state is damaged, or not of that partition, or has another estimator.
            ValueError: `mapping` of another length or with a region out of range. Nothing is changed.
        """
        self._not_begun("adopt: the allocation has begun; make another Allocator and call its adopt before it draws")
        old = instance("partition", partition, Partition)
        learnt, generation = learnt_by(state, old, self._estimator)
        match, how = heirs(old, self._partition, mapping)
        feedback = inherited(self._estimator.estimate(learnt), match)
        nothing = np.empty(0, np.int64)
        after = self._twin()
        after._begin(self._uncovered)
        after._restart()
        round_ = OpenRound(Draw(nothing, nothing, np.empty(0), np.empty(0), 0), Tally())
        after._store(round_, after._learner.feedback(after._progress, feedback))
        after._progress.restart(generation + 1)
        after._restart()
        self._become(after)
        fresh = np.delete(np.arange(self._partition.n_regions, dtype=np.int64), feedback.regions)
        return Adopted(
            feedback.regions,
            fresh,
            f"{len(feedback.regions)} of {self._partition.n_regions} regions go on from estimates of the old "
            f"allocation, matched {how}; {len(fresh)} begin without one. Coverage, target and policy are this "
            f"allocator's; the stream of draws is new (generation {generation + 1}), and draw_counts begin at 0",
        )

    def digest(self) -> str:
        """Return a hex digest, of 128 bits, of pool, configuration and all that the closed rounds left behind.

        It is equal where two allocators agree bit for bit, so that ranks of a distributed run, or a resumed run and an
        uninterrupted one, can be compared by it.
        """
        settings = f"{self._partition.fingerprint} {sorted(self._config().items())} {self._progress.digest().hex()}"
        digest = hashlib.blake2b(settings.encode(), digest_size=16)
        if self._uncovered is not None:
            digest.update(self._uncovered.tobytes())
        return digest.hexdigest()

    def _config(self) -> dict[str, str]:
        """Return what must be equal for a state to fit, as text."""
        target = hashlib.blake2b(self._target.astype("<f8").tobytes(), digest_size=8).hexdigest()
        names = ("estimator", "policy", "exploration", "max_repeat", "seed", "lag")
        covering = self._covering
        return {
            **{name: repr(getattr(self, name)) for name in names},
            "target": target,
            "coverage": "None" if covering is None else covering.fingerprint,
        }


def _of_pool(coverage: Coverage, partition: Partition) -> Coverage:
    """Return `coverage`; ValueError unless it is of that partition."""
    if coverage.partition != partition:
        raise ArgumentError(
            f"coverage: expected one of the allocator's partition {shown(partition)}, got one of "
            f"{shown(coverage.partition)}",
            remedy="coverage = aria.Coverage(partition, items=items)",
        )
    return coverage


def _refuse(policy: Policy, **given: Any) -> None:
    """Raise ValueError if a baseline is given what it would ignore."""
    for name, value in given.items():
        if value is not None:
            raise ArgumentError(
                f"{name}={shown(value)}: {type(policy).__name__} draws by its own shares and would ignore it; leave "
                f"{name} out, or leave out policy={shown(policy)}",
                remedy=f"{name} = None",
            )


_MOST_ROWS = 2**31 - 1  # of a round
_MOST_LAG = 2**20  # the state has a row of float64 [n_regions] for each round of lag
_GENERATIONS = 2  # of the kernel's streams of random words
_WATCH_EVERY = 64  # rounds between two looks at what regions came to
_LOOK_EVERY = 2  # rounds between two looks at the level of losses
