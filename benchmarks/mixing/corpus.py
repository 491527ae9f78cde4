"""The corpus: the source text of Python's own standard library, in groups by top-level package.

Every installation of Python carries it, so nothing is downloaded or committed. It differs from version to version: runs
are compared only where `Corpus.fingerprint` is the same.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import aria_sampling as aria

LENGTH = 64  # bytes that a sequence has to predict
PASSAGE = 16 * LENGTH  # the unit that is held out or trained on as a whole
HELD_OUT = 4  # one passage in so many is held out
SMALLEST = 16 * 1024  # bytes: smaller groups have too little text to hold any out, and are left to nobody
MODULES = "(modules)"  # the group of all modules that are single files
OTHER, START = 128, 129  # tokens: any byte beyond ASCII, and what stands before a sequence
VOCABULARY = 130

_SKIP = {"test", "tests", "idle_test", "site-packages", "dist-packages", "lib-dynload", "__pycache__", "_bundled"}


@dataclass(frozen=True)
class Corpus:
    """Sequences of one text each.

    Attributes:
        pool: The groups of the training sequences.
        train: Tokens of the training sequences, uint8 [n_items, LENGTH], in the order of the pool.
        held_out: Per group, tokens of its held-out sequences, uint8 [m, LENGTH].
        fingerprint: A hash of all text and of how it was cut.
        python: The version of Python whose library it is.
    """

    pool: aria.Partition
    train: np.ndarray
    held_out: tuple[np.ndarray, ...]
    fingerprint: str
    python: str = platform.python_version()


def library_files(root: Path) -> dict[str, list[Path]]:
    """The library's source files by group, tests and what others installed left out."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIP & set(parts[:-1]) or parts[0].startswith(("_sysconfigdata", "config-")):
            continue
        groups.setdefault(parts[0] if len(parts) > 1 else MODULES, []).append(path)
    return groups


def load(root: Path | None = None, *, largest: int | None = None) -> Corpus:
    """Read, cut and split the library.

    Text is cut into passages within its file. A quarter of each group's passages is held out: those whose
    hashes come first, so that the choice depends on the text alone. A passage that occurs twice counts once.

    Args:
        root: Folder of the library; default: that of the running Python.
        largest: At most so many held-out sequences a group, by the same order; default all.
    """
    root = Path(sysconfig.get_path("stdlib")) if root is None else root
    digest = hashlib.sha256(f"{LENGTH} {PASSAGE} {HELD_OUT} {SMALLEST}".encode())
    seen: set[bytes] = set()
    names, train, held_out = [], [], []
    for name, paths in sorted(library_files(root).items()):
        texts = [path.read_bytes().replace(b"\r\n", b"\n") for path in paths]
        if sum(map(len, texts)) < SMALLEST:
            continue
        passages: dict[bytes, bytes] = {}  # by hash, in the order of the text
        for path, text in zip(paths, texts, strict=True):
            digest.update(f"{path.relative_to(root).as_posix()} {len(text)}\n".encode() + text)
            for start in range(0, len(text) - LENGTH + 1, PASSAGE):
                passage = text[start : start + PASSAGE]
                key = hashlib.sha256(passage).digest()
                if key not in seen:
                    seen.add(key)
                    passages[key] = passage
        first = sorted(passages)[: len(passages) // HELD_OUT]
        kept = set(first)
        names.append(name)
        train.append(_sequences([passage for key, passage in passages.items() if key not in kept]))
        held_out.append(_sequences([passages[key] for key in first])[:largest])
    labels = np.repeat(np.arange(len(names)), [len(group) for group in train])
    pool = aria.Partition.from_labels(labels, names=names)
    return Corpus(pool, np.concatenate(train), tuple(held_out), digest.hexdigest()[:16])


def _sequences(passages: list[bytes]) -> np.ndarray:
    """All whole sequences of the passages as tokens, uint8 [n, LENGTH]."""
    cut = [np.frombuffer(p, np.uint8)[: len(p) // LENGTH * LENGTH].reshape(-1, LENGTH) for p in passages]
    return np.minimum(np.concatenate(cut), OTHER)
