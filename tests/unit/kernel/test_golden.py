"""Streams of draws are those that were committed (law "same bits"): by both kernels, on every machine."""

import json
import os
import subprocess
import sys

import pytest

from aria_sampling import _kernel
from tests.unit.kernel.golden import PATH

REGENERATE = (
    "a stream of draws has changed. If that was meant, say so in CHANGELOG.md and run "
    "`python -m tests.unit.kernel.golden --write`; else it is a bug: saved runs would not resume as they went on"
)


@pytest.mark.parametrize("kernel", ["compiled", "reference"])
def test_the_streams_are_the_committed_ones(kernel):
    if kernel == "compiled" and not _kernel.COMPILED:
        pytest.skip("the compiled kernel is not loaded")
    command = [sys.executable, "-m", "tests.unit.kernel.golden"]
    environment = os.environ | {"ARIA_KERNEL": kernel}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(PATH.read_text(encoding="utf-8")), REGENERATE
