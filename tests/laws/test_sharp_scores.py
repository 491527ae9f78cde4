"""Shares follow their formula however sharp the scores are, and however fast discrepancies change."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling.shares import shares
from tests.helpers import same_draw


@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize("exponent", [1.0, 8.0, 100.0, 1000.0])
@pytest.mark.parametrize("change", [0.5, 1.5, 1e-6, 1e6], ids=lambda factor: f"losses times {factor:g} a round")
def test_shares_are_those_of_the_formula(exponent, change, lag):
    """Regions that are not visited keep their scores, while those of the others go up or down by many powers."""
    pool = aria.Partition.from_sizes([30] * 50)
    allocator = aria.Allocator(
        pool, policy=aria.Proportional(exponent), estimator=aria.Ema(1.0), exploration=0.05, seed=3, lag=lag
    )
    rng, known = np.random.default_rng(0), []
    for round_ in range(30):
        while len(allocator.open_rounds) <= lag:
            allocator.draw(5)
        draw = allocator.open_rounds[0]
        losses = np.exp(rng.normal(0, 0.3, 5)) * min(max(change**round_, 1e-140), 1e140)
        allocator.observe(draw.regions, losses)
        allocator.step()
        known.append(allocator.estimate().mean)  # those of regions never visited are borrowed
        wanted = shares(allocator.target, exponent * np.log(known[-1]), exploration=0.05)
        np.testing.assert_allclose(allocator.probabilities, wanted, rtol=1e-6, atol=1e-15)
    again = aria.Allocator(
        pool, policy=aria.Proportional(exponent), estimator=aria.Ema(1.0), exploration=0.05, seed=3, lag=lag
    )
    again.load_state_dict(allocator.state_dict())
    allocator.rewind()
    assert same_draw(again.draw(9), allocator.draw(9))
