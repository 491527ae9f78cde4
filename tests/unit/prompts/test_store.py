"""The prompt store: what opens, what is refused, and that nothing half-written is left."""

import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import prompts
from aria_sampling._disk import Lock
from tests.unit.prompts import formats

CAPTIONS = [f"caption {number}" for number in range(50)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "pool"


@pytest.fixture
def pool(folder):
    return prompts.write(folder, CAPTIONS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------- looking up


def test_items_are_looked_up_by_number_and_nothing_else(pool):
    assert pool[np.int64(7)] == "caption 7"
    assert pool[3:9:2] == ["caption 3", "caption 5", "caption 7"]
    assert pool.take([]) == []
    assert pool.take(np.array([9, 0, 9], np.uint8)) == ["caption 9", "caption 0", "caption 9"]
    assert "caption 7" in pool
    assert pool.index("caption 7") == 7
    for wrong in (-1, 50, 1.0, True, "a"):
        with pytest.raises(aria.ArgumentError, match="item"):
            pool[wrong]
    for wrong in ([-1], [50], [0.5], [None]):
        with pytest.raises(aria.ArgumentError, match="items"):
            pool.take(wrong)
    with pytest.raises(aria.ArgumentError, match="size"):
        list(pool.batches(0))
    with pytest.raises(aria.ArgumentError, match="begin"):
        list(pool.batches(begin=51))


def test_captions_find_their_items(pool, folder):
    assert pool.find(["caption 49", "a cat", "caption 0", "caption 49"]).tolist() == [49, -1, 0, 49]
    assert pool.find([]).tolist() == []
    twice = prompts.append(folder, ["caption 3"], duplicates="keep")
    assert (len(twice), twice.find(["caption 3"]).tolist()) == (51, [3])
    with pytest.raises(aria.ArgumentError, match=r"captions\[1\]: expected text, got None"):
        pool.find(["a", None])


def test_columns_by_name(tmp_path, folder):
    beside = {"has_image": [True, False, None], "kind": ["x", None, "x"]}
    path = formats.write(tmp_path, "parquet", ["a", "b", "c"], beside=beside)
    pool = prompts.write(folder, prompts.read(path, keep=["has_image", "kind"]))
    with pytest.raises(aria.ArgumentError, match="1 of 3 items have no value there") as caught:
        pool.column("has_image")
    assert caught.value.remedy == "values = pool.column('has_image', null=False)"
    with pytest.raises(aria.ArgumentError, match="null='no': expected bool"):
        pool.column("has_image", null="no")
    with pytest.raises(aria.ArgumentError, match="column 'size': expected one of 'has_image', 'kind', 'source', 'row'"):
        pool.column("size")
    with pytest.raises(aria.ArgumentError, match="expected one of text, it is bool"):
        pool.codes("has_image")
    codes, words = pool.codes("kind")
    assert (codes.tolist(), words) == ([0, 1, 0], ("x", ""))
    assert pool.codes("source")[1] == (path.as_posix(),)
    by_kind = aria.Partition.from_labels(codes, names=words)
    assert by_kind.sizes.tolist() == [2, 1]


def test_texts_get_the_columns_of_their_store(tmp_path, folder):
    path = formats.write(tmp_path, "jsonl", ["a", "b"], beside={"n": [1, 2]})
    prompts.write(folder, prompts.read(path, keep=["n"], constants={"web": True}))
    with pytest.raises(
        aria.ArgumentError, match=r"columns of the store, \{'web': 'bool', 'n': 'int'\}, got \{\}.*constants="
    ):
        prompts.append(folder, ["c"])
    with pytest.raises(aria.ArgumentError, match="'n': 'float'"):
        prompts.append(folder, ["c"], constants={"n": 0.5, "web": True})
    pool = prompts.append(folder, ["c"], constants={"n": 3, "web": False})
    assert (pool.column("n").tolist(), pool.column("web").tolist()) == ([1, 2, 3], [True, True, False])
    more = prompts.read(formats.write(tmp_path, "csv", ["d"], beside={"n": ["4"]}), keep=["n:int"])
    assert prompts.append(folder, more, constants={"web": False}).column("n").tolist() == [1, 2, 3, 4]
    assert prompts.write(folder, ["x"], constants={"n": 1}, overwrite=True).columns == ("n", "source", "row")
    with pytest.raises(aria.ArgumentError, match="may not be called 'row'"):
        prompts.write(tmp_path / "new", ["x"], constants={"row": 1})


def test_a_pool_goes_to_other_processes_as_it_is(pool, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = prompts.open("pool")
    packed = pickle.dumps(relative)
    assert len(packed) < 2000
    prompts.append(folder, ["another"])
    monkeypatch.chdir("/")
    again = pickle.loads(packed)
    assert (list(again), again.fingerprint) == (CAPTIONS, pool.fingerprint)
    with multiprocessing.get_context("spawn").Pool(1) as workers:
        assert workers.apply(again.take, ([4],)) == ["caption 4"]


def test_a_pool_that_is_open_does_not_change(pool, folder):
    grown = prompts.append(folder, ["another"])
    assert (len(pool), len(grown), grown[50]) == (50, 51, "another")
    other = prompts.write(folder, ["all new"], overwrite=True)
    assert list(other) == ["all new"]
    assert list(pool) == CAPTIONS  # its file is gone from the folder, and still mapped
    assert len(names(folder)) == 3


def test_importing_loads_no_pyarrow():
    code = "import sys; from aria_sampling import prompts; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# ---------------------------------------------------------------- what is no store


def test_what_does_not_open(pool, folder, tmp_path):
    for path, words in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path, "no prompts.json is in this folder"),
        (folder / "prompts.json", "expected the folder of a store of prompts, got JSON"),
    ):
        with pytest.raises(aria.StoreError, match=words):
            prompts.open(path)
    with pytest.raises(aria.ArgumentError, match="path"):
        prompts.open(7)


def test_a_damaged_store_does_not_open(pool, folder):
    """Any byte of its header changed, any part of it missing, or a file of another length."""
    header = folder / "prompts.json"
    whole = header.read_bytes()
    for place in range(0, len(whole) - 1, 5):
        header.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        with pytest.raises(aria.StoreError, match="prompts"):
            prompts.open(folder)
        header.write_bytes(whole[:place])
        with pytest.raises(aria.StoreError, match="prompts"):
            prompts.open(folder)
    header.write_bytes(whole)
    (part,) = folder.glob("*.arrow")
    arrow = part.read_bytes()
    for length in (0, 10, len(arrow) - 1):
        part.write_bytes(arrow[:length])
        with pytest.raises(aria.StoreError, match=f"expected {len(arrow)} bytes, and it has {length}"):
            prompts.open(folder)
    part.write_bytes(bytes(len(arrow)))
    with pytest.raises(aria.StoreError, match="is damaged"):
        prompts.open(folder)
    part.unlink()
    with pytest.raises(aria.StoreError, match="it is not there"):
        prompts.open(folder)


def test_a_store_of_another_version_says_so(pool, folder):
    header = folder / "prompts.json"
    header.write_text(json.dumps({"format": "aria-sampling prompts 2", "checksum": ""}), encoding="utf-8")
    with pytest.raises(aria.StoreError, match="got 'aria-sampling prompts 2'"):
        prompts.open(folder)


def test_verifying_finds_any_flipped_letter(pool, folder):
    (part,) = folder.glob("*.arrow")
    whole = part.read_bytes()
    begin = whole.index(b"caption 0")
    for place in (begin, begin + 100, begin + len("".join(CAPTIONS)) - 1):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        prompts.open(folder)
        with pytest.raises(aria.StoreError, match="not those that were written"):
            prompts.open(folder, verify=True)
    part.write_bytes(whole)
    prompts.open(folder, verify=True)


# ---------------------------------------------------------------- all or nothing


def failing():
    yield from ["one", "two"]
    raise RuntimeError("no more")


def test_what_fails_leaves_nothing(folder, tmp_path):
    for captions, error in ((failing(), RuntimeError), (["a", 7], aria.ArgumentError), ([" "], aria.ArgumentError)):
        with pytest.raises(error):
            prompts.write(folder, captions)
        assert not folder.exists()
    with pytest.raises(aria.ArgumentError, match="in a folder that exists"):
        prompts.write(tmp_path / "no" / "pool", CAPTIONS)
    with pytest.raises(aria.ArgumentError, match="got a file"):
        prompts.write(formats.write(tmp_path, "text", CAPTIONS), CAPTIONS)
    with pytest.raises(aria.ArgumentError, match=r"one with 'captions\.txt'"):
        prompts.write(tmp_path, CAPTIONS)
    with pytest.raises(aria.ArgumentError, match="duplicates='skip'"):
        prompts.write(folder, CAPTIONS, duplicates="skip")


def test_what_fails_leaves_the_old_pool(pool, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls = [
        lambda: prompts.write(folder, CAPTIONS),
        lambda: prompts.write(folder, failing(), overwrite=True),
        lambda: prompts.append(folder, failing()),
        lambda: prompts.append(folder, ["new", "caption 3"], duplicates="refuse"),
        lambda: prompts.append(folder, ["a"], duplicates="skip"),
        lambda: prompts.append(folder, prompts.read(formats.write(folder.parent, "text", ["a"]), constants={"n": 1})),
    ]
    for call in calls:
        with pytest.raises((ValueError, RuntimeError)):
            call()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_duplicates_can_be_refused_and_both_places_are_named(pool, folder, tmp_path):
    first = formats.write(tmp_path, "text", ["new", "other"], name="first")
    second = formats.write(tmp_path, "text", ["more", "more of it", "other"], name="second")
    with pytest.raises(aria.ArgumentError, match=r"second\.txt, row 2: 'other' has come before, as item 51"):
        prompts.append(folder, prompts.read([first, second]), duplicates="refuse")
    kept = prompts.append(folder, prompts.read([first, second]), duplicates="keep")
    assert len(kept) == 55
    again = prompts.append(folder, ["other", "last"], duplicates="drop")
    assert (again[55:], again.counts.duplicates) == (["last"], 1)
    with pytest.raises(aria.ArgumentError, match="row 0: 'other' has come before, as item 51"):
        prompts.append(folder, ["other"], duplicates="refuse")
    nothing = prompts.append(folder, ["other"], duplicates="drop")
    assert (len(nothing), nothing.fingerprint, nothing.sources[-1].counts.duplicates) == (56, again.fingerprint, 1)


def test_the_disk_says_no(pool, folder, monkeypatch):
    """At each of the calls in which it can. A file too large, as a full disk, ends a real write below."""
    for name in ("fsync", "replace"):
        original, calls = getattr(os, name), 0

        def full(*arguments, original=original):
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            left = 10**6
            prompts.append(folder, [f"{name} as usual"])
            calls = 10**6 - left
            for place in range(calls):
                left, before = place, names(folder)
                with pytest.raises(aria.WriteError, match=r"No space left on device.*as it was") as caught:
                    prompts.append(folder, [f"{name} full at {place}"])
                assert isinstance(caught.value, OSError)
                assert len(names(folder)) - len(before) in (0, 1)
        assert calls > 1
    reopened = prompts.open(folder, verify=True)
    assert reopened[:50] == CAPTIONS
    assert not [name for name in names(folder) if name.startswith(".tmp")]


LIMITED = """
import resource, sys
from aria_sampling import prompts
import aria_sampling as aria
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    prompts.append(sys.argv[1], (f"a new caption, number {n}" for n in range(20_000)))
except aria.WriteError as error:
    print(error)
else:
    print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of files there")
@pytest.mark.parametrize("limit", [100, 3000, 300_000, 10**9])
def test_a_write_that_the_system_refuses(limit, pool, folder):
    before = names(folder)
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, folder, str(limit)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    opened = prompts.open(folder, verify=True)
    if limit == 10**9:
        assert (ended.stdout, len(opened)) == ("done\n", 20_050)
    else:
        assert "could not be written" in ended.stdout
        assert (names(folder), list(opened)) == (before, CAPTIONS)


def test_one_process_writes_at_a_time(pool, folder):
    with Lock(folder / ".lock") as lock:
        assert lock.held
        with pytest.raises(aria.UsageError, match="another process is writing"):
            prompts.append(folder, ["a"])
        assert list(prompts.open(folder)) == CAPTIONS
    assert len(prompts.append(folder, ["a"])) == 51


def test_where_there_are_no_locks_nobody_waits_for_one(pool, folder, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert len(prompts.append(folder, ["a"])) == 51


def test_a_store_can_be_read_into_another(pool, folder, tmp_path):
    prompts.append(folder, ["a cat"])
    assert list(prompts.read(folder)) == [*CAPTIONS, "a cat"]
    both = prompts.write(tmp_path / "both", prompts.read([folder, formats.write(tmp_path, "text", ["a cat", "a dog"])]))
    assert list(both) == [*CAPTIONS, "a cat", "a dog"]


def test_what_a_killed_import_left_is_removed_by_the_next(pool, folder):
    (folder / ".tmp-1-abc-staging.arrow").write_bytes(b"half")
    (folder / "prompts-00001-0badcafe.arrow").write_bytes(b"whole, but of no header")
    (folder / ".tmp-duplicates-x").mkdir()
    (folder / ".tmp-duplicates-x" / "000").write_bytes(b"digests")
    assert list(prompts.open(folder)) == CAPTIONS
    assert list(prompts.append(folder, ["a"])) == [*CAPTIONS, "a"]
    assert len(names(folder)) == 4


def test_names_of_files_are_not_taken_for_captions(folder, tmp_path):
    paths = [str(formats.write(tmp_path, "text", CAPTIONS, name=name)) for name in ("a", "b")]
    with pytest.raises(aria.ArgumentError, match="names of files"):
        prompts.write(folder, paths)
    assert list(prompts.write(folder, prompts.read(paths))) == CAPTIONS
