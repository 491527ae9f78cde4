"""What the allocator costs: steps of the study with it and with random conditioning by hand, in turns in one run.

Three arms train students of their own on the same batches, in an order that is shuffled every round; the second arm by
hand shows what is noise. Apart from `distill.py`, whose steps it takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from integrations._common.cost import ByHand, Timed, summary, timed

from . import models
from .distill import Loop, RunSettings, partition_of
from .methods import METHODS, make_switch
from .world import DATA, Emoji, scenario

_WARM = 5  # rounds that are not counted


def measure(settings: RunSettings, *, rounds: int, gpu_step_ms: float = 300.0) -> dict[str, Any]:
    """Times `rounds` steps of every arm, prints and returns what was found; `settings.method` is the arm "aria"."""
    torch.set_num_threads(1)
    cell, teacher = scenario(Emoji.load(), settings.unseen), models.load_teacher(DATA)
    partition = partition_of(settings, cell)
    switches = {
        "by hand": ByHand(len(cell.pool), 0),
        "by hand again": ByHand(len(cell.pool), 0),
        "aria": make_switch(METHODS[settings.method], partition, cell, seed=settings.seed, lam=settings.lam),
    }
    loops = {name: Loop(settings, cell, teacher, Timed(switch)) for name, switch in switches.items()}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    rng = np.random.default_rng(0)
    for number in range(_WARM + rounds):
        for name in rng.permutation(list(loops)).tolist():
            seconds[name].append(timed(loops[name].step, number))
    inside = {name: loop.switch.seconds[_WARM:] for name, loop in loops.items()}
    found = summary({name: taken[_WARM:] for name, taken in seconds.items()}, inside, gpu_step_ms=gpu_step_ms)
    return {"rounds": rounds, **settings.as_json(), "n_regions": partition.n_regions, **found}
