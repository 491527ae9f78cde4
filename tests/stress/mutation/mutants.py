"""The deliberate bugs of `mutate.py`: each a change of one function or two, and tests that should notice.

Bugs in the arithmetic of a round are made in the Python kernel, which the tests then use (ARIA_KERNEL=reference).
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.stress.mutation.change import Edit

DRAW, OBJECTIVE, LAG, RESUME, POISON, EFFECTS, BASELINES = (
    f"tests/laws/test_{name}.py"
    for name in (
        "two_level_draw",
        "objective",
        "lag_determinism",
        "exact_resume",
        "nothing_poisons_it",
        "no_side_effects",
        "honest_baselines",
    )
)
TRACKER, RADIUS, GAIN, ALLOCATION, DRAWING, CERTIFICATE, ESTIMATE = (
    f"tests/laws/test_theory_{name}.py"
    for name in ("tracker", "radius", "gain", "allocation", "drawing", "certificate", "estimate")
)
REFERENCE, ALLOCATOR, HISTORY, CONDITIONING = (
    f"tests/unit/test_{name}.py" for name in ("reference", "allocator", "history", "conditioning")
)
CAP = "tests/laws/test_repeat_cap.py"
FAILED = "tests/stress/test_failed_calls.py"
KERNEL = "_kernel/reference.py"


@dataclass(frozen=True)
class Mutant:
    """One bug: in `file` (under src/aria_sampling) something is changed; `tests` are run in this order."""

    name: str
    what: str
    file: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    appended: str = ""  # to the end of the file

    @property
    def reference(self) -> bool:
        """Whether the bug is in the Python kernel, which has to be asked for."""
        return self.file == KERNEL


def mutant(name: str, what: str, place: str, old: str, new: str, *tests: str) -> Mutant:
    """A bug that is one change of one function: `place` is "file::qualified.name"."""
    file, where = place.split("::")
    return Mutant(name, what, file, (Edit(where, old, new),), tests)


def kernel(name: str, what: str, function: str, old: str, new: str, *tests: str) -> Mutant:
    """A bug of the kernel; without a function it is one of a constant."""
    return mutant(name, what, f"{KERNEL}::{function}", old, new, *tests)


HALVES = """
half, parts = len(losses) // 2, []
for part in (slice(half), slice(half, None)):
    size = np.bincount(which[part], minlength=m)
    total = np.bincount(which[part], losses[part], m)
    parts.append(np.where(size > 0, total / size, A / B))
mean = (parts[0] + parts[1]) / 2
"""

MUTANTS = [
    # -- Ema
    kernel(
        "linear-gain", "n losses get the gain b·n",
        "ema_update", "exp(log(np.array([1 - rate])) * count)", "np.maximum(1 - rate * count, 0.0)", TRACKER,
    ),
    mutant(
        "decay-on-a-miss", "a round without a visit lowers the mean",
        "estimators/ema.py::Ema.estimate", "total / positive", "total / positive * (1 - 0.1 * self.rate) ** age",
        TRACKER,
    ),
    mutant(
        "forget-on-a-miss", "a round without a visit lowers the weight of the past",
        "estimators/ema.py::Ema.estimate", "count = B\nage = C", "age = C\ncount = B * (1 - self.rate) ** age", TRACKER,
    ),
    mutant(
        "no-bias-correction", "averages start from 0",
        "estimators/ema.py::Ema.estimate", "total / positive", "total", TRACKER,
    ),
    kernel(
        "squares-decay-once", "the sum of squared weights decays like the weights",
        "ema_update", "keep * keep * squares", "keep * squares", TRACKER,
    ),
    kernel(
        "variance-without-count", "a visit of n losses counts as one of 1",
        "ema_update", "gain * gain / count", "gain * gain", TRACKER,
    ),
    kernel(
        "clock-one-late", "losses are dated one round late",
        "ema_update", "gain * clock", "gain * (clock + 1)", TRACKER,
    ),
    kernel(
        "visits-are-losses", "the index of the visit counts losses",
        "ema_update", "visits + 1", "visits + count", CERTIFICATE,
    ),
    # -- feedback
    kernel(
        "nan-kept", "NaN passes as a loss",
        "aggregate", "np.abs(losses) < LOSS_LIMIT", "~(np.abs(losses) >= LOSS_LIMIT)", POISON,
    ),
    kernel(
        "bad-losses-are-zeros", "losses that are not finite count as 0",
        "aggregate", "kept, losses = regions[usable], losses[usable]",
        "kept, losses = regions, np.where(usable, losses, 0.0)", POISON,
    ),
    kernel("m2-not-centred", "the spread is the sum of squares", "aggregate", "off * off", "losses * losses", DRAWING),
    kernel(
        "averages-of-ranks", "the mean of two halves (ranks) is the average of their means",
        "aggregate", "mean = A / B", HALVES, DRAWING,
    ),
    mutant(
        "cold-mean-unweighted", "a region never visited borrows the plain mean of the others",
        "estimators/base.py::borrowed", "total = np.where(cold, 0.0, A).sum()",
        "total = np.where(cold, 0.0, estimate.mean).sum() * count / max((~cold).sum(), 1)", ESTIMATE,
    ),
    kernel(
        "cold-draw-unweighted", "a draw takes the plain mean of the others for a region never visited",
        "_belief_sums", "np.where(count > 0, count * mean, 0.0), np.where(count > 0, count, 0.0)",
        "np.where(count > 0, mean, 0.0), np.where(count > 0, 1.0, 0.0)", OBJECTIVE, REFERENCE,
    ),
    kernel(
        "spread-counts-n", "n losses have n degrees of freedom", "variation", "count - 1", "count + 0", ESTIMATE,
    ),
    # -- EmaBank
    kernel(
        "unclipped-evidence", "one outlier decides which memory is trusted",
        "bank_update", "np.where(z < clip, z, clip)", "np.where(np.isnan(z), clip, z)", GAIN, POISON,
    ),
    kernel(
        "clip-touches-the-mean", "outliers are clipped before they are averaged",
        "bank_update", "average + rate * (mean - average)",
        "average + rate * (np.minimum(mean, np.where(np.isnan(before), np.inf, 5 * before)) - average)", GAIN,
    ),
    kernel(
        "evidence-for-ever", "evidence is not discounted",
        "bank_update", "(1 - discount) * evidence + z", "evidence + z", GAIN,
    ),
    kernel(
        "evidence-in-hindsight", "members are judged after they have seen the loss",
        "bank_update", "error * error * per", "error * error * per / 4", GAIN,
    ),
    kernel(
        "trust-the-worst", "weights grow with the evidence against a member",
        "bank_update", "(np.fmin.reduce(evidence, axis=0) - evidence) * 0.5",
        "(evidence - np.fmax.reduce(evidence, axis=0)) * 0.5", GAIN,
    ),
    kernel(
        "bank-per-visit", "half-lives count visits, not losses",
        "bank_update", "decay[:, None] * count", "decay[:, None] * np.sign(count)", ESTIMATE,
    ),
    # -- timesteps
    kernel(
        "profile-unweighted", "the profile is that of the allocation, not of the target",
        "profile_update", "np.bincount(bins, weights * losses, len(total))",
        "mass * np.bincount(bins, losses, len(total)) / np.maximum(count, 1)", GAIN,
    ),
    mutant(
        "profile-without-weights", "random conditioning keeps the profile of the allocation",
        "conditioning/random_conditioning.py::RandomConditioning._close",
        "self.profile.update(before.profile, bins, losses, weights)",
        "self.profile.update(before.profile, bins, losses, np.ones(len(weights)))", GAIN, CONDITIONING,
    ),
    mutant(
        "profile-of-this-round", "losses are divided by a profile that has seen them",
        "conditioning/random_conditioning.py::RandomConditioning._close",
        "A if B else before.expected", "expected", GAIN, CONDITIONING,
    ),
    # -- shares
    kernel(
        "uniform-exploration", "each region is explored alike, whatever it is worth",
        "probabilities", "rest * q[:n_regions]", "rest * (q[:n_regions] > 0) / (q > 0).sum()", OBJECTIVE,
    ),
    kernel(
        "exploration-dropped", "p is what the policy says",
        "_mixed", "((1 - exploration) / total, exploration)", "(1 / total, 0.0)", OBJECTIVE,
    ),
    mutant(
        "formula-without-exploration", "the formula in one place leaves exploration out",
        "shares.py::shares", "(1 - exploration) * x + exploration * q", "x", OBJECTIVE,
    ),
    mutant(
        "untilted-score", "p follows the score, without the target q",
        "allocator.py::Allocator._new_drawer", "self._covering, self._target, A",
        "self._covering, (self._target > 0) * 1.0, A", OBJECTIVE,
    ),
    mutant(
        "coverage-ignored", "effort that comes anyway is not filled up around",
        "drawing.py::Drawer._shares", "self._scale(coverage, tally)", "0.0", OBJECTIVE,
    ),
    mutant(
        "power-ignored", "the uncovered share counts without its power",
        "allocator.py::Allocator._new_drawer", "coverage.power * A", "A", OBJECTIVE,
    ),
    mutant(
        "data-rows-ignored", "as many data rows as drawn ones, whatever is said",
        "drawing.py::Drawer._scale", "tally.data_rows / A", "1.0", OBJECTIVE, ALLOCATOR,
    ),
    mutant(
        "nothing-is-forgotten", "online coverage counts for ever, whatever its half-life",
        "drawing.py::decayed", "counts * coverage.keep", "counts", OBJECTIVE, ALLOCATOR,
    ),
    mutant(
        "water-level-off", "one region too few gets water",
        "shares.py::water_fill", "int(np.count_nonzero(A))", "max(1, int(np.count_nonzero(A)) - 1)", OBJECTIVE,
    ),
    kernel(
        "water-without-newton", "the first guess at the water level is the last",
        "water", "n_wet == n_wet_before and (not better > level)", "True", OBJECTIVE, REFERENCE,
    ),
    mutant(
        "cap-ignored", "no share is cut to its cap", "drawing.py::Drawer._shares", "capped(share, self._cap)", "share",
        OBJECTIVE, ALLOCATOR,
    ),
    mutant(
        "cap-without-load", "a region may take any number of rows at once",
        "pacing.py::paced", "np.where(p > 0, A, 0.0)", "np.where(p > 0, float(n), 0.0)", CAP,
    ),
    mutant(
        "cap-never-forgives", "rows of long ago count against the cap",
        "pacing.py::paced", "pace[1] - n * cap", "pace[1]", CAP,
    ),
    mutant(
        "rows-by-this-draw-alone", "what a region is owed from earlier draws is forgotten",
        "pacing.py::paced", "pace[0] + n * p", "n * p", CAP,
    ),
    mutant(
        "pace-not-restored", "a loaded state begins the pace anew",
        "state.py::Progress.load", "getattr(self, name), draws[name]",
        "getattr(self, name), draws[name] * (name != 'pace')", CAP,
    ),
    mutant(
        "shares-divided-again", "a target that is shares already changes its last bits",
        "shares.py::target_shares", "raw.max() <= 1 and A <= B", "False", OBJECTIVE, HISTORY,
    ),
    # -- policies
    mutant(
        "exponent-ignored", "Proportional takes D as it is",
        "policies/proportional.py::Proportional.log_score", "self.exponent * A", "A", OBJECTIVE,
    ),
    mutant(
        "group-dro-forgets", "GroupDRO keeps the last step only",
        "policies/group_dro.py::GroupDRO.update", "A + step", "0.0 * A + step", ALLOCATION,
    ),
    mutant(
        "halving-of-nothing", "Reducible compares with the newest value kept, not the one half as old",
        "policies/reducible.py::Reducible.update", "older, newer = newer, now", "older, newer = now, now", ALLOCATION,
    ),
    # -- drawing
    kernel(
        "rounding-counts", "counts are rounded, without the uniform number",
        "_systematic", "np.arange(m) + u", "np.arange(m) + 0.5", DRAW,
    ),
    kernel(
        "cursors-not-advanced", "every draw starts a region's permutation anew",
        "draw", "np.add.at(visits, regions, 1)", "np.add.at(visits, regions, 0)", DRAW,
    ),
    kernel("feistel-one-round", "one round of the bijection in place of ten",
           "", "FEISTEL_ROUNDS = 10", "FEISTEL_ROUNDS = 1", DRAW),
    kernel(
        "same-order-each-cycle", "the permutation does not depend on the cycle",
        "positions", "cycle * GAMMA", "cycle * np.uint64(0)", DRAW,
    ),
    Mutant(
        "newest-first", "of the regions due, those waiting least are forced", KERNEL,
        (
            Edit("_due", "len(due) < most", "most > 0"),
            Edit("_due", "np.array(due, np.int64)", "np.array(due[-most:] if most else due, np.int64)"),
        ),
        (DRAWING, DRAW),
    ),
    kernel("gap-one-short", "gaps leave out the coming draw", "draw", "draws - gap", "draws - gap - 1", DRAW),
    mutant(
        "gap-of-regions", "the gap does not depend on the size of a draw",
        "drawing.py::Drawer.draw", "8 * A / B", "8 * A / 8", DRAW,
    ),
    kernel("seed-ignored", "all seeds draw the same", "stream_key", "_word(seed)", "_word(0)", DRAW, EFFECTS),
    kernel(
        "forced-not-scaled", "forced visits do not scale the probabilities of the rest",
        "draw", "p[regions] * (m / n)", "p[regions] * 1.0", DRAW,
    ),
    kernel(
        "forced-not-reported", "probabilities leave out forced visits",
        "draw", "effective[np.isin(regions, due)] += 1.0 / n", "", DRAW,
    ),
    kernel(
        "weights-of-another-p", "weights use p before forced visits, not the one that drew the row",
        "draw", "q[regions] / effective", "q[regions] / p[regions]", DRAW, OBJECTIVE,
    ),
    kernel("draws-in-order", "rows come region by region", "draw", "_shuffle(regions, A)", "None", DRAW),
    # -- allocator
    mutant(
        "newest-round-credited", "feedback goes to the newest open round",
        "rounds.py::OpenRounds.oldest", "rounds[0]", "rounds[-1]", LAG,
    ),
    mutant(
        "part-averages", "each observe() credits its rows with their average",
        "allocator.py::Allocator._checked_report", "float_vector(A, losses, length=B).copy()",
        "np.full(B, float_vector(A, losses, length=B).mean() if B else 0.0)", DRAWING,
    ),
    mutant(
        "draws-ahead-move-the-cursors", "draws ahead move the cursors of the closed rounds",
        "drawing.py::Drawer.__init__", "progress.visits.copy()", "progress.visits", RESUME,
    ),
    mutant(
        "certificate-never-adaptive", "an allocation counts as fixed beforehand",
        "allocator.py::Allocator.certificate", "self._policy.baseline is None", "False", CERTIFICATE,
    ),
    mutant(
        "no-union-over-rounds", "radii hold at one time only",
        "estimators/certificate.py::certify", "6 * alpha / A", "alpha", CERTIFICATE,
    ),
    mutant(
        "uncertain-at-half", "estimates are told apart at half a standard error",
        "allocator.py::Allocator.metrics", "A > estimate.stderr", "A > estimate.stderr / 2", ESTIMATE,
    ),
    mutant(
        "baselines-are-forced", "a baseline is visited by force, too",
        "allocator.py::Allocator._new_drawer", "self._policy.baseline is None and A", "A", BASELINES,
    ),
    mutant(
        "baselines-explore", "a baseline has an exploration that it ignores",
        "allocator.py::Allocator.__init__", "target, exploration = baseline, 1.0", "target = baseline", BASELINES,
    ),
    mutant(
        "heirs-inherit-whole", "several heirs of one region have all of its losses behind them",
        "adoption.py::inherited", "estimate.count[source] / n_heirs", "estimate.count[source]", ALLOCATOR,
    ),
    # -- what is saved
    Mutant(
        "lag-one-more", "draws act on feedback one round older than they may", "allocator.py",
        (
            Edit("Allocator.draw", "drawer.round - 1 - self.lag", "drawer.round - 2 - self.lag"),
            Edit("Allocator._catch_up", "self.round - 1 - self.lag", "self.round - 2 - self.lag"),
        ),
        (TRACKER, LAG),
    ),
    mutant(
        "lag-ignored", "draws act on whatever has arrived",
        "allocator.py::Allocator.draw", "drawer.round - 1 - self.lag", "drawer.round", LAG,
    ),
    mutant(
        "cursors-not-restored", "a loaded state begins the permutations anew",
        "state.py::Progress.load", "getattr(self, name), draws[name]",
        "getattr(self, name), draws[name] * (name != 'visits')", RESUME,
    ),
    mutant(
        "changes-not-saved", "what feedback will do to coming draws is not part of a state",
        "state.py::Progress.arrays", "deque(self._known_changes())", "deque()", RESUME,
    ),
    mutant(
        "negative-estimates", "estimates below 0 reach the policy",
        "learning.py::_not_negative", "np.maximum(estimate.mean, 0.0)", "estimate.mean", POISON,
    ),
    mutant(
        "at-once-otherwise", "the kernel's one call clips evidence otherwise than the estimator says",
        "learning.py::_in_one_call", "estimator.clip", "2 * estimator.clip", "tests/unit/test_learning.py",
    ),
    # -- all or nothing
    mutant(
        "shift-noted-first", "Ctrl-C between the shift and the weights leaves weights of two shifts",
        "drawing.py::Drawer.apply", "self._weigh_all(change.shift)\nself._shift = change.shift",
        "self._shift = change.shift\nself._weigh_all(change.shift)", FAILED,
    ),
    mutant(
        "loaded-in-place", "a load that fails half-way has changed what it got to",
        "allocator.py::Allocator.load_state_dict", "after = A", "after = self", FAILED,
    ),
    mutant(
        "draw-not-undone", "a draw that fails leaves the cursors where it got to",
        "allocator.py::Allocator.draw", "self._drawer = self._new_drawer(rounds)\nraise", "raise", FAILED,
    ),
    mutant(
        "counted-before-it-is-stored", "a round whose part fails has counted already",
        "learning.py::Learner.feedback", "k, state = A", "k, state = A\nprogress.counters[2] += 1", FAILED,
    ),
    mutant(
        "states-may-be-changed", "a part may change what it is shown",
        "learning.py::fixed", "array.flags.writeable = False", "", FAILED,
    ),
]  # fmt: skip
