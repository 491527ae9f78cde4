"""`embed.write`: shards that are done stay done, by whom ever, and nothing is mixed."""

import json
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import embed, prompts
from aria_sampling._disk import Lock
from tests.unit.embed.counting import Counting, rows

TEXTS = [f"caption {number}" for number in range(50)]


@pytest.fixture
def pool(tmp_path):
    return prompts.write(tmp_path / "pool", TEXTS)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "vectors"


def write(folder, pool, encoder=None, **options):
    return embed.write(folder, pool, encoder=encoder or Counting(), **{"shard_rows": 8, **options})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_that_breaks_off_goes_on_where_it_was(pool, folder):
    with pytest.raises(RuntimeError, match="no more"):
        write(folder, pool, Counting(fail_at="caption 30"))
    with pytest.raises(aria.StoreError, match="3 of 7 shards are done; run it again"):
        embed.open(folder)
    encoder = Counting()
    found = write(folder, pool, encoder)
    assert encoder.texts[4:] == TEXTS[24:]  # the first are looked at each time, to know the encoder by
    assert encoder.texts[:4] == TEXTS[:4]
    assert np.array_equal(np.asarray(found), rows(TEXTS))
    assert not [name for name in names(folder) if name.startswith((".tmp", ".lock-", "plan"))]
    again = Counting()
    assert np.array_equal(np.asarray(write(folder, pool, again)), rows(TEXTS))
    assert again.texts == TEXTS[:4]


def test_what_made_them_is_written_beside_them(pool, folder):
    found = write(folder, pool)
    kept = json.loads((folder / "embeddings.json").read_text("utf-8"))
    assert kept["encoder"] == f"object:{Counting.__module__}.Counting"
    assert (kept["n_items"], kept["width"], kept["prompts"]) == (50, 4, pool.fingerprint)
    assert (found.prompts, found.encoder_name) == (pool.fingerprint, kept["encoder"])


def test_a_pool_that_has_grown_is_embedded_where_it_grew(pool, folder):
    write(folder, pool)
    grown = prompts.append(pool.path, ["new one", "new two"])
    with pytest.raises(RuntimeError):
        write(folder, grown, Counting(fail_at="new two"))
    assert np.array_equal(np.asarray(embed.open(folder)), rows(TEXTS))  # the old ones are still there
    encoder = Counting()
    found = write(folder, grown, encoder)
    assert encoder.texts[4:] == [*TEXTS[48:], "new one", "new two"]
    assert np.array_equal(np.asarray(found), rows([*TEXTS, "new one", "new two"]))
    assert len([name for name in names(folder) if name.endswith(".npy")]) == 7


def test_captions_that_were_changed_in_the_middle_are_embedded_anew(pool, folder, tmp_path):
    write(folder, pool)
    changed = prompts.write(tmp_path / "other", [*TEXTS[:20], "another", *TEXTS[21:]])
    encoder = Counting()
    found = write(folder, changed, encoder)
    assert encoder.texts[4:] == [*TEXTS[16:20], "another", *TEXTS[21:24]]
    assert np.array_equal(np.asarray(found), rows(list(changed)))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_processes_with_a_shard_each_make_the_whole(order, pool, folder):
    *first, last = order
    for number in first:
        assert write(folder, pool, shard=(number, 3)) is None
    encoder = Counting()
    found = write(folder, pool, encoder, shard=(last, 3))
    assert set(encoder.texts[4:]) == {text for n, text in enumerate(TEXTS) if n // 8 % 3 == last}
    assert np.array_equal(np.asarray(found), rows(TEXTS))


def test_a_shard_that_another_process_is_at_is_left_to_it(pool, folder):
    folder.mkdir()
    with Lock(folder / ".lock-00002") as lock:
        assert lock.held
        encoder = Counting()
        assert write(folder, pool, encoder) is None
        assert encoder.texts[4:] == [*TEXTS[:16], *TEXTS[24:]]
    assert np.array_equal(np.asarray(write(folder, pool)), rows(TEXTS))


def run(folder, pool, queue):
    encoder = Counting()
    embed.write(folder, pool, encoder=encoder, shard_rows=2)
    queue.put(len(encoder.texts) - 4)


@pytest.mark.slow
def test_processes_share_the_work_without_being_told(pool, folder):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=run, args=(folder, pool.path, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    done = sum(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    assert np.array_equal(np.asarray(embed.open(folder)), rows(TEXTS))
    assert done == len(TEXTS)  # nobody did a shard again


def test_embeddings_of_another_encoder_are_not_mixed_in(pool, folder):
    write(folder, pool)

    class Other(Counting):
        def encode(self, texts):
            return 2 * super().encode(texts)

    class Same(Counting):
        def encode(self, texts):
            return super().encode(texts) * (1 + 1e-4)  # another device

    Other.__name__, Other.__module__, Same.__name__, Same.__module__ = (
        "Counting",
        Counting.__module__,
        "Counting",
        Counting.__module__,
    )
    for encoder, options, words in (
        (Other(), {}, "other vectors for the first captions"),
        (Counting(5), {}, "width=4, not 5"),
        (Counting(), {"dtype": "float32"}, "dtype='float16', not 'float32'"),
        (Counting(), {"shard_rows": 9}, "shard_rows=8, not 9"),
        ("tfidf", {}, "encoder='object:.*Counting', not 'tfidf'"),
    ):
        with pytest.raises(aria.ArgumentError, match=f"{words}.*overwrite=True"):
            write(folder, pool, encoder, **options)
        assert np.array_equal(np.asarray(embed.open(folder)), rows(TEXTS))
    assert write(folder, pool, Same()) is not None
    assert np.array_equal(np.asarray(write(folder, pool, Other(), overwrite=True)), 2 * rows(TEXTS))
    found = write(folder, pool, Counting(5), overwrite=True, shard_rows=9, dtype="float32")
    assert (found.dtype, found.shape) == (np.float32, (50, 5))
    (folder / "embeddings.json").unlink()
    (folder / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(aria.StoreError, match="damaged"):
        write(folder, pool)
    assert len(write(folder, pool, overwrite=True)) == 50


def test_an_encoder_that_changes_its_width_midway_is_refused(pool, folder):
    class Changing(Counting):
        def encode(self, texts):
            return rows(texts, 5 if "caption 20" in texts and self.fail_at is None else 4)

    with pytest.raises(aria.ArgumentError, match="expected 4 numbers a text, as before, got 5 for items 16 to 23"):
        write(folder, pool, Changing())
    assert not [name for name in names(folder) if name.startswith(".tmp")]
    assert len(write(folder, pool, Changing(fail_at="nothing"))) == 50


def test_zeros_that_were_refused_can_be_kept_without_beginning_anew(pool, folder):
    class Zeros(Counting):
        def encode(self, texts):
            return super().encode(texts) * [[text != "caption 20"] for text in texts]

    with pytest.raises(aria.ArgumentError, match="item 20: 'caption 20'; zeros='keep'"):
        write(folder, pool, Zeros())
    encoder = Zeros()
    found = write(folder, pool, encoder, zeros="keep")
    assert encoder.texts[4:] == TEXTS[16:]
    assert np.flatnonzero(~np.asarray(found).any(axis=1)).tolist() == [20]


def test_arguments_that_are_none(pool, folder, tmp_path):
    for options, words in (
        ({"encoder": 7}, "encoder: expected an object with encode"),
        ({"encoder": "word2vec:x"}, "encoder='word2vec:x': expected an object"),
        ({"shard": (1, 1)}, r"shard\[0\]=1"),
        ({"shard": 1}, "shard=1: expected"),
        ({"dtype": "float64"}, "dtype='float64'"),
        ({"zeros": "skip"}, "zeros='skip'"),
        ({"engine": "dask"}, "engine='dask'"),
        ({"shard_rows": 0}, "shard_rows=0"),
        ({"workers": 0}, "workers=0"),
    ):
        with pytest.raises(aria.ArgumentError, match=words):
            embed.write(folder, pool, **{"encoder": Counting(), **options})
    with pytest.raises(aria.ArgumentError, match="a folder to make, in a folder that exists"):
        write(tmp_path / "no" / "vectors", pool)
    with pytest.raises(aria.ArgumentError, match=r"one with 'prompts-.*\.arrow'"):
        write(pool.path, pool)
    with pytest.raises(aria.StoreError, match="no such folder"):
        write(folder, tmp_path / "absent")


def test_what_does_not_open(pool, folder, tmp_path):
    write(folder, pool)
    for path, words in (
        (tmp_path / "absent", "no such folder"),
        (pool.path, r"no embeddings\.json is in this folder"),
        (folder / "embeddings.json", "expected a folder of embeddings, got a file"),
    ):
        with pytest.raises(aria.StoreError, match=words):
            embed.open(path)
    header = folder / "embeddings.json"
    whole = header.read_bytes()
    for place in range(0, len(whole) - 1, 11):
        header.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        with pytest.raises(aria.StoreError, match="embeddings"):
            embed.open(folder)
    header.write_bytes(whole)
    shard = sorted(folder.glob("*.npy"))[2]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(aria.StoreError, match=f"expected {len(content)} bytes, and it has {len(content) - 1}"):
        embed.open(folder)
    shard.unlink()
    with pytest.raises(aria.StoreError, match="it is not there; remove it and run it again"):
        embed.open(folder)


LIMITED = """
import resource, sys
import numpy as np
from aria_sampling import embed
import aria_sampling as aria

class Ones:
    def encode(self, texts):
        return np.ones((len(texts), 300))

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    embed.write(sys.argv[1], sys.argv[2], encoder=Ones(), shard_rows=20)
except aria.WriteError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of files there")
@pytest.mark.parametrize("limit", [10, 9000])
def test_a_write_that_the_system_refuses(limit, pool, folder):
    argv = [sys.executable, "-c", LIMITED, folder, pool.path, str(limit)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "could not be written" in ended.stdout
    assert not [name for name in names(folder) if name.startswith((".tmp", "embeddings"))]
    with pytest.raises(aria.StoreError):
        embed.open(folder)
