"""``aria-sampling partition | inspect | assign``: from vectors or labels to regions; files that commands read."""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from aria_sampling import embed, prompts
from aria_sampling._arrays import AnyArray, IntArray
from aria_sampling._check import int_vector, shown, shown_path
from aria_sampling.coverage import Coverage
from aria_sampling.embed._layout import HEADER, PLAN
from aria_sampling.errors import ArgumentError, AriaError, MissingDependencyError
from aria_sampling.partition import KMeansPartitioner, Partition, PartitionSummary, RegionSummary
from aria_sampling.partition._kinds import reading, recognised
from aria_sampling.partition._shards import Shards
from aria_sampling.prompts._layout import HEADER as STORE
from aria_sampling.report import pool_html

__all__ = ["add", "array_of", "pool_of", "refuse_input"]

_LISTED = 5  # regions in a line
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_LONGEST = 100  # characters of a caption in a terminal


def add(commands: Any) -> None:
    """Add the commands of this module."""
    cut = commands.add_parser("partition", help="cut a pool into regions, by k-means or by labels, and save it")
    cut.add_argument("pool", help="file to write")
    source = cut.add_mutually_exclusive_group()
    source.add_argument(
        "--embeddings", help="folder that `embed` wrote, or .npy file, real [n_items, d], or a folder of these: k-means"
    )
    source.add_argument("--labels", help=".npy file, integers or text [n_items]; or a table, with --column")
    cut.add_argument("--column", help="of --labels in .csv, .tsv, .jsonl or .parquet: the region of each item")
    cut.add_argument(
        "--noise", action="store_true", help="items without a label, or with -1, get a region of their own"
    )
    cut.add_argument("--regions", type=int, help="how many, with --embeddings")
    cut.add_argument(
        "--centers", help=".npy file, real [k, d], in the place of --regions: of other software, or of a run cut off"
    )
    cut.add_argument("--max-size", type=int, metavar="N", help="most items of a region; larger ones are split")
    cut.add_argument("--spherical", action="store_true", help="compare directions alone: for embeddings of text")
    cut.add_argument("--points", type=int, metavar="N", help="items a region that centres are fitted on (default 64)")
    cut.add_argument("--device", help="cpu, or a device of torch (default: a GPU if there is one and it pays)")
    cut.add_argument("--seed", type=int, default=0, help="of k-means (default 0)")
    cut.add_argument(
        "--texts", help="captions, to name the regions by: the store that `prompts import` wrote, or a file of them"
    )
    cut.add_argument("--text-column", help="of --texts: the name of its column of captions")
    cut.add_argument("--quiet", action="store_true", help="show no progress")
    _json(cut)
    cut.set_defaults(carry_out=_partition)

    look = commands.add_parser("inspect", help="say what a saved partition holds")
    look.add_argument("pool", help="file that `partition` or Partition.save wrote")
    look.add_argument(
        "--covered",
        help="pool items with data of their own: .npy file, integers [m], or a store of prompts with such a column",
    )
    look.add_argument("--covered-column", metavar="NAME", help="of a store: the column of bools (default has_image)")
    look.add_argument(
        "--covered-embeddings", help=".npy file or folder: embeddings of captions with data, not in the pool"
    )
    look.add_argument("--most", type=int, default=10, metavar="N", help="regions of each list (default 10)")
    look.add_argument("--html", metavar="OUT", help="write a page to this file, too; it needs no network")
    _json(look)
    look.set_defaults(carry_out=_inspect)

    give = commands.add_parser("assign", help="say which regions new embeddings are in")
    give.add_argument("pool", help="file that `partition` or Partition.save wrote, with centres")
    give.add_argument("embeddings", help=".npy file, real [m, d], or a folder of them")
    give.add_argument("--out", help=".npy file to write: the region of each, int64 [m]")
    give.add_argument("--device", help="as for partition")
    give.add_argument("--quiet", action="store_true", help="show no progress")
    _json(give)
    give.set_defaults(carry_out=_assign)


def _json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


# ------------------------------------------------------------------------------------------------ commands


def _partition(args: argparse.Namespace) -> None:
    """Make a partition and save it."""
    out = Path(args.pool)
    if args.labels is None and args.embeddings is None:
        came = recognised(out)
        what = "" if came is None else f"; POOL {shown_path(args.pool)} is the file to write, got one to read: {came}"
        raise _no_pool(
            args.pool, f"expected --labels FILE or --embeddings FILE, what to cut the pool by, as .npy{what}"
        )
    by_labels = args.embeddings is None
    if ((args.regions is None) == (args.centers is None)) == (args.embeddings is not None):
        raise ArgumentError("--regions: expected with --embeddings, and with nothing else; or --centers in its place")
    for name, given, belongs in (
        ("--centers", args.centers, not by_labels),
        ("--max-size", args.max_size, not by_labels),
        ("--points", args.points, not by_labels),
        ("--spherical", args.spherical or None, not by_labels),
        ("--column", args.column, by_labels),
        ("--noise", args.noise or None, by_labels),
    ):
        if given is not None and not belongs:
            raise ArgumentError(f"{name}: expected with {'--embeddings' if by_labels else '--labels'} alone")
    if args.text_column is not None and args.texts is None:
        raise ArgumentError("--text-column: expected with --texts")
    inputs = (args.labels, args.embeddings, args.centers, args.texts)
    refuse_input("POOL", out, *(path for path in inputs if path is not None))
    if out.is_dir() or not out.parent.is_dir():
        raise ArgumentError(f"POOL {shown_path(out)}: expected a file to write, in a folder that exists")
    texts = None if args.texts is None else _texts(args.texts, args.text_column)
    progress = _progress(args)
    embeddings: Any = None
    if by_labels:
        pool = Partition.from_labels(_labels(str(args.labels), args.column), noise="region" if args.noise else None)
    else:
        embeddings = _embeddings("--embeddings", args.embeddings)
        _refuse_other_length(texts, len(embeddings))
        pool = _fitted(args, embeddings, progress=progress)
    if texts is not None:
        _refuse_other_length(texts, pool.n_items)
        pool = pool.named(texts, embeddings=embeddings, progress=progress)
    pool.save(out)
    _say(args, pool, pool.describe())


def _fitted(args: argparse.Namespace, embeddings: Any, *, progress: bool) -> Partition:
    """Return the partition of embeddings by k-means, or by centres that are there."""
    if args.centers is not None:
        for name, given in (
            ("--max-size", args.max_size),
            ("--points", args.points),
            ("--spherical", args.spherical or None),
        ):
            if given is not None:
                raise ArgumentError(f"{name}: expected without --centers, which are there already")
        centers = array_of("--centers", args.centers)
        return Partition.from_centers(embeddings, centers, device=args.device, progress=progress)
    partitioner = KMeansPartitioner(
        n_regions=args.regions,
        seed=args.seed,
        points_per_region=args.points,
        spherical=args.spherical,
        max_size=args.max_size,
        device=args.device,
        progress=progress,
    )
    try:
        return partitioner.fit(embeddings)
    except KeyboardInterrupt as interrupt:
        if hasattr(interrupt, "centers"):
            kept = f"{args.pool}.centers.npy"
            _save_array("POOL", kept, interrupt.centers)  # pyright: ignore
            print(f"aria-sampling: the centres are kept; go on with --centers {kept}", file=sys.stderr)
        raise


def _inspect(args: argparse.Namespace) -> None:
    """Describe a saved partition."""
    pool = pool_of(args.pool)
    coverage: dict[str, Any] = {}
    if args.covered is not None:
        hint = "items of the pool alone; captions that are not in it go to --covered-embeddings"
        covered = _covered(args.covered, args.covered_column)
        coverage["items"] = int_vector("--covered", covered, high=pool.n_items, hint=hint)
    elif args.covered_column is not None:
        raise ArgumentError("--covered-column: expected with --covered, a store of prompts")
    if args.covered_embeddings is not None:
        coverage["embeddings"] = _embeddings("--covered-embeddings", args.covered_embeddings)[:]
    counts = Coverage(pool, **coverage, power=0).counts if coverage else None
    if args.html is not None:
        refuse_input("--html", Path(args.html), args.pool)
        try:
            pool_html(pool, args.html, counts=counts)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ArgumentError(f"--html {shown_path(args.html)}: {why}") from None
    _say(args, pool, pool.describe(counts=counts, most=args.most))


def _assign(args: argparse.Namespace) -> None:
    """Find the regions of new embeddings."""
    pool = pool_of(args.pool, mmap=True)
    if args.out is not None:
        refuse_input("--out", Path(args.out), args.pool, args.embeddings)
    embeddings = _embeddings("EMBEDDINGS", args.embeddings)
    regions = pool.assign(embeddings, device=args.device, progress=_progress(args))
    if args.out is not None:
        _save_array("--out", args.out, regions)
    counts = np.bincount(regions, minlength=pool.n_regions)
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    if args.json:
        found = [{"region": k, "name": pool.names[k], "count": int(counts[k])} for k in map(int, order)]
        print(json.dumps({"n": len(regions), "n_regions": len(order), "out": args.out, "regions": found}))
        return
    print(f"{len(regions)} embeddings are in {len(order)} of {pool.n_regions} regions")
    print("most: " + ", ".join(f"{pool.names[k]} ({counts[k]})" for k in order[:_LISTED]))


# ------------------------------------------------------------------------------------------------- output


def _progress(args: argparse.Namespace) -> bool:
    """Whether to show progress: to a person, who did not ask for quiet."""
    return not args.quiet and sys.stderr.isatty()


def _say(args: argparse.Namespace, pool: Partition, found: PartitionSummary) -> None:
    """Print what there is to know of a partition before it is used."""
    if args.json:
        print(json.dumps({"pool": args.pool, **found.to_dict()}))
        return
    smallest, low, median, high, largest = found.sizes
    print(f"{args.pool}: {found.n_items} items in {found.n_regions} regions, fingerprint {found.fingerprint[:12]}")
    if found.n_removed:
        print(f"removed: {found.n_removed} items, and {found.n_empty} regions are empty")
    print(f"sizes: {smallest} to {largest}, quartiles {low:.0f}, {median:.0f}, {high:.0f}")
    print(
        f"tail: half of the items are in {found.half} regions; the smaller half of the regions has "
        f"{100 * found.tail:.3g}% of them; as uneven as {found.effective_regions:.3g} equal regions"
    )
    print(f"centres: {'none' if found.width is None else f'{found.width} numbers each'}")
    if found.n_covered is not None:
        share = 100 * (found.covered or 0.0)
        print(f"covered: {found.n_covered} regions have data, and {share:.3g}% of the items are in these")
    for name, regions in (
        ("largest", found.largest),
        ("smallest", found.smallest),
        ("largest without data", found.uncovered),
    ):
        if regions:
            print(f"{name}: " + ", ".join(f"{region.name} ({region.size})" for region in regions[:_LISTED]))
    repeats = (found.n_items - found.n_removed) / (found.n_regions - found.n_empty) / smallest
    print(f"with target='uniform' an item of the smallest region comes {repeats:.3g} times a pool-size draw")
    shown_regions = found.uncovered or found.largest
    if pool.captions is not None and shown_regions:
        print(f"captions of the largest regions{' without data' if found.uncovered else ''}:")
        for region in shown_regions:
            _say_captions(region)


def _say_captions(region: RegionSummary) -> None:
    print(f"  {region.name} ({region.size} items, {100 * region.share:.3g}%)")
    for caption in region.captions:
        print(f"      {caption if len(caption) <= _LONGEST else f'{caption[: _LONGEST - 2]} …'}")


def _save_array(option: str, path: str, array: AnyArray) -> None:
    """Write an .npy file: first beside it, then renamed over it."""
    out = Path(path)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            np.save(file, array)
        os.replace(temporary, out)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ArgumentError(f"{option} {shown_path(path)}: {error.strerror or type(error).__name__}") from None
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# -------------------------------------------------------------------------------------------------- input


def refuse_input(what: str, out: Path, *inputs: str) -> None:
    """Refuse to write over what is read."""
    for path in inputs:
        if out.exists() and Path(path).exists() and out.samefile(path):
            raise ArgumentError(f"{what} {shown_path(out)}: expected a file to write, got the one to read")


def array_of(option: str, path: str) -> AnyArray:
    """Return the array in an .npy file, mapped, not read."""
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


def _covered(path: str, column: str | None) -> AnyArray:
    """Return the items with data of their own: those in an .npy file, or those of a store whose column says so."""
    if not Path(path).is_dir():
        if column is not None:
            raise ArgumentError(f"--covered-column {column}: expected with a store of prompts, got {shown_path(path)}")
        return array_of("--covered", path)
    name = "has_image" if column is None else column
    store = prompts.open(path)
    try:
        flags = store.column(name, null=False)
    except ArgumentError as error:
        raise ArgumentError(f"--covered-column: expected a column of bools; {error}") from None
    return np.flatnonzero(flags)


def _embeddings(option: str, path: str) -> Any:
    """Return the embeddings in an .npy file, or in all those of a folder; neither is read here."""
    if not Path(path).is_dir():
        return array_of(option, path)
    try:
        return embed.open(path) if any((Path(path) / name).exists() for name in (HEADER, PLAN)) else Shards(Path(path))
    except ArgumentError as error:
        raise ArgumentError(f"{option} {error}") from None


def _not_an_array(option: str, path: str, came: str) -> ArgumentError:
    """Return the error for a file that is no array, with the call that makes one of what it holds, if it is known."""
    wanted = f"{option} {shown_path(path)}: expected an .npy file of numbers; {came}"
    rows = option != "--labels"
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
    if not rows:
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


def pool_of(path: str, *, mmap: bool = False) -> Partition:
    """Return a saved partition."""
    try:
        return Partition.load(path, mmap=mmap)
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


# ------------------------------------------------------------------------------------------ columns of tables


@dataclass(frozen=True)
class _Coded:
    """Labels by the place of each among the different ones, -1 for null, as pandas' Categorical has them."""

    codes: IntArray
    categories: list[str]


def _labels(path: str, column: str | None) -> Any:
    """Return the labels in an .npy file, or in a column of a table."""
    return array_of("--labels", path) if column is None else _coded(_column("--labels", path, column))


def _coded(values: Any) -> Any:
    """Return labels that come one by one as codes, so that equal texts are kept once; those of Arrow as they are."""
    if hasattr(values, "dictionary_encode"):
        return values
    place: dict[Any, int] = {}
    codes = np.fromiter((-1 if value is None else place.setdefault(value, len(place)) for value in values), np.int64)
    return _Coded(codes, list(place))


def _column(option: str, path: str, column: str) -> Any:
    """Return a column of a table: an iterator of values, None for null or empty; or an array of Arrow."""
    kind = Path(path).suffix.lower()
    if kind not in _TABLES or not Path(path).is_file():
        came = recognised(Path(path)) or ("there is no such file" if not Path(path).exists() else "it is another file")
        raise ArgumentError(f"{option} {shown_path(path)}: expected {', '.join(_TABLES)} with a column, but {came}")
    if kind == ".parquet":
        return _parquet(option, path, column)
    return _csv(option, path, column, kind) if kind in (".csv", ".tsv") else _jsonl(option, path, column)


def _no_column(option: str, path: str, column: str, there: Iterable[str]) -> ArgumentError:
    return ArgumentError(
        f"{option} {shown_path(path)}: expected a column {shown(column)}, got the columns {shown(list(there))}"
    )


def _csv(option: str, path: str, column: str, kind: str) -> Iterator[str | None]:
    """Yield the values of a column of comma- or tab-separated text."""
    with Path(path).open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = csv.reader(file, delimiter="\t" if kind == ".tsv" else ",", strict=True)
            names: list[str] = next(rows, list[str]())
            if names.count(column) != 1:
                raise _no_column(option, path, column, names)
            place = names.index(column)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(names):
                    raise ArgumentError(
                        f"{option} {shown_path(path)}: expected {len(names)} fields in line {rows.line_num}, got "
                        f"{len(row)}"
                    )
                yield row[place] or None
        except (csv.Error, UnicodeDecodeError) as error:
            raise ArgumentError(f"{option} {shown_path(path)}: expected a table in UTF-8, but {error}") from None


def _jsonl(option: str, path: str, column: str) -> Iterator[Any]:
    """Yield the values of an entry of JSON Lines."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _entry(option, path, column, number, line)


def _entry(option: str, path: str, column: str, number: int, line: bytes) -> Any:
    """Return the value of an entry of one line of JSON Lines."""
    try:
        found: Any = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ArgumentError(f"{option} {shown_path(path)}: expected JSON in line {number}, but {error}") from None
    entries = cast("dict[str, Any]", found) if isinstance(found, dict) else dict[str, Any]()
    if column not in entries:
        raise _no_column(option, f"{path} (line {number})", column, entries)
    return None if entries[column] == "" else entries[column]


def _parquet(option: str, path: str, column: str) -> Any:
    """Return a column of a Parquet file."""
    try:
        from pyarrow import parquet  # pyright: ignore
    except ImportError as error:
        raise MissingDependencyError(f"{option} {shown_path(path)}: needs pyarrow: pip install pyarrow") from error
    file: Any = None
    try:
        file = parquet.ParquetFile(path)  # pyright: ignore
        names = [str(name) for name in file.schema_arrow.names]
        if column in names:
            return file.read(columns=[column])[column]
    except Exception as error:  # whatever Arrow meets in a damaged file
        why = " ".join(str(error).split())[:200]
        raise ArgumentError(f"{option} {shown_path(path)}: expected a Parquet file, but {why}") from None
    raise _no_column(option, path, column, names)


def _texts(path: str, column: str | None) -> Any:
    """Return the captions in a store of prompts, or in files of any kind: one an item, so nothing is left out."""
    try:
        if column is None and Path(path).is_dir() and (Path(path) / STORE).exists():
            return prompts.open(path)
        return list(prompts.read(path, column=column, empty="refuse", null="refuse", lists="refuse"))
    except (AriaError, OSError) as error:
        remedy: str | None = getattr(error, "remedy", None)
        raise ArgumentError(f"--texts {str(error).removeprefix('sources: ')}", remedy=remedy) from None


def _refuse_other_length(texts: Any, n_items: int) -> None:
    """Raise ValueError unless there are as many captions as items: before minutes of fitting."""
    if texts is not None and len(texts) != n_items:
        raise ArgumentError(f"--texts: expected {n_items} captions, one an item, got {len(texts)}")
