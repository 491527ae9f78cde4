"""How often is the interval of the advice right, and how often the recommendation?

python -m benchmarks.advice --out benchmarks/advice/results      # some minutes on one core
python -m benchmarks.advice --quick --out runs/quick             # seconds: does it run
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import aria_sampling as aria
from benchmarks import EDITION

from .worlds import WORLDS, Setting, run, true_gain

SETTINGS = {
    "many regions": Setting(regions=200, rounds=400, every=10),
    "noisy losses": Setting(regions=100, rounds=400, every=10, noise=1.5, target="uniform"),
    "policy Reducible": Setting(regions=100, rounds=400, every=10, policy=aria.Reducible()),
    "few regions": Setting(regions=40, rounds=600, every=10, noise=1.4),  # of the tutorial, twice as long
}
AS_GOOD = 0.02  # a baseline that is worse by less is as good
MODES = {"as it comes": False, "regions_learn_alone=True": True}
ANSWERS = ("adaptive", "pool", "uniform", "undecided")


def one(name: str, setting: Setting, seed: int) -> dict[str, dict[str, Any]]:
    """One run: what was advised, by mode, and what is true."""
    world = WORLDS[name][1](np.random.default_rng([seed, list(WORLDS).index(name)]), setting.regions)
    history, draws = run(world, setting, seed)
    sizes = world.sizes / world.sizes.sum()
    out: dict[str, dict[str, Any]] = {}
    for mode, alone in MODES.items():
        advice = history.advice(regions_learn_alone=alone)
        out[mode] = {"recommendation": advice.recommendation}
        for baseline, shares, gain in (
            ("pool", sizes, advice.over_pool),
            ("uniform", np.full_like(sizes, 1 / len(sizes)), advice.over_uniform),
        ):
            truth = true_gain(world, history.allocator.target, draws, shares)
            out[mode][baseline] = {"truth": truth, "value": gain.value, "low": gain.low, "high": gain.high}
    return out


def judge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What there is to say of the runs of one world, setting and mode."""
    gains = [run[baseline] for run in runs for baseline in ("pool", "uniform")]
    says = [g for g in gains if np.isfinite(g["low"]) and np.isfinite(g["high"])]
    best = [min(run["pool"]["truth"], run["uniform"]["truth"]) for run in runs]
    said = [run["recommendation"] for run in runs]
    return {
        "runs": len(runs),
        "truth": float(np.mean(best)),
        "says": len(says) / len(gains),
        "value": float(np.mean([g["value"] for g in says])) if says else None,
        "covered": float(np.mean([g["low"] <= g["truth"] <= g["high"] for g in says])) if says else None,
        "width": float(np.median([g["high"] - g["low"] for g in says])) if says else None,
        "said": {answer: said.count(answer) for answer in ANSWERS},
        "wrongly adaptive": sum(a == "adaptive" and truth <= 1e-9 for a, truth in zip(said, best, strict=True)),
        "wrongly a baseline": sum(
            a in ("pool", "uniform") and run[a]["truth"] > AS_GOOD for a, run in zip(said, runs, strict=True)
        ),
    }


def _percent(value: float | None, form: str) -> str:
    return "" if value is None else f"{100 * value:{form}}%"


def table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines: list[str] = []
    for setting, modes in results["settings"].items():
        for mode, worlds in modes.items():
            lines += [
                f"## {setting[0].upper()}{setting[1:]}, {mode}",
                "",
                "| world | true gain | says something | estimate | holds the truth where it does | its width "
                "| adaptive / pool / uniform / undecided | wrongly adaptive | wrongly a baseline |",
                "|---|" + "---:|" * 8,
            ]
            for world, r in worlds.items():
                said = " / ".join(str(r["said"][answer]) for answer in ANSWERS)
                lines.append(
                    f"| {world} | {_percent(r['truth'], '+.1f')} | {_percent(r['says'], '.0f')} "
                    f"| {_percent(r['value'], '+.1f')} | {_percent(r['covered'], '.0f')} "
                    f"| {_percent(r['width'], '.1f')} | {said} | {r['wrongly adaptive']} | {r['wrongly a baseline']} |"
                )
            lines.append("")
    lines.append(
        f"{results['seeds']} runs a row. The true gain is over the better baseline; estimates and intervals are judged "
        "for both."
    )
    for mode in MODES:
        rows = [
            r
            for modes in results["settings"].values()
            for world, r in modes[mode].items()
            if mode == "as it comes" or not _teaches(world)
        ]
        where = "" if mode == "as it comes" else ", in worlds whose regions do learn alone"
        covered = [r["covered"] for r in rows if r["says"]]
        under = sum(share < 0.95 for share in covered)
        wrongly = [sum(r[what] for r in rows) for what in ("wrongly adaptive", "wrongly a baseline")]
        lines += [
            "",
            f"{mode[0].upper()}{mode[1:]}{where}: {sum(r['runs'] for r in rows)} runs. It says something in "
            f"{len(covered)} rows. There the interval holds the truth in {100 * np.mean(covered):.1f}% on average, and "
            f"in less than 95% in {under} of the rows. {wrongly[0]} runs were told `adaptive` though a baseline "
            f"was as good, and {wrongly[1]} a baseline that was more than {100 * AS_GOOD:.0f}% worse.",
        ]
    return "\n".join([*lines, ""])


def _teaches(world: str) -> bool:
    """Whether regions of a world learn from draws elsewhere."""
    return "shared" in world or "interacting" in world


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advice", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/advice"), help="where to write (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=20, help="runs of each world (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="does it run at all; its numbers mean little")
    args = parser.parse_args(argv)
    seeds = 1 if args.quick else args.seeds
    settings = {"quick": Setting(regions=6, rounds=60, every=4)} if args.quick else SETTINGS
    results: dict[str, Any] = {
        "edition": EDITION,
        "versions": {"aria_sampling": aria.__version__, "numpy": np.__version__},
        "seeds": seeds,
        "setting": {name: repr(setting) for name, setting in settings.items()},
        "worlds": {name: what for name, (what, _) in WORLDS.items()},
        "settings": {},
    }
    for name, setting in settings.items():
        runs = {world: [one(world, setting, seed) for seed in range(seeds)] for world in WORLDS}
        results["settings"][name] = {
            mode: {world: judge([run[mode] for run in every]) for world, every in runs.items()} for mode in MODES
        }
        print(name, flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(_rounded(results), indent=1) + "\n", encoding="utf-8")
    (args.out / "table.md").write_text(table(results), encoding="utf-8")
    print(table(results))


def _rounded(value: Any) -> Any:
    """Floats to six digits."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
