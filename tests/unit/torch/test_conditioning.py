"""`RandomConditioning` on tensors gives what it gives on arrays, bit for bit; on accelerators; and on several ranks.

What both kinds have in common is tested in `tests/unit/test_conditioning.py`.
"""

from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import torch as aria_torch
from aria_sampling.conditioning._twins import Twins
from aria_sampling.torch import _backend as backend
from aria_sampling.torch._backend import TENSORS
from tests.unit.torch.gang import Failure, Gang

STEPS, ITEMS, REGIONS = 50, 90, 6
LABELS = np.random.default_rng(4).permutation(np.repeat(np.arange(REGIONS), [40, 5, 20, 3, 12, 10]))
TARGET = [1.0, 3.0, 0.5, 2.0, 4.0, 1.5]
SCHEDULES = [aria.ExponentialSwitch(2.0), aria.ConstantSwitch(1.0), aria.ConstantSwitch(0.0), aria.SigmoidSwitch()]


def make(lag=0, online=True, **options):
    pool = aria.Partition.from_labels(LABELS)
    coverage = aria.Coverage.online(pool) if online else aria.Coverage(pool, items=np.arange(0, 60, 7))
    allocator = aria.Allocator(pool, target=TARGET, seed=3, lag=lag, coverage=coverage)
    options = {"schedule": aria.ConstantSwitch(0.6), "num_train_timesteps": STEPS, "draws_ahead": lag, **options}
    return aria.RandomConditioning(allocator, **options)


def batch(number, n=16):
    """Timesteps, own items and losses, a function of the number of the batch."""
    rng = np.random.default_rng([11, number])
    return rng.integers(0, STEPS, n), rng.integers(-1, ITEMS, n), rng.lognormal(0, 1, n).astype(np.float32)


def same(tensors, arrays):
    for name, dtype in (("mask", torch.bool), ("items", torch.int64), ("regions", torch.int64)):
        assert getattr(tensors, name).dtype == dtype
        assert getattr(tensors, name).tolist() == getattr(arrays, name).tolist()
    assert tensors.weights.dtype == torch.float32
    assert tensors.weights.tolist() == arrays.weights.astype(np.float32).tolist()
    assert tensors.round == arrays.round


def test_it_is_one_class():
    assert aria_torch.RandomConditioning is aria.RandomConditioning
    assert aria_torch.Switch is aria.Switch


@settings(max_examples=25)
@given(
    st.integers(0, 2),
    st.sampled_from(SCHEDULES),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from([0, 1, 7, 16]), min_size=14, max_size=14),
)
def test_tensors_give_what_arrays_give(lag, schedule, normalise, online, as_noise, sizes):
    """Any schedule, lag and size of batch, rounds with a loss, with credit for some rows, or without."""
    tensors, arrays = (make(lag, online, schedule=schedule, normalise=normalise) for _ in "ta")
    opened = []
    for number, n in enumerate(sizes):
        steps, own, losses = batch(number, n)
        name, values = ("noise", (steps / STEPS).astype(np.float32)) if as_noise else ("timesteps", steps)
        own = {"paired": own} if online else {}
        same(
            tensors.draw(**{name: torch.as_tensor(values)}, **{key: torch.as_tensor(own[key]) for key in own}),
            arrays.draw(**{name: values}, **own),
        )
        opened.append((number, losses))
        while len(opened) > lag:
            done, losses = opened.pop(0)
            low = torch.as_tensor(losses, dtype=torch.bfloat16)
            credit = losses < 2
            if done % 5 == 4:
                tensors.step()
                arrays.step()
            elif done % 5 == 3:
                tensors.observe(low, step=False)
                arrays.observe(low.double().numpy(), step=False)
                tensors.step()
                arrays.step()
            elif done % 5 == 2:
                tensors.observe(torch.as_tensor(losses), credit=torch.as_tensor(credit))
                arrays.observe(losses, credit=credit)
            else:
                tensors.observe(torch.as_tensor(losses).requires_grad_())
                arrays.observe(losses)
    tensors.synchronize()
    assert tensors.state_dict() == arrays.state_dict()
    assert tensors.allocator.digest() == arrays.allocator.digest()


def test_a_state_of_tensors_goes_on_with_arrays_and_back():
    tensors, arrays, again = (make(online=False) for _ in range(3))
    for number in range(6):
        steps, _, losses = batch(number)
        tensors.draw(torch.as_tensor(steps))
        tensors.observe(torch.as_tensor(losses))
    arrays.load_state_dict(tensors.state_dict())
    again.load_state_dict(arrays.state_dict())
    for number in range(6, 10):
        steps, _, losses = batch(number)
        s = arrays.draw(steps)
        for each in (tensors, again):
            same(each.draw(torch.as_tensor(steps)), s)
            each.observe(torch.as_tensor(losses))
        arrays.observe(losses)
    assert tensors.state_dict() == arrays.state_dict() == again.state_dict()


def test_one_object_takes_batches_of_either_kind():
    """The kind is that of the batch; what was learnt knows no kinds."""
    mixed, arrays = make(1, online=False), make(1, online=False)
    for number in range(6):
        steps, _, losses = batch(number)
        of = torch.as_tensor if number % 2 else np.asarray
        mixed.draw(of(steps))
        arrays.draw(steps)
        mixed.observe(of(losses))
        arrays.observe(losses)
    assert mixed.state_dict() == arrays.state_dict()


@pytest.mark.parametrize("name", ["timesteps", "noise", "paired", "losses", "credit"])
def test_sparse_tensors_are_refused_by_name(name):
    switch = make()
    steps, own, losses = (torch.as_tensor(values) for values in batch(0))
    given = {"timesteps": steps, "paired": own, "losses": losses, "credit": losses > 0, "noise": losses.clip(max=1)}
    given[name] = given[name].to_sparse()
    dense = rf"^{name}: expected a dense tensor, .* Try: {name} = {name}\.to_dense\(\)"
    if name in ("losses", "credit"):
        switch.draw(given["timesteps"], paired=given["paired"])
        with pytest.raises(ValueError, match=dense):
            switch.observe(given["losses"], credit=given["credit"])
        return
    first = {"noise": given["noise"]} if name == "noise" else {"timesteps": given["timesteps"]}
    with pytest.raises(ValueError, match=dense):
        switch.draw(**first, paired=given["paired"])


# ------------------------------------------------------------------------------ devices


def test_a_packed_copy_gives_what_single_copies_give():
    rng = np.random.default_rng(0)
    like = torch.zeros(0)
    for n, size in ((0, 0), (0, 3), (1, 1), (3, 5), (7, 7), (130, 256)):
        mask = rng.permutation(np.arange(size) < n)
        arrays = (mask, rng.integers(0, 2**60, n), rng.integers(0, 2**40, n), rng.lognormal(size=n))
        single, packed = TENSORS.outputs(like, *arrays), backend._packed(like.device, *arrays)
        for one, other in zip(single, packed, strict=True):
            assert one.dtype == other.dtype
            assert one.tolist() == other.tolist()


@pytest.fixture
def far(monkeypatch):
    """Tensors count as being on a device, so that their losses take the way of one."""
    monkeypatch.setattr(backend, "_is_far", lambda value: True)


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_losses_on_a_device_are_read_when_they_are_needed(far, lag):
    """With a lag they are on their way until a draw needs them; the stream and the state are the same."""
    tensors, arrays = make(lag, online=False), make(lag, online=False)
    for number in range(9):
        steps, _, losses = batch(number)
        same(tensors.draw(torch.as_tensor(steps)), arrays.draw(steps))
        credit = {"credit": losses < 1} if number % 3 == 0 else {}
        given = torch.as_tensor(losses).clone()
        tensors.observe(given, **{key: torch.as_tensor(value) for key, value in credit.items()})
        given.zero_()
        arrays.observe(losses, **credit)
        assert tensors.allocator.rounds.n_reported == (min(lag, number) + 1 if lag else 0)
    tensors.synchronize()
    assert tensors.allocator.rounds.n_reported == 0
    assert tensors.state_dict() == arrays.state_dict()


def test_a_state_waits_for_losses_that_are_on_their_way(far):
    tensors, arrays = make(2, online=False), make(2, online=False)
    for number in range(3):
        steps, _, losses = batch(number)
        tensors.draw(torch.as_tensor(steps))
        tensors.observe(torch.as_tensor(losses))
        arrays.draw(steps)
        arrays.observe(losses)
    assert tensors.state_dict() == arrays.state_dict()


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (torch.zeros(15), "losses: expected 16 numbers, got 15"),
        (torch.ones(32), r"got 32, which is 2 a row; for several losses a row report their mean"),
        (torch.ones(16, 2), r"for several losses a row report their mean"),
        (torch.zeros(16, 2), r"32 of them are exactly 0, as those of padding are"),
        (torch.tensor(0.5), "reduction='none'"),
        (torch.zeros(16, dtype=torch.bool), "losses: expected real"),
        (torch.zeros(16, dtype=torch.complex64), "losses: expected real"),
    ],
)
def test_losses_on_a_device_are_checked_at_once(far, losses, words):
    switch = make(1, online=False)
    switch.draw(torch.as_tensor(batch(0)[0]))
    before = switch.state_dict()
    with pytest.raises(ValueError, match=words):
        switch.observe(losses)
    for credit in (torch.ones(15, dtype=torch.bool), torch.ones(16)):
        with pytest.raises(ValueError, match="credit: expected 16 bools"):
            switch.observe(torch.ones(16), credit=credit)
    assert switch.state_dict() == before
    switch.observe(torch.ones(16))
    assert switch.allocator.rounds.n_reported == 1


class Interrupted(aria.Proportional):
    times = 0

    def log_score(self, estimate, shared):
        if Interrupted.times:
            Interrupted.times -= 1
            raise KeyboardInterrupt
        return super().log_score(estimate, shared)


def test_rounds_that_wait_behind_one_that_fails_can_be_reported_again(far):
    """Losses on a device are read later: by then others wait behind them, whose turn does not come before."""

    def switching():
        pool = aria.Partition.from_labels(LABELS)
        allocator = aria.Allocator(pool, target=TARGET, policy=Interrupted(), lag=2)
        options = {"num_train_timesteps": STEPS, "draws_ahead": 2}
        return aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.6), **options)

    switch, twin = switching(), switching()
    for each in (switch, twin):
        for number in range(3):
            each.draw(torch.as_tensor(batch(number)[0]))
    losses = [torch.as_tensor(batch(number)[2]) for number in range(3)]
    for values in losses:
        switch.observe(values)
    Interrupted.times = 1
    with pytest.raises(KeyboardInterrupt):
        switch.draw(torch.as_tensor(batch(3)[0]))
    assert (switch.allocator.round, len(switch.allocator.rounds), switch.allocator.rounds.n_reported) == (0, 3, 0)
    for each in (switch, twin):
        for values in losses:
            each.observe(values)
    assert switch.state_dict() == twin.state_dict()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("online", [True, False])
def test_on_cuda(online):
    """All results are where the timesteps are; observing waits for nothing, nor does a draw of CPU timesteps."""
    tensors, arrays = make(1, online), make(1, online)
    for number in range(8):
        steps, own, losses = batch(number)
        own = {"paired": own} if online else {}
        s = tensors.draw(torch.as_tensor(steps).cuda(), **{key: torch.as_tensor(own[key]).cuda() for key in own})
        assert all(tensor.is_cuda for tensor in (s.mask, s.items, s.regions, s.weights))
        same(s, arrays.draw(steps, **own))
        credit = {"credit": losses < 2} if number % 2 else {}
        on_cuda = torch.as_tensor(losses).cuda()
        flags = {key: torch.as_tensor(value).cuda() for key, value in credit.items()}
        torch.cuda.set_sync_debug_mode("error")
        try:
            tensors.observe(on_cuda, **flags)
            on_cuda.zero_()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        arrays.observe(losses, **credit)
    tensors.synchronize()
    assert tensors.state_dict() == arrays.state_dict()


# ------------------------------------------------------------------------------ ranks


@pytest.fixture(scope="module")
def gang(tmp_path_factory):
    gang = Gang(4, tmp_path_factory.mktemp("gang"))
    yield gang
    gang.close()


def sizes_of(world, number, n):
    """How many rows of a batch each rank has: unequal, changing, at times none."""
    cuts = np.sort(np.random.default_rng([world, number]).integers(0, n + 1, world - 1))
    return np.diff([0, *cuts, n]).tolist()


def job(rank, world, group, options):
    """Train for some rounds on this rank's rows of global batches; what came, and the state."""
    options = SimpleNamespace(**{"lag": 0, "online": False, "kind": "tensors", "silent": None, "far": False, **options})
    is_far = backend._is_far
    if options.far:
        backend._is_far = lambda value: True
    try:
        return _train(rank, world, group, options)
    finally:
        backend._is_far = is_far


def _train(rank, world, group, options):
    switch = make(options.lag, options.online, group=group, check_every=2)
    of = np.asarray if options.kind == "arrays" or (options.kind == "both" and rank == 0) else torch.as_tensor
    seen = []
    for number in range(12):
        steps, own, losses = batch(number, [16, 5, 1, 23][number % 4])
        sizes = sizes_of(world, number, len(steps))
        rows = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        s = switch.draw(of(steps[rows]), **({"paired": of(own[rows])} if options.online else {}))
        assert type(s.mask) is (np.ndarray if of is np.asarray else torch.Tensor)
        seen.append((s.mask.tolist(), s.items.tolist(), s.regions.tolist(), np.float32(s.weights).tolist()))
        credit = losses < 3
        if options.silent is not None:  # a rank reports nothing: its rows are not credited
            sizes = sizes_of(options.silent, number, len(steps))
            quiet = number % options.silent
            credit[sum(sizes[:quiet]) : sum(sizes[: quiet + 1])] = False
        if number % 5 == 4 or (world > 1 and options.silent is not None and quiet == rank):
            switch.step()
        elif credit.all() and number % 2:
            switch.observe(of(losses[rows]))
        else:
            switch.observe(of(losses[rows]), credit=of(credit[rows]))
    switch.synchronize()
    return {
        "seen": seen,
        "digest": switch.allocator.digest(),
        "state": switch.state_dict(),
        "metrics": switch.metrics(),
    }


def alone(**options):
    return job(0, 1, None, options)


def together(gang, world, **options):
    """What the ranks had, joined in their order; they must agree on the rest."""
    results = gang.run(job, options, world=world)
    for result in results:
        assert not isinstance(result, Failure), result.trace
        assert {**result, "seen": None} == {**results[0], "seen": None}
    by_round = zip(*(result["seen"] for result in results), strict=True)
    seen = [tuple(list(chain(*parts)) for parts in zip(*ranks, strict=True)) for ranks in by_round]
    return {**results[0], "seen": seen}


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lag": 2, "online": True},
        {"kind": "arrays", "online": True},
        {"kind": "both"},
        {"silent": 4, "lag": 1},
        {"far": True, "lag": 1},
    ],
    ids=str,
)
def test_ranks_are_one_process(gang, world, options):
    """Each rank has another number of rows in every batch, at times none; as arrays, as tensors, on a device or off."""
    if options.get("silent", world) != world:
        pytest.skip("the silent rank is one of four")
    assert together(gang, world, **options) == alone(**options)


def twins(rank, world, group, kind, rounds):
    """Ranks 0 and 1 have equal timesteps throughout, and equal losses as `kind` says; the round that was refused."""
    switch = make(1, False, group=group, check_every=2)
    for number in range(rounds):
        steps, _, losses = batch(number)
        one = number if kind == "timesteps" else rank // 2 if kind == "rows" else 0
        if kind == "all but the third" and number % 3 == 2:
            one = rank
        scale = np.random.default_rng([number, one, rank if kind == "timesteps" else 0]).lognormal(size=16)
        if kind == "zero":
            scale[:] = 0.0
        switch.draw(torch.as_tensor(steps))
        before = switch.allocator.round
        try:
            switch.observe(torch.as_tensor(losses * scale))
            switch.synchronize()
        except aria.RankError as error:
            assert switch.allocator.round == before
            return number, str(error)
    return None


def halves(rank, world, group, told):
    """Two data ranks of two processes each, which hold one sample together; what each process saw and knows."""
    import torch.distributed as dist

    data, model = divmod(rank, 2)
    groups = [dist.new_group([0, 2]), dist.new_group([1, 3])]  # every process makes both
    switch = make(0, False, group=groups[model] if told else None)
    seen = []
    for number in range(8 if told else 2):
        steps, _, losses = batch(number)
        rows = slice(8 * data, 8 * data + 8)
        s = switch.draw(torch.as_tensor(steps[rows]))
        seen.append((s.mask.tolist(), s.items.tolist(), s.weights.tolist()))
        switch.observe(torch.as_tensor(losses[rows]))
    return seen, switch.state_dict()


def test_processes_that_hold_one_sample_together_give_it_one_condition(gang):
    """`group=` is the ranks with different data: all four processes then agree with one that has all rows."""
    results = gang.run(halves, True)
    assert results[0] == results[1]
    assert results[2] == results[3]
    alone = make(0, False)
    for number, (first, second) in enumerate(zip(results[0][0], results[2][0], strict=True)):
        steps, _, losses = batch(number)
        s = alone.draw(torch.as_tensor(steps))
        parts = zip(first, second, strict=True)
        assert tuple(one + other for one, other in parts) == (s.mask.tolist(), s.items.tolist(), s.weights.tolist())
        alone.observe(torch.as_tensor(losses))
    assert alone.state_dict() == results[0][1] == results[2][1]


def test_without_the_group_they_would_give_it_several(gang):
    """Why `group=` is needed; the error that names it comes once three rounds were equal, which the next test has."""
    (first, _), (second, _), *_ = gang.run(halves, False)
    assert first != second


@pytest.mark.parametrize("kind", ["timesteps", "all but the third", "zero"])
def test_equal_timesteps_alone_are_no_error(gang, kind):
    assert gang.run(twins, kind, 8, world=2) == [None, None]


@pytest.mark.parametrize("world", [2, 4])
def test_equal_losses_in_three_rounds_are_an_error_on_every_rank(gang, world):
    """Ranks that hold one sample together were taken for data ranks."""
    results = gang.run(twins, "rows", 8, world=world)
    for number, message in results:
        assert number == 2
        assert "ranks 0 and 1 reported losses that are equal bit for bit, in 3 rounds running" in message
        assert "group=" in message


def test_what_counts_as_equal():
    """Rounds in which a rank switches nothing, or has no losses but 0 and NaN, say nothing; three that do, do."""
    yes, no = np.array([True, False] * 2), np.zeros(4, bool)
    x, y, zero, nan = np.array([1.0, 0.3]), np.array([1.0, 3.1]), np.zeros(2), np.full(2, np.nan)

    def refused(*rounds):
        """The number of the round that is refused; None if none is."""
        value = Twins()
        for number, (one, other, mask) in enumerate(rounds):
            try:
                value = value.after(number, np.concatenate([one, other]), mask, [2, 2])
            except aria.RankError:
                return number
        return None

    assert refused((x, x, yes), (y, y, yes), (x, x, yes)) == 2
    assert refused((x, x, yes), (x, x, yes), (x, x, no), (zero, zero, yes), (nan, nan, yes), (x, x, yes)) == 5
    assert refused((x, x, yes), (x, x, yes), (x, y, yes), (x, x, yes), (x, x, yes)) is None
    assert refused((x, x, yes), (x, x, yes), (x, zero, yes), (x, x, yes), (x, x, yes)) is None
    assert refused(*[(zero, zero, yes)] * 5, *[(nan, nan, yes)] * 5, *[(x, x, no)] * 5) is None
    assert refused((x, x, yes), (x, x, yes)) is None


@pytest.mark.parametrize(
    ("dtype", "rows", "rounds"),
    [
        (torch.float32, 1, 3),
        (torch.float64, 1, 3),
        (torch.bfloat16, 1, 8),
        (torch.bfloat16, 2, 4),
        (torch.bfloat16, 3, 3),
    ],
)
def test_few_losses_of_low_precision_may_be_equal_by_chance(dtype, rows, rounds):
    """Two of bfloat16 are in one case of a hundred, so more rounds are needed: 64 bits, or 8 losses."""
    value = Twins()
    for number in range(rounds):
        losses = (1 + torch.rand(rows, generator=torch.Generator().manual_seed(number))).to(dtype).double().numpy()
        report = number, np.concatenate([losses, losses]), np.ones(2 * rows, bool), [rows, rows]
        if number < rounds - 1:
            value = value.after(*report)
    with pytest.raises(aria.RankError, match=f"in {rounds} rounds running"):
        value.after(*report)
