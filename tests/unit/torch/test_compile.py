"""Calls inside a function that torch.compile compiles: graph breaks, and the same bits as without.

Nothing of this library may get into a graph: its arrays would be tensors there. Each node of a graph knows the lines
that it came from.
"""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import RegionMixture
from tests.promises import ROOT
from tests.unit.torch.common import LABELS, LOSSES, build, make, result

KNOWN = torch.as_tensor(LOSSES)
OURS = re.compile(r"[\\/]aria_sampling[\\/]\w+")


class Compiler:
    """Compiles functions and remembers the graphs; or leaves them as they are."""

    def __init__(self, compiled):
        self.compiled, self.traces = compiled, []

    def __call__(self, function):
        return torch.compile(function, backend=self.backend) if self.compiled else function

    def backend(self, graph, inputs):
        self.traces += [str(node.stack_trace) for node in graph.graph.nodes]
        return graph.forward


def sampling(compiler, **settings):
    """Two epochs, whose batches are not all of one size."""
    sampler, loader = build(**settings)

    def step(index):
        loss = KNOWN[index] * sampler.weights(index).double()
        sampler.observe(index[:5], loss[:5], step=False)
        sampler.observe(index[5:], loss[5:], credit=loss[5:] > 0.5)
        return loss.mean()

    call = compiler(step)
    total = [float(call(index)) for _ in range(2) for index in loader]
    next(iter(loader))
    compiler(sampler.step)()
    return total, result(sampler)


def mixing(compiler):
    mixture = RegionMixture({name: range(30) for name in make().partition.names}, make(), batch_size=8, num_samples=80)

    def step(regions):
        loss = (1.0 + regions) * mixture.weights(regions)
        mixture.observe(regions, loss)
        return loss.mean()

    call = compiler(step)
    total = [float(call(regions)) for regions, _ in DataLoader(mixture, batch_size=8)]
    return total, result(mixture)


def switching(compiler, kind=torch.as_tensor, online=False):
    """Batches of several sizes, one of which is left out."""
    pool = aria.Partition.from_labels(LABELS)
    coverage = aria.Coverage.online(pool) if online else None
    switch = aria.RandomConditioning(aria.Allocator(pool, coverage=coverage, seed=2), schedule=aria.ConstantSwitch(0.6))

    def step(timesteps, own):
        s = switch.draw(timesteps, paired=own) if online else switch.draw(timesteps)
        loss = 1.0 + (timesteps * 0.01) ** 2
        loss[s.mask] += KNOWN[s.items] if kind is torch.as_tensor else LOSSES[s.items]
        if len(timesteps) % 2:
            switch.step()
        else:
            switch.observe(loss, credit=s.mask, of=s)
        return loss.max()

    rng, call = np.random.default_rng(0), compiler(step)
    sizes = (8, 8, 5, 12, 8)
    total = [float(call(kind(rng.integers(0, 1000, n)), kind(rng.integers(-1, 90, n)))) for n in sizes]
    return total, switch.allocator.digest(), switch.state_dict()


RUNS = {
    "sampler": sampling,
    "mixture": mixing,
    "conditioning of tensors": switching,
    "conditioning of arrays": lambda compiler: switching(compiler, np.asarray),
    "conditioning with online coverage": lambda compiler: switching(compiler, online=True),
}


def check(run):
    """Compare a compiled run with an eager one, and look into its graphs."""
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    eager, compiler = RUNS[run](Compiler(False)), Compiler(True)
    assert RUNS[run](compiler) == eager
    assert compiler.traces
    assert [trace for trace in compiler.traces if OURS.search(trace)] == []


def python(code):
    """Run code in a process of its own: torch remembers of a function what it has met before, and then does better."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow  # to import torch's compiler takes seconds
@pytest.mark.parametrize("run", RUNS)
def test_a_compiled_step_does_what_an_eager_one_does(run):
    python(f"from tests.unit.torch.test_compile import check; check({run!r})")


@pytest.mark.slow
@pytest.mark.parametrize("run", ["conditioning of tensors", "mixture"])
def test_it_does_so_in_a_torch_that_does_not_say_when_it_compiles(run):
    python(
        "import torch._dynamo\n"
        "from tests.unit.torch.test_compile import check\n"
        "del torch._C._dynamo.eval_frame.get_eval_frame_callback\n"
        f"check({run!r})"
    )


@pytest.mark.slow
def test_nobody_who_does_not_compile_waits_for_the_compiler():
    python(
        "import sys, torch, aria_sampling as aria\n"
        "switch = aria.RandomConditioning(aria.Allocator(aria.Partition.from_labels([0, 1, 1])))\n"
        "switch.draw(torch.tensor([999, 5])); switch.observe(torch.ones(2))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
