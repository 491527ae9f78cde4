"""The diffs at the top of the integrations' READMEs: short, and equal to the scripts beside them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "integrations"
MOST = {"transformers_trainer": 15, "lightning": 15, "webdataset_streaming": 15}


def diff(name):
    """The lines of the first block of a README, which is a diff."""
    _, block, *_ = (ROOT / name / "README.md").read_text().split("```")
    language, *lines = block.splitlines()
    assert language == "diff"
    return lines


@pytest.mark.parametrize(("name", "most"), MOST.items())
def test_a_diff_is_short_and_true(name, most):
    script = (ROOT / name / "train.py").read_text().splitlines()
    lines = diff(name)
    changed = [line for line in lines if line[:1] in ("+", "-") and line[1:].strip()]
    assert 0 < len(changed) <= most
    removed = [line[1:] for line in lines if line.startswith("-")]
    kept = [line[1:] for line in lines if line[1:].strip() not in ("", "...") and not line.startswith("-")]
    assert [line for line in kept if line not in script] == []
    assert [line for line in removed if line in script] == []
