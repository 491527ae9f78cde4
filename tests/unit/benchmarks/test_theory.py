"""The theory benchmark: that its truth is the truth, its competitors are the library's, and its numbers repeat."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria

pytest.importorskip("matplotlib")

from benchmarks.theory import bakeoff, coverage, gaps, loop
from benchmarks.theory.__main__ import main
from benchmarks.theory.world import SPREAD, STEPS, World

RESULTS = Path(bakeoff.__file__).parent / "results"
SMALL = loop.Settings(rounds=40)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def somewhere(world: World) -> Any:
    """A student that is nowhere in particular."""
    return np.random.default_rng(1).normal(0, 0.6, world.before.shape)


# -- the world


def log_density(world: World, x: Any, t: int, mean: Any, half_gap: Any) -> Any:
    """Of noised data, up to a constant: an equal mixture of two Gaussians."""
    alpha, v = world.alpha[t], world.alpha[t] ** 2 * SPREAD**2 + world.sigma[t] ** 2
    return np.logaddexp.reduce([-((x - alpha * (mean + s * half_gap)) ** 2).sum(-1) / (2 * v) for s in (-1, 1)])


def test_the_teacher_is_the_score_of_the_noised_data(world: World) -> None:
    """The optimal noise prediction is -sigma times the gradient of the log density (Tweedie)."""
    rng = np.random.default_rng(0)
    for t in range(STEPS):
        x, mean, half_gap = rng.normal(0, 1.5, (3, 6, 2))
        told = world.noise(x, np.full(6, t), world.expected_mode(x, np.full(6, t), mean, half_gap))
        for axis in np.eye(2):
            ends = [log_density(world, x + side * 1e-5 * axis, t, mean, half_gap) for side in (1, -1)]
            slope = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(told @ axis, -world.sigma[t] * slope, atol=1e-8)


@pytest.mark.parametrize("changed", [False, True])
def test_the_closed_form_equals_quadrature_over_noised_data(world: World, somewhere: Any, changed: bool) -> None:
    place = world.after if changed else world.before
    line, step = np.linspace(-8.5, 8.5, 104, retstep=True)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    weight = np.exp(-(grid**2).sum(1) / 2) * step**2 / (2 * np.pi)
    first, second = np.zeros((2, len(place)))
    for k, item in enumerate(np.unique(world.labels, return_index=True)[1]):
        told = world.embeddings[item]
        mean, half_gap = told + place[k], world.modes[k] * world.axis[k]
        for t in range(STEPS):
            for side in (-1, 1):
                x = world.alpha[t] * (mean + side * half_gap) + np.sqrt(world.v[t]) * grid
                when = np.full(len(x), t)
                target = world.noise(x, when, world.expected_mode(x, when, mean, half_gap))
                loss = ((world.noise(x, when, told + somewhere[k]) - target) ** 2).mean(1)
                first[k] += weight @ loss / (2 * STEPS)
                second[k] += weight @ loss**2 / (2 * STEPS)
    np.testing.assert_allclose(world.discrepancy(somewhere, place), first, rtol=1e-9)
    np.testing.assert_allclose(world.loss_sd(somewhere, place), np.sqrt(second - first**2), rtol=1e-7)


@pytest.mark.parametrize("changed", [False, True])
def test_the_closed_form_equals_the_mean_of_drawn_losses(world: World, changed: bool) -> None:
    """By the empirical Bernstein bound of Maurer and Pontil (2009), at a false-alarm rate of 1e-10 over all regions."""
    place, student = (world.after if changed else world.before), 0.4 * world.after
    items = np.random.default_rng(2).integers(0, len(world.labels), 200_000)
    rows = world.rows(np.random.default_rng(3), items, student, place)
    log = np.log(4 * len(place) / 1e-10)
    truth, most = world.discrepancy(student, place), world.loss_bound()
    assert (rows.loss <= most[rows.regions]).all()
    for k in range(len(place)):
        losses = rows.loss[rows.regions == k]
        n = len(losses)
        allowed = np.sqrt(2 * losses.var(ddof=1) * log / n) + 7 * most[k] * log / (3 * (n - 1))
        assert abs(losses.mean() - truth[k]) <= allowed


def test_the_gradient_is_that_of_the_loss(world: World, somewhere: Any) -> None:
    """Exactly, by central differences: the loss is quadratic in the student."""
    items = np.arange(0, len(world.labels), 40)

    def at(w: Any) -> Any:
        return world.rows(np.random.default_rng(4), items, w, world.before)

    here = at(somewhere)
    for i, axis in enumerate(np.eye(2)):
        ends = [at(somewhere + side * 0.5 * axis).loss for side in (1, -1)]
        np.testing.assert_allclose(ends[0] - ends[1], here.gradient[:, i], atol=1e-9)


def test_no_loss_of_a_run_exceeds_its_bound(world: World) -> None:
    rng, w, most = np.random.default_rng(5), np.zeros_like(world.before), world.loss_bound()
    for t in range(300):
        place = world.before if t < 150 else world.after
        rows = world.rows(rng, rng.integers(0, len(world.labels), 64), w, place)
        assert (rows.loss <= most[rows.regions]).all()
        w = world.sgd(w, rows, rate=1 / world.c.max())  # the largest rate for which the bound is proved


# -- the loop


def test_a_run_repeats_bit_for_bit(world: World) -> None:
    first, second, other = (loop.run(world, loop.trackings(world, SMALL)[0], SMALL, seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    assert not np.array_equal(first.truth, other.truth)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_radii_hold_at_a_tiny_alpha(world: World, which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The theorems' own false-alarm rate: 1e-10 for each of the three trackings."""
    monkeypatch.setattr(loop, "ALPHA", 1e-10)
    run = loop.run(world, loop.trackings(world, SMALL)[which], SMALL, seed=9)
    error = np.abs(run.mean - run.truth[run.looks])
    assert (error <= run.radius(run.drift(world, SMALL, with_change=True))).all()
    assert (run.counts >= loop.least_count(world, SMALL)).all()  # what the proxy of a visit relies on


def test_the_radius_is_what_the_certificate_says_for_that_drift(world: World) -> None:
    tracking = loop.trackings(world, SMALL)[0]
    run = loop.run(world, tracking, SMALL, seed=3)
    allocator = aria.Allocator(aria.Partition.from_labels(world.labels), estimator=tracking.estimator, seed=3)
    rng, w = np.random.default_rng([3, 3]), np.zeros_like(world.before)
    for t in range(SMALL.rounds):
        draw = allocator.draw(SMALL.draw)
        rows = world.rows(rng, draw.items, w, world.before if t < SMALL.change else world.after)
        allocator.observe(draw.regions, rows.loss)
        allocator.step()
        w = world.sgd(w, rows, SMALL.learning_rate)
    drift = run.drift(world, SMALL, with_change=True)[-1]
    said = allocator.certificate(drift=drift, sigma=world.loss_bound() / 2, alpha=loop.ALPHA)
    np.testing.assert_allclose(run.radius(drift)[-1], said.radius, rtol=1e-12)
    assert said.theorem == "radius_adaptive"


def test_a_summary_counts_what_is_outside(world: World) -> None:
    tracking = loop.trackings(world, SMALL)[0]
    run = loop.run(world, tracking, SMALL, seed=0)
    good = coverage.judge(world, tracking, SMALL, [run])
    run.mean[3, 0] += 100  # before the change
    bad = coverage.judge(world, tracking, SMALL, [run])
    assert good["runs_outside"]["assumptions_hold"] == 0
    assert bad["runs_outside"]["assumptions_hold"] == 1
    assert bad["runs_outside"]["after_the_change"] == good["runs_outside"]["after_the_change"]


# -- the bake-off


def test_the_fixed_averages_are_those_of_the_library() -> None:
    """And, by time, the weighted mean written out; at the ends the last visit alone, and the plain mean."""
    half_lives, rng = (0.0, 3.0, bakeoff.DEFAULT, np.inf), np.random.default_rng(6)
    n = rng.poisson(0.7, (60, 5))
    n[0] = 1
    means = np.where(n > 0, rng.gamma(2.0, 1.0, n.shape), 0.0)
    grid = bakeoff.FixedAverages(half_lives, 5, int(n.max()))
    library: dict[Any, Any] = {}
    for h in (1, 2):
        for family, per in enumerate(("sample", "visit")):
            ema = aria.Ema(rate=1 - 0.5 ** (1 / half_lives[h]), per=per)
            library[family, h] = [ema, ema.init(5)]
    for t in range(60):
        grid.update(n[t], means[t])
        regions = np.repeat(np.arange(5), n[t])
        feedback = aria.Feedback.from_rows(regions, means[t][regions], n_regions=5)
        for (family, h), pair in library.items():
            pair[1] = bakeoff.taken_in(*pair, feedback)
            np.testing.assert_allclose(grid.means()[family, h], pair[0].estimate(pair[1]).mean, rtol=1e-10)
        age = t - np.arange(t + 1)[:, None]
        weight = n[: t + 1] * 0.5 ** (age / 3.0)
        np.testing.assert_allclose(grid.means()[2, 1], (weight * means[: t + 1]).sum(0) / weight.sum(0), rtol=1e-10)
        plain = (n[: t + 1] * means[: t + 1]).sum(0) / n[: t + 1].sum(0)
        np.testing.assert_allclose(grid.means()[0, 3], plain, rtol=1e-10)
        np.testing.assert_allclose(grid.means()[2, 3], plain, rtol=1e-10)
        last = [means[: t + 1, i][n[: t + 1, i] > 0][-1] for i in range(5)]
        np.testing.assert_allclose(grid.means()[:, 0], [last] * 3, rtol=1e-12)
    assert aria.Ema().rate == pytest.approx(1 - 0.5 ** (1 / bakeoff.DEFAULT))


def test_a_cell_repeats_and_is_fed_as_it_says() -> None:
    size = bakeoff.Size(rounds=60, replicates=10)
    assert bakeoff.cell(5, 2, size) == bakeoff.cell(5, 2, size)
    rng = np.random.default_rng(0)
    assert bakeoff.counts("dense", 50, 20, rng).max() > 3
    assert bakeoff.counts("sparse", 50, 20, rng).max() == 1
    bursty = bakeoff.counts("bursty", 2 * bakeoff.PHASE, 20, rng)
    assert (bursty.sum(0) >= bakeoff.PHASE).all()  # the dense half of every replicate


# -- waits


def test_forced_visits_keep_the_guarantee() -> None:
    found = gaps.study(200)
    assert found["longest"][gaps.FORCED] <= found["guarantee"]
    assert found["longer_than"][gaps.FREE][found["folklore"]] > 0.2


# -- the command


def test_quick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "Do the radii hold?" in printed
    assert {p.name for p in tmp_path.iterdir()} == {
        "results.json",
        "table.md",
        "tracking.png",
        "bakeoff.png",
        "gaps.png",
    }
    before = (tmp_path / "table.md").read_text()
    main(["--figures", "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == before


def test_figures_need_results(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"results\.json"):
        main(["--figures", "--out", str(tmp_path)])


def test_the_committed_results_are_a_full_run_that_met_its_aims() -> None:
    results = json.loads((RESULTS / "results.json").read_text())
    assert not results["quick"]
    assert results["loop"]["settings"]["seeds"] >= 20
    for tracking in results["loop"]["trackings"].values():
        if "runs_outside" in tracking:
            assert tracking["runs_outside"]["assumptions_hold"] == 0
    for measure in results["bakeoff"]["measures"].values():
        assert len(measure["cells"]) == 27
        assert measure["summary"]["EmaBank()"]["geomean"] <= 1.45
        assert measure["summary"]["EmaBank()"]["worst"] <= 3.5
