"""Files that are there whole or not at all, and locks that a killed process lets go of.

The prompt store and the embeddings are folders of files. None of these is ever changed: a new one is written under a
temporary name, flushed to the disk and renamed. A small file of JSON says which of them belong to the folder. It is
replaced last, in one step, so that a process that is killed leaves either the old folder or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import sys
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from aria_sampling._check import shown_path
from aria_sampling.errors import StoreError, WriteError

__all__ = ["TEMPORARY", "Lock", "commit", "read_commit", "replacing", "sync_folder", "temporary", "writing"]

TEMPORARY = ".tmp-"  # the beginning of the name of what is not finished
_CHECK = "checksum"
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)  # what it means that another process has a lock


def temporary(path: Path) -> Path:
    """Return a name beside `path` for what is to be renamed to it."""
    return path.with_name(f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


@contextlib.contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn what the disk says into a `WriteError` that names `path`."""
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(
            f"{shown_path(path)}: could not be written ({reason[:200]}); what was there before is as it was. Free some "
            "space or take another folder, and run it again"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give the name of a file to write, and put it in the place of `path` once it is whole; remove it if that fails.

    Whoever writes it does so under `writing`.
    """
    unfinished = temporary(path)
    try:
        yield unfinished
        with writing(path):
            _sync(unfinished)
            os.replace(unfinished, path)
            sync_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Have the disk hold what was written to a file."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the disk hold the names in a folder; where the system has no such call, it does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit(path: Path, header: dict[str, Any]) -> None:
    """Write `header` as JSON with a checksum, in one step."""
    text = json.dumps({**header, _CHECK: _checksum(header)}, ensure_ascii=False, indent=1)
    with replacing(path) as unfinished, writing(path):
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_commit(path: Path, form: str, what: str, writer: str) -> dict[str, Any]:
    """Return the header that `commit` wrote at `path`.

    Args:
        path: The file.
        form: What its entry "format" has to be.
        what: What the folder holds, for messages.
        writer: The call that makes such a folder, for messages.

    Raises:
        StoreError: It is damaged, or of another format.
        FileNotFoundError: It is not there.
    """
    raw = path.read_bytes()
    try:
        header: Any = json.loads(raw)
        checksum = header.pop(_CHECK)
        found = str(header["format"])
        whole = checksum == _checksum(header)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{shown_path(path)}: is damaged ({str(error)[:200]}); write it again by {writer}") from error
    if found != form:
        raise StoreError(
            f"{shown_path(path)}: expected the format {form!r}, got {found[:80]!r}: it is not {what}, or of another "
            "version of aria-sampling"
        )
    if not whole:
        raise StoreError(f"{shown_path(path)}: is damaged (its checksum differs); write it again by {writer}")
    return header


def _checksum(header: dict[str, Any]) -> str:
    """Return a digest of a header, in hex."""
    import hashlib

    return hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16).hexdigest()


class Lock:
    """A file that one process at a time has open for itself, as a context manager; the system frees it with a process.

    Args:
        path: Of the file; it is made, and stays.

    Attributes:
        held: Whether this process has it, after `__enter__`. Nobody waits.
    """

    def __init__(self, path: Path) -> None:
        self.held = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    def __enter__(self) -> Lock:
        """Try to get it."""
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._descriptor, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except OSError as error:
            # Some network file systems have no locks: whoever asks there has it.
            self.held = error.errno not in _TAKEN
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it go."""
        os.close(self._descriptor)
        self.held = False
