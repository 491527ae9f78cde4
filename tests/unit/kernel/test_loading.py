"""Which kernel is loaded: the compiled one, the Python one on request, or the Python one with a warning."""

import os
import subprocess
import sys

import pytest

from aria_sampling import _kernel

WORKS = """
import warnings, sys
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    {before}
    import aria_sampling as aria
    from aria_sampling import _kernel
    allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 1, 1, 1]), seed=1)
    for _ in range(3):
        draw = allocator.draw(4)
        allocator.observe(draw.regions, 1.0 + draw.regions)
        allocator.step()
for warning in caught:
    print("warning:", warning.category.__name__, str(warning.message))
print("compiled:", _kernel.COMPILED, "digest:", allocator.digest())
"""
# whoever asks for the extension is told that it is not there
NO_EXTENSION = 'sys.modules["aria_sampling._kernel._core"] = None'


def run(before="pass", **environment):
    program, fresh = WORKS.format(before=before), {k: v for k, v in os.environ.items() if k != "ARIA_KERNEL"}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=fresh | environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def digest():
    done = run(ARIA_KERNEL="reference")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # so there was no warning
    assert line.startswith("compiled: False digest: ")
    return line.split()[-1]


@pytest.mark.skipif(not _kernel.COMPILED, reason="the compiled kernel is not loaded")
@pytest.mark.parametrize("environment", [{}, {"ARIA_KERNEL": "compiled"}])
def test_the_compiled_kernel_is_what_one_gets(environment, digest):
    done = run(**environment)
    assert done.stdout.splitlines() == [f"compiled: True digest: {digest}"], done.stderr


@pytest.mark.parametrize("environment", [{}, {"ARIA_KERNEL": "compiled"}])
def test_without_the_extension_the_python_kernel_serves_with_one_warning(environment, digest):
    done = run(NO_EXTENSION, **environment)
    assert done.returncode == 0, done.stderr
    warning, line = done.stdout.splitlines()
    assert warning.startswith("warning: AriaWarning the compiled kernel cannot be loaded")
    assert "ARIA_KERNEL=reference" in warning
    assert line == f"compiled: False digest: {digest}"


def test_who_asks_for_the_python_kernel_needs_no_extension(digest):
    done = run(NO_EXTENSION, ARIA_KERNEL="reference")
    assert done.stdout.splitlines() == [f"compiled: False digest: {digest}"], done.stderr


@pytest.mark.parametrize("value", ["", "Reference", "numba"])
def test_another_value_is_refused(value):
    done = run(ARIA_KERNEL=value)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: ARIA_KERNEL={value!r}: expected 'compiled' or 'reference'"
