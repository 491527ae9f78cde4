"""A training script for Lightning, small enough for tests; `python lightning_run.py OUT` trains on two ranks."""

import json
import sys
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

import aria_sampling as aria
from aria_sampling.integrations.lightning import AriaCallback
from aria_sampling.torch import WithIndex

ITEMS, REGIONS, BATCH = 50, 5, 8  # seven batches an epoch, the last with two rows


class Denoiser(lightning.LightningModule):
    """Keeps the rows that it was trained on. Lightning saves no random state, so its noise is seeded batch by batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.rows = []

    def losses(self, batch):
        generator = torch.Generator().manual_seed(self.trainer.fit_loop.total_batch_idx)
        noise = 0.1 * torch.randn(batch["x"].shape, generator=generator)
        return (self.linear(batch["x"] + noise) - batch["x"]).square().mean(dim=1)

    def training_step(self, batch, batch_idx):
        self.rows.append(batch["index"].tolist())
        loss = self.losses(batch)
        return {"loss": loss.mean(), "per_sample_loss": loss}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class StopAfter(Callback):
    """Stops a run after so many batches, as early stopping inside an epoch does."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop |= trainer.fit_loop.total_batch_idx + 1 == self.batches


def samples(items=ITEMS):
    x = torch.randn(items, 4, generator=torch.Generator().manual_seed(0))
    return [{"x": x[row] * (1 + row % REGIONS)} for row in range(items)]


def make_sampler(*, items=ITEMS, batch_size=BATCH, regions=REGIONS, **options):
    pool = aria.Partition.from_labels([row % regions for row in range(items)])
    return aria.Allocator(pool, seed=0, **options).sampler(batch_size=batch_size, num_samples=items)


def train(
    out,
    *,
    sampler=None,
    module=None,
    loader=None,
    own_loader=False,
    resume=None,
    workers=0,
    logger=False,
    last=False,
    stop=None,
    **options,
):
    """Fit a module, freshly drawn, saving after every step, or with `last` when it stops; return module and sampler.

    With `own_loader` the module makes its loader; a callback stops it after `stop` batches.
    """
    torch.manual_seed(1)
    sampler = make_sampler() if sampler is None else sampler
    module = Denoiser() if module is None else module
    if loader is None and not own_loader:
        loader = DataLoader(WithIndex(samples()), batch_size=BATCH, sampler=sampler, num_workers=workers)
    often = {"every_n_train_steps": 1, "save_top_k": -1, "filename": "{step}"}
    saving = ModelCheckpoint(out, save_last=True) if last else ModelCheckpoint(out, **often)
    settings = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    callbacks = [AriaCallback(sampler), saving, StopAfter(stop)]
    trainer = lightning.Trainer(callbacks=callbacks, logger=logger, **(settings | options))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # of workers, and that the loader is not resumable: it is
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    return module, sampler


def outcome(module, sampler):
    """What two runs are compared by."""
    sampler.synchronize()
    return {
        "digest": sampler.allocator.digest(),
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "rows": module.rows,
    }


def main(out):
    """Train whole, and again from a checkpoint in the middle of an epoch, as one rank of two."""
    options = {"devices": 2, "strategy": "ddp", "accumulate_grad_batches": 2, "max_epochs": 3}

    def run(resume=None):
        sampler = make_sampler(batch_size=2 * BATCH, lag=1)
        return train(out, sampler=sampler, resume=resume, **options)

    whole, sampler = run()
    results = {"rank": sampler.rank, "whole": outcome(whole, sampler), "again": outcome(*run(str(out / "step=3.ckpt")))}
    (out / f"rank{sampler.rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
