"""Which list of texts a file belongs to. A digest of the list is kept beside the file.

The items of a pool are numbers and mean nothing for another list. So a file of regions or embeddings is refused if it
was made for another list, or before a caption was changed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def holds(path: Path, texts: list[str], *, option: str) -> bool:
    """Return whether the file is there; ValueError, with the `option` that named it, if it belongs to other texts."""
    if not path.exists():
        return False
    beside = _beside(path)
    kept = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {"texts": "unknown"}
    if kept != _identity(texts):
        raise ValueError(
            f"{option} {path.name}: was made for another list, of {kept['texts']} texts, here are {len(texts)}: give "
            f"{option} the name of another file, or delete this one to have it made anew"
        )
    return True


def claim(path: Path, texts: list[str]) -> None:
    """Note that the file belongs to `texts`."""
    _beside(path).write_text(json.dumps(_identity(texts)), encoding="utf-8")


def digest(texts: list[str]) -> str:
    """Return 128 bits of hash, in hex."""
    return hashlib.blake2b(json.dumps(texts).encode(), digest_size=16).hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _identity(texts: list[str]) -> dict[str, int | str]:
    return {"texts": len(texts), "digest": digest(texts)}
