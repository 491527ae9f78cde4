"""Importing, appending and embedding take the same memory for six times as many captions.

What counts is memory of the process's own. Pages of files that are mapped are the system's, which takes them back.
"""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]

MOST = 24  # MiB more, of which the texts would be 120, their digests 32 and their vectors 61

CODE = """
import pathlib, sys, threading, time
import numpy as np
from aria_sampling import embed, prompts
from aria_sampling.prompts import _duplicates
_duplicates._HELD = 1 << 20  # bytes, so that the smaller pool goes to the disk as well
folder, n, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Ones:
    def encode(self, texts):
        return np.ones((len(texts), 32))

def captions():
    for k in range(n):
        number = k % (n - 1000)
        yield f"caption number {number} of {n}, which goes on for as long as captions do, {number:0030}"

peak = 0
def watch():
    global peak
    while True:
        status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")
        peak = max(peak, int(status.split("RssAnon:")[1].split()[0]))  # KiB
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
if what == "import":
    pool = prompts.write(folder, captions())
    assert pool.counts.duplicates == 1000
elif what == "append":
    prompts.append(folder, ["one more", "caption number 7"])
else:
    embed.write(folder + "-vectors", folder, encoder=Ones(), shard_rows=20_000)
print(peak / 1024)
"""


@pytest.mark.parametrize("what", ["import", "append", "embed"])
def test_memory_does_not_grow_with_the_pool(what, tmp_path):
    peaks = []
    for n in (200_000, 1_200_000):
        folder = str(tmp_path / str(n))
        for step in dict.fromkeys(["import", what]):
            ran = subprocess.run(
                [sys.executable, "-c", CODE, folder, str(n), step], capture_output=True, text=True, check=True
            )
        peaks.append(float(ran.stdout))
    assert peaks[1] - peaks[0] < MOST, peaks
