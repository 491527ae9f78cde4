"""The advice benchmark: that its truth is the truth, that it runs, and that what was committed is of this code."""

import json
from pathlib import Path

import numpy as np

from benchmarks.advice import __main__ as benchmark
from benchmarks.advice.worlds import WORLDS, true_gain

RESULTS = Path(benchmark.__file__).parent / "results"


def test_the_truth_is_nothing_where_nothing_depends_on_the_allocation():
    rng = np.random.default_rng(0)
    draws, even = rng.uniform(10, 1000, 12), np.full(12, 1 / 12)
    for name, (_, build) in WORLDS.items():
        world = build(np.random.default_rng(1), 12)
        assert abs(true_gain(world, even, draws, draws / draws.sum())) < 1e-12, name
        if name.startswith("shared"):
            assert abs(true_gain(world, even, draws, even)) < 1e-12, name
    alike = WORLDS["alike"][1](rng, 12)
    assert true_gain(alike, even, draws, even) < -0.01  # convex curves: an uneven deal of alike regions is a loss


def test_it_runs(tmp_path):
    benchmark.main(["--quick", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert set(results["settings"]["quick"]) == set(WORLDS)
    assert (tmp_path / "table.md").read_text(encoding="utf-8") == benchmark.table(results)


def test_the_committed_results_are_of_these_worlds():
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert results["setting"] == {name: repr(setting) for name, setting in benchmark.SETTINGS.items()}
    assert results["worlds"] == {name: what for name, (what, _) in WORLDS.items()}
    assert (RESULTS / "table.md").read_text(encoding="utf-8") == benchmark.table(results)
