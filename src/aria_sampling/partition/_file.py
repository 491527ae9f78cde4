"""Files of arrays: an uncompressed ``.npz`` whose arrays are aligned, so that they can be mapped.

A zip file has what is needed here (a directory at the end, so truncation shows; a checksum for each
array) and every NumPy can open it. Padding each member's header puts its data on a 64-byte boundary.
`Partition.save` and `Coverage.save` write such files; a `Format` says what distinguishes them.
"""

from __future__ import annotations

import io
import json
import math
import os
import secrets
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import shown_path
from aria_sampling.errors import ArgumentError
from aria_sampling.partition._kinds import recognised

__all__ = ["Format", "read", "write"]

_HEADER = "header.json"
_ALIGNMENT = 64
_PIECE = 1 << 20  # bytes of an array that is verified
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_PADDING_FIELD = 0xA51A  # a private extra-field id; readers skip ids they do not know
_DATE = (1980, 1, 1, 0, 0, 0)  # no clock in the file: equal values give equal bytes


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        kind: What it holds, for messages: "partition".
        version: Number of the layout; a file of another one is refused.
        writer: The method that writes it, for messages.
        error: Raised for a file that is damaged or of another kind.
        fits: Whether arrays and header fit each other. It may raise anything.
        verified: Names of the arrays whose checksums are verified even if the file is mapped.
    """

    kind: str
    version: int
    writer: str
    error: type[ValueError]
    fits: Callable[[dict[str, AnyArray], dict[str, Any]], bool]
    verified: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What stands in the header."""
        return f"aria-sampling {self.kind} {self.version}"


def write(path: Path, form: Format, arrays: dict[str, AnyArray], header: dict[str, Any]) -> None:
    """Write `arrays` and `header` to `path`: first to a file beside it, then renamed over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as raw:  # with the permissions of any new file, unlike mkstemp: it is to be shared
            with zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(
                    zipfile.ZipInfo(_HEADER, _DATE), json.dumps({"format": form.name, "arrays": list(arrays), **header})
                )
                for name, array in arrays.items():
                    _write_array(archive, raw.tell(), f"{name}.npy", array)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Make sure that a renamed file has its name after a power cut, where the system can tell."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(number)
    except OSError:  # nor do some network file systems sync them
        pass
    finally:
        os.close(number)


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


def read(
    path: Path, form: Format, *, mmap: bool = False, verify: bool = False
) -> tuple[dict[str, AnyArray], dict[str, Any]]:
    """Return the arrays and the header of a file of format `form` that `write` made.

    Args:
        path: The file.
        form: Its format.
        mmap: Map the arrays that `form` does not want verified.
        verify: Verify the checksums of mapped arrays, too.

    Raises:
        ValueError: Of the class ``form.error``: the file is damaged, or of another kind.
        FileNotFoundError, PermissionError, MemoryError: As they come.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = dict(json.loads(archive.read(_HEADER)))
            if header.get("format") != form.name:
                raise form.error(
                    f"{shown_path(path)}: expected format {form.name!r}, got {str(header.get('format'))[:80]!r}"
                )
            members = [info for info in archive.infolist() if info.filename != _HEADER]
            if [info.filename for info in members] != [f"{name}.npy" for name in header["arrays"]]:
                raise ArgumentError("its arrays are not those that its header names")
            arrays: dict[str, AnyArray] = {}
            for info in members:
                name = info.filename[:-4]
                mapped = mmap and name not in form.verified
                if mapped and verify:
                    _verify(archive, info)
                arrays[name] = (_map_array if mapped else _read_array)(archive, path, info)
        if not form.fits(arrays, header):
            raise ArgumentError("its arrays do not fit each other")
    except (FileNotFoundError, PermissionError, MemoryError, form.error):
        raise
    except Exception as error:  # zipfile, NumPy's header parser and zlib between them raise a dozen kinds
        what = recognised(path)
        why = str(error)[:200] if what is None or form.kind in what else what
        raise form.error(
            f"{shown_path(path)}: not a whole {form.kind} file ({why}); write it again with {form.writer}"
        ) from error
    return arrays, header


def _verify(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    """Read one array through, a piece at a time; zipfile verifies its checksum at the end."""
    with archive.open(info) as member:
        while member.read(_PIECE):
            pass


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
        raise ArgumentError(f"array {info.filename} is not as long as it says")
    if 0 in shape:  # nothing to map
        return np.empty(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
