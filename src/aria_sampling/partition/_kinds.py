"""What a file is that is not the one expected, in words, and the call that makes the one expected of it.

People pass tables of captions, archives, and files that a crash cut off. A message of the library that reads them
helps nobody: it speaks of pickles and zip directories.
"""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np

__all__ = ["column_of", "reading", "recognised"]

_BEGINNINGS = (
    (b"PAR1", ".parquet"),
    (b"\x89HDF", ".h5"),
    (b"ARROW1", ".feather"),
    (b"\x1f\x8b", ".gz"),
    (b"\x80\x02", ".pkl"),
    (b"\x80\x03", ".pkl"),
    (b"\x80\x04", ".pkl"),
    (b"\x80\x05", ".pkl"),
)
_TEXTS = (".csv", ".tsv", ".jsonl", ".json", ".txt")
_WORDS = {
    ".csv": "a table of text",
    ".tsv": "a table of text",
    ".jsonl": "JSON Lines",
    ".json": "JSON",
    ".txt": "text",
    ".parquet": "a Parquet table",
    ".feather": "an Arrow table",
    ".h5": "an HDF5 file",
    ".gz": "a compressed file: unpack it first",
    ".pkl": "a pickle, which may run code when it is loaded: save its arrays with numpy.save where you made it",
    ".pt": "what torch.save wrote",
    ".safetensors": "a safetensors file",
}
_LABELS = ("label", "labels", "class", "category", "group", "source", "cluster", "topic", "region")
_READ = 1 << 16  # bytes from the beginning
_MOST_COLUMNS, _MOST_SHOWN = 12, 160


def _kind(path: Path) -> str:
    """Return the usual suffix of what a file holds, by its first bytes, else by its name; "" if unknown."""
    suffix = {".pth": ".pt", ".ckpt": ".pt", ".hdf5": ".h5", ".arrow": ".feather", ".ndjson": ".jsonl"}
    named = suffix.get(path.suffix.lower(), path.suffix.lower())
    begin = _begin(path, 8)
    if begin.startswith(b"\x93NUMPY"):
        return ".npy"
    if begin.startswith(b"PK"):
        return _archive(path)
    for start, kind in _BEGINNINGS:
        if begin.startswith(start):
            return kind
    return named if named in _WORDS else ""


def _begin(path: Path, n: int) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(n)


def _archive(path: Path) -> str:
    """Return what a zip file is: of this library, of numpy.savez, of torch.save, or "" for others."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" in names:
                return json.loads(archive.read("header.json"))["format"]
    except Exception:  # whatever zipfile and json meet in a damaged file
        return ""
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return ".pt"
    return ".npz" if names and all(name.endswith(".npy") for name in names) else ""


def _columns(path: Path, kind: str) -> list[str]:
    """Return the names of the columns of a table of text, or of the entries of JSON Lines; none if it has none."""
    line = _begin(path, _READ).decode("utf-8-sig", "replace").split("\n", 1)[0].rstrip("\r")
    if kind == ".jsonl":
        try:
            entries = json.loads(line)
        except ValueError:
            return []
        return [*map(str, entries)] if isinstance(entries, dict) else []  # pyright: ignore
    return [name for row in csv.reader([line], delimiter="\t" if kind == ".tsv" else ",") for name in row]


def recognised(path: Path) -> str | None:
    """Return what the file at `path` is, in words; None if it is unknown, damaged or not there."""
    try:
        if path.is_dir():
            return "it is a folder"
        if path.stat().st_size == 0:
            return "it is empty"
        kind = _kind(path)
        if kind == ".npy":
            return _npy(path)
        if kind == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = [name[:-4] for name in archive.namelist()]
            return f"it is an archive of the arrays {_listed(names)}"
        if kind in (".csv", ".tsv", ".jsonl"):
            what = "columns" if kind != ".jsonl" else "entries"
            return f"it is {_WORDS[kind]} with the {what} {_listed(_columns(path, kind))}"
        if kind.startswith("aria-sampling"):
            return f"it is an {kind.rsplit(' ', 1)[0]} file"
        return f"it is {_WORDS[kind]}" if kind in _WORDS else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _arrays(path: Path) -> dict[str, int]:
    """Return the names of the arrays of an archive, and how many axes each has; 0 if its header is of a later kind."""
    found: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                old = np.lib.format.read_magic(member) == (1, 0)
                found[name[:-4]] = len(np.lib.format.read_array_header_1_0(member)[0]) if old else 0
    return found


def _npy(path: Path) -> str:
    """Return what an .npy file holds, and whether it is whole."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, dtype = header(file)
        except ValueError:
            return "it is an .npy file that is cut off; write it again with numpy.save"
        if dtype.hasobject:
            return "it is an .npy file of Python objects; save text as numpy.array(labels, str), rows by numpy.stack"
        wanted, there = int(np.prod(shape, dtype=object)) * dtype.itemsize, path.stat().st_size - file.tell()
    if there < wanted:
        return f"it is an .npy file with {there} of {wanted} bytes of data; write it again with numpy.save"
    return f"it is an .npy file, {str(dtype)[:_MOST_SHOWN]} {list(shape)}"


def _listed(names: list[str]) -> str:
    """Return names for a message."""
    text = ", ".join(map(repr, names[:_MOST_COLUMNS]))
    text = text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 4]} ..."
    return text + (f", ... ({len(names)} in all)" if len(names) > _MOST_COLUMNS else "")


def column_of(path: Path) -> str:
    """Return the name of the column that says which group a row is in, as far as names tell; else "COLUMN"."""
    columns = _columns(path, _kind(path))
    return next((name for name in columns if name.lower() in _LABELS), "COLUMN")


def reading(path: Path, *, rows: bool) -> tuple[str, str] | None:
    """Return the imports and the expression that read what this file holds; None if that is unknown.

    It holds labels, or with `rows` embeddings. Labels come from the column that is named for them, one to a line, or
    from the folder that a file is in.
    """
    name = repr(str(path))
    if path.is_dir():
        return (
            None if rows else ("from pathlib import Path", f'[f.parent.name for f in sorted(Path({name}).glob("*/*"))]')
        )
    kind = _kind(path)
    if kind in _TEXTS and rows:
        return None  # text has no embeddings
    if kind == ".txt":
        return "", f'[line.rstrip("\\r\\n") for line in open({name}, encoding="utf-8-sig", newline="\\n")]'
    if kind in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".feather"):
        reader = {".tsv": "csv", ".jsonl": "json"}.get(kind, kind[1:])
        how = {".tsv": ', sep="\\t"', ".jsonl": ", lines=True"}.get(kind, "")
        column = column_of(path) if kind in (".csv", ".tsv", ".jsonl") else "COLUMN"
        table = f"pandas.read_{reader}({name}{how})[{column!r}]"
        return "import pandas", f"np.stack({table})" if rows else table
    if kind == ".npz":
        arrays = _arrays(path)
        fitting = [key for key, n_axes in arrays.items() if n_axes == 1 + rows]
        return "", f"np.load({name})[{(fitting or list(arrays))[0]!r}]"
    if kind == ".pt":
        return "import torch", f'torch.load({name}, weights_only=True, map_location="cpu")'
    if kind == ".safetensors":
        return "from safetensors.numpy import load_file", f'load_file({name})["NAME"]'
    return ("import h5py", f'h5py.File({name})["NAME"][:]') if kind == ".h5" else None
