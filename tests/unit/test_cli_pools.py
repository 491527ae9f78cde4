"""The commands that come before a partition: what they make is what the API makes, and what they refuse is named."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import embed, prompts
from aria_sampling.cli import main
from tests.promises import ROOT
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


# ---------------------------------------------------------------- embed, demo-pool


@pytest.fixture
def pool(captions, tmp_path):
    pytest.importorskip("sklearn")
    return prompts.write(tmp_path / "pool", captions)


def test_embed_is_embed_write(pool, tmp_path, capsys):
    out = tmp_path / "vectors"
    words = said(capsys, "embed", pool.path, "--encoder", "tfidf:6", "--out", out, "--shard-rows", 2)
    same = embed.write(tmp_path / "same", pool, encoder="tfidf:6", shard_rows=2)
    assert np.array_equal(np.asarray(embed.open(out)), np.asarray(same))
    assert words == f"{out}: 5 items, 6 numbers each, float16, by tfidf:6\n"
    found = json.loads(
        said(capsys, "embed", pool.path, "--encoder", "tfidf:6", "--out", out, "--shard-rows", 2, "--json")
    )
    assert found == {
        "path": str(out), "encoder": "tfidf:6", "finished": True, "items": 5, "width": 6, "dtype": "float16",
    }  # fmt: skip
    assert "overwrite" in ends_with(capsys, "embed", pool.path, "--encoder", "tfidf:7", "--out", out)
    said(capsys, "embed", pool.path, "--encoder", "tfidf:7", "--out", out, "--overwrite", "--dtype", "float32")
    assert (embed.open(out).shape, embed.open(out).dtype) == ((5, 7), np.float32)


def test_shards_of_a_pool_by_several_commands(pool, tmp_path, capsys):
    argv = ["embed", pool.path, "--encoder", "tfidf:6", "--out", tmp_path / "vectors", "--shard-rows", 1]
    assert "other processes have shards to make" in said(capsys, *argv, "--shard", "1/2")
    assert json.loads(said(capsys, *argv, "--shard", "1/2", "--json"))["finished"] is False
    assert "5 items" in said(capsys, *argv, "--shard", "0/2")


def test_what_embed_cannot_use_is_named(pool, tmp_path, capsys):
    argv = ["embed", pool.path, "--out", tmp_path / "vectors"]
    for more, words in (
        ((), ("--encoder",)),
        (("--encoder", "glove:x"), ("encoder='glove:x'", "tfidf")),
        (("--encoder", f"clip:{tmp_path}"), ("could not be loaded",)),
        (("--encoder", "tfidf", "--shard", "2/2"), ("--shard '2/2'", "I from 0 to N - 1")),
        (("--encoder", "tfidf", "--shard", "one"), ("--shard 'one'",)),
        (("--encoder", "tfidf", "--shard-rows", "0"), ("shard_rows=0",)),
    ):
        line = ends_with(capsys, *argv, *more)
        assert all(word in line for word in words), line
    line = ends_with(
        capsys, "embed", tmp_path / "captions" / "a.parquet", "--encoder", "tfidf", "--out", tmp_path / "v"
    )
    assert "got a Parquet table" in line
    assert "prompts import" in line


def test_from_a_folder_of_captions_to_regions_by_commands_alone(tmp_path, capsys):
    pytest.importorskip("sklearn")
    folder, pool, vectors = (tmp_path / name for name in ("captions", "pool", "vectors"))
    assert f"{folder}/photos.parquet" in said(capsys, "demo-pool", folder, "--captions", 1500)
    said(capsys, "prompts", "import", f"{folder}/*.parquet", "--keep", "topic", "--column", "caption", "--out", pool)
    said(capsys, "embed", pool, "--encoder", "tfidf", "--out", vectors)
    words = said(capsys, "partition", tmp_path / "regions.aria", "--embeddings", vectors, "--regions", 24)
    regions = aria.Partition.load(tmp_path / "regions.aria")
    assert f"{len(prompts.open(pool))} items in 24 regions" in words
    codes, names = prompts.open(pool).codes("topic")
    counts = np.zeros((24, len(names)), int)
    np.add.at(counts, (regions.labels, codes), 1)
    assert counts.max(axis=1).sum() > 0.8 * counts.sum()  # the regions are the topics


def test_the_demo_pool_is_the_same_everywhere(tmp_path, capsys):
    """And has what its users look for: topics with images and without, and captions that are left out."""
    made = json.loads(said(capsys, "demo-pool", tmp_path / "a", "--json"))
    assert [path.rsplit("/", 1)[1] for path in made["files"]] == [
        "photos.parquet",
        *(f"web-{k}.parquet" for k in range(3)),
    ]
    pool = prompts.write(tmp_path / "pool", prompts.read(tmp_path / "a", column="caption", keep=["topic", "has_image"]))
    assert pool.fingerprint == "9cee0507f149343de557afee393826cd"
    assert min(pool.counts.empty, pool.counts.null, pool.counts.duplicates) > 10
    has_image, (codes, names) = pool.column("has_image"), pool.codes("topic")
    share = {name: has_image[codes == code].mean() for code, name in enumerate(names)}
    assert len(share) == 12
    assert min(share["cats"], share["dogs"]) > 0.2
    assert max(share["dragons"], share["diagrams"]) == 0
    said(capsys, "demo-pool", tmp_path / "b", "--seed", 1, "--captions", 200)
    assert prompts.write(tmp_path / "other", tmp_path / "b" / "web-0.parquet").fingerprint != pool.fingerprint
    assert "an empty folder" in ends_with(capsys, "demo-pool", tmp_path / "a")
    assert "n_captions=5" in ends_with(capsys, "demo-pool", tmp_path / "c", "--captions", 5)
    assert "in a folder that exists" in ends_with(capsys, "demo-pool", tmp_path / "no" / "c")
    assert not (tmp_path / "c").exists()


def test_the_commands_of_the_howto_run_as_they_stand(tmp_path, capsys, monkeypatch):
    """The first block of the page, which needs no network."""
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    block = (ROOT / "docs/howto/pools.md").read_text("utf-8").split("```bash\n", 1)[1].split("```", 1)[0]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(lines) == 5
    for program, *argv in lines:
        assert program == "aria-sampling"
        said(capsys, *argv)  # the glob as it is: no shell has sorted it
    regions = aria.Partition.load("regions.aria")
    assert regions.n_items == len(prompts.open("pool")) > 3000
    assert not any(name.isdecimal() for name in regions.names)  # they have names
    page = Path("regions.html").read_text("utf-8")
    assert regions.names[0].split(", ")[0] in page


def test_what_is_covered_comes_from_a_column_of_the_store(pool, tmp_path, capsys):
    items = len(pool)
    flags = np.arange(items) % 3 == 0
    table = pytest.importorskip("pyarrow").table({"caption": [f"{k}" for k in range(items)], "mine": flags})
    store, regions, covered = tmp_path / "flagged", tmp_path / "regions.aria", tmp_path / "covered.npy"
    prompts.write(store, prompts.read(table, column="caption", keep=["mine"]))
    aria.Partition.from_labels(np.arange(items) // 2).save(regions)
    np.save(covered, np.flatnonzero(flags))
    wanted = said(capsys, "inspect", regions, "--covered", covered)
    assert "covered: " in wanted
    assert said(capsys, "inspect", regions, "--covered", store, "--covered-column", "mine") == wanted
    for argv, words in (
        (("--covered", store), "has_image"),
        (("--covered", store, "--covered-column", "row"), "column of bools"),
        (("--covered", covered, "--covered-column", "mine"), "expected with a store"),
        (("--covered-column", "mine"), "expected with --covered"),
        (("--covered", tmp_path), "no prompts.json"),
    ):
        assert words in ends_with(capsys, "inspect", regions, *argv)
