"""`AriaTrainer` under the real Trainer: it resumes bit for bit, ranks agree, and what would mislead it is refused."""

import json
import math
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.torch import WithIndex

pytest.importorskip("transformers")

from accelerate.parallelism_config import ParallelismConfig

from aria_sampling.integrations.transformers import STATE_FILE, AriaTrainer
from tests.unit.integrations import transformers_run
from tests.unit.integrations.transformers_run import BATCH, ITEMS, REGIONS, Denoiser, make, outcome, samples

ROOT = Path(__file__).parents[3]


def allocator(labels=None, **options):
    labels = [row % REGIONS for row in range(ITEMS)] if labels is None else labels
    return aria.Allocator(aria.Partition.from_labels(labels), seed=0, **options)


# -- resuming ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accumulate", "workers", "steps"),
    [
        (1, 0, (2, 7, 9)),  # inside the first epoch, at its end, inside the second
        (3, 0, (2, 3, 5)),  # seven batches make two steps of three and one of one
        pytest.param(2, 2, (3, 4, 6), marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, accumulate, workers, steps):
    arguments = {"gradient_accumulation_steps": accumulate, "dataloader_num_workers": workers, "save_steps": 1}
    whole = make(tmp_path, save_strategy="steps", **arguments)
    whole.train()
    assert whole.allocator.round == len(whole.rows) == whole.sampler.reported  # a round a batch, however many a step
    for step in steps:
        resumed = make(tmp_path, **arguments)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert resumed.rows == whole.rows[-len(resumed.rows) :]
        assert outcome(resumed)["digest"] == outcome(whole)["digest"]
        assert outcome(resumed)["weights"] == outcome(whole)["weights"]
        assert outcome(resumed)["epochs"][-3:] == outcome(whole)["epochs"][-3:]


def test_a_checkpoint_from_before_says_what_to_do(tmp_path):
    trainer = make(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    (tmp_path / "checkpoint-1" / STATE_FILE).unlink()
    with pytest.raises(aria.StateError, match=r"saved without AriaTrainer.*leave out resume_from_checkpoint"):
        make(tmp_path).train(resume_from_checkpoint=True)


def test_a_state_of_another_corpus_is_refused(tmp_path):
    make(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    other = allocator([row % 3 for row in range(ITEMS)])
    with pytest.raises(aria.StateError, match="state of another pool"):
        make(tmp_path, allocator=other).train(resume_from_checkpoint=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_ranks_agree_and_resume(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, transformers_run.__file__, str(tmp_path)],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
        )
        for port in [free_port()]
        for rank in range(2)
    ]
    assert [process.wait(timeout=180) for process in ranks] == [0, 0]
    zero, one = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert zero["whole"] == one["whole"]
    assert zero["again"]["digest"] == zero["whole"]["digest"] == one["again"]["digest"]
    assert zero["again"]["weights"] == zero["whole"]["weights"] == one["again"]["weights"]
    assert all(len(first) == len(second) == BATCH for first, second in zip(zero["rows"], one["rows"], strict=True))
    assert zero["rows"] != one["rows"]


# -- what it does besides ------------------------------------------------------------------------------


def test_metrics_come_with_the_logs_of_training_alone(tmp_path):
    trainer = make(
        tmp_path,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        label_names=["x"],
        keywords={"eval_dataset": samples()},
    )
    trainer.train()
    training = [entry for entry in trainer.state.log_history if "loss" in entry]
    others = [entry for entry in trainer.state.log_history if "loss" not in entry]
    assert all({f"aria/{name}" for name in trainer.allocator.metrics()} <= entry.keys() for entry in training)
    assert training[-1]["aria/round"] == 4
    assert any("eval_loss" in entry for entry in others)
    assert not any(key.startswith("aria/") for entry in others for key in entry)
    assert trainer.allocator.round == 4  # evaluation is no feedback


def test_it_draws_more_where_the_loss_is(tmp_path):
    trainer = make(tmp_path, allocator=allocator(target="uniform"), max_steps=30, learning_rate=0.0)
    trainer.train()
    assert trainer.allocator.probabilities.argmax() == REGIONS - 1  # whose samples are the largest


def test_a_loss_function_serves_as_well(tmp_path):
    def per_row(outputs, labels, num_items_in_batch=None):
        return (outputs["x"] - labels).square().mean(dim=1)

    class Relabelled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            return {"x": self.linear(x)}

    rows = WithIndex([{"x": sample["x"], "labels": sample["x"]} for sample in samples()])
    trainer = make(
        tmp_path,
        dataset=rows,
        model=Relabelled(),
        trainer=AriaTrainer,
        keywords={"compute_loss_func": per_row},
        gradient_accumulation_steps=2,
        max_steps=3,
    )
    trainer.train()
    assert trainer.allocator.round == 6
    first = trainer.state.log_history[0]["loss"]
    assert first == pytest.approx(trainer.allocator.metrics()["discrepancy"], rel=0.5)  # a mean, not a sum of two


def test_weighted_training_multiplies_each_row(tmp_path):
    runs = []
    for weighted in (False, True):
        skewed = allocator(target="uniform", exploration=0.5)
        arguments = {"max_steps": 12, "logging_steps": 1, "learning_rate": 0.0}
        runs.append(make(tmp_path, allocator=skewed, keywords={"weighted": weighted}, **arguments))
        runs[-1].train()
    plain, weighted = runs
    assert weighted.rows == plain.rows  # what is reported is not weighted
    first, second = ([entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in runs)
    assert first[0] == second[0]  # nothing was known yet, so nothing was drawn more often
    full = [number for number, rows in enumerate(plain.rows) if len(rows) == BATCH][2:]
    assert all(second[number] < first[number] for number in full)


class Alone(Denoiser):
    """As a script writes it that knows of no outputs: the losses are all that it returns."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs)


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("trainer", [Alone, Denoiser])
@pytest.mark.parametrize("labels", [["x"], []])
def test_an_evaluation_set(tmp_path, trainer, labels, indexed):
    """Whatever compute_loss returns, with labels and without, and with row numbers that the model does not take."""
    rows = [{"x": sample["x"]} for sample in samples(13)]
    made = make(
        tmp_path,
        trainer=trainer,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        label_names=labels,
        keywords={"eval_dataset": WithIndex(rows) if indexed else rows},
    )
    made.train()
    assert made.allocator.round == 2
    losses = [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]
    assert len(losses) == (2 if labels else 0)
    assert all(loss > 0 for loss in losses)
    found = made.predict(rows)
    assert ("test_loss" in found.metrics) == bool(labels)


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"remove_unused_columns": True}, r"remove_unused_columns=True\): expected False, since the index column"),
        ({"train_sampling_strategy": "group_by_length"}, "group_by_length.*the allocator decides"),
        ({"train_sampling_strategy": "sequential"}, "sequential.*expected 'random'"),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches=True.*only rank 0 would draw"),
        ({"accelerator_config": {"split_batches": True}}, "split_batches=True.*one batch of every rank"),
        ({"dataloader_in_order": False, "dataloader_num_workers": 1}, "dataloader_in_order.*expected True"),
        ({"ignore_data_skip": True}, "ignore_data_skip=True.*start anew"),
    ],
)
def test_arguments_that_would_stop_it_from_adapting(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        make(tmp_path, **arguments)


class OwnSampler(Denoiser):
    def _get_train_sampler(self, *_):
        return torch.utils.data.RandomSampler(self.train_dataset)


class OwnLoader(Denoiser):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=BATCH, shuffle=True)


class Resharded(Denoiser):
    def get_train_dataloader(self):
        from accelerate.data_loader import prepare_data_loader

        loader = DataLoader(self.train_dataset, batch_size=BATCH, sampler=self._get_train_sampler())
        return prepare_data_loader(loader, num_processes=2, process_index=0, put_on_device=False)


@pytest.mark.parametrize("trainer", [OwnSampler, OwnLoader, Resharded])
def test_a_sampler_that_was_replaced_or_sharded_again(tmp_path, trainer):
    with pytest.raises(ValueError, match="replaced the allocator's sampler, or deals its batches out a second time"):
        make(tmp_path, trainer=trainer).train()


def test_a_stream_has_no_sampler(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(samples())

    with pytest.raises(ValueError, match="a stream needs RegionMixture"):
        make(tmp_path, dataset=Stream()).train()


def test_ranks_that_hold_the_same_rows_need_a_group(tmp_path, monkeypatch):
    """Tensor parallelism of an accelerator: its processes are not all ranks with different data."""

    class Accelerator:
        num_processes, parallelism_config = 4, ParallelismConfig(tp_size=2, dp_shard_size=2)

        def __getattr__(self, name):
            return getattr(self.inner, name)

    def create(trainer):
        theirs(trainer)
        ours = Accelerator()
        ours.inner, trainer.accelerator = trainer.accelerator, ours

    theirs = Denoiser.create_accelerator_and_postprocess
    monkeypatch.setattr(Denoiser, "create_accelerator_and_postprocess", create)
    with pytest.raises(ValueError, match=r"group: 2 ranks each hold the same rows .* pass group="):
        make(tmp_path)
    trainer = make(tmp_path, keywords={"group": torch.distributed.GroupMember})  # any
    trainer._get_train_sampler()
    assert trainer.sampler.batch_size == 2 * BATCH


def test_a_lag_that_the_run_has_outgrown(tmp_path):
    begun = allocator()
    make(tmp_path, allocator=begun, max_steps=1).train()
    assert begun.lag == 1
    with pytest.raises(aria.FeedbackLagError, match=r"with 4 accumulation steps, draws 4 rounds ahead.*lag=4"):
        make(tmp_path, allocator=begun, gradient_accumulation_steps=4).train()


# -- bad input -----------------------------------------------------------------------------------------


class Averaged(Denoiser):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs).mean()


class PerElement(Denoiser):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return (model(inputs["x"])["x"] - inputs["x"]).square()


class Padded(Denoiser):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses = (model(inputs["x"])["x"] - inputs["x"]).square()
        return losses * (torch.arange(4) < 3)


class PerToken(PerElement):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs).flatten()


@pytest.mark.parametrize(
    ("trainer", "shape"),
    [
        (Averaged, r"got \(\); use reduction='none' and do not return loss.mean\(\)"),
        (PerElement, r"got \(8, 4\); use reduction='none' .* one a row is loss\.mean\(dim=1\)"),
        (PerToken, r"got \(32,\); .* one a row is loss\.reshape\(8, -1\)\.mean\(dim=1\)"),
        (Padded, r".* one a row is loss\.sum\(dim=1\) / counted\.sum\(dim=1\), where `counted` is True"),
    ],
)
def test_a_loss_that_is_not_one_a_row(tmp_path, trainer, shape):
    with pytest.raises(ValueError, match=rf"compute_loss.*one loss a row, shape \(8,\), {shape}"):
        make(tmp_path, trainer=trainer).train()


def test_the_loss_of_the_howto_is_the_mean_over_the_tokens_of_a_text():
    """Texts of unequal lengths on which every token is equally hard."""
    code = (ROOT / "docs/howto/transformers.md").read_text("utf-8")
    (function,) = re.findall(r"^def per_text\(.*?\n\n", code, re.S | re.M)
    names = {"cross_entropy": torch.nn.functional.cross_entropy}
    exec(function, names)
    labels = torch.where(torch.arange(9) < torch.tensor([2, 5, 9])[:, None], 3, -100)
    losses = names["per_text"](SimpleNamespace(logits=torch.zeros(3, 9, 5)), labels)
    assert losses.tolist() == pytest.approx([math.log(5)] * 3)


def test_a_batch_without_its_index(tmp_path):
    with pytest.raises(ValueError, match=r"no 'index'; use train_dataset=WithIndex\(dataset\)"):
        make(tmp_path, dataset=samples()).train()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (lambda row: row + ITEMS, r"indices: expected values in \[0, 50\)"),
        (lambda row: (row + 1) % ITEMS, "not its number in the dataset"),
    ],
)
def test_an_index_that_is_not_the_row(tmp_path, number, words):
    numbered = [{**sample, "index": number(row)} for row, sample in enumerate(samples())]
    with pytest.raises(ValueError, match=words):
        make(tmp_path, dataset=numbered).train()


def test_a_pool_of_another_corpus(tmp_path):
    with pytest.raises(ValueError, match="dataset: it has 50 samples, and the allocator's partition 60 items"):
        make(tmp_path, allocator=allocator([row % 3 for row in range(60)])).train()


def test_nothing_is_left_in_the_checkpoint_but_one_small_file(tmp_path):
    make(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    path = Path(tmp_path, "checkpoint-1", STATE_FILE)
    assert path.stat().st_size < 20_000
    assert torch.load(path, weights_only=True)["allocator"]["n_regions"] == REGIONS
