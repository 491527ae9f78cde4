"""Law, no side effects: no global random state, nothing advanced by iter() alone, no alias to what came or goes."""

import contextlib
import copy
import inspect
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest

import aria_sampling as aria
from tests.helpers import play, same_draw, small_pool


def fingerprint_of_global_randomness():
    torch = sys.modules.get("torch")
    numpy = pickle.dumps(np.random.get_state())  # noqa: NPY002
    return numpy, random.getstate(), torch.get_rng_state().tolist() if torch else None


def exercise():
    rng = np.random.default_rng(0)
    pool = aria.KMeansPartitioner(n_regions=4).fit(rng.normal(size=(60, 3)))
    allocator = aria.Allocator(pool, lag=1)
    play(allocator, 5)
    switch = aria.RandomConditioning(allocator)
    switch.draw([1, 990, 995])
    switch.observe([1.0, 2.0, 3.0])
    allocator.load_state_dict(allocator.state_dict())
    coverage = aria.Coverage(pool, items=[0, 1, 2], embeddings=rng.normal(size=(3, 3)))
    heir = aria.Allocator(pool, coverage=coverage, policy=aria.Reducible())
    heir.adopt(allocator.state_dict(), partition=pool)
    play(heir, 2)
    history = aria.History(heir, every=1)
    history.record()
    history.advice()
    repr(pool), hash(pool), allocator.metrics(), pool.assign(rng.normal(size=(3, 3))), heir.digest()


def test_global_random_states_are_untouched():
    pytest.importorskip("sklearn")
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader

    exercise()  # imports done
    before = fingerprint_of_global_randomness()
    exercise()
    sampler = aria.Allocator(small_pool()).sampler(batch_size=5, num_samples=20)
    iter(sampler)
    for index, _ in zip(range(4), [0] * 4, strict=True):
        rows = [item for _, item in zip(range(5), iter(sampler), strict=False)]
        sampler.observe(torch.tensor(rows), torch.full((5,), float(index)))
    assert fingerprint_of_global_randomness() == before
    loader = DataLoader(range(60), batch_size=5, sampler=sampler)  # the loader itself takes a seed from torch
    state = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    for batch in loader:
        sampler.observe(batch, torch.ones(len(batch)))
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state  # noqa: NPY002


def test_global_seeds_do_not_matter():
    streams = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        allocator = aria.Allocator(small_pool(), seed=4)
        np.random.random(seed)  # noqa: NPY002
        streams.append(play(allocator, 12))
    assert all(same_draw(a, b) for a, b in zip(*streams, strict=True))


def test_same_seed_same_stream_and_another_seed_another():
    one, two, other = (play(aria.Allocator(small_pool(), seed=seed), 12) for seed in (3, 3, 4))
    assert all(same_draw(a, b) for a, b in zip(one, two, strict=True))
    assert not any(np.array_equal(a.items, b.items) for a, b in zip(one, other, strict=True))


def test_two_allocators_on_one_pool_do_not_disturb_each_other():
    pool = small_pool()
    alone = play(aria.Allocator(pool, seed=1), 10)
    a, b = aria.Allocator(pool, seed=1), aria.Allocator(pool, seed=2)
    both = []
    for _ in range(10):
        play(b, 1)
        both += play(a, 1)
    assert all(same_draw(x, y) for x, y in zip(alone, both, strict=True))


def test_a_process_of_its_own_gives_the_same_stream():
    """Nothing depends on hash seeds, on what was imported before, or on the process."""
    code = (
        "import numpy as np, aria_sampling as aria\n"
        "a = aria.Allocator(aria.Partition.from_labels(np.arange(90) % 7), target='uniform', seed=11)\n"
        "for _ in range(6):\n"
        "    d = a.draw(9); a.observe(d.regions, 1.0 + d.regions); a.step()\n"
        "print(d.items.tolist(), a.probabilities.tolist(), a.partition.fingerprint)"
    )
    outs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert outs[0] == outs[1]
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(90) % 7), target="uniform", seed=11)
    draw = play(allocator, 6, n=9, loss=lambda d: 1.0 + d.regions)[-1]
    assert (
        outs[0].strip() == f"{draw.items.tolist()} {allocator.probabilities.tolist()} {allocator.partition.fingerprint}"
    )


def test_importing_loads_no_heavy_package():
    code = (
        "import sys, aria_sampling\n"
        "print([name for name in ('torch', 'sklearn', 'matplotlib', 'scipy.stats', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_iter_alone_advances_nothing():
    pytest.importorskip("torch")
    allocator = aria.Allocator(small_pool(), lag=2)
    sampler = allocator.sampler(batch_size=5, num_samples=30)
    before, p = copy.deepcopy(sampler.state_dict()), allocator.probabilities
    for _ in range(5):
        iter(sampler)
    assert len(sampler) == 30
    assert allocator.open_rounds == ()
    first = [item for _, item in zip(range(12), iter(sampler), strict=False)]  # three rounds are open now
    for _ in range(3):
        iter(sampler)
    assert sampler.state_dict() == before
    assert np.array_equal(allocator.probabilities, p)
    assert [item for _, item in zip(range(12), iter(sampler), strict=False)] == first


def test_nothing_is_called_generator():
    """accelerate seizes samplers that have an attribute of that name, and reseeds it."""
    pytest.importorskip("torch")
    allocator = aria.Allocator(small_pool())
    from aria_sampling import torch as aria_torch

    sampler = allocator.sampler(batch_size=4, num_samples=8)
    objects = [allocator, sampler, aria.RandomConditioning(allocator), aria_torch.RandomConditioning(allocator)]
    objects += [allocator.partition, allocator.estimator, allocator.policy]
    for value in objects:
        assert not hasattr(value, "generator"), value
    for cls in (aria.Allocator, aria_torch.AriaSampler, aria.RandomConditioning):
        assert "generator" not in inspect.signature(cls).parameters


def test_reading_changes_nothing():
    allocator = aria.Allocator(small_pool(), lag=1)
    play(allocator, 4)
    allocator.draw(3)
    before = copy.deepcopy(allocator.state_dict())
    for value in (allocator.probabilities, *vars(allocator.estimate()).values()):
        value[:] = -7.0
    allocator.metrics()["round"] = 9
    allocator.state_dict()["draws"].clear()
    allocator.draw_counts[:] = 7
    assert allocator.state_dict() == before
    assert (allocator.probabilities >= 0).all()
    assert (allocator.estimate().count >= 0).all()
    with pytest.raises(ValueError, match="read-only"):
        allocator.target[0] = 1
    pool = allocator.partition
    for array in (pool.labels, pool.order, pool.offsets, pool.sizes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    pool.items_of(0)[:] = 0
    assert np.array_equal(np.sort(pool.order), np.arange(60))


def test_inputs_are_neither_changed_nor_kept():
    """Whatever the caller does to its arrays afterwards, the allocator has its own."""
    labels = np.array(small_pool().labels, np.int64)
    centers, target = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32), np.arange(1.0, 7.0)
    items, counts = np.array([0, 1, 1]), np.arange(6.0)
    arrays = (labels, centers, target, items, counts)
    given = [array.copy() for array in arrays]
    pool = aria.Partition.from_labels(labels, centers=centers)
    coverages = aria.Coverage(pool, items=items), aria.Coverage(pool, counts=counts)
    uncovered = [coverage.uncovered.copy() for coverage in coverages]
    online = aria.Coverage.online(pool)
    allocator, twin = (aria.Allocator(pool, coverage=online, target=target, lag=1) for _ in "ab")
    for mine, was in zip(arrays, given, strict=True):
        assert np.array_equal(mine, was)
        assert mine.flags.writeable
        mine[:] = 0
    assert np.array_equal(pool.labels, given[0])
    assert np.array_equal(pool.centers, given[1])
    assert np.allclose(allocator.target, given[2] / 21)
    assert np.array_equal(coverages[1].counts, given[4])
    assert all(np.array_equal(coverage.uncovered, was) for coverage, was in zip(coverages, uncovered, strict=True))
    for spoil in (True, False):
        a = allocator if spoil else twin
        present, regions, losses = np.array([1, 2]), np.array([0, 3]), np.array([1.0, 2.0])
        a.draw(5, present=present)
        a.observe(regions, losses)
        assert (present.tolist(), regions.tolist(), losses.tolist()) == ([1, 2], [0, 3], [1.0, 2.0])
        if spoil:
            present[:], regions[:], losses[:] = 5, 5, np.nan
        a.step()
    assert allocator.state_dict() == twin.state_dict()


@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_conditioning_inputs_are_neither_changed_nor_kept(kind):
    form = pytest.importorskip("torch").as_tensor if kind == "tensors" else np.asarray
    states = []
    for spoil in (True, False):
        pool = small_pool()
        allocator = aria.Allocator(pool, coverage=aria.Coverage.online(pool))
        switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.5))
        timesteps, paired, losses = form(np.arange(20) * 40), form(np.arange(20) - 1), form(np.arange(20.0))
        s = switch.draw(timesteps, paired=paired)
        assert timesteps.tolist() == (np.arange(20) * 40).tolist()
        if spoil:
            timesteps[:], paired[:] = 0, 3
            assert not np.shares_memory(np.asarray(s.mask), np.asarray(timesteps))
        switch.observe(losses, step=False)
        assert losses.tolist() == list(range(20))
        if spoil:
            losses[:] = 1e9
        switch.step()
        states.append(switch.state_dict())
    assert states[0] == states[1]


def test_embeddings_are_not_changed():
    pytest.importorskip("sklearn")
    embeddings = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    given = embeddings.copy()
    pool = aria.KMeansPartitioner(n_regions=3).fit(embeddings)
    pool.assign(embeddings)
    assert np.array_equal(embeddings, given)
    assert embeddings.flags.writeable
    assert not np.shares_memory(pool.centers, embeddings)


@pytest.mark.parametrize("kind", ["arrays", "tensors"])
def test_changing_what_a_draw_returned_does_not_change_what_is_credited(kind):
    """A trainer that reuses the arrays it was given must not move credit to other regions."""
    form = pytest.importorskip("torch").as_tensor if kind == "tensors" else np.asarray
    states = []
    for spoil in (True, False):
        switch = aria.RandomConditioning(aria.Allocator(small_pool()), schedule=aria.ConstantSwitch(1.0))
        s = switch.draw(form(np.full(8, 500)))
        if spoil:
            for values, other in ((s.regions, 0), (s.items, 0), (s.weights, 9.0), (s.mask, False)):
                with contextlib.suppress(ValueError):  # an array that cannot be written to is as good
                    values[:] = other
        switch.observe(form(1.0 + np.arange(8.0)))
        states.append(switch.state_dict())
    assert states[0] == states[1]
