"""`RandomConditioning` on tensors is the NumPy one, bit for bit, and refuses what that refuses."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning
from tests.torch.common import ITEMS, make

STEPS = 50
SCHEDULES = [aria.ExponentialSwitch(2.0), aria.ConstantSwitch(1.0), aria.ConstantSwitch(0.0), aria.SigmoidSwitch()]


def both(lag=0, **options):
    """The torch one and the NumPy one."""
    options = {"schedule": aria.ConstantSwitch(0.6), "num_train_timesteps": STEPS, **options}
    return RandomConditioning(make(lag=lag), **options), aria.RandomConditioning(make(lag=lag), **options)


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


@settings(max_examples=25)
@given(
    st.integers(0, 2),
    st.sampled_from(SCHEDULES),
    st.booleans(),
    st.sampled_from(["none", "all", "at times"]),
    st.lists(st.sampled_from([0, 1, 7, 16]), min_size=14, max_size=14),
)
def test_it_is_the_numpy_one(lag, schedule, normalise, paired, sizes):
    """Any schedule, lag and size of batch, rows with own items or without, rounds with a loss or without."""
    tensors, arrays = both(lag, schedule=schedule, normalise=normalise)
    opened = []
    for number, n in enumerate(sizes):
        steps, own, losses = batch(number, n)
        with_own = paired == "all" or (paired == "at times" and number % 2)
        same(
            tensors.draw(torch.as_tensor(steps), paired=torch.as_tensor(own) if with_own else None),
            arrays.draw(steps, paired=own if with_own else None),
        )
        opened.append((number, losses))
        while len(opened) > lag:
            done, losses = opened.pop(0)
            if done % 5 == 4:
                tensors.step()
                arrays.step()
            elif done % 5 == 3:
                tensors.observe(torch.as_tensor(losses, dtype=torch.bfloat16), step=False)
                arrays.observe(torch.as_tensor(losses, dtype=torch.bfloat16).double().numpy(), step=False)
                tensors.step()
                arrays.step()
            else:
                tensors.observe(torch.as_tensor(losses).requires_grad_())
                arrays.observe(losses)
    tensors.synchronize()
    assert tensors.state_dict() == arrays.state_dict()
    assert tensors.allocator.digest() == arrays.allocator.digest()


def test_states_are_interchangeable():
    tensors, arrays = both()
    for number in range(6):
        steps, _, losses = batch(number)
        tensors.draw(torch.as_tensor(steps))
        tensors.observe(torch.as_tensor(losses))
    arrays.load_state_dict(tensors.state_dict())
    again, _ = both()
    again.load_state_dict(arrays.state_dict())
    for number in range(6, 10):
        steps, _, losses = batch(number)
        s = tensors.draw(torch.as_tensor(steps))
        same(s, arrays.draw(steps))
        same(again.draw(torch.as_tensor(steps)), s_of(s))
        for one, values in ((tensors, torch.as_tensor(losses)), (again, torch.as_tensor(losses)), (arrays, losses)):
            one.observe(values)
    assert tensors.state_dict() == arrays.state_dict() == again.state_dict()


def s_of(switch):
    """A torch switch as the NumPy one."""
    mask, items, regions = switch.mask.numpy(), switch.items.numpy(), switch.regions.numpy()
    return aria.conditioning.Switch(mask, items, regions, switch.weights.double().numpy(), switch.round)


def test_arrays_and_lists_are_taken_too():
    tensors, arrays = both()
    steps, own, losses = batch(0)
    same(tensors.draw(steps.tolist(), paired=own), arrays.draw(steps, paired=own))
    tensors.observe(losses.tolist())
    arrays.observe(losses)
    assert tensors.state_dict() == arrays.state_dict()


def test_what_came_out_and_what_went_in_may_be_overwritten():
    tensors, arrays = both(lag=1)
    for number in range(5):
        steps, _, losses = batch(number)
        given_steps, given_losses = torch.as_tensor(steps.copy()), torch.as_tensor(losses.copy())
        s = tensors.draw(given_steps)
        arrays.draw(steps)
        given_steps.zero_()
        for tensor in (s.mask, s.items, s.regions, s.weights):
            tensor.zero_()
        tensors.observe(given_losses, step=False)
        given_losses.fill_(1e9)
        tensors.step()
        arrays.observe(losses)
    assert tensors.state_dict() == arrays.state_dict()


# ------------------------------------------------------------------------------ rounds


def test_losses_are_reported_once():
    tensors, arrays = both(lag=1)
    for number in range(2):
        steps, _, _ = batch(number)
        tensors.draw(torch.as_tensor(steps))
        arrays.draw(steps)
    _, _, losses = batch(0)
    tensors.observe(torch.as_tensor(losses), step=False)
    for again in (torch.as_tensor(losses), torch.zeros(16)):
        with pytest.raises(RuntimeError, match="called twice for the batch of round 0"):
            tensors.observe(again)
    tensors.step()
    arrays.observe(losses)
    assert tensors.state_dict() == arrays.state_dict()
    tensors.observe(torch.as_tensor(losses))  # of round 1: not twice
    with pytest.raises(RuntimeError, match=r"observe\(\) without an open batch"):
        tensors.observe(torch.as_tensor(losses))


@pytest.mark.parametrize("lag", [0, 2])
def test_as_many_batches_may_be_open_as_the_lag_says(lag):
    tensors, _ = both(lag)
    for number in range(lag + 1):
        tensors.draw(torch.as_tensor(batch(number)[0]))
    before = tensors.state_dict()
    with pytest.raises(aria.FeedbackLagError, match=rf"lag={lag + 1}"):
        tensors.draw(torch.as_tensor(batch(lag + 1)[0]))
    assert tensors.state_dict() == before
    tensors.observe(torch.as_tensor(batch(0)[2]))
    assert tensors.draw(torch.as_tensor(batch(lag + 1)[0])).round == lag + 1


def test_feedback_that_arrives_early_is_not_used_early():
    """At lag 1 the draw of a batch is the same whether the last one was reported before it or after."""
    early, late = both(lag=1)[0], both(lag=1)[0]
    for number in range(12):
        steps, losses = torch.as_tensor(batch(number)[0]), torch.as_tensor(batch(max(number - 1, 0))[2])
        if number:
            early.observe(losses)
        s = early.draw(steps)
        t = late.draw(steps)
        if number:
            late.observe(losses)
        same(s, s_of(t))
    assert early.state_dict() == late.state_dict()


def test_without_an_open_batch():
    tensors, _ = both()
    for call in (tensors.step, lambda: tensors.observe(torch.zeros(3))):
        with pytest.raises(RuntimeError, match="without an open batch"):
            call()


def test_a_round_that_somebody_else_drew():
    tensors, _ = both(lag=1)
    tensors.allocator.draw(5)
    before = tensors.state_dict()
    for call in (tensors.step, lambda: tensors.observe(torch.zeros(5))):
        with pytest.raises(RuntimeError, match="round 0, which this RandomConditioning did not draw"):
            call()
    assert tensors.state_dict() == before


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("steps", "paired", "words"),
    [
        (torch.tensor([STEPS]), None, "timesteps: expected values in"),
        (torch.tensor([-1]), None, "timesteps: expected values in"),
        (torch.tensor([0.5]), None, "timesteps: expected integers"),
        (torch.tensor([[1]]), None, "timesteps: expected a one-dimensional"),
        (torch.tensor([1]), torch.tensor([ITEMS]), "paired: expected values in"),
        (torch.tensor([1]), torch.tensor([-2]), "paired: expected values in"),
        (torch.tensor([1]), torch.tensor([1, 2]), "paired: expected 1 integers, got 2"),
    ],
)
def test_draw_refuses(steps, paired, words):
    tensors, _ = both()
    with pytest.raises(ValueError, match=words):
        tensors.draw(steps, paired=paired)
    assert tensors.allocator.open_rounds == ()
    assert tensors.draw(torch.tensor([1])).round == 0


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (torch.zeros(15), "losses: expected 16 numbers, got 15"),
        (torch.zeros(16, 1), "losses: expected a one-dimensional"),
        (torch.tensor(0.5), "reduction='none'"),
        (torch.zeros(16, dtype=torch.bool), "losses: expected real"),
        (None, "losses"),
    ],
)
def test_observe_refuses(losses, words):
    tensors, arrays = both()
    steps, _, right = batch(0)
    tensors.draw(torch.as_tensor(steps))
    arrays.draw(steps)
    before = copy.deepcopy(tensors.state_dict())
    with pytest.raises(ValueError, match=words):
        tensors.observe(losses)
    assert tensors.state_dict() == before
    tensors.observe(torch.as_tensor(right))
    arrays.observe(right)
    assert tensors.state_dict() == arrays.state_dict()


def test_settings_are_checked():
    for wrong in ({"num_train_timesteps": 0}, {"schedule": 0.5}, {"check_every": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RandomConditioning(make(), **wrong)
    with pytest.raises(ValueError, match="allocator"):
        RandomConditioning(aria.Partition.from_labels([0, 1]))


# ------------------------------------------------------------------------------ devices


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_everything_is_where_the_timesteps_are_and_observing_waits_for_nothing():
    tensors, arrays = both(lag=1)
    for number in range(8):
        steps, _, losses = batch(number)
        s = tensors.draw(torch.as_tensor(steps).cuda())
        assert all(tensor.is_cuda for tensor in (s.mask, s.items, s.regions, s.weights))
        same(s, arrays.draw(steps))
        on_cuda = torch.as_tensor(losses).cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            tensors.observe(on_cuda)
            on_cuda.zero_()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        arrays.observe(losses)
    tensors.synchronize()
    assert tensors.state_dict() == arrays.state_dict()


def test_outputs_are_on_the_cpu_for_what_is_there():
    tensors, _ = both()
    for steps in (torch.tensor([1, 2]), np.array([1, 2])):
        s = tensors.draw(steps)
        assert {tensor.device.type for tensor in (s.mask, s.items, s.regions, s.weights)} == {"cpu"}
        tensors.step()
