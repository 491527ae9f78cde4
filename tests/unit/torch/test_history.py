"""The law of exact resume for a `History`: it survives what saves the rest of a run, and goes on bit for bit."""

from itertools import islice

import pytest
import torch.distributed.checkpoint as dcp
from torchdata.stateful_dataloader import StatefulDataLoader

import aria_sampling as aria
from tests.unit.torch.common import build, loss, through_torch


def run(*, state=None, lag=0, workers=0, **options):
    """A sampler, its loader, and a history that is thinned on the way."""
    sampler, loader = build(lag=lag, workers=workers, **options)
    history = aria.History(sampler.allocator, every=1, max_records=6)
    if state is not None:
        sampler.load_state_dict(state["sampler"])
        history.load_state_dict(state["history"])
    return sampler, loader, history


def train(sampler, loader, history, batches):
    """So many batches, over as many epochs as it takes."""
    while batches:
        for index in islice(loader, batches):
            sampler.observe(index, loss(index))
            history.record()
            batches -= 1
    return history


def saved(run):
    return {"sampler": run[0].state_dict(), "history": run[2].state_dict()}


@pytest.mark.parametrize("stop", [0, 3, 8, 13])
def test_through_a_file(stop):
    whole = train(*run(), 17)
    stopped = run()
    train(*stopped, stop)
    resumed = run(state=through_torch(saved(stopped)))
    assert train(*resumed, 17 - stop).state_dict() == whole.state_dict()


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("stop", [0, 3, 8, 13])
def test_through_a_distributed_checkpoint(stop, tmp_path):
    """Of the objects themselves, read into objects that are at another round."""
    whole, stopped, resumed = train(*run(), 17), run(), run()
    train(*stopped, stop)
    dcp.save({"sampler": stopped[0], "history": stopped[2]}, checkpoint_id=tmp_path, no_dist=True)
    train(*resumed, 5)
    dcp.load({"sampler": resumed[0], "history": resumed[2]}, checkpoint_id=tmp_path, no_dist=True)
    assert resumed[2].state_dict() == stopped[2].state_dict()
    assert train(*resumed, 17 - stop).state_dict() == whole.state_dict()


@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (6, 0), (8, 0), (8, 1)])
def test_beside_a_stateful_loader(stop, workers):
    """The sampler's state is in that of the loader; the history's is saved beside it."""
    options = {"lag": 4, "loader_class": StatefulDataLoader}
    whole = train(*run(lag=4), 17)
    sampler, loader, history = run(workers=workers, **options)
    train(sampler, loader, history, stop)
    state = through_torch({"loader": loader.state_dict(), "history": history.state_dict()})
    sampler, loader, history = run(workers=workers, **options)
    loader.load_state_dict(state["loader"])
    history.load_state_dict(state["history"])
    assert train(sampler, loader, history, 17 - stop).state_dict() == whole.state_dict()
