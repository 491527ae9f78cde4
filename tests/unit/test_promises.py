"""Every promise of the README and of the documentation has a test, or says why it needs none; see `tests.promises`."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import binom

import aria_sampling as aria
from tests import promises
from tests.promises import ROOT

HINT = "`python -m tests.promises --write` brings tests/promises.toml up to date; then name a test for each TODO"


def text_of(name):
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize("name", promises.pages())
def test_every_promise_has_a_test(name):
    listed, found = promises.committed().get(name, {}), promises.promising(text_of(name))
    assert [s for s in found if s not in listed] == [], f"{name} promises what is not listed. {HINT}"
    assert [s for s in listed if s not in found] == [], f"{name} no longer says what is listed. {HINT}"
    wrong = {sentence: promises.faults(held) for sentence, held in listed.items() if promises.faults(held)}
    assert wrong == {}


def test_no_page_is_listed_that_is_gone():
    assert promises.committed().keys() <= promises.pages().keys()


def test_what_a_sentence_is():
    text = "\n".join(
        [
            "# Never a heading",
            "One is *always* right. Two ends",
            "on another line, every time.",
            "- an item at most,",
            "  and more of it. Not `exactly` this",
            "<!-- always -->",
            "| a row | never. Two |",
            "```python",
            "any = 1",
            "```",
            "Nothing.",
        ]
    )
    assert promises.promising(text) == [
        "# Never a heading",
        "One is *always* right.",
        "Two ends on another line, every time.",
        "- an item at most, and more of it.",
        "| a row | never. Two |",
    ]


def test_what_holds_a_promise():
    here = "tests/unit/test_promises.py::test_what_holds_a_promise"
    assert promises.faults(here) == promises.faults([here, here]) == []
    assert promises.faults("docs/tutorial.md::import aria_sampling as aria") == []
    assert promises.faults("no promise: advice") == promises.faults("definition: a word") == []
    for nothing in (
        promises.TODO,
        [],
        "no promise: ",
        "tests/unit/test_promises.py::test_that_is_not_there",
        "tests/unit/test_promises.py::text_of",
        "tests/unit/no_file.py::test_what_holds_a_promise",
        "tests/unit/test_promises.py",
        "docs/tutorial.md::never in any block",
        [here, "x"],
    ):
        assert promises.faults(nothing), nothing


# -- promises about results that are committed -------------------------------------------------------


def test_the_campaign_found_what_its_page_says():
    results = ROOT / "tests" / "stress" / "results"
    kills, ranks, soak = (
        json.loads((results / f"{part}.json").read_text("utf-8")) for part in ("kills", "ranks", "soak")
    )
    assert kills["problems"] == ranks["problems"] == soak["problems"] == []
    assert set(kills["runs"]) == {"loader", "workers", "stateful", "conditioning", "mixture"}
    assert len(kills["planted"]) == 5
    assert all(kills["planted"].values())
    assert ranks["rounds"] == 10_000
    assert [ranks["same"][face]["compared"] for face in ("sampler", "conditioning")] == [2600, 2600]
    assert len(ranks["interrupted"]) == 6
    assert max(soak["rounds"]) == 1_000_000
    page = text_of("docs/explanation/reliability.md")
    for said in ("in five kinds", "10,000 rounds", "2,600 comparisons", "all six cases", "A million rounds"):
        assert said in " ".join(page.split())


def test_shares_in_the_mixing_study_are_as_its_page_says():
    runs = json.loads(text_of("benchmarks/mixing/results/results.json"))["runs"]
    shares = lambda method: np.mean([run["shares"] for run in runs if run["method"] == method], axis=0)  # noqa: E731
    ratios = 30 * np.stack([shares(method) for method in ("aria_uniform", "reducible_uniform", "group_dro", "odm")])
    losses = np.mean([run["losses"] for run in runs if run["method"] == "uniform"], axis=0)
    page = " ".join(text_of("docs/explanation/mixing.md").split())
    assert f"between {losses.min():.2f} and {losses.max():.2f}, a factor of {losses.max() / losses.min():.2f}" in page
    low, high = np.floor(100 * ratios.min()) / 100, np.ceil(100 * ratios.max()) / 100
    assert f"less than {low:.2f} or more than {high:.2f} times its target" in page


def test_the_oracle_and_the_diluted_pool_are_as_the_readme_says():
    row = next(
        line for line in text_of("docs/benchmarks.md").splitlines() if line.startswith("| pool: diluted fivefold")
    )
    aria, oracle = (row.split("|")[column].split("±")[0].strip() for column in (4, 5))
    assert (aria, oracle) == ("−27", "−44")
    assert "it takes 27% off, and the oracle 44%." in " ".join(text_of("README.md").split())


# -- small promises of a page that no other test holds -----------------------------------------------


@pytest.mark.parametrize("exploration", [0.05, 0.2])
def test_a_score_of_minus_infinity_leaves_the_exploration(exploration):
    @dataclass(frozen=True)
    class NotTheFirst(aria.Policy):
        local = True

        def log_score(self, estimate, shared):
            return np.where(estimate.mean < 1.5, -np.inf, 0.0)

    pool = aria.Partition.from_labels(np.repeat(np.arange(4), [10, 20, 30, 40]))
    allocator = aria.Allocator(pool, policy=NotTheFirst(), exploration=exploration, seed=0)
    draw = allocator.draw(64)
    allocator.observe(draw.regions, 1.0 + draw.regions)
    allocator.step()
    share = np.array([0.1, 0.2, 0.3, 0.4])
    wanted = (1 - exploration) * np.array([0.0, 0.2, 0.3, 0.4]) / 0.9 + exploration * share
    np.testing.assert_allclose(allocator.probabilities, wanted, rtol=1e-12)


def test_a_control_variate_leaves_the_mean():
    """T3.6, E: the mean over timesteps of loss - c (mu - its mean) is that of the loss, for any profile and any c."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        chance, loss, profile = rng.dirichlet(np.ones(7)), rng.lognormal(size=7), rng.lognormal(size=7)
        for c in (-3.0, 0.0, 0.5, 10.0):
            assert chance @ (loss - c * (profile - chance @ profile)) == pytest.approx(chance @ loss, abs=1e-12)


@pytest.mark.parametrize(("rows", "share"), [(1, 0.01), (5, 0.3), (64, 0.9)])
def test_counts_of_rows_scatter_by_at_most_their_root(rows, share):
    """T4.8, E: m rows a round over R rounds; a moving average of rate rho is as good as (2 - rho) / rho rounds."""
    for rounds in (1, 10, 99):
        k, n = np.arange(rows * rounds + 1), rows * rounds
        chance = binom.pmf(k, n, share)
        mean = chance @ k
        assert mean == pytest.approx(n * share, rel=1e-9)
        assert np.sqrt(chance @ (k - mean) ** 2) <= np.sqrt(n * share)
    for rate in (0.02, 0.1, 0.5):
        weights = rate * (1 - rate) ** np.arange(5000)
        assert 1 / (weights**2).sum() == pytest.approx((2 - rate) / rate, rel=1e-9)


def test_every_test_that_a_case_names_exists():
    """docs/cases.md says of each situation which tests hold what happens there."""
    rows = [line for line in text_of("docs/cases.md").splitlines() if re.match(r"\| \d+ \|", line)]
    assert [int(row.split("|")[1]) for row in sorted(rows, key=lambda row: int(row.split("|")[1]))] == list(
        range(1, 68)
    )
    for row in rows:
        named = re.findall(r"`((?:unit|laws|stress)/[^`]+)`", row.split("|")[4])
        assert named or "**Open**" in row, row
        for name in named:
            assert promises.exists(f"tests/{name}") if "::" in name else (ROOT / "tests" / name).exists(), name
