"""The emoji study's tables: differences paired by seed, their intervals, a line a method or a cell, and the pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks import statistics
from benchmarks.emoji import agree, compare, evaluate, figures, pages, stats, study, summary
from benchmarks.emoji import distill as distillation
from benchmarks.emoji.world import CONDITIONS, SPLITS


def _run(method: str, seed: int, value: float) -> dict[str, Any]:
    metrics = {s: {c: dict.fromkeys(evaluate.METRICS, value) for c in CONDITIONS} for s in SPLITS}
    settings = distillation.RunSettings(method, "depth3", ("Flags",), seed).as_json()
    return {**settings, "metrics": metrics, "seconds": 1.0}


def test_differences_are_paired_by_seed() -> None:
    runs = [_run("rc", s, 1.0 + s) for s in range(3)] + [_run("aria", s, 0.9 + s) for s in (2, 1, 0)]
    (cell,) = stats.cells(runs).values()
    difference = cell.difference("aria", "generation", "unseen")
    assert difference is not None
    assert difference.half is not None
    assert difference.mean == pytest.approx(-0.1)
    assert difference.half == pytest.approx(0, abs=1e-12)
    assert cell.difference("rc", "generation", "unseen") is None
    assert "(-5.0 ± 0.0%)" in stats.table(runs)


def test_runs_of_other_settings_are_not_compared() -> None:
    other = {**_run("aria", 0, 1.0), "lr": 0.1}
    assert len(stats.cells([_run("rc", 0, 1.0), other])) == 2


def test_holm_is_bonferroni_for_the_smallest_and_never_falls() -> None:
    assert statistics.holm([0.01]) == [0.01]
    assert statistics.holm([0.5, 0.001, 0.02]) == [0.5, 0.003, 0.04]
    assert statistics.holm([0.9, 0.9]) == [1.0, 1.0]
    assert statistics.holm([0.5, float("nan")]) == [1.0, 1.0]
    values = [1.0, 2.0, 4.0]  # the only one that can be tested, so nothing to adjust for
    assert statistics.adjusted([[], values, [3.0]]) == [None, pytest.approx(statistics.p_value(values)), None]


def test_a_spread_of_several_cells_serves_each_of_them() -> None:
    groups = [[1.0, 2.0, 4.0], [10.0, 13.0], [7.0], []]
    squares = sum((x - np.mean(group)) ** 2 for group in groups for x in group)
    spread = statistics.pooled(groups)
    assert spread == statistics.Spread(pytest.approx(np.sqrt(squares / 3)), 3)
    alone = statistics.pooled(groups[:1])
    assert alone is not None
    assert statistics.interval(groups[0]) == statistics.interval(groups[0], alone)
    assert statistics.p_value(groups[0]) == pytest.approx(scipy.stats.ttest_1samp(groups[0], 0).pvalue)
    half = scipy.stats.t.ppf(0.975, 3) * spread.sd
    assert statistics.interval(groups[2], spread).half == pytest.approx(half)
    assert statistics.interval(groups[1], spread).half == pytest.approx(half / np.sqrt(2))
    # the interval ends where p is 0.05
    assert statistics.p_value([half], spread) == pytest.approx(0.05)
    p = statistics.adjusted(groups, spread)
    assert p[3] is None
    assert [x is None for x in statistics.adjusted(groups)] == [False, False, True, True]
    assert p[:3] == statistics.holm([statistics.p_value(group, spread) for group in groups[:3]])


def test_runs_of_two_machines_are_compared_by_name(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    runs = [{**_run(method, 0, 2.0), "name": method, "regions": {"draws": [3, 1]}} for method in ("rc", "aria", "none")]
    runs[2]["regions"] = None
    changed = [{**_run("rc", 0, 2.0 + 1e-3), "name": "rc", "regions": {"draws": [3, 1]}}, {**runs[1]}]
    changed[1] = {**runs[1], "regions": {"draws": [2, 2]}}
    for folder, content in ((ours, [*changed, runs[2]]), (theirs, runs)):
        folder.mkdir()
        (folder / "base.json").write_text(json.dumps(content))
    (ours / "few.json").write_text("[]")
    told = agree.compare(ours, theirs).splitlines()
    assert told == [
        "base aria: draws differ, errors within 0.0e+00 of the committed ones",
        "base none: no draws, errors within 0.0e+00 of the committed ones",
        "base rc: draws equal, errors within 5.0e-04 of the committed ones",
    ]
    assert agree.compare(tmp_path, theirs).startswith("nothing to compare: no CELL.json in")


def test_the_summary_says_what_the_runs_say(tmp_path: Path) -> None:
    def with_curve(run: dict[str, Any], last: float) -> dict[str, Any]:
        points = [{"step": 600, "unseen": 2 * last}, {"step": 1200, "unseen": last}]
        return {**run, "steps": 1200, "curve": points, "regions": None}

    values = {"none": 1.2, "rc": 1.0, "uniform": 0.9, "aria": 0.8, "oracle": 0.75}
    runs = [
        with_curve(_run(method, seed, value + 0.01 * seed), value / (2 if method == "aria" else 1))
        for method, value in values.items()
        for seed in (0, 1)
    ]
    (tmp_path / "few.json").write_text(study.as_json(runs))
    text = summary.write(tmp_path)
    assert (tmp_path / "cells.png").stat().st_size > 1000
    row = next(line for line in text.splitlines() if line.startswith("| images: a tenth |"))
    # in per cent of rc's mean, 1.005; the oracle gains 0.25, ARIA 0.2 of it; ARIA's curve is at rc's end half-way
    assert "| 2 | +19.9 ± 0.0 | -10.0 ± 0.0 | -19.9 ± 0.0 | -24.9 ± 0.0 |" in row
    (row,) = (line for line in text.splitlines() if line.startswith("| images: a tenth | 2 | -11.0 ± 0.0 |"))
    assert row.endswith("| 80% | 0.50 | -19.9 ± 0.0 | -19.9 ± 0.0 | ? → ? |")
    assert "first_aria" not in text
    assert "`aria` against `rc`: below in 1 of 1 cells, median -19.9%, from -19.9 to -19.9%." in text
    assert "Of the oracle's gain: median 80.0% of 1 cells." in text
    # one seed in another cell has the spread of this one's two
    more = [with_curve({**_run("rc", 0, 1.0), "pool": "names"}, 1.0)]
    more += [with_curve({**_run("uniform", 0, 0.9), "pool": "names"}, 1.0)]
    (tmp_path / "names.json").write_text(study.as_json(more))
    runs[4] = with_curve(_run("uniform", 0, 0.8), 1.0)  # 0.91 at seed 1, so that it differs by -20.9 and -9.95 points
    (tmp_path / "few.json").write_text(study.as_json(runs))
    row = next(line for line in summary.write(tmp_path).splitlines() if line.startswith("| pool: names only |"))
    change = (-0.1 / 1.005 * 100, -0.2 / 1.005 * 100)
    half = scipy.stats.t.ppf(0.975, 1) * np.std(change, ddof=1)
    assert f"| 1 |  | -10.0 ± {half:.1f} |" in row
    (tmp_path / "few.json").write_text(
        study.as_json([run for run in runs if (run["method"], run["seed"]) != ("none", 1)])
    )
    assert "| images: a tenth | 1 to 2 | " in summary.write(tmp_path)


def test_a_cell_s_methods_are_compared_on_the_seeds_they_share(tmp_path: Path) -> None:
    def run(method: str, seed: int, value: float, draws: list[int]) -> dict[str, Any]:
        regions = {"draws": draws, "unseen_share": [0.0, 1.0], "sizes": [9, 1]}
        return {**_run(method, seed, value), "regions": regions}

    runs = [run("rc", seed, 1.0 + seed, [9, 1]) for seed in range(4)]
    runs += [run("uniform", seed, 0.9 + seed, [3, 1]) for seed in range(2)]
    runs += [run("aria", seed, 0.8 + seed, [3, 1]) for seed in range(3)]
    runs += [{**run("first_novel4", 1, 1.6, [1, 1]), "edition": 1}]
    (cell,) = stats.cells(runs).values()
    lines = compare.markdown(cell).splitlines()
    # of seeds 0 to 2, where rc's mean is 2, of two seeds, where it is 1.5, and of seed 1 alone, where it is 2
    assert "| ARIA | 2 | 3 | -10.0 ± 0.0 | -10.0 ± 0.0 | -10.0 ± 0.0 | -10.0 ± 0.0 |  |" in "\n".join(lines)
    assert "| uniform over regions | 2 | 2 | -6.7 | -6.7 | -6.7 | -6.7 | +7.7 |" in "\n".join(lines)
    (first,) = (line for line in lines if line.startswith("| first edition: by novelty | 1 |"))
    assert first.endswith("| 1 | -20.0 | -20.0 | -20.0 | -20.0 | -11.1 |  |  | 50% | 100% |")
    compare.draw(cell, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_over_how_many_prompts_draws_are_spread() -> None:
    regions = {"sizes": [10, 10, 5, 5], "unseen_share": [0.0, 0.3, 1.0, 1.0], "draws": [5, 20, 10, 30]}
    (cell,) = stats.cells(
        [{**_run("rc", 0, 1.0), "regions": None}, {**_run("aria", 0, 1.0), "regions": regions}]
    ).values()
    # draws of 13 prompts: 3 twice as often as 5, 5 six times; so (6 + 10 + 30)^2 / (12 + 20 + 180) of them
    assert cell.spread("aria") == pytest.approx(46**2 / 212 / 13)
    assert f"| {46**2 / 212 / 13:.0%} |" in compare.markdown(cell)
    assert cell.spread("rc") is None


def test_the_part_of_the_oracle_s_gain_is_of_the_seeds_of_all_three() -> None:
    runs = [_run("rc", 0, 1.0), _run("rc", 1, 3.0), _run("aria", 0, 0.8), _run("aria", 1, 1.0), _run("oracle", 0, 0.6)]
    (cell,) = stats.cells(runs).values()
    assert summary.Line("few", "", cell).share_of_oracle("aria") == pytest.approx(0.5)
    (cell,) = stats.cells(runs[:4]).values()
    assert summary.Line("few", "", cell).share_of_oracle("aria") is None


def test_what_is_believed_of_unseen_regions_and_of_others() -> None:
    regions = {"sizes": [1, 3, 2, 5, 6], "unseen_share": [1.0, 0.9, 0.0, 0.5, 0.1], "draws": [1] * 5}
    regions |= {"discrepancy": [[9.0] * 5, [2.0, 4.0, 1.0, 7.0, 2.0]]}
    (cell,) = stats.cells(
        [{**_run("rc", 0, 1.0), "regions": None}, {**_run("aria", 0, 1.0), "regions": regions}]
    ).values()
    # mostly unseen: 2 and 4 (of one and three prompts); mostly seen: 1 and 2 (of two and six); a tie counts a half
    assert compare.told_apart(cell, "aria") == pytest.approx((3.5, 1.75, 3.5 / 4))
    assert compare.told_apart(cell, "rc") is None


def test_the_tables_of_the_pages_are_those_of_the_committed_runs() -> None:
    texts = pages.pages()
    for path, text in texts.items():
        assert path.read_text(encoding="utf-8") == text, f"`python -m benchmarks.emoji pages` fills {path.name} in"
    for name in pages.TABLES:  # each is shown somewhere; all places are held to the runs above
        assert any(f"<!-- numbers:{name} -->\n| " in text for text in texts.values())


def test_a_table_is_filled_in_and_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "TABLES", {"one": lambda found: "1\n2", "two": lambda found: "3"})
    text = "a\n<!-- numbers:one -->\nold\n<!-- /numbers -->\nb\n<!-- numbers:two -->\n<!-- /numbers -->\nc\n"
    wanted = "a\n<!-- numbers:one -->\n1\n2\n<!-- /numbers -->\nb\n<!-- numbers:two -->\n3\n<!-- /numbers -->\nc\n"
    assert pages.filled(text, []) == wanted == pages.filled(wanted, [])
    prose = f"numbers: /numbers\n{text}"  # is no marker
    assert pages.filled(prose, []) == f"numbers: /numbers\n{wanted}"
    for mark in ("<!-- /numbers -->\nb", "<!-- numbers:two -->\n", "<!-- numbers:one", "<!-- "):
        with pytest.raises(
            ValueError, match=r"^README.md: expected each table between .* one of one, two; got [12] and"
        ):
            pages.filled(text.replace(mark, "", 1), [], "README.md")
    with pytest.raises(ValueError, match="NAME one of one, two; got 2 and 2 markers around other, two"):
        pages.filled(text.replace("numbers:one", "numbers:other"), [])


def test_tables_are_made_of_whole_cells_only() -> None:
    runs = [_run(method, seed, 1.0) for method in pages._METHODS for seed in (0, 1)]
    found = summary.lines({"few": runs})
    assert pages.whole(found) == found
    for less in (runs[1:], [run for run in runs if run["method"] != "rc"]):
        with pytest.raises(ValueError, match="equally many seeds"):
            pages.whole(summary.lines({"few": less}))
    fewer = summary.lines({"few": [run for run in runs if run["method"] != "aria"]})  # it is in no cell yet
    assert pages.whole(fewer) == fewer


def test_a_cell_of_other_methods_has_a_line() -> None:
    (line,) = summary.lines({"few": [_run("aria_ema", 0, 1.0)]})
    assert line.seeds == "0"
    assert "| images: a tenth | 0 |" in summary.markdown([line])


def test_a_cell_without_methods_of_the_headline_has_its_figure(tmp_path: Path) -> None:
    curve = [{"step": step, "unseen": 1.0 / step, "seen": 0.5 / step} for step in (100, 200, 300)]
    for methods in (("aria_ema", "aria_g2"), ("rc", "aria_ema")):
        (cell,) = stats.cells([{**_run(name, 0, 1.0), "curve": curve} for name in methods]).values()
        figures.draw_curves(cell, tmp_path / "curves.png")
        assert (tmp_path / "curves.png").stat().st_size > 1000
