"""One thread, as the studies' own commands have it: more sum in another order, and results would differ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

try:
    import torch
except ImportError:  # the theory benchmark does without
    torch = None


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
