"""`Learner`: what the losses of a round make of the state, computed aside.

It asks the estimator and the policy by value, and checks what they answer, since they may be a user's own. For parts
that come with the library the kernel has the same in one call, bit for bit, in a fraction of the time (a test holds the
two together).

It is apart from the allocator because nothing here changes anything: the allocator stores what it returns, all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray, IntArray, State
from aria_sampling._check import float_vector, kind_of, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.estimators import Ema, EmaBank, Estimate, Estimator, Feedback, borrowed
from aria_sampling.policies import Policy, Proportional
from aria_sampling.state import Change, Progress

__all__ = ["Learner", "Learnt", "first_state", "fixed"]


class Learnt(NamedTuple):
    """What a round with feedback from m regions comes to.

    Attributes:
        regions: Regions with losses, ascending, int64 [m].
        mean: Mean of the losses of each in this round, float64 [m].
        dropped: Number of losses left out.
        rows: The estimator's rows of these regions.
        shared: Its shared arrays.
        policy: The policy's state, whole.
        belief: Estimated mean and effective number of losses, float64 [m, 2].
        stderr: Standard errors of these means, float64 [m].
        lowest: The lowest of these means.
        change: What becomes of the scores; None: nothing.
    """

    regions: IntArray
    mean: FloatArray
    dropped: int
    rows: dict[str, FloatArray]
    shared: dict[str, FloatArray]
    policy: State
    belief: FloatArray
    stderr: FloatArray
    lowest: float
    change: Change | None


class Learner:
    """An estimator and a policy, asked together.

    Args:
        estimator: Tracks the discrepancies.
        policy: Makes scores of them.
        target: q, float64 [n_regions].
    """

    def __init__(self, estimator: Estimator, policy: Policy, target: FloatArray) -> None:
        self._estimator, self._policy, self._target = estimator, policy, target
        self._at_once = _in_one_call(estimator, policy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what it is made of: the kernel may be another one where it is unpickled."""
        return Learner, (self._estimator, self._policy, self._target)

    def rows(self, progress: Progress, regions: IntArray, losses: FloatArray) -> Learnt:
        """Return what one loss a row comes to.

        Args:
            progress: The state before.
            regions: Region of each row, int64 [n].
            losses: float64 [n].

        Raises:
            ValueError: The estimator or the policy answers with another shape, or with NaN.
        """
        if self._at_once is None:
            return self.feedback(progress, Feedback(*_kernel.aggregate(regions, losses, len(self._target))))
        shared = progress.estimator.shared
        new = self._at_once(regions, losses, progress.estimator.rows, shared["cv2"], float(shared["clock"][0]))
        if not new.usable:
            raise self._unusable(new.belief[:, 0], new.belief[:, 1], new.stderr)
        change = self._changed(progress, new.regions, new.scores, new.top, new.belief) if len(new.regions) else None
        return Learnt(
            new.regions, new.mean, new.dropped, new.rows, {"clock": shared["clock"] + 1, "cv2": new.cv2},
            progress.policy, new.belief, new.stderr, new.lowest, change,
        )  # fmt: skip

    def feedback(self, progress: Progress, feedback: Feedback) -> Learnt:
        """Return what `feedback` comes to, asking the parts by value. Raises as `rows` does."""
        for array in (feedback.regions, feedback.count, feedback.mean, feedback.m2):
            array.flags.writeable = False  # what an estimator is shown is not its to change
        k, state = feedback.regions, progress.estimator
        before = {name: array.take(k, axis=0) for name, array in state.rows.items()}
        answer: Any = self._estimator.update(dict(before), _copies(state.shared), feedback)
        if not isinstance(answer, tuple) or len(cast("tuple[Any, ...]", answer)) != 2:
            raise ArgumentError(f"estimator: update(): expected a tuple (rows, shared), got {shown(answer)}")
        rows, shared = cast("tuple[dict[str, FloatArray], dict[str, FloatArray]]", answer)
        _same_form("estimator: update()", "rows", rows, before)
        _same_form("estimator: update()", "shared", shared, state.shared)
        belief, stderr, policy, change = np.empty((len(k), 2)), np.empty(len(k)), progress.policy, None
        if len(k):
            now = self._estimate(State(rows, shared), len(k))
            belief[:, 0], belief[:, 1], stderr = now.mean, now.count, now.stderr
            policy, change = self._scored(progress, k, State(rows, shared), now, belief)
        lowest = float(belief[:, 0].min(initial=np.inf))
        return Learnt(k, feedback.mean, feedback.dropped, rows, shared, policy, belief, stderr, lowest, change)

    def _estimate(self, state: State, length: int) -> Estimate:
        """Return what the estimator believes of regions with feedback; ValueError for another shape, or NaN."""
        now = self._estimator.estimate(fixed(state))
        for name in ("mean", "stderr", "count", "age"):
            values = getattr(now, name, None)
            if not _is_float64(values, (length,)):
                who = f"estimator: estimate() of {kind_of(self._estimator)}"
                raise ArgumentError(f"{who}, {name}: expected float64 [{length}], got {shown(values)}")
        if not _kernel.usable(*map(np.ascontiguousarray, (now.mean, now.stderr, now.count))):
            raise self._unusable(now.mean, now.count, now.stderr)
        return now

    def _unusable(self, mean: FloatArray, count: FloatArray, stderr: FloatArray) -> ArgumentError:
        return ArgumentError(
            f"estimator: estimate() of {kind_of(self._estimator)}: expected finite means, counts above 0 and standard "
            f"errors of at least 0 once there is feedback, got means {shown(mean)}, counts {shown(count)}, errors "
            f"{shown(stderr)}"
        )

    def _scored(
        self, progress: Progress, k: IntArray, state: State, now: Estimate, belief: FloatArray
    ) -> tuple[State, Change | None]:
        """Return the policy's state and what becomes of the scores when regions k are believed to be `now`."""
        policy = self._policy
        if policy.baseline is not None:
            return progress.policy, None
        if policy.local:
            scores = self._scores(policy.log_score(_not_negative(now), fixed(progress.policy).shared), len(k))
            return progress.policy, self._changed(progress, k, scores, float(scores.max()), belief)
        rows = _copies(progress.estimator.rows)
        for name, array in state.rows.items():
            rows[name][k] = array
        everywhere = borrowed(self._estimator.estimate(fixed(State(rows, state.shared))))
        after = policy.update(fixed(progress.policy), _not_negative(everywhere))
        if not isinstance(after, State):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(f"policy: update(): expected a State, got {shown(after)}")
        _same_form("policy: update()", "rows", after.rows, progress.policy.rows)
        _same_form("policy: update()", "shared", after.shared, progress.policy.shared)
        scores = self._scores(policy.log_score(after), len(self._target))
        top = float(scores[self._target > 0].max())
        return after, Change(progress.round, None, scores, np.nan, top if top > -np.inf else 0.0)

    def _changed(self, progress: Progress, k: IntArray, scores: FloatArray, top: float, belief: FloatArray) -> Change:
        """Return the change of scores, `top` the highest of them, by a local policy.

        With it come the score of regions never visited, and the shift.
        """
        round_ = progress.round
        cold, shift = progress.newest
        look = round_ % _LEVEL_EVERY == 0
        if look or progress.n_cold:
            mean = _kernel.borrowed(k, belief, progress.belief, progress.belief_sums)
            one = Estimate(np.array([max(mean, 0.0)]), _INFINITE, np.zeros(1), _INFINITE)
            cold = float(self._scores(self._policy.log_score(one, fixed(progress.policy).shared), 1)[0])
        if look or not shift - _SHIFT_BELOW < top < shift + _SHIFT_ABOVE:
            highest = max(progress.highest(k, scores, self._target), cold if progress.n_cold else -np.inf)
            shift = _SHIFT_STEP * round(highest / _SHIFT_STEP) if highest > -np.inf else shift
        return Change(round_, k, scores, cold, shift)

    def _scores(self, scores: Any, length: int) -> FloatArray:
        """Return log scores, in an array of our own; ValueError for another shape, NaN or +inf."""
        who = f"policy: log_score() of {kind_of(self._policy)}"
        scores = (scores if _is_float64(scores, (length,)) else float_vector(who, scores, length=length)).copy()
        if not (scores < np.inf).all():  # NaN included
            raise ArgumentError(f"{who}: expected numbers below inf, got {shown(scores)}")
        return scores


def _in_one_call(estimator: Estimator, policy: Policy) -> Callable[..., Any] | None:
    """Return the kernel's call for these parts, of regions, losses, rows, cv2 and clock; None: it has none.

    Subclasses may do otherwise, and are asked by value. So is everyone where the kernel is the reference: by value is
    what that refers to.
    """
    if not _kernel.COMPILED or type(policy) is not Proportional:
        return None
    if type(estimator) is Ema:
        return partial(
            _kernel.learn_ema, rate=estimator.rate, per_visit=estimator.per == "visit", exponent=policy.exponent
        )
    if type(estimator) is EmaBank:
        decay, tanh = estimator.memory
        return partial(
            _kernel.learn_bank,
            decay=decay,
            tanh=tanh,
            discount=estimator.discount,
            clip=estimator.clip,
            exponent=policy.exponent,
        )
    return None


def first_state(who: str, state: Any, n_regions: int) -> State:
    """Return the first state of a part; ValueError unless its arrays are float64, and rows one a region."""
    expected = "a State of float64 arrays, rows [n_regions, ...]"
    if not isinstance(state, State):
        raise ArgumentError(f"{who}: expected init() to return {expected}, got {shown(state)}")
    for name, array in [*state.rows.items(), *state.shared.items()]:
        whole = _is_float64(array, getattr(array, "shape", ()))
        if not whole or (name in state.rows and array.shape[:1] != (n_regions,)):
            raise ArgumentError(f"{who}: expected init() to return {expected}, got {name}={shown(array)}")
    return State(_copies(state.rows), _copies(state.shared))


def _same_form(who: str, what: str, found: Any, like: dict[str, FloatArray]) -> None:
    """Raise ValueError unless `found` has the names and shapes of `like`, and float64 arrays."""
    there = cast("dict[Any, Any]", found) if isinstance(found, dict) else {}
    for name, array in like.items():
        if not _is_float64(there.get(name), array.shape):
            raise ArgumentError(
                f"{who}: expected {what} with {name!r}, float64{[*array.shape]}, got {shown(there.get(name))}"
            )
    if len(there) != len(like):
        raise ArgumentError(f"{who}: expected {what} {shown(sorted(like))}, got {shown(list(there))}")


def _is_float64(value: Any, shape: tuple[int, ...]) -> bool:
    """Return whether `value` is a float64 array of that shape."""
    return type(value) is np.ndarray and value.shape == shape and value.dtype == _FLOAT64


def _copies(arrays: dict[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: array.copy() for name, array in arrays.items()}


def fixed(state: State) -> State:
    """Return a state whose arrays cannot be written to: what a part is shown is not its to change."""
    if not state.rows and not state.shared:
        return state
    shown_state = State(
        {name: array.view() for name, array in state.rows.items()},
        {name: array.view() for name, array in state.shared.items()},
    )
    for array in (*shown_state.rows.values(), *shown_state.shared.values()):
        array.flags.writeable = False
    return shown_state


def _not_negative(estimate: Estimate) -> Estimate:
    """Return the estimate with its means clamped at 0, as policies see it."""
    return Estimate(np.maximum(estimate.mean, 0.0), estimate.stderr, estimate.count, estimate.age)


_FLOAT64 = np.dtype(np.float64)
_LEVEL_EVERY = 64  # rounds between two looks at the level of scores, once every region was visited
_SHIFT_STEP = 32.0  # the shift is a multiple of it, so that it changes rarely: then all weights are computed anew
_SHIFT_BELOW, _SHIFT_ABOVE = 128.0, 256.0  # scores so far from the shift call for a look at once: exp(x) has its range
_INFINITE = np.full(1, np.inf)
_INFINITE.flags.writeable = False
