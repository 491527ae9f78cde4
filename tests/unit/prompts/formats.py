"""Writes captions into files of every kind, by the writers that people use, for the tests of the reader."""

import bz2
import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("text", "jsonl", "strings", "csv", "tsv", "parquet", "arrow", "stream", "datasets")
PACKED = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": lambda raw: pa.compress(raw, "zstd", True)}
# What str.splitlines, or some reader, takes for the end of a line or of a text, and what decoders like to change.
ODD = [
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x00",
    "\ufeff",
    "\r",
    '"',
    ",",
    "\t",
    "\\",
    "'",
]


def fits(kind, text):
    """Whether a kind of file can hold a caption at all: plain text ends one at a line feed."""
    return kind != "text" or ("\n" not in text and not text.endswith("\r"))


def write(folder, kind, captions, *, packed="", mark="", end="\n", name="captions", beside=None):
    """Write a file or a folder of captions, with other columns `beside`, and return its path."""
    columns = {"caption": captions, **(beside or {})}
    folder.mkdir(exist_ok=True, parents=True)
    if kind in ("parquet", "arrow", "stream", "datasets"):
        return _arrow(folder, kind, pa.table(columns), name)
    out = io.StringIO(newline="")
    if kind == "text":
        out.write("".join(caption + end for caption in captions))
    elif kind in ("jsonl", "strings"):
        rows = captions
        if kind == "jsonl":
            rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        out.write("".join(json.dumps(row, ensure_ascii=len(captions) % 2 == 0) + end for row in rows))
    else:
        writer = csv.writer(out, delimiter="," if kind == "csv" else "\t", lineterminator=end, quoting=csv.QUOTE_ALL)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    suffix = {"text": "txt", "strings": "jsonl"}.get(kind, kind)
    path = folder / f"{name}.{suffix}{packed}"
    path.write_bytes(PACKED[packed]((mark + out.getvalue()).encode("utf-8")))
    return path


def _arrow(folder, kind, table, name):
    if kind == "parquet":
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=7)
        return path
    path = folder / f"{name}.arrow" if kind != "datasets" else folder / name / "data-00000-of-00001.arrow"
    path.parent.mkdir(exist_ok=True)
    new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    if kind != "datasets":
        return path
    # What `datasets.Dataset.save_to_disk` leaves beside it.
    (path.parent / "dataset_info.json").write_text("{}", encoding="utf-8")
    state = {"_data_files": [{"filename": path.name}], "_fingerprint": "0", "_split": None}
    (path.parent / "state.json").write_text(json.dumps(state), encoding="utf-8")
    return path.parent
