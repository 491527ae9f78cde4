"""Streams of draws that must never change by accident, whatever the compiler, the machine and the kernel.

``python -m tests.unit.kernel.golden`` prints what this machine comes to; with ``--write`` it becomes the committed
`golden.json`. Everything that goes in is exact in floating point, and BLAS has no part in it.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

import aria_sampling as aria
from aria_sampling import _kernel
from aria_sampling._arrays import encode

PATH = Path(__file__).with_name("golden.json")
N_REGIONS, ROUNDS = 130, 300
SIZES = 1 + 5 * np.arange(N_REGIONS) ** 2 % 29


def partition(centers=None):
    return aria.Partition.from_labels(np.repeat(np.arange(N_REGIONS), SIZES), centers=centers)


def counts():
    """Rows of data of each region; a third of them has none."""
    return np.where(np.arange(N_REGIONS) % 3 == 0, 0.0, np.arange(N_REGIONS) % 7)


def plain():
    return aria.Allocator(partition(), seed=1)


def short_memory():
    return aria.Allocator(partition(), estimator=aria.Ema(rate=0.25), target="uniform", exploration=0.5, seed=2, lag=3)


def by_visit():
    estimator, policy = aria.Ema(rate=0.25, per="visit"), aria.Proportional(4.0)
    return aria.Allocator(partition(), estimator=estimator, policy=policy, target=0.5, seed=2**64 - 1)


def group_dro():
    return aria.Allocator(partition(), policy=aria.GroupDRO(), seed=3)


def capped():
    return aria.Allocator(partition(), policy=aria.Proportional(4.0), target="pool", max_repeat=2.0, seed=4)


def covered():
    pool = partition()
    return aria.Allocator(pool, coverage=aria.Coverage(pool, counts=counts()), target=0.5, seed=5, lag=3)


def covered_by_kernel():
    """With a power of `uncovered`, whose vector is replaced by an exact one, as a saved state would do it."""
    pool = partition(np.arange(N_REGIONS, dtype=np.float32)[:, None])
    allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, counts=counts(), length_scale=1.0), seed=6)
    state = allocator.state_dict()
    state["coverage"]["uncovered"] = encode((1.0 + np.arange(N_REGIONS) % 64) / 64)
    allocator.load_state_dict(state)
    return allocator


def covered_online():
    pool = partition()
    return aria.Allocator(pool, coverage=aria.Coverage.online(pool, half_life=20.0), seed=7, lag=1)


SETUPS = [plain, short_memory, by_visit, group_dro, capped, covered, covered_by_kernel, covered_online]


def losses_of(draw):
    """Whole numbers from 0 to 84 that fall in the course of the run."""
    return (1 + draw.regions % 5) * ((draw.items * 7 + draw.round * 13) % 17 + 1.0) // (1 + draw.round // 100)


def outcome(allocator, digest, first):
    for array in (allocator.probabilities, allocator.estimate().mean, allocator.estimate().count):
        digest.update(array.tobytes())
    return {"first": first[:24], "digest": digest.hexdigest()}


def played(allocator):
    """Take some hundred rounds; return the first items, and a digest of all that came."""
    digest, first = hashlib.blake2b(digest_size=16), []
    online = allocator.coverage is not None and allocator.coverage.is_online
    for round_ in range(ROUNDS):
        present = np.arange(round_ % 4) * 31 % N_REGIONS if online else None
        draw = allocator.draw(0 if round_ % 50 == 49 else 16 + round_ % 9, present=present)
        for array in (draw.items, draw.regions, draw.probabilities, draw.weights):
            digest.update(array.tobytes())
        first += draw.items.tolist()
        if len(allocator.open_rounds) > allocator.lag:
            opened = allocator.open_rounds[0]
            allocator.observe(opened.regions, losses_of(opened))
            allocator.step()
    return outcome(allocator, digest, first)


def conditioned():
    """Play `RandomConditioning`: what switches, what is drawn, and what the timesteps make of the losses."""
    pool, digest, first = partition(), hashlib.blake2b(digest_size=16), []
    allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, counts=counts()), seed=8, lag=1)
    switch, batches = aria.RandomConditioning(allocator, num_train_timesteps=100, draws_ahead=1), []
    for round_ in range(ROUNDS):
        drawn = switch.draw((np.arange(24) * 37 + round_ * 11) % 100)
        for array in (drawn.mask, drawn.items, drawn.regions, drawn.weights):
            digest.update(array.tobytes())
        first += drawn.items.tolist()
        batches.append((1.0 + np.arange(24) % 7) * (1 + round_ % 3))
        if len(batches) > 1:
            switch.observe(batches.pop(0))
    return outcome(allocator, digest, first)


def numbers():
    """Return a digest of random words, positions, exponentials and logarithms."""
    key = _kernel.stream_key(11, 0, 12)
    nth, regions, sizes = np.arange(5000), np.arange(5000) % 70, 1 + np.arange(5000) ** 2 % 9973
    x = (np.arange(20_000) - 10_000) / 16
    digest = hashlib.blake2b(digest_size=16)
    for array in (
        _kernel.uniforms(key, 1000),
        _kernel.positions(13, regions, nth, sizes),
        _kernel.exp(x),
        _kernel.log(np.abs(x)),
        _kernel.log(_kernel.exp(x)),
    ):
        digest.update(array.tobytes())
    return {"first": _kernel.positions(13, regions, nth, sizes)[-24:].tolist(), "digest": digest.hexdigest()}


def results():
    streams = {setup.__name__: played(setup()) for setup in SETUPS}
    return {"numbers": numbers(), **streams, "conditioned": conditioned()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"write {PATH.name}")
    lines = [f'"{name}": {json.dumps(result)}' for name, result in results().items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if parser.parse_args().write:
        PATH.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
