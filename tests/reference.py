"""A slow, obvious allocator to hold the fast one against.

Plain Python numbers, lists and loops, written from the design (two-level draw, objective, lag determinism; theory 1, 3,
4.7, 5) and not from the library. Nothing is updated in place: whatever is wanted is worked out anew from the whole
history of rounds, so there is no state to get wrong. It shares the library's random words and its keyed
bijection, so that draws can be compared item by item.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from aria_sampling import _kernel

RATE = 0.02  # of the moving average of the draw size
CV2_RATE, CV2_MOST = 0.01, 100.0


@dataclass
class Round:
    """All that happened in one round."""

    n: int
    data_rows: int
    present: list[int]
    counts: list[int]  # draws from every region
    forced: list[int]
    regions: list[int]
    items: list[int]
    probabilities: list[float]
    fed: list[tuple[int, float]] = field(default_factory=list)


@dataclass
class Believed:
    """Estimate of all regions, as lists."""

    mean: list[float]
    stderr: list[float]
    count: list[float]
    age: list[float]


@dataclass
class ReferenceEma:
    """A weighted mean with its weights written out, one by one."""

    rate: float = 0.02
    per: str = "sample"

    def region(self, visits, cv2s, now):
        gains = [1 - (1 - self.rate) ** v.n if self.per == "sample" else self.rate for v in visits]
        return weighted(visits, gains, now)


@dataclass
class ReferenceBank:
    """Seven of them, weighted by how well each has predicted."""

    half_lives: tuple = (4.0, 12.0, 36.0, 108.0, 324.0, 972.0, 2916.0)
    discount: float = 0.01
    clip: float = 25.0

    def region(self, visits, cv2s, now):
        evidence = [0.0] * len(self.half_lives)
        for j in range(1, len(visits)):  # how each member predicted visit j from the visits before it
            seen, new = visits[:j], visits[j]
            members = [self.member(h, seen, now)[0] for h in self.half_lives]
            mixed = mix(trust(evidence), members)
            scale2 = cv2s[new.when] * mixed**2
            for i, member in enumerate(members):
                error2 = new.n * (new.mean - member) ** 2
                surprise = 0.0 if error2 == 0 else self.clip if scale2 == 0 else min(error2 / scale2, self.clip)
                evidence[i] = (1 - self.discount) * evidence[i] + surprise
        members = [self.member(h, visits, now) for h in self.half_lives]
        parts = [mix(trust(evidence), column) for column in zip(*members, strict=True)]
        return tuple(parts)

    def member(self, half_life, visits, now):
        gains = [1 - 0.5 ** (v.n / half_life) for v in visits]
        mean, _, age = weighted(visits, gains, now)
        rate = math.log(2) / half_life
        n = sum(v.n for v in visits)
        return mean, math.tanh(n * rate / 2) / math.tanh(rate / 2), age


@dataclass
class Visit:
    """Losses of one region in one round."""

    when: int
    n: int
    mean: float
    m2: float


def weighted(visits, gains, now):
    """Mean, effective count and age of visits under the weights that a chain of gains gives them."""
    weights = []
    for i, gain in enumerate(gains):
        weights.append(gain * math.prod(1 - later for later in gains[i + 1 :]))
    total = math.fsum(weights)
    mean = math.fsum(w * v.mean for w, v in zip(weights, visits, strict=True)) / total
    count = total**2 / math.fsum(w**2 / v.n for w, v in zip(weights, visits, strict=True))
    age = math.fsum(w * (now - v.when) for w, v in zip(weights, visits, strict=True)) / total
    return mean, count, age


def trust(evidence):
    raw = [math.exp(-(e - min(evidence)) / 2) for e in evidence]
    return [r / sum(raw) for r in raw]


def mix(weights, values):
    return math.fsum(w * v for w, v in zip(weights, values, strict=True))


def believed(estimator, rounds, n_regions):
    """The estimate after these closed rounds: a list of lists of (region, loss)."""
    now = len(rounds) - 1
    visits = [[] for _ in range(n_regions)]
    top, bottom, cv2s = 1.0, 1.0, []
    for when, rows in enumerate(rounds):
        rows = [(k, x) for k, x in rows if math.isfinite(x) and abs(x) < 1e150]
        new = {}
        for k in sorted({k for k, _ in rows}):
            losses = [x for j, x in rows if j == k]
            mean = sum(losses) / len(losses)
            new[k] = Visit(when, len(losses), mean, sum((x - mean) ** 2 for x in losses))
        pairs = [(v.m2, v.n - 1, v.mean**2) for v in new.values() if v.n > 1]
        if not pairs:  # no spread inside any batch: the surprise against the estimate instead
            for k, v in new.items():
                if visits[k]:
                    old = estimator.region(visits[k], cv2s, now)[0]
                    pairs.append(((v.mean - old) ** 2, 1, old**2))
        pairs = [pair for pair in pairs if pair[2] > 0]
        if pairs:
            top = (1 - CV2_RATE) * top + CV2_RATE * sum(min(m2 / (s * f), CV2_MOST) * f for m2, f, s in pairs)
            bottom = (1 - CV2_RATE) * bottom + CV2_RATE * sum(f for _, f, _ in pairs)
        cv2s.append(top / bottom)
        for k, v in new.items():
            visits[k].append(v)
    known = {k: estimator.region(v, cv2s, now) for k, v in enumerate(visits) if v}
    all_counts = sum(count for _, count, _ in known.values())
    common = sum(count * mean for mean, count, _ in known.values()) / all_counts if known else math.nan
    unknown = (common, 0.0, math.inf)
    rows = [known.get(k, unknown) for k in range(n_regions)]
    stderr = [abs(m) * math.sqrt(cv2s[-1] / c) if c else math.inf for m, c, _ in rows]
    return Believed([m for m, _, _ in rows], stderr, [c for _, c, _ in rows], [a for _, _, a in rows])


def increasing_root(function, wanted):
    """Where an increasing function reaches a value, by bisection to the last bit."""
    low, high = 0.0, 1.0
    while function(high) < wanted:
        high *= 2
    for _ in range(3000):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return high


def water_fill(u, s):
    level = increasing_root(lambda mu: sum(max(mu * a - b, 0) for a, b in zip(u, s, strict=True)), 1.0)
    x = [max(level * a - b, 0) for a, b in zip(u, s, strict=True)]
    return [value / sum(x) for value in x]


def cap_shares(share, cap):
    """Cut to the cap; what is cut off goes to the others, and where they are full too, to those with no share."""
    if all(a <= b for a, b in zip(share, cap, strict=True)):
        return list(share)
    room = sum(b for a, b in zip(share, cap, strict=True) if a > 0)
    if room <= 1 + 1e-13:
        spare = sum(b for a, b in zip(share, cap, strict=True) if a == 0)
        rest = (1 - room) / spare if spare > 0 else 0.0
        return [b if a > 0 else rest * b for a, b in zip(share, cap, strict=True)]
    scale = increasing_root(lambda c: sum(min(c * a, b) for a, b in zip(share, cap, strict=True)), 1.0)
    return [min(scale * a, b) for a, b in zip(share, cap, strict=True)]


class ReferenceAllocator:
    """Same arguments as `aria_sampling.Allocator`, on labels; policy given by exponent or baseline name.

    `coverage`: (counts, uncovered, power, weight) of a static coverage; (keep, weight) of an online one.
    """

    def __init__(
        self, labels, *, estimator, exponent=1.0, baseline=None, exploration=0.2, target="pool",
        coverage=None, max_repeat=None, seed=0, lag=0,
    ):  # fmt: skip
        self.n_regions = max(labels) + 1
        self.members = [[i for i, k in enumerate(labels) if k == region] for region in range(self.n_regions)]
        self.sizes = [len(m) for m in self.members]
        self.estimator, self.exponent, self.baseline = estimator, exponent, baseline
        self.exploration, self.coverage, self.seed, self.lag = exploration, coverage, seed, lag
        target = target if baseline is None else baseline
        if target == "pool":
            raw = [float(s) for s in self.sizes]
        elif target == "uniform":
            raw = [1.0] * self.n_regions
        elif isinstance(target, float):
            raw = [s**target for s in self.sizes]
        else:
            raw = list(target)
        self.q = [r / sum(raw) for r in raw]
        self.cap = None
        if max_repeat is not None:
            self.cap = [max_repeat * s / len(labels) if q else 0.0 for s, q in zip(self.sizes, self.q, strict=True)]
            self.q = cap_shares(self.q, self.cap)
            phases = _kernel.uniforms(_kernel.stream_key(seed, 3, 0), self.n_regions).tolist()
            self.owed, self.load = [phase - 0.5 for phase in phases], [0.0] * self.n_regions
        self.rounds: list[Round] = []
        self.closed = 0
        self.memo = {}  # estimates after so many rounds, which are closed and cannot change

    def draw(self, n, data_rows=None, present=()):
        present = list(present or ())
        if len(self.rounds) - self.closed > self.lag:
            raise RuntimeError("lag")
        number = len(self.rounds)
        came = (n, n if data_rows is None else data_rows, present)
        p = self.probabilities(number, came)
        key = _kernel.stream_key(self.seed, 0, number)
        words = _kernel.uniforms(key, n + 1).tolist()
        forced = self.forced(n)
        if self.cap is not None and n:
            counts = self.paced(p, n)
        else:
            counts = self.systematic(p, n - len(forced), words[0]) if n else [0] * self.n_regions
        for k in forced:
            counts[k] += 1
        p = [((n - len(forced)) * p[k] + (k in forced)) / n if n else 0.0 for k in range(self.n_regions)]
        regions = [k for k in range(self.n_regions) for _ in range(counts[k])]
        for j in range(n - 1, 0, -1):  # Fisher and Yates
            i = int(words[j] * (j + 1))
            regions[i], regions[j] = regions[j], regions[i]
        visits, items = [sum(r.counts[k] for r in self.rounds) for k in range(self.n_regions)], []
        for k in regions:
            place = _kernel.positions(self.seed, *(np.array([x]) for x in (k, visits[k], self.sizes[k])))[0]
            items.append(self.members[k][place])
            visits[k] += 1
        self.rounds.append(Round(*came, counts, forced, regions, items, [p[k] for k in regions]))
        return self.rounds[-1]

    def observe(self, regions, losses):
        self.rounds[self.closed].fed += list(zip(regions, losses, strict=True))

    def step(self):
        self.closed += 1

    def probabilities(self, number, came=None):
        """Of the draw with that number; without `came`, before it is known how large it is and what comes with it."""
        if self.baseline:
            return self.q
        after = max(0, number - self.lag)
        usable = [r.fed for r in self.rounds[:after]]
        score = [1.0] * self.n_regions
        if any(math.isfinite(x) and abs(x) < 1e150 for fed in usable for _, x in fed):
            mean = [max(m, 0.0) for m in self.believed(after).mean]
            top = max(m for m, q in zip(mean, self.q, strict=True) if q > 0)
            if top == 0 and self.exponent:
                return self.q
            score = [(m / top) ** self.exponent if self.exponent else 1.0 for m in mean]
        u = [q * s for q, s in zip(self.q, score, strict=True)]
        if self.coverage is not None and len(self.coverage) == 4:
            u = [a * v ** self.coverage[2] for a, v in zip(u, self.coverage[1], strict=True)]
        x = [a / sum(u) for a in u]
        efforts = [(r.n, r.data_rows, r.present) for r in self.rounds] + ([came] if came is not None else [])
        if self.coverage is not None:
            x = water_fill(x, self.effort(efforts))
        if self.cap is not None:
            x = cap_shares(x, self.cap)
        return [(1 - self.exploration) * a + self.exploration * b for a, b in zip(x, self.q, strict=True)]

    def effort(self, efforts):
        """What data rows give each region, in rows drawn."""
        if len(self.coverage) == 4:
            counts, _, _, weight = self.coverage
            drawn, data = sum(e[0] for e in efforts), sum(e[1] for e in efforts)
            ratio = 1.0 if drawn == data else data / drawn if drawn else 1e150
            return [weight * ratio * c / sum(counts) for c in counts]
        keep, weight = self.coverage
        drawn, come = 0.0, [0.0] * self.n_regions
        for size, _, regions in efforts:
            drawn = keep * drawn + size
            come = [keep * c + regions.count(k) for k, c in enumerate(come)]
        return [weight * c / drawn if drawn else 0.0 if not c else 1e150 * c for c in come]

    def forced(self, n):
        sizes = [r.n for r in self.rounds if r.n] + [n]
        if self.baseline or self.cap or n < 2:
            return []
        mean_size = float(sizes[0])
        for size in sizes[1:]:
            mean_size += RATE * (size - mean_size)
        limit = math.ceil(8 * self.n_regions / mean_size)
        draws = [r.counts for r in self.rounds if r.n]
        due = []
        for k in range(self.n_regions):
            last = max((i for i, counts in enumerate(draws) if counts[k]), default=-1)
            if self.q[k] > 0 and len(draws) - last >= limit:
                due.append((last, k))
        return [k for _, k in sorted(due)[: n // 2]]

    def paced(self, p, n):
        """Row by row: to whom most is owed, among those that may take another without a load of 2."""
        held = [k for k in range(self.n_regions) if p[k] > 0]
        owed = [self.owed[k] + n * p[k] for k in range(self.n_regions)]
        load = [self.load[k] - n * self.cap[k] for k in range(self.n_regions)]
        most = [max(math.ceil(2 - 1e-9 - load[k]) - 1, 0) if k in held else 0 for k in range(self.n_regions)]
        assert sum(most) >= n
        rows = [0] * self.n_regions
        for k in held:  # whole rows that are owed come first, though they be more than there are
            rows[k] = min(max(math.floor(owed[k]), 0), most[k])
        while sum(rows) < n:
            can = [k for k in held if rows[k] < most[k]]
            rows[max(can, key=lambda k: (owed[k] - rows[k], -k))] += 1
        while sum(rows) > n:
            can = [k for k in held if rows[k] > 0]
            rows[min(can, key=lambda k: (owed[k] - rows[k], k))] -= 1
        self.owed = [owed[k] - rows[k] for k in range(self.n_regions)]
        self.load = [max(load[k] + rows[k], 0.0) for k in range(self.n_regions)]
        return rows

    def systematic(self, p, n, u):
        """Points u, u+1, ... on the cumulated n·p: region k gets those in [C[k-1], C[k])."""
        counts, done, cumulated = [], 0, 0.0
        last = max(k for k, value in enumerate(p) if value > 0)
        for k, value in enumerate(p):
            cumulated += value
            upto = n if k >= last else min(max(math.ceil(cumulated * n - u), 0), n)
            counts.append(upto - done)
            done = upto
        return counts

    def estimate(self):
        return self.believed(self.closed)

    def believed(self, after):
        if after not in self.memo:
            self.memo[after] = believed(self.estimator, [r.fed for r in self.rounds[:after]], self.n_regions)
        return self.memo[after]
