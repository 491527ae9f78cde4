"""The tables of `table.md`, from `results.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .gaps import FORCED, FREE


def table(results: Mapping[str, Any]) -> str:
    """All tables as Markdown."""
    return "\n".join(
        [*_radii(results["loop"]), *_accuracy(results["loop"]), *_bakeoff(results["bakeoff"]), *_gaps(results["gaps"])]
    )


def _grid(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    head = list(head)
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, *rows]]
    return [lines[0], "|---" + "|---:" * (len(head) - 1) + "|", *lines[1:], ""]


def _radii(loop: Mapping[str, Any]) -> list[str]:
    settings = loop["settings"]
    n = settings["seeds"]
    certified = {name: t for name, t in loop["trackings"].items() if "runs_outside" in t}
    upper = 1 - 0.05 ** (1 / n)
    rows = []
    for t in certified.values():
        outside, late = t["runs_outside"], t["rounds_outside_after_change"]
        rows.append(
            (
                t["title"],
                f"{outside['assumptions_hold']} of {n}",
                f"{outside['drift_bound_with_the_change']} of {n}",
                f"{outside['after_the_change']} of {n}",
                f"{late['median']:.0f} ({late['most']:.0f})",
                f"×{t['radius_with_change_over_without']:.0f}",
                f"{outside['true_sd_for_proxy']} of {n}",
            )
        )
    kinds = next(iter(certified.values()))["kinds"]
    width = [
        (
            f"{t['title']}: {kind}",
            f"{v['discrepancy']:.3f}",
            f"{v['radius']:.3f}",
            f"{100 * v['drift_share']:.0f}%",
            f"{v['rmse']:.4f}",
            f"{v['radius_over_rmse']:.1f}",
            f"{v['closest']:.2f}",
            f"{v['radius_sd_over_rmse']:.1f}",
        )
        for t in certified.values()
        for kind, v in ((kind, t["kinds"][kind]) for kind in kinds)
    ]
    return [
        "## Do the radii hold?",
        "",
        f"{n} runs of {settings['rounds']} rounds; a run is outside if any region is, at any look (every "
        f"{settings['every']} rounds). Promised: at most {100 * settings['alpha']:.0f}% of runs.",
        "",
        *_grid(
            (
                "tracking",
                "runs outside, assumptions hold",
                "with a drift bound that includes the change",
                "after the change, bound without it",
                "rounds until back inside: median (most)",
                "what including it does to the radius",
                "true sd for Lmax/2",
            ),
            rows,
        ),
        f"0 of {n} runs is compatible with any rate up to {100 * upper:.0f}% (95% confidence): that the radii hold is "
        "shown by the proof; this only finds no contradiction.",
        "",
        "## How wide are they?",
        "",
        *_grid(
            (
                "tracking: regions",
                "mean D",
                "median radius",
                "of it drift",
                "RMS error",
                "radius / RMS error",
                "largest error / radius",
                "with the true sd: radius / RMS error",
            ),
            width,
        ),
    ]


def _accuracy(loop: Mapping[str, Any]) -> list[str]:
    kinds = list(next(iter(loop["trackings"].values()))["kinds"])
    rows = [
        (t["title"], *(f"{t['kinds'][k]['rmse']:.4f} ({100 * t['kinds'][k]['within_2_stderr']:.0f}%)" for k in kinds))
        for t in loop["trackings"].values()
    ]
    return [
        "## RMS error in the loop, and how often the truth is within two standard errors",
        "",
        *_grid(("tracking", *kinds), rows),
        "A standard error covers the noise of losses and not their drift: it is no radius.",
        "",
    ]


def _bakeoff(bakeoff: Mapping[str, Any]) -> list[str]:
    lines = ["## Bake-off: mean squared error over that of the best fixed average in hindsight", ""]
    for name, measure in bakeoff["measures"].items():
        rows = [(k, f"{v['geomean']:.2f}", f"{v['worst']:.2f}") for k, v in measure["summary"].items()]
        lines += _grid((f"{name} errors", "geometric mean", "worst"), rows)
    measures = bakeoff["measures"]
    rows = []
    for absolute, relative in zip(measures["absolute"]["cells"], measures["relative"]["cells"], strict=True):
        best = [
            f"{c['best_family']}, {c['best_half_life']}" + ("" if c["interior"] else " (edge)")
            for c in (absolute, relative)
        ]
        both = [f"{absolute['ratios'][k]:.2f} / {relative['ratios'][k]:.2f}" for k in list(absolute["ratios"])[:3]]
        rows.append((f"{absolute['scenario']}, {absolute['regime']}", *both, f"{relative['best_mse']:.2g}", *best))
    head = ["cell: absolute / relative", *list(measures["absolute"]["cells"][0]["ratios"])[:3]]
    head += ["best relative MSE", "best fixed, absolute", "best fixed, relative"]
    lines += _grid(head, rows)
    return [*lines, "Edge: the plain mean of all losses, an infinite memory, was best; nothing lies beyond it.", ""]


def _gaps(gaps: Mapping[str, Any]) -> list[str]:
    over = [f"{100 * gaps['longer_than'][name][gaps['folklore']]:.0f}%" for name in (FREE, FORCED)]
    return [
        f"## Waits of a region that is due every {gaps['folklore']} draws",
        "",
        *_grid(
            ("", f"waits longer than {gaps['folklore']}", "longest", "guaranteed"),
            [
                (FREE, over[0], gaps["longest"][FREE], "nothing"),
                (FORCED, over[1], gaps["longest"][FORCED], gaps["guarantee"]),
            ],
        ),
    ]
