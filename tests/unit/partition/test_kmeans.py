"""`KMeansPartitioner`: its result is a partition by its own centres, the same every time, on any float data."""

import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria

pytest.importorskip("sklearn")


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
    sample = np.sort(np.random.default_rng(0).choice(5000, size=6, replace=False))
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
    monkeypatch.setattr(aria.KMeansPartitioner, "_centers", lambda self, array: centers)
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
        for name in ("n_regions", "points_per_region", "max_iter")
        for value in (0, -1, 1.0, "3", None, True, np.float64(2))
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
    monkeypatch.setattr(aria.KMeansPartitioner, "_centers", lambda self, array: pytest.fail("fitted"))
    with pytest.raises(ValueError, match=r"^names: expected (a sequence of )?2 names"):
        aria.KMeansPartitioner(n_regions=2).fit(np.arange(4.0)[:, None] % distinct, names=names)


def test_without_scikit_learn_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np, aria_sampling as aria\n"
        "try: aria.KMeansPartitioner(n_regions=2).fit(np.eye(4))\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "needs scikit-learn: pip install 'aria-sampling[cluster]'" in out
