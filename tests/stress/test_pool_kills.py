"""Pools on the disk, and processes that are killed at any moment: the old pool opens, or the new one, or an error."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import embed, prompts
from tests.unit.embed.counting import rows

N_KILLS = 30

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")]

WRITE = """
import sys
from aria_sampling import prompts
from aria_sampling.prompts import writing
writing._ROWS = 500  # many writes, so that a kill comes between any two of them
print("begin", flush=True)
captions = (f"caption {n % 9000} of {sys.argv[2]}" for n in range(12_000))
prompts.write(sys.argv[1], captions, overwrite=True) if sys.argv[2] == "new" else prompts.append(sys.argv[1], captions)
print("end", flush=True)
"""


def wanted(of):
    return [f"caption {n} of {of}" for n in range(9000)]


def killed(code, *arguments, after):
    """Start a process, kill it some seconds after it has begun, and return whether it had come to its end."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begin\n"
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    return "end" in said


def duration(code, *arguments):
    """How long such a process takes, from its beginning to its end."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begin\n"
    begin = time.perf_counter()
    assert process.communicate()[0] == "end\n"
    return time.perf_counter() - begin


def test_an_import_that_is_killed_leaves_no_pool_that_is_half(tmp_path):
    takes, rng, ends = duration(WRITE, tmp_path / "pool", "new"), random.Random(0), []
    for number in range(N_KILLS):
        folder = tmp_path / str(number)
        ended = killed(WRITE, folder, "new", after=rng.uniform(0, 1.2 * takes))
        if (folder / "prompts.json").exists():
            assert list(prompts.open(folder, verify=True)) == wanted("new")
        else:
            assert not ended
            with pytest.raises(aria.StoreError, match=r"an import that did not end|no such folder"):
                prompts.open(folder)
        ends.append(ended)
        again = prompts.write(folder, ["a cat"], overwrite=True)  # and the next import has its way
        assert (list(again), len(list(folder.iterdir()))) == (["a cat"], 3)
    assert not all(ends)


def test_an_append_that_is_killed_leaves_the_old_pool_or_the_new(tmp_path):
    old = ["a cat", "a dog"]
    prompts.write(tmp_path / "pool", old)
    takes, rng, ends = duration(WRITE, tmp_path / "pool", "more"), random.Random(1), []
    for number in range(N_KILLS):
        folder = tmp_path / str(number)
        prompts.write(folder, old)
        ended = killed(WRITE, folder, "more", after=rng.uniform(0, 1.2 * takes))
        found = list(prompts.open(folder, verify=True))
        assert found == [*old, *wanted("more")] or (found == old and not ended)
        again = prompts.append(folder, ["a bird"])
        assert list(again) == [*found, "a bird"]
        assert not [path for path in folder.iterdir() if path.name.startswith(".tmp")]
        ends.append(ended)
    assert not all(ends)


EMBED = """
import sys, time
from aria_sampling import embed, prompts
from tests.unit.embed.counting import Counting

class Slow(Counting):
    def encode(self, texts):
        time.sleep(0.01)
        return super().encode(texts)

pool = prompts.open(sys.argv[2])
print("begin", flush=True)
embed.write(sys.argv[1], pool, encoder=Slow(), shard_rows=20)
print("end", flush=True)
"""


def test_embedding_that_is_killed_again_and_again_does_no_shard_twice(tmp_path):
    texts = [f"caption {n}" for n in range(10_000)]
    pool = prompts.write(tmp_path / "pool", texts)
    folder, rng, done = tmp_path / "vectors", random.Random(2), {}
    for _ in range(N_KILLS):
        if killed(EMBED, folder, pool.path, after=rng.uniform(0, 0.3)):
            break
        found = (
            {path.name: path.stat().st_mtime_ns for path in folder.glob("embeddings-*.npy")} if folder.exists() else {}
        )
        assert done.items() <= found.items()
        done = found
        with pytest.raises(aria.StoreError, match=r"of 500 shards are done|no embeddings\.json|no such folder"):
            embed.open(folder)
    assert 10 < len(done) < 500
    assert subprocess.run([sys.executable, "-c", EMBED, folder, pool.path], check=True, capture_output=True).stdout
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in folder.glob("embeddings-*.npy")}.items()
    assert np.array_equal(np.asarray(embed.open(folder)), rows(texts))
    assert not [path for path in folder.iterdir() if path.name.startswith((".tmp", ".lock-"))]
