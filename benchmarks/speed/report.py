"""The tables of `table.md`, from `results.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .contenders import ARIA

TORCHRL = "torchrl PrioritizedSampler"


def table(results: Mapping[str, Any]) -> str:
    """All tables as Markdown, for the studies that there are."""
    parts = {
        "rounds": _rounds,
        "pools": _pools,
        "regions": lambda r: _sweep("regions", "A round by the number of regions", r["regions"], r["items"]),
        "rows": lambda r: _sweep("rows", "A round by the number of rows", r["rows"], r["items"]),
        "first_draw": _first,
        "memory": _memory,
        "loader": _loader,
        "ranks": _ranks,
    }
    lines = [_machine(results), ""]
    if {"rounds", "pools", "regions", "rows", "memory", "loader"} <= set(results):
        lines += aims(results)
    for name, part in parts.items():
        if name in results:
            lines += part(results)
    return "\n".join(lines)


def _machine(results: Mapping[str, Any]) -> str:
    machine, load = results["machine"], results["load"].values()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores; load average {min(load):.1f} to {max(load):.1f}; {versions}; "
        "one thread. Times of rounds are processor time."
    )


def aims(results: Mapping[str, Any]) -> list[str]:
    """What was aimed at, and what came of it."""
    rounds, pools = results["rounds"], results["pools"]["times"]
    largest = max(pools, key=int)
    pool_ratio = pools[largest]["times_first"][1]
    pool = max((p for p in rounds if p != "missing"), key=int)
    in_rows = results["regions"].get("1024", {}).get("median", float("nan"))
    rows = [
        (
            "a round of 256 rows, 1,024 regions",
            f"{results['items']:,} items",
            "100 µs",
            f"{in_rows:.0f} µs",
            in_rows <= 100,
        )
    ]
    if TORCHRL in rounds[pool]:
        ratio = 1 / rounds[pool][TORCHRL]["times_first"][1]
        rows.append(
            ("the same, over torchrl's sample and update", f"{int(pool):,} items", "1", f"{ratio:.2f}", ratio <= 1)
        )
    rows.append(
        (f"{int(largest):,} items over 1,000,000", "1,024 regions", "1.5", f"{pool_ratio:.2f}", pool_ratio <= 1.5)
    )
    if "65536" in results["regions"]:
        wide = results["regions"]["65536"]["median"]
        rows.append(
            ("a round with 65,536 regions", f"{results['items']:,} items", "1,000 µs", f"{wide:,.0f} µs", wide <= 1000)
        )
    held = results["memory"]["per_item"][ARIA]["after"]
    rows.append(
        ("memory an item", f"{results['first']:,} items, 1,024 regions", "6 bytes", f"{held:.2f} bytes", held <= 6.1)
    )
    for kind, cells in results["loader"].items():
        worst = min(cells, key=lambda workers: cells[workers]["ratio"][1])
        ratio = cells[worst]["ratio"][1]
        what = f"samples a second over RandomSampler's, {kind.lower()}"
        rows.append((what, f"worst of all workers: {worst}", "0.95", f"{ratio:.3f}", ratio >= 0.95))
    head = ("what", "where", "aim", "measured", "met")
    return _grid("Aims", head, [(*row[:4], "yes" if row[4] else "**no**") for row in rows])


def _grid(title: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, *rows]]
    return [f"### {title}", "", lines[0], "|---" + "|---:" * (len(head) - 1) + "|", *lines[1:], ""]


def _time(found: Mapping[str, Any]) -> list[str]:
    """Median with quartiles, fastest, by the clock."""
    return [
        f"{found['median']:,.0f} ({found['q25']:,.0f} to {found['q75']:,.0f})",
        f"{found['min']:,.0f}",
        f"{found['clock']:,.0f}",
    ]


_HEAD = ("median (quartiles), µs", "fastest", "by the clock")


def _rounds(results: Mapping[str, Any]) -> list[str]:
    lines = []
    for pool, found in results["rounds"].items():
        if pool == "missing":
            lines += [f"Not there: {', '.join(found)}.", ""] if found else []
            continue
        rows = [
            (name, *_time(cell), " to ".join(f"{v:.2f}" for v in (cell["times_first"][0], cell["times_first"][2])))
            for name, cell in found.items()
        ]
        title = f"A round of 256 rows, {int(pool):,} items, 1,024 regions"
        lines += _grid(title, ("sampler", *_HEAD, "times ours (quartiles)"), rows)
    return lines


def _pools(results: Mapping[str, Any]) -> list[str]:
    found, out = results["pools"]["times"], results["pools"]["left_out"]
    rows = [(f"{int(n):,}", *_time(found[n]), f"{found[n]['times_first'][1]:.2f}") for n in sorted(found, key=int)]
    lines = _grid("A round by the number of items, 1,024 regions", ("items", *_HEAD, "times 1,000,000"), rows)
    return lines + ([f"Too large for the memory at hand: {', '.join(f'{n:,}' for n in out)}.", ""] if out else [])


def _sweep(what: str, title: str, found: Mapping[str, Any], items: int) -> list[str]:
    return _grid(f"{title}, {items:,} items", (what, *_HEAD), [(f"{int(k):,}", *_time(v)) for k, v in found.items()])


def _first(results: Mapping[str, Any]) -> list[str]:
    rows = [(name, f"{1000 * value:,.1f}") for name, value in results["first_draw"].items()]
    return _grid(f"To the first index, {results['first']:,} items", ("sampler", "ms"), rows)


def _memory(results: Mapping[str, Any]) -> list[str]:
    found = results["memory"]
    rows = [(name, f"{cell['after']:.1f}", f"{cell['most']:.1f}") for name, cell in found["per_item"].items()]
    state = ", ".join(f"{value:.0f} with {int(k):,}" for k, value in found["state_per_region"].items())
    lines = _grid(f"Memory, {results['first']:,} items", ("sampler", "bytes an item", "at most, while made"), rows)
    return [*lines, f"Saved state, bytes a region: {state} regions.", ""]


def _loader(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            kind.lower(),
            workers,
            f"{cell['random']:,.0f}",
            f"{cell['aria']:,.0f}",
            " to ".join(f"{v:.3f}" for v in cell["ratio"][::2]),
            f"{cell['ratio'][1]:.3f}",
        )
        for kind, cells in results["loader"].items()
        for workers, cell in cells.items()
    ]
    head = ("data", "workers", "RandomSampler, samples/s", "adaptive, samples/s", "ratio (quartiles)", "median")
    return _grid("A loader, batches of 32", head, rows)


def _ranks(results: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            ranks,
            *(
                f"{cell[what][1]:,.0f} ({cell[what][0]:,.0f} to {cell[what][2]:,.0f})" if what in cell else ""
                for what in ("observe", "all_gather")
            ),
        )
        for ranks, cell in results["ranks"].items()
    ]
    head = ("ranks", "observe, µs (quartiles)", "a bare all_gather of as much")
    return _grid("Closing a round of 256 rows over gloo ranks on one machine", head, rows)
