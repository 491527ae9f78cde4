"""The partition file: an uncompressed ``.npz`` whose arrays are aligned, so that they can be mapped.

A zip file has what is needed here (a directory at the end, so truncation shows; a checksum for each
array) and every NumPy can open it. Padding each member's header puts its data on a 64-byte boundary.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._errors import PartitionFileError
from aria_sampling._typing import AnyArray

__all__ = ["read", "write"]

_FORMAT = "aria-sampling partition 1"
_HEADER = "header.json"
_ALIGNMENT = 64
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_PADDING_FIELD = 0xA51A  # a private extra-field id; readers skip ids they do not know
_DTYPES = {"labels": ("<u2", "<u4"), "order": ("<u4", "<i8"), "offsets": ("<i8",), "centers": ("<f4",)}
_DATE = (1980, 1, 1, 0, 0, 0)  # no clock in the file: equal partitions give equal bytes


def write(path: Path, arrays: dict[str, AnyArray], header: dict[str, Any]) -> None:
    """Write `arrays` and `header` to `path`: first to a file beside it, then renamed over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as raw:  # with the permissions of any new file, unlike mkstemp: it is to be shared
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(
                    zipfile.ZipInfo(_HEADER, _DATE), json.dumps({"format": _FORMAT, "arrays": list(arrays), **header})
                )
                for name, array in arrays.items():
                    _write_array(archive, raw.tell(), f"{name}.npy", array)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_array(archive: zipfile.ZipFile, position: int, name: str, array: AnyArray) -> None:
    """Append one array, its header padded so that the member's data begin on a boundary."""
    info = zipfile.ZipInfo(name, _DATE)
    # force_zip64 below adds a 20-byte field of its own in front of ours; ours is 4 bytes and the padding
    begin = position + _LOCAL_HEADER.size + len(name.encode()) + 20 + 4
    padding = -begin % _ALIGNMENT
    info.extra = struct.pack("<2H", _PADDING_FIELD, padding) + bytes(padding)
    with archive.open(info, "w", force_zip64=True) as member:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        np.lib.format.write_array(member, little, allow_pickle=False)


def read(path: Path, *, mmap: bool) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Return the arrays and the header of a file that `write` made; PartitionFileError otherwise."""
    try:
        with zipfile.ZipFile(path) as archive:
            header = dict(json.loads(archive.read(_HEADER)))
            if header.get("format") != _FORMAT:
                raise PartitionFileError(f"{path}: expected format {_FORMAT!r}, got {header.get('format')!r}")
            members = [info for info in archive.infolist() if info.filename != _HEADER]
            if [info.filename for info in members] != [f"{name}.npy" for name in header["arrays"]]:
                raise ValueError(f"expected the arrays {header['arrays']}")
            arrays: dict[str, AnyArray] = {}
            for info in members:
                mapped = mmap and info.filename != "offsets.npy"  # few bytes, and all hangs on them: always verified
                arrays[info.filename[:-4]] = (_map_array if mapped else _read_array)(archive, path, info)
        _check(arrays, header)
    except (FileNotFoundError, PermissionError, MemoryError, PartitionFileError):
        raise
    except Exception as error:  # zipfile, NumPy's header parser and zlib between them raise a dozen kinds
        raise PartitionFileError(
            f"{path}: not a whole partition file ({error}); write it again with Partition.save"
        ) from error
    return arrays, header


def _read_array(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> AnyArray:
    """Read one array into memory; zipfile verifies its checksum."""
    return np.lib.format.read_array(io.BytesIO(archive.read(info)), allow_pickle=False)


def _map_array(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> AnyArray:
    """Map one array read-only, after checking that all of it is in the file."""
    with path.open("rb") as raw:
        raw.seek(info.header_offset)
        local = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
        begin = raw.tell() + local[-2] + local[-1]
        raw.seek(begin)
        version = np.lib.format.read_magic(raw)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = reader(raw)
        offset = raw.tell()
    if offset + dtype.itemsize * math.prod(shape) != begin + info.file_size:
        raise ValueError(f"array {info.filename} is not as long as it says")
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)


def _check(arrays: dict[str, AnyArray], header: dict[str, Any]) -> None:
    """Raise ValueError unless the arrays fit each other and the header."""
    labels, order, offsets, centers = arrays["labels"], arrays["order"], arrays["offsets"], arrays.get("centers")
    sizes = np.diff(offsets)
    whole = (
        labels.ndim == order.ndim == offsets.ndim == 1
        and all(array.dtype.str in _DTYPES[name] for name, array in arrays.items())
        and len(offsets) > 1
        and len(labels) == len(order) == offsets[-1]
        and offsets[0] == 0
        and bool((sizes > 0).all())
        and len(header["names"]) == len(sizes)
        and isinstance(header["fingerprint"], str)
        and (centers is None or (centers.ndim == 2 and len(centers) == len(sizes)))
    )
    if not whole:
        raise ValueError("its arrays do not fit each other")
