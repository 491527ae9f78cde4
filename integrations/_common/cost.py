"""What timing a training loop with and without an allocator needs: the loop by hand, a stopwatch, and paired ratios.

Times are those of the process, not of the clock on the wall, so that other work on the machine counts for little.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class ByHand:
    """Random conditioning in four lines: a coin for each row, and prompts drawn uniformly from the pool."""

    def __init__(self, n_pool: int, seed: int) -> None:
        self.n_pool, self.source = n_pool, torch.Generator().manual_seed(seed)

    def draw(self, steps: Any) -> Any:
        """Return mask and items, as the library's does."""
        chance = torch.exp(-5 * (1 - torch.as_tensor(steps) / 1000))
        mask = torch.rand(len(chance), generator=self.source) < chance
        items = torch.randint(self.n_pool, (int(mask.sum()),), generator=self.source)
        return SimpleNamespace(mask=mask, items=items)

    def observe(self, losses: Any, *, credit: Any) -> None:
        """Do nothing."""


class Timed:
    """Measures the time that each round spends in another switch."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seconds: list[float] = []  # of each round

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        """Draw, and take the time."""
        begin = time.process_time()
        found = self.inner.draw(*args, **kwargs)
        self.seconds.append(time.process_time() - begin)
        return found

    def observe(self, *args: Any, **kwargs: Any) -> None:
        """Observe, and take the time."""
        begin = time.process_time()
        self.inner.observe(*args, **kwargs)
        self.seconds[-1] += time.process_time() - begin


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Return the median of the rounds' ratios, and its 95% interval by bootstrap over rounds."""
    ratios = np.asarray(over) / np.asarray(under)
    picks = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


def summary(
    seconds: Mapping[str, Sequence[float]], inside: Mapping[str, Sequence[float]], *, gpu_step_ms: float
) -> dict[str, Any]:
    """Print and return the times of the arms "by hand", "by hand again" and "aria".

    Args:
        seconds: Of each arm, the seconds of every round's step.
        inside: Of each arm, the seconds of every round in draw and observe.
        gpu_step_ms: A step, in milliseconds, to which the result is extrapolated.
    """
    found: dict[str, Any] = {}
    for name in seconds:
        step, within = float(np.median(seconds[name]) * 1e3), float(np.median(inside[name]) * 1e6)
        found[name] = {"step_ms": step, "switch_us": within}
        print(f"{name}: step {step:.2f} ms, in draw() and observe() {within:.0f} us")
    for over in ("aria", "by hand again"):
        found[f"{over} / by hand"] = r = ratio(seconds[over], seconds["by hand"])
        print(f"{over} / by hand: {r['ratio']:.4f} (95% interval {r['low']:.4f} to {r['high']:.4f})")
    found["extra_us"] = extra = found["aria"]["switch_us"] - found["by hand"]["switch_us"]
    found["share_of_step"] = extra / 1e3 / found["by hand"]["step_ms"]
    found["share_of_gpu_step"] = extra / 1e3 / gpu_step_ms
    print(
        f"extra: {extra:.0f} us a step: {found['share_of_step']:.3%} of it; of a step of {gpu_step_ms:g} ms "
        f"{found['share_of_gpu_step']:.3%}"
    )
    return found
