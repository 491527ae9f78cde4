"""The commands that come before a partition: what they make is what the API makes, and what they refuse is named."""

import json

import pytest

from aria_sampling import prompts
from aria_sampling.cli import main
from tests.unit.prompts import formats
from tests.unit.test_cli import ends_with

pytest.importorskip("pyarrow")

CAPTIONS = ["a cat", "two dogs", " ", None, "a cat", "a bus\nand a\ttram"]


@pytest.fixture
def captions(tmp_path):
    """A folder of two Parquet files with the same captions but one."""
    for name, last in (("a", "first"), ("b", "second")):
        rows = [*CAPTIONS, last]
        beside = {"has_image": [n % 2 == 0 for n in range(len(rows))]}
        formats.write(tmp_path / "captions", "parquet", rows, beside=beside, name=name)
    return tmp_path / "captions"


def said(capsys, *argv):
    main([str(word) for word in argv])
    return capsys.readouterr().out


def test_prompts_import_is_write_of_read(captions, tmp_path, capsys):
    out = tmp_path / "pool"
    words = said(capsys, "prompts", "import", f"{captions}/*.parquet", "--column", "caption", "--out", out,
                 "--keep", "has_image", "--set", "web=true", "--set", "year=2024", "--set", "source=a=b")  # fmt: skip
    pool = prompts.open(out)
    same = prompts.write(
        tmp_path / "same",
        prompts.read(captions, keep=["has_image"], constants={"web": True, "year": 2024, "source": "a=b"}),
    )
    assert pool.fingerprint == same.fingerprint
    assert pool.table().equals(same.table())
    assert list(pool) == ["a cat", "two dogs", "a bus\nand a\ttram", "first", "second"]
    assert f"5 items, fingerprint {pool.fingerprint[:12]}" in words
    assert "read: 14 captions in 14 rows of 2 sources; left out: 2 empty, 2 null, 5 duplicates" in words
    assert f"items 4 to 4: {captions}/b.parquet" in words
    assert "  2: a bus and a tram" in words
    assert words == said(capsys, "prompts", "show", out, "--verify")


def test_what_is_printed_as_json_is_one_object(captions, tmp_path, capsys):
    out = tmp_path / "pool"
    made = json.loads(said(capsys, "prompts", "import", captions, "--out", out, "--json"))
    pool = prompts.open(out)
    assert (made["items"], made["fingerprint"]) == (len(pool), pool.fingerprint)
    assert made["counts"] == {"rows": 14, "captions": 14, "items": 5, "empty": 2, "null": 2, "duplicates": 5}
    assert [source["end"] for source in made["sources"]] == [4, 5]
    assert made["captions"]["2"] == "a bus\nand a\ttram"
    assert json.loads(said(capsys, "prompts", "show", out, "--json")) == made
    assert json.loads(said(capsys, "prompts", "show", out, "--json", "--items", 3, 0))["captions"] == {
        "3": "first",
        "0": "a cat",
    }


def test_a_store_is_appended_to_or_replaced_if_that_is_said(captions, tmp_path, capsys):
    out = tmp_path / "pool"
    more = formats.write(tmp_path, "text", ["a cat", "a bird"])
    said(capsys, "prompts", "import", captions / "a.parquet", "--out", out)
    assert "a store is there" in ends_with(capsys, "prompts", "import", more, "--out", out)
    said(capsys, "prompts", "import", more, "--out", out, "--append")
    assert list(prompts.open(out)) == [
        *list(prompts.read(captions / "a.parquet"))[:2],
        "a bus\nand a\ttram",
        "first",
        "a bird",
    ]
    said(capsys, "prompts", "import", more, "--out", out, "--append", "--duplicates", "keep")
    assert prompts.open(out)[5:] == ["a cat", "a bird"]
    said(capsys, "prompts", "import", more, "--out", out, "--overwrite")
    assert list(prompts.open(out)) == ["a cat", "a bird"]


def test_every_option_of_reading_arrives(tmp_path, capsys):
    path = tmp_path / "captions.data"
    path.write_bytes('caf\xe9 "x\t1\n'.encode("latin-1"))
    words = [
        "--format",
        "tsv",
        "--encoding",
        "latin-1",
        "--no-header",
        "--no-quotes",
        "--column",
        "0",
        "--keep",
        "1:int",
    ]
    said(capsys, "prompts", "import", path, "--out", tmp_path / "pool", *words)
    pool = prompts.open(tmp_path / "pool")
    assert (list(pool), pool.column("1").tolist()) == (['café "x'], [1])
    lists = formats.write(tmp_path, "jsonl", [["a", "b"], None, " ", "a"])
    said(capsys, "prompts", "import", lists, "--out", tmp_path / "first", "--lists", "first", "--duplicates", "keep")
    assert list(prompts.open(tmp_path / "first")) == ["a", "a"]
    for option, place in (("lists", 1), ("null", 2), ("empty", 3), ("duplicates", None)):
        error = ends_with(capsys, "prompts", "import", lists, "--out", tmp_path / "none", f"--{option}", "refuse")
        assert f"captions.jsonl, {'row 3' if place is None else f'line {place}'}:" in error
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_used_is_named(captions, tmp_path, capsys):
    pool = tmp_path / "pool"
    said(capsys, "prompts", "import", captions, "--out", pool)
    vectors = tmp_path / "vectors.npy"
    vectors.write_bytes(b"\x93NUMPY\x01\x00")
    for argv, words in (
        (("import", captions), ("--out",)),
        (("import", captions, "--out", pool), ("a store is there", "overwrite")),
        (("import", tmp_path / "absent", "--out", pool), ("absent", "no such file")),
        (
            ("import", captions, "--out", tmp_path / "new", "--column", "text"),
            ("column='text'", "'caption', 'has_image'"),
        ),
        (("import", captions, "--out", tmp_path / "new", "--no-header", "--column", "x"), ("--column 'x'", "a number")),
        (("import", captions, "--out", tmp_path / "new", "--set", "x"), ("--set 'x'", "NAME=VALUE")),
        (("import", vectors, "--out", tmp_path / "new"), ("vectors.npy", "expected a file of captions")),
        (("import", captions, "--out", captions), ("captions", "a.parquet")),
        (("show", captions), ("captions", "no prompts.json")),
        (("show", captions / "a.parquet"), ("a.parquet", "got a Parquet table", "prompts import")),
        (("show", pool, "--items", "5"), ("--items=5", "[0, 4]")),
        ((), ("part",)),
    ):
        line = ends_with(capsys, "prompts", *argv)
        assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()
