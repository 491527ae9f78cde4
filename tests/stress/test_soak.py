"""A long run keeps its books exactly. Memory and time are measured and shown in the report, and not asserted."""

import pytest

pytest.importorskip("torch")

from aria_sampling import _kernel
from tests.stress.soak import soak


def test_sums_stay_exact():
    report = soak(2_000, 1_000)
    assert report.problems == []
    assert max(report.state_bytes) - min(report.state_bytes) < 100  # only its counters take more digits


@pytest.mark.slow
def test_sums_stay_exact_for_long():
    report = soak(60_000, 10_000)
    assert report.problems == []
    assert report.fewest_cycles >= 20


def test_the_soak_notices_a_lost_visit(monkeypatch):
    """A cursor that is one visit behind in one round of a thousand."""
    store = _kernel.store

    def forgetful(*arguments):
        counters, drawn = arguments[9], arguments[6]
        if counters[0] == 500:
            arguments = (*arguments[:6], drawn[1:], *arguments[7:])
        store(*arguments)

    monkeypatch.setattr(_kernel, "store", forgetful)
    assert any("visits" in problem for problem in soak(1_000, 1_000).problems)
