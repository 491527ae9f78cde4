"""Rows of feedback on their way: no bit of an id or a loss is lost, and no row is taken for another."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.torch._rows import match_rows, pack, unpack
from aria_sampling.torch._transfer import Transfer, on_device, to_array

FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)
IDS = st.integers(0, 2**63 - 1)


@given(st.lists(st.tuples(IDS, FLOATS), max_size=20))
def test_rows_keep_every_bit(rows):
    items = np.array([item for item, _ in rows], np.int64)
    losses = np.array([loss for _, loss in rows], np.float64)
    back_items, back_losses = unpack(pack(torch.from_numpy(items), torch.from_numpy(losses)))
    assert back_items.dtype == np.int64
    assert back_losses.dtype == np.float64
    assert np.array_equal(back_items, items)
    assert back_losses.tobytes() == losses.tobytes()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_losses_of_any_float_dtype_are_exact(dtype):
    losses = torch.tensor([0.1, 1e-4, 3.0, 6e4]).to(dtype)
    _, back = unpack(pack(torch.arange(4), losses))
    assert back.tolist() == [float(loss) for loss in losses]


@pytest.mark.parametrize(
    ("items", "losses", "message"),
    [
        (
            torch.arange(3),
            torch.tensor(1.0),
            r"losses: expected a one-dimensional tensor of numbers, one a row, got shape \(\)",
        ),
        (torch.arange(3), torch.ones(3, 1), r"losses: .* got shape \(3, 1\)"),
        (torch.ones(3), torch.ones(3), r"indices: expected integers, got dtype torch.float32"),
        (torch.arange(3), torch.ones(2), r"losses: expected 3 numbers, got 2"),
        (torch.arange(3), torch.ones(3, dtype=torch.bool), r"losses: .* got dtype torch.bool"),
        (torch.arange(3), torch.ones(3, dtype=torch.complex64), r"losses: .* got dtype torch.complex64"),
    ],
)
def test_what_pack_refuses(items, losses, message):
    with pytest.raises(ValueError, match=message):
        pack(items, losses)


def test_a_transfer_is_a_copy():
    losses = torch.ones(4, requires_grad=True)
    transfer = Transfer(losses, torch.arange(4))
    with torch.no_grad():
        losses.zero_()
    values, indices = transfer.arrays()
    assert values.tolist() == [1.0] * 4
    assert values.dtype == np.float64
    assert indices.tolist() == [0, 1, 2, 3]


def test_what_counts_as_on_a_device():
    assert not on_device(torch.ones(1), np.ones(1), [1], None)
    assert on_device(torch.ones(1), torch.ones(1, device="meta"))
    assert to_array([1, 2]) == [1, 2]
    assert to_array(torch.tensor([0.5], dtype=torch.bfloat16)).dtype == np.float64


# -- which row is which


def some_draw(seed, n_items=12, n=20):
    """A draw with many repeats: a tiny pool, drawn more often than it has items."""
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(n_items) % 3), target=[0.7, 0.2, 0.1], seed=seed)
    return allocator.draw(n)


def slowly_matched(items, draw):
    """The first free row with that item, one by one."""
    free = list(range(len(draw.items)))
    rows = []
    for item in items:
        row = next(row for row in free if draw.items[row] == item)
        free.remove(row)
        rows.append(row)
    return rows


@given(st.integers(0, 50), st.data())
def test_rows_are_matched_as_one_by_one(seed, data):
    draw = some_draw(seed)
    rows = data.draw(st.permutations(range(20)))[: data.draw(st.integers(0, 20))]
    items = draw.items[np.array(rows, np.int64)]
    assert match_rows(items, draw).tolist() == slowly_matched(items, draw)


@given(st.integers(0, 50))
def test_blocks_of_ranks_in_order_match_themselves(seed):
    draw = some_draw(seed)
    assert match_rows(draw.items, draw).tolist() == list(range(20))
    blocks = np.concatenate([draw.items[:7], draw.items[7:7], draw.items[7:]])
    assert match_rows(blocks, draw).tolist() == list(range(20))


def test_foreign_and_repeated_rows_are_refused():
    draw = some_draw(0)
    absent = next(item for item in range(13) if item not in draw.items)
    with pytest.raises(
        ValueError, match=rf"1 of 2 rows are not in the oldest open batch \(round 0\), the first is {absent}\."
    ):
        match_rows(np.array([draw.items[0], absent]), draw)
    often = np.full(21, draw.items[0])
    with pytest.raises(
        ValueError, match=r"rows of round 0 are reported more often than they were drawn.*num_replicas= and rank="
    ):
        match_rows(often, draw)
    with pytest.raises(ValueError, match="more often"):
        match_rows(np.concatenate([draw.items, draw.items]), draw)


# -- on CUDA, where there is one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_observe_with_a_lag_does_not_wait_for_the_device():
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(64) % 4), seed=0, lag=2)
    sampler = allocator.sampler(batch_size=8, num_samples=64)
    stream, device = iter(sampler), torch.device("cuda")
    losses = torch.rand(8, device=device)
    batches = [torch.tensor([next(stream) for _ in range(8)]) for _ in range(2)]
    for batch in batches:
        torch.cuda.set_sync_debug_mode("error")
        try:
            sampler.observe(batch, losses)
            losses.zero_()  # what was reported is a copy
        finally:
            torch.cuda.set_sync_debug_mode("default")
    sampler.synchronize()
    assert allocator.round == 2
    assert allocator.estimate().mean.max() > 0
