"""The mixing study: that its split does not leak, its peers are what they are called, and its numbers repeat."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import Estimate, testing

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from benchmarks.mixing import corpus, report, study, train  # noqa: E402
from benchmarks.mixing.__main__ import main  # noqa: E402
from benchmarks.mixing.corpus import LENGTH, MODULES, PASSAGE, Corpus  # noqa: E402
from benchmarks.mixing.methods import METHODS, OnlineMixing  # noqa: E402
from benchmarks.mixing.model import ByteModel, evaluate, tokens_of  # noqa: E402

RESULTS = Path(study.__file__).parent / "results"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random text in the shape of a library: three groups, and what is to be left out."""
    root, rng = tmp_path_factory.mktemp("library"), np.random.default_rng(0)
    sizes = {
        "big/a.py": 60_000, "big/sub/b.py": 50_000, "small/a.py": 20_000, "one.py": 15_000, "two.py": 15_000,
        "tiny/a.py": 5_000, "test/a.py": 90_000, "big/tests/a.py": 90_000, "site-packages/x/a.py": 90_000,
    }  # fmt: skip
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.integers(32, 200 if name == "two.py" else 90, size, dtype=np.uint8).tobytes())
    (root / "small" / "again.py").write_bytes((root / "big" / "a.py").read_bytes())  # the same text in two groups
    return root


@pytest.fixture(scope="module")
def texts(library: Path) -> Corpus:
    return corpus.load(library)


# -- the corpus


def test_groups_are_packages_and_small_ones_and_tests_are_left_out(texts: Corpus) -> None:
    assert texts.pool.names == (MODULES, "big", "small")
    assert texts.train.shape == (texts.pool.n_items, LENGTH)
    assert texts.train.max() == corpus.OTHER  # bytes beyond ASCII
    for size, held_out, text in zip(texts.pool.sizes, texts.held_out, (30_000, 110_000, 20_000), strict=True):
        assert size + len(held_out) == pytest.approx(text / LENGTH, abs=3)
        assert len(held_out) == pytest.approx(text / LENGTH / corpus.HELD_OUT, abs=PASSAGE / LENGTH)


def test_nothing_that_is_held_out_is_trained_on(texts: Corpus) -> None:
    """Of random text no two sequences are alike: a shared one would be a leak."""
    train_rows = {row.tobytes() for row in texts.train}
    held_out = [row.tobytes() for group in texts.held_out for row in group]
    assert len(train_rows) == len(texts.train)  # the text that stands in two groups counts once
    assert not train_rows & set(held_out)


def test_the_split_depends_on_the_text_alone(library: Path, texts: Corpus) -> None:
    again = corpus.load(library, largest=8)
    assert again.fingerprint == texts.fingerprint
    assert np.array_equal(again.train, texts.train)
    assert all(np.array_equal(some, group[:8]) for some, group in zip(again.held_out, texts.held_out, strict=True))


def test_the_fingerprint_sees_every_byte(library: Path, texts: Corpus, tmp_path: Path) -> None:
    for path in library.rglob("*.py"):
        copy = tmp_path / path.relative_to(library)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert corpus.load(tmp_path).fingerprint == texts.fingerprint
    changed = tmp_path / "one.py"
    changed.write_bytes(b"!" + changed.read_bytes()[1:])
    assert corpus.load(tmp_path).fingerprint != texts.fingerprint


# -- the model


def test_no_byte_is_predicted_from_itself_or_later_ones() -> None:
    model, tokens = ByteModel(width=8, seed=0), tokens_of(np.arange(40, dtype=np.uint8).reshape(1, -1))
    changed = tokens.clone()
    changed[0, 20:] = 100
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[0, :20], after[0, :20])
    assert (before[0, 20:] != after[0, 20:]).all()


def test_losses_are_bits_a_byte() -> None:
    model = ByteModel(width=8, seed=0)
    torch.nn.init.zeros_(model.out.weight)
    torch.nn.init.zeros_(model.out.bias)
    (loss,) = evaluate(model, (np.zeros((300, LENGTH), np.uint8),))
    assert loss == pytest.approx(math.log2(corpus.VOCABULARY), rel=1e-5)


# -- the peers


def test_online_mixing_is_exp3_written_out() -> None:
    """Against a slow reference that keeps Python floats, over rounds in which some groups are not drawn."""
    testing.check_policy(OnlineMixing())
    k, alpha, rng = 4, 0.9, np.random.default_rng(0)
    policy = OnlineMixing(alpha)
    state = policy.init(k)
    reward, shares = [0.0] * k, [1 / k] * k
    for t in range(60):
        drawn, losses = rng.random(k) < 0.7, rng.uniform(1, 5, k) + 5 * (np.arange(k) == 2)
        age = np.where(drawn, 0.0, 1.0)
        state = policy.update(state, Estimate(losses, np.ones(k), np.ones(k), age))
        for i in np.flatnonzero(drawn):
            reward[i] = alpha * reward[i] + (1 - alpha) * losses[i] / shares[i]
        before, now = (min(1 / k, math.sqrt(math.log(k) / (k * max(s, 1)))) for s in (t, t + 1))
        total = sum(math.exp(before * r) for r in reward)
        shares = [(1 - k * now) * math.exp(before * r) / total + now for r in reward]
        assert np.exp(policy.log_score(state)) == pytest.approx(shares)
    assert shares[2] > 1.2 / k


def test_online_mixing_is_drawn_as_it_says(texts: Corpus) -> None:
    allocator = aria.Allocator(texts.pool, **METHODS["odm"].settings())
    for step in range(50):
        draw = allocator.draw(8)
        allocator.observe(draw.regions, 1.0 + draw.regions + step % 2)
        allocator.step()
    assert allocator.probabilities == pytest.approx(np.exp(allocator.policy.log_score(allocator._progress.policy)))
    assert allocator.metrics()["forced_visits"] == 0


def test_doremi_goes_by_the_excess_over_its_reference(texts: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an excess in one group alone, its mean share is the largest; without any, all are alike."""
    settings = train.RunSettings("doremi", 0, steps=12, batch=12, width=8)
    proxy = aria.Allocator(texts.pool, seed=0, **train.PROXY)
    perfect = ByteModel(width=8, seed=1)
    monkeypatch.setattr(perfect, "forward", lambda tokens: torch.full(tokens.shape, 1e3))
    assert train.train(settings, texts, proxy, over=perfect).shares == pytest.approx(np.full(3, 1 / 3))
    proxy = aria.Allocator(texts.pool, seed=0, **train.PROXY)
    hard = {row.tobytes() for row in texts.train[texts.pool.labels == 2]}

    def forward(tokens: Any) -> Any:
        is_hard = [row.astype(np.uint8).tobytes() in hard for row in tokens.numpy()]
        return torch.where(torch.tensor(is_hard)[:, None], 0.0, 1e3).expand(tokens.shape)

    monkeypatch.setattr(perfect, "forward", forward)
    assert train.train(settings, texts, proxy, over=perfect).shares.argmax() == 2


# -- statistics


def _results(**values: list[float]) -> dict[str, Any]:
    """Two groups with equal losses, one value a seed."""
    runs = [
        {"method": method, "seed": seed, "losses": [value, value], "halfway": [2.0, 3.0], "drawn": [1, 1],
         "cpu_seconds": 1.0, "steps": 1, "batch": 1}
        for method, losses in values.items() for seed, value in enumerate(losses)
    ]  # fmt: skip
    return {
        "edition": 2,
        "corpus": {"groups": ["a", "b"], "train": [1, 3], "python": "3", "fingerprint": "f"},
        "runs": runs,
    }


def test_differences_are_paired_by_seed_and_corrected() -> None:
    results = _results(uniform=[1.0, 2.0, 3.0], aria_uniform=[0.9, 1.9001, 2.9], pool=[2.0, 1.0, 4.0])
    results["runs"].reverse()
    assert report.differences(results, "aria_uniform", "uniform", "macro") == pytest.approx([-0.1, -0.0999, -0.1])
    cells = report.comparison(results, [("aria_uniform", "uniform"), ("pool", "uniform")])
    assert cells["aria_uniform", "uniform", "macro"] == "-5.0 ± 0.0% *"
    assert cells["pool", "uniform", "macro"].startswith("+16.7 ±")
    assert "*" not in cells["pool", "uniform", "macro"]


# -- the command


def test_smoke(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "load", functools.partial(corpus.load, library))
    command = ["--smoke", "--seeds", "0,1", "--out", str(tmp_path)]
    main(command)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(run["seed"], run["method"]) for run in results["runs"]] == [(s, m) for s in (0, 1) for m in METHODS]
    for run in results["runs"]:
        assert np.isfinite(run["losses"]).all()
        assert sum(run["drawn"]) == run["steps"] * run["batch"]
        assert sum(run["shares"]) == pytest.approx(1, abs=1e-4)
    assert (tmp_path / "mixing.png").stat().st_size > 10_000
    assert "0 of them finished before" in capsys.readouterr().out
    before = (tmp_path / "results.json").read_text()
    main(command)
    assert "20 of them finished before" in capsys.readouterr().out
    assert (tmp_path / "results.json").read_text() == before


def test_a_run_repeats_bit_for_bit(texts: Corpus) -> None:
    settings = train.RunSettings("aria_uniform", 5, steps=6, batch=8, width=8)
    first, second = (train.run(settings, texts) for _ in range(2))
    assert {**first, "cpu_seconds": 0} == {**second, "cpu_seconds": 0}


def test_unknown_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="magic"):
        main(["--methods", "pool,magic", "--out", str(tmp_path)])


def test_the_committed_table_is_that_of_the_committed_results() -> None:
    results = study.load_results(RESULTS)
    assert (RESULTS / "table.md").read_text(encoding="utf-8") == report.table(results)
    assert {(run["method"], run["seed"]) for run in results["runs"]} == {(m, s) for m in METHODS for s in range(5)}
    assert {(run["steps"], run["batch"]) for run in results["runs"]} == {(500, 32)}
