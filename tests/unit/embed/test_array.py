"""Embeddings on the disk are an array: whatever is asked of them is what NumPy gives of the whole."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import embed, prompts
from tests.unit.embed.counting import Counting, rows


@pytest.fixture
def vectors(tmp_path):
    pool = prompts.write(tmp_path / "pool", [f"caption {n}" for n in range(50)])
    return embed.write(tmp_path / "vectors", pool, encoder=Counting(), shard_rows=7)


@given(n=st.integers(1, 30), shard_rows=st.integers(1, 40), width=st.integers(1, 5), data=st.data())
@settings(max_examples=15)
def test_any_rows_are_those_of_the_whole(n, shard_rows, width, data):
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"caption {number}" for number in range(n)]
        pool = prompts.write(Path(folder) / "pool", texts)
        x = embed.write(Path(folder) / "x", pool, encoder=Counting(width), shard_rows=shard_rows)
        whole = rows(texts, width).astype(np.float16)
        assert (x.shape, x.dtype, x.ndim, len(x), x.nbytes) == (whole.shape, whole.dtype, 2, n, whole.nbytes)
        assert np.array_equal(np.asarray(x), whole)
        assert np.array_equal(np.asarray(x, np.float64), whole.astype(np.float64))
        assert np.array_equal(list(x), list(whole))
        for _ in range(20):
            items = np.array(data.draw(st.lists(st.integers(0, n - 1))), np.int64)
            assert np.array_equal(x[items], whole[items])
            assert np.array_equal(x[np.sort(items)], whole[np.sort(items)])
            mask = np.isin(np.arange(n), items)
            assert np.array_equal(x[mask], whole[mask])
            part = data.draw(st.slices(n))
            assert np.array_equal(x[part], whole[part])
            assert type(x[part]) is type(x[items]) is np.ndarray
            size = data.draw(st.integers(1, n + 1))
            chunks = list(x.chunks(size))
            assert [begin for begin, _ in chunks] == list(range(0, n, size))
            assert np.array_equal(np.concatenate([chunk for _, chunk in chunks]), whole)
        item = data.draw(st.integers(0, n - 1))
        assert np.array_equal(x[item], whole[item])


def test_what_is_no_item_is_refused(vectors):
    for wrong in (-1, 50, [0, -1], [50], [0.5], np.ones(49, bool), "a", [[0]]):
        with pytest.raises(aria.ArgumentError):
            vectors[wrong]
    with pytest.raises(aria.ArgumentError, match="copy=None or True"):
        np.asarray(vectors, copy=False)


def test_k_means_takes_them(vectors):
    pool = aria.KMeansPartitioner(n_regions=3, seed=0).fit(vectors)
    assert pool == aria.KMeansPartitioner(n_regions=3, seed=0).fit(np.asarray(vectors))
    assert pool.assign(vectors).tolist() == pool.labels.tolist()


def test_they_go_to_other_processes(vectors, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(embed.open("vectors"))
    monkeypatch.chdir("/")
    again = pickle.loads(packed)
    assert np.array_equal(again[3:20], vectors[3:20])
    assert len(packed) < 5000


def test_many_shards_do_not_stay_open(vectors, monkeypatch):
    monkeypatch.setattr("aria_sampling.embed.store._MOST_OPEN", 2)
    whole = np.asarray(vectors)
    for item in (0, 49, 10, 20, 30, 0, 49):
        assert np.array_equal(vectors[item], whole[item])
        assert len(vectors._mapped) <= 2


def test_a_shard_is_a_file_of_numpy(vectors):
    parts = [np.load(path) for path in sorted(vectors.path.glob("embeddings-*.npy"))]
    assert [len(part) for part in parts] == [7] * 7 + [1]
    assert np.array_equal(np.concatenate(parts), np.asarray(vectors))
    assert parts[0].dtype == np.float16
