"""What was aimed at, what was measured, and whether it was met: `table.md` and `scale.png`, from `results.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.plotting import STYLE

Results = Mapping[str, Any]


def aims(results: Results) -> list[tuple[str, str, str, str]]:
    """(what, aim, measured, met) of all that has an aim."""
    found: list[tuple[str, str, str, str]] = []

    def add(what: str, value: float, aim: float, form: str) -> None:
        found.append((what, f"≤ {form.format(aim)}", form.format(value), "yes" if value <= aim else "**no**"))

    for name, cell in results.get("fit", {}).items():
        add(f"{name}: processor time, two cores have 30 s in 15 s", cell["cpu_s"], 30, "{:.1f} s")
        add(f"{name}: memory over that of the subsample", cell["peak_mb"] / cell["subsample_mb"], 1.2, "{:.2f}")
    flat = [cell["peak_mb"] - 8e-6 * cell["rows"] for cell in results.get("assign", {}).values()]
    if flat:
        add("assignment: memory beyond the labels, most over least rows", max(flat) / min(flat), 1.2, "{:.2f}")
    for name, cell in results.get("shards", {}).items():
        add(f"{name} to a partition: memory", cell["peak_mb"] / 1000, 2, "{:.2f} GB")
    for name, cell in results.get("labels", {}).items():
        add(f"{name}: processor time", cell["cpu_s"], 60, "{:.1f} s")
        add(
            f"{name}: memory, the labels as given included", (cell["peak_mb"] + cell["given_mb"]) / 1000, 3, "{:.2f} GB"
        )
        add(f"{name}: open the file and draw", cell["open_and_draw_s"], 1, "{:.3f} s")
    return found


def table(results: Results) -> str:
    """All tables as Markdown."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, load average {machine['load']} before; {versions}; one thread.",
        "Times are of the processor: other processes were running, and clocks say little.",
        "",
    ]
    if results["smoke"]:
        lines += ["A smoke run, with small pools: its numbers mean nothing.", ""]
    lines += ["| what | aim | measured | met |", "|---|---:|---:|---|"]
    lines += [f"| {' | '.join(row)} |" for row in aims(results)]
    lines += ["", "| what | processor time, s | memory beyond the data, MB | |", "|---|---:|---:|---|"]
    for part in ("fit", "regions", "assign", "shards", "labels", "names"):
        for name, cell in results.get(part, {}).items():
            lines.append(f"| {name} | {cell['cpu_s']:.1f} | {cell['peak_mb']:.0f} | {_more(part, cell)} |")
    rivals = results.get("rivals", {})
    if rivals:
        base = rivals["aria-sampling"]
        lines += ["", f"| k-means of {_rows(results)} | processor time, s | inertia of unseen rows | memory, MB |"]
        lines += ["|---|---:|---:|---:|"]
        for name, cell in rivals.items():
            if "missing" in cell:
                lines.append(f"| {name} | not installed | | |")
                continue
            ratio = cell["inertia"] / base["inertia"] - 1
            lines.append(
                f"| {name} | {cell['cpu_s']:.1f} | {cell['inertia']:.5f} ({ratio:+.1%}) | {cell['peak_mb']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def _rows(results: Results) -> str:
    return next(iter(results.get("fit", {"all rows": 0}))).replace("float32, ", "float32 in memory, ")


def _more(part: str, cell: Mapping[str, Any]) -> str:
    if part in ("fit", "regions"):
        return f"subsample {cell['subsample_mb']:.0f} MB, inertia {cell['inertia']:.5f}"
    if part in ("assign", "shards"):
        return f"{cell['gb']:.1f} GB read"
    if part == "labels":
        file = f"saved in {cell['save_cpu_s']:.1f} s, {cell['bytes_per_item']:.1f} bytes an item"
        return f"{file}, open in {1e3 * cell['open_s']:.1f} ms"
    return f"{cell['with_terms']:,} of {cell['regions']:,} regions have terms"


def figure(results: Results, path: Path) -> None:
    """Time and inertia of all that fits; memory over the size of the pool."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rivals = {name: cell for name, cell in results.get("rivals", {}).items() if "missing" not in cell}
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(10, 3.6), layout="constrained")
        left, right = made.subplots(1, 2)
        base = rivals["aria-sampling"]["inertia"]
        for i, (name, cell) in enumerate(rivals.items()):
            own = name == "aria-sampling"
            left.plot(
                cell["cpu_s"], 100 * (cell["inertia"] / base - 1), "o", color="#c2410c" if own else f"C{i}", label=name
            )
        left.set_xscale("log")
        left.axhline(0, color="#22262e", lw=0.6)
        left.set_xlabel("processor time, s")
        left.set_ylabel("inertia of unseen rows, % over aria-sampling")
        left.set_title(_rows(results), fontsize=9)
        left.legend(fontsize=7)
        cells = [*results.get("assign", {}).values(), *results.get("shards", {}).values()]
        rows = [cell["rows"] / 1e6 for cell in cells]
        right.plot(rows, [cell["gb"] for cell in cells], "s--", color="#8a8f98", label="the embeddings")
        right.plot(
            rows, [cell["peak_mb"] / 1000 for cell in cells], "o-", color="#c2410c", label="memory to assign them"
        )
        right.set_xscale("log")
        right.set_yscale("log")
        right.set_xlabel("million rows, float16")
        right.set_ylabel("GB")
        right.set_title("Assignment from disk", fontsize=9)
        right.legend(fontsize=7)
        made.savefig(path)
