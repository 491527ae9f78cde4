"""The speed suite: that it measures what it says. Nothing here asserts a time."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aria_sampling as aria

pytest.importorskip("torch")

from benchmarks.speed import __main__ as command
from benchmarks.speed import contenders, quick, studies, timing

RESULTS = Path(contenders.__file__).with_name("results")
TINY = replace(
    studies.SMALL,
    seconds=0.05,
    peer_pools=(2000,),
    pools=(1000, 10**6),
    regions=(10, 1024),
    rows=(8, 32),
    items=5000,
    first=5000,
)


@pytest.mark.parametrize(("n_items", "n_regions"), [(7, 7), (1000, 1), (5000, 64), (70_000, 65_537)])
def test_the_pool_is_that_of_its_labels(n_items, n_regions):
    made = contenders.pool(n_items, n_regions)
    again = aria.Partition.from_labels(made.labels)
    assert made.n_items == n_items
    assert made.n_regions == n_regions
    assert made.names == again.names
    for name in ("labels", "order", "offsets"):
        mine, its = getattr(made, name), getattr(again, name)
        assert mine.dtype == its.dtype
        assert np.array_equal(mine, its)


def test_contenders_take_turns_and_the_first_is_the_measure():
    calls = []
    found = timing.race({name: lambda name=name: calls.append(name) for name in "abc"}, seconds=0.0, least=3)
    turns = ["".join(calls[i : i + timing.BLOCK]) for i in range(0, len(calls), timing.BLOCK)]
    assert [turn[0] for turn in turns] == list("abcabcbcacab")  # each once to warm up, then the order goes round
    assert all(len(set(turn)) == 1 for turn in turns)
    assert found["a"]["times_first"] == [1, 1, 1]
    assert {cell["calls"] for cell in found.values()} == {3 * timing.BLOCK}


def test_a_slow_turn_is_cut_short(monkeypatch):
    monkeypatch.setattr(timing, "SLOW", 0.0)
    assert timing.turn(lambda: None).shape == (2, 1)


def counted(monkeypatch, method):
    """How often a method of the allocator is called."""
    calls, original = [], getattr(aria.Allocator, method)
    monkeypatch.setattr(aria.Allocator, method, lambda self, *args: (calls.append(1), original(self, *args))[1])
    return calls


def test_a_round_is_all_of_a_round(monkeypatch):
    calls = {method: counted(monkeypatch, method) for method in ("draw", "observe", "step")}
    round_ = contenders.aria_round(contenders.pool(1000, 10), 32)
    for _ in range(5):
        round_()
    assert {method: len(made) for method, made in calls.items()} == {"draw": 5, "observe": 5, "step": 5}


def test_torchrl_draws_by_priority():
    """A peer whose library was built for another torch must still work as it should: one of 100 items, raised to the
    priority of all others together, gets half of 50,000 draws. False alarm: below 1e-9 (6.3 standard deviations)."""
    if contenders.torchrl_prioritized(2, 2) is None:
        pytest.skip("torchrl is not installed, or built for another torch")
    import torch
    from torchrl.data.replay_buffers.samplers import PrioritizedSampler

    sampler = PrioritizedSampler(max_capacity=100, alpha=1.0, beta=1.0, eps=0.0)
    storage = contenders.Storage(100)
    sampler.update_priority(torch.arange(100), torch.tensor([99.0] + [1.0] * 99), storage=storage)
    index, _ = sampler.sample(storage, 50_000)
    assert abs(int((torch.as_tensor(index) == 0).sum()) - 25_000) < 6.3 * np.sqrt(12_500)


def test_the_rule_follows_losses(monkeypatch):
    """Bins are drawn in proportion to the root mean square of their last ten losses."""
    seen = []

    class Source:
        def random(self, n):
            return np.full(n, 2.5)  # losses of 3

        def choice(self, n, rows, p):
            seen.append(p)
            return np.zeros(rows, int)

    monkeypatch.setattr(contenders.np.random, "default_rng", lambda seed: Source())
    round_ = contenders.loss_resampler(4, 5)
    for _ in range(3):
        round_()
    for p, mean_square in zip(seen, (1, (5 * 9 + 5) / 10, 9), strict=True):
        root = np.sqrt([mean_square, 1, 1, 1])
        np.testing.assert_allclose(p, 0.999 * root / root.sum() + 0.00025, rtol=1e-12)


def committed(factor=1.0, only=None):
    ratios = {f"round / {y}": 2.0 * (factor if only in (None, y) else 1.0) for y in (quick.RULE, quick.TORCH)}
    return {"q25": {"round": 1.0, quick.RULE: 1.0, quick.TORCH: 1.0}, "ratios": ratios}


def test_a_round_twice_as_slow_is_noticed(capsys):
    assert quick.compare(committed(), committed()) == 0
    assert quick.compare(committed(1.9), committed()) == 0
    assert quick.compare(committed(0.4), committed()) == 0
    assert quick.compare(committed(2.1), committed()) == 1
    assert "slower than 2 times before: round" in capsys.readouterr().out


def test_one_yardstick_that_was_disturbed_is_no_alarm():
    assert quick.compare(committed(9.0, only=quick.TORCH), committed()) == 0


def test_quick(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quick, "pool", lambda n_items, n_regions: contenders.pool(n_regions + 10, n_regions))
    measure = quick.measure
    monkeypatch.setattr(quick, "measure", lambda: measure(seconds=0.0))
    command.main(["--quick", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "quick.json").read_text())
    assert found["ratios"].keys() == json.loads((RESULTS / "quick.json").read_text())["ratios"].keys()
    strict = {**found, "ratios": {key: value / 1000 for key, value in found["ratios"].items()}}
    (tmp_path / "strict.json").write_text(json.dumps(strict))
    with pytest.raises(SystemExit) as ended:
        command.main(["--quick", "--out", str(tmp_path), "--against", str(tmp_path / "strict.json")])
    assert ended.value.code == 1
    assert "slower than" in capsys.readouterr().out


def test_smoke(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "SMALL", TINY)
    options = ["--smoke", "--out", str(tmp_path)]
    command.main([*options, "--only", "rounds,pools,regions,rows"])
    command.main([*options, "--only", "first_draw"])  # beside the others
    printed = capsys.readouterr().out
    assert "A round of 256 rows, 2,000 items" in printed
    assert "To the first index, 5,000 items" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "table.md", "peers.png", "scaling.png"}
    before = (tmp_path / "table.md").read_text()
    command.main(["--figures", "--out", str(tmp_path)])
    assert (tmp_path / "table.md").read_text() == before


@pytest.mark.slow
def test_smoke_of_all(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "SMALL", TINY)
    command.main(["--smoke", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "### Aims" in printed
    assert "Closing a round of 256 rows" in printed
    assert (tmp_path / "loader.png").exists()


def test_pools_that_do_not_fit_are_left_out(monkeypatch):
    monkeypatch.setattr(studies, "available", lambda: int(2e6 * studies.BYTES_PER_ITEM))
    found = studies.pools(replace(TINY, pools=(1000, 10**6, 10**9)))
    assert found["left_out"] == [10**9]
    assert set(found["times"]) == {"1000", "1000000"}


def test_figures_need_results(tmp_path):
    with pytest.raises(SystemExit, match=r"results\.json"):
        command.main(["--figures", "--out", str(tmp_path)])


def test_the_committed_results_are_a_full_run():
    found = json.loads((RESULTS / "results.json").read_text())
    assert not found["smoke"]
    assert set(studies.STUDIES) <= set(found)
    assert set(map(str, studies.FULL.regions)) == set(found["regions"])
    assert set(map(str, studies.FULL.rows)) == set(found["rows"])
    assert {*found["pools"]["times"], *map(str, found["pools"]["left_out"])} == set(map(str, studies.FULL.pools))


@pytest.mark.parametrize("estimator", [aria.EmaBank(), aria.Ema()], ids=["EmaBank", "Ema"])
@pytest.mark.parametrize("n_regions", [1024, 65_536])
def test_round(benchmark, n_regions, estimator):
    """For a profile of one's own: pytest tests/unit/benchmarks/test_speed.py --benchmark-enable."""
    benchmark(contenders.aria_round(contenders.pool(200_000, n_regions), 256, estimator=estimator))
