"""``aria-sampling demo-pool | prompts | embed``: what comes before a partition: captions, their vectors."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from aria_sampling import embed, prompts
from aria_sampling._check import integer, shown
from aria_sampling.embed.batch import DTYPES
from aria_sampling.errors import ArgumentError
from aria_sampling.prompts._files import KINDS
from aria_sampling.prompts._kept import parsed

__all__ = ["add"]

_SHOWN, _MOST = 5, 100  # items, characters of one


def add(commands: Any) -> None:
    """Add the commands of this module."""
    group = commands.add_parser("prompts", help="make a store of captions from files of any kind, and look into one")
    parts = group.add_subparsers(dest="part", required=True)

    made = parts.add_parser(
        "import",
        help="read captions and write a store of them",
        description="Read captions from Parquet, Arrow, JSON Lines, CSV, TSV or plain text (.gz, .zst and .bz2, too), "
        "and write a store of them. Several sources come as given, the files of a folder or a glob by their names.",
    )
    made.add_argument("sources", nargs="+", help="files, folders and globs")
    made.add_argument("--out", required=True, metavar="POOL", help="folder to write")
    made.add_argument(
        "--column",
        help="name of the column of captions, its number with --no-header; default: the one "
        "called caption, captions, text, prompt or prompts",
    )
    made.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="NAME[:TYPE]",
        help="a column to keep beside the captions; TYPE is bool, int, float or text",
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="constants",
        help="a column with one value for all captions, such as has_image=true",
    )
    made.add_argument("--format", choices=KINDS, help="of the files, if their names do not say it")
    made.add_argument("--encoding", default="utf-8", help="of text (default utf-8)")
    made.add_argument("--no-header", action="store_true", help="CSV and TSV begin with the first row, not with names")
    made.add_argument("--no-quotes", action="store_true", help="CSV and TSV have no quotes around fields")
    made.add_argument("--empty", choices=("drop", "refuse"), default="drop", help="captions of white space")
    made.add_argument("--null", choices=("drop", "refuse"), default="drop", help="rows without a caption")
    made.add_argument("--lists", choices=("each", "first", "refuse"), default="each", help="lists of captions")
    made.add_argument(
        "--duplicates",
        choices=("drop", "keep", "refuse"),
        help="captions that come twice (default drop, with --append as when the store was made)",
    )
    how = made.add_mutually_exclusive_group()
    how.add_argument(
        "--append", action="store_true", help="add to the store that is there; its items keep their numbers"
    )
    how.add_argument("--overwrite", action="store_true", help="replace the store that is there")
    _common(made, _import)

    look = parts.add_parser("show", help="say what a store holds")
    look.add_argument("pool", help="folder that `prompts import` or prompts.write wrote")
    look.add_argument("--items", type=int, nargs="+", help=f"numbers of items to show (default: the first {_SHOWN})")
    look.add_argument("--verify", action="store_true", help="read all of it, and say whether a bit has changed")
    _common(look, _show)

    made = commands.add_parser(
        "embed",
        help="embed the captions of a store, shard by shard",
        description="Embed the captions of a store. Run it again after a kill or after the store has grown: shards "
        "that are done stay. Several processes may run it at once, on the same folder.",
    )
    made.add_argument("pool", help="folder that `prompts import` or prompts.write wrote")
    made.add_argument("--out", required=True, metavar="FOLDER", help="folder to write, or to go on with")
    made.add_argument(
        "--encoder",
        required=True,
        metavar="NAME",
        help="tfidf, tfidf:WIDTH, model2vec:PATH-OR-ID, "
        "sentence-transformers:PATH-OR-ID, or clip:PATH-OR-ID, the text encoder of a pipeline",
    )
    made.add_argument("--shard", default="0/1", metavar="I/N", help="make every Nth shard, from the Ith on, I from 0")
    made.add_argument("--shard-rows", type=int, default=1 << 16, metavar="N", help="items of a shard (default 65536)")
    made.add_argument("--dtype", choices=DTYPES, default="float16", help="of the vectors (default float16)")
    made.add_argument("--zeros", choices=("refuse", "keep"), default="refuse", help="vectors that are zero")
    made.add_argument("--device", help="such as cuda:1 (default: a GPU if there is one)")
    made.add_argument("--batch-size", type=int, metavar="N", help="texts that go through the model at once")
    made.add_argument("--engine", choices=("local", "ray"), default="local", help="this process, or a Ray cluster")
    made.add_argument("--workers", type=int, metavar="N", help="processes of the cluster (default 2)")
    made.add_argument("--overwrite", action="store_true", help="replace embeddings of another encoder")
    _common(made, _embed)

    tried = commands.add_parser("demo-pool", help="write a small folder of Parquet captions to try things on")
    tried.add_argument("out", help="folder to write")
    tried.add_argument("--captions", type=int, default=4000, metavar="N", help="how many (default 4000)")
    tried.add_argument("--seed", type=int, default=0, help="of the grammar (default 0)")
    _common(tried, _demo)


def _common(parser: argparse.ArgumentParser, carry_out: Any) -> None:
    """Add what all commands of this module take."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(carry_out=carry_out)


def _import(args: argparse.Namespace) -> None:
    """Make a store, or add to one."""
    column = args.column
    if args.no_header and column is not None:
        if not column.isdigit():
            raise ArgumentError(f"--column {shown(column)}: expected a number from 0, with --no-header")
        column = int(column)
    captions = prompts.read(
        args.sources,
        column=column,
        keep=args.keep,
        constants=dict(map(_constant, args.constants)),
        format=args.format,
        encoding=args.encoding,
        header=not args.no_header,
        quotes=not args.no_quotes,
        empty=args.empty,
        null=args.null,
        lists=args.lists,
    )
    progress = False if args.quiet else None
    if args.append:
        pool = prompts.append(args.out, captions, duplicates=args.duplicates, progress=progress)
    else:
        pool = prompts.write(
            args.out, captions, duplicates=args.duplicates or "drop", overwrite=args.overwrite, progress=progress
        )
    _describe(pool, range(min(_SHOWN, len(pool))), as_json=args.json)


def _constant(word: str) -> tuple[str, Any]:
    """Return the name and the value of one --set."""
    name, mark, value = word.partition("=")
    if not mark or not name:
        raise ArgumentError(f"--set {shown(word)}: expected NAME=VALUE")
    return name, parsed(value)


def _show(args: argparse.Namespace) -> None:
    """Describe a store."""
    pool = prompts.open(args.pool, verify=args.verify)
    items = range(min(_SHOWN, len(pool))) if args.items is None else args.items
    for item in items:
        integer("--items", item, low=0, high=len(pool) - 1)
    _describe(pool, items, as_json=args.json)


def _describe(pool: prompts.Prompts, items: Any, *, as_json: bool) -> None:
    """Print what there is to know of a store."""
    counts, sample = pool.counts, dict(zip(map(int, items), pool.take(list(items)), strict=True))
    if as_json:
        said = {
            "path": str(pool.path),
            "items": len(pool),
            "fingerprint": pool.fingerprint,
            "columns": list(pool.columns),
            "duplicates": pool.duplicates,
            "counts": asdict(counts),
            "sources": [asdict(source) for source in pool.sources],
            "captions": sample,
        }
        print(json.dumps(said, ensure_ascii=False))
        return
    print(f"{pool.path}: {len(pool)} items, fingerprint {pool.fingerprint[:12]}")
    print(
        f"read: {counts.captions} captions in {counts.rows} rows of {len(pool.sources)} sources; left out: "
        f"{counts.empty} empty, {counts.null} null, {counts.duplicates} duplicates"
    )
    for source in (*pool.sources[:_SHOWN], *pool.sources[max(_SHOWN, len(pool.sources) - _SHOWN) :]):
        print(
            f"  items {source.begin} to {source.end - 1}: {source.name}"
            if source.end > source.begin
            else f"  no items: {source.name}"
        )
    print(f"columns: {', '.join(pool.columns)}")
    for item, text in sample.items():
        line = " ".join(text.split())
        print(f"  {item}: {line if len(line) <= _MOST else line[: _MOST - 4] + ' ...'}")


def _embed(args: argparse.Namespace) -> None:
    """Embed a store, or a part of it."""
    found = embed.write(
        args.out,
        args.pool,
        encoder=args.encoder,
        shard=_shard(args.shard),
        shard_rows=args.shard_rows,
        dtype=args.dtype,
        zeros=args.zeros,
        device=args.device,
        batch_size=args.batch_size,
        engine=args.engine,
        workers=args.workers,
        overwrite=args.overwrite,
        progress=False if args.quiet else None,
    )
    if args.json:
        shape = {} if found is None else {"items": found.shape[0], "width": found.shape[1], "dtype": str(found.dtype)}
        print(json.dumps({"path": args.out, "encoder": args.encoder, "finished": found is not None, **shape}))
    elif found is None:
        print(f"{args.out}: done here; other processes have shards to make")
    else:
        print(f"{args.out}: {found.shape[0]} items, {found.shape[1]} numbers each, {found.dtype}, by {args.encoder}")


def _shard(word: str) -> tuple[int, int]:
    """Return the numbers of --shard."""
    first, mark, last = word.partition("/")
    if not (mark and first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise ArgumentError(f"--shard {shown(word)}: expected I/N, I from 0 to N - 1")
    return int(first), int(last)


def _demo(args: argparse.Namespace) -> None:
    """Write captions to try things on."""
    paths = prompts.demo(args.out, n_captions=args.captions, seed=args.seed)
    if args.json:
        print(json.dumps({"path": args.out, "files": [str(path) for path in paths]}))
        return
    for path in paths:
        print(path)
    print(f"next: aria-sampling prompts import {args.out} --column caption --keep has_image --keep topic --out POOL")
