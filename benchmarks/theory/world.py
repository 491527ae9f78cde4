"""A teacher and a student whose discrepancy is known exactly at every step.

The data of condition i, in region k, are an equal mixture of two round Gaussians in the plane, with means
``z_i + w*_k ± b_k u_k`` and variance s². Noising ``x_t = α_t x_0 + σ_t ε`` keeps that form, so the teacher (the
optimal noise prediction) is ``σ_t (x_t - α_t m) / v_t`` with ``v_t = α_t² s² + σ_t²`` and ``m = E[mode | x_t]``, by a
hyperbolic tangent. The student knows the embedding z_i and pictures a single Gaussian at ``z_i + w_k``: it can
learn where a region's data lie (w_k, by SGD), and never that they have two modes. With ``c_t = (α_t σ_t / v_t)²`` a
row's loss is ``c_t |m - z_i - w_k|² / 2``, so

    D_k(w) = mean_t c_t / 2 · (b_k² κ(α_t² b_k² / v_t) + |w*_k - w|²),   κ(ρ) = E tanh²(ρ + √ρ Z), Z ~ N(0, 1).

Losses are bounded, as m lies between the modes and w stays in the convex hull of what it has seen: they are
sub-Gaussian with proxy Lmax/2 by Hoeffding's lemma, without any clipping. All conditions of a region are equally
hard, so that losses have mean D_k whatever was drawn before, though items are drawn without replacement: the
theorems ask for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # float64

STEPS = 8  # noise levels
SPREAD = 1.0  # s
_NODES, _NODE = np.linspace(-9, 9, 721, retstep=True)
_WEIGHTS = np.exp(-(_NODES**2) / 2) * (_NODE / np.sqrt(2 * np.pi))


@dataclass(frozen=True)
class Region:
    """One region: how many conditions, where its data lie before and after the change, how far apart its modes are."""

    kind: str
    size: int
    place: float  # |w*|, along a direction of its own
    modes: float  # b
    place_after: float | None = None  # None: nothing changes


REGIONS = (
    Region("stationary", 900, 0.0, 2.2),
    Region("stationary", 500, 0.0, 1.6),
    Region("stationary", 250, 0.0, 2.8),
    Region("decaying", 800, 3.0, 0.5),
    Region("decaying", 450, 2.2, 0.9),
    Region("decaying", 300, 3.6, 0.3),
    Region("changing", 600, 0.0, 0.6, 3.2),
    Region("changing", 350, 1.5, 0.4, -2.5),
)


def tanh_moment(rho: Array, power: int) -> Array:
    """E tanh(ρ + √ρ Z)**power, by the trapezoidal rule, which for this integrand is exact to rounding."""
    rho = np.asarray(rho, float)[..., None]
    return (np.tanh(rho + np.sqrt(rho) * _NODES) ** power * _WEIGHTS).sum(-1)


@dataclass(frozen=True, eq=False)
class Rows:
    """A batch: the region of each row, its loss [n], and the gradient of that loss in its region's w, [n, 2]."""

    regions: Array
    loss: Array
    gradient: Array


class World:
    """The teacher, the noise schedule and the student's error; the student itself is w, float64 [n_regions, 2]."""

    def __init__(self, regions: Sequence[Region] = REGIONS) -> None:
        self.regions = tuple(regions)
        angles = 2 * np.pi * (np.arange(len(regions)) + 0.5) / len(regions)
        self.direction = np.stack([np.cos(angles), np.sin(angles)], 1)  # where a region's data lie
        self.axis = np.stack([-np.sin(2 * angles), np.cos(2 * angles)], 1)  # u: where its modes lie
        self.modes = np.array([r.modes for r in regions])
        self.before = self.direction * np.array([r.place for r in regions])[:, None]
        after = [r.place if r.place_after is None else r.place_after for r in regions]
        self.after = self.direction * np.array(after)[:, None]
        self.labels = np.repeat(np.arange(len(regions)), [r.size for r in regions])
        self.embeddings = np.random.default_rng(0).uniform(-2, 2, (len(self.labels), 2))
        u = (np.arange(STEPS) + 0.5) / STEPS * np.pi / 2
        self.alpha, self.sigma = np.cos(u), np.sin(u)
        self.v = self.alpha**2 * SPREAD**2 + self.sigma**2
        self.c = (self.alpha * self.sigma / self.v) ** 2
        rho = self.alpha[:, None] ** 2 * self.modes**2 / self.v[:, None]
        self.lean2, self.lean4 = tanh_moment(rho, 2), tanh_moment(rho, 4)  # [STEPS, n_regions]
        self.irreducible = (self.c[:, None] / 2 * self.modes**2 * self.lean2).mean(0)

    def of_kind(self, kind: str) -> Array:
        """Which regions are of that kind, bool [n_regions]."""
        return np.array([r.kind == kind for r in self.regions])

    def expected_mode(self, x: Array, t: Array, mean: Array, half_gap: Array) -> Array:
        """E[mode | x_t], [n, 2], where the modes lie at mean ± half_gap (both [n, 2])."""
        alpha, v = self.alpha[t, None], self.v[t, None]
        return mean + half_gap * np.tanh(alpha / v * ((x - alpha * mean) * half_gap).sum(1, keepdims=True))

    def noise(self, x: Array, t: Array, mode: Array) -> Array:
        """The noise prediction [n, 2] of who expects that mode: E[mode | x_t] makes it the teacher's."""
        alpha, sigma, v = self.alpha[t, None], self.sigma[t, None], self.v[t, None]
        return sigma * (x - alpha * mode) / v

    def rows(self, rng: np.random.Generator, items: Array, w: Array, place: Array) -> Rows:
        """Noise data of the conditions `items`, and compare student w with the teacher; `place` is w*, like w."""
        n, k = len(items), self.labels[items]
        t = rng.integers(0, STEPS, n)
        told = self.embeddings[items]
        mean, half_gap = told + place[k], (self.modes[:, None] * self.axis)[k]
        side = rng.choice((-1.0, 1.0), (n, 1))
        clean = mean + side * half_gap + SPREAD * rng.standard_normal((n, 2))
        x = self.alpha[t, None] * clean + self.sigma[t, None] * rng.standard_normal((n, 2))
        mode = self.expected_mode(x, t, mean, half_gap)
        loss = ((self.noise(x, t, told + w[k]) - self.noise(x, t, mode)) ** 2).mean(1)
        return Rows(k, loss, self.c[t, None] * (told + w[k] - mode))

    def sgd(self, w: Array, rows: Rows, rate: float) -> Array:
        """The student after a step of SGD on the mean loss of the rows.

        For ``rate * max c <= 1`` every w_k moves towards an average of modes, so it stays in their convex hull.
        """
        total = [np.bincount(rows.regions, rows.gradient[:, i], len(w)) for i in range(2)]
        return w - rate / len(rows.loss) * np.stack(total, 1)

    def discrepancy(self, w: Array, place: Array) -> Array:
        """D of every region, exactly: the mean loss over conditions, noise levels and noise, [n_regions]."""
        return self.irreducible + self.c.mean() / 2 * ((place - w) ** 2).sum(1)

    def loss_sd(self, w: Array, place: Array) -> Array:
        """Standard deviation of a single loss in every region, [n_regions]; as exact as `tanh_moment`."""
        off = place - w
        along, apart = self.modes * (off * self.axis).sum(1), (off**2).sum(1)
        square = (
            self.modes**4 * self.lean4 + 2 * self.modes**2 * self.lean2 * apart + apart**2 + 4 * self.lean2 * along**2
        )
        second = ((self.c[:, None] / 2) ** 2 * square).mean(0)
        return np.sqrt(second - self.discrepancy(w, place) ** 2)

    def loss_bound(self) -> Array:
        """Lmax of every region, before and after the change: no loss on the way can exceed it, [n_regions]."""
        reach = self.modes[:, None] * self.axis
        modes = np.stack([p + side * reach for p in (self.before, self.after) for side in (-1, 1)])
        hull = np.concatenate([modes, np.zeros_like(modes[:1])])  # the student starts at 0
        far = ((modes[:, None] - hull[None]) ** 2).sum(-1).max((0, 1))
        return self.c.max() / 2 * far
