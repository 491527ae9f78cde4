"""``aria-sampling partition | inspect | simulate | report``: regions of a pool, settings on them, a run's report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling import embed
from aria_sampling._arrays import AnyArray, FloatArray
from aria_sampling._check import float_vector, int_vector, integer, real, shown_path
from aria_sampling.allocator import Allocator
from aria_sampling.coverage import Coverage
from aria_sampling.errors import ArgumentError
from aria_sampling.partition import KMeansPartitioner, Partition
from aria_sampling.partition._kinds import reading, recognised
from aria_sampling.policies import Proportional
from aria_sampling.report._files import from_files

__all__ = ["add"]

_SHOWN = 5  # regions in a list
_MOST = 10**7  # rows of a round: arrays of 80 MB


def add(commands: Any) -> None:
    """Add the commands of this module."""
    cut = commands.add_parser("partition", help="cut a pool into regions, by k-means or by labels, and save it")
    cut.add_argument("pool", help="file to write")
    source = cut.add_mutually_exclusive_group()
    source.add_argument(
        "--embeddings", help="folder that `embed` wrote, or .npy file, real [n_items, d]: k-means; needs scikit-learn"
    )
    source.add_argument("--labels", help=".npy file, integers or text [n_items]: the region of each item")
    cut.add_argument("--regions", type=int, help="how many, with --embeddings")
    cut.add_argument("--seed", type=int, default=0, help="of k-means (default 0)")
    cut.set_defaults(carry_out=_partition)

    look = commands.add_parser("inspect", help="say what a saved partition holds")
    look.add_argument("pool", help="file that `partition` or Partition.save wrote")
    look.set_defaults(carry_out=_inspect)

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


def _array(option: str, path: str) -> AnyArray:
    """Return the array in an .npy file, mapped, not read; or the embeddings in a folder that `embed` wrote."""
    if option == "--embeddings" and Path(path).is_dir():
        vectors: Any = embed.open(path)
        return vectors
    came = recognised(Path(path))
    try:
        found: Any = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ArgumentError(f"{option} {shown_path(path)}: there is no such file") from None
    except Exception as error:  # whatever NumPy meets in a file that is none of its own
        if isinstance(error, OSError) and came is None:
            raise ArgumentError(f"{option} {shown_path(path)}: {error.strerror or type(error).__name__}") from None
        raise _not_an_array(option, path, came or "it is of no kind that is known") from None
    if not hasattr(found, "dtype"):
        raise _not_an_array(option, path, came or "it is an archive")
    return found


def _not_an_array(option: str, path: str, came: str) -> ArgumentError:
    """Return the error for a file that is no array, with the call that makes one of what it holds, if it is known."""
    wanted = f"{option} {shown_path(path)}: expected an .npy file of numbers; {came}"
    rows = option == "--embeddings"
    read = _reading(path, rows=rows)
    if read is None:
        if rows and (came.startswith("it is a table of text") or "JSON" in came or came == "it is text"):
            wanted += (
                "; text has to be embedded first: aria-sampling prompts import FILE --out POOL, then aria-sampling "
                "embed POOL --encoder tfidf --out VECTORS, then --embeddings VECTORS"
            )
        return ArgumentError(wanted)
    imports, expression = read
    to = str(Path(path).with_suffix(".npy"))
    if option == "--labels":
        return ArgumentError(wanted, remedy=f"{imports}pool = aria.Partition.from_labels({expression})")
    return ArgumentError(wanted, remedy=f"{imports}np.save({to!r}, {expression})")


def _reading(path: str, *, rows: bool) -> tuple[str, str] | None:
    """Return the imports, as the beginning of a line, and the expression that reads a file; None if it is unknown."""
    try:
        found = reading(Path(path), rows=rows)
    except Exception:  # a damaged file: whatever is met in it
        return None
    if found is None:
        return None
    numpy = "import numpy as np; " if rows or "np." in found[1] else ""
    return f"import aria_sampling as aria; {numpy}{found[0]}{'; ' if found[0] else ''}", found[1]


def _pool(path: str) -> Partition:
    """Return a saved partition."""
    try:
        return Partition.load(path)
    except FileNotFoundError:
        raise ArgumentError(f"POOL {shown_path(path)}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise _no_pool(path, f"POOL {error}") from None


def _no_pool(path: str, wanted: str) -> ArgumentError:
    """Return the error for a file that is no partition, with the call that makes one of what it holds."""
    came = recognised(Path(path)) or ""
    if came.startswith("it is an .npy file, "):
        return ArgumentError(
            f"{wanted}; an array: aria-sampling partition pool.aria --labels FILE, or --embeddings FILE"
        )
    read = _reading(path, rows=False)
    if read is None:
        return ArgumentError(wanted)
    return ArgumentError(wanted, remedy=f"{read[0]}aria.Partition.from_labels({read[1]}).save('pool.aria')")


def _partition(args: argparse.Namespace) -> None:
    """Make a partition and save it."""
    out = Path(args.pool)
    if args.labels is None and args.embeddings is None:
        came = recognised(out)
        what = "" if came is None else f"; POOL {shown_path(args.pool)} is the file to write, got one to read: {came}"
        raise _no_pool(
            args.pool, f"expected --labels FILE or --embeddings FILE, what to cut the pool by, as .npy{what}"
        )
    if (args.regions is None) == (args.embeddings is not None):
        raise ArgumentError("--regions: expected with --embeddings, and with nothing else")
    if out.is_dir() or not out.parent.is_dir():
        raise ArgumentError(f"POOL {shown_path(out)}: expected a file to write, in a folder that exists")
    if args.labels is not None:
        _no_input("POOL", out, args.labels)
        pool = Partition.from_labels(_array("--labels", args.labels))
    else:
        _no_input("POOL", out, args.embeddings)
        pool = KMeansPartitioner(n_regions=args.regions, seed=args.seed).fit(_array("--embeddings", args.embeddings))
    pool.save(out)
    _describe(args.pool, pool)


def _no_input(what: str, out: Path, *inputs: str) -> None:
    """Refuse to write over what is read."""
    for path in inputs:
        if out.exists() and Path(path).exists() and out.samefile(path):
            raise ArgumentError(f"{what} {shown_path(out)}: expected a file to write, got the one to read")


def _inspect(args: argparse.Namespace) -> None:
    """Describe a saved partition."""
    _describe(args.pool, _pool(args.pool))


def _describe(path: str, pool: Partition) -> None:
    """Print what there is to know of a partition before it is used."""
    sizes, filled = pool.sizes, pool.sizes[pool.sizes > 0]
    low, median, high = np.quantile(filled, (0.25, 0.5, 0.75))
    print(f"{path}: {pool.n_items} items in {pool.n_regions} regions, fingerprint {pool.fingerprint[:12]}")
    if len(pool.removed):
        print(f"removed: {len(pool.removed)} items, and {pool.n_regions - len(filled)} regions are empty")
    print(f"sizes: {filled.min()} to {filled.max()}, quartiles {low:.0f}, {median:.0f}, {high:.0f}")
    print(f"centres: {'none' if pool.centers is None else f'{pool.centers.shape[1]} numbers each'}")
    order = np.argsort(-sizes, kind="stable")
    for name, regions in (("largest", order[:_SHOWN]), ("smallest", order[::-1][:_SHOWN])):
        print(f"{name}: " + ", ".join(f"{_name(pool, region)} ({sizes[region]})" for region in regions))
    repeats = filled.mean() / filled.min()
    print(f"with target='uniform' an item of the smallest region comes {repeats:.3g} times a pool-size draw")


def _name(pool: Partition, region: int) -> str:
    """Return what a region is called."""
    return pool.names[region] if pool.names else str(region)


def _simulate(args: argparse.Namespace) -> None:
    """Allocate over a saved partition with losses that are made up, and print where the draws went."""
    pool = _pool(args.pool)
    rounds, n = integer("--rounds", args.rounds, low=1), integer("--draw", args.draw, low=1, high=_MOST)
    noise = real("--noise", args.noise, low=0, high=100)
    truth, coverage = np.ones(pool.n_regions), None
    if args.discrepancy is not None:
        truth = float_vector("--discrepancy", _array("--discrepancy", args.discrepancy), length=pool.n_regions)
        if not ((truth >= 0) & (truth <= 1e100)).all():
            raise ArgumentError(f"--discrepancy {args.discrepancy}: expected numbers from 0 to 1e100")
    if args.covered is not None:
        hint = "items of the pool alone; captions that are not in it go to aria.Coverage(pool, embeddings=...)"
        covered = int_vector("--covered", _array("--covered", args.covered), high=pool.n_items, hint=hint)
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
            print(f"  {share[region] / mass[region]:8.3g}  {_name(pool, region)} ({pool.sizes[region]} items)")
        elif place == _SHOWN:
            print(f"       ...  {len(order) - 2 * _SHOWN} regions")


def _unit_noise(rng: np.random.Generator, deviation: float, n: int) -> FloatArray:
    """Return n positive factors of mean 1 and the standard deviation given: gamma, as losses are skewed."""
    return np.ones(n) if deviation < 1e-6 else rng.gamma(deviation**-2, deviation**2, n)


def _report(args: argparse.Namespace) -> None:
    """Write a page from saved files."""
    _no_input("OUT", Path(args.out), args.history, args.pool)
    print(from_files(Path(args.history), Path(args.pool), Path(args.out)))
