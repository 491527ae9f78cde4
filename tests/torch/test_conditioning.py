"""`RandomConditioning` on tensors: that on arrays, to the bit, whatever form the arguments come in."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning
from tests.helpers import small_pool

T = 50
SETTINGS = {"schedule": aria.ConstantSwitch(0.5), "num_train_timesteps": T}


def both(lag=0, **settings):
    pool = small_pool()
    arrays, tensors = (
        kind(aria.Allocator(pool, target="uniform", seed=7, lag=lag), **{**SETTINGS, **settings})
        for kind in (aria.RandomConditioning, RandomConditioning)
    )
    return arrays, tensors


def batch_of(round_, rows):
    timesteps = (np.arange(rows) * 11 + 3 * round_) % T
    own = (np.arange(rows) * 5 + round_) % 61 - 1
    return timesteps, own, 0.1 + timesteps / T + 0.01 * np.arange(rows)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 2), st.booleans(), st.booleans())
def test_tensors_and_arrays_give_the_same(rows, lag, paired, normalise):
    arrays, tensors = both(lag, normalise=normalise)
    reported = 0
    for round_, n in enumerate(rows):
        while round_ - reported > lag:
            losses = batch_of(reported, rows[reported])[2]
            arrays.observe(losses)
            tensors.observe(torch.from_numpy(losses))
            reported += 1
        timesteps, own, _ = batch_of(round_, n)
        a = arrays.draw(timesteps, paired=own if paired else None)
        b = tensors.draw(torch.from_numpy(timesteps), paired=torch.from_numpy(own) if paired else None)
        assert b.mask.dtype == torch.bool
        assert b.items.dtype == b.regions.dtype == torch.int64
        assert b.weights.dtype == torch.float32
        for name in ("mask", "items", "regions"):
            assert np.array_equal(getattr(a, name), getattr(b, name).numpy())
        assert np.array_equal(a.weights.astype(np.float32), b.weights.numpy())
        assert a.round == b.round
    assert arrays.state_dict() == tensors.state_dict()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_losses_of_any_dtype_are_taken_as_they_are(dtype):
    arrays, tensors = both()
    for round_ in range(5):
        timesteps, own, losses = batch_of(round_, 8)
        losses = torch.from_numpy(losses).to(dtype).requires_grad_()
        arrays.draw(timesteps, paired=own)
        tensors.draw(timesteps, paired=own)
        arrays.observe(losses.detach().double().numpy())
        tensors.observe(losses)
    assert arrays.state_dict() == tensors.state_dict()


def test_states_are_interchangeable():
    arrays, tensors = both()
    for round_ in range(4):
        timesteps, own, losses = batch_of(round_, 8)
        tensors.draw(timesteps, paired=own)
        tensors.observe(losses)
    arrays.load_state_dict(tensors.state_dict())
    again = both()[1]
    again.load_state_dict(arrays.state_dict())
    timesteps, own, _ = batch_of(4, 8)
    drawn = [kind.draw(timesteps, paired=own) for kind in (tensors, arrays, again)]
    assert drawn[0].items.tolist() == drawn[1].items.tolist() == drawn[2].items.tolist()


def test_a_state_leaves_out_what_is_open():
    _, tensors = both(lag=1)
    timesteps, own, losses = batch_of(0, 8)
    first = tensors.draw(timesteps, paired=own)
    state = tensors.state_dict()
    tensors.observe(losses, step=False)
    assert tensors.state_dict() == state
    tensors.load_state_dict(state)
    assert tensors.draw(timesteps, paired=own).items.tolist() == first.items.tolist()
    with pytest.raises(ValueError, match="losses: expected 8 numbers, got 7"):
        tensors.observe(losses[:7])
    tensors.observe(losses)
    assert tensors.allocator.round == 1


@pytest.mark.parametrize("face", [0, 1])
def test_losses_are_reported_once(face):
    switch = both()[face]
    timesteps, own, losses = batch_of(0, 8)
    switch.draw(timesteps, paired=own)
    switch.observe(losses, step=False)
    with pytest.raises(RuntimeError, match="called twice for the batch of round 0"):
        switch.observe(losses)
    switch.step()
    for call in (lambda: switch.observe(losses), switch.step):
        with pytest.raises(RuntimeError, match="without an open batch"):
            call()


def test_bad_input_changes_nothing():
    _, tensors = both()
    timesteps, own, losses = batch_of(0, 8)
    bad = [
        ((torch.tensor([0.5]),), {}, "timesteps: expected integers, got dtype float"),
        ((torch.tensor([T]),), {}, rf"timesteps: expected values in \[0, {T}\), got {T} to {T}"),
        ((torch.tensor([[1]]),), {}, "timesteps: expected a one-dimensional array"),
        ((timesteps,), {"paired": own[:7]}, "paired: expected 8 integers, got 7"),
        ((timesteps,), {"paired": own + 60}, "paired: expected values"),
    ]
    before = tensors.state_dict()
    for arguments, keywords, message in bad:
        with pytest.raises(ValueError, match=message):
            tensors.draw(*arguments, **keywords)
    tensors.draw(timesteps, paired=own)
    for wrong, message in [
        (torch.tensor(1.0), "already averaged"),
        (torch.ones(8, 1), r"loss.flatten\(1\).mean\(1\)"),
        (torch.ones(8, dtype=torch.bool), "got dtype bool"),
    ]:
        with pytest.raises(ValueError, match=message):
            tensors.observe(wrong)
    assert tensors.state_dict() == before
    tensors.observe(losses)
    assert tensors.allocator.round == 1
