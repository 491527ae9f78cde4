"""The report: the page says what it should, whatever the names and the number of regions, and stands alone."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import report

pytest.importorskip("matplotlib")

NAMES = ["cats", "<script>alert(1)</script>", "a & b", "$x^2", "猫の写真", "n" * 80]
FIGURES = {"shares", "heat", "discrepancy", "draws", "health"}


def trained(n_regions=6, rounds=12, names=None, **settings):
    sizes = 3 if settings.pop("even", True) else 1 + np.arange(n_regions)
    pool = aria.Partition.from_labels(np.repeat(np.arange(n_regions), sizes), names=names)
    history = aria.History(aria.Allocator(pool, **settings), every=1)
    for _ in range(rounds):
        draw = history.allocator.draw(16)
        history.allocator.observe(draw.regions, 1.0 + draw.regions % 7)
        history.allocator.step()
        history.record()
    return history


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.attributes = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_the_page_answers_first_and_stands_alone(tmp_path):
    history = trained(names=NAMES)
    path = report.html(history, tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert "Would uniform have done as well?" in page.text
    assert page.text.index("Would uniform") < page.text.index("Regions")
    assert history.advice().verdict in page.text
    assert str(history.advice().over_uniform) in page.text
    assert "12 rounds, 192 draws from 18 items in 6 regions" in page.text
    assert "Proportional(exponent=1.0)" in page.text
    assert page.tags.count("img") == len(FIGURES)
    assert not {"script", "link", "iframe"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith("data:image/png;base64,iVBOR")
    for name in NAMES:
        assert name in page.text  # whole, and as text: no markup came of it


def test_an_answer_of_each_kind_has_a_heading(monkeypatch, tmp_path):
    history, gain = trained(2, 3), aria.Gain(0.1, 0.05, 0.2)
    monkeypatch.setattr(report._page, "figures", lambda history: {})
    for recommendation in ("adaptive", "pool", "uniform", "undecided"):
        monkeypatch.setattr(history, "advice", lambda r=recommendation: aria.Advice(r, gain, gain))
        page = Page(report.html(history, tmp_path / "r.html").read_text(encoding="utf-8"))
        assert history.advice().verdict in page.text
        assert "+10.0% (+5.0% to +20.0%)" in page.text


@pytest.mark.parametrize(
    "history",
    [
        lambda: trained(1),
        lambda: trained(rounds=1),
        lambda: trained(5000, 3),
        lambda: trained(200, 3, target=[0.0] * 100 + [1.0] * 100),
        lambda: trained(policy=aria.UniformPolicy()),
    ],
    ids=["one region", "one record", "5000 regions", "half of no worth", "a baseline"],
)
def test_figures_of_any_history(history):
    made = report.figures(history())
    assert set(made) == FIGURES
    for figure in made.values():
        figure.draw_without_rendering()


def test_figures_show_the_data():
    history = trained()
    made = report.figures(history)
    bars = sorted(bar.get_width() for bar in made["draws"].axes[0].patches)
    assert np.allclose(bars, np.sort(100 * history.draw_counts[-1] / history.draw_counts[-1].sum()))
    mean = next(line for line in made["discrepancy"].axes[0].lines if line.get_label() == "mean under the target")
    assert np.array_equal(mean.get_ydata(), history.metrics("discrepancy"))


def test_refuses_what_it_cannot_show():
    with pytest.raises(ValueError, match=r"at least one record, got none.*record\(\)"):
        report.figures(trained(rounds=0))
    with pytest.raises(ValueError, match="expected a History, got Allocator"):
        report.figures(trained(rounds=0).allocator)
    with pytest.raises(ValueError, match="expected a History, got str"):
        report.html("report.html", trained())  # the wrong way round


def test_matplotlib_is_loaded_when_a_figure_is_made():
    code = "import sys, aria_sampling.report; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "uniform", "policy": aria.GroupDRO()},
        {"target": "pool", "even": False},
        {"target": 0.3, "even": False, "max_repeat": 1.5},
        {"policy": aria.PoolPolicy(), "even": False},
    ],
    ids=["uniform", "regions of unequal size", "a power of the size", "a baseline"],
)
def test_from_the_command_line(tmp_path, capsys, settings):
    torch = pytest.importorskip("torch")
    from aria_sampling.cli import main

    history = trained(names=NAMES, **settings)
    torch.save(history.state_dict(), tmp_path / "history.pt")
    history.allocator.partition.save(tmp_path / "pool.aria")
    main(["report", *(str(tmp_path / name) for name in ("history.pt", "pool.aria", "out.html"))])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out.html")
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert history.advice().verdict in page.text
    assert f"{100 * history.allocator.target[0]:.3g}%" in page.text
    assert not re.search("Proportional|EmaBank", page.text)  # settings that are not in the files are not made up


@pytest.mark.parametrize("wrong", ["history", "pool", "out"])
@pytest.mark.parametrize("how", ["missing", "empty", "other"])
def test_the_command_line_says_which_file_is_wrong(tmp_path, capsys, wrong, how):
    torch = pytest.importorskip("torch")
    from aria_sampling.cli import main

    history = trained(names=NAMES)
    torch.save(history.state_dict(), tmp_path / "history")
    history.allocator.partition.save(tmp_path / "pool")
    paths = {name: tmp_path / name for name in ("history", "pool", "out")}
    if wrong == "out":
        paths["out"] = tmp_path / "nowhere" / "out.html"
    elif how == "missing":
        paths[wrong].unlink()
    elif how == "empty":
        paths[wrong].write_bytes(b"")
    else:  # a good file of the other kind
        paths["history"], paths["pool"] = paths["pool"], paths["history"]
    with pytest.raises(SystemExit) as stopped:
        main(["report", *map(str, paths.values())])
    assert stopped.value.code == 2
    assert re.search(rf"error: report: (HISTORY|POOL|OUT) {re.escape(str(tmp_path))}", capsys.readouterr().err)
