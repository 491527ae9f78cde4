"""A signal handler saves a checkpoint, as Slurm's warning of the end asks for, at whatever line the library is.

The state that it saves is one of the run, and the run goes on as if nothing had been.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import aria_sampling as aria

HOME = str(Path(aria.__file__).parent)
LABELS = np.arange(60) % 5


class Signalled:
    """Calls `handler` before the n-th line that the library runs, counted from 1; `lines` counts them."""

    def __init__(self, n, handler):
        self.left, self.handler, self.lines = n, handler, 0

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.left:
                sys.settrace(None)
                self.handler()
                sys.settrace(self.trace)
        return self.trace


def allocator_of(lag):
    return aria.Allocator(aria.Partition.from_labels(LABELS), max_repeat=9.0, seed=2, lag=lag)


class Sampled:
    """Batches of a sampler; the losses of the second come in two parts."""

    def __init__(self, lag):
        self.face = allocator_of(lag).sampler(batch_size=12, num_samples=60)
        self.rows = iter(())

    def batch(self, number):
        rows = [index for _, index in zip(range(12), self.rows, strict=False)]
        if not rows:
            self.rows = iter(self.face)
            rows = [next(self.rows) for _ in range(12)]
        index = torch.tensor(rows)
        loss = 1.0 + (index % 5).double()
        if number == 1:
            self.face.observe(index[:5], loss[:5], step=False)
            index, loss = index[5:], loss[5:]
        self.face.observe(index, loss)
        return rows


class Conditioned:
    """Batches of random conditioning."""

    def __init__(self, lag):
        self.face = aria.RandomConditioning(allocator_of(lag), num_train_timesteps=100)

    def batch(self, number):
        drawn = self.face.draw(torch.arange(16) * 6)
        self.face.observe(1.0 + torch.arange(16) % 3)
        return drawn.items.tolist()


@pytest.mark.parametrize(
    ("world", "lag", "stride"),
    [
        (Sampled, 0, 17),
        (Conditioned, 1, 17),
        *(pytest.param(world, lag, 1, marks=pytest.mark.slow) for world in (Sampled, Conditioned) for lag in (0, 1, 2)),
    ],
)
def test_a_state_saved_at_any_line_is_one_of_the_run_which_goes_on(world, lag, stride):
    batches, through, digests = 3, world(lag), []
    rows = []
    for number in range(batches + 3):
        through.face.state_dict()  # what is on its way is taken in
        digests.append(through.face.allocator.digest())
        rows.append(through.batch(number))
    line, lines = 1 - stride, 0
    while line <= lines:
        line += stride
        here, saved = world(lag), []
        with Signalled(line, lambda here=here, saved=saved: saved.append(here.face.state_dict())) as signal:
            seen = [here.batch(number) for number in range(batches)]
        here.face.state_dict()
        assert seen == rows[:batches]
        assert here.face.allocator.digest() == digests[batches]
        lines = max(lines, signal.lines)
        for state in saved:
            resumed = world(lag)
            resumed.face.load_state_dict(state)
            at = resumed.face.allocator.round
            assert resumed.face.allocator.digest() == digests[at]
            assert [resumed.batch(2) for _ in range(2)] == rows[at : at + 2] or at < 2
    assert lines > 500
