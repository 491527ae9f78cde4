"""A script for Hugging Face's Trainer, small enough for tests; `python transformers_run.py OUT` is a rank."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn
from transformers import TrainingArguments

import aria_sampling as aria
from aria_sampling.integrations.transformers import AriaTrainer
from aria_sampling.torch import WithIndex

ITEMS, REGIONS, BATCH = 50, 5, 8  # seven batches an epoch, the last with two rows


class Model(nn.Module):
    """Needs random numbers in every step, so that a resumed run is right only if these are restored, too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return {"x": self.linear(x + 0.1 * torch.randn_like(x))}


class Denoiser(AriaTrainer):
    """Keeps the rows that it was trained on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.rows = []

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(inputs["x"])
        loss = (outputs["x"] - inputs["x"]).square().mean(dim=1)
        if model.training:
            self.rows.append(inputs["row"].tolist())
        return (loss, outputs) if return_outputs else loss


def samples(items=ITEMS):
    x = torch.randn(items, 4, generator=torch.Generator().manual_seed(0))
    return [{"x": x[row] * (1 + row % REGIONS), "row": row} for row in range(items)]


def make(out, *, dataset=None, allocator=None, model=None, trainer=Denoiser, keywords=None, **arguments):
    """Return a trainer, its model freshly drawn."""
    torch.manual_seed(1)
    settings = {
        "max_steps": 10,
        "per_device_train_batch_size": BATCH,
        "use_cpu": True,
        "remove_unused_columns": False,
        "logging_steps": 2,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "ddp_find_unused_parameters": False,
    }
    if allocator is None:
        allocator = aria.Allocator(aria.Partition.from_labels([row % REGIONS for row in range(ITEMS)]), seed=0)
    return trainer(
        model=Model() if model is None else model,
        args=TrainingArguments(str(out), **(settings | arguments)),
        train_dataset=WithIndex(samples()) if dataset is None else dataset,
        allocator=allocator,
        **(keywords or {}),
    )


def outcome(trainer):
    """What two runs are compared by."""
    trainer.sampler.synchronize()
    return {
        "digest": trainer.allocator.digest(),
        "round": trainer.allocator.round,
        "weights": {name: value.tolist() for name, value in trainer.model.state_dict().items()},
        "epochs": [entry["epoch"] for entry in trainer.state.log_history],
    }


def main(out):
    """Train whole, and again from a checkpoint in the middle of an epoch, as one rank of several."""
    arguments = {"gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 5}
    whole = make(out / "run", **arguments)
    whole.train()
    again = make(out / "run", **arguments)
    again.train(resume_from_checkpoint=str(out / "run" / "checkpoint-5"))
    results = {"whole": outcome(whole), "again": outcome(again), "rows": whole.rows}
    (out / f"rank{os.environ['RANK']}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
