"""Many runs of the known world, judged: do the radii hold, how wide are they, and how good are the estimates.

Returns plain numbers and lists for `results.json`; apart from `loop.py`, which makes one run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .loop import ALPHA, Run, Settings, Tracking, proxy, run, trackings
from .world import World

SHOWN = {"stationary": 0, "decaying": 3, "changing": 6}  # the regions of the figure


def study(settings: Settings, seeds: int, report: Callable[[str], None] = print) -> dict[str, Any]:
    """All trackings on all seeds. Seeds are 0, 1, ...: the same noise for every tracking."""
    world = World()
    out: dict[str, Any] = {
        "settings": {**vars(settings), "change": settings.change, "alpha": ALPHA, "seeds": seeds},
        "regions": [vars(region) for region in world.regions],
        "loss_bound": world.loss_bound().round(4).tolist(),
        "trackings": {},
    }
    for tracking in trackings(world, settings):
        runs = [run(world, tracking, settings, seed) for seed in range(seeds)]
        out["trackings"][tracking.name] = {"title": tracking.title, **judge(world, tracking, settings, runs)}
        report(f"loop: {tracking.title}, {seeds} runs of {settings.rounds} rounds")
    return out


def judge(world: World, tracking: Tracking, settings: Settings, runs: list[Run]) -> dict[str, Any]:
    """What there is to say of one way to track."""
    looks = runs[0].looks
    truth = np.stack([r.truth[looks] for r in runs])  # [runs, looks, n_regions]
    error = np.abs(np.stack([r.mean for r in runs]) - truth)
    stderr = np.stack([r.stderr for r in runs])
    changed = (looks[:, None] >= settings.change) & world.of_kind("changing")
    answer: dict[str, Any] = {
        "kinds": {
            kind: {
                "discrepancy": float(truth[:, part].mean()),
                "rmse": _rms(error[:, part]),
                "within_2_stderr": float((error <= 2 * stderr)[:, part].mean()),
            }
            for kind, part in _parts(world, changed).items()
        },
        "trace": _trace(runs[0], looks),
    }
    if not tracking.certified:
        return answer
    drift, drift_all = (np.stack([r.drift(world, settings, with_change=c) for r in runs]) for c in (False, True))
    radius, radius_all, radius_sd = (np.empty_like(error) for _ in range(3))
    for i, r in enumerate(runs):
        radius[i], radius_all[i] = r.radius(drift[i]), r.radius(drift_all[i])
        single = proxy(world, tracking, settings) / (world.loss_bound() / 2)  # 1, or what a visit's count allows
        radius_sd[i] = r.noise * (r.loss_sd.max(0) * single / proxy(world, tracking, settings)) + drift[i] * r.age
    for kind, part in _parts(world, changed).items():
        answer["kinds"][kind] |= {
            "radius": float(np.median(radius[:, part])),
            "drift_share": float(np.median(1 - (np.stack([r.noise for r in runs]) / radius)[:, part])),
            "radius_over_rmse": float(np.median(radius[:, part]) / _rms(error[:, part])),
            "closest": float((error / radius)[:, part].max()),
            "radius_sd_over_rmse": float(np.median(radius_sd[:, part]) / _rms(error[:, part])),
        }
    answer["runs_outside"] = {
        "assumptions_hold": _failing((error > radius) & ~changed),
        "after_the_change": _failing((error > radius) & changed),
        "drift_bound_with_the_change": _failing(error > radius_all),
        "true_sd_for_proxy": _failing((error > radius_sd) & ~changed),
    }
    answer["rounds_outside_after_change"] = _rounds_outside(error > radius, changed, settings)
    answer["radius_with_change_over_without"] = float(np.median((radius_all / radius)[:, changed]))
    answer["proxy_over_sd"] = float(np.median([world.loss_bound() / 2 / r.loss_sd.max(0) for r in runs]))
    answer["trace"] |= _rounded({"radius": radius[0]})
    return answer


def _parts(world: World, changed: Any) -> dict[str, Any]:
    """Looks and regions of each kind, bool [looks, n_regions]; the changing ones apart, before and after."""
    every = np.ones_like(changed)
    changing = world.of_kind("changing") & every
    return {
        "stationary": world.of_kind("stationary") & every,
        "decaying": world.of_kind("decaying") & every,
        "changing, before": changing & ~changed,
        "changing, after": changing & changed,
    }


def _failing(outside: Any) -> int:
    """Number of runs with any look at any region outside."""
    return int(outside.any((1, 2)).sum())


def _rounds_outside(outside: Any, changed: Any, settings: Settings) -> dict[str, float]:
    """From the change until the last look outside, over runs and changing regions, in rounds."""
    spans = []
    first = int(np.flatnonzero(changed.any(1))[0])
    for k in np.flatnonzero(changed.any(0)):
        for one in outside[:, first:, k]:
            spans.append(settings.every * (np.flatnonzero(one)[-1] + 1) if one.any() else 0)
    return {"median": float(np.median(spans)), "most": float(np.max(spans))}


def _trace(one: Run, looks: Any) -> dict[str, Any]:
    """The first run in the three regions of the figure."""
    return {"rounds": looks.tolist(), **_rounded({"truth": one.truth[looks], "mean": one.mean})}


def _rounded(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: {kind: array[:, k].round(5).tolist() for kind, k in SHOWN.items()} for name, array in arrays.items()}


def _rms(values: Any) -> float:
    return float(np.sqrt((values**2).mean()))
