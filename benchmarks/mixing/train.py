"""One run: the model trained on what an allocator draws, and its losses on held-out text.

Apart from `study.py`, which knows many. The loop is the same for all methods: draw, losses, update, observe, step.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import aria_sampling as aria

from .corpus import Corpus
from .methods import METHODS, PROXY
from .model import ByteModel, evaluate, tokens_of


@dataclass(frozen=True)
class RunSettings:
    """All that decides a run, beside the corpus."""

    method: str
    seed: int
    steps: int = 500
    batch: int = 32
    width: int = 128
    lr: float = 3.2e-2

    def as_json(self) -> dict[str, Any]:
        """The same as a dictionary."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Trained:
    """What one training leaves.

    Attributes:
        model: The model.
        shares: Mean probability of each group over the steps, float64 [K].
        drawn: Sequences drawn of each group, int64 [K].
        halfway: Held-out losses after half of the steps, None unless asked for.
        train_loss: Mean loss of the rows of the last quarter of the steps, each group's by its size.
    """

    model: ByteModel
    shares: np.ndarray
    drawn: np.ndarray
    halfway: list[float] | None
    train_loss: float


def train(
    settings: RunSettings, corpus: Corpus, allocator: aria.Allocator, *, over: ByteModel | None = None,
    halfway: bool = False,
) -> Trained:  # fmt: skip
    """Train on `settings.steps` draws of `allocator`.

    Args:
        settings: Of the run.
        corpus: Its training sequences are the allocator's pool.
        allocator: Gets every sequence's loss.
        over: A reference model: the allocator then gets the loss in excess of its, clipped at 0 byte by byte.
        halfway: Whether to measure held-out losses at half time.
    """
    model = ByteModel(width=settings.width, seed=settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    n_regions = corpus.pool.n_regions
    shares, drawn, sums, middle = np.zeros(n_regions), np.zeros((2, n_regions), np.int64), np.zeros(n_regions), None
    for step in range(settings.steps):
        shares += allocator.probabilities / settings.steps
        draw = allocator.draw(settings.batch)
        tokens = tokens_of(corpus.train[draw.items])
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * _schedule(step, settings.steps)
        losses = model(tokens)
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        told = losses.detach()
        if over is not None:
            with torch.inference_mode():
                told = (told - over(tokens)).clamp(min=0)
        allocator.observe(draw.regions, told.mean(1).numpy())
        allocator.step()
        late = int(step >= 0.75 * settings.steps)
        np.add.at(drawn[late], draw.regions, 1)
        if late:
            np.add.at(sums, draw.regions, losses.detach().mean(1).numpy())
        if halfway and step + 1 == settings.steps // 2:
            middle = evaluate(model, corpus.held_out)
    seen = drawn[1] > 0
    train_loss = np.average(sums[seen] / drawn[1][seen], weights=corpus.pool.sizes[seen])
    return Trained(model, shares, drawn.sum(0), middle, float(train_loss))


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: a linear start over 5% of the steps, then half a cosine down to a tenth."""
    start = max(1, steps // 20)
    progress = max(0.0, (step - start) / max(1, steps - start))
    return min((step + 1) / start, 0.55 + 0.45 * math.cos(math.pi * progress))


def run(settings: RunSettings, corpus: Corpus) -> dict[str, Any]:
    """One run as JSON: settings, held-out losses by group, shares."""
    torch.set_num_threads(1)  # more threads sum in another order: results would depend on the machine's load
    started = time.process_time()
    arguments = METHODS[settings.method].settings()
    if arguments.get("target", "") is None:
        arguments["target"] = doremi_shares(settings, corpus)
    allocator = aria.Allocator(corpus.pool, seed=settings.seed, **arguments)
    trained = train(settings, corpus, allocator, halfway=METHODS[settings.method].start is None)
    return {
        **settings.as_json(),
        "losses": evaluate(trained.model, corpus.held_out),
        "halfway": trained.halfway,
        "shares": trained.shares.tolist(),
        "drawn": trained.drawn.tolist(),
        "train_loss": trained.train_loss,
        "cpu_seconds": time.process_time() - started,
    }


def doremi_shares(settings: RunSettings, corpus: Corpus) -> np.ndarray:
    """DoReMi's first two trainings: a reference on the pool, then a proxy whose mean shares are the answer."""
    pool = aria.Allocator(corpus.pool, seed=settings.seed, policy=aria.PoolPolicy())
    reference = train(settings, corpus, pool).model
    proxy = aria.Allocator(corpus.pool, seed=settings.seed, **PROXY)
    return train(settings, corpus, proxy, over=reference).shares
