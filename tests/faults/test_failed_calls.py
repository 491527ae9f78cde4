"""A call that fails half-way, for whatever reason, leaves no trace in what comes next."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import allocator as allocating
from aria_sampling import drawing
from tests.helpers import loss_of, same_draw, small_pool


def begun(lag):
    """An allocator with a few closed rounds and as many open ones as its lag allows before another draw."""
    allocator = aria.Allocator(small_pool(), target="uniform", lag=lag)
    for _ in range(5):
        while len(allocator.open_rounds) <= lag:
            allocator.draw(7, present=[0, 1, 1])
        allocator.observe(allocator.open_rounds[0].regions, loss_of(allocator.open_rounds[0]))
        allocator.step()
    return allocator


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("module", "where"),
    [
        (allocating, "shares"),
        (drawing, "systematic_counts"),
        (drawing, "permuted_positions"),
        (allocating, "_OpenRound"),
    ],
)
def test_a_draw_that_fails_half_way(lag, error, module, where, monkeypatch):
    allocator, twin = begun(lag), begun(lag)

    def fails(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, where, fails)
        with pytest.raises(error):
            allocator.draw(40, present=[5, 5, 5])
    assert len(allocator.open_rounds) == lag
    for _ in range(6):
        assert same_draw(allocator.draw(6, present=[2]), twin.draw(6, present=[2]))
        for each in (allocator, twin):
            each.observe(each.open_rounds[0].regions, loss_of(each.open_rounds[0]))
            each.step()
    assert allocator.state_dict() == twin.state_dict()


@pytest.mark.parametrize("n", [2**31, 2**62, 2**63, 10**30])
def test_more_than_a_round_can_hold_is_refused(n):
    allocator, twin = begun(0), begun(0)
    with pytest.raises(ValueError, match="n="):
        allocator.draw(n)
    assert same_draw(allocator.draw(6), twin.draw(6))
    for name in ("lag", "max_gap", "seed"):
        with pytest.raises(ValueError, match=f"{name}="):
            aria.Allocator(small_pool(), **{name: 10**30})
    with pytest.raises(ValueError, match="n_regions="):
        aria.KMeansPartitioner(n_regions=n if n > 2**63 else 2**63).fit(np.ones((4, 2)))
