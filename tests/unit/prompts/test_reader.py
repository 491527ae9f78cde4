"""`prompts.read`: which files are read in which order, what a caption is, and what is refused with its place."""

import contextlib
import gzip
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import aria_sampling as aria
from aria_sampling import prompts
from aria_sampling.prompts._tables import MOST
from tests.unit.prompts import formats

CAPTIONS = ["a cat", "two dogs", "a red bus"]


def refused(source, words, **options):
    """Reading ends in an error with all of these words."""
    with pytest.raises(aria.ArgumentError) as caught:
        list(prompts.read(source, **options))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def text(folder, name, raw):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


# ---------------------------------------------------------------- which files


def test_files_of_a_folder_and_of_a_glob_come_by_code_point_and_others_as_given(tmp_path):
    for name in (
        "b.txt",
        "a.txt",
        "B.txt",
        "sub/a.txt",
        "10.txt",
        "9.txt.gz",
        ".hidden.txt",
        "_tmp/x.txt",
        "image.png",
    ):
        raw = f"of {name}\n".encode()
        text(tmp_path, name, gzip.compress(raw) if name.endswith("gz") else raw)
    wanted = [f"of {name}" for name in ("10.txt", "9.txt.gz", "B.txt", "a.txt", "b.txt", "sub/a.txt")]
    assert list(prompts.read(tmp_path)) == wanted
    assert list(prompts.read(f"{tmp_path}/**/[!_]*.txt*")) == [*wanted[:3], "of _tmp/x.txt", *wanted[3:]]
    assert list(prompts.read(f"{tmp_path}/*.txt")) == [wanted[0], *wanted[2:5]]
    assert list(prompts.read([tmp_path / "b.txt", f"{tmp_path}/1*", tmp_path / "a.txt"])) == [
        "of b.txt",
        "of 10.txt",
        "of a.txt",
    ]


def test_a_name_with_the_marks_of_a_glob_is_a_name_if_it_is_there(tmp_path):
    assert list(prompts.read(text(tmp_path, "a[1].txt", "one\n"))) == ["one"]


def test_what_a_file_is_shows_in_how_it_begins_before_its_name(tmp_path):
    pq.write_table(pa.table({"caption": CAPTIONS}), tmp_path / "captions.data")
    assert list(prompts.read(tmp_path / "captions.data")) == CAPTIONS
    path = text(tmp_path, "packed.jsonl", gzip.compress(b'"a"\n') + gzip.compress(b'"b"\n'))  # two members, one name
    assert list(prompts.read(path)) == ["a", "b"]
    path = text(tmp_path, "captions", "a\n")
    refused(path, ["captions", "format="])
    assert list(prompts.read(path, format="text")) == ["a"]


def test_datasets_with_splits_are_read_split_by_split(tmp_path):
    for split in ("train", "test"):
        formats.write(tmp_path, "datasets", [f"{caption} of {split}" for caption in CAPTIONS], name=split)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}', encoding="utf-8")
    assert list(prompts.read(tmp_path)) == [f"{c} of {split}" for split in ("train", "test") for c in CAPTIONS]
    assert list(prompts.read(tmp_path / "test")) == [f"{caption} of test" for caption in CAPTIONS]


@pytest.mark.slow
def test_what_datasets_itself_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"caption": [*CAPTIONS, None], "n": [0, 1, 2, 3]})
    made.select([2, 0, 3]).save_to_disk(tmp_path / "one", num_shards=2)
    assert list(prompts.read(tmp_path / "one", column="caption")) == ["a red bus", "a cat"]
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(tmp_path / "two")
    assert list(prompts.read(tmp_path / "two", column="caption")) == [*CAPTIONS, "two dogs"]


def test_sources_that_are_none(tmp_path):
    a = text(tmp_path, "a.txt", "a\n")
    text(tmp_path, "mixed/a.txt", "a\n")
    text(tmp_path, "mixed/a.jsonl", '"a"\n')
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "absent.txt", ["absent.txt", "no such file"])
    refused(f"{tmp_path}/*.csv", ["*.csv", "no file has such a name"])
    refused([a, f"{tmp_path}/a*"], ["a.txt", "comes twice"])
    refused(tmp_path / "empty", ["empty", "no file of captions", ".parquet"])
    refused(tmp_path / "mixed", ["several kinds", "1 of jsonl, 1 of text", "format='jsonl'"])
    assert list(prompts.read(tmp_path / "mixed", format="text")) == ["a"]
    refused([], ["at least one"])
    refused(17, ["sources", "int 17"])
    refused([17], ["sources", "int 17"])
    refused(a, ["format='parket'", "parquet"], format="parket")


# ---------------------------------------------------------------- in memory


class Frame:
    """As a table of pandas or polars, which need not be installed."""

    def __init__(self, table):
        self.table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self.table.__arrow_c_stream__(requested_schema)


def test_tables_and_texts_in_memory(tmp_path):
    table = pa.table({"caption": [*CAPTIONS, None], "n": [3, 1, 2, 0]})
    for source in (table, Frame(table), table.to_reader()):
        pool = prompts.write(tmp_path / "pool", prompts.read(source, column="caption", keep=["n"]), overwrite=True)
        assert (list(pool), pool.column("n").tolist()) == (CAPTIONS, [3, 1, 2])
    for source in (CAPTIONS, iter(CAPTIONS), np.array(CAPTIONS), (caption for caption in CAPTIONS)):
        assert list(prompts.write(tmp_path / "pool", source, overwrite=True)) == CAPTIONS
    for wrong, words in (
        (17, "int 17"),
        (b"a", "bytes"),
        ({"a": 1}, "dict"),
        ([1], "row 0: expected a caption, got int 1"),
    ):
        with pytest.raises(aria.ArgumentError, match=words):
            prompts.write(tmp_path / "new", wrong)
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- which column


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet", "arrow", "stream", "datasets"])
def test_the_column_of_captions(kind, tmp_path):
    path = formats.write(tmp_path, kind, CAPTIONS, beside={"url": ["x", "y", "z"], "title": ["t", "u", "v"]})
    assert list(prompts.read(path)) == list(prompts.read(path, column="caption")) == CAPTIONS
    assert list(prompts.read(path, column="url")) == list(prompts.read(path, column=1)) == ["x", "y", "z"]
    refused(path, ["column='text'", "'caption', 'url', 'title'"], column="text")
    refused(path, ["column=3", "0 to 2"], column=3)
    refused(path, ["keep=['size']", "'caption', 'url', 'title'"], keep=["size"])
    other = formats.write(tmp_path / "other", kind, CAPTIONS, beside={"text": ["x", "y", "z"]})
    refused(other, ["'caption', 'text'", "column="])
    for wrong in (True, 1.5, ["caption"]):
        refused(path, ["column="], column=wrong)


def test_tables_of_text_without_a_header_and_without_quotes(tmp_path):
    path = text(tmp_path, "cc.tsv", 'the 8" disk\thttp://a\n"quoted" start\thttp://b\n')
    found = prompts.read(path, header=False, quotes=False, column=0, keep=["1"])
    assert list(found) == ['the 8" disk', '"quoted" start']
    refused(path, ["cc.tsv, line 2", "quotes=False"], header=False, column=0)
    pool = prompts.write(tmp_path / "pool", found)
    assert pool.column("1").tolist() == ["http://a", "http://b"]


# ---------------------------------------------------------------- encodings and lines


def test_encodings(tmp_path):
    path = text(tmp_path, "latin.txt", "caf\xe9\n".encode("latin-1") * 2)
    refused(path, ["latin.txt, line 1", "utf-8", "e9 0a", "encoding="])
    assert list(prompts.read(path, encoding="latin-1")) == ["café", "café"]
    path = text(tmp_path, "wide.csv", "caption,n\ncaf\xe9,1\n".encode("utf-16"))
    refused(path, ["wide.csv, line 1", "UTF-16", "encoding='utf-16'"])
    assert list(prompts.read(path, encoding="utf-16")) == ["café"]
    for wrong in ("utf-9", 7, "hex", None):
        refused(path, [f"encoding={wrong!r}"], encoding=wrong)


@pytest.mark.parametrize("before", [0, 1, 37, 200_000])
def test_a_bad_byte_is_named_by_its_line(before, tmp_path):
    """Also behind pieces of the file that were read before, and behind a line that was begun in one."""
    path = text(tmp_path, "captions.txt", b"a caption \xc3\xa9\n" * before + b"bad \xff\nmore\n")
    refused(path, [f"captions.txt, line {before + 1}:", "ff 0a"])
    path = text(tmp_path, "cut.txt", b"a caption\n" * before + b"cut \xc3")
    refused(path, [f"cut.txt, line {before + 1}:", "unexpected end"])


def test_lines_that_end_at_a_carriage_return_alone(tmp_path):
    refused(text(tmp_path, "old.txt", "a\rb\rc"), ["old.txt, line 1", r"\r inside and no \n"])
    assert list(prompts.read(text(tmp_path, "old.txt", "a\rb\n"))) == ["a\rb"]
    assert list(prompts.read(text(tmp_path, "new.txt", "a\r\nb\r"))) == ["a", "b"]
    refused(text(tmp_path, "new.csv", "caption\na\rb\n"), ["new.csv, line 2", r"\r in a field without quotes"])


def test_packed_text_that_is_cut_off(tmp_path):
    raw = formats.PACKED[".gz"](b"".join(b"caption %d\n" % n for n in range(100_000)))
    refused(text(tmp_path, "cut.txt.gz", raw[: len(raw) // 2]), ["cut.txt.gz", "cannot be read to its end"])
    raw = formats.PACKED[".zst"](b"".join(b"caption %d\n" % n for n in range(100_000)))
    refused(text(tmp_path, "cut.txt.zst", raw[: len(raw) // 2]), ["cut.txt.zst", "cannot be read to its end"])


# ---------------------------------------------------------------- what a caption is


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv", "tsv", "parquet", "arrow"])
def test_empty_captions_can_be_refused_by_their_place(kind, tmp_path):
    path = formats.write(tmp_path, kind, ["a", " \t", "b"])
    assert list(prompts.read(path)) == ["a", "b"]
    place = {"text": "line 2", "jsonl": "line 2", "csv": "line 3", "tsv": "line 3"}.get(kind, "row 1")
    refused(path, [f"{path.name}, {place}: expected a caption, got ' \\t'", "empty='drop'"], empty="refuse")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
def test_nulls_and_lists_can_be_refused_by_their_place(kind, tmp_path):
    path = formats.write(tmp_path, kind, ["a", None, "b"])
    place = "line 2" if kind == "jsonl" else "row 1"
    refused(path, [f"{path.name}, {place}: expected a caption, got none", "null='drop'"], null="refuse")
    path = formats.write(tmp_path, kind, [["a"], ["b", "c"]], name="lists")
    assert list(prompts.read(path)) == ["a", "b", "c"]
    assert list(prompts.read(path, lists="first")) == ["a", "b"]
    place = "line 1" if kind == "jsonl" else "row 0"
    refused(path, [f"{path.name}, {place}: expected a caption, got a list of 1", "lists='each'"], lists="refuse")
    for name in ("empty", "null", "lists"):
        refused(path, [f"{name}='skip'"], **{name: "skip"})


def test_mixed_types_are_refused_by_their_place(tmp_path):
    rows = [{"caption": "a"}, {"caption": 7}, {"caption": {"en": "a"}}, {"caption": [["a"]]}, {"caption": float("nan")}]
    for number in range(1, 4):
        path = text(tmp_path, "mixed.jsonl", "".join(json.dumps(row) + "\n" for row in (rows[0], rows[number])))
        refused(path, ["mixed.jsonl, line 2: expected a caption, got"])
    path = text(tmp_path, "nan.jsonl", "".join(json.dumps(row) + "\n" for row in (rows[0], rows[4])))
    refused(path, ["nan.jsonl, line 2: expected a caption, got none"], null="refuse")
    pq.write_table(pa.table({"caption": [1.5, 2.5]}), tmp_path / "numbers.parquet")
    refused(tmp_path / "numbers.parquet", ["numbers.parquet, row 0: expected a caption, got float 1.5"])


def test_captions_that_never_end_and_halves_of_letters(tmp_path):
    for kind in ("text", "jsonl", "csv", "parquet"):
        assert list(prompts.read(formats.write(tmp_path, kind, ["a" * MOST], name="long"))) == ["a" * MOST]
    for kind in ("text", "jsonl", "parquet"):
        refused(
            formats.write(tmp_path, kind, ["a" * (MOST + 1)], name="long"), ["at most 131072 characters, got 131073"]
        )
    path = formats.write(tmp_path, "csv", ["a" * (MOST + 1)], name="long")
    refused(path, ["long.csv, line 2", "131072 characters", "quote"])
    path = text(tmp_path, "half.jsonl", '{"caption": "a"}\n{"caption": "\\ud83d"}\n')
    refused(path, ["half.jsonl, line 2", "half a surrogate pair", r"\ud83d"])


def test_text_of_other_types_of_arrow(tmp_path):
    for kind in (pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())):
        values = [caption.encode() for caption in CAPTIONS] if kind == pa.binary() else CAPTIONS
        table = pa.table({"caption": pa.array([*values, None], kind)})
        with pa.ipc.new_file(str(tmp_path / "captions.arrow"), table.schema) as writer:
            writer.write_table(table)
        assert list(prompts.read(tmp_path / "captions.arrow")) == CAPTIONS
    for bad in (pa.array([b"a", b"b\xff"], pa.binary()), pa.array([b"a", b"b\xff"], pa.binary()).view(pa.string())):
        pq.write_table(pa.table({"caption": bad}), tmp_path / "bad.parquet")
        refused(tmp_path / "bad.parquet", ["bad.parquet, row 1", "UTF-8"])


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_damaged_tables_are_named(kind, tmp_path):
    path = formats.write(tmp_path, kind, [f"caption {n}" for n in range(500)], beside={"n": list(range(500))})
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:length])
        refused(path, [path.name, "cannot be read as"], column="caption")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_flipped_bits_end_in_an_error_or_in_text(kind, tmp_path):
    """Never in a crash: a length that points outside of the file."""
    path = formats.write(tmp_path, kind, [f"caption {n}" for n in range(40)])
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(aria.ArgumentError):
            assert all(isinstance(caption, str) for caption in prompts.read(path))


def test_damaged_text_is_named_by_its_line(tmp_path):
    refused(
        text(tmp_path, "a.jsonl", '{"caption": "a"}\n{"caption": \n'), ["a.jsonl, line 2: expected one value of JSON"]
    )
    refused(text(tmp_path, "b.jsonl", '[\n{"caption": "a"}\n]\n'), ["b.jsonl, line 1", "jq -c"])
    refused(text(tmp_path, "c.json", '[{"caption": "a"}]\n'), ["c.json, line 1", "an array", "jq -c"])
    refused(text(tmp_path, "a.csv", "caption,n\na,1\nb\n"), ["a.csv, line 3: expected 2 fields", "got 1"])
    refused(text(tmp_path, "b.csv", 'caption,n\na,1\n"b,1\nc,2\n'), ["b.csv, lines 3 to 4", "a quote is never closed"])
    refused(text(tmp_path, "c.csv", 'caption,n\na,1\n"b"c,1\n'), ["c.csv, line 3: is not CSV"])
    refused(text(tmp_path, "d.csv", "caption,caption\na,1\n"), ["d.csv, line 1", "a name for each column"])
    path = text(tmp_path, "e.csv", 'caption,n\n"a\nb",1\n\n" ",2\nc\td,3\n')
    found = prompts.read(path)
    assert list(found) == ["a\nb", "c\td"]
    assert (found.counts.rows, found.counts.empty) == (4, 2)
    refused(path, ["e.csv, line 4"], empty="refuse")


# ---------------------------------------------------------------- columns beside


VALUES = {
    "has_image": [True, False, None],
    "size": [3, None, 2**62],
    "score": [0.5, None, -1.0],
    "source": ["a", None, "b"],
}


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "csv"])
def test_columns_beside_keep_their_types(kind, tmp_path):
    path = formats.write(tmp_path, kind, CAPTIONS, beside=VALUES)
    said = ["has_image:bool", "size:int", "score:float", "source"]
    names = said if kind == "csv" else list(VALUES)
    pool = prompts.write(tmp_path / "pool", prompts.read(path, keep=names, constants={"year": 2024, "web": True}))
    table = pool.table()
    assert {name: table[name].to_pylist() for name in VALUES if name != "source"} == {
        name: values for name, values in VALUES.items() if name != "source"
    }
    assert table["source"].to_pylist() == (["a", "", "b"] if kind == "csv" else VALUES["source"])
    assert pool.column("has_image", null=False).tolist() == [True, False, False]
    assert pool.column("has_image", null=False).dtype == bool
    assert pool.column("size", null=-1).tolist() == [3, -1, 2**62]
    assert pool.column("size", null=-1).dtype == pool.column("year").dtype == np.int64
    assert pool.column("score", null=0.0).tolist() == [0.5, 0.0, -1.0]
    assert pool.column("source", null="").tolist() == ["a", "", "b"]
    assert pool.column("year").tolist() == [2024] * 3
    assert pool.column("web").tolist() == [True] * 3
    assert pool.columns[-1] == "row"
    codes, words = pool.codes("source")
    assert [words[code] for code in codes] == ["a", "", "b"]


def test_columns_that_do_not_fit(tmp_path):
    for values, words in (
        ([1, "b"], ["line 3", "column 'n': expected int, got str 'b'"]),
        ([0.5, 1, True], ["line 4", "expected float, got bool True"]),
        ([True, 1], ["line 3", "expected bool, got int 1", "keep=['n:TYPE']"]),
        ([1, {"a": 1}], ["line 3", "a bool, a number or text", "dict"]),
        ([2**63], ["line 2", "expected int", "9223372036854775808"]),
    ):
        rows = [{"caption": "x"}, *({"caption": "a", "n": value} for value in values)]
        path = text(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        refused_by_write(tmp_path, path, words, keep=["n"])
    path = text(tmp_path, "a.csv", "caption,n\na,1\nb,x\n")
    refused_by_write(tmp_path, path, ["a.csv, line 3", "column 'n': expected int, got str 'x'"], keep=["n:int"])
    refused_by_write(tmp_path, path, ["a.csv, line 3", "expected bool, got str 'x'"], keep=["n:bool"])
    other = formats.write(tmp_path, "jsonl", ["a"], beside={"n": [0.5]}, name="other")
    refused_by_write(
        tmp_path,
        [text(tmp_path, "b.jsonl", '{"caption": "a", "n": 1}\n'), other],
        ["other.jsonl, line 1", "expected int"],
        keep=["n"],
    )
    pq.write_table(pa.table({"caption": ["a"], "n": [[1]]}), tmp_path / "nested.parquet")
    refused_by_write(
        tmp_path,
        tmp_path / "nested.parquet",
        ["nested.parquet, row 0", "list", "leave it out"],
        keep=["n"],
        column="caption",
    )
    refused(path, ["keep:", "'row'"], keep=["row"])
    refused(path, ["keep:", "'n' comes twice"], keep=["n", "n:int"])
    refused(path, ["keep='n'", "a list"], keep="n")
    refused(path, ["constants['a']", "[1]"], constants={"a": [1]})
    refused_by_write(tmp_path, text(tmp_path, "c.txt", "a\n"), ["c.txt", "plain text, without columns"], keep=["n"])


def refused_by_write(folder, source, words, **options):
    with pytest.raises(aria.ArgumentError) as caught:
        prompts.write(folder / "pool", prompts.read(source, **options))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (folder / "pool").exists()


def test_messages_stay_short(tmp_path):
    path = formats.write(tmp_path, "jsonl", ["a"], beside={f"column {n:0500}": [n] for n in range(40)})
    with pytest.raises(aria.ArgumentError) as caught:
        list(prompts.read(path, column="x" * 9000))
    assert len(str(caught.value)) < 900
    assert re.match(r"column='xxx", str(caught.value))
