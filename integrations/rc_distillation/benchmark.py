"""What the allocator costs: steps of `train.py --smoke` with and without it, alternating in one run.

    python -m integrations.rc_distillation.benchmark --rounds 300

Three arms take turns on the same models, in an order that is shuffled every round. Two of them do random conditioning
by hand, as one would write it without this library; the ratio between them shows the noise of the measurement. The
third uses the allocator. A step is what `train.py` does for a batch: encode, noise, switch, tokenise, teacher, student,
backward, optimizer, average, report. All figures are medians of process time, which other work on the machine changes
little.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel

import aria_sampling as aria
from aria_sampling.torch import WithIndex
from integrations._common import models, regions
from integrations._common.cost import ByHand, Timed, summary
from integrations._common.images import RandomImages, collate, some_prompts
from integrations.rc_distillation.conditions import Conditions
from integrations.rc_distillation.distil import Distiller
from integrations.rc_distillation.student import prune


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
        begin = time.process_time()
        losses = self.distiller.losses(batch, self.passes)
        (losses.output + losses.features).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.step(self.student.parameters())
        self.distiller.observe(losses)
        self.passes += 1
        return time.process_time() - begin


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and return what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--regions", type=int, default=12)
    parser.add_argument("--gpu_step_ms", type=float, default=300.0, help="a step to extrapolate the result to")
    parser.add_argument("--json", type=Path, help="write the result there")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts, prompts = models.tiny(), some_prompts()
    images = WithIndex(RandomImages(prompts[:75]))
    parts.freeze("vae", "text_encoder", "unet", device="cpu", dtype=torch.float32)
    pool = regions.by_embedding(prompts, args.regions, parts)
    coverage = aria.Coverage(pool, items=range(75))
    conditions = Conditions(prompts, images.dataset.captions, parts.tokenizer, parts.text_encoder)
    switches = {
        "by hand": ByHand(len(prompts), 0),
        "by hand again": ByHand(len(prompts), 0),
        "aria": aria.RandomConditioning(aria.Allocator(pool, coverage=coverage, seed=0, lag=1)),
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
    inside = {name: arm.switch.seconds[warm:] for name, arm in arms.items()}
    found |= summary(seconds, inside, gpu_step_ms=args.gpu_step_ms)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    main()
