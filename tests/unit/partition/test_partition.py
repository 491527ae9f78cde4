"""`Partition`: what it says of its labels, as laws; what it refuses, and with which words; saved and loaded whole."""

import copy
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import aria_sampling as aria
from tests.helpers import random_labels, same_draw

FIELDS = ("labels", "order", "offsets", "centers", "names", "fingerprint")


@st.composite
def label_arrays(draw, max_items=60):
    """Any labels there can be: every region of 0..K-1 at least once, in any order and integer dtype."""
    k = draw(st.integers(1, 12))
    rest = draw(st.lists(st.integers(0, k - 1), max_size=max_items - k))
    labels = draw(st.permutations([*range(k), *rest]))
    return np.array(labels, draw(st.sampled_from([np.int8, np.uint8, np.int32, np.int64, np.uint64, ">i4"])))


def same_partition(a, b):
    """Whether two partitions are equal in every field, bit for bit, dtypes included."""
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            if x.dtype != y.dtype or not np.array_equal(x, y):
                return False
        elif x != y:
            return False
    return True


# ---------------------------------------------------------------------------------------- of labels


@given(label_arrays())
def test_order_is_the_inverse_of_labels(labels):
    """CSR: the items of a region, ascending, are one block of `order`; the blocks are all items, each once."""
    pool = aria.Partition.from_labels(labels)
    assert pool.labels.tolist() == labels.tolist()
    assert pool.n_items == len(labels)
    assert pool.n_regions == max(labels) + 1
    assert pool.sizes.tolist() == [labels.tolist().count(k) for k in range(pool.n_regions)]
    assert pool.offsets.tolist() == [0, *np.cumsum(pool.sizes).tolist()]
    assert sorted(pool.order.tolist()) == list(range(len(labels)))
    for k in range(pool.n_regions):
        items = pool.items_of(k)
        assert items.dtype == np.int64
        assert items.tolist() == [i for i, label in enumerate(labels) if label == k]
        assert pool.order[pool.offsets[k] : pool.offsets[k + 1]].tolist() == items.tolist()
    items = np.concatenate([pool.items_of(k) for k in range(pool.n_regions)])
    assert pool.regions_of(items).tolist() == np.repeat(np.arange(pool.n_regions), pool.sizes).tolist()
    assert pool.regions_of(items).dtype == np.int64


@given(label_arrays(), label_arrays())
def test_fingerprint_is_the_identity(a, b):
    """Equal for the same regions of the same items, whatever came (dtype, list, names); else not."""
    one, two = aria.Partition.from_labels(a), aria.Partition.from_labels(b)
    again = aria.Partition.from_labels(a.tolist(), names=[f"r{k}" for k in range(one.n_regions)])
    assert one.fingerprint == again.fingerprint
    assert one == again
    assert hash(one) == hash(again)
    assert (one.fingerprint == two.fingerprint) == (a.tolist() == b.tolist()) == (one == two)
    assert one != "a string"


@given(label_arrays(), st.data())
def test_moving_one_item_changes_the_fingerprint(labels, data):
    pool = aria.Partition.from_labels(labels)
    i = data.draw(st.integers(0, pool.n_items - 1))
    if pool.n_regions == 1 or pool.sizes[labels[i]] == 1:
        return
    moved = labels.copy()
    moved[i] = (int(labels[i]) + 1) % pool.n_regions
    assert aria.Partition.from_labels(moved).fingerprint != pool.fingerprint


def test_fingerprint_is_the_same_everywhere():
    """Saved states carry it: it may not change with the version of this library, the platform or the process."""
    assert aria.Partition.from_labels([0, 1, 1, 0, 2]).fingerprint == "5bf87ead0ed75eb30e28851ef16fbe9b"


def test_compact_types():
    """uint16 labels up to 65,536 regions, uint32 beyond: a label of 65,536 must not wrap around to 0."""
    small = aria.Partition.from_labels(np.arange(2**16))
    large = aria.Partition.from_labels(np.arange(2**16 + 1))
    assert (small.labels.dtype, large.labels.dtype) == (np.uint16, np.uint32)
    for pool in (small, large):
        assert pool.order.dtype == np.uint32
        assert np.array_equal(pool.labels, np.arange(pool.n_regions))
        assert np.array_equal(pool.order, np.arange(pool.n_regions))
        assert pool.regions_of([pool.n_items - 1]).tolist() == [pool.n_regions - 1]


def test_names_default_to_numbers_and_are_kept():
    assert aria.Partition.from_labels([0, 1, 0]).names == ("0", "1")
    for names in (["cats", "dogs"], ("cats", "dogs"), np.array(["cats", "dogs"])):
        assert aria.Partition.from_labels([0, 1, 0], names=names).names == ("cats", "dogs")


def test_repr_is_short_and_says_what_it_is():
    text = repr(aria.Partition.from_labels(np.arange(9999) % 7))
    assert "n_items=9999" in text
    assert "n_regions=7" in text
    assert len(text) < 90


@given(label_arrays())
def test_copies_and_pickles_are_the_same(labels):
    pool = aria.Partition.from_labels(labels, centers=np.zeros((int(max(labels)) + 1, 2)))
    for twin in (copy.copy(pool), copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert same_partition(pool, twin)


def test_nothing_can_be_set():
    pool = aria.Partition.from_labels([0, 1])
    with pytest.raises(AttributeError):
        pool.labels = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        pool.sizes[0] = 9


# ------------------------------------------------------------------------------------------ refusals

DENSE = r"np\.unique\(labels, return_inverse=True\)\[1\]"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["cat", "dog"], rf"expected integers, got dtype <U3 \(the first is str 'cat'\); {DENSE}"),
        (np.array(["2020"], "M8[D]"), rf"datetime64.*{DENSE}"),
        ([None, "a"], rf"dtype object \(the first is NoneType None\); {DENSE}"),
        (np.array([0, 1], object), rf"dtype object \(the first is int 0\); {DENSE}"),
        ([0.0, 1.0], r"dtype float64 \(the first is float 0\.0\); they are whole: pass labels\.astype\(np\.int64\)"),
        ([0.5, 1.0], r"dtype float64 \(the first is float 0\.5\); np\.digitize cuts a quantity into ranges"),
        ([0.0, np.nan], "np.digitize"),
        ([0.0, np.inf], "np.digitize"),
        ([True, False], rf"dtype bool .*{DENSE}"),
        (np.array([1j]), "dtype complex128"),
        ([[0, 1], [1, 0]], r"one-dimensional array of integers, got shape \(2, 2\)"),
        (3, "one-dimensional array of integers, got int 3"),
        ("cat", "one-dimensional array of integers, got str 'cat'"),
        (None, "got NoneType None"),
        ([[0], [1, 2]], "which NumPy cannot read"),
        ([], "at least one item, got none"),
        ([0, -1], r"values >= 0, got -1 to 0"),
        ([0, 2], rf"each with an item, got 2 items and a region 2; {DENSE}"),
        ([0, 0, 2], rf"each with an item, got 1 empty regions, the first is 1; {DENSE}"),
        ([1, 1, 1], r"got 1 empty regions, the first is 0"),
        ([0, 2**40], "a region 1099511627776"),
        (np.array([0, 2**63], np.uint64), r"below 2\*\*63, got 0 to 9223372036854775808"),
    ],
)
def test_bad_labels(labels, words):
    with pytest.raises(ValueError, match=words) as caught:
        aria.Partition.from_labels(labels)
    assert str(caught.value).startswith("labels: expected ")


@pytest.mark.parametrize(
    "labels", [["cat", "dog", "cat"], [3.5, 1.25, 3.5], [True, False, True], [7, 900, 7], [-1, -5, -1]]
)
def test_what_the_hint_says_works(labels):
    pool = aria.Partition.from_labels(np.unique(labels, return_inverse=True)[1])
    assert pool.sizes.tolist() in ([1, 2], [2, 1])


@pytest.mark.parametrize("names", ["ab", b"ab", 5, {"a", "b"}, {"a": 1, "b": 2}, iter("ab"), ["a"], ["a", "b", "c"]])
def test_bad_names(names):
    with pytest.raises(ValueError, match=r"^names: expected (a sequence of )?2 names"):
        aria.Partition.from_labels([0, 1], names=names)


@pytest.mark.parametrize(
    ("centers", "words"),
    [
        ([[1.0], [np.nan]], "NaN or infinity in 1 rows, the first is row 1"),
        ([[1.0], [1e39]], "NaN or infinity"),
        ([[1.0]], "expected 2 rows, one a region, got 1"),
        ([1.0, 2.0], r"non-empty array \[n, d\], got shape \(2,\)"),
        (np.zeros((2, 0)), "non-empty"),
        ([["a"], ["b"]], "real numbers, got dtype <U1"),
        ([[1j], [2]], "real numbers, got dtype complex128"),
    ],
)
def test_bad_centers(centers, words):
    with pytest.raises(ValueError, match=words) as caught:
        aria.Partition.from_labels([0, 1], centers=centers)
    assert str(caught.value).startswith("centers: expected ")


@pytest.mark.parametrize("items", [[3], [-1], [0.0], 1, ["a"], [[0]], [2**63]])
def test_bad_items(items):
    pool = aria.Partition.from_labels([0, 1, 1])
    with pytest.raises(ValueError, match=r"^items: expected .*, got "):
        pool.regions_of(items)


@pytest.mark.parametrize("region", [2, -1, 0.0, "a", True, None])
def test_bad_region(region):
    with pytest.raises(ValueError, match=r"^region=.*: expected an integer in \[0, 1\]"):
        aria.Partition.from_labels([0, 1, 1]).items_of(region)


# --------------------------------------------------------------------------------------------- assign


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(3)), elements=st.integers(-4, 4)),
    hnp.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(-5, 5)),
)
def test_assign_takes_the_nearest_centre(centers, embeddings):
    """Exact on small whole numbers, so that ties are ties: the lowest number of equally near centres."""
    pool = aria.Partition.from_labels(np.arange(len(centers)), centers=centers)
    distance2 = ((embeddings[:, None, :].astype(int) - centers[None].astype(int)) ** 2).sum(axis=2)
    found = pool.assign(embeddings)
    assert found.dtype == np.int64
    assert found.tolist() == distance2.argmin(axis=1).tolist()


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, -1e6])
def test_assign_far_from_the_origin(offset):
    """Years, pixels, a common direction: 2x·c - |c|² in float32 would drown the differences in rounding."""
    rng = np.random.default_rng(0)
    centers = (rng.normal(size=(50, 8)) + offset).astype(np.float32)
    embeddings = (rng.normal(size=(500, 8)) + offset).astype(np.float32)
    distance2 = ((embeddings[:, None].astype(np.float64) - centers[None].astype(np.float64)) ** 2).sum(axis=2)
    found = aria.Partition.from_labels(np.arange(50), centers=centers).assign(embeddings)
    own = distance2[np.arange(500), found]
    assert (own <= distance2.min(axis=1) + 1e-4).all()


def test_assign_in_chunks_is_assign(monkeypatch):
    rng = np.random.default_rng(0)
    pool = aria.Partition.from_labels(np.arange(9), centers=rng.integers(-5, 6, (9, 4)))
    embeddings = rng.integers(-9, 10, (101, 4))
    whole = pool.assign(embeddings)
    for rows in (1, 2, 50, 100, 101, 102):
        monkeypatch.setattr("aria_sampling.partition._assign._CHUNK_BYTES", 8 * 9 * rows)
        assert np.array_equal(pool.assign(embeddings), whole)


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        (np.zeros((2, 3)), "expected 2 columns, got 3"),
        (np.zeros(2), r"got shape \(2,\)"),
        (np.zeros((0, 2)), r"non-empty array \[n, d\], got shape \(0, 2\)"),
        ([[0.0, np.nan]], "NaN or infinity in 1 rows, the first is row 0"),
        ([["a", "b"]], "real numbers, got dtype <U1"),
        (None, r"got shape \(\)"),
    ],
)
def test_bad_embeddings_to_assign(embeddings, words):
    pool = aria.Partition.from_labels([0, 1], centers=[[0, 0], [1, 1]])
    with pytest.raises(ValueError, match=words) as caught:
        pool.assign(embeddings)
    assert str(caught.value).startswith("embeddings: expected ")


def test_assign_without_centers_says_what_to_do():
    with pytest.raises(ValueError, match=r"assign needs centers.*partitioner, or pass centers="):
        aria.Partition.from_labels([0, 1]).assign([[0.0]])


# ----------------------------------------------------------------------------------------- the file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "pool.aria"


def sample(with_centers=True):
    return aria.Partition.from_labels(
        np.arange(11) % 3, names=["a", "ü", "c"], centers=np.arange(6.0).reshape(3, 2) if with_centers else None
    )


@given(label_arrays(), st.booleans(), st.booleans())
def test_round_trip_is_bitwise(tmp_path_factory, labels, with_centers, mmap):
    k = int(max(labels)) + 1
    pool = aria.Partition.from_labels(
        labels,
        names=[f"r{region}\n é" for region in range(k)],
        centers=np.random.default_rng(0).normal(size=(k, 3)) if with_centers else None,
    )
    path = tmp_path_factory.mktemp("pool") / "p"
    pool.save(path)
    loaded = aria.Partition.load(path, mmap=mmap)
    assert same_partition(pool, loaded)
    assert pool == loaded
    loaded.save(str(path))  # over the file that may be mapped; a str is a path too
    assert same_partition(pool, loaded)
    assert same_partition(pool, aria.Partition.load(str(path), mmap=not mmap))


def test_equal_partitions_give_equal_bytes(tmp_path):
    """No clock, no process in the file; so it can be hashed and cached."""
    sample().save(tmp_path / "a")
    sample().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpy_reads_the_arrays(path):
    sample().save(path)
    with np.load(path) as arrays:
        assert {"labels", "order", "offsets", "centers"} <= set(arrays)
        assert arrays["labels"].tolist() == (np.arange(11) % 3).tolist()


def test_mapped_arrays_are_aligned_read_only_and_not_copies(path):
    sample().save(path)
    pool = aria.Partition.load(path, mmap=True)
    for name in ("labels", "order", "centers"):
        array = getattr(pool, name)
        assert isinstance(array, np.memmap), name
        assert array.offset % 64 == 0, name
        assert not array.flags.writeable, name
    with pytest.raises(ValueError, match="read-only"):
        pool.labels[0] = 1
    for name in ("labels", "order", "offsets", "centers"):
        assert not getattr(aria.Partition.load(path), name).flags.writeable, name


def test_a_mapped_pool_draws_the_same(path):
    labels = random_labels(np.random.default_rng(0), 6, 300)
    pool = aria.Partition.from_labels(labels)
    pool.save(path)
    one, two = aria.Allocator(pool), aria.Allocator(aria.Partition.load(path, mmap=True))
    assert same_draw(one.draw(100), two.draw(100))
    two.load_state_dict(one.state_dict())  # one pool: states are interchangeable


def test_saving_leaves_nothing_else_behind(tmp_path):
    sample().save(tmp_path / "pool")
    with pytest.raises(OSError, match="missing"):
        sample().save(tmp_path / "missing" / "pool")
    assert [entry.name for entry in tmp_path.iterdir()] == ["pool"]


def test_a_failed_save_keeps_the_old_file(path, monkeypatch):
    """First beside it, then renamed over it: a full disk half-way costs nothing."""
    sample().save(path)
    before = path.read_bytes()
    calls = []

    def full(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return write_array(*arguments, **keywords)

    write_array = np.lib.format.write_array
    monkeypatch.setattr("numpy.lib.format.write_array", full)
    with pytest.raises(OSError, match="No space"):
        aria.Partition.from_labels([0, 1]).save(path)
    assert len(calls) == 3
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("mmap", [False, True])
def test_no_such_file(path, mmap):
    with pytest.raises(FileNotFoundError):
        aria.Partition.load(path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip file at all" * 50, b"\x93NUMPY\x01\x00"])
def test_files_of_another_kind(path, content, mmap):
    path.write_bytes(content)
    with pytest.raises(aria.PartitionFileError, match=r"pool\.aria: not a whole partition file .*Partition\.save"):
        aria.Partition.load(path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_a_folder_is_not_a_partition_file(tmp_path, mmap):
    with pytest.raises(aria.PartitionFileError):
        aria.Partition.load(tmp_path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_an_archive_of_other_arrays(path, mmap):
    np.savez(path.with_suffix(".npz"), labels=[0, 1], order=[0, 1], offsets=[0, 1, 2])
    with pytest.raises(aria.PartitionFileError):
        aria.Partition.load(path.with_suffix(".npz"), mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_truncated_anywhere(path, mmap):
    """Cut to any number of bytes, 0 to one less than all."""
    sample().save(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(aria.PartitionFileError, match="not a whole partition file"):
            aria.Partition.load(path, mmap=mmap)


def data_of_mapped_arrays(path):
    """The bytes of the file that hold labels, order and centers themselves."""
    pool = aria.Partition.load(path, mmap=True)
    spans = [(a.offset, a.offset + a.nbytes) for a in (pool.labels, pool.order, pool.centers)]
    return {byte for begin, end in spans for byte in range(begin, end)}


@pytest.mark.parametrize("mmap", [False, True])
def test_a_wrong_byte_anywhere(path, mmap):
    """Every byte of the file in turn, one bit and all bits: refused, or harmless (a date, padding) and all as saved.

    Mapped, the checksums of what is mapped are not verified: there alone a wrong value may pass.
    """
    pool = sample()
    pool.save(path)
    whole, unverified = path.read_bytes(), data_of_mapped_arrays(path) if mmap else set()
    refused = 0
    for place in range(len(whole)):
        for wrong in (1 << place % 8, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= wrong
            path.unlink()  # an earlier mapping keeps its own file
            path.write_bytes(damaged)
            try:
                loaded = aria.Partition.load(path, mmap=mmap)
            except aria.PartitionFileError:
                refused += 1
            else:
                assert place in unverified or same_partition(pool, loaded), place
    assert refused > len(whole)  # of twice as many


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    ("was", "now"), [(b"(3, 2), ", b"(3, 1), "), (b"(3, 2), ", b"(3, 3), "), (b"'<u2'", b"'>u2'"), (b"'<f4'", b"'<f2'")]
)
def test_an_array_that_says_something_else_of_itself(path, was, now, mmap):
    """Its header is not under a checksum when it is mapped, and another shape or byte order reads other numbers."""
    sample().save(path)
    whole = path.read_bytes()
    assert whole.count(was) == 1
    path.write_bytes(whole.replace(was, now))
    with pytest.raises(aria.PartitionFileError):
        aria.Partition.load(path, mmap=mmap)


def rewritten(path, **changes):
    """The file with other arrays or another header, whose checksums are right: somebody else's, or an old bug's."""
    sample().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    for name, value in changes.items():
        if name == "header":
            parts["header.json"] = value(parts["header.json"])
        elif value is None:
            del parts[f"{name}.npy"]
        else:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, value)
            parts[f"{name}.npy"] = buffer.getvalue()
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


MISFITS = {
    "another format": {"header": lambda header: header.replace(b"partition 1", b"partition 2")},
    "header is no JSON": {"header": lambda header: header[:-5]},
    "header is a list": {"header": lambda header: b"[1, 2]"},
    "fewer names": {"header": lambda header: header.replace(b'["a", ', b"[")},
    "no fingerprint": {"header": lambda header: header.replace(b'"fingerprint"', b'"footprint"')},
    "a fingerprint of another type": {
        "header": lambda header: header[: header.index(b'"fingerprint"')] + b'"fingerprint": 5}'
    },
    "an array missing": {"order": None},
    "an array too many": {"extra": np.zeros(3)},
    "fewer labels": {"labels": np.zeros(10, "<u2")},
    "labels of two dimensions": {"labels": np.zeros((11, 1), "<u2")},
    "labels that are floats": {"labels": np.zeros(11, "<f4")},
    "labels of the other byte order": {"labels": (np.arange(11) % 3).astype(">u2")},
    "fewer places": {"order": np.arange(10, dtype="<u4")},
    "offsets from 1": {"offsets": np.array([1, 4, 8, 11], "<i8")},
    "offsets to 10": {"offsets": np.array([0, 4, 8, 10], "<i8")},
    "an empty region": {"offsets": np.array([0, 4, 4, 11], "<i8")},
    "offsets that fall": {"offsets": np.array([0, 8, 4, 11], "<i8")},
    "no region": {"offsets": np.array([0], "<i8")},
    "fewer centers": {"centers": np.zeros((2, 2), "<f4")},
    "centers of one dimension": {"centers": np.zeros(3, "<f4")},
    "centers that are text": {"centers": np.zeros((3, 2), "<U2")},
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("what", MISFITS)
def test_parts_that_do_not_fit(path, what, mmap):
    rewritten(path, **MISFITS[what])
    with pytest.raises(aria.PartitionFileError, match=r"pool\.aria"):
        aria.Partition.load(path, mmap=mmap)


@pytest.mark.parametrize("mmap", [False, True])
def test_rewriting_nothing_fits(path, mmap):
    """The control of the misfits above: the same way of writing, with nothing changed, is read."""
    rewritten(path)
    assert same_partition(aria.Partition.load(path, mmap=mmap), sample())


def test_objects_are_not_unpickled(path):
    """A file from somebody else may not run code: here it would make a folder."""

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(path.parent / "trapped"),)

    sample().save(path)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.array([Trap()] * 11, object), allow_pickle=True)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**parts, "labels.npy": buffer.getvalue()}.items():
            archive.writestr(name, data)
    for mmap in (False, True):
        with pytest.raises(aria.PartitionFileError):
            aria.Partition.load(path, mmap=mmap)
    assert not (path.parent / "trapped").exists()


def test_a_partition_file_error_is_a_value_error():
    assert issubclass(aria.PartitionFileError, ValueError)
