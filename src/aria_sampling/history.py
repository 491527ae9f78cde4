"""`History`: what an allocation did, kept in bounded memory and saved with the run.

It is apart from the allocator because nothing in it decides a draw: a run without a history draws the same.

>>> import aria_sampling as aria
>>> allocator = aria.Allocator(aria.Partition.from_labels([0] * 90 + [1] * 10), target="uniform", seed=0)
>>> history = aria.History(allocator, every=10)
>>> for _ in range(200):
...     draw = allocator.draw(16)
...     allocator.observe(draw.regions, 1.0 + 3.0 * (draw.regions == 1))
...     allocator.step()
...     recorded = history.record()
>>> len(history), history.rounds[-1].item(), history.draw_counts[-1].sum().item()
(20, 200, 3200)
>>> history.probabilities[-1].astype(float).round(2).tolist()
[0.26, 0.74]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray, Arrays, FloatArray, IntArray, decode, decode_all, encode, encode_all, take
from aria_sampling._check import instance, integer, shown
from aria_sampling.advice import Advice, Curves, advise
from aria_sampling.allocator import Allocator
from aria_sampling.conditioning import RandomConditioning
from aria_sampling.errors import ArgumentError, StateError
from aria_sampling.partition import Partition
from aria_sampling.state import check_pool, losses_in_words, normalised_in

__all__ = ["History"]

_SCHEMA = 1
_MOST_BYTES = 2**31  # of a column of the saved state


class History:
    """Records an `Allocator` every so many rounds: metrics, estimates, probabilities and draws of every region.

    Call `record` after each `Allocator.step` (or after each ``observe`` of a sampler): it does something only every
    `every` closed rounds. When it is full, every second record is dropped and records are made half as often, so a
    history never outgrows ``max_records * n_regions * 24`` bytes, which is also the size of its state from the first
    record on: 31 MB at 5,000 regions. Take a smaller `max_records` for more regions.

    A record is a function of the closed rounds alone: neither batches drawn ahead nor a stop and a resume show in it.

    Args:
        allocator: Whose rounds are recorded. Or the `RandomConditioning` around it.
        every: Rounds between two records at first.
        max_records: The most records to keep, at least 4.

    Raises:
        ValueError: An argument of the wrong type or out of its range; `max_records` such that a column of the
            state would have 2 GiB or more.
    """

    def __init__(
        self,
        allocator: Allocator | RandomConditioning,
        *,
        every: int = 50,
        max_records: int = 256,
    ) -> None:
        if isinstance(allocator, RandomConditioning):
            allocator = allocator.allocator
        if not isinstance(allocator, Allocator):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"allocator: expected an Allocator or a RandomConditioning, got {type(allocator).__name__}"
                + (". Pass its .allocator" if isinstance(getattr(allocator, "allocator", None), Allocator) else "")
            )
        n_regions = allocator.partition.n_regions
        self.allocator = allocator
        self.every = integer("every", every, low=1)
        self.max_records = integer("max_records", max_records, low=4)
        if self.max_records * n_regions * 8 >= _MOST_BYTES:
            raise ArgumentError(
                f"max_records={max_records}: with {n_regions} regions, expected at most {_MOST_BYTES // 8 // n_regions}"
            )
        self._metric_names = tuple(name for name in allocator.metrics() if name not in _OF_THE_MOMENT)
        self._columns: Arrays = {
            "rounds": np.zeros(self.max_records, np.int64),
            "metrics": np.zeros((self.max_records, len(self._metric_names))),
            "draw_counts": np.zeros((self.max_records, n_regions), np.int64),
            **{name: np.zeros((self.max_records, n_regions), np.float32) for name in _REGIONAL},
        }
        self._n = 0
        self._spacing = self.every
        self._settings = _settings(allocator)

    @classmethod
    def read(cls, state: dict[str, Any], partition: Partition) -> History:
        """Return a saved history, to look at: what it holds, its advice, a report.

        Its allocator has the target of the run, and knows what losses meant. `settings` has the others in words.

        Raises:
            StateError: The state is damaged, or of another schema or pool.
        """
        config: dict[str, Any] = take(state, "config", dict)
        try:
            every, most = int(take(config, "every", str)), int(take(config, "max_records", str))
        except ValueError:
            raise StateError(f"state entry 'config': expected numbers of records, got {shown(config)}") from None
        pool = instance("partition", partition, Partition)
        check_pool(state, fingerprint=pool.fingerprint, n_regions=pool.n_regions, config=config)
        target = decode("target", take(state, "target", dict))
        allocator = Allocator(pool, target=target)
        allocator.normalised = normalised_in(config)
        history = cls(allocator, every=every, max_records=most)
        history.load_state_dict(state)
        history._settings = _checked_settings(state)
        return history

    # -- recording -------------------------------------------------------------------------------------

    def record(self) -> bool:
        """Record the allocator if it is time to, and return whether it was.

        If the allocator went back to an earlier state, the records of rounds that are to come again are dropped.
        """
        if self.allocator.round < self._last:
            kept = np.searchsorted(self.rounds, self.allocator.round, side="right")
            self._keep(np.arange(kept), self._spacing)
        if self._due and self._n == self.max_records:
            self._keep(np.arange(1, self._n, 2), 2 * self._spacing)
        if not self._due:
            return False
        for name, value in self._observed().items():
            self._columns[name][self._n] = value
        self._n += 1
        return True

    @property
    def _due(self) -> bool:
        """Whether a multiple of the spacing has been reached since the last record."""
        return self.allocator.round // self._spacing > self._last // self._spacing

    def _observed(self) -> dict[str, Any]:
        """Return the row of now, by column."""
        settled = self.allocator.settled()  # open rounds depend on how far a loader draws ahead
        metrics, estimate = settled.metrics(), settled.estimate()
        with np.errstate(over="ignore"):  # float32 ends at 3e38
            regional = {name: getattr(estimate, name).astype(np.float32) for name in ("mean", "stderr", "count")}
        return {
            "rounds": settled.round,
            "metrics": [metrics[name] for name in self._metric_names],
            "draw_counts": settled.draw_counts,
            "probabilities": settled.probabilities,
            **regional,
        }

    def _keep(self, rows: IntArray, spacing: int) -> None:
        """Keep these records alone, and make new ones that many rounds apart."""
        columns = {name: np.zeros_like(column) for name, column in self._columns.items()}
        for name, column in columns.items():
            column[: len(rows)] = self._columns[name][rows]
        self._columns, self._n, self._spacing = columns, len(rows), spacing

    @property
    def _last(self) -> int:
        """Round of the last record, 0 before the first."""
        return int(self._columns["rounds"][self._n - 1]) if self._n else 0

    # -- what it holds ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of records, T in the shapes below."""
        return self._n

    def _view(self, name: str) -> AnyArray:
        """Return the records of a column, which cannot be written to."""
        view = self._columns[name][: self._n]
        view.flags.writeable = False
        return view

    @property
    def rounds(self) -> IntArray:
        """Closed rounds at each record, int64 [T], ascending."""
        return self._view("rounds")

    @property
    def discrepancy(self) -> AnyArray:
        """Estimated mean loss of every region, float32 [T, n_regions]; see `Estimate`."""
        return self._view("mean")

    @property
    def stderr(self) -> AnyArray:
        """Its standard error, float32 [T, n_regions]."""
        return self._view("stderr")

    @property
    def count(self) -> AnyArray:
        """Effective number of losses behind it, float32 [T, n_regions]."""
        return self._view("count")

    @property
    def probabilities(self) -> AnyArray:
        """What the draw after the closed rounds follows, forced visits apart, float32 [T, n_regions]."""
        return self._view("probabilities")

    @property
    def draw_counts(self) -> IntArray:
        """Draws from each region since the first round, int64 [T, n_regions]."""
        return self._view("draw_counts")

    @property
    def normalised(self) -> bool:
        """Whether losses are divided by what is usual at their noise level: discrepancies are then ratios around 1.

        Their mean is near 1 by construction, whatever was learnt. The allocator says so: see `Allocator.normalised`.
        """
        return self.allocator.normalised

    @property
    def settings(self) -> dict[str, str]:
        """Settings of the run's allocator in words: policy, estimator, exploration, max_repeat, coverage."""
        return dict(self._settings)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """What `metrics` has."""
        return self._metric_names

    def metrics(self, name: str) -> FloatArray:
        """Return one of `Allocator.metrics` at each record, float64 [T]; ValueError for another name."""
        if not isinstance(name, str) or name not in self._metric_names:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"name={name!r}: expected one of {', '.join(self._metric_names)}")
        return self._view("metrics")[:, self._metric_names.index(name)]

    def advice(self, *, regions_learn_alone: bool = False) -> Advice:
        """Return whether the pool's own shares, or uniform ones, would have done as well as what was drawn.

        It takes training on the drawn rows as they are (not weighted by `Draw.weights`). Where a run cannot tell,
        which is often, it says so; see the guide on reading a history.

        Args:
            regions_learn_alone: Whether a region learns from its own draws alone, but for what all regions have in
                common. One run cannot show it. By default any part of what a region learnt may have come from all
                draws together; the intervals are then wide, and ``"adaptive"`` is never said. With True where it is
                not so, gains are claimed that are not there.

        Raises:
            ValueError: `regions_learn_alone` with a coverage: its rows teach regions, too.
        """
        if not isinstance(regions_learn_alone, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"regions_learn_alone={shown(regions_learn_alone)}: expected True or False")
        if regions_learn_alone and self._settings["coverage"] != _NONE:
            raise ArgumentError(
                "regions_learn_alone=True: expected no coverage; its rows train anyway, so regions do not learn from "
                "their draws alone",
                remedy="advice = history.advice()",
            )
        curves = Curves(self.draw_counts, self.discrepancy, self.stderr, self.count)
        return advise(
            curves,
            self.allocator.target,
            self.allocator.partition.sizes,
            regions_learn_alone=regions_learn_alone,
            normalised=self.normalised,
        )

    # -- saving ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as ints, strings, bytes, lists and dictionaries. Save it with the allocator's state."""
        pool = self.allocator.partition
        return {
            "schema": _SCHEMA,
            "fingerprint": pool.fingerprint,
            "n_regions": pool.n_regions,
            "config": self._config(),
            "settings": self.settings,
            "target": encode(self.allocator.target),
            "records": self._n,
            "spacing": self._spacing,
            "columns": encode_all(self._columns),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`.

        Raises:
            StateError: (a ValueError) the state is damaged, or of another schema, pool, target, `every` or
                `max_records`: the message says what differs. Nothing is changed.
        """
        if (its := take(state, "schema", int)) != _SCHEMA:
            raise StateError(f"state of another version of this library: schema={its}, this one reads {_SCHEMA}")
        pool = self.allocator.partition
        check_pool(state, fingerprint=pool.fingerprint, n_regions=pool.n_regions, config=self._config())
        mine = {"target": self.allocator.target}
        target = decode_all("state", {"target": take(state, "target", dict)}, mine)["target"]
        if not np.array_equal(target, mine["target"]):
            raise StateError(f"state of another target: {target} there, {mine['target']} here")
        _checked_settings(state)  # in words, for a report: they need not be those of now
        n, spacing = take(state, "records", int), take(state, "spacing", int)
        columns = decode_all("columns", take(state, "columns", dict), self._columns)
        rounds = columns["rounds"][: max(n, 0)]
        if not 0 <= n <= self.max_records or spacing < self.every or not (np.diff(rounds, prepend=0) > 0).all():
            raise StateError(
                f"state: expected 0 to {self.max_records} records, ascending, spaced {self.every} or more, got {n} "
                f"of the rounds {rounds}, spaced {spacing}"
            )
        self._columns, self._n, self._spacing = columns, n, spacing

    def _config(self) -> dict[str, str]:
        """Return what must be equal for a state to fit, as text."""
        settings: dict[str, Any] = {
            "every": self.every,
            "max_records": self.max_records,
            "metrics": " ".join(self._metric_names),
        }
        settings["losses"] = losses_in_words(self.normalised)
        return {name: str(value) for name, value in settings.items()}


_OF_THE_MOMENT = ("round", "open_rounds")  # metrics that are a column already, or depend on what a loader draws ahead
_REGIONAL = ("mean", "stderr", "count", "probabilities")
_SETTINGS = ("policy", "estimator", "exploration", "max_repeat", "coverage")
_NONE = "none"


def _settings(allocator: Allocator) -> dict[str, str]:
    """Return settings in words, all of `_SETTINGS`."""
    coverage, text = allocator.coverage, _NONE
    if coverage is not None and coverage.is_online:
        text = "online, by the rows that came"
    elif coverage is not None and not coverage.is_empty:
        none = int((coverage.counts == 0).sum())
        text = f"{coverage.counts.sum():,.0f} rows of data, none in {none:,} regions"
    return {
        "policy": repr(allocator.policy),
        "estimator": repr(allocator.estimator),
        "exploration": f"{allocator.exploration:g}",
        "max_repeat": _NONE if allocator.max_repeat is None else f"{allocator.max_repeat:g}",
        "coverage": text,
    }


def _checked_settings(state: Any) -> dict[str, str]:
    """Return the settings of a saved state; StateError unless they are text, and all there."""
    settings: dict[str, Any] = take(state, "settings", dict)
    if set(settings) != set(_SETTINGS) or not all(isinstance(text, str) for text in settings.values()):
        raise StateError(f"state entry 'settings': expected text for {', '.join(_SETTINGS)}, got {shown(settings)}")
    return dict(settings)
