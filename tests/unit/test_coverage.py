"""`Coverage`: what it counts, what it refuses and with which words, saved and loaded whole. Its law: theory, T4.8."""

import copy
import io
import pickle
import re
import subprocess
import sys
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import coverage as module

VECTORS = ("counts", "distinct", "uncovered")
NAMES = (*VECTORS, "weight", "power", "length_scale", "noise", "half_life", "is_online", "is_empty", "fingerprint")


def pool(n_regions=4, with_centers=True):
    """Twelve items, item i in region i % n_regions, whose centres stand on a line."""
    centers = np.arange(n_regions)[:, None].astype(np.float32) if with_centers else None
    return aria.Partition.from_labels(np.arange(12) % n_regions, centers=centers)


def same(a, b):
    """Whether two coverages are equal in every attribute, bit for bit."""
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES) and a.partition == b.partition


# ----------------------------------------------------------------------------------------------------- what is counted


@given(st.lists(st.integers(0, 11), max_size=30))
def test_items_may_repeat(items):
    """Effort counts every row, the kernel every item once, in any order."""
    coverage = aria.Coverage(pool(), items=items)
    assert coverage.counts.tolist() == [sum(i % 4 == k for i in items) for k in range(4)]
    assert coverage.distinct.tolist() == [sum(i % 4 == k for i in set(items)) for k in range(4)]
    once = aria.Coverage(pool(), items=sorted(set(items)))
    assert np.array_equal(coverage.uncovered, once.uncovered)
    assert same(coverage, aria.Coverage(pool(), items=items[::-1]))
    assert coverage.is_empty == (not items)


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_a_mask_is_the_items_where_it_is_true(mask):
    items = np.flatnonzero(mask)
    for given_mask in (mask, np.array(mask)):
        assert same(aria.Coverage(pool(), items=given_mask), aria.Coverage(pool(), items=items))


def test_items_in_whatever_they_come():
    torch = pytest.importorskip("torch")
    wanted = aria.Coverage(pool(), items=[3, 0])
    for items in ((3, 0), np.array([3, 0], np.uint8), torch.tensor([3, 0]), torch.tensor([0, 3]).int()):
        assert same(aria.Coverage(pool(), items=items), wanted)
    mask = torch.zeros(12, dtype=torch.bool)
    mask[[0, 3]] = True
    assert same(aria.Coverage(pool(), items=mask), wanted)


def test_counts_are_taken_as_they_are():
    counts = np.array([0.5, 0, 2, 0])
    coverage = aria.Coverage(pool(), counts=counts)
    assert coverage.counts.tolist() == coverage.distinct.tolist() == counts.tolist()
    counts[0] = 9
    assert coverage.counts[0] == 0.5
    items = aria.Coverage(pool(), items=[0, 4, 1])
    assert same(items, aria.Coverage(pool(), counts=[2, 1, 0, 0]))


def test_captions_outside_the_pool_count_where_they_are_near():
    embeddings = np.array([[0.1], [2.2], [2.2], [-0.0], [0.0]])
    coverage = aria.Coverage(pool(), embeddings=embeddings)
    assert coverage.counts.tolist() == [3, 0, 2, 0]
    assert coverage.distinct.tolist() == [2, 0, 1, 0]  # one caption with two images; 0 and -0 are the same
    both = aria.Coverage(pool(), items=[0, 0, 3], embeddings=embeddings)
    assert both.counts.tolist() == [5, 0, 2, 1]
    assert both.distinct.tolist() == [3, 0, 1, 1]
    for dtype in (np.float32, np.float16):
        assert same(
            aria.Coverage(pool(), embeddings=np.array([[0.0], [2.0]], dtype)), aria.Coverage(pool(), items=[0, 2])
        )


@pytest.mark.parametrize("nothing", [{"items": []}, {"items": np.zeros(12, bool)}, {"counts": np.zeros(4)}])
@pytest.mark.parametrize("with_centers", [True, False])
def test_coverage_may_be_empty(nothing, with_centers):
    coverage = aria.Coverage(pool(with_centers=with_centers), **nothing)
    assert coverage.is_empty
    assert coverage.counts.tolist() == [0] * 4
    assert coverage.uncovered.tolist() == [1] * 4
    assert not aria.Coverage(pool(), items=[0]).is_empty


def test_no_embeddings_are_no_coverage():
    for nothing in ([], np.zeros((0, 1)), np.zeros((0, 5))):
        if np.ndim(nothing) == 1:
            assert aria.Coverage(pool(), embeddings=nothing).is_empty
        else:
            assert aria.Coverage(pool(), embeddings=nothing, items=[1]).counts.tolist() == [0, 1, 0, 0]


def test_a_pool_without_an_array_of_labels():
    """Counted through `regions_of`, so that a pool of 10^9 items stays without labels."""
    big = aria.Partition.from_sizes([600_000_000, 400_000_000])
    coverage = aria.Coverage(big, items=[0, 599_999_999, 600_000_000])
    assert coverage.counts.tolist() == [2, 1]
    assert "labels" not in vars(big)


# ------------------------------------------------------------------------------------------ without comparing centres


def test_without_centres_each_region_knows_its_own_data():
    coverage = aria.Coverage(pool(with_centers=False), items=[0, 0, 4, 1], noise=2.0)
    assert coverage.uncovered.tolist() == [2 / 4, 2 / 3, 1, 1]
    assert coverage.power == 0
    assert coverage.length_scale is None


def test_too_many_regions_to_compare_are_told_once():
    n_regions = 2**18 + 1
    large = aria.Partition.from_labels(np.arange(n_regions), centers=np.zeros((n_regions, 1), np.float32))
    with pytest.warns(aria.AriaWarning, match=r"262145 regions are too many .*power=0") as caught:
        coverage = aria.Coverage(large, items=[1])
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert coverage.power == 0
    assert coverage.uncovered[:3].tolist() == [1, 0.5, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = aria.Coverage(large, items=[1], power=0)
        assert aria.Coverage(large, items=[]).is_empty
    assert same(coverage, quiet)


def test_settings_are_kept():
    coverage = aria.Coverage(pool(), items=[0], weight=3, power=2, length_scale=0.5, noise=0.1)
    assert (coverage.weight, coverage.power, coverage.length_scale, coverage.noise) == (3.0, 2.0, 0.5, 0.1)
    default = aria.Coverage(pool(), items=[0])
    assert (default.weight, default.power, default.noise, default.half_life) == (10.0, 4.0, 1.0, None)
    assert default.length_scale == 0.5  # of 16 pairs 4 are at 0, 6 at 1, 4 at 2, 2 at 3
    assert not default.is_online
    assert default.keep == 1


# ------------------------------------------------------------------------------------------------------------- online


def test_online_coverage_has_nothing_in_it_yet():
    coverage = aria.Coverage.online(pool(), half_life=8, weight=2)
    assert coverage.is_online
    assert not coverage.is_empty
    assert coverage.counts.tolist() == coverage.distinct.tolist() == [0] * 4
    assert coverage.uncovered.tolist() == [1] * 4
    assert (coverage.power, coverage.weight, coverage.half_life) == (0.0, 2.0, 8.0)
    assert coverage.keep**8 == pytest.approx(0.5, rel=1e-14)
    assert aria.Coverage.online(pool()).keep == 1.0
    assert aria.Coverage.online(pool(), half_life=1e-9).keep < 1e-300


# ----------------------------------------------------------------------------------------------------------- a value


def test_fingerprint_is_of_the_inputs():
    coverage = aria.Coverage(pool(), items=[0, 5])
    again = aria.Coverage(pool(), items=[5, 0])
    assert coverage == again
    assert hash(coverage) == hash(again)
    assert coverage != "a string"
    moved = aria.Partition.from_labels(np.arange(12) % 4, centers=np.arange(4.0)[:, None] + [[0], [0], [0], [1e-3]])
    others = [
        aria.Coverage(pool(), items=[0]),
        aria.Coverage(pool(), items=[0, 5, 5]),
        aria.Coverage(pool(), items=[0, 9]),
        aria.Coverage(pool(), items=[0, 5], weight=9),
        aria.Coverage(pool(), items=[0, 5], power=3),
        aria.Coverage(pool(), items=[0, 5], noise=2),
        aria.Coverage(pool(), items=[0, 5], length_scale=coverage.length_scale),
        aria.Coverage(pool(with_centers=False), items=[0, 5]),
        aria.Coverage(moved, items=[0, 5]),
        aria.Coverage(pool(3), items=[0, 5]),
        aria.Coverage.online(pool()),
        aria.Coverage.online(pool(), half_life=5),
        aria.Coverage.online(pool(), weight=5),
        aria.Coverage.online(pool(3)),
    ]
    same_counts = aria.Coverage(pool(), items=[0, 9])  # another item of the same region: the same vectors
    assert same_counts == coverage
    others.remove(same_counts)
    fingerprints = [other.fingerprint for other in others]
    assert coverage.fingerprint not in fingerprints
    assert len(set(fingerprints)) == len(fingerprints)
    assert all(re.fullmatch("[0-9a-f]{32}", fingerprint) for fingerprint in fingerprints)


def test_fingerprint_is_the_same_everywhere():
    """Saved states carry it: it may not change with the platform or the process."""
    assert aria.Coverage(pool(), items=[0, 5]).fingerprint == "eb7aeb99a02f61119180ae481fa4e47a"


def test_nothing_can_be_set():
    for coverage in (aria.Coverage(pool(), items=[0]), aria.Coverage.online(pool())):
        for twin in (coverage, copy.copy(coverage), copy.deepcopy(coverage), pickle.loads(pickle.dumps(coverage))):
            assert same(coverage, twin)
            for name in VECTORS:
                assert getattr(twin, name).dtype == np.float64
                with pytest.raises(ValueError, match="read-only"):
                    getattr(twin, name)[0] = 9
            for name in NAMES:
                with pytest.raises(AttributeError):
                    setattr(twin, name, 1)


def test_repr_is_short_and_says_what_it_is():
    text = repr(aria.Coverage(pool(), items=[0, 0, 1]))
    assert text.startswith("Coverage(n_regions=4, covered=2, power=4, weight=10, fingerprint=")
    online = repr(aria.Coverage.online(pool(), half_life=5))
    assert online.startswith("Coverage.online(n_regions=4, half_life=5.0, weight=10, ")
    assert max(len(text), len(online)) < 120


def test_importing_loads_no_scipy():
    code = (
        "import sys, aria_sampling as aria\n"
        "pool = aria.Partition.from_labels([0, 1], centers=[[0.0], [1.0]])\n"
        "aria.Coverage.online(pool), aria.Coverage(pool, items=[])\n"
        "assert not any(name == 'scipy' or name.startswith('scipy.') for name in sys.modules)\n"
        "aria.Coverage(pool, items=[0])\n"
        "assert 'scipy.linalg' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------------------------------------------------- bad input

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "items: expected items=, embeddings= or counts=, got none of them; pass items=[]"),
        ({"items": [12]}, "items: expected values in [0, 12), got 12 to 12"),
        (
            {"items": [0, -1, -1, 3]},
            "items: expected items of the pool, got -1 in 2 of 4 places: captions that are not in the pool. Their",
        ),
        ({"items": [-2, -1]}, "items: expected values in [0, 12), got -2 to -1"),
        ({"items": [0.0, 1.0]}, "items: expected integers, got dtype float64"),
        ({"items": ["a"]}, "items: expected integers, got dtype <U1"),
        ({"items": 3}, "items: expected a one-dimensional array of integers, got int 3"),
        ({"items": [[0, 1]]}, "items: expected a one-dimensional array of integers, got shape (1, 2)"),
        ({"items": [True, False]}, "items: expected a mask of shape (12,), one bool an item, got shape (2,)"),
        (
            {"items": np.ones((12, 1), bool)},
            "items: expected a mask of shape (12,), one bool an item, got shape (12, 1)",
        ),
        ({"items": [[0], [1, 2]]}, "items: expected item numbers [m], or a bool mask [n_items], got list, which NumPy"),
        ({"counts": [1, 2]}, "counts: expected 4 numbers, got 2"),
        ({"counts": [1, -1, 0, 0]}, "counts: expected numbers >= 0 with a finite sum, got values from -1.0 to 1.0"),
        ({"counts": [1, NAN, 0, 0]}, "counts: expected numbers >= 0 with a finite sum"),
        ({"counts": [1e308, 1e308, 0, 0]}, "counts: expected numbers >= 0 with a finite sum"),
        ({"counts": ["a"] * 4}, "counts: expected real numbers, got dtype <U1"),
        ({"counts": [1] * 4, "items": [0]}, "counts: expected no items= beside it, got both"),
        ({"counts": [1] * 4, "embeddings": [[0.0]]}, "counts: expected no embeddings= beside it, got both"),
        ({"embeddings": [[0.0, 1.0]]}, "embeddings: expected 1 columns, got 2"),
        ({"embeddings": [[NAN]]}, "embeddings: expected finite numbers"),
        ({"embeddings": [0.0, 1.0]}, "embeddings: expected a non-empty array [n, d], got shape (2,)"),
        ({"embeddings": [["a"]]}, "embeddings: expected real numbers, got dtype <U1"),
        *[
            ({"items": [0], name: value}, f"{name}={value!r}: expected a finite number in {interval}")
            for name, interval, values in [
                ("weight", "[0, 1e+09]", [-1.0, 2e9, NAN, INF, None, "1", True]),
                ("power", "[0, 64]", [-0.5, 64.5, NAN, INF, None]),
                ("noise", "(0, inf)", [0.0, -1.0, NAN, INF, None]),
                ("length_scale", "(0, inf)", [0.0, -1.0, NAN, INF, "1"]),
            ]
            for value in values
        ],
    ],
    ids=repr,
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        aria.Coverage(pool(), **arguments)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) <= 900


def in_containers(values):
    """Item numbers in every container that people have; None stands for no item in those that can say so."""
    torch = pytest.importorskip("torch")
    found = {"list": values, "objects": np.array(values, object)}
    if None not in values:
        found |= {"array": np.array(values), "tensor": torch.tensor(values), "floats": np.array(values, float)}
    else:
        found |= {"floats": np.array(values, float), "tensor": torch.tensor(np.array(values, float))}
    for name in ("pandas", "polars"):
        try:
            found[name] = __import__(name).Series(values)
        except ImportError:
            continue
    return found


@pytest.mark.parametrize("with_centers", [True, False])
@pytest.mark.parametrize("values", [[0, -1, 5, -1], [0, None, 5, None], [-1, -1, -1, -1], [None] * 4], ids=str)
def test_captions_outside_the_pool_are_no_items(values, with_centers):
    """-1 and nulls: the message names embeddings=, and its remedy counts them, whatever the items come in."""
    captions = np.array([[0.0], [2.0], [1.0], [3.0]])
    inside = [item is not None and item >= 0 for item in values]
    for container, items in in_containers(values).items():
        with pytest.raises(ValueError, match=r"^items: expected items of the pool, got -1.*embeddings=") as caught:
            aria.Coverage(pool(with_centers=with_centers), items=items)
        assert len(str(caught.value)) <= 900
        names = {"aria": aria, "np": np, "partition": pool(with_centers=with_centers), "items": items}
        exec(caught.value.remedy, names | {"caption_embeddings": captions}, names)
        wanted = [1, 1, 1, 1] if with_centers and any(inside) else [1, 1, 0, 0]
        if not any(inside):
            wanted = [1, 1, 1, 1] if with_centers else [0, 0, 0, 0]
        assert names["coverage"].counts.tolist() == wanted, container


def test_removed_items_still_cover_their_regions():
    smaller = pool().without([0, 1, 5, 9])
    coverage = aria.Coverage(smaller, items=[0, 1, 2])
    assert coverage.counts.tolist() == aria.Coverage(pool(), items=[0, 1, 2]).counts.tolist()
    assert coverage != aria.Coverage(pool(), items=[0, 1, 2])  # another pool
    with pytest.raises(ValueError, match="of the allocator's partition"):
        aria.Allocator(smaller, coverage=aria.Coverage(pool(), items=[0]))


def test_embeddings_in_a_file_are_read_in_chunks(tmp_path, monkeypatch):
    """Half precision in a memory map of 5 MB: never more than some chunks of it exist, and no boolean of all."""
    values = np.random.default_rng(0).integers(0, 4, (40_000, 64)).astype(np.float16)
    mapped = np.memmap(tmp_path / "embeddings", np.float16, "w+", shape=values.shape)
    mapped[:] = values
    partition = aria.Partition.from_labels([0, 1], centers=[np.zeros(64), np.ones(64)])
    monkeypatch.setattr("aria_sampling.partition._assign._CHUNK_BYTES", 1 << 16)
    monkeypatch.setattr(module, "_first_of_equals", lambda array: np.ones(len(array), bool))  # a set of digests
    tracemalloc.start()
    found = aria.Coverage(partition, embeddings=mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.counts.tolist() == aria.Coverage(partition, embeddings=values).counts.tolist()
    assert peak < 40_000 * 8 * 2 + 8 * (1 << 16)  # regions of rows and which are first; all rows as bools are 2.5 MB


def test_embeddings_need_centres():
    with pytest.raises(ValueError, match=r"^embeddings: expected a partition with centers.*Partition\.from_labels"):
        aria.Coverage(pool(with_centers=False), embeddings=[[0.0]])


@pytest.mark.parametrize("bad", [None, [0, 1] * 500_000, np.eye(2), aria.Partition])
def test_bad_partition(bad, tmp_path):
    path = tmp_path / "coverage"
    aria.Coverage(pool(), items=[0]).save(path)
    for call in (
        lambda: aria.Coverage(bad, items=[0]),
        lambda: aria.Coverage.online(bad),
        lambda: aria.Coverage.load(path, bad),
    ):
        with pytest.raises(ValueError, match=r"^partition: expected an instance of Partition, got ") as caught:
            call()
        assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("name", "value"), [("half_life", 0), ("half_life", -1), ("half_life", NAN), ("half_life", "8"), ("weight", -1)]
)
def test_bad_online(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        aria.Coverage.online(pool(), **{name: value})


# ----------------------------------------------------------------------------------------------------------- the file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "images.coverage"


EXAMPLES = {
    "static": lambda: aria.Coverage(pool(), items=[0, 0, 5], weight=0.1, power=1 / 3, length_scale=0.7, noise=1e-7),
    "default": lambda: aria.Coverage(pool(), items=[1, 2]),
    "without centres": lambda: aria.Coverage(pool(with_centers=False), counts=[0.1, 0, 1e300, 3]),
    "empty": lambda: aria.Coverage(pool(), items=[]),
    "online": lambda: aria.Coverage.online(pool(), half_life=0.1),
    "online for ever": lambda: aria.Coverage.online(pool()),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_round_trip_is_bitwise(name, path):
    coverage = EXAMPLES[name]()
    coverage.save(path)
    loaded = aria.Coverage.load(str(path), coverage.partition)
    assert same(coverage, loaded)
    assert coverage == loaded
    assert loaded.partition is coverage.partition
    for vector in VECTORS:
        assert not getattr(loaded, vector).flags.writeable
    before = path.read_bytes()
    loaded.save(str(path))  # over it, and the same again
    assert path.read_bytes() == before


def test_the_vectors_of_the_file_are_taken(path, monkeypatch):
    """They are not computed again: another machine would get other last bits."""
    coverage = aria.Coverage(pool(), items=[1, 2])
    coverage.save(path)
    monkeypatch.setattr(module, "_posterior", lambda *_: pytest.fail("computed"))
    assert same(aria.Coverage.load(path, pool()), coverage)


def test_numpy_reads_the_vectors(path):
    coverage = aria.Coverage(pool(), items=[1, 2])
    coverage.save(path)
    with np.load(path, allow_pickle=False) as arrays:
        for name in VECTORS:
            assert np.array_equal(arrays[name], getattr(coverage, name))


def test_another_pool_is_refused(path):
    aria.Coverage(pool(), items=[1, 2]).save(path)
    with pytest.raises(aria.StateError, match=r"images\.coverage: expected the coverage of Partition\(.*got that of a"):
        aria.Coverage.load(path, pool(3))
    for other in (pool(with_centers=False), aria.Partition.from_labels(np.arange(12) % 4, centers=np.eye(4))):
        assert other == pool()
        with pytest.raises(aria.StateError, match=r"expected a coverage made with the centers of Partition\("):
            aria.Coverage.load(path, other)


def test_centres_do_not_matter_to_online_coverage(path):
    aria.Coverage.online(pool()).save(path)
    assert aria.Coverage.load(path, pool(with_centers=False)).is_online


def test_no_such_file(path):
    with pytest.raises(FileNotFoundError):
        aria.Coverage.load(path, pool())


def test_a_partition_file_is_no_coverage_file(path):
    pool().save(path)
    with pytest.raises(
        aria.StateError, match="expected format 'aria-sampling coverage 1', got 'aria-sampling partition"
    ):
        aria.Coverage.load(path, pool())
    aria.Coverage(pool(), items=[0]).save(path)
    with pytest.raises(aria.PartitionFileError, match="expected format"):
        aria.Partition.load(path)


def test_damaged_anywhere(path):
    """Cut to any number of bytes, or a wrong bit in any byte: refused, or harmless and all as saved."""
    coverage = aria.Coverage(pool(), items=[1, 2])
    coverage.save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(aria.StateError, match=r"not a whole coverage file .*Coverage\.save"):
            aria.Coverage.load(path, pool())
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            loaded = aria.Coverage.load(path, pool())
        except aria.StateError:
            refused += 1
        else:
            assert same(coverage, loaded), place
    assert refused > len(whole) / 2


def rewritten(path, **changes):
    """The file with other vectors or another header, whose checksums are right."""
    aria.Coverage(pool(), items=[1, 2]).save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    for name, value in changes.items():
        if name == "header":
            parts["header.json"] = value(parts["header.json"])
        else:
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, value)
            parts[f"{name}.npy"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


MISFITS = {
    "fewer counts": {"counts": np.zeros(3)},
    "a count below 0": {"counts": np.array([0, 1, 1, -1.0])},
    "distinct not finite": {"distinct": np.array([0, 1, NAN, 0])},
    "float32": {"distinct": np.zeros(4, np.float32)},
    "two dimensions": {"counts": np.zeros((4, 1))},
    "nothing uncovered": {"uncovered": np.zeros(4)},
    "uncovered above 1": {"uncovered": np.full(4, 1.5)},
    "no weight": {"header": lambda header: header.replace(b'"weight"', b'"height"')},
    "an array missing": {"header": lambda header: header.replace(b'"distinct", ', b"")},
    "a partition of another type": {
        "header": lambda header: header.replace(b'"partition": "', b'"partition": 5, "x": "')
    },
}


@pytest.mark.parametrize("what", MISFITS)
def test_parts_that_do_not_fit(path, what):
    rewritten(path, **MISFITS[what])
    with pytest.raises(aria.StateError, match=r"images\.coverage"):
        aria.Coverage.load(path, pool())


def test_rewriting_nothing_fits(path):
    """The control of the misfits above."""
    rewritten(path)
    assert same(aria.Coverage.load(path, pool()), aria.Coverage(pool(), items=[1, 2]))


def test_a_failed_save_keeps_the_old_file(path, monkeypatch):
    aria.Coverage(pool(), items=[1, 2]).save(path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.lib.format.write_array", full)
    with pytest.raises(OSError, match="No space"):
        aria.Coverage(pool(), items=[3]).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
