"""``aria-sampling simulate | report``: settings on regions, and a run's report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import FloatArray
from aria_sampling._check import float_vector, int_vector, integer, real
from aria_sampling.allocator import Allocator
from aria_sampling.cli.partitions import array_of, pool_of, refuse_input
from aria_sampling.coverage import Coverage
from aria_sampling.errors import ArgumentError
from aria_sampling.policies import Proportional
from aria_sampling.report._files import from_files

__all__ = ["add"]

_SHOWN = 5  # regions in a list
_MOST = 10**7  # rows of a round: arrays of 80 MB


def add(commands: Any) -> None:
    """Add the commands of this module."""
    play = commands.add_parser(
        "simulate",
        help="what settings do: allocate for some rounds, with discrepancies that are told and stay as they are",
    )
    play.add_argument("pool", help="file that `partition` or Partition.save wrote")
    play.add_argument("--rounds", type=int, default=200, help="how many (default 200)")
    play.add_argument("--draw", type=int, default=256, metavar="N", help="rows drawn a round (default 256)")
    play.add_argument("--discrepancy", help=".npy file, real [n_regions], not negative (default: 1 everywhere)")
    play.add_argument("--noise", type=float, default=1.0, help="standard deviation of a loss over its mean (default 1)")
    play.add_argument("--covered", help=".npy file, integers [m]: pool items with data of their own (Coverage)")
    play.add_argument("--data-rows", type=int, metavar="N", help="of these in a round (default: as many as are drawn)")
    play.add_argument("--exponent", type=float, default=1.0, help="of the policy, Proportional (default 1)")
    play.add_argument("--target", default="pool", help="pool, uniform, or a number in [0, 1] (default pool)")
    play.add_argument("--exploration", type=float, default=0.2, help="share that follows the target (default 0.2)")
    play.add_argument("--seed", type=int, default=0, help="of the draws and the noise (default 0)")
    play.set_defaults(carry_out=_simulate)

    page = commands.add_parser("report", help="write an HTML page on the history of a run; needs torch and matplotlib")
    page.add_argument("history", help="file: torch.save(history.state_dict(), ...)")
    page.add_argument("pool", help="file that `partition` or Partition.save wrote")
    page.add_argument("out", help="HTML file to write")
    page.set_defaults(carry_out=_report)


def _simulate(args: argparse.Namespace) -> None:
    """Allocate over a saved partition with losses that are made up, and print where the draws went."""
    pool = pool_of(args.pool)
    rounds, n = integer("--rounds", args.rounds, low=1), integer("--draw", args.draw, low=1, high=_MOST)
    noise = real("--noise", args.noise, low=0, high=100)
    truth, coverage = np.ones(pool.n_regions), None
    if args.discrepancy is not None:
        truth = float_vector("--discrepancy", array_of("--discrepancy", args.discrepancy), length=pool.n_regions)
        if not ((truth >= 0) & (truth <= 1e100)).all():
            raise ArgumentError(f"--discrepancy {args.discrepancy}: expected numbers from 0 to 1e100")
    if args.covered is not None:
        hint = "items of the pool alone; captions that are not in it go to aria.Coverage(pool, embeddings=...)"
        covered = int_vector("--covered", array_of("--covered", args.covered), high=pool.n_items, hint=hint)
        coverage = Coverage(pool, items=covered)
    data_rows = None if args.data_rows is None else integer("--data-rows", args.data_rows, low=0, high=_MOST)
    try:
        target: Any = float(args.target)
    except ValueError:
        target = args.target
    allocator = Allocator(
        pool,
        coverage=coverage,
        policy=Proportional(exponent=args.exponent),
        exploration=args.exploration,
        target=target,
        seed=args.seed,
    )
    rng = np.random.default_rng(args.seed)
    drawn = np.zeros(pool.n_regions, np.int64)
    print("round  visited  discrepancy  effective_regions  top_boost  passes")
    for number in range(1, rounds + 1):
        draw = allocator.draw(n, data_rows=data_rows)
        drawn += np.bincount(draw.regions, minlength=pool.n_regions)
        allocator.observe(draw.regions, truth[draw.regions] * _unit_noise(rng, noise, n))
        allocator.step()
        if number & (number - 1) == 0 or number == rounds:
            found = allocator.metrics()
            print(
                f"{number:5d}  {found['visited']:7.3f}  {found['discrepancy']:11.4g}  "
                f"{found['effective_regions']:17.1f}  {found['top_boost']:9.3g}  {found['passes']:6.3g}"
            )
    share, mass = drawn / drawn.sum(), np.maximum(pool.sizes, 1e-9) / pool.sizes.sum()  # regions may be empty
    order = np.argsort(-share / mass, kind="stable")
    print("draws per item, over those of the pool's own mixture, from the most to the fewest:")
    for place, region in enumerate(order):
        if place < _SHOWN or place >= len(order) - _SHOWN:
            print(f"  {share[region] / mass[region]:8.3g}  {pool.names[region]} ({pool.sizes[region]} items)")
        elif place == _SHOWN:
            print(f"       ...  {len(order) - 2 * _SHOWN} regions")


def _unit_noise(rng: np.random.Generator, deviation: float, n: int) -> FloatArray:
    """Return n positive factors of mean 1 and the standard deviation given: gamma, as losses are skewed."""
    return np.ones(n) if deviation < 1e-6 else rng.gamma(deviation**-2, deviation**2, n)


def _report(args: argparse.Namespace) -> None:
    """Write a page from saved files."""
    refuse_input("OUT", Path(args.out), args.history, args.pool)
    print(from_files(Path(args.history), Path(args.pool), Path(args.out)))
