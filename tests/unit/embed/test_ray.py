"""Shards made on a local Ray: the bytes are those that are made here, and what fails there is named here."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import embed, prompts

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

TEXTS = [f"a {colour} {thing} number {n}" for n in range(40) for colour in ("red", "blue") for thing in ("cat", "boat")]


class Failing:
    """Another encoder of tfidf's kind: an object that is sent to the processes, and fails at one text."""

    def encode(self, texts):
        return np.array([[len(text), np.nan if text == TEXTS[100] else 1.0] for text in texts])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("embeddings-*.npy")}


def test_two_processes_of_ray_make_the_same_shards(tmp_path):
    pool = prompts.write(tmp_path / "pool", TEXTS)
    here = embed.write(tmp_path / "here", pool, encoder="tfidf:8", shard_rows=16)
    there = embed.write(tmp_path / "there", pool, encoder="tfidf:8", shard_rows=16, engine="ray", workers=2)
    assert shards(here.path) == shards(there.path)
    assert len(shards(there.path)) == 10
    assert np.array_equal(np.asarray(here), np.asarray(there))


def test_one_engine_goes_on_where_the_other_was(tmp_path):
    pool = prompts.write(tmp_path / "pool", TEXTS)
    assert embed.write(tmp_path / "x", pool, encoder="tfidf:8", shard_rows=16, shard=(0, 2)) is None
    half = {path: path.stat().st_mtime_ns for path in (tmp_path / "x").glob("embeddings-*.npy")}
    found = embed.write(tmp_path / "x", pool, encoder="tfidf:8", shard_rows=16, engine="ray")
    assert {path: path.stat().st_mtime_ns for path in half} == half
    straight = embed.write(tmp_path / "straight", pool, encoder="tfidf:8", shard_rows=16)
    assert np.array_equal(np.asarray(found), np.asarray(straight))


def test_what_is_refused_there_is_named_here(tmp_path):
    pool = prompts.write(tmp_path / "pool", TEXTS)
    with pytest.raises(
        aria.ArgumentError, match=f"NaN or infinity for 1 of items 96 to 111, the first is item 100: '{TEXTS[100]}'"
    ):
        embed.write(tmp_path / "x", pool, encoder=Failing(), shard_rows=16, engine="ray")
    with pytest.raises(aria.StoreError, match="shards are done"):
        embed.open(tmp_path / "x")
