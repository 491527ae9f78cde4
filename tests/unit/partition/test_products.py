"""Products of partitions, as laws: items are together if both have them together; pairs are all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.partition import partition as module


@st.composite
def several(draw, n=3, centers=False):
    """Some partitions of the same items."""
    items = draw(st.integers(1, 25))
    pools = []
    for _ in range(n):
        labels = draw(st.lists(st.integers(0, 4), min_size=items, max_size=items))
        dense = np.unique(labels, return_inverse=True)[1]
        made = np.arange(dense.max() + 1.0)[:, None] * [1, 2] if centers else None
        pools.append(aria.Partition.from_labels(dense, centers=made))
    return pools


def together(pool):
    return pool.labels[:, None] == pool.labels


@given(several())
def test_items_are_together_if_both_have_them_together(pools):
    a, b, _ = pools
    product = a * b
    assert np.array_equal(together(product), together(a) & together(b))
    assert product.sizes.min() >= 1
    assert product == aria.Partition.product(a, b) == a.product(b)
    pairs = sorted(set(zip(a.labels.tolist(), b.labels.tolist(), strict=True)))
    assert product.names == tuple(f"{a.names[i]} × {b.names[j]}" for i, j in pairs)
    assert [pairs[k] for k in product.labels] == list(zip(a.labels.tolist(), b.labels.tolist(), strict=True))


@given(several())
def test_products_are_associative_and_commute_up_to_numbers(pools):
    a, b, c = pools
    assert (a * b) * c == a * (b * c)
    assert ((a * b) * c).names == (a * (b * c)).names
    assert np.array_equal(together(a * b), together(b * a))
    assert a * a == a
    one = aria.Partition.from_labels(np.zeros(a.n_items, int))
    assert a * one == a == one * a


@given(several(n=2))
def test_many_cells_are_found_as_few_are(pools):
    """A table of all cells, or a sort of the items, whichever is smaller."""
    a, b = pools
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_A_TIME", 3)
        product = a * b
    assert product == a * b
    cells, labels = np.unique(a.labels.astype(int) * b.n_regions + b.labels, return_inverse=True)
    assert product == aria.Partition.from_labels(labels)
    assert len(cells) == product.n_regions


@given(several(n=2, centers=True), st.data())
def test_centres_stand_side_by_side(pools, data):
    a, b = pools
    product = a * b
    for item in range(a.n_items):
        k = product.labels[item]
        assert product.centers[k].tolist() == [*a.centers[a.labels[item]], *b.centers[b.labels[item]]]
    own = np.concatenate([a.centers[a.labels], b.centers[b.labels]], axis=1)
    assert product.assign(own).tolist() == product.labels.tolist()
    assert (a * aria.Partition.from_labels(b.labels)).centers is None


@given(several(n=2), st.data())
def test_items_removed_from_either_are_removed(pools, data):
    a, b = pools
    items = st.lists(st.integers(0, a.n_items - 1), max_size=4)
    gone = data.draw(items), data.draw(items)
    if len({*gone[0], *gone[1]}) == a.n_items:
        return
    product = a.without(gone[0]) * b.without(gone[1])
    assert product == (a * b).without([*gone[0], *gone[1]])
    assert product.labels.tolist() == (a * b).labels.tolist()


@given(several(n=2), st.integers(1, 4))
def test_pairs_are_all_pairs(pools, at_a_time):
    a, b = pools
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_A_TIME", at_a_time)
        pool = a.pairs(b)
    assert pool.n_items == a.n_items * b.n_items
    assert pool.n_regions == a.n_regions * b.n_regions
    for item in range(pool.n_items):
        i, j = divmod(item, b.n_items)
        assert pool.names[pool.labels[item]] == f"{a.names[a.labels[i]]} × {b.names[b.labels[j]]}"
    assert pool.sizes.tolist() == np.outer(a.sizes, b.sizes).ravel().tolist()


@given(several(n=2), st.data())
def test_pairs_with_an_item_that_is_removed_are_removed(pools, data):
    a, b = pools
    i, j = data.draw(st.integers(0, a.n_items - 1)), data.draw(st.integers(0, b.n_items - 1))
    if a.n_items == 1 or b.n_items == 1:
        return
    pool = a.without([i]).pairs(b.without([j]))
    gone = {p * b.n_items + q for p in range(a.n_items) for q in range(b.n_items) if p == i or q == j}
    assert set(pool.removed.tolist()) == gone
    assert pool == a.pairs(b).without(sorted(gone))


def test_a_pool_by_sizes_is_a_factor_like_any_other():
    by_sizes, labels = aria.Partition.from_sizes([2, 1]), aria.Partition.from_labels([0, 1, 0])
    assert (by_sizes * labels).labels.tolist() == [0, 1, 2]
    assert labels.pairs(by_sizes).labels.tolist() == [0, 0, 1, 2, 2, 3, 0, 0, 1]


def test_what_is_no_factor():
    a, b = aria.Partition.from_labels([0, 1]), aria.Partition.from_labels([0, 1, 2])
    with pytest.raises(ValueError, match=r"other: expected a partition of the same 2 items, got one of 3.*pairs"):
        a * b
    for call in (a.product, a.pairs):
        with pytest.raises(ValueError, match="other: expected an instance of Partition"):
            call([0, 1])
    with pytest.raises(TypeError):
        a * 3
    with pytest.raises(ValueError, match=r"other: expected fewer than 1099511627776 pairs of items, got 2000000 × "):
        aria.Partition.from_sizes([2_000_000]).pairs(aria.Partition.from_sizes([2_000_000]))
