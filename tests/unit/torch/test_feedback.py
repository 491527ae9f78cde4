"""How rows of feedback travel: as the bits they are, and shared with nobody."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aria_sampling.torch._feedback import Transfer, on_device, pack, to_array, unpack
from tests.unit.torch.common import build, loss, make

IDS = [0, 1, 2**53 + 1, 2**62 + 3, 2**63 - 1, -5]
SPECIAL = [0.0, -0.0, 5e-324, 2.2e-308, 1e308, np.inf, -np.inf, np.nan, 1 / 3]


def bits(values):
    return np.asarray(values, np.float64).view(np.int64).tolist()


# ------------------------------------------------------------------------------ pack, unpack


def test_rows_are_the_bits_that_were_packed():
    items = torch.tensor((IDS * 2)[: len(SPECIAL)])
    found, losses, _ = unpack(pack(items, torch.tensor(SPECIAL, dtype=torch.float64)))
    assert found.tolist() == items.tolist()
    assert bits(losses) == bits(SPECIAL)
    assert (found.dtype, losses.dtype) == (np.int64, np.float64)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.floats()), max_size=20))
def test_any_rows_survive(rows):
    items = torch.tensor([item for item, _ in rows], dtype=torch.int64)
    losses = torch.tensor([value for _, value in rows], dtype=torch.float64)
    packed = pack(items, losses)
    assert (packed.dtype, packed.shape) == (torch.int64, (len(rows), 2))
    found, back, credited = unpack(packed)
    assert found.tolist() == items.tolist()
    assert bits(back) == bits(losses)
    assert credited.all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_losses_are_widened_exactly(dtype):
    losses = torch.tensor([0.1, 3.0, 1e-4, torch.finfo(dtype).max, torch.finfo(dtype).tiny], dtype=dtype)
    _, back, _ = unpack(pack(torch.arange(5), losses.requires_grad_()))
    assert back.tolist() == [float(value) for value in losses.detach()]
    assert to_array(losses).tolist() == back.tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_narrow_ids_are_widened_exactly(dtype):
    items = torch.tensor([0, torch.iinfo(dtype).max, torch.iinfo(dtype).min], dtype=dtype)
    found, back, credited = unpack(pack(items, torch.tensor([1, 2, 3])))
    assert found.tolist() == items.tolist()
    assert back.tolist() == [1.0, 2.0, 3.0]
    assert credited.tolist() == [True] * 3


@given(st.lists(st.tuples(st.floats(), st.booleans()), max_size=20))
def test_which_rows_are_credited_travels_in_the_place_of_their_loss(rows):
    """Whatever NaN a loss is, it is told apart from a row without credit."""
    losses = torch.tensor([value for value, _ in rows], dtype=torch.float64)
    credit = torch.tensor([credited for _, credited in rows], dtype=torch.bool)
    _, back, found = unpack(pack(torch.arange(len(rows)), losses, credit))
    assert found.tolist() == credit.tolist()
    assert bits(back[found]) == bits(losses[credit])


def test_numbers_in_a_list_are_not_rounded():
    _, back, _ = unpack(pack(torch.arange(2), [0.1, 1 / 3]))
    assert back.tolist() == [0.1, 1 / 3]


def test_rows_are_nobody_elses():
    items, losses = torch.arange(3), torch.ones(3, dtype=torch.float64)
    packed = pack(items, losses)
    items += 5
    losses += 5
    assert unpack(packed)[0].tolist() == [0, 1, 2]
    assert unpack(packed)[1].tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("items", "losses", "words"),
    [
        (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2), "indices: expected a one-dimensional tensor"),
        (torch.arange(2), torch.tensor(1.0), "losses: expected a one-dimensional tensor"),
        (
            torch.arange(2),
            torch.ones(2, 1),
            r"losses: expected 2 numbers, .*got shape \(2, 1\).*losses = losses.ravel\(\)",
        ),
        (
            torch.arange(2),
            torch.ones(2, 3, 4),
            r"got shape \(2, 3, 4\).*losses = losses.reshape\(2, -1\).mean\(dim=1\)",
        ),
        (torch.arange(2), torch.tensor(1.0), "losses: .*reduction='none'"),
        (None, torch.zeros(2), "indices: expected a one-dimensional tensor of integers, got NoneType"),
        ("ab", torch.zeros(2), "indices: expected a one-dimensional tensor of integers, got str"),
        (["a", "b"], torch.zeros(2), "indices: expected a one-dimensional tensor of integers, got list"),
        (torch.arange(2), None, "losses: expected a one-dimensional tensor of numbers, one a row, got NoneType"),
        (torch.arange(2), "ab", "losses: expected a one-dimensional tensor of numbers, one a row, got str"),
        (torch.arange(2), [[1.0], [1.0, 2.0]], "losses: expected a one-dimensional tensor .* got list"),
        (torch.arange(2), {1.0, 2.0}, "losses: expected a one-dimensional tensor .* got set"),
        (torch.arange(2), torch.zeros(2).to_sparse(), "losses: expected a dense tensor"),
        (torch.arange(2), torch.zeros(3), "losses: expected 2 numbers, got 3"),
        (
            torch.arange(2),
            torch.ones(6),
            r"got 6, which is 3 a row; .*report their mean. .* Try: losses = losses.reshape\(2, -1\).mean\(dim=1\)",
        ),
        (
            torch.arange(2),
            torch.ones(2, 3),
            r"report their mean. .* Try: losses = losses.mean\(dim=1\)",
        ),
        (torch.zeros(2), torch.zeros(2), "indices: expected integers, got dtype torch.float32"),
        (torch.zeros(2, dtype=torch.bool), torch.zeros(2), "indices: expected integers, got dtype torch.bool"),
        (torch.arange(2), torch.zeros(2, dtype=torch.bool), "losses: expected numbers"),
        (torch.arange(2), torch.zeros(2, dtype=torch.complex64), "losses: expected numbers"),
    ],
)
def test_pack_refuses(items, losses, words):
    with pytest.raises(ValueError, match=words):
        pack(items, losses)
    if items is None:
        with pytest.raises(ValueError, match="regions: expected"):
            pack(items, losses, name="regions")


# ------------------------------------------------------------------------------ Transfer


def test_a_transfer_is_exact_and_shares_nothing():
    ids, values = torch.tensor(IDS), torch.tensor(SPECIAL, dtype=torch.float64)
    narrow = torch.tensor([0.1, 2.0], dtype=torch.bfloat16, requires_grad=True)
    transfer = Transfer(ids, values, narrow)
    kept = narrow.tolist()
    ids.zero_()
    values.zero_()
    narrow.detach().zero_()
    arrays = transfer.arrays()
    assert arrays[0].tolist() == IDS
    assert arrays[0].dtype == np.int64
    assert bits(arrays[1]) == bits(SPECIAL)
    assert arrays[2].tolist() == kept
    assert arrays[2].dtype == np.float64
    assert [array.tolist() for array in transfer.arrays()][:1] == [IDS]  # and may be read again
    assert Transfer().arrays() == []


def test_on_device_and_what_is_no_tensor():
    assert not on_device(torch.zeros(2), [1, 2], None, np.zeros(2))
    assert on_device([1], torch.zeros(2, device="meta"))
    values = [1, 2]
    assert to_array(values) is values
    assert to_array(torch.tensor([2**53 + 1])).tolist() == [2**53 + 1]


# ------------------------------------------------------------------------------ on an accelerator

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@needs_cuda
def test_observing_from_cuda_waits_for_nothing_and_is_the_same_bits():
    """With a lag of 1 no call synchronises, tensors may be overwritten at once, and the stream is that of the CPU."""
    on_host, on_cuda = [make(lag=1).sampler(batch_size=24, num_samples=240) for _ in range(2)]
    host_rows, cuda_rows = iter(on_host), iter(on_cuda)
    for number in range(10):
        index = torch.tensor([next(host_rows) for _ in range(24)])
        assert [next(cuda_rows) for _ in range(24)] == index.tolist()
        credit = torch.arange(24) % 4 > 0
        on_host.observe(index, loss(index).float(), credit=credit)
        losses = loss(index).float().cuda()
        if number % 2:  # the indices stay on the host, as the loader gave them
            index, credit = index.cuda(), credit.cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            on_cuda.observe(index[:10], losses[:10], credit=credit[:10], step=False)
            on_cuda.observe(index[10:], losses[10:], credit=credit[10:])
            index.zero_()
            losses.zero_()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for sampler in (on_host, on_cuda):
        sampler.synchronize()
    assert on_host.allocator.digest() == on_cuda.allocator.digest()


@needs_cuda
def test_a_transfer_from_cuda_is_exact():
    values = torch.tensor(SPECIAL, dtype=torch.float64, device="cuda")
    transfer = Transfer(values)
    values.zero_()
    assert bits(transfer.arrays()[0]) == bits(SPECIAL)


@needs_cuda
def test_weights_are_where_the_indices_are():
    sampler, loader = build()
    index = next(iter(loader))
    assert sampler.weights(index.cuda()).is_cuda
