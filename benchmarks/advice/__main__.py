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
}
AS_GOOD = 0.02  # a baseline that is worse by less is as good
ANSWERS = ("adaptive", "pool", "uniform", "undecided")


def one(name: str, setting: Setting, seed: int) -> dict[str, Any]:
    """One run: what was advised, and what is true."""
    world = WORLDS[name][1](np.random.default_rng([seed, list(WORLDS).index(name)]), setting.regions)
    history, draws = run(world, setting, seed)
    advice = history.advice()
    sizes = world.sizes / world.sizes.sum()
    out: dict[str, Any] = {"recommendation": advice.recommendation}
    for baseline, shares, gain in (
        ("pool", sizes, advice.over_pool),
        ("uniform", np.full_like(sizes, 1 / len(sizes)), advice.over_uniform),
    ):
        truth = true_gain(world, history.allocator.target, draws, shares)
        out[baseline] = {"truth": truth, "value": gain.value, "low": gain.low, "high": gain.high}
    return out


def judge(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What there is to say of the runs of one world and setting."""
    gains = [run[baseline] for run in runs for baseline in ("pool", "uniform")]
    best = [min(run["pool"]["truth"], run["uniform"]["truth"]) for run in runs]
    said = [run["recommendation"] for run in runs]
    return {
        "runs": len(runs),
        "truth": float(np.mean(best)),
        "value": float(np.mean([min(run["pool"]["value"], run["uniform"]["value"]) for run in runs])),
        "covered": float(np.mean([g["low"] <= g["truth"] <= g["high"] for g in gains])),
        "width": float(np.median([g["high"] - g["low"] for g in gains])),
        "said": {answer: said.count(answer) for answer in ANSWERS},
        "wrongly adaptive": sum(a == "adaptive" and truth <= 1e-9 for a, truth in zip(said, best, strict=True)),
        "wrongly a baseline": sum(
            a in ("pool", "uniform") and run[a]["truth"] > AS_GOOD for a, run in zip(said, runs, strict=True)
        ),
    }


def table(results: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines: list[str] = []
    for setting, worlds in results["settings"].items():
        lines += [
            f"## {setting[0].upper()}{setting[1:]}",
            "",
            "| world | true gain | estimate | interval holds the truth | its width "
            "| adaptive / pool / uniform / undecided | wrongly adaptive | wrongly a baseline |",
            "|---|" + "---:|" * 7,
        ]
        for world, r in worlds.items():
            said = " / ".join(str(r["said"][answer]) for answer in ANSWERS)
            lines.append(
                f"| {world} | {100 * r['truth']:+.1f}% | {100 * r['value']:+.1f}% | {100 * r['covered']:.0f}% "
                f"| {100 * r['width']:.1f}% | {said} | {r['wrongly adaptive']} | {r['wrongly a baseline']} |"
            )
        lines.append("")
    own = [r for worlds in results["settings"].values() for w, r in worlds.items() if "shared" not in w]
    covered = 100 * np.mean([r["covered"] for r in own])
    wrongly = [sum(r[what] for r in own) for what in ("wrongly adaptive", "wrongly a baseline")]
    lines += [
        f"{results['seeds']} runs a row. A gain is over the better baseline; the interval is judged for both. Where "
        f"regions learn from their own draws ({sum(r['runs'] for r in own)} runs) the interval held the truth in "
        f"{covered:.1f}%; {wrongly[0]} runs were told `adaptive` though a baseline was as good, and {wrongly[1]} a "
        f"baseline that was more than {100 * AS_GOOD:.0f}% worse.",
        "",
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advice", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/advice"), help="where to write (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=6, help="runs of each world (default: %(default)s)")
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
        results["settings"][name] = {w: judge([one(w, setting, seed) for seed in range(seeds)]) for w in WORLDS}
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
