"""Reports inside a function that torch.compile compiles: a graph break, and the same bits as without."""

import pytest
import torch
from torch.utils.data import DataLoader

from aria_sampling.torch import RegionMixture
from tests.unit.torch.common import LOSSES, build, make, result

KNOWN = torch.as_tensor(LOSSES)


def sampling(compiled, **settings):
    """Two epochs, whose batches are not all of one size."""
    sampler, loader = build(**settings)

    def step(index):
        loss = KNOWN[index] * sampler.weights(index).double()
        sampler.observe(index[:5], loss[:5], step=False)
        sampler.observe(index[5:], loss[5:], credit=loss[5:] > 0.5)
        return loss.mean()

    call = torch.compile(step, backend="eager") if compiled else step
    total = [float(call(index)) for _ in range(2) for index in loader]
    skip = torch.compile(sampler.step, backend="eager") if compiled else sampler.step
    next(iter(loader))
    skip()
    return total, result(sampler)


def mixing(compiled):
    mixture = RegionMixture({name: range(30) for name in make().partition.names}, make(), batch_size=8, num_samples=80)

    def step(regions):
        loss = (1.0 + regions) * mixture.weights(regions)
        mixture.observe(regions, loss)
        return loss.mean()

    call = torch.compile(step, backend="eager") if compiled else step
    total = [float(call(regions)) for regions, _ in DataLoader(mixture, batch_size=8)]
    return total, result(mixture)


@pytest.mark.slow  # to import torch's compiler takes seconds
@pytest.mark.parametrize("run", [sampling, mixing], ids=["sampler", "mixture"])
def test_a_compiled_step_reports_what_an_eager_one_does(run):
    assert run(True) == run(False)
