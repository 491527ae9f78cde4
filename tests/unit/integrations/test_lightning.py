"""`AriaCallback` under the real Lightning: it resumes bit for bit, ranks agree, what would mislead it is refused."""

import json
import logging
import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import WithIndex, dataloader

pytest.importorskip("lightning")

import lightning
from lightning.pytorch.loggers import CSVLogger

from aria_sampling.integrations.lightning import AriaCallback
from tests.unit.integrations import lightning_run
from tests.unit.integrations.lightning_run import BATCH, ITEMS, REGIONS, Denoiser, make_sampler, outcome, samples, train


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "level", logging.ERROR)


# -- resuming ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accumulate", "workers", "options", "steps"),
    [
        (1, 0, {"max_epochs": 2}, (3, 7, 10)),  # inside the first epoch, at its end, inside the second
        (3, 0, {"max_epochs": 2}, (2, 3, 5)),  # seven batches make two steps of three and one of one
        (1, 0, {"max_steps": 10, "max_epochs": -1}, (3, 7, 9)),
        pytest.param(2, 2, {"max_epochs": 3}, (3, 4, 6), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, accumulate, workers, options, steps):
    lag = workers * 2
    options = {"accumulate_grad_batches": accumulate, "workers": workers, **options}
    whole = outcome(*train(tmp_path, sampler=make_sampler(lag=lag), **options))
    for step in steps:
        checkpoint = str(tmp_path / f"step={step}.ckpt")
        resumed = outcome(*train(tmp_path / "again", sampler=make_sampler(lag=lag), resume=checkpoint, **options))
        assert 0 < len(resumed["rows"]) < len(whole["rows"])
        assert resumed["rows"] == whole["rows"][-len(resumed["rows"]) :]
        assert resumed["digest"] == whole["digest"]
        assert resumed["weights"] == whole["weights"]


EPOCHS, STEPS = {"max_epochs": 3}, {"max_steps": 18, "max_epochs": -1}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"max_steps": 4}, EPOCHS),  # 4 of 7 batches
        ({"max_steps": 4, "max_epochs": 3}, {"max_steps": 100, "max_epochs": 3}),
        ({"max_steps": 4, "max_epochs": -1}, STEPS),
        ({"max_steps": 7}, EPOCHS),  # the whole epoch
        ({"max_steps": 9, "max_epochs": -1}, EPOCHS),
        ({"max_epochs": 3, "stop": 4}, EPOCHS),
        ({"max_epochs": 1}, EPOCHS),
        ({"max_steps": 2, "accumulate_grad_batches": 2}, {"max_epochs": 3, "accumulate_grad_batches": 2}),
    ],
)
def test_a_run_that_was_stopped_inside_an_epoch_trains_all_batches(tmp_path, first, then):
    """From what is saved when it stops. Lightning counts an epoch that was cut short; its rest comes all the same.

    With a limit of epochs or of steps or both; by ``max_steps``, by a callback, or at the end of an epoch.
    """
    train(tmp_path, last=True, **first)
    whole = outcome(*train(tmp_path / "whole", **then))
    resumed = outcome(*train(tmp_path / "again", resume=str(tmp_path / "last.ckpt"), **then))
    missing = len(whole["rows"]) - len(resumed["rows"])
    assert missing == first.get("stop", first.get("max_steps", 7) * first.get("accumulate_grad_batches", 1))
    assert resumed["rows"] == whole["rows"][missing:]
    assert resumed["digest"] == whole["digest"]
    assert resumed["weights"] == whole["weights"]


@pytest.mark.slow
def test_two_ranks_agree_and_resume(tmp_path):
    subprocess.run([sys.executable, lightning_run.__file__, str(tmp_path)], timeout=180, check=True)
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    for run in ("whole", "again"):
        assert zero[run]["digest"] == one[run]["digest"] == zero["whole"]["digest"]
        assert zero[run]["weights"] == one[run]["weights"] == zero["whole"]["weights"]
    assert [len(rows) for rows in zero["whole"]["rows"]] == [8, 8, 8, 1] * 3  # of 16, 16, 16 and 2
    assert zero["whole"]["rows"] != one["whole"]["rows"]
    assert 0 < len(zero["again"]["rows"]) < len(zero["whole"]["rows"])


def test_a_checkpoint_from_before_says_what_to_do(tmp_path):
    train(tmp_path, max_steps=1)
    checkpoint = torch.load(tmp_path / "step=1.ckpt", weights_only=True)
    del checkpoint["callbacks"]["AriaCallback"]
    torch.save(checkpoint, tmp_path / "before.ckpt")
    with pytest.raises(aria.StateError, match=r"saved without it.*leave out ckpt_path"):
        train(tmp_path, resume=str(tmp_path / "before.ckpt"))


def test_a_state_of_another_corpus_is_refused(tmp_path):
    train(tmp_path, max_steps=1)
    with pytest.raises(aria.StateError, match="state of another pool"):
        train(tmp_path, sampler=make_sampler(regions=3), resume=str(tmp_path / "step=1.ckpt"))


# -- what it does besides ------------------------------------------------------------------------------


def test_every_batch_is_a_round_however_many_a_step(tmp_path):
    module, sampler = train(tmp_path, accumulate_grad_batches=4)
    assert sampler.allocator.round == len(module.rows) == 14


def test_metrics_go_to_the_logger(tmp_path):
    _, sampler = train(tmp_path, logger=CSVLogger(tmp_path, name="", version=""))
    header, *lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {f"aria/{name}" for name in sampler.allocator.metrics()} <= set(header.split(","))
    rounds = [float(line.split(",")[header.split(",").index("aria/round")]) for line in lines]
    assert rounds == [2, 4, 6, 8, 10, 12, 14]


def test_it_draws_more_where_the_loss_is(tmp_path):
    _, sampler = train(tmp_path, sampler=make_sampler(target="uniform"), max_epochs=4)
    assert sampler.allocator.probabilities.argmax() == REGIONS - 1  # whose samples are the largest


def test_a_training_step_may_report_by_itself(tmp_path):
    sampler = make_sampler()

    class Reporting(Denoiser):
        def training_step(self, batch, batch_idx):
            loss = self.losses(batch)
            if batch_idx % 2:
                sampler.observe(batch["index"], loss)
            else:
                sampler.step()
            return loss.mean()

    train(tmp_path, sampler=sampler, module=Reporting())
    assert sampler.allocator.round == 14


def test_manual_optimization_and_batches_that_are_tuples(tmp_path):
    class Manual(Denoiser):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            _, x = batch
            loss = (self.linear(x) - x).square().mean(dim=1)
            self.manual_backward(loss.mean())
            self.optimizers().step()
            return {"per_sample_loss": loss}

    sampler = make_sampler()
    rows = WithIndex([sample["x"] for sample in samples()])
    train(tmp_path, sampler=sampler, module=Manual(), loader=DataLoader(rows, batch_size=BATCH, sampler=sampler))
    assert sampler.allocator.round == 14


def test_a_loader_of_ours_needs_no_lag_to_be_set(tmp_path):
    allocator = make_sampler().allocator
    loader = dataloader(WithIndex(samples()), allocator, batch_size=BATCH)
    train(tmp_path, sampler=loader.sampler, loader=loader)
    assert allocator.round == 14


def test_one_batch_to_try_things_out(tmp_path):
    _, sampler = train(tmp_path, fast_dev_run=True)
    assert sampler.allocator.round == 1


# -- refusals ------------------------------------------------------------------------------------------


def test_a_distributed_sampler_in_its_place():
    ranks = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="use_distributed_sampler=False"):
        AriaCallback(make_sampler()).setup(ranks, Denoiser(), "fit")


def test_a_sampler_that_was_replaced(tmp_path):
    shuffled = DataLoader(WithIndex(samples()), batch_size=BATCH, shuffle=True)
    with pytest.raises(ValueError, match="rows come from RandomSampler, not from this sampler"):
        train(tmp_path, loader=shuffled)
    with pytest.raises(ValueError, match=r"rows come from SequentialSampler, not from this sampler"):
        train(tmp_path, overfit_batches=2)


def test_a_batch_size_that_counts_one_rank(tmp_path):
    sampler = make_sampler(batch_size=2 * BATCH)
    loader = DataLoader(WithIndex(samples()), batch_size=BATCH, sampler=sampler)
    with pytest.raises(ValueError, match=r"batches are 8 rows, and this sampler gives 16 a round"):
        train(tmp_path, sampler=sampler, loader=loader)


def test_batches_that_would_be_left_out(tmp_path):
    with pytest.raises(ValueError, match=r"3 batches an epoch, and the sampler draws 7; leave out limit_train_batches"):
        train(tmp_path, limit_train_batches=3)
    sampler = make_sampler()
    loader = DataLoader(WithIndex(samples()), batch_size=BATCH, sampler=sampler, drop_last=True)
    with pytest.raises(ValueError, match="it has drop_last=True, and its sampler does not know"):
        train(tmp_path, sampler=sampler, loader=loader)


def test_the_lag_is_set_before_the_workers_draw(tmp_path):
    _, sampler = train(tmp_path, workers=2)
    assert (sampler.allocator.lag, sampler.allocator.round) == (4, 14)


@pytest.mark.parametrize("attaches", [True, False])
def test_a_loader_that_the_module_makes_is_attached_there(tmp_path, attaches):
    sampler = make_sampler()

    class Loading(Denoiser):
        def train_dataloader(self):
            loader = DataLoader(WithIndex(samples()), batch_size=BATCH, sampler=sampler, num_workers=1)
            return sampler.attach(loader) if attaches else loader

    if attaches:
        train(tmp_path, sampler=sampler, module=Loading(), own_loader=True)
        assert sampler.allocator.round == 14
    else:
        with pytest.raises(aria.FeedbackLagError, match=r"call sampler.attach\(loader\) before its first batch"):
            train(tmp_path, sampler=sampler, module=Loading(), own_loader=True)


def test_batches_that_overtake(tmp_path):
    sampler = make_sampler()
    loader = DataLoader(WithIndex(samples()), batch_size=BATCH, sampler=sampler, num_workers=1, in_order=False)
    with pytest.raises(ValueError, match="with in_order=False a batch overtakes another"):
        train(tmp_path, sampler=sampler, loader=loader)


class Without(Denoiser):
    def training_step(self, batch, batch_idx):
        return self.losses(batch).mean()


class Averaged(Denoiser):
    def training_step(self, batch, batch_idx):
        loss = self.losses(batch).mean()
        return {"loss": loss, "per_sample_loss": loss}


class Nothing(Denoiser):
    def training_step(self, batch, batch_idx):
        return None


class Several(Denoiser):
    """Two losses a row."""

    flat = False

    def training_step(self, batch, batch_idx):
        loss = self.losses(batch)
        twice = torch.stack([loss, loss], dim=1)
        return {"loss": loss.mean(), "per_sample_loss": twice.flatten() if self.flat else twice}


class Flat(Several):
    flat = True


@pytest.mark.parametrize(
    ("module", "words"),
    [(Several, r"got shape \(8, 2\); .* loss\.mean\(dim=1\)"), (Flat, r"loss\.reshape\(8, -1\)\.mean\(dim=1\)")],
)
def test_several_losses_a_row(tmp_path, module, words):
    with pytest.raises(ValueError, match=words):
        train(tmp_path, module=module())


@pytest.mark.parametrize(("module", "got"), [(Without, "nothing"), (Averaged, r"shape \(\)"), (Nothing, "nothing")])
def test_a_round_that_was_not_closed(tmp_path, module, got):
    words = rf"training_step: round 0 was not closed: .* got {got}; use reduction='none' and return"
    with pytest.raises(ValueError, match=words):
        train(tmp_path, module=module())


# -- bad input -----------------------------------------------------------------------------------------


class NoRows(Denoiser):
    def training_step(self, batch, batch_idx):
        loss = self.losses(batch if isinstance(batch, dict) else {"x": batch[0]})
        return {"loss": loss.mean(), "per_sample_loss": loss}


@pytest.mark.parametrize("dataset", [samples(), [(sample["x"],) for sample in samples()]])
def test_a_batch_without_its_index(tmp_path, dataset):
    sampler = make_sampler()
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler)
    with pytest.raises(ValueError, match=r"batch: no row numbers.*DataLoader\(WithIndex\(dataset\), ...\)"):
        train(tmp_path, sampler=sampler, module=NoRows(), loader=loader)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (lambda row: row + ITEMS, r"indices: expected values in \[0, 50\)"),
        (lambda row: (row + 1) % ITEMS, "not its number in the dataset"),
    ],
)
def test_an_index_that_is_not_the_row(tmp_path, number, words):
    sampler = make_sampler()
    numbered = [{**sample, "index": number(row)} for row, sample in enumerate(samples())]
    with pytest.raises(ValueError, match=words):
        train(tmp_path, sampler=sampler, loader=DataLoader(numbered, batch_size=BATCH, sampler=sampler))


def test_a_pool_of_another_corpus(tmp_path):
    with pytest.raises(ValueError, match="dataset: it has 50 samples, and the allocator's partition 60 items"):
        train(tmp_path, sampler=make_sampler(items=60))


def test_testing_a_checkpoint_changes_no_allocation(tmp_path):
    _, sampler = train(tmp_path)

    class Testing(Denoiser):
        def test_step(self, batch, batch_idx):
            self.log("error", batch["x"].mean())

    before = sampler.allocator.digest()
    trainer = lightning.Trainer(
        callbacks=[AriaCallback(sampler)], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.test(Testing(), DataLoader(samples(), 8), ckpt_path=str(tmp_path / "step=3.ckpt"), verbose=False)
    assert sampler.allocator.digest() == before
