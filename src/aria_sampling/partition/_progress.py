"""How far a long call has come, for people: tqdm's bar if that is installed, else a line now and then."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

__all__ = ["Progress", "silent"]

_EVERY = 5.0  # seconds between two lines, without tqdm


class Progress:
    """Stages one after the other, each of a known length. Use it as a context, which ends the last one.

    Args:
        shown: Whether to show anything.
    """

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._bar: Any = None
        self._name, self._total, self._done, self._last = "", 0, 0, 0.0

    def stage(self, name: str, total: int) -> None:
        """Begin the next stage."""
        if not self._shown:
            return
        self.close()
        self._name, self._total, self._done, self._last = name, total, 0, time.monotonic()
        try:
            from tqdm import tqdm  # pyright: ignore
        except ImportError:
            return
        self._bar = tqdm(total=total, desc=name, file=sys.stderr, mininterval=0.5, unit_scale=True)  # pyright: ignore

    def update(self, n: int = 1) -> None:
        """Say that `n` more units are done."""
        if not self._shown:
            return
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
        elif time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            print(f"{self._name}: {self._done} of {self._total}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the stage."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the stage."""
        self.close()


silent = Progress(False)
