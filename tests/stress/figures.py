"""The figures of the failure campaign, from its JSON results."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from tests.stress.training import MODES, POINTS

PLACES = {
    "start": "starting up",
    "fetch": "in the loader",
    "fetched": "batch in hand",
    "parts": "between observe and step",
    "reported": "loss reported",
    "trained": "parameters stepped",
    "write": "writing a checkpoint",
    "written": "before moving it into place",
    "replaced": "checkpoint in place",
    "done": "finishing",
}
COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3")


def draw_all(results: Path, out: Path) -> list[Path]:
    """Draw a figure for each result that is there; return their paths."""
    drawn = []
    for name, draw in (("kills", kills), ("ranks", ranks), ("soak", soak)):
        source = results / f"{name}.json"
        if source.exists():
            figure = draw(json.loads(source.read_text(encoding="utf-8")))
            path = out / f"reliability_{name}.png"
            figure.savefig(path, dpi=110, bbox_inches="tight")
            plt.close(figure)
            drawn.append(path)
    return drawn


def kills(result: dict[str, Any]) -> Any:
    """Where the kills hit, by what the run was doing."""
    figure, axes = plt.subplots(figsize=(8.5, 4.2))
    left = np.zeros(len(POINTS))
    for mode, colour in zip(MODES, COLOURS, strict=True):
        hits = Counter(
            kill["at"] if kill["at"] in POINTS else "start" for kill in result["kills"] if kill["mode"] == mode
        )
        counts = np.array([hits[point] for point in POINTS])
        axes.barh(range(len(POINTS)), counts, left=left, color=colour, label=mode)
        left += counts
    for place, count in enumerate(left):
        axes.text(count + 0.5, place, f"{int(count)}", va="center", fontsize=9)
    axes.set_yticks(range(len(POINTS)), [PLACES[point] for point in POINTS])
    axes.invert_yaxis()
    axes.set_xlabel("times a run was killed there (SIGKILL)")
    axes.legend(title="kind of run", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    at_random = sum(kill["random"] for kill in result["kills"])
    figure.suptitle(
        f"{len(result['kills'])} kills, {at_random} of them at random moments; "
        f"runs that ended differently from one left alone: {len(result['problems'])}",
        fontsize=11,
    )
    return figure


def ranks(result: dict[str, Any]) -> Any:
    """How soon the other ranks ended after one was lost."""
    cases = result["interrupted"]
    figure, axes = plt.subplots(figsize=(8.5, 3.4))
    for place, case in enumerate(cases):
        seconds = [other["seconds"] for other in case["others"]]
        axes.plot(seconds, [place] * len(seconds), "o", color=COLOURS[0 if "killed" in case["what"] else 3], alpha=0.8)
    axes.axvline(cases[0]["timeout"], color="0.5", linestyle=":")
    axes.text(cases[0]["timeout"] + 0.15, -0.75, "timeout of the collective", color="0.4", fontsize=9)
    axes.set_yticks(range(len(cases)), [case["what"] for case in cases])
    axes.set_ylim(len(cases) - 0.4, -1.0)
    axes.set_xlim(0, None)
    axes.set_xlabel("seconds from the fault until each other rank had ended with an error")
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("When one rank is lost, no other hangs", fontsize=11)
    return figure


def soak(result: dict[str, Any]) -> Any:
    """Memory and time of a round over a million rounds."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(8.5, 4.6), sharex=True)
    rounds = np.array(result["rounds"]) / 1e6
    above.plot(rounds, result["memory"], color=COLOURS[0])
    above.set_ylabel("memory of the\nprocess, MB")
    above.set_ylim(0, 1.25 * max(result["memory"]))
    below.plot(rounds, result["microseconds"], color=COLOURS[1])
    below.set_ylabel("processor time\na round, µs")
    below.set_ylim(0, 1.25 * max(result["microseconds"]))
    below.set_xlabel("million rounds")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{result['rounds'][-1]:,} rounds, {result['rows']:,} rows: neither memory nor time grows, sums stay exact",
        fontsize=11,
    )
    return figure
