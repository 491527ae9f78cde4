"""What was aimed at, what was measured, and whether it was met: the tables of `table.md`, from `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .measures import CONDITIONING, TORCHRL

ROUND = "round of 256, {} regions, 20,000,000 items, over torchrl's"
AIMS: tuple[tuple[str, str, str, float], ...] = (
    (ROUND.format("1,024"), "rounds", "1024", 0.25),
    (ROUND.format("1,024") + ", with coverage", "rounds", "1024, coverage", 0.3),
    (ROUND.format("65,536"), "rounds", "65536", 0.8),
    (ROUND.format("65,536") + ", with coverage", "rounds", "65536, coverage", 1.3),
    (ROUND.format("1,000,000"), "rounds", "1000000", 1.5),
    (ROUND.format("1,000,000") + ", with coverage by counts", "rounds", "1000000, coverage", 13.0),
    ("RandomConditioning, draw and observe of 256 rows on CPU tensors, coverage, over torchrl's", "rounds",
     CONDITIONING, 200 / 320),
)  # fmt: skip
"""What may take at most so many times torchrl's `sample` and `update_priority` of 256 items out of 10,000,000."""


def rows(results: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(what, aim, measured, met) of all that was measured."""
    found: list[tuple[str, str, str, str]] = []

    def add(what: str, value: float, aim: float, *, least: bool = False, form: str = "{:.2f}") -> None:
        met = value >= aim if least else value <= aim
        sign = "≥" if least else "≤"
        found.append((what, f"{sign} {form.format(aim)}", form.format(value), "yes" if met else "**no**"))

    rounds = results.get("rounds", {})
    for what, _, key, aim in AIMS:
        if key in rounds and TORCHRL in rounds:
            add(what, rounds[key]["min"] / rounds[TORCHRL]["min"], aim)
    pools = results.get("pools", {})
    if len(pools) > 1:
        most, base = max(pools, key=int), min(pools, key=int)
        ratio = pools[most]["min"] / pools[base]["min"]
        add(f"round of 256, 1,024 regions: {int(most):,} items over {int(base):,}", ratio, 1.4)
    for kind, aim in (("Tensors", 0.8), ("Pictures", 0.98)):
        if kind in results.get("loaders", {}):
            pair = results["loaders"][kind]
            data = "data for free" if kind == "Tensors" else "JPEG pictures to decode"
            what = f"samples a second of a loader, no workers, batches of 32, {data}, over RandomSampler's"
            add(what, pair["random"]["min"] / pair["aria"]["min"], aim, least=True)
    if "memory" in results:
        add("memory an item, bytes", round(results["memory"]["bytes_per_item"], 1), 6.0, form="{:.1f}")
    if "imports" in results:
        cost = {name: f"{1e3 * value:.0f} ms" for name, value in results["imports"].items()}
        found.append(("import after NumPy", "none set", f"{cost['aria_sampling']} (NumPy {cost['numpy']})", ""))
    if "operations" in results:
        count = results["operations"][CONDITIONING]
        found.append(
            ("operations of torch in a round of RandomConditioning, CPU tensors", "none set", f"{count:.0f}", "")
        )
    return found


def table(results: Mapping[str, Any]) -> str:
    """Both tables as Markdown: the aims, and the times behind them."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load average {machine['load']}; {versions}; one thread.",
        "Ratios are of processor time, contenders in turns, each by its fastest turn.",
        "",
    ]
    if "rounds" in results and TORCHRL not in results["rounds"]:
        lines += ["torchrl is not installed: nothing to compare rounds with.", ""]
    if results["smoke"]:
        lines += ["A smoke run, with small pools: its numbers mean nothing.", ""]
    lines += ["| what | aim | measured | met |", "|---|---:|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(results)]
    lines += ["", "| call | fastest turn, µs | median, µs | calls |", "|---|---:|---:|---:|"]
    for part, calls in {**results, **results.get("loaders", {})}.items():
        if part in ("rounds", "pools", "Tensors", "Pictures"):
            lines += [
                f"| {_label(part, name)} | {1e6 * cell['min']:,.0f} | {1e6 * cell['median']:,.0f} | {cell['calls']:,} |"
                for name, cell in calls.items()
            ]
    return "\n".join(lines) + "\n"


def _label(part: str, name: str) -> str:
    number, _, more = name.partition(", ")
    if part == "rounds" and number.isdigit():
        return f"round, {int(number):,} regions{', with coverage' if more else ''}"
    if part == "pools":
        return f"round, 1,024 regions, {int(number):,} items"
    return f"round of {name}" if part == "rounds" else f"epoch of {part.lower()}, {name}"
