"""The deliberate bugs of `mutate.py`: each an exact replacement in one file, and property tests that should notice."""

from dataclasses import dataclass

LAW1, LAW2, LAW3, LAW5, LAW6, LAW7 = (
    f"tests/laws/test_law{name}.py"
    for name in ("1_draw", "2_objective", "3_lag", "5_resume", "6_poison", "7_side_effects")
)
TRACKER, RADIUS, GAIN, ALLOCATION, DRAWING, CERTIFICATE, ESTIMATE = (
    f"tests/laws/test_theory_{name}.py"
    for name in ("tracker", "radius", "gain", "allocation", "drawing", "certificate", "estimate")
)


@dataclass(frozen=True)
class Mutant:
    """One bug: in `file` (under src/aria_sampling) `old` becomes `new`; `tests` are run in this order."""

    name: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


EMA, BASE, BANK = "estimation/ema.py", "estimation/base.py", "estimation/bank.py"
SHARES, DRAW, ALLOCATOR, PROGRESS = "allocation/shares.py", "drawing.py", "allocator.py", "progress.py"

MUTANTS = [
    # -- Ema
    Mutant(
        "linear-gain", "n losses get the gain b·n", EMA,
        "return -np.expm1(count * np.log1p(-np.float64(self.rate)))",
        "return np.minimum(count * self.rate, 1.0)",
        (TRACKER,),
    ),
    Mutant(
        "decay-on-a-miss", "a round without a visit lowers the mean", EMA,
        "        keep = 1 - gain\n",
        '        keep = 1 - gain\n        state["total"] *= 1 - 0.1 * self.rate\n',
        (TRACKER,),
    ),
    Mutant(
        "forget-on-a-miss", "a round without a visit lowers the weight of the past", EMA,
        "        keep = 1 - gain\n",
        "        keep = 1 - gain\n"
        "        for name in ('total', 'weight', 'time'):\n            state[name] *= 1 - self.rate\n",
        (TRACKER,),
    ),
    Mutant(
        "no-bias-correction", "averages start from 0", EMA,
        'return fill_unvisited(_ratio(state["total"], weight), ',
        'return fill_unvisited(state["total"], ',
        (TRACKER,),
    ),
    Mutant(
        "squares-decay-once", "the sum of squared weights decays like the weights", EMA,
        'keep**2 * state["squares"][k]', 'keep * state["squares"][k]',
        (TRACKER,),
    ),
    Mutant(
        "variance-without-count", "a visit of n losses counts as one of 1", EMA,
        "gain**2 / feedback.count", "gain**2",
        (TRACKER,),
    ),
    Mutant(
        "clock-one-late", "losses are dated one round late", EMA,
        'gain * state["clock"]', 'gain * (state["clock"] + 1)',
        (TRACKER,),
    ),
    Mutant(
        "visits-are-losses", "the index of the visit counts losses", EMA,
        'state["visits"][k] += 1', 'state["visits"][k] += feedback.count',
        (CERTIFICATE,),
    ),
    # -- feedback
    Mutant(
        "nan-kept", "NaN passes as a loss", BASE,
        "usable = np.abs(losses) < LOSS_LIMIT", "usable = ~(np.abs(losses) >= LOSS_LIMIT)",
        (LAW6,),
    ),
    Mutant(
        "m2-not-centred", "the spread is the sum of squares", BASE,
        "(losses - centre[regions]) ** 2", "losses ** 2",
        (DRAWING,),
    ),
    Mutant(
        "averages-of-ranks", "the mean of two halves (ranks) is the average of their means", BASE,
        "        centre = np.zeros(n_regions)\n",
        "        half, parts = len(regions) // 2, []\n"
        "        for part in (slice(half), slice(half, None)):\n"
        "            size = np.bincount(regions[part], minlength=n_regions)[visited]\n"
        "            total = np.bincount(regions[part], losses[part], n_regions)[visited]\n"
        "            parts.append(np.where(size > 0, total / np.maximum(size, 1), mean))\n"
        "        mean = (parts[0] + parts[1]) / 2\n"
        "        centre = np.zeros(n_regions)\n",
        (DRAWING,),
    ),
    Mutant(
        "cold-mean-unweighted", "a region never visited borrows the plain mean of the others", BASE,
        "mean[cold] = (count * mean).sum() / weight if", "mean[cold] = mean.sum() / (len(mean) - len(cold)) if",
        (ESTIMATE,),
    ),
    Mutant(
        "spread-counts-n", "n losses have n degrees of freedom", "estimation/variation.py",
        "freedom = feedback.count - 1", "freedom = feedback.count",
        (ESTIMATE,),
    ),
    # -- EmaBank
    Mutant(
        "unclipped-evidence", "one outlier decides which memory is trusted", BANK,
        "np.minimum(error2 / scale2, self.clip)", "error2 / scale2",
        (GAIN, LAW6),
    ),
    Mutant(
        "clip-touches-the-mean", "outliers are clipped before they are averaged", BANK,
        "total = keep * total + gain * y",
        "total = keep * total + gain * np.minimum(y, np.where(known, 5 * before, np.inf))",
        (GAIN,),
    ),
    Mutant(
        "evidence-for-ever", "evidence is not discounted", BANK,
        "evidence *= 1 - self.discount", "evidence *= 1.0",
        (GAIN,),
    ),
    Mutant(
        "evidence-in-hindsight", "members are judged after they have seen the loss", BANK,
        "(y - total / (weight + ~known)) ** 2",
        "((y - total / (weight + ~known)) / 2) ** 2",
        (GAIN,),
    ),
    Mutant(
        "trust-the-worst", "weights grow with the evidence against a member", BANK,
        "(evidence.min(axis=0) - evidence) / 2",
        "(evidence - evidence.max(axis=0)) / 2",
        (GAIN,),
    ),
    Mutant(
        "bank-per-visit", "half-lives count visits, not losses", BANK,
        "gain = -np.expm1(decay * new)", "gain = -np.expm1(decay * np.sign(new))",
        (ESTIMATE,),
    ),
    # -- timesteps
    Mutant(
        "profile-unweighted", "the profile is that of the allocation, not of the target", "estimation/timestep.py",
        "np.bincount(bins, weights * losses, self.n_bins)",
        "weight * np.bincount(bins, losses, self.n_bins) / np.maximum(np.bincount(bins, minlength=self.n_bins), 1)",
        (GAIN,),
    ),
    Mutant(
        "mean-over-ranges", "the control variate centres over ranges, not timesteps", "estimation/timestep.py",
        "(sizes * self.expected(state, starts[:-1])).sum()", "self.expected(state, starts[:-1]).mean()",
        (GAIN,),
    ),
    Mutant(
        "profile-by-correction", "the profile follows the corrected weights, not q/p", "conditioning.py",
        "self.allocator.target[draw.regions] / draw.probabilities", "draw.weights",
        (GAIN,),
    ),
    # -- shares
    Mutant(
        "uniform-floor", "the floor is floor / K", SHARES,
        "x += floor * q", "x += floor * (q > 0) / (q > 0).sum()",
        (LAW2,),
    ),
    Mutant(
        "floor-dropped", "p is what the policy says", SHARES,
        "    x = (1 - floor) * x\n    x += floor * q\n", "",
        (LAW2,),
    ),
    Mutant(
        "untilted-phi", "p ∝ φ, without the target q", SHARES,
        "raw *= q", "raw *= q > 0",
        (LAW2,),
    ),
    Mutant(
        "present-ignored", "effort that comes anyway is not filled up around", SHARES,
        "if effort is not None and effort.any():", "if effort is None and False:",
        (LAW2,),
    ),
    Mutant(
        "water-level-off", "one region too few gets water", SHARES,
        "fills = int(np.count_nonzero(level > ground))", "fills = max(1, int(np.count_nonzero(level > ground)) - 1)",
        (LAW2,),
    ),
    # -- policies
    Mutant(
        "exponent-ignored", "Proportional takes D as it is", "allocation/proportional.py",
        "self.exponent * np.log(estimate.mean)", "np.log(estimate.mean)",
        (LAW2,),
    ),
    Mutant(
        "temperature-times", "Softmax multiplies by its temperature", "allocation/softmax.py",
        "(estimate.mean - estimate.mean.max()) / self.temperature",
        "(estimate.mean - estimate.mean.max()) * self.temperature",
        (ALLOCATION,),
    ),
    Mutant(
        "minimax-forgets", "Minimax keeps the last step only", "allocation/minimax.py",
        'state["log_phi"] += self.step_size * (excess / scale)',
        'state["log_phi"][:] = self.step_size * (excess / scale)',
        (ALLOCATION,),
    ),
    Mutant(
        "halving-of-nothing", "Reducible compares with the newest value kept, not the one half as old",
        "allocation/reducible.py",
        'state["older"][:], state["newer"][:] = state["newer"], now',
        'state["older"][:], state["newer"][:] = now, now',
        (ALLOCATION,),
    ),
    Mutant(
        "mixture-unnormalised", "weights of a mixture are not normalised", "allocation/mixture.py",
        "weights = weights / weights.sum()", "weights = weights * 1.0",
        (ALLOCATION,),
    ),
    # -- drawing
    Mutant(
        "rounding-counts", "counts are rounded, without the uniform number", DRAW,
        "    ends += u\n    whole += np.floor(ends, out=ends)", "    whole += ends >= 0.5",
        (LAW1,),
    ),
    Mutant(
        "cursors-not-advanced", "every draw starts a region's permutation anew", DRAW,
        "self.visits[regions] += counts", "self.visits[regions] += 0 * counts",
        (LAW1,),
    ),
    Mutant(
        "feistel-one-round", "one round of the bijection in place of six", DRAW,
        "_FEISTEL_ROUNDS = 6", "_FEISTEL_ROUNDS = 1",
        (LAW1,),
    ),
    Mutant(
        "same-order-each-cycle", "the permutation does not depend on the cycle", DRAW,
        "^ (cycle * _ODD)", "^ (cycle * np.uint64(0))",
        (LAW1,),
    ),
    Mutant(
        "newest-first", "of the regions due, those waiting least are forced", DRAW,
        "np.argsort(-gaps[due], kind=", "np.argsort(gaps[due], kind=",
        (DRAWING, LAW1),
    ),
    Mutant(
        "gap-one-short", "gaps leave out the coming draw", DRAW,
        "return self.draws - self.last", "return self.draws - self.last - 1",
        (LAW1,),
    ),
    Mutant(
        "seed-ignored", "all seeds draw the same", DRAW,
        "np.array([seed, stream], np.uint64)", "np.array([0, stream], np.uint64)",
        (LAW1, LAW7),
    ),
    Mutant(
        "forced-not-scaled", "forced visits do not scale the probabilities of the rest", DRAW,
        "p = p * ((n - len(forced)) / n)", "p = p.copy()",
        (LAW1,),
    ),
    Mutant(
        "forced-not-reported", "probabilities leave out forced visits", DRAW,
        "p[forced] += 1 / n", "p[forced] += 0 / n",
        (LAW1,),
    ),
    Mutant(
        "weights-of-another-p", "weights use p before forced visits, not the one that drew the row", DRAW,
        "target[regions] / probabilities", "target[regions] / (probabilities - np.isin(regions, forced) / n)",
        (LAW1, LAW2),
    ),
    Mutant(
        "draws-in-order", "rows come region by region", DRAW,
        'shuffle = words[1:].argsort(kind="stable")', "shuffle = np.arange(n)",
        (LAW1,),
    ),
    # -- allocator
    Mutant(
        "newest-round-credited", "feedback goes to the newest open round", ALLOCATOR,
        "return self._open_rounds[0]", "return self._open_rounds[-1]",
        (LAW3,),
    ),
    Mutant(
        "part-averages", "each observe() credits its rows with their average", ALLOCATOR,
        "opened.fed.append((regions.copy(), losses.copy()))",
        "opened.fed.append((regions.copy(), np.full(len(losses), losses.mean() if len(losses) else 0.0)))",
        (DRAWING,),
    ),
    Mutant(
        "rewind-shares-cursors", "draws ahead move the cursors of the closed rounds", ALLOCATOR,
        "deque()\n        self._ahead = self._progress.cursors.copy()",
        "deque()\n        self._ahead = self._progress.cursors",
        (LAW5,),
    ),
    Mutant(
        "certificate-never-adaptive", "an allocation counts as fixed beforehand", ALLOCATOR,
        "self.policy.baseline is None\n        return certify", "False\n        return certify",
        (CERTIFICATE,),
    ),
    Mutant(
        "no-union-over-rounds", "radii hold at one time only", "estimation/certificate.py",
        "anytime = 6 * alpha / (np.pi * max(rounds, 1.0)) ** 2", "anytime = alpha",
        (CERTIFICATE,),
    ),
    Mutant(
        "uncertain-at-half", "estimates are told apart at half a standard error", ALLOCATOR,
        "(np.abs(estimate.mean - discrepancy) > estimate.stderr)",
        "(np.abs(estimate.mean - discrepancy) > estimate.stderr / 2)",
        (ESTIMATE,),
    ),
    # -- progress
    Mutant(
        "lag-one-more", "draws act on feedback one round older than they may", PROGRESS,
        "index = round_ - 1 - lag - ", "index = round_ - 2 - lag - ",
        (TRACKER, LAW3),
    ),
    Mutant(
        "lag-ignored", "draws act on whatever has arrived", PROGRESS,
        "index = round_ - 1 - lag - (self.round - len(self.phis))", "index = len(self.phis) - 1",
        (LAW3,),
    ),
    Mutant(
        "cursors-not-restored", "a loaded state keeps the cursors of now", PROGRESS,
        "cursors=Cursors.from_state(", "cursors=self.cursors if self.round else Cursors.from_state(",
        (LAW5,),
    ),
    Mutant(
        "negative-estimates", "estimates below 0 reach the policy", PROGRESS,
        "np.maximum(now.mean, 0.0)", "now.mean",
        (LAW6,),
    ),
    Mutant(
        "rounds-without-feedback-count", "a round of bad losses advances the policy", PROGRESS,
        "if len(feedback.regions):", "if self.round:",
        (LAW6,),
    ),
]  # fmt: skip
