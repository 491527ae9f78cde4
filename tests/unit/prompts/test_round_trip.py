"""Laws of the prompt store: any captions, through any kind of file, give the same texts under the same numbers."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aria_sampling import prompts
from aria_sampling.prompts import writing
from tests.unit.prompts import formats

LETTERS = st.one_of(st.sampled_from([*formats.ODD, "\n", "\r\n", " "]), st.characters(exclude_categories=["Cs"]))
TEXTS = st.lists(st.lists(LETTERS, max_size=6).map("".join), max_size=20)
EVERY = ["a cat", *(f"a{odd}b" for odd in formats.ODD), *(f"{odd}b{odd}b" for odd in formats.ODD), "été", "👩‍🚀", " a "]


def kept(captions, before=()):
    """What the store has of captions: no blank ones, and each once."""
    seen = dict.fromkeys(before)
    return [c for c in dict.fromkeys(c for c in captions if c.strip()) if c not in seen]


FEW = settings(max_examples=12)  # each writes several files and waits for the disk


@FEW
@pytest.mark.parametrize("kind", formats.KINDS)
@given(
    captions=TEXTS, packed=st.sampled_from(list(formats.PACKED)), mark=st.sampled_from(["", "\ufeff"]), data=st.data()
)
@example(captions=EVERY, packed=".gz", mark="\ufeff", data=None)
def test_any_captions_through_any_kind_of_file_are_the_same_pool(kind, captions, packed, mark, data):
    end = "\n" if data is None else data.draw(st.sampled_from(["\n", "\r\n"]))
    captions = [caption for caption in captions if formats.fits(kind, caption)]
    if "".join(captions[:1]).startswith("\ufeff"):
        mark = "\ufeff"  # without one, plain text would begin with one
    binary = kind in ("parquet", "arrow", "stream", "datasets")
    with tempfile.TemporaryDirectory() as name:
        options = {} if binary else {"packed": packed, "mark": mark, "end": end}
        path = formats.write(Path(name), kind, captions, **options)
        wanted = kept(captions)
        if not wanted:
            with pytest.raises(ValueError, match="expected at least one, got none"):
                prompts.write(Path(name) / "pool", path)
            assert not (Path(name) / "pool").exists()
            return
        pool = prompts.write(Path(name) / "pool", path)
        straight = prompts.write(Path(name) / "straight", captions)
        assert list(pool) == pool[:] == pool.take(range(len(pool))) == [pool[i] for i in range(len(pool))] == wanted
        assert pool.fingerprint == straight.fingerprint == pool.digest()
        counts = pool.counts
        assert counts.rows == counts.captions == len(captions)
        assert counts.items == len(wanted) == len(pool)
        assert counts.empty == sum(not caption.strip() for caption in captions)
        assert counts.captions == counts.items + counts.empty + counts.null + counts.duplicates
        assert [captions[row] for row in pool.column("row")] == wanted
        assert list(prompts.read(path)) == [caption for caption in captions if caption.strip()]


@FEW
@given(parts=st.lists(TEXTS, min_size=1, max_size=4), duplicates=st.sampled_from(["drop", "keep"]))
def test_appended_captions_leave_all_numbers_as_they_are(parts, duplicates):
    """And the pool is the one that is made of all captions at once."""
    parts = [["first"], *parts]
    with tempfile.TemporaryDirectory() as name:
        pool = prompts.write(Path(name) / "pool", parts[0], duplicates=duplicates)
        for part in parts[1:]:
            before, texts = pool, list(pool)
            pool = prompts.append(Path(name) / "pool", part)
            assert pool[: len(before)] == texts == list(before)
            new = [caption for caption in part if caption.strip()]
            assert pool[len(before) :] == (new if duplicates == "keep" else kept(part, before))
            assert pool.sources[-1].begin == len(before)
            assert list(prompts.open(Path(name) / "pool", verify=True)) == list(pool)
        at_once = prompts.write(Path(name) / "once", [c for part in parts for c in part], duplicates=duplicates)
        assert pool.fingerprint == at_once.fingerprint
        assert list(pool) == list(at_once)


@FEW
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    rows=st.integers(1, 9),
    held=st.integers(24, 2000),
    seed=st.integers(0, 99),
)
def test_nothing_depends_on_the_size_of_batches(sizes, rows, held, seed):
    """Neither of those on the disk nor of the parts in which duplicates are found."""
    rng = np.random.default_rng(seed)
    files = [[f"caption {n}" for n in rng.integers(60, size=size)] for size in sizes]
    wanted = kept(caption for file in files for caption in file)
    if not wanted:
        return
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_ROWS", rows)
        patch.setattr(writing, "_BYTES", 20 * rows)
        patch.setattr("aria_sampling.prompts._duplicates._HELD", held)
        patch.setattr("aria_sampling.prompts._duplicates._MOST_IN_MEMORY", held % 50)
        paths = [formats.write(Path(name), "jsonl", file, name=f"{k}") for k, file in enumerate(files) if file]
        pool = prompts.write(Path(name) / "pool", prompts.read(paths))
        assert list(pool) == wanted
        assert pool.digest() == pool.fingerprint == prompts.write(Path(name) / "other", wanted).fingerprint
        items = rng.integers(len(pool), size=30)
        assert pool.take(items) == [wanted[item] for item in items]
        begin, end = sorted(rng.integers(len(pool) + 1, size=2).tolist())
        batches = list(pool.batches(rows, begin=begin, end=end))
        assert [text for _, texts in batches for text in texts] == pool[begin:end] == wanted[begin:end]
        assert [first for first, _ in batches] == list(range(begin, end, rows))
        if begin < end:
            assert pool.digest(begin, end) == prompts.write(Path(name) / "part", wanted[begin:end]).fingerprint
        names, origin = [p.as_posix() for p in paths], pool.column("source")
        assert [origin[i] for i in range(len(pool))] == [
            next(names[k] for k, f in enumerate(f for f in files if f) if wanted[i] in f) for i in range(len(pool))
        ]
        assert len(list(Path(name, "pool").glob(".tmp*"))) == 0


@FEW
@given(
    captions=st.lists(
        st.one_of(
            st.none(),
            st.text("ab ", max_size=2),
            st.lists(st.one_of(st.none(), st.text("ab ", max_size=2)), max_size=3),
        ),
        min_size=1,
        max_size=12,
    ),
    lists=st.sampled_from(["each", "first"]),
)
def test_lists_and_nulls_are_counted_by_the_same_rules(captions, lists):
    """In JSON Lines, and in Parquet where all rows are lists."""
    entries = [c if isinstance(c, list) else [c] for c in captions]
    entries = [(row or [""])[: 1 if lists == "first" else None] for row in entries]
    flat = [(row, caption) for row, several in enumerate(entries) for caption in several]
    wanted = [(row, caption) for row, caption in flat if caption is not None and caption.strip()]
    beside = {"number": list(range(len(captions)))}
    with tempfile.TemporaryDirectory() as name:
        paths = [formats.write(Path(name), "jsonl", captions, beside=beside)]
        if all(isinstance(c, list) for c in captions):
            columns = {"caption": pa.array(captions, pa.list_(pa.string())), **beside}
            pa.parquet.write_table(pa.table(columns), Path(name) / "captions.parquet")
            paths.append(Path(name) / "captions.parquet")
        for path in paths:
            source = prompts.read(path, column="caption", keep=["number"], lists=lists)
            assert list(source) == [caption for _, caption in wanted]
            counts = source.counts
            assert (counts.rows, counts.captions) == (len(captions), len(flat))
            assert counts.null == sum(caption is None for _, caption in flat)
            assert counts.empty == sum(caption is not None and not caption.strip() for _, caption in flat)
            if wanted:
                pool = prompts.write(Path(name) / "pool", source, duplicates="keep", overwrite=True)
                assert pool.column("row").tolist() == pool.column("number").tolist() == [row for row, _ in wanted]
