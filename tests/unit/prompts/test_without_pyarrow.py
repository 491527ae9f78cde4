"""Plain text, JSON Lines and CSV are read without pyarrow; what needs it says so."""

import sys

import pytest

import aria_sampling as aria
from aria_sampling import prompts
from tests.unit.prompts import formats

CAPTIONS = ["a cat", " ", "two dogs"]


@pytest.mark.parametrize("kind", ["text", "jsonl", "strings", "csv", "tsv"])
def test_text_is_read_without_it(kind, tmp_path, monkeypatch):
    path = formats.write(tmp_path, kind, CAPTIONS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert list(prompts.read(path)) == ["a cat", "two dogs"]


def test_what_needs_it_names_the_extra(tmp_path, monkeypatch):
    pool = prompts.write(tmp_path / "pool", CAPTIONS)
    paths = [formats.write(tmp_path, "parquet", CAPTIONS), formats.write(tmp_path, "text", CAPTIONS, packed=".gz")]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    calls = [lambda: prompts.write(tmp_path / "new", CAPTIONS), lambda: prompts.open(pool.path)]
    for call in [*calls, *(lambda path=path: list(prompts.read(path)) for path in paths)]:
        with pytest.raises(aria.MissingDependencyError, match=r"need pyarrow: pip install 'aria-sampling\[text\]'"):
            call()
    assert not (tmp_path / "new").exists()
