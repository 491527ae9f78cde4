"""Which files of captions there are, in which order, and of which kind each is.

The order decides the numbers of the items, so there is one rule. Several sources come as given. The files of a
folder or of a glob come by their names, by code point, as Python sorts text.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aria_sampling._check import kind_of, shown, shown_path
from aria_sampling.errors import ArgumentError
from aria_sampling.partition._kinds import recognised

__all__ = ["KINDS", "PACKED", "File", "files_of"]

KINDS = ("parquet", "arrow", "jsonl", "csv", "tsv", "text")
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}  # how such a file begins
_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "text",
}
_PACKED_SUFFIXES = (".gz", ".zst", ".bz2")


@dataclass(frozen=True)
class File:
    """One file of captions.

    Attributes:
        path: Where it is.
        kind: One of `KINDS`.
    """

    path: Path
    kind: str

    @property
    def name(self) -> str:
        """What it is called in messages and in the store: the path as it was given."""
        return self.path.as_posix()


def files_of(sources: Any, kind: str | None) -> tuple[File, ...]:
    """Return all files of a path, a folder, a glob, or of several of these, in the order of their items.

    Raises:
        ValueError: There is none, one comes twice, or a kind is unknown or not clear.
    """
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"format={shown(kind)}: expected one of {', '.join(KINDS)}, or None for the file's own")
    listed: list[Any] = [sources] if isinstance(sources, str | os.PathLike) else list(_iterated(sources))
    found: list[File] = []
    for source in listed:
        if not isinstance(source, str | os.PathLike):
            raise ArgumentError(f"sources: expected paths, globs and folders, got {kind_of(source)} {shown(source)}")
        found += _expanded(os.fspath(source), kind)  # pyright: ignore
    if not found:
        raise ArgumentError("sources: expected at least one path, glob or folder, got none")
    seen: set[Path] = set()
    for file in found:
        real = file.path.resolve()
        if real in seen:
            raise ArgumentError(f"sources: {shown_path(file.name)} comes twice")
        seen.add(real)
    return tuple(found)


def _iterated(sources: Any) -> Iterable[Any]:
    """Return what can be iterated over; ValueError for anything else."""
    try:
        return iter(sources)
    except TypeError:
        raise ArgumentError(
            f"sources: expected a path, a glob, a folder or several, got {kind_of(sources)} {shown(sources)}"
        ) from None


def _expanded(source: str, kind: str | None) -> list[File]:
    """Return the files that one source stands for."""
    path = Path(source).expanduser()
    if path.is_dir():
        return _of_folder(path, kind)
    if path.exists():
        return [File(path, kind or _kind(path))]
    if not any(mark in source for mark in "*?["):
        raise ArgumentError(f"sources: {shown_path(source)}: there is no such file or folder")
    matched = sorted((Path(name) for name in glob.glob(str(path), recursive=True)), key=Path.as_posix)
    files = [match for match in matched if match.is_file()]
    if files:
        return [File(match, kind or _kind(match)) for match in files]
    if not matched:
        raise ArgumentError(f"sources: {shown_path(source)}: no file has such a name")
    return [file for match in matched for file in _of_folder(match, kind)]


def _of_folder(folder: Path, kind: str | None) -> list[File]:
    """Return the files of captions in a folder and the folders in it; those of one kind."""
    if (folder / "prompts.json").is_file():  # a store; `_layout` has its header
        return [File(folder / part["name"], "arrow") for part in _json(folder / "prompts.json").get("parts", [])]
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        return [file for split in splits for file in _of_folder(folder / split, kind)]
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        names = [entry["filename"] for entry in _json(folder / "state.json").get("_data_files", [])]
        return [File(folder / name, "arrow") for name in names]
    found: list[File] = []
    for path in sorted(folder.rglob("*"), key=Path.as_posix):
        below = path.relative_to(folder).parts
        if path.is_file() and not any(part.startswith((".", "_")) for part in below):
            own = _by_name(path)
            if own is not None and kind in (None, own):
                found.append(File(path, own))
    kinds = {file.kind for file in found}
    if not found:
        wanted = "captions" if kind is None else f"format={kind!r}"
        raise ArgumentError(
            f"sources: {shown_path(folder.as_posix())}: no file of {wanted} is in this folder (it takes .parquet, "
            ".arrow, .jsonl, .csv, .tsv and .txt; text may be packed as .gz, .zst or .bz2)"
        )
    if len(kinds) > 1:
        counts = ", ".join(f"{sum(file.kind == one for file in found)} of {one}" for one in sorted(kinds))
        raise ArgumentError(
            f"sources: {shown_path(folder.as_posix())}: this folder has files of several kinds, {counts}; say which "
            f"with format=, such as format={sorted(kinds)[0]!r}, or pass a glob"
        )
    return found


def _json(path: Path) -> dict[str, Any]:
    """Return what a small file of JSON holds; ValueError, naming it, if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArgumentError(f"sources: {shown_path(path.as_posix())}: is damaged ({str(error)[:200]})") from None


def _by_name(path: Path) -> str | None:
    """Return the kind of a file by its name; None if that is unknown."""
    name = path.name.lower()
    for packed in _PACKED_SUFFIXES:
        name = name.removesuffix(packed)
    return _SUFFIXES.get(os.path.splitext(name)[1])


def _kind(path: Path) -> str:
    """Return the kind of a file by how it begins, else by its name; ValueError if both are unknown."""
    try:
        with path.open("rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise ArgumentError(f"sources: {shown_path(path.as_posix())}: cannot be read ({error.strerror})") from None
    if begin.startswith(b"PAR1"):
        return "parquet"
    if begin.startswith(b"ARROW1"):
        return "arrow"
    kind = _by_name(path)
    if kind is None:
        came = recognised(path)
        raise ArgumentError(
            f"sources: {shown_path(path.as_posix())}: expected a file of captions, "
            + (
                f"and {came}"
                if came
                else f"and its name does not say what it is; pass format=, one of {', '.join(KINDS)}"
            )
        )
    return kind
