"""A progress bar where there is somebody to see it: tqdm's, if it is installed and the errors go to a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

__all__ = ["Progress"]


class Progress:
    """A bar, as a context manager; without tqdm, or with nobody to see it, nothing.

    Args:
        what: What is done, a word or two.
        total: How many steps there are; None if that is unknown.
        unit: What a step is.
        show: True: show it; False: do not; None: if the errors go to a terminal.
    """

    def __init__(self, what: str, total: int | None, unit: str, show: bool | None = None) -> None:
        self._bar: Any = None
        if show is not False:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            hidden = None if show is None else False  # tqdm takes None for "if it is no terminal"
            self._bar = tqdm(desc=what, total=total, unit=f" {unit}", unit_scale=True, disable=hidden)

    def add(self, steps: int) -> None:
        """Say that `steps` more are done."""
        if self._bar is not None:
            self._bar.update(steps)

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
