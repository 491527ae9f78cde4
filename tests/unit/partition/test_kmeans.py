"""`KMeansPartitioner`: its result is a partition by its own centres, the same every time, on any float data."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.partition import _assign, _lloyd, partition


def blobs(k, per, *, seed=0, width=5):
    """Well separated blobs, their rows shuffled: the embeddings, and the blob of each row."""
    rng = np.random.default_rng(seed)
    blob = rng.permutation(np.repeat(np.arange(k), per))
    return 20.0 * np.eye(k, width)[blob] + rng.uniform(-1, 1, (k * per, width)), blob


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(8, 60), st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
def test_every_item_is_in_the_region_of_its_nearest_centre(k, n, seed, dtype):
    embeddings = np.random.default_rng(seed).normal(size=(n, 3)).astype(dtype)
    pool = aria.KMeansPartitioner(n_regions=k, seed=seed).fit(embeddings)
    assert pool.n_items == n
    assert pool.centers.shape == (pool.n_regions, 3)
    assert pool.centers.dtype == np.float32
    assert pool.assign(embeddings).tolist() == pool.labels.tolist()
    distance2 = ((embeddings[:, None].astype(np.float64) - pool.centers[None].astype(np.float64)) ** 2).sum(axis=2)
    own = distance2[np.arange(n), pool.labels]
    assert (own <= distance2.min(axis=1) + 1e-5).all()


def test_separate_blobs_are_found():
    """K-means from a single start may split a blob in two; of five seeds one at least finds all four."""
    embeddings, blob = blobs(4, 30)
    best = None
    for seed in range(5):
        pool = aria.KMeansPartitioner(n_regions=4, seed=seed).fit(embeddings)
        if sorted(pool.sizes.tolist()) == [30] * 4:
            best = pool
    assert best is not None
    for k in range(4):
        assert len(set(blob[best.items_of(k)].tolist())) == 1
    corners = 20.0 * np.eye(4, 5)
    assert sorted(best.assign(corners).tolist()) == [0, 1, 2, 3]


def test_the_same_every_time_and_another_seed_another():
    embeddings = np.random.default_rng(0).normal(size=(400, 4))
    one, two, other = (aria.KMeansPartitioner(n_regions=9, seed=seed).fit(embeddings) for seed in (3, 3, 4))
    assert one == two
    assert np.array_equal(one.centers, two.centers)
    assert one != other


def test_the_centres_are_fitted_on_a_subsample():
    """Lloyd's fixed point: each centre is the mean of its points, those of the stated subsample and no others."""
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(5000, 2))
    small = aria.KMeansPartitioner(n_regions=2, points_per_region=3, max_iter=100).fit(embeddings)
    all_of_it = aria.KMeansPartitioner(n_regions=2, points_per_region=2500, max_iter=100).fit(embeddings)
    assert not np.array_equal(small.centers, all_of_it.centers)
    sample = _lloyd.sampled(np.random.default_rng(0), 5000, 6)
    inside = aria.Partition.from_labels([0, 1], centers=small.centers).assign(embeddings[sample])
    for k in (0, 1):
        np.testing.assert_allclose(small.centers[k], embeddings[sample][inside == k].mean(axis=0), rtol=1e-5)


def test_whole_numbers_and_half_precision_are_embeddings_too():
    embeddings, _ = blobs(3, 20)
    for dtype in (np.int64, np.float16):
        assert aria.KMeansPartitioner(n_regions=3).fit(embeddings.astype(dtype)).n_regions == 3


def test_embeddings_in_a_file_are_not_copied_whole(tmp_path, monkeypatch):
    """Half precision in a memory map: the subsample is float32, the rest a chunk at a time, and no boolean of all."""
    values = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float16)
    mapped = np.memmap(tmp_path / "embeddings", np.float16, "w+", shape=values.shape)
    mapped[:] = values
    aria.KMeansPartitioner(n_regions=4).fit(values[:100])  # imports
    monkeypatch.setattr("aria_sampling.partition._assign._CHUNK_BYTES", 1 << 16)
    tracemalloc.start()
    pool = aria.KMeansPartitioner(n_regions=4).fit(mapped)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pool == aria.KMeansPartitioner(n_regions=4).fit(values)
    assert peak < 2_300_000  # labels and their order, some 40 bytes an item; 5 MB as they are, 10 MB in float32


def test_fewer_distinct_embeddings_than_regions():
    """Centres without items are dropped with a warning, names with them; regions stay dense."""
    embeddings = np.repeat([[0.0], [1.0], [5.0]], 10, axis=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool = aria.KMeansPartitioner(n_regions=6).fit(embeddings, names=list("abcdef"))
    assert ["3 of 6 regions hold no item" in str(w.message) for w in caught] == [True]
    assert caught[0].filename == __file__  # it points at the caller
    assert sorted(pool.sizes.tolist()) == [10, 10, 10]
    assert sorted(pool.centers.ravel().tolist()) == [0.0, 1.0, 5.0]
    assert len(set(pool.names)) == 3
    assert set(pool.names) < set("abcdef")


def test_a_centre_without_items_is_dropped_wherever_it_stands(monkeypatch):
    centers = np.array([[0.0], [100.0], [5.0], [-50.0], [1.0]], np.float32)
    monkeypatch.setattr(aria.KMeansPartitioner, "_centers", lambda self, *_: centers)
    with pytest.warns(UserWarning, match="2 of 5 regions hold no item"):
        pool = aria.KMeansPartitioner(n_regions=5).fit([[0.0], [5.0], [1.0], [5.0], [0.9]], names=list("abcde"))
    assert pool.labels.tolist() == [0, 1, 2, 1, 2]
    assert pool.names == ("a", "c", "e")
    assert pool.centers.ravel().tolist() == [0.0, 5.0, 1.0]
    assert pool.assign([[4.0], [1.2], [-3.0]]).tolist() == [1, 2, 0]


def test_names_are_kept():
    embeddings, _ = blobs(3, 20)
    assert aria.KMeansPartitioner(n_regions=3).fit(embeddings, names=["x", "y", "z"]).names == ("x", "y", "z")


def test_as_many_regions_as_items():
    pool = aria.KMeansPartitioner(n_regions=5).fit(np.arange(5.0)[:, None])
    assert pool.sizes.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("n_regions", "points_per_region", "max_iter", "max_size")
        for value in (0, -1, 1.0, "3", None, True, np.float64(2))
        if value is not None or name in ("n_regions", "max_iter")
    ]
    + [("seed", -1), ("seed", 2**32), ("seed", 1.5)],
)
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"^{name}=.*: expected an integer"):
        aria.KMeansPartitioner(**{"n_regions": 2, name: value})


@pytest.mark.parametrize(
    ("embeddings", "words"),
    [
        ([[0.0], [np.nan], [1.0], [np.inf]], r"NaN or infinity in 2 rows, the first is row 1"),
        ([[1e39], [0.0]], "finite numbers"),
        (np.ma.array(np.zeros((3, 2)), mask=np.eye(3, 2)), "NaN or infinity in 2 rows, the first is row 0"),
        (np.zeros(4), r"got shape \(4,\)"),
        (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
        (np.zeros((0, 3)), "non-empty"),
        (np.zeros((3, 0)), "non-empty"),
        ([["a"], ["b"]], "real numbers, got dtype <U1"),
        (np.zeros((3, 2), bool), "real numbers, got dtype bool"),
        (np.zeros((1, 2)), "at least n_regions=2 rows, got 1"),
        ([[0.0], [1.0, 2.0]], "which NumPy cannot read"),
    ],
)
def test_bad_embeddings(embeddings, words):
    with pytest.raises(ValueError, match=words) as caught:
        aria.KMeansPartitioner(n_regions=2).fit(embeddings)
    assert str(caught.value).startswith("embeddings: expected ")


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], "ab", {"a", "b"}, 5])
@pytest.mark.parametrize("distinct", [1, 4])
def test_bad_names_are_refused_before_the_fit(names, distinct, monkeypatch):
    monkeypatch.setattr(aria.KMeansPartitioner, "_centers", lambda self, *_: pytest.fail("fitted"))
    with pytest.raises(ValueError, match=r"^names: expected (a sequence of )?2 names"):
        aria.KMeansPartitioner(n_regions=2).fit(np.arange(4.0)[:, None] % distinct, names=names)


def test_scikit_learn_is_not_needed():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, aria_sampling as aria\n"
        "print(aria.KMeansPartitioner(n_regions=2).fit(np.eye(4)).n_regions)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "2\n"


@pytest.mark.parametrize("name", ["spherical", "progress"])
@pytest.mark.parametrize("value", [1, None, "yes", 0.0])
def test_bad_switches(name, value):
    with pytest.raises(ValueError, match=f"^{name}=.*: expected True or False"):
        aria.KMeansPartitioner(**{"n_regions": 2, name: value})


# ---------------------------------------------------------------------------------- embeddings of any kind


class Shards:
    """Rows in several arrays, of which one can only ask for slices and sorted numbers, as of a folder of files."""

    def __init__(self, values, *, says=None):
        self._parts = np.array_split(values, 3)
        self.shape, self.dtype = says or values.shape, values.dtype
        self.most = 0  # rows at one time

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, which):
        if isinstance(which, np.ndarray):
            assert which.dtype == np.int64
            assert (np.diff(which) > 0).all()
        else:
            assert isinstance(which, slice)
        found = np.concatenate(self._parts)[which]
        self.most = max(self.most, len(found))
        return found


def kinds(values, folder):
    """The same rows in all that people have them in."""
    mapped = np.memmap(folder / "embeddings", values.dtype, "w+", shape=values.shape)
    mapped[:] = values
    np.save(folder / "embeddings.npy", values)
    found = {"array": values, "list": values.tolist(), "Fortran": np.asfortranarray(values), "shards": Shards(values)}
    found |= {
        "memmap": mapped,
        "private memmap": np.memmap(folder / "embeddings", values.dtype, "c", shape=values.shape),
    }
    found |= {
        "npy": np.load(folder / "embeddings.npy", mmap_mode="r"),
        "every second row": np.repeat(values, 2, 0)[::2],
    }
    mapped.flush()
    return found


@pytest.mark.parametrize("settings", [{}, {"spherical": True}, {"max_size": 30}])
def test_every_kind_of_rows_gives_the_same_partition(tmp_path, settings, monkeypatch):
    monkeypatch.setattr(_assign, "_CHUNK_BYTES", 1 << 12)
    values = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32) + 1
    made = {
        kind: aria.KMeansPartitioner(n_regions=17, points_per_region=9, **settings).fit(rows)
        for kind, rows in kinds(values, tmp_path).items()
    }
    for kind, pool in made.items():
        assert pool == made["array"], kind
        assert np.array_equal(pool.centers, made["array"].centers), kind
        assert pool.assign(values).tolist() == pool.assign(kinds(values, tmp_path)[kind]).tolist()


def test_shards_are_read_a_piece_at_a_time(monkeypatch):
    monkeypatch.setattr(_assign, "_CHUNK_BYTES", 1 << 12)
    rows = Shards(np.random.default_rng(0).normal(size=(9000, 4)).astype(np.float16))
    pool = aria.KMeansPartitioner(n_regions=3).fit(rows)
    pool.assign(rows)
    assert rows.most <= 192  # the subsample, all at once


def test_shards_that_hold_less_than_they_say():
    rows = Shards(np.ones((90, 2)), says=(100, 2))
    with pytest.raises(
        ValueError, match=r"expected \[100, 2\] numbers from row 0 on, as its shape says, got \[90, 2\]"
    ):
        aria.Partition.from_centers(rows, [[0, 0]])


def test_changes_in_a_private_map_are_kept(tmp_path):
    """Pages of a map are let go of once they are read; those of mode "c" hold what the user wrote."""
    np.save(tmp_path / "e.npy", np.zeros((5000, 64), np.float32))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="c")
    mapped[::2] = 1
    pool = aria.KMeansPartitioner(n_regions=2).fit(mapped)
    assert pool.sizes.tolist() == [2500, 2500]
    assert mapped[::2].all()
    assert not mapped[1::2].any()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_pages_that_were_read_do_not_stay_in_memory(tmp_path):
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(400_000, 32)).astype(np.float32))
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")  # 51 MB

    def resident():
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssFile"))

    before = resident()
    aria.Partition.from_centers(mapped, np.eye(4, 32))
    assert resident() - before < 10e6


@pytest.mark.parametrize("what", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("sampled", [True, False])
def test_rows_that_are_not_finite_are_found_in_the_subsample_or_outside_of_it(what, sampled):
    embeddings = np.random.default_rng(0).normal(size=(300, 3))
    rows = np.setdiff1d(np.arange(300), _lloyd.sampled(np.random.default_rng(0), 300, 4))
    row = _lloyd.sampled(np.random.default_rng(0), 300, 4)[2] if sampled else rows[-1]
    embeddings[row, 1] = what
    with pytest.raises(ValueError, match=f"NaN or infinity in 1 rows, the first is row {row}$"):
        aria.KMeansPartitioner(n_regions=2, points_per_region=2).fit(embeddings)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e-12, 1e12, 1e25, 1e37])
@pytest.mark.parametrize("settings", [{}, {"spherical": True}])
def test_any_unit_will_do(scale, settings):
    """Numbers whose squares float32 cannot hold, or not exactly."""
    embeddings = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    plain = aria.KMeansPartitioner(n_regions=9, **settings).fit(embeddings)
    scaled = (embeddings * np.float64(scale)).astype(np.float32)
    pool = aria.KMeansPartitioner(n_regions=9, **settings).fit(scaled)
    assert pool.n_regions == 9
    if scale > 1e-38:  # those below have fewer digits
        assert (pool.labels == plain.labels).mean() > 0.95
    assert pool.assign(scaled).tolist() == pool.labels.tolist()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(1, 9), st.booleans())
def test_centres_in_pieces_are_centres(k, n, seed, at_once, unit):
    """The merged best of several products is the best of all, and of equals the lowest: exact on whole numbers."""
    rng = np.random.default_rng(seed)
    centers, rows = rng.integers(-2, 3, (k, 3)).astype(np.float32), rng.integers(-3, 4, (n, 3))
    if unit:
        centers = np.eye(3, dtype=np.float32)[rng.integers(0, 3, k)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_assign, "_AT_ONCE", at_once)
        labels = _assign.nearest(_assign.Rows("x", rows), centers)
    distance2 = ((rows[:, None] - centers[None].astype(int)) ** 2).sum(axis=2)
    assert labels.tolist() == distance2.argmin(axis=1).tolist()


def test_products_that_float32_cannot_hold():
    pool = aria.Partition.from_labels([0, 1, 2], centers=[[0.0, 1.0], [1.0, 0.0], [3e38, -3e38]])
    assert pool.assign([[3e38, -2e38], [1.0, 3e38], [2e38, -3e38], [-3e38, 3e38], [0.0, 0.9]]).tolist() == [
        2,
        0,
        2,
        0,
        0,
    ]


# ------------------------------------------------------------------------------------------ on a device


def on_torch(rows, centers):
    torch = pytest.importorskip("torch")
    return aria.Partition.from_labels(np.arange(len(centers)), centers=centers).assign(rows, device=torch.device("cpu"))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_torch_finds_the_same_of_whole_numbers(k, n, seed, at_once):
    rng = np.random.default_rng(seed)
    centers, rows = rng.integers(-2, 3, (k, 3)), rng.integers(-3, 4, (n, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_assign, "_AT_ONCE", at_once)
        found = on_torch(rows, centers)
    assert found.tolist() == ((rows[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1).tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
@pytest.mark.parametrize("spherical", [False, True])
def test_torch_finds_the_same_up_to_ties(dtype, spherical, monkeypatch):
    """Where another region is found, it is as near up to the rounding of float32."""
    torch = pytest.importorskip("torch")
    rows = (10 * np.random.default_rng(0).normal(size=(2000, 8)) + 3).astype(dtype)
    rows[~rows.any(axis=1)] = 1
    pool = aria.KMeansPartitioner(n_regions=60, spherical=spherical).fit(rows)
    other = pool.assign(rows, device=torch.device("cpu"))
    at = np.flatnonzero(other != pool.labels)
    assert len(at) < 5
    x = rows.astype(float) / (np.linalg.norm(rows.astype(float), axis=1)[:, None] if spherical else 1)
    apart = np.linalg.norm(x[at] - pool.centers[other[at]], axis=1) - np.linalg.norm(
        x[at] - pool.centers[pool.labels[at]], axis=1
    )
    assert (np.abs(apart) < 1e-4).all()
    assert aria.KMeansPartitioner(n_regions=60, spherical=spherical, device="cpu").fit(rows) == pool
    on_device = aria.KMeansPartitioner(n_regions=60, spherical=spherical, device=torch.device("cpu")).fit(rows)
    assert on_device.assign(rows, device=torch.device("cpu")).tolist() == on_device.labels.tolist()


def test_on_torch_rows_that_are_not_finite_are_refused_and_large_ones_are_not():
    pytest.importorskip("torch")
    assert on_torch([[3e38, -2e38], [0.9, 1.0]], [[0.0, 1.0], [1.0, 0.0], [3e38, -3e38]]).tolist() == [2, 0]
    with pytest.raises(ValueError, match="NaN or infinity in 1 rows, the first is row 1"):
        on_torch([[0.0], [np.nan]], [[0.0], [1.0]])


@pytest.mark.parametrize("device", ["cuda:99", "tpu", 3.5, "", ["cpu"]])
def test_a_device_that_is_not_there(device):
    pytest.importorskip("torch")
    for call in (
        lambda: aria.KMeansPartitioner(n_regions=2, device=device).fit(np.eye(4)),
        lambda: aria.Partition.from_labels([0, 1], centers=[[0], [1]]).assign([[0.0]], device=device),
        lambda: aria.Partition.from_centers([[0.0]], [[1.0]], device=device),
    ):
        with pytest.raises(ValueError, match=r"^device=.*: expected None, 'cpu', or a device of torch that is here"):
            call()


def test_torch_is_not_asked_for_small_pools():
    code = (
        "import sys, numpy as np, aria_sampling as aria\n"
        "aria.KMeansPartitioner(n_regions=2).fit(np.eye(4)); print('torch' in sys.modules)\n"
        "sys.modules['torch'] = None\n"
        "try: aria.KMeansPartitioner(n_regions=2, device='cuda').fit(np.eye(4))\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("False\ndevice='cuda' needs torch: pip install 'aria-sampling[torch]'")


# ----------------------------------------------------------------------------------------- many regions


@pytest.fixture
def small_tree(monkeypatch):
    monkeypatch.setattr(_lloyd, "_FLAT", 4)
    monkeypatch.setattr("aria_sampling.partition._lloyd.TREE", 30)
    monkeypatch.setattr("aria_sampling.partition.kmeans.TREE", 30)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 200), st.integers(1, 8), st.integers(0, 2**32 - 1), st.booleans())
def test_seeds_by_a_tree_are_as_many_as_asked_for(k, more, levels, seed, unit):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(k + more, 3)).astype(np.float32)
    x = np.round(x * levels) / levels if not unit else x / np.linalg.norm(x, axis=1)[:, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_lloyd, "_FLAT", 4)
        found = list(_lloyd.seeds(x.astype(np.float32), k, rng, max_iter=3, unit=unit))
        most = _lloyd.n_steps(k, 3)
    assert all(centers.shape == (k, 3) and np.isfinite(centers).all() for centers in found)
    assert len(found) <= most
    if unit:
        np.testing.assert_allclose(np.linalg.norm(found[-1], axis=1), 1, rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 1e6)), min_size=1, max_size=30), st.data())
def test_cells_get_centres_by_their_inertia(cells, data):
    sizes = np.array([size for size, _ in cells])
    inertia = np.array([value * (size > 1) for size, value in cells])
    if sizes.sum() == 0:
        return
    k = data.draw(st.integers(1, int(sizes.sum())))
    given_ = _lloyd._allotted(sizes, inertia, k)
    assert given_.sum() == k
    assert (given_ <= sizes).all()
    assert (given_ >= 0).all()
    if k >= (sizes > 0).sum():
        assert (given_[sizes > 0] >= 1).all()


@pytest.mark.parametrize("k", [5, 29, 30, 80])
def test_a_tree_is_a_partition_by_its_centres(small_tree, k):
    embeddings = np.random.default_rng(k).normal(size=(900, 4)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", aria.AriaWarning)
        pool = aria.KMeansPartitioner(n_regions=k).fit(embeddings)
    assert k - 4 <= pool.n_regions <= k
    assert pool.assign(embeddings).tolist() == pool.labels.tolist()
    assert pool == aria.KMeansPartitioner(n_regions=k).fit(embeddings)


def inertia(pool, embeddings):
    return np.square(embeddings - pool.centers[pool.labels]).sum(axis=1).mean()


@pytest.mark.slow
def test_the_inertia_is_near_that_of_scikit_learn():
    """128 regions of 30,000 points of an uneven mixture, three of them. scikit-learn seeds and fits all points."""
    cluster = pytest.importorskip("sklearn.cluster")
    ratios = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        share = (1 + np.arange(300.0)) ** -1
        middles = 3 * rng.normal(size=(300, 16))[rng.choice(300, 30_000, p=share / share.sum())]
        embeddings = (middles + rng.normal(size=(30_000, 16))).astype(np.float32)
        full, by_chance = (
            cluster.KMeans(128, n_init=1, init=init, random_state=0, max_iter=most).fit(embeddings).inertia_
            for init, most in (("k-means++", 300), ("random", 10))
        )
        ours = inertia(aria.KMeansPartitioner(n_regions=128).fit(embeddings), embeddings) * len(embeddings)
        assert ours < by_chance
        ratios.append(ours / full)
    assert np.mean(ratios) < 1.04


def test_the_subsample_is_one_row_of_each_stretch():
    for n, m in ((10, 10), (10, 3), (1000, 7), (2**40 + 3, 5), (10**12, 1)):
        found = _lloyd.sampled(np.random.default_rng(0), n, m)
        edges = [i * n // m for i in range(m + 1)]
        assert all(low <= row < high for low, high, row in zip(edges, edges[1:], found.tolist(), strict=False))


def test_the_subsample_has_64_rows_a_region_and_fewer_where_that_is_more_than_4_gib(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "aria_sampling.partition.kmeans.seeds", lambda x, *_, **__: seen.append(len(x)) or iter([x[:2]])
    )
    monkeypatch.setattr("aria_sampling.partition.kmeans.lloyd", lambda x, centers, **_: iter([centers]))
    for numbers, points, fitted in ((1 << 30, None, 128), (120, None, 40), (1, None, 32), (1, 50, 100)):
        monkeypatch.setattr("aria_sampling.partition.kmeans._MOST_NUMBERS", numbers)
        aria.KMeansPartitioner(n_regions=2, points_per_region=points).fit(
            np.random.default_rng(0).normal(size=(500, 3))
        )
        assert seen.pop() == fitted


# ------------------------------------------------------------------------------------------- directions


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 8), st.integers(8, 60), st.integers(0, 2**32 - 1))
def test_spherical_regions_are_those_of_the_largest_cosine(k, n, seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, 3)) * rng.lognormal(0, 3, (n, 1))
    pool = aria.KMeansPartitioner(n_regions=k, spherical=True).fit(embeddings)
    np.testing.assert_allclose(np.linalg.norm(pool.centers, axis=1), 1, rtol=1e-6)
    cosine = embeddings @ pool.centers.T.astype(float) / np.linalg.norm(embeddings, axis=1)[:, None]
    assert (cosine[np.arange(n), pool.labels] >= cosine.max(axis=1) - 1e-6).all()
    longer = embeddings * rng.lognormal(0, 5, (n, 1))
    same = pool.assign(longer) == pool.labels
    near = np.sort(cosine, axis=1)[:, -2:]
    assert (same | (near[:, -1] - near[:, 0] < 1e-6)).all()


@pytest.mark.parametrize("row", [0, 250])
def test_zeros_have_no_direction(row):
    embeddings = np.random.default_rng(0).normal(size=(300, 3))
    embeddings[row] = 0
    with pytest.raises(ValueError, match=f"zeros alone in 1 rows, the first is row {row}"):
        aria.KMeansPartitioner(n_regions=2, points_per_region=2, spherical=True).fit(embeddings)
    assert aria.KMeansPartitioner(n_regions=2).fit(embeddings).n_items == 300


# ------------------------------------------------------------------------------------------------ a cap


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(8, 90),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.booleans(),
)
def test_no_region_is_larger_than_the_cap(k, n, cap, seed, levels, spherical):
    """Also where many embeddings are equal. Each item is in the region of a nearest centre."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, 2)) if levels == 0 else rng.integers(1, 1 + levels, (n, 2)).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", aria.AriaWarning)
        pool = aria.KMeansPartitioner(n_regions=k, max_size=cap, points_per_region=3, spherical=spherical).fit(
            embeddings
        )
    assert pool.sizes.max() <= cap
    assert pool.sizes.sum() == n
    x = embeddings / np.linalg.norm(embeddings, axis=1)[:, None] if spherical else embeddings
    distance2 = ((x[:, None] - pool.centers[None].astype(float)) ** 2).sum(axis=2)
    assert (distance2[np.arange(n), pool.labels] <= distance2.min(axis=1) + 1e-5).all()


def test_without_a_region_that_is_too_large_a_cap_changes_nothing():
    embeddings, _ = blobs(4, 30)
    plain = aria.KMeansPartitioner(n_regions=9).fit(embeddings)
    assert aria.KMeansPartitioner(n_regions=9, max_size=int(plain.sizes.max())).fit(embeddings) == plain


def test_equal_embeddings_are_cut_by_their_numbers():
    embeddings = np.repeat([[0.0, 1.0], [5.0, 5.0]], [25, 4], axis=0)
    pool = aria.KMeansPartitioner(n_regions=2, max_size=10).fit(embeddings)
    assert sorted(pool.sizes.tolist()) == [4, 8, 8, 9]
    assert [len(set(pool.labels[begin:end].tolist())) for begin, end in ((0, 9), (9, 17), (17, 25), (25, 29))] == [
        1
    ] * 4
    assert Counter(map(tuple, np.round(pool.centers, 5).tolist())) == {(0.0, 1.0): 3, (5.0, 5.0): 1}


def test_names_and_a_cap_are_refused_together():
    with pytest.raises(ValueError, match=r"names: expected None with max_size.*Partition\.named"):
        aria.KMeansPartitioner(n_regions=2, max_size=3).fit(np.eye(4), names=["a", "b"])


# -------------------------------------------------------------------------------- how far it is, and an end


class Interrupted:
    """A function that works so many times, and then is interrupted, once."""

    def __init__(self, function, times):
        self.function, self.left = function, times

    def __call__(self, *arguments, **keywords):
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt
        return self.function(*arguments, **keywords)


@pytest.mark.parametrize("iterations", range(1, 6))
def test_ctrl_c_keeps_the_centres_so_far(monkeypatch, iterations):
    """They are those of a fit with so many iterations; one warning."""
    embeddings = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    wanted = aria.KMeansPartitioner(n_regions=20, max_iter=iterations).fit(embeddings)
    monkeypatch.setattr(_lloyd, "_means", Interrupted(_lloyd._means, iterations))
    with pytest.warns(
        aria.AriaWarning, match=rf"interrupted after {1 + iterations} of 11 steps.*Interrupt once more"
    ) as caught:
        pool = aria.KMeansPartitioner(n_regions=20).fit(embeddings)
    assert [warning.filename for warning in caught] == [__file__]
    assert pool == wanted
    assert np.array_equal(pool.centers, wanted.centers)


@pytest.mark.parametrize("k", [20, 40])
def test_ctrl_c_in_a_tree_keeps_the_cells_that_are_done(monkeypatch, small_tree, k):
    embeddings = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    for times in (12, 17, 23):
        with monkeypatch.context() as patch:
            patch.setattr(_lloyd, "_means", Interrupted(_lloyd._means, times))
            with pytest.warns(aria.AriaWarning, match="interrupted after"):
                pool = aria.KMeansPartitioner(n_regions=k).fit(embeddings)
        assert pool.n_regions == k
        assert pool.assign(embeddings).tolist() == pool.labels.tolist()


def test_ctrl_c_before_there_are_centres_is_an_end(monkeypatch):
    monkeypatch.setattr(_lloyd, "_plus_plus", Interrupted(_lloyd._plus_plus, 0))
    with pytest.raises(KeyboardInterrupt):
        aria.KMeansPartitioner(n_regions=2).fit(np.random.default_rng(0).normal(size=(90, 2)))


@pytest.mark.parametrize("settings", [{}, {"max_size": 200}])
def test_ctrl_c_while_items_are_assigned_keeps_the_centres(monkeypatch, settings):
    embeddings = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    partitioner = aria.KMeansPartitioner(n_regions=20, **settings)
    whole = partitioner.fit(embeddings)
    name = "kmeans.split" if settings else "kmeans.of_nearest"
    real = _lloyd.split if settings else partition.of_nearest
    with monkeypatch.context() as patch:
        patch.setattr(f"aria_sampling.partition.{name}", Interrupted(real, len(settings)))  # one split of the subsample
        with pytest.raises(KeyboardInterrupt) as caught:
            partitioner.fit(embeddings)
    assert "Partition.from_centers(embeddings, centers)" in caught.value.__notes__[0]
    pool = aria.Partition.from_centers(embeddings, caught.value.centers)
    assert pool == whole or (settings and pool.n_items == whole.n_items)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_signal_while_it_fits(tmp_path):
    """A real one, from outside, somewhere in the fit: there is a partition, and one warning."""
    code = (
        "import numpy as np, aria_sampling as aria, sys\n"
        "x = np.random.default_rng(0).normal(size=(60_000, 64)).astype(np.float32)\n"
        "print('ready', flush=True)\n"
        "pool = aria.KMeansPartitioner(n_regions=900, max_iter=1000, points_per_region=60).fit(x)\n"
        "print(pool.n_items, pool.n_regions)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert out == "60000 900\n", err
    assert err.count("AriaWarning: k-means was interrupted after") == 1


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_progress_is_shown_if_asked_for(with_tqdm, capsys, monkeypatch):
    if with_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr("aria_sampling.partition._progress._EVERY", -1.0)
    embeddings = np.random.default_rng(0).normal(size=(500, 4))
    quiet = aria.KMeansPartitioner(n_regions=5).fit(embeddings)
    assert capsys.readouterr() == ("", "")
    shown = aria.KMeansPartitioner(n_regions=5, progress=True).fit(embeddings)
    shown.assign(embeddings, progress=True)
    said = capsys.readouterr()
    assert not said.out
    assert "fitting" in said.err
    assert said.err.count("assigning") >= 2
    assert shown == quiet


# ------------------------------------------------------------------------------------ centres from elsewhere


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_from_centers_is_the_nearest_centre(k, n, seed):
    rng = np.random.default_rng(seed)
    centers, rows = rng.integers(-2, 3, (k, 2)), rng.integers(-3, 4, (n, 2))
    wanted = ((rows[:, None] - centers[None]) ** 2).sum(axis=2).argmin(axis=1)
    filled = sorted(set(wanted.tolist()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pool = aria.Partition.from_centers(rows, centers, names=[f"c{i}" for i in range(k)])
    assert len(caught) == (len(filled) < k)
    assert pool.names == tuple(f"c{i}" for i in filled)
    assert [filled[label] for label in pool.labels] == wanted.tolist()
    assert pool.centers.tolist() == centers[filled].tolist()


def test_what_from_centers_refuses():
    for call, words in (
        (lambda: aria.Partition.from_centers([[0.0]], [[0.0, 1.0]]), "embeddings: expected 2 columns, got 1"),
        (lambda: aria.Partition.from_centers([[0.0]], [[np.nan]]), "centers: expected finite numbers"),
        (lambda: aria.Partition.from_centers([[np.nan]], [[0.0]]), "embeddings: expected finite numbers"),
        (lambda: aria.Partition.from_centers([[0.0]], [[0.0]], names=["a", "b"]), "names: expected 1 names"),
        (lambda: aria.Partition.from_centers([[0.0]], []), "centers: expected a non-empty array"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            call()
