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
        monkeypatch.setattr(history, "advice", lambda r=recommendation, **_: aria.Advice(r, gain, gain))
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


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages without figures, which take long."""
    monkeypatch.setattr(report._page, "figures", lambda history: {})


def written(tmp_path, history, saved=None):
    """The page of the command line, from a history saved alone, or in `saved`."""
    torch = pytest.importorskip("torch")
    from aria_sampling.cli import main

    torch.save(history.state_dict() if saved is None else saved, tmp_path / "history.pt")
    history.allocator.partition.save(tmp_path / "pool.aria")
    main(["report", *(str(tmp_path / name) for name in ("history.pt", "pool.aria", "out.html"))])
    return (tmp_path / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "settings",
    [
        {"target": "uniform", "policy": aria.GroupDRO()},
        {"target": "pool", "even": False},
        {"target": 0.3, "even": False, "max_repeat": 1.5},
        {"policy": aria.PoolPolicy(), "even": False},
        {"policy": aria.UniformPolicy(), "even": False},
        {"target": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "estimator": aria.Ema()},
        {"target": [1 / 3, 0, 1e-9, 1 / 7, 2, 5], "exploration": 0.7, "lag": 0},
    ],
    ids=["uniform", "pool", "tau, capped", "PoolPolicy", "UniformPolicy", "floats", "floats that are not shares"],
)
def test_from_the_command_line(tmp_path, capsys, settings, no_pictures):
    """The page of the saved run is that of the live one, to the last byte, whatever the target."""
    history = trained(names=NAMES, **settings)
    page = written(tmp_path, history)
    assert capsys.readouterr().out.strip() == str(tmp_path / "out.html")
    live = report.html(history, tmp_path / "live.html").read_text(encoding="utf-8")
    assert page == live
    assert f"{100 * history.allocator.target[0]:.3g}%" in Page(page).text
    assert repr(history.allocator.policy) in Page(page).text


@pytest.mark.parametrize("seed", range(30))
def test_a_target_is_not_normalised_again(seed):
    """Twice normalised shares differ in their last bit in most random pools; so a saved run was refused."""
    rng = np.random.default_rng(seed)
    n_regions = [5, 100][seed % 2]
    pool = aria.Partition.from_sizes(rng.integers(1, 10_000, n_regions))
    target = ["pool", 0.37, rng.random(n_regions)][seed % 3]
    history = aria.History(aria.Allocator(pool, target=target), every=1, max_records=4)
    history.allocator.draw(4)
    history.allocator.step()
    history.record()
    read = aria.History.read(history.state_dict(), pool)
    assert np.array_equal(read.allocator.target, history.allocator.target)
    assert np.array_equal(aria.Allocator(pool, target=history.allocator.target).target, history.allocator.target)


def by_loop(allocator):
    for _ in range(8):
        draw = allocator.draw(16)
        allocator.observe(draw.regions, 1.0 + draw.regions)
        allocator.step()
        yield None


def by_sampler(allocator):
    sampler = allocator.sampler(batch_size=16, num_samples=128)
    for batch in batches(sampler):
        sampler.observe(batch, 1.0 + allocator.partition.regions_of(np.array(batch)))
        yield sampler.state_dict()


def batches(sampler):
    """Batches as a loader without workers takes them."""
    items = iter(sampler)
    for _ in range(8):
        yield [next(items) for _ in range(16)]


def by_switch(allocator):
    switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.5), normalise=False)
    for r in range(8):
        switch.draw(np.arange(32) * 30)
        switch.observe(1.0 + np.arange(32) % 5 + r)
        yield switch.state_dict()


def by_mixture(allocator):
    from aria_sampling.torch import RegionMixture

    sources = {name: range(9) for name in allocator.partition.names}
    mixture = RegionMixture(sources, allocator, batch_size=16, num_samples=128)
    samples = iter(mixture)
    for _ in range(8):
        regions = [next(samples)[0] for _ in range(16)]
        mixture.observe(regions, [1.0 + region for region in regions])
        yield mixture.state_dict()


def after_adopt(allocator):
    other = aria.Allocator(allocator.partition, target="uniform")
    for _ in by_loop(other):
        pass
    allocator.adopt(other.state_dict(), partition=allocator.partition)
    yield from by_loop(allocator)


@pytest.mark.parametrize("face", [by_loop, by_sampler, by_switch, by_mixture, after_adopt])
def test_from_a_checkpoint_of_any_face(tmp_path, face, no_pictures):
    """The history lies in the checkpoint beside the states of the others; regions and target are not all alike."""
    pytest.importorskip("torch")
    pool = aria.Partition.from_labels(np.repeat(np.arange(5), [3, 5, 7, 11, 13]))
    covered = None if face in (by_loop, by_mixture) else aria.Coverage(pool, items=[0, 9, 9, 30])
    allocator = aria.Allocator(pool, target=0.4, coverage=covered, max_repeat=9.0)
    history, state = aria.History(allocator, every=1), None
    for its in face(allocator):
        history.record()
        state = its
    checkpoint = {"step": 8, "aria": {"face": state, "allocator": allocator.state_dict(), "log": history.state_dict()}}
    page = written(tmp_path, history, checkpoint)
    assert page == report.html(history, tmp_path / "live.html").read_text(encoding="utf-8")
    said = re.search(r"Coverage: ([^.]*)\.", Page(page).text).group(1)
    assert said == ("none" if covered is None else "4 rows of data, none in 2 regions")


def test_a_checkpoint_without_a_history_says_what_to_save(tmp_path, capsys):
    pytest.importorskip("torch")
    history = trained(names=NAMES)
    for saved, words in (
        (history.allocator.state_dict(), "got no history in its dict"),
        ([1, 2], "got no history in its list"),
        ({"a": history.state_dict(), "b": history.state_dict()}, "got several histories"),
    ):
        with pytest.raises(SystemExit):
            written(tmp_path, history, saved)
        said = capsys.readouterr().err
        assert words in said
        assert "save its state_dict() too" in said


def switched(normalise):
    pool = aria.Partition.from_labels(np.repeat(np.arange(4), [10, 20, 30, 40]))
    coverage = aria.Coverage(pool, items=[0, 1, 99])
    switch = aria.RandomConditioning(
        aria.Allocator(pool, coverage=coverage), schedule=aria.ConstantSwitch(0.5), normalise=normalise
    )
    history, rng = aria.History(switch, every=2), np.random.default_rng(0)
    for r in range(40):
        steps = rng.integers(0, 1000, 32)
        switch.draw(steps)
        switch.observe((1.0 + steps / 100) / (1 + r))
        history.record()
    return history


def test_a_ratio_near_one_is_not_shown_as_progress(tmp_path, no_pictures):
    """Under a RandomConditioning losses are divided by what is usual at their noise level."""
    history = switched(normalise=True)
    page = Page(report.html(history, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "near 1 by construction" in page.text
    assert "ratio first" in page.text
    assert "Coverage: 3 rows of data, none in 2 regions" in page.text
    figure = report.figures(history)["discrepancy"]
    assert "come down" not in figure.get_suptitle()
    assert not [line for line in figure.axes[0].lines if line.get_label() == "mean under the target"]
    raw = switched(normalise=False)
    assert "come down" in report.figures(raw)["discrepancy"].get_suptitle()
    assert "near 1 by construction" not in report.html(raw, tmp_path / "r.html").read_text(encoding="utf-8")


HARD_NAMES = ["cats", "cats", "猫の写真", "قطط", "n" * 80, "n" * 79 + "m", "", "x\ny", "Größe", "\ud800", "$a$", "#2"]


def test_names_of_any_script_that_repeat_or_are_long(tmp_path, recwarn):
    """In figures a name is written, or the region's number, and no two are alike; the table has both."""
    history = trained(12, names=HARD_NAMES)
    names = report._figures.region_names(history)
    assert len(set(names)) == 12
    assert max(map(len, names)) <= 28
    assert names[:4] == ["cats (#0)", "cats (#1)", "#2 (#2)", "#3"]
    assert [names[k] for k in (6, 7, 8, 9, 10, 11)] == ["#6", "x y", "Größe", "#9", "$a$", "#2 (#11)"]
    page = Page(report.html(history, tmp_path / "r.html").read_text(encoding="utf-8"))
    for name in ("cats (#0)", "cats (#1)", "猫の写真 (#2)", "قطط (#3)", "n" * 79 + "m", "Größe"):
        assert name in page.text
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
    assert page.tags.count("bdi") == 12


def test_nothing_to_allocate_is_the_answer(tmp_path, no_pictures):
    history = trained(8, rounds=40)
    alike = aria.History(aria.Allocator(history.allocator.partition), every=1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        draw = alike.allocator.draw(16)
        alike.allocator.observe(draw.regions, rng.gamma(4.0, 0.25, 16))
        alike.allocator.step()
        alike.record()
    assert "There was nothing to allocate" in report.html(alike, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "nothing to allocate" not in report.html(history, tmp_path / "r.html").read_text(encoding="utf-8")


def test_who_knows_that_regions_learn_alone_says_so(tmp_path, no_pictures):
    history = trained(names=NAMES)
    page = Page(report.html(history, tmp_path / "r.html", regions_learn_alone=True).read_text(encoding="utf-8"))
    assert history.advice(regions_learn_alone=True).verdict in page.text
    assert "learns from its own draws alone" in page.text
    assert "One run cannot show" not in page.text


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
