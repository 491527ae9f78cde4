"""Settings shared by all tests: Hypothesis profiles, and one thread for torch where it is installed."""

import os
import sys

import pytest
from hypothesis import settings

settings.register_profile("dev", deadline=None, max_examples=40)
settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


@pytest.fixture(autouse=True)
def _one_torch_thread():
    """Keep torch to one thread, if some test has imported it; do not import it for those that do without."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads") and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
