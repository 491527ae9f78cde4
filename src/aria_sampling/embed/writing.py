"""`write`: a pool is embedded shard by shard. What is done stays done, whoever is killed or comes on top."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from aria_sampling import prompts
from aria_sampling._check import as_path, integer, kind_of, shown, shown_path
from aria_sampling._disk import TEMPORARY, Lock, commit, replacing, writing
from aria_sampling._progress import Progress
from aria_sampling.embed._layout import HEADER, LOCK, PLAN, Plan, Shard, header_of, read_header, read_plan
from aria_sampling.embed._ray import on_ray
from aria_sampling.embed._tfidf import FILE, Tfidf
from aria_sampling.embed.batch import DTYPES, Encoder, encode
from aria_sampling.embed.encoders import load
from aria_sampling.embed.store import Embeddings
from aria_sampling.errors import ArgumentError, AriaError, StoreError, UsageError

__all__ = ["write"]

_PROBES = 4  # captions
_AT_ONCE = 2048  # texts in one call of an encoder
_WAIT, _WAITS = 0.1, 36_000  # seconds, and how often
_SHARD = "embeddings-"


@dataclass(frozen=True)
class _Task:
    """All that making a shard takes; it can be sent to another process, which loads the encoder if a text names it."""

    folder: Path
    pool: prompts.Prompts
    plan: Plan
    encoder: Any
    device: str | None
    batch_size: int | None

    def ready(self) -> Encoder:
        """Return the encoder."""
        found = self.encoder
        if isinstance(found, str):
            found = load(found, device=self.device, batch_size=self.batch_size)
        return found.prepare(self.folder, self.pool) if isinstance(found, Tfidf) else found


def write(
    path: str | os.PathLike[str],
    pool: Any,
    *,
    encoder: Any,
    shard: tuple[int, int] = (0, 1),
    shard_rows: int = 1 << 16,
    dtype: str = "float16",
    zeros: str = "refuse",
    device: str | None = None,
    batch_size: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Embeddings | None:
    """Embed the captions of a pool, and return the embeddings once all are there.

    Memory is bounded: a few thousand texts and their vectors. After a kill, call it again: shards that are done are not
    done again. After the pool has grown, too. Several processes may work on one folder: each takes shards that nobody
    has. Where processes on several machines share a folder, give each a `shard` of its own.

    Args:
        path: Folder to make; its parent is there.
        pool: A `Prompts`, or the path of one.
        encoder: Any object with `encode(texts)`, or the text that names a built-in one; see `load`.
        shard: (i, n) with i from 0: this process makes every nth shard, from the ith on.
        shard_rows: Items of a shard.
        dtype: "float16" or "float32".
        zeros: "refuse" or "keep" vectors that are zero.
        device: For a built-in encoder, such as "cuda:1".
        batch_size: For a built-in encoder: texts that go through the model at once.
        engine: "local": in this process. "ray": on a Ray cluster, see `workers`.
        workers: With "ray": how many processes have an encoder each; None: 2.
        overwrite: Whether embeddings of another encoder that are there may be replaced.
        progress: Whether to show a bar; None: if the errors go to a terminal and tqdm is installed.

    Returns:
        The embeddings; None as long as another process has shards to make.

    Raises:
        ValueError: An argument is none of these; the folder has embeddings of another encoder; a vector is not finite,
            is zero, or has another width.
        OSError: The disk is full, or the folder cannot be written.
        ImportError: A package is not installed.
    """
    folder = as_path("path", path)
    found = pool if isinstance(pool, prompts.Prompts) else prompts.open(pool)
    _checked(encoder, shard, dtype, zeros, engine)
    integer("shard_rows", shard_rows, low=1)
    count = 2 if workers is None else integer("workers", workers, low=1)
    if not folder.absolute().parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise ArgumentError(f"path {shown_path(folder)}: expected a folder to make, in a folder that exists")
    name = encoder if isinstance(encoder, str) else f"object:{type(encoder).__module__}.{kind_of(encoder)}"
    plan = Plan(name, 0, dtype, zeros, shard_rows, len(found), found.fingerprint, ())
    task = _Task(folder.absolute(), found, plan, encoder, device, batch_size)
    with writing(folder):
        folder.mkdir(exist_ok=True)
    task, ready = _planned(task, overwrite=bool(overwrite))
    if task.plan.shards:
        return Embeddings(folder, task.plan)
    mine = [number for number in range(len(task.plan.spans())) if number % shard[1] == shard[0]]
    total = sum(end - begin for begin, end in (task.plan.spans()[number] for number in mine))
    with Progress("embedding", total, "captions", progress) as bar:
        if engine == "ray":
            for rows in on_ray(Worker, task, mine, count):
                bar.add(rows)
        else:
            for number in mine:
                for rows in make(task, ready, number):
                    bar.add(rows)
    return _finished(task)


def _checked(encoder: Any, shard: Any, dtype: Any, zeros: Any, engine: Any) -> None:
    """Raise ValueError for arguments that are none."""
    if not isinstance(encoder, str) and not callable(getattr(encoder, "encode", None)):
        raise ArgumentError(f"encoder: expected an object with encode(texts), or a text, got {kind_of(encoder)}")
    if not isinstance(shard, tuple) or len(cast("tuple[Any, ...]", shard)) != 2:
        raise ArgumentError(f"shard={shown(shard)}: expected (i, n), i from 0 to n - 1")
    n = integer("shard[1]", shard[1], low=1)
    integer("shard[0]", shard[0], low=0, high=n - 1)
    for name, value, choices in (
        ("dtype", dtype, DTYPES),
        ("zeros", zeros, ("refuse", "keep")),
        ("engine", engine, ("local", "ray")),
    ):
        if value not in choices:
            raise ArgumentError(f"{name}={shown(value)}: expected one of {', '.join(map(repr, choices))}")


def _planned(task: _Task, *, overwrite: bool) -> tuple[_Task, Encoder]:
    """Write down what is to be made, or find that it is being made or done; ValueError if it is something else.

    The task that is returned has shards in its plan if all is done.
    """
    with _waited(task.folder / LOCK):
        return _plan(task, overwrite=overwrite)


def _plan(task: _Task, *, overwrite: bool) -> tuple[_Task, Encoder]:
    """Do what `_planned` does, while nobody else does."""
    done, begun = _found(task, overwrite=overwrite)
    ready = task.ready()
    first = task.pool.take(range(min(_PROBES, len(task.pool))))
    probe = encode(ready, first, dtype=task.plan.dtype, zeros=task.plan.zeros).astype(np.float32)
    rounded = tuple(tuple(float(f"{number:.5g}") for number in row.tolist()) for row in probe)
    known = replace(task, plan=replace(task.plan, width=probe.shape[1], probe=rounded))
    if not _fits(known, (done, begun), overwrite=overwrite):
        return _plan(task, overwrite=overwrite)  # the folder is empty now
    if done is not None and done.prompts == known.plan.prompts:
        return replace(known, plan=done), ready
    if begun is None or begun.prompts != known.plan.prompts:
        commit(task.folder / PLAN, known.plan.to_json())
    return known, ready


def _found(task: _Task, *, overwrite: bool) -> tuple[Plan | None, Plan | None]:
    """Return what is done in the folder and what is begun; ValueError if it is something else, unless it may go."""
    folder = task.folder
    try:
        found = read_header(folder) if (folder / HEADER).exists() else None, read_plan(folder)
    except StoreError:
        if not overwrite:
            raise
        _cleared(folder)
        return None, None
    if found == (None, None):
        others = [path.name for path in folder.iterdir() if not _is_ours(path.name)]
        if others:
            raise ArgumentError(
                f"path {shown_path(folder)}: expected an empty folder or a new one, got one with {min(others)!r}"
            )
    return found if _fits(task, found, overwrite=overwrite) else (None, None)


def _is_ours(name: str) -> bool:
    """Whether a file may be in a folder of embeddings."""
    return name.startswith((TEMPORARY, LOCK, _SHARD)) or name in (HEADER, PLAN, FILE)


def _fits(task: _Task, found: tuple[Plan | None, Plan | None], *, overwrite: bool) -> bool:
    """Whether one may go on with what is there; if not, remove it, or ValueError if it may not go."""
    differs = next(filter(None, (task.plan.differs(other) for other in found if other is not None)), "")
    if not differs:
        return True
    if not overwrite:
        raise ArgumentError(
            f"path {shown_path(task.folder)}: embeddings are there with {differs}; take another folder, or "
            "overwrite=True replaces them"
        )
    _cleared(task.folder)
    return False


def _cleared(folder: Path) -> None:
    """Remove embeddings, those that are whole first of all."""
    for name in (HEADER, PLAN, FILE):
        (folder / name).unlink(missing_ok=True)
    for path in folder.glob(f"{_SHARD}*.npy"):
        path.unlink()


@contextlib.contextmanager
def _waited(path: Path) -> Generator[None]:
    """Hold a lock, after waiting for it: another process may be fitting an encoder."""
    for _ in range(_WAITS):
        with writing(path):
            lock = Lock(path)
        with lock:
            if lock.held:
                yield
                return
        time.sleep(_WAIT)
    raise UsageError(
        f"{shown_path(path.parent)}: another process holds {path.name} for more than {_WAITS * _WAIT:.0f} s"
    )


def _name(task: _Task, number: int) -> str:
    """Return the name that a shard has if it is of the captions as they are now."""
    begin, end = task.plan.spans()[number]
    return f"{_SHARD}{number:05d}-{task.pool.digest(begin, end)[:16]}.npy"


def make(task: _Task, encoder: Encoder, number: int) -> Iterator[int]:
    """Make a shard, unless it is there or another process is at it; yield numbers of items that need no more work."""
    begin, end = task.plan.spans()[number]
    path = task.folder / _name(task, number)
    with writing(path):
        lock = Lock(task.folder / f"{LOCK}-{number:05d}")
    with lock:
        if not lock.held or path.exists():
            yield end - begin
            return
        with replacing(path) as unfinished:
            with writing(path):
                file = unfinished.open("wb")
            with file:
                file.write(header_of(task.plan, end - begin)[0])
                for first, texts in task.pool.batches(_AT_ONCE, begin=begin, end=end):
                    rows = encode(
                        encoder,
                        texts,
                        dtype=task.plan.dtype,
                        width=task.plan.width,
                        zeros=task.plan.zeros,
                        first=first,
                    )
                    with writing(path):
                        file.write(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
                        file.flush()
                    yield len(texts)


class Worker:
    """What makes shards in a process of a cluster: called with ``{"shard": numbers}``, it returns how many items.

    An error of ours is returned, too, by its class and its message: clusters wrap what is raised beyond recognition.

    Args:
        task: What is to be made.
    """

    def __init__(self, task: _Task) -> None:
        self._task, self._encoder = task, task.ready()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the shards of a batch."""
        rows: list[int] = []
        kind = message = ""
        try:
            for number in batch["shard"]:
                rows.append(sum(make(self._task, self._encoder, int(number))))
        except AriaError as error:
            kind, message = type(error).__name__, str(error)
        return {"rows": np.array([sum(rows)], np.int64), "kind": np.array([kind]), "message": np.array([message])}


def _finished(task: _Task) -> Embeddings | None:
    """Make the shards one whole if all are there, and return it; None if some are not."""
    folder, plan = task.folder, task.plan
    with _waited(folder / LOCK):
        if any(not any(folder.glob(f"{_SHARD}{number:05d}-*.npy")) for number in range(len(plan.spans()))):
            return None
        names = [_name(task, number) for number in range(len(plan.spans()))]
        if not all((folder / name).exists() for name in names):
            return None
        header = plan.done(tuple(Shard(name, *span) for name, span in zip(names, plan.spans(), strict=True)))
        commit(folder / HEADER, header.to_json())
        (folder / PLAN).unlink(missing_ok=True)
        for path in folder.iterdir():
            unnamed = path.name.startswith(_SHARD) and path.name not in names
            if unnamed or path.name.startswith((TEMPORARY, f"{LOCK}-")):
                path.unlink(missing_ok=True)
        return Embeddings(folder, header)
