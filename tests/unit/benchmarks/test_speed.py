"""The speed suite: that it measures what it says. Nothing here asserts a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria

pytest.importorskip("torch")

from benchmarks.speed import __main__ as command
from benchmarks.speed import contenders, measures, report, timing

RESULTS = Path(contenders.__file__).with_name("results")
TINY = measures.Size(0.0, 5000, 1000, (64, 1024), (2000, 3000), 2, 20_000)


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "WARM", 3)
    monkeypatch.setattr(timing, "TURN", 1e-6)
    monkeypatch.setattr(command, "SMOKE", TINY)


@pytest.mark.parametrize(("n_items", "n_regions"), [(7, 7), (1000, 1), (5000, 64), (70_000, 65_537)])
def test_the_pool_is_that_of_its_labels(n_items: int, n_regions: int) -> None:
    made = contenders.pool(n_items, n_regions)
    again = aria.Partition.from_labels(made.labels)
    assert made.n_items == n_items
    assert made.n_regions == n_regions
    assert made.names == again.names
    for name in ("labels", "order", "offsets"):
        assert getattr(made, name).dtype == getattr(again, name).dtype
        assert np.array_equal(getattr(made, name), getattr(again, name))


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    found = timing.race({name: lambda name=name: calls.append(name) for name in "abc"}, seconds=0.0, least=4)
    turns = {name: cell["calls"] // 4 for name, cell in found.items()}
    order = "".join(calls[4 * 3 :])  # after four calls of each to warm up and to size the turns
    for name in "abcbcacababc":
        assert order[: turns[name]] == name * turns[name]
        order = order[turns[name] :]
    assert not order


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str) -> list[int]:
    """What a method is called with: a 1 each time."""
    calls, original = list[int](), getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda self, *a, **k: (calls.append(1), original(self, *a, **k))[1])
    return calls


def test_a_round_is_all_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {method: counted(monkeypatch, aria.Allocator, method) for method in ("draw", "observe", "step")}
    contenders.aria_round(contenders.pool(1000, 10, width=2), covered=True, rows=32)()
    assert {len(made) for made in calls.values()} == {contenders.WARM + 1}
    calls = {method: counted(monkeypatch, aria.RandomConditioning, method) for method in ("draw", "observe")}
    contenders.conditioning_round(contenders.pool(1000, 10), rows=32)()
    assert {len(made) for made in calls.values()} == {contenders.WARM + 1}


def test_torchrl_follows_priorities() -> None:
    """Of an item with half of all priority, by a binomial's bound at a false-alarm rate below 1e-9 (6.3 deviations)."""
    if contenders.torchrl_round(2) is None:
        pytest.skip("torchrl is not installed, or built for another torch")
    import torch
    from torchrl.data.replay_buffers.samplers import PrioritizedSampler

    sampler = PrioritizedSampler(max_capacity=100, alpha=1.0, beta=1.0, eps=0.0)
    storage: Any = contenders.Storage(100)
    sampler.update_priority(torch.arange(100), torch.tensor([99.0] + [1.0] * 99), storage=storage)
    index, _ = sampler.sample(storage, 50_000)
    assert abs(int((torch.as_tensor(index) == 0).sum()) - 25_000) < 6.3 * np.sqrt(12_500)


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--smoke", "--out", str(tmp_path)]
    command.main([*options, "--only", "rounds,pools,memory"])
    command.main([*options, "--only", "imports"])  # beside the others
    printed = capsys.readouterr().out
    assert "| round of 256, 1,024 regions: 3,000 items over 2,000 | ≤ 1.40 |" in printed
    assert "| import after NumPy | none set |" in printed
    before = (tmp_path / "table.md").read_text()
    command.main(["--table", "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == before


@pytest.mark.slow
def test_smoke_of_all(tmp_path: Path) -> None:
    command.main(["--smoke", "--out", str(tmp_path)])
    assert set(measures.MEASURES) <= set(json.loads((tmp_path / "results.json").read_text()))


def test_a_missed_aim_is_said() -> None:
    times = {"torchrl": 100.0, "1024": 25.0, "1024, coverage": 31.0}
    rounds = {name: {"min": value, "median": value, "calls": 1} for name, value in times.items()}
    found = [(aim, measured, met) for _, aim, measured, met in report.rows({"rounds": rounds})]
    assert found == [("≤ 0.25", "0.25", "yes"), ("≤ 0.30", "0.31", "**no**")]
    pair = {"random": {"min": 1.0}, "aria": {"min": 1.25}}
    ((_, *row),) = report.rows({"loaders": {"Tensors": pair}})
    assert row == ["≥ 0.80", "0.80", "yes"]


def test_pools_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "available", lambda: int(5000 * measures.BYTES_PER_ITEM))
    assert set(measures.pools(TINY)) == {"2000"}


def test_the_check_of_ci_is_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "pool", lambda n_items, n_regions: contenders.pool(2000, 64))
    text, _ = measures.quick(seconds=0.0)
    assert all(name in text for name in measures.QUICK)
    for most, met in ((0.0, False), (1e9, True)):
        monkeypatch.setattr(measures, "QUICK", {"1,024 regions": most})
        assert measures.quick(seconds=0.0)[1] == met


def test_a_table_needs_results(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"results\.json"):
        command.main(["--table", "--out", str(tmp_path)])


def test_the_committed_results_are_a_full_run() -> None:
    found = json.loads((RESULTS / "results.json").read_text())
    assert not found["smoke"]
    assert set(measures.MEASURES) <= set(found)
    assert {str(k) for k in measures.FULL.regions} <= set(found["rounds"])
    assert (RESULTS / "table.md").read_text(encoding="utf-8") == report.table(found)


@pytest.mark.parametrize("n_regions", [1024, 65_536])
def test_round(benchmark: Any, n_regions: int) -> None:
    """For a profile of one's own: pytest tests/unit/benchmarks/test_speed.py --benchmark-enable."""
    benchmark(contenders.aria_round(contenders.pool(200_000, n_regions)))
