"""What the allocator costs: steps of `train.py --smoke` with and without it, alternating in one run.

    python -m integrations.rc_distillation.benchmark --rounds 300

Three arms take turns on the same models, in an order that is shuffled every round: random conditioning by hand, as it
would be written without this library, twice (their ratio shows how far noise alone goes), and with the allocator. A
step is what `train.py` does for a batch: encode, noise, switch, tokenise, teacher, student, backward, optimizer,
average, report. All figures are medians, so that what else the machine does weighs little.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel

import aria_sampling as aria
from aria_sampling.torch import RandomConditioning, WithIndex
from integrations._common import models, regions
from integrations._common.images import RandomImages, collate, some_prompts
from integrations.rc_distillation.conditions import Conditions
from integrations.rc_distillation.distil import Distiller
from integrations.rc_distillation.student import prune


class ByHand:
    """Random conditioning in four lines: each row switches by a coin, to a prompt of the pool drawn alike."""

    def __init__(self, n_pool: int, seed: int) -> None:
        self.n_pool, self.source = n_pool, torch.Generator().manual_seed(seed)

    def draw(self, steps: torch.Tensor, paired: torch.Tensor) -> Any:
        """Return mask and items, as the library's does."""
        del paired
        mask = torch.rand(len(steps), generator=self.source) < torch.exp(-5 * (1 - steps / 1000))
        items = torch.randint(self.n_pool, (int(mask.sum()),), generator=self.source)
        return SimpleNamespace(mask=mask, items=items)

    def observe(self, losses: torch.Tensor) -> None:
        """Take no notice."""


class Timed:
    """Another switch, with the time that each round spends in it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seconds: list[float] = []  # of each round

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        """Draw, and take the time."""
        begin = time.perf_counter()
        found = self.inner.draw(*args, **kwargs)
        self.seconds.append(time.perf_counter() - begin)
        return found

    def observe(self, losses: torch.Tensor) -> None:
        """Observe, and take the time."""
        begin = time.perf_counter()
        self.inner.observe(losses)
        self.seconds[-1] += time.perf_counter() - begin


class Arm:
    """A student, its optimizer and its switch."""

    def __init__(self, parts: Any, conditions: Conditions, switch: Any) -> None:
        self.switch = Timed(switch)
        self.student, self.passes = prune(parts.unet, "base"), 0
        self.optimizer = torch.optim.AdamW(self.student.parameters(), 1e-3)
        self.ema = EMAModel(self.student.parameters())
        teacher = copy.copy(parts)
        teacher.unet = copy.deepcopy(parts.unet)
        self.distiller = Distiller(
            teacher,
            self.student,
            self.student,
            "base",
            conditions=conditions,
            switch=self.switch,
            null_share=0.1,
            seed=0,
            rank=0,
        )

    def step(self, batch: Any) -> float:
        """Take one step; return its seconds."""
        begin = time.perf_counter()
        losses = self.distiller.losses(batch, self.passes)
        (losses.output + losses.features).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.student.parameters())
        self.distiller.observe(losses)
        self.passes += 1
        return time.perf_counter() - begin


def interval(seconds: dict[str, np.ndarray], over: str, under: str) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios of two arms, and its 95% interval by bootstrap over rounds."""
    ratios = seconds[over] / seconds[under]
    picks = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return float(np.median(ratios)), float(low), float(high)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--regions", type=int, default=12)
    parser.add_argument("--gpu_step_ms", type=float, default=300.0, help="the step that the result is carried over to")
    parser.add_argument("--json", type=Path, help="write the result there")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts, prompts = models.tiny(), some_prompts()
    images = WithIndex(RandomImages(prompts[:75]))
    parts.freeze("vae", "text_encoder", "unet", device="cpu", dtype=torch.float32)
    pool = regions.by_embedding(prompts, args.regions, parts.tokenizer, parts.text_encoder)
    conditions = Conditions(prompts, images.dataset.captions, parts.tokenizer, parts.text_encoder)
    switches = {
        "by hand": ByHand(len(prompts), 0),
        "by hand again": ByHand(len(prompts), 0),
        "aria": RandomConditioning(aria.Allocator(pool, target="uniform", seed=0, lag=1)),
    }
    arms = {name: Arm(parts, conditions, switch) for name, switch in switches.items()}
    rng, names = np.random.default_rng(0), list(arms)
    seconds = {name: np.zeros(args.rounds) for name in names}
    warm = 5
    for number in range(-warm, args.rounds):
        rows = rng.choice(len(images), args.batch, replace=False)
        batch = collate([images[int(row)] for row in rows])
        for name in rng.permutation(names):
            took = arms[name].step(batch)
            if number >= 0:
                seconds[name][number] = took

    found: dict[str, Any] = {"rounds": args.rounds, "batch": args.batch, "regions": args.regions}
    for name in names:
        found[name] = {
            "step_ms": float(np.median(seconds[name]) * 1e3),
            "switch_us": float(np.median(arms[name].switch.seconds[warm:]) * 1e6),
        }
        print(
            f"{name}: step {found[name]['step_ms']:.2f} ms, in draw() and observe() {found[name]['switch_us']:.0f} us"
        )
    for over in ("aria", "by hand again"):
        ratio, low, high = interval(seconds, over, "by hand")
        found[f"{over} / by hand"] = {"ratio": ratio, "low": low, "high": high}
        print(f"{over} / by hand: {ratio:.4f} (95% interval {low:.4f} to {high:.4f})")
    extra = found["aria"]["switch_us"] - found["by hand"]["switch_us"]
    share = extra / 1e3 / args.gpu_step_ms
    found["extra_us"], found["share_of_gpu_step"] = extra, share
    print(f"extra: {extra:.0f} us a step; of a step of {args.gpu_step_ms:g} ms that is {share:.3%}")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
