"""`WithIndex`: samples that say which one they are, and else the dataset as it was."""

import pickle
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from aria_sampling.torch import WithIndex, dataloader
from tests.unit.torch.common import BATCH, ITEMS, LOSSES, make


def test_with_index_through_a_loader():
    class Dictionaries(Dataset):
        def __len__(self):
            return ITEMS

        def __getitem__(self, index):
            return {"x": float(LOSSES[index])}

    loader = dataloader(WithIndex(Dictionaries()), make(), batch_size=BATCH)
    for batch in islice(loader, 2):
        assert batch["x"].tolist() == LOSSES[batch["index"]].tolist()
        loader.sampler.observe(batch["index"], batch["x"])
    loader = dataloader(WithIndex(TensorDataset(torch.as_tensor(LOSSES))), make(), batch_size=BATCH)
    for index, (x,) in islice(loader, 2):
        assert x.tolist() == LOSSES[index].tolist()
        loader.sampler.observe(index, x)
    assert loader.sampler.allocator.round == 2


def test_with_index_takes_no_entry_away():
    with pytest.raises(ValueError, match="entry 'index' already"):
        WithIndex([{"index": 5}])[0]
    original = {"x": 1}
    assert WithIndex([original])[0] == {"x": 1, "index": 0}
    assert original == {"x": 1}
    assert len(WithIndex("abc")) == 3


class Table(Dataset):
    """As a table of Hugging Face: whole batches at once, columns, and epochs."""

    def __init__(self, n=ITEMS):
        self.n, self.epoch, self.asked = n, None, []

    column_names = ("x",)
    features = {"x": "int64"}  # noqa: RUF012

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.asked.append(index)
        return {"x": 10 * index}

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [{"x": 10 * index} for index in indices]

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_whole_batches_are_asked_for_at_once():
    table = Table()
    loader = dataloader(WithIndex(table), make(), batch_size=BATCH)
    for batch in islice(loader, 3):
        assert (batch["x"] == 10 * batch["index"]).all()
        loader.sampler.observe(batch["index"], batch["x"])
    assert [len(indices) for indices in table.asked] == [BATCH] * 3


def test_a_dataset_without_whole_batches_has_none():
    assert not hasattr(WithIndex([1, 2]), "__getitems__")
    assert next(iter(DataLoader(WithIndex([5, 6]), batch_size=2)))[0].tolist() == [0, 1]
    short = WithIndex(Table(3))
    short.dataset.__class__ = type("Short", (Table,), {"__getitems__": lambda self, indices: []})
    with pytest.raises(ValueError, match="zip"):
        short.__getitems__([0, 1])


def test_everything_else_is_the_datasets():
    data = WithIndex(Table())
    assert (data.column_names, data.features) == (("x",), {"x": "int64"})
    data.set_epoch(3)
    assert data.dataset.epoch == 3
    assert len(data) == ITEMS
    assert not hasattr(data, "select")
    with pytest.raises(AttributeError, match="no attribute '__array__'"):
        data.__array__
    assert [sample["index"] for sample in Subset(data, [4, 7]).__getitems__([1, 0])] == [7, 4]


@pytest.mark.parametrize("workers", [0, 1])
def test_it_goes_to_workers_that_are_spawned(workers):
    data = pickle.loads(pickle.dumps(WithIndex(Table())))
    assert data[3] == {"x": 30, "index": 3}
    context = {"multiprocessing_context": "spawn"} if workers else {}
    loader = dataloader(data, make(), batch_size=BATCH, num_workers=workers, **context)
    batch = next(iter(loader))
    assert (batch["x"] == 10 * batch["index"]).all()


@pytest.mark.parametrize("wrong", [None, iter([1]), {1}, 5])
def test_what_is_not_map_style_is_refused(wrong):
    with pytest.raises(ValueError, match="dataset: expected a map-style one"):
        WithIndex(wrong)
