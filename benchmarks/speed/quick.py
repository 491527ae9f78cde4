"""The check for CI: has a round become slow? Ratios to yardsticks of the same run, so that machines differ little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aria_sampling as aria

from .contenders import aria_round, loss_resampler, pool, torch_weighted
from .timing import race

TOLERANCE = 2.0  # a ratio may be this much of the committed one
RULE, TORCH = "loss resampler, 1,024 regions", "torch WeightedRandomSampler, 1M items"


def measure(seconds: float = 25.0) -> dict[str, Any]:
    """Lower quartiles of processor time, µs, and ratios of rounds to two yardsticks: many small calls, one large."""
    partition = pool(1_000_000, 1024)
    times = race(
        {
            "256 rows, 1,024 regions": aria_round(partition, 256),
            "256 rows, 1,024 regions, Ema": aria_round(partition, 256, estimator=aria.Ema()),
            "4,096 rows, 1,024 regions": aria_round(partition, 4096),
            "256 rows, 65,536 regions": aria_round(pool(1_000_000, 65_536), 256),
            RULE: loss_resampler(1024, 256),
            TORCH: torch_weighted(1_000_000, 256),
        },
        seconds=seconds,
    )
    low = {name: found["q25"] for name, found in times.items()}
    rounds = [name for name in low if name not in (RULE, TORCH)]
    return {"q25": low, "ratios": {f"{r} / {y}": low[r] / low[y] for y in (RULE, TORCH) for r in rounds}}


def table(results: Mapping[str, Any]) -> str:
    """What was measured, as Markdown."""
    lines = [f"| {name} | {value:.0f} |" for name, value in results["q25"].items()]
    return "\n".join(["| call | µs (lower quartile) |", "|---|---:|", *lines])


def compare(now: Mapping[str, Any], before: Mapping[str, Any]) -> int:
    """Return 1 if a round is slower than before by both yardsticks, beyond the tolerance, and say which; else 0."""
    slow = []
    for name in before["q25"]:
        if name in (RULE, TORCH):
            continue
        change = min(
            now["ratios"][key] / before["ratios"][key] for key in before["ratios"] if key.startswith(f"{name} /")
        )
        print(f"{name}: {change:.2f} times the committed ratio")
        slow += [name] if change > TOLERANCE else []
    if slow:
        print(f"slower than {TOLERANCE:g} times before: {', '.join(slow)}")
    return int(bool(slow))
