"""`RegionMixture` over real webdataset shards: what resumes exactly, what cannot, and how bad input is refused."""

import io
from itertools import islice

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import RegionMixture

pytest.importorskip("webdataset")

import webdataset as wds

from integrations.webdataset_streaming.train import Shards, write_shards

REGIONS, BATCH = ("coarse", "fine", "medium"), 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three regions of three shards of 40 samples."""
    path = tmp_path_factory.mktemp("shards")
    write_shards(path)
    return path


def seeded(folder, workers=0):
    return {region: Shards(folder / region, buffer=30, workers=workers) for region in REGIONS}


def unseeded(folder):
    def stream(region):
        shards = sorted(map(str, (folder / region).glob("*.tar")))
        return wds.WebDataset(shards, shardshuffle=3).shuffle(30).decode().rename(x="image.npy", label="cls")

    return {region: stream(region) for region in REGIONS}


def mixed(sources):
    pool = aria.Partition.from_labels(range(len(sources)), names=list(sources))
    return RegionMixture(sources, aria.Allocator(pool, target="uniform", seed=0), batch_size=BATCH)


def train(mixture, steps, state=None):
    """Train a small model; return what came, the state after every step, and the parameters."""
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        mixture.load_state_dict(state["mixture"])
    seen, states = [], []
    for batch in islice(DataLoader(mixture, batch_size=BATCH), steps):
        images = batch["x"].flatten(1)
        loss = (model(images) - images).square().mean(dim=1)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        mixture.observe(batch["region"], loss)
        seen.append(list(zip(batch["region"].tolist(), batch["__key__"], strict=True)))
        parts = {"model": model, "optimizer": optimizer, "mixture": mixture}
        states.append(through_a_file({name: part.state_dict() for name, part in parts.items()}))
    return seen, states, model.state_dict()


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


# -- streams -------------------------------------------------------------------------------------------


def keys(stream):
    return [sample["__key__"] for sample in stream]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_is_every_sample_once_in_an_order_of_its_own(folder, workers):
    first = keys(Shards(folder / "fine", workers=workers))
    assert len(first) == len(set(first)) == 120
    assert keys(Shards(folder / "fine", workers=workers)) == first
    again = Shards(folder / "fine", workers=workers)
    again.set_epoch(1)
    second = keys(again)
    assert second != first
    assert sorted(second) == sorted(first)


def test_ranks_read_different_shards(folder):
    parts = [set(keys(Shards(folder / "fine", rank=rank, ranks=2))) for rank in range(2)]
    assert len(parts[0]) == 80
    assert len(parts[1]) == 40
    assert not parts[0] & parts[1]


# -- resuming ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_seeded_pipeline_resumes_exactly(folder, workers):
    seen, states, weights = train(mixed(seeded(folder, workers)), 60)  # 480 of 360 samples: some pass begins anew
    assert any(source["cycle"] for source in states[-1]["mixture"]["sources"])
    for step in (1, 20, 50):
        rest, later, same = train(mixed(seeded(folder, workers)), 60 - step, states[step - 1])
        assert rest == seen[step:]
        assert later[-1]["mixture"] == states[-1]["mixture"]
        assert all(map(torch.equal, same.values(), weights.values()))


def play(mixture, rounds):
    """Losses by region alone, so that the allocation does not depend on the samples."""
    seen = []
    for batch in islice(DataLoader(mixture, batch_size=BATCH), rounds):
        mixture.observe(batch["region"], 1.0 + batch["region"])
        seen += zip(batch["region"].tolist(), batch["__key__"], strict=True)
    return seen


def test_a_pipeline_shuffled_without_a_seed_resumes_with_other_samples(folder):
    mixture = mixed(unseeded(folder))
    play(mixture, 5)
    state = mixture.state_dict()
    rest = play(mixture, 10)
    resumed = mixed(unseeded(folder))
    resumed.load_state_dict(state)
    other = play(resumed, 10)
    assert [region for region, _ in other] == [region for region, _ in rest]  # the allocation is the same
    assert other != rest
    assert resumed.allocator.digest() == mixture.allocator.digest()
    assert [s["position"] for s in resumed.state_dict()["sources"]] == [
        s["position"] for s in mixture.state_dict()["sources"]
    ]


def test_an_iterator_cannot_go_back(folder):
    mixture = mixed({region: iter(stream) for region, stream in seeded(folder).items()})
    play(mixture, 3)
    resumed = mixed({region: iter(stream) for region, stream in seeded(folder).items()})
    with pytest.raises(aria.StateError, match=r"source is an iterator, which\s+cannot go back"):
        resumed.load_state_dict(mixture.state_dict())


def test_resampled_shards_never_end(folder):
    def stream(region):
        shards = sorted(map(str, (folder / region).glob("*.tar")))
        return wds.WebDataset(shards, resampled=True, shardshuffle=False).decode()

    mixture = mixed({region: stream(region) for region in REGIONS})
    assert len(play(mixture, 60)) == 480
    assert all(source["cycle"] == 0 for source in mixture.state_dict()["sources"])


# -- bad input -----------------------------------------------------------------------------------------


def opened(folder):
    mixture = mixed(seeded(folder))
    return mixture, next(iter(DataLoader(mixture, batch_size=BATCH)))


def test_a_loss_that_is_averaged(folder):
    mixture, batch = opened(folder)
    with pytest.raises(ValueError, match=r"losses: .*already averaged.*reduction='none'"):
        mixture.observe(batch["region"], torch.ones(BATCH).mean())


@pytest.mark.parametrize("regions", [[3] * BATCH, [-1] * BATCH, torch.zeros(BATCH)])
def test_regions_that_did_not_come_with_the_batch(folder, regions):
    mixture, _ = opened(folder)
    with pytest.raises(ValueError, match=r"regions: .*pass on what came with the batch: its entry 'region'"):
        mixture.observe(regions, torch.ones(BATCH))
    assert mixture.allocator.round == 0


def test_no_regions_at_all(folder):
    mixture, _ = opened(folder)
    with pytest.raises(ValueError, match=r"regions: expected a one-dimensional array of integers, got NoneType None"):
        mixture.observe(None, torch.ones(BATCH))
    assert mixture.allocator.round == 0


def test_a_pool_of_another_corpus(folder):
    pool = aria.Partition.from_labels(range(5))
    with pytest.raises(ValueError, match="sources: expected 5, one a region, got 3"):
        RegionMixture(seeded(folder), aria.Allocator(pool), batch_size=BATCH)


def test_a_state_of_other_sources(folder):
    state = mixed(seeded(folder)).state_dict()
    other = {name.upper(): source for name, source in seeded(folder).items()}
    with pytest.raises(aria.StateError, match=r"names=\['coarse', 'fine', 'medium'\] there"):
        mixed(other).load_state_dict(state)


def test_workers_belong_to_the_sources(folder):
    with pytest.raises(RuntimeError, match="Use num_workers=0, and give workers to the sources"):
        next(iter(DataLoader(mixed(seeded(folder)), batch_size=BATCH, num_workers=1)))


def test_a_folder_without_shards(tmp_path):
    with pytest.raises(ValueError, match=r"no \.tar files"):
        Shards(tmp_path)
