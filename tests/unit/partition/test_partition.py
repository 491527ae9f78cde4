"""`Partition`: what it says of its labels, as laws; what it refuses, and with which words; saved and loaded whole."""

import copy
import datetime
import enum
import io
import os
import pickle
import re
import sys
import tracemalloc
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
        for name in ("labels", "order", "offsets", "centers", "sizes"):
            assert not getattr(twin, name).flags.writeable, name


def test_nothing_can_be_set():
    pool = aria.Partition.from_labels([0, 1])
    with pytest.raises(AttributeError):
        pool.labels = np.zeros(2)
    with pytest.raises(ValueError, match="read-only"):
        pool.sizes[0] = 9


# ------------------------------------------------------------------------------------------ refusals

DENSE = r".*Try: labels = np\.unique\(labels, return_inverse=True\)\[1\]$"
OWN = r"leave these items out .*Try: pool = aria\.Partition\.from_labels\(labels, noise=\"region\"\)$"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([None, "a"], rf"a region for every item, got 1 nulls \(None, NaN or NA\) among 2 labels; {OWN}"),
        ([None, 0, 1, None], rf"got 2 nulls \(None, NaN or NA\) among 4 labels; {OWN}"),
        ([0.0, np.nan], rf"got 1 nulls .* among 2 labels; {OWN}"),
        (["a", np.nan, None], rf"got 2 nulls .* among 3 labels; {OWN}"),
        (np.array(["2020", "NaT"], "M8[D]"), "got 1 nulls .* among 2 labels"),
        ([0, -1, 1, -1], rf"a region for every item, got -1 in 2 places among 4 labels; {OWN}"),
        ([0.0, -1.0, np.nan], rf"got 1 nulls .* and -1 in 1 places among 3 labels; {OWN}"),
        ([0, -2, -1], rf"region numbers >= 0, got -2 to 0{DENSE}"),
        ([0, None, -2], r"region numbers >= 0, got -2 to 0.*Try: labels = np\.asarray\(labels\)\.astype\(str\)"),
        ([0.0, 2.0], rf"got 2 items and a region 2{DENSE}"),
        ([[0, 1], [1, 0]], r"one-dimensional array of labels, got shape \(2, 2\)"),
        (3, "one-dimensional array of labels, got int 3"),
        ("cat", "one-dimensional array of labels, got str 'cat'"),
        (None, "got NoneType None"),
        ([[0], [1, 2]], "which NumPy cannot read"),
        ([{"a": 1}, {"a": 2}], r"one hashable label an item, got others .*unhashable type: 'dict'.*str\(label\)"),
        (np.zeros((3, 4)), r"got shape \(3, 4\); embeddings are cut into regions by KMeansPartitioner"),
        (["a", [1]], "which NumPy cannot read|hashable"),
        ([], "at least one item, got none"),
        ([0, 2], rf"each with an item, got 2 items and a region 2{DENSE}"),
        ([0, 0, 2], rf"each with an item, got 1 empty regions, the first is 1{DENSE}"),
        ([1, 1, 1], r"got 1 empty regions, the first is 0"),
        ([0, 2**40], "a region 1099511627776"),
        (np.array([0, 2**63], np.uint64), "a region 9223372036854775808"),
    ],
)
def test_bad_labels(labels, words):
    with pytest.raises(ValueError, match=words) as caught:
        aria.Partition.from_labels(labels)
    assert str(caught.value).startswith("labels: expected ")
    assert len(str(caught.value)) <= 900


@pytest.mark.parametrize("bad", ["regions", "", True, 0, -1, ["region"]])
def test_bad_noise(bad):
    with pytest.raises(ValueError, match=r"^noise=.*: expected None or 'region'"):
        aria.Partition.from_labels([0, 1], noise=bad)


@pytest.mark.parametrize(
    "labels", [[0, 1, None, 1], [0, 1, -1, 1], ["a", "b", None, "b"], [0.0, 1.0, np.nan, 1.0], ["a", "b", np.nan, "b"]]
)
def test_both_ways_out_for_items_without_a_region_work(labels):
    pool = remedied(lambda names: aria.Partition.from_labels(names["labels"]), labels=labels)["pool"]
    assert pool.labels.tolist() == [0, 1, 2, 1]
    assert pool.names[-1] == "noise"
    kept = aria.Partition.from_labels([labels[i] for i in (0, 1, 3)])
    assert kept.names == pool.names[:-1]


def containers(values):
    """The same labels in every container that people have; None is a null, where the container can hold one."""
    found = {"list": values, "object array": np.array(values, object)}
    if None not in values:
        found |= {"array": np.array(values), "tensor": pytest.importorskip("torch").tensor(values)}
    for name in ("pandas", "polars"):
        try:
            found[name] = __import__(name).Series(values)
        except ImportError:
            continue
        if name == "pandas":
            found["category"] = found[name].astype("category")
            found["nullable"] = found[name].astype("Int64")
    return found


@pytest.mark.parametrize("kind", list(containers([1])))
@pytest.mark.parametrize("values", [[3, 7, 7], [-5, 3, 3], [3, None, 3], [-4, None, None], [0, -1, -1]], ids=str)
@pytest.mark.parametrize("noise", [None, "region"])
def test_what_a_message_on_labels_says_works_in_their_container(kind, values, noise):
    """All are two regions; noise and gaps may need one line each."""
    labels = containers(values).get(kind)
    if labels is None:
        pytest.skip("a tensor or an array of integers has no nulls")
    names = {"labels": labels}
    for _ in range(3):
        try:
            pool = names.get("pool") or aria.Partition.from_labels(names["labels"], noise=noise)
        except aria.ArgumentError as error:
            exec(error.remedy, {"aria": aria, "np": np}, names)
    assert sorted(pool.sizes.tolist()) == [1, 2]
    assert pool.labels[1] == pool.labels[2] or values[0] == values[2] == 3


def remedied(call, **names):
    """The variables after the remedy of the error that `call` of these variables ends in."""
    with pytest.raises(aria.AriaError) as caught:
        call(names)
    assert len(str(caught.value)) <= 900
    exec(caught.value.remedy, {"aria": aria, "np": np, "torch": sys.modules.get("torch")}, names)
    return names


@pytest.mark.parametrize("kind", ["int", "text", "float", "date"])
def test_what_is_masked_is_null(kind):
    """NumPy's own conversion would take what stands under the mask for a label."""
    values = {"int": [1, 0, 7, 1], "text": ["b", "a", "x", "b"], "float": [1.5, 0.5, 9, 1.5], "date": [9, 3, 4, 9]}[
        kind
    ]
    data = np.array(values, "M8[D]" if kind == "date" else None)
    labels = np.ma.array(data, mask=[False, False, True, False])
    with pytest.raises(ValueError, match="1 nulls"):
        aria.Partition.from_labels(labels)
    pool = aria.Partition.from_labels(labels, noise="region")
    assert pool.labels.tolist() == [1, 0, 2, 1]
    assert pool.names[-1] == "noise"
    assert aria.Partition.from_labels(np.ma.array(data[[0, 1, 3]])).labels.tolist() == [1, 0, 1]


def test_a_mask_is_two_regions():
    for mask in (np.array([True, False, True]), [True, False, True]):
        pool = aria.Partition.from_labels(mask)
        assert (pool.labels.tolist(), pool.names) == ([1, 0, 1], ("False", "True"))


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("values", [["b", "a", None, "b"], [1, 0, None, 1], [1.0, 0.0, None, 1.0]], ids=str)
def test_labels_in_arrow(pieces, coded, values):
    """In one piece or several, as a dictionary of their own each or not."""
    pa = pytest.importorskip("pyarrow")
    parts = [pa.array(values[:2], pa.array(values).type), pa.array(values[2:], pa.array(values).type)]
    if coded:
        parts = [part.dictionary_encode() for part in parts]
    labels = pa.chunked_array(parts)
    labels = labels.unify_dictionaries().combine_chunks() if pieces == 1 else labels
    with pytest.raises(ValueError, match="1 nulls"):
        aria.Partition.from_labels(labels)
    pool = aria.Partition.from_labels(labels, noise="region")
    assert pool.labels.tolist() == [1, 0, 2, 1]
    assert pool.names == (("a", "b", "noise") if values[0] == "b" else ("0", "1", "noise"))


@pytest.mark.parametrize("kind", ["csr_matrix", "coo_array", "torch", "column", "list", "tensor column", "frame"])
def test_labels_in_a_column(kind):
    dense = np.array([[0], [1], [1]])
    if kind in ("csr_matrix", "coo_array"):
        labels = getattr(pytest.importorskip("scipy.sparse"), kind)(dense)
    elif kind in ("torch", "tensor column"):
        labels = pytest.importorskip("torch").tensor(dense)
        labels = labels.to_sparse() if kind == "torch" else labels
    else:
        labels = {"column": dense, "list": dense.tolist()}.get(kind)
        labels = pytest.importorskip("pandas").DataFrame({"a": [0, 1, 1]}) if labels is None else labels
    names = remedied(lambda names: aria.Partition.from_labels(names["labels"]), labels=labels)
    assert aria.Partition.from_labels(names["labels"]).labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize("labels", [[{"a": 1}, {"a": 2}, {"a": 1}], [{1}, {2}, {1}]])
def test_labels_that_cannot_be_hashed(labels):
    names = remedied(lambda names: aria.Partition.from_labels(names["labels"]), labels=labels)
    assert aria.Partition.from_labels(names["labels"]).labels.tolist() == [0, 1, 0]


# ------------------------------------------------------------------------------ labels that are no integers


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("labels", "regions", "names"),
    [
        (["cat", "dog", "ant"], [1, 2, 0], ("ant", "cat", "dog")),
        (("cat", "cat"), [0, 0], ("cat",)),
        (np.array(["b", "a"]), [1, 0], ("a", "b")),
        (np.array(["b", "a"], object), [1, 0], ("a", "b")),
        ([b"b", "é".encode()], [0, 1], ("b", "é")),
        (["10", "9"], [1, 0], ("9", "10")),
        (["", "x" * 300], [0, 1], ("", "x" * 300)),
        ([("a", 2), ("a", 1), ("a", 2)], [1, 0, 1], ("('a', 1)", "('a', 2)")),
        ([3.5, -1.25, 3.5], [1, 0, 1], ("-1.25", "3.5")),
        ([0.5, np.inf], [0, 1], ("0.5", "inf")),
        ([True, False, True], [1, 0, 1], ("False", "True")),
        (np.array([1j, 0]), [1, 0], ("0j", "1j")),
        (np.array(["2021", "2020"], "M8[Y]"), [1, 0], ("2020", "2021")),
        ([datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)], [1, 0], ("2020-01-01", "2020-01-02")),
        ([Colour.RED, Colour.BLUE, Colour.RED], [1, 0, 1], ("Colour.BLUE", "Colour.RED")),
        ([("a",), "b", 1], [2, 1, 0], ("1", "b", "('a',)")),
        ([2**70, 2**71], [0, 1], (str(2**70), str(2**71))),
        # integers are as they are, in whatever they come
        ([0.0, 1.0, 0.0], [0, 1, 0], ("0", "1")),
        (np.array([0, 1], object), [0, 1], ("0", "1")),
        (np.array([1.0, 0], object), [1, 0], ("0", "1")),
    ],
    ids=repr,
)
def test_labels_of_other_kinds(labels, regions, names):
    pool = aria.Partition.from_labels(labels)
    assert pool.labels.tolist() == regions
    assert pool.names == names
    renamed = aria.Partition.from_labels(labels, names=[f"n{i}" for i in range(len(names))])
    assert renamed == pool
    assert renamed.names[0] == "n0"


@given(st.lists(st.one_of(st.text(max_size=3), st.none(), st.just(float("nan"))), min_size=1, max_size=40))
def test_names_are_the_sorted_different_labels(labels):
    """Every item is in the region of its name; nulls, if there are any, in the last, named "noise"."""
    null = [not isinstance(label, str) for label in labels]
    pool = aria.Partition.from_labels(labels, noise="region")
    wanted = sorted({label for label in labels if isinstance(label, str)})
    assert pool.names == (*wanted, *["noise"] * any(null))
    for item, label in enumerate(labels):
        if null[item]:
            assert pool.labels[item] == pool.n_regions - 1
        else:
            assert pool.names[pool.labels[item]] == label


def test_many_objects_at_a_time(monkeypatch):
    labels = [f"{i % 7}" for i in range(50)]
    whole = aria.Partition.from_labels(labels)
    monkeypatch.setattr("aria_sampling.partition._labels._AT_A_TIME", 3)
    assert same_partition(whole, aria.Partition.from_labels(labels))


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_noise_is_the_last_region(dtype):
    labels = np.array([1, -1, 0, -1], dtype)
    pool = aria.Partition.from_labels(labels, noise="region")
    assert pool.labels.tolist() == [1, 2, 0, 2]
    assert pool.names == ("0", "1", "noise")
    assert labels.tolist() == [1, -1, 0, -1]
    for names in (["a", "b"], ["a", "b", "noise"]):
        assert aria.Partition.from_labels(labels, names=names, noise="region").names == ("a", "b", "noise")
    with pytest.raises(ValueError, match="names: expected 3 names, one a region, got 4"):
        aria.Partition.from_labels(labels, names=list("abcd"), noise="region")
    with pytest.raises(ValueError, match="centers: expected 3 rows, one a region, the last for the noise, got 2"):
        aria.Partition.from_labels(labels, centers=np.eye(2), noise="region")
    assert aria.Partition.from_labels(labels, centers=np.eye(3), noise="region").centers.shape == (3, 3)


def test_noise_of_as_many_regions_as_a_dtype_holds():
    labels = np.append(np.arange(128), -1).astype(np.int8)
    assert aria.Partition.from_labels(labels, noise="region").labels[-1] == 128


def test_noise_where_there_is_none_or_nothing_else():
    assert aria.Partition.from_labels([0, 1], noise="region").names == ("0", "1")
    assert aria.Partition.from_labels(["b", "a"], noise="region").names == ("a", "b")
    for labels in ([-1, -1], [None, None], [np.nan]):
        assert aria.Partition.from_labels(labels, noise="region").names == ("noise",)


def test_tensors_are_labels():
    torch = pytest.importorskip("torch")
    for labels in (torch.tensor([1, 0]), torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([1, 0]).short()):
        assert aria.Partition.from_labels(labels).labels.tolist() == [1, 0]
    assert aria.Partition.from_labels(torch.tensor([True, False])).names == ("False", "True")
    assert aria.Partition.from_labels([torch.tensor(1), torch.tensor(0)]).labels.tolist() == [1, 0]


class _OnAnotherDevice:
    """A tensor that NumPy reads only after `.cpu()`, as those of an accelerator."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self.array

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_tensors_of_another_device():
    pool = aria.Partition.from_labels(
        _OnAnotherDevice(np.array([1, 0])), centers=_OnAnotherDevice(np.array([[0.0], [1.0]]))
    )
    assert pool.labels.tolist() == [1, 0]
    assert pool.assign(_OnAnotherDevice(np.array([[0.9]]))).tolist() == [1]
    assert pool.regions_of(_OnAnotherDevice(np.array([1]))).tolist() == [0]


def test_labels_of_pandas():
    pd = pytest.importorskip("pandas")
    for labels, regions, names in [
        (pd.Series(["b", "a", None], index=[3, 5, 7]), [1, 0, 2], ("a", "b", "noise")),
        (pd.Series(["b", "a", "b"], dtype="category"), [1, 0, 1], ("a", "b")),
        (pd.Categorical(["b", None, "a"], categories=["c", "b", "a"]), [1, 2, 0], ("a", "b", "noise")),
        (pd.Series([1, 0, None], dtype="category"), [1, 0, 2], ("0", "1", "noise")),
        (pd.Series([1, 0, None], dtype="Int64"), [1, 0, 2], ("0", "1", "noise")),
        (pd.Series([1, 0, None]), [1, 0, 2], ("0", "1", "noise")),
        (pd.Series(["x", pd.NA], dtype="string"), [0, 1], ("x", "noise")),
        (pd.Series([True, None], dtype="boolean"), [0, 1], ("True", "noise")),
        (pd.Index(["b", "a"]), [1, 0], ("a", "b")),
    ]:
        pool = aria.Partition.from_labels(labels, noise="region")
        assert pool.labels.tolist() == regions
        assert pool.names == names


def test_labels_of_polars():
    pl = pytest.importorskip("polars")
    for labels, regions, names in [
        (pl.Series(["b", "a", None]), [1, 0, 2], ("a", "b", "noise")),
        (pl.Series([1, 0]), [1, 0], ("0", "1")),
        (pl.Series([1, 0, None]), [1, 0, 2], ("0", "1", "noise")),
        (pl.Series(["b", "a", None], dtype=pl.Categorical), [1, 0, 2], ("a", "b", "noise")),
        (pl.Series(["b", "a"], dtype=pl.Enum(["b", "a"])), [1, 0], ("a", "b")),
    ]:
        pool = aria.Partition.from_labels(labels, noise="region")
        assert pool.labels.tolist() == regions
        assert pool.names == names


# ------------------------------------------------------------------------------------------------ from sizes


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.booleans())
def test_from_sizes_is_from_labels_of_blocks(sizes, mmap):
    pool = aria.Partition.from_sizes(sizes)
    same = aria.Partition.from_labels(np.repeat(np.arange(len(sizes)), sizes))
    items = np.arange(sum(sizes))
    assert pool.is_implicit
    assert not same.is_implicit
    assert pool == same
    assert pool.regions_of(items).tolist() == same.regions_of(items).tolist()
    assert pool.items_at(items).tolist() == same.items_at(items).tolist() == items.tolist()
    assert pool.items_at([]).dtype == pool.regions_of([]).dtype == np.int64
    for k in range(len(sizes)):
        assert pool.items_of(k).tolist() == same.items_of(k).tolist()
        assert pool.items_of(k).dtype == np.int64
    assert "labels" not in vars(pool)
    assert "order" not in vars(pool)
    assert same_partition(pool, same)  # from here on labels and order are made


def test_a_billion_items_take_no_memory(path):
    pool = aria.Partition.from_sizes([600_000_000, 3, 400_000_000], names=["web", "wiki", "code"])
    assert pool.n_items == 1_000_000_003
    assert pool.regions_of([0, 599_999_999, 600_000_000, 600_000_003, 1_000_000_002]).tolist() == [0, 0, 1, 2, 2]
    pool.save(path)
    assert path.stat().st_size < 2000
    for loaded in (aria.Partition.load(path), aria.Partition.load(path, mmap=True), pickle.loads(pickle.dumps(pool))):
        assert loaded == pool
        assert loaded.names == ("web", "wiki", "code")
        assert loaded.items_of(1).tolist() == [600_000_000, 600_000_001, 600_000_002]
        assert loaded.is_implicit
        assert loaded.items_at([1_000_000_002]).tolist() == [1_000_000_002]


def test_draws_from_a_billion_items_take_no_memory():
    """Sources of 10^9 documents by their sizes: allocated, covered and adopted without an array of items."""
    tracemalloc.start()
    pool = aria.Partition.from_sizes([600_000_000, 3, 400_000_000])
    coverage = aria.Coverage(pool, items=[0, 600_000_001])
    allocator = aria.Allocator(pool, coverage=coverage, target=0.5, max_repeat=100)
    draw = allocator.draw(1000)
    assert np.array_equal(pool.regions_of(draw.items), draw.regions)
    allocator.observe(draw.regions, np.ones(1000))
    allocator.step()
    grown = aria.Partition.from_sizes([600_000_000, 3, 500_000_000])
    assert aria.Allocator(grown).adopt(allocator.state_dict(), partition=pool).carried.tolist() == [0, 2]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    for each in (pool, grown):
        assert not {"labels", "order"} & set(vars(each))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_regions_are_matched_by_common_items_with_and_without_labels(old, new):
    """As counted one by one: the old region with most common items, of equals the one with the higher number."""
    from aria_sampling import adoption

    common = min(sum(old), sum(new))
    there, here = (np.repeat(np.arange(len(sizes)), sizes)[:common] for sizes in (old, new))
    wanted = []
    for k in range(len(new)):
        counts = np.bincount(there[here == k], minlength=len(old))
        wanted.append(int(len(old) - 1 - counts[::-1].argmax()) if counts.any() else -1)
    pools = [aria.Partition.from_sizes(old), aria.Partition.from_sizes(new)]
    labelled = [aria.Partition.from_labels(pool.labels) for pool in pools]
    with pytest.MonkeyPatch.context() as patch:
        for at_a_time in (1, 4, 1000):
            patch.setattr(adoption, "_AT_A_TIME", at_a_time)
            for one in (pools[0], labelled[0]):
                for other in (pools[1], labelled[1]):
                    assert adoption._by_items(one, other).tolist() == wanted


def test_sorted_labels_are_noticed_wherever_they_fall(monkeypatch):
    """Sorted labels have the fingerprint of their sizes; one step down, also between two chunks, is not sorted."""
    monkeypatch.setattr("aria_sampling.partition.partition._AT_A_TIME", 4)
    labels = np.repeat([0, 1, 2], [5, 3, 4])
    assert aria.Partition.from_labels(labels) == aria.Partition.from_sizes([5, 3, 4])
    for i in range(len(labels) - 1):
        swapped = labels.copy()
        swapped[[i, i + 1]] = swapped[[i + 1, i]]
        pool = aria.Partition.from_labels(swapped)
        assert (pool == aria.Partition.from_sizes([5, 3, 4])) == (labels[i] == labels[i + 1])
        assert pool.sizes.tolist() == [5, 3, 4]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "at least one region, got none"),
        ([3, 0], "values >= 1, got 0 to 3; leave out the regions without items"),
        ([1.5], "integers, got dtype float64"),
        (5, "one-dimensional"),
        ([2**61, 2**61], r"fewer than 2\*\*62 items together, got 4611686018427387904"),
        (None, "NoneType"),
    ],
)
def test_bad_sizes(sizes, words):
    with pytest.raises(ValueError, match=words) as caught:
        aria.Partition.from_sizes(sizes)
    assert str(caught.value).startswith("sizes: expected ")


def test_bad_names_of_sizes():
    with pytest.raises(ValueError, match="names: expected 2 names, one a region, got 1"):
        aria.Partition.from_sizes([1, 2], names=["a"])


def test_bad_places():
    for pool in (aria.Partition.from_sizes([1, 2]), aria.Partition.from_labels([1, 0])):
        for bad in ([-1], [3], [0.5]):
            with pytest.raises(ValueError, match=r"^places: expected"):
                pool.items_at(bad)


@pytest.mark.parametrize("labels", [[7, 900, 7], [-1, -5, -1], [3.0, 9.0, 3.0]])
def test_what_the_hint_says_works(labels):
    pool = aria.Partition.from_labels(np.unique(labels, return_inverse=True)[1])
    assert pool.sizes.tolist() in ([1, 2], [2, 1])


@pytest.mark.parametrize(
    "names",
    [
        "ab",
        b"ab",
        5,
        {"a", "b"},
        {"a": 1, "b": 2},
        iter("ab"),
        ["a"],
        ["a", "b", "c"],
        [["a"], ["b"]],
        np.array([["a"], ["b"]]),
        [f"a long name {i}" for i in range(10**5)],
        {f"a long name {i}" for i in range(10**4)},
    ],
    ids=lambda names: type(names).__name__,
)
def test_bad_names(names):
    with pytest.raises(ValueError, match=r"^names: expected (a sequence of )?2 names") as caught:
        aria.Partition.from_labels([0, 1], names=names)
    assert len(str(caught.value)) <= 300


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


# ---------------------------------------------------------------------------------------------- without items


@given(label_arrays(), st.data())
def test_without_leaves_the_numbers_of_all_others(labels, data):
    """Items, regions, names and labels are as they were; only `order` and `sizes` lack the items taken out."""
    pool = aria.Partition.from_labels(labels)
    gone = data.draw(st.lists(st.integers(0, pool.n_items - 1), max_size=pool.n_items))
    if len(set(gone)) == pool.n_items:
        gone = gone[1:]
        if len(set(gone)) == pool.n_items or not gone:
            return
    left = pool.without(gone)
    assert (left.n_items, left.n_regions, left.names) == (pool.n_items, pool.n_regions, pool.names)
    assert np.array_equal(left.labels, pool.labels)
    assert left.removed.tolist() == sorted(set(gone))
    for k in range(pool.n_regions):
        assert left.items_of(k).tolist() == [item for item in pool.items_of(k) if item not in gone]
        assert left.sizes[k] == len(left.items_of(k))
    assert left.items_at(np.arange(left.sizes.sum())).tolist() == left.order.tolist()
    assert left.regions_of(np.arange(pool.n_items)).tolist() == labels.tolist()  # those taken out, too
    mask = np.zeros(pool.n_items, bool)
    mask[gone] = True
    half = len(gone) // 2
    for same in (pool.without(mask), pool.without(gone[:half]).without(gone[half:]), left.without(gone)):
        assert same_partition(left, same)
    assert (left == pool) == (not gone)
    assert (left is pool) == (not gone)


def test_without_of_a_pool_by_sizes():
    pool = aria.Partition.from_sizes([3, 2], names=["a", "b"])
    left, same = pool.without([1, 3]), aria.Partition.from_labels([0, 0, 0, 1, 1], names=["a", "b"]).without([3, 1])
    assert same_partition(left, same)
    assert left.order.tolist() == [0, 2, 4]
    assert "removed=2" in repr(left)


@pytest.mark.parametrize("mmap", [False, True])
def test_without_is_saved_and_loaded(path, mmap):
    left = sample().without([0, 3, 6, 9, 1])  # region 0 is empty
    assert left.sizes.tolist() == [0, 3, 3]
    left.save(path)
    loaded = aria.Partition.load(path, mmap=mmap)
    assert same_partition(left, loaded)
    assert loaded.removed.tolist() == [0, 1, 3, 6, 9]
    for twin in (copy.deepcopy(left), pickle.loads(pickle.dumps(left))):
        assert same_partition(left, twin)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([3], "values in [0, 3), got 3 to 3; items are numbered from 0"),
        ([-1], "values in [0, 3), got -1 to -1"),
        ([0.5], "integers, got dtype float64"),
        ([True, False], "a mask of shape (3,), one bool an item, got shape (2,)"),
        ([0, 1, 2], "some items to stay, got all that can be drawn (3)"),
        (None, "got NoneType None"),
    ],
)
def test_bad_items_to_take_out(items, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        aria.Partition.from_labels([0, 1, 1]).without(items)
    assert str(caught.value).startswith("items: expected ")


@pytest.mark.parametrize("target", [None, "pool", "uniform", 0.0, 0.3, 0.5, 1.0])
def test_targets_give_a_region_without_items_nothing(target):
    """The kernel divides by the size of every region that it draws."""
    left = aria.Partition.from_labels([0, 0, 1, 2, 2]).without([2])
    assert aria.Allocator(left, target=target).target[1] == 0


@pytest.mark.parametrize("target", ["pool", "own"])
def test_in_mid_run_items_are_never_drawn_again(target):
    """By `adopt`: estimates go on, region by region; a region that is empty keeps its own and is never drawn."""
    rng = np.random.default_rng(0)
    pool = aria.Partition.from_labels(random_labels(rng, 5, 90))
    old = aria.Allocator(pool, seed=1)
    for _ in range(20):
        draw = old.draw(12)
        old.observe(draw.regions, 1.0 + draw.regions)
        old.step()
    empty = int(np.argmin(pool.sizes))
    gone = np.union1d(pool.items_of(empty), rng.choice(90, 30, replace=False))
    left = pool.without(gone)
    shares = np.where(left.sizes > 0, 1.0, 0.0)
    new = aria.Allocator(left, target=None if target == "pool" else shares, seed=1)
    adopted = new.adopt(old.state_dict(), partition=pool)
    assert adopted.carried.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(new.estimate().mean, old.estimate().mean)
    assert new.target[empty] == 0
    drawn = []
    for _ in range(200):
        draw = new.draw(12)
        drawn.append(draw.items)
        assert np.array_equal(pool.regions_of(draw.items), draw.regions)
        new.observe(draw.regions, 1.0 + draw.regions)
        new.step()
    drawn = np.concatenate(drawn)
    assert not np.isin(drawn, gone).any()
    assert set(drawn.tolist()) == set(range(90)) - set(gone.tolist())  # 2,400 draws by permutations of each region
    with pytest.raises(aria.StateError, match="another pool"):
        new.load_state_dict(old.state_dict())


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
        monkeypatch.setattr("aria_sampling.partition._assign.Nearest.at_once", rows)
        assert np.array_equal(pool.assign(embeddings), whole)


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        (np.zeros((2, 3)), "expected 2 columns, got 3"),
        (np.zeros(2), r"got shape \(2,\)"),
        (np.zeros((0, 2)), r"non-empty array \[n, d\], got shape \(0, 2\)"),
        ([[0.0, np.nan]], "NaN or infinity in 1 rows, the first is row 0"),
        ([["a", "b"]], "real numbers, got dtype <U1"),
        (None, r"got NoneType None"),
    ],
)
def test_bad_embeddings_to_assign(embeddings, words):
    pool = aria.Partition.from_labels([0, 1], centers=[[0, 0], [1, 1]])
    with pytest.raises(ValueError, match=words) as caught:
        pool.assign(embeddings)
    assert str(caught.value).startswith("embeddings: expected ")


ROWS = [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def embeddings_of(kind):
    """Three embeddings of two numbers, in a container or a form that is none of an array [n, d]."""
    objects = np.empty(3, object)
    objects[:] = [np.array(row) for row in ROWS]
    if kind.startswith(("csr", "coo", "rows of csr")):
        sparse = pytest.importorskip("scipy.sparse")
        return [sparse.csr_matrix([row]) for row in ROWS] if kind[0] == "r" else getattr(sparse, kind)(ROWS)
    if "tensor" in kind:
        tensor = pytest.importorskip("torch").tensor(ROWS)
        if kind == "objects of tensors":
            objects[:] = list(tensor)
            return objects
        return tensor.to_sparse() if "sparse" in kind else tensor[:, :, None]
    if "Series" in kind or "frame" in kind:
        pandas = pytest.importorskip("pandas")
        if kind == "frame with text":
            return pandas.DataFrame(ROWS).assign(name=["a", "b", "c"])
        return pandas.Series(ROWS if "lists" in kind else list(objects), index=[7, 3, 5])
    if "polars" in kind:
        return pytest.importorskip("polars").Series(ROWS)
    deep = np.array(ROWS)[:, :, None]
    return {"objects": objects, "three axes": deep, "list": deep.tolist()}[kind]


@pytest.mark.parametrize(
    "kind",
    [
        *("csr_matrix", "coo_array", "rows of csr", "sparse tensor", "tensor of three axes", "three axes", "list"),
        *("objects", "objects of tensors", "Series of arrays", "Series of lists", "polars of lists", "frame with text"),
    ],
)
def test_what_a_message_on_embeddings_says_works_in_their_container(kind):
    pool = aria.Partition.from_labels([0, 1], centers=[[0, 0], [1, 1]])
    names = remedied(lambda names: pool.assign(names["embeddings"]), embeddings=embeddings_of(kind))
    assert pool.assign(names["embeddings"]).tolist() == [0, 1, 1]


@pytest.mark.parametrize("kind", ["array", "list", "tensor", "Series", "polars"])
def test_one_axis_may_be_items_or_one_item(kind):
    """The message has a line for both, and both work in the container that came."""
    module, make = {"tensor": ("torch", "tensor"), "Series": ("pandas", "Series"), "polars": ("polars", "Series")}.get(
        kind, ("numpy", "array")
    )
    values = [1.0, 1.0] if kind == "list" else getattr(pytest.importorskip(module), make)([1.0, 1.0])
    pool = aria.Partition.from_labels([0, 1], centers=[[0, 0], [1, 1]])
    with pytest.raises(
        ValueError, match=r"got shape \(2,\); pass .* if these are items, .* if it is one item"
    ) as caught:
        pool.assign(values)
    as_items, as_one = re.search("pass (.*) if these are items, (.*) if it is one item", str(caught.value)).groups()
    assert eval(as_items, {"embeddings": values, "np": np}).shape == (2, 1)
    assert pool.assign(eval(as_one, {"embeddings": values, "np": np})).tolist() == [1]


def test_lists_of_tensors_are_embeddings_and_labels():
    torch = pytest.importorskip("torch")
    pool = aria.Partition.from_labels([torch.tensor(1), torch.tensor(0)], centers=[[0, 0], [1, 1]])
    rows = [torch.tensor(row, requires_grad=True) for row in ROWS]
    assert pool.assign(rows).tolist() == [0, 1, 1]
    assert pool.assign([row.bfloat16() for row in rows]).tolist() == [0, 1, 1]


def test_a_sparse_pool_too_large_to_be_dense_is_told_so():
    sparse = pytest.importorskip("scipy.sparse")
    pool = aria.Partition.from_labels([0, 1], centers=[[0, 0], [1, 1]])
    with pytest.raises(ValueError, match=r"of shape \(1000000, 50000\), 373 GiB as an array.*TruncatedSVD") as caught:
        pool.assign(sparse.csr_matrix((10**6, 50_000)))
    assert caught.value.remedy is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_embeddings_in_a_file_are_read_in_chunks(tmp_path, monkeypatch, dtype):
    """Checking, assigning and sampling a memory map never hold more than some chunks of it."""
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (40_000, 16)).astype(dtype)
    mapped = np.memmap(tmp_path / "embeddings", dtype, "w+", shape=values.shape)
    mapped[:] = values
    pool = aria.Partition.from_labels([0, 1], centers=[np.zeros(16), np.ones(16)])
    whole = pool.assign(values)
    monkeypatch.setattr("aria_sampling.partition._assign._CHUNK_BYTES", 1 << 14)
    tracemalloc.start()
    found = pool.assign(mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(found, whole)
    assert peak < found.nbytes + 8 * (1 << 14)  # of 1.3 MB in half precision


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


def test_a_mapped_file_can_be_verified(path, monkeypatch):
    """Every byte of it in turn: `verify` refuses what a mapping alone lets pass, a piece at a time."""
    pool = sample()
    pool.save(path)
    assert same_partition(aria.Partition.load(path, mmap=True, verify=True), pool)
    assert isinstance(aria.Partition.load(path, mmap=True, verify=True).labels, np.memmap)
    whole = path.read_bytes()
    monkeypatch.setattr("aria_sampling.partition._file._PIECE", 7)
    for place in sorted(data_of_mapped_arrays(path)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.unlink()
        path.write_bytes(damaged)
        aria.Partition.load(path, mmap=True)
        with pytest.raises(aria.PartitionFileError, match=r"not a whole partition file .*Bad CRC"):
            aria.Partition.load(path, mmap=True, verify=True)


def test_verifying_takes_no_memory(path):
    aria.Partition.from_labels(np.arange(10**6) % 7).save(path)
    tracemalloc.start()
    aria.Partition.load(path, mmap=True, verify=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20  # of 6 MB


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
    "labels without order": {"order": None, "header": lambda header: header.replace(b'"order", ', b"")},
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
