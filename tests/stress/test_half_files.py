"""kill -9 while a partition is saved, at any moment: the file is the one before or the one after, and whole."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import aria_sampling as aria

WRITER = """
import itertools, sys
import numpy as np, aria_sampling as aria
path, n = sys.argv[1], int(sys.argv[2])
pools = []
for shift in (0, 1):
    pool = aria.Partition.from_labels((np.arange(n) + shift) % 5, centers=np.ones((5, 64)))
    pools.append(pool.named([f"word{(i + shift) % 5} of {i}" for i in range(n)]))
print("ready", flush=True)
for i in itertools.count():
    pools[i % 2].save(path)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_thirty_kills_leave_a_whole_file_or_none(tmp_path):
    rng = np.random.default_rng(0)
    path, n = tmp_path / "pool.aria", 200_000
    whole = [aria.Partition.from_labels((np.arange(n) + shift) % 5) for shift in (0, 1)]
    seen, left = set(), 0
    for kill in range(30):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(float(rng.uniform(0, 0.03 if kill % 2 else 0.3)))
            process.send_signal(signal.SIGKILL)
        if path.exists():
            pool = aria.Partition.load(path, mmap=True, verify=True)
            assert pool in whole
            assert len(pool.captions) == 5
            seen.add(pool.fingerprint)
        half = [entry for entry in tmp_path.iterdir() if entry != path]
        assert all(entry.name.startswith(".pool.aria.") for entry in half)
        for entry in half:  # what a kill left behind is no partition under any name
            left += 1
            if entry.stat().st_size < (path.stat().st_size if path.exists() else np.inf):
                with pytest.raises(aria.PartitionFileError):
                    aria.Partition.load(entry)
            entry.unlink()
    assert len(seen) == 2
    assert left > 5  # most kills came while a file was written
