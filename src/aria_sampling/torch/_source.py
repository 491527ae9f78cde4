"""One stream of a mixture: taken from, started again when it ends, and put back to where it was.

That a stream gives the same samples again is its own promise, which many do not keep (a shuffle without a seed). So a
source keeps a trace of what came: a hash, which is compared when samples are skipped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import numpy as np
from torch import Tensor

from aria_sampling._arrays import take
from aria_sampling.errors import ArgumentError, StateError, UsageError

__all__ = ["Source"]


class Source:
    """An iterable that never ends.

    Args:
        name: For messages.
        iterable: Yields samples. If it has ``set_epoch``, it is told how often it was started before.

    Raises:
        ValueError: `iterable` cannot be iterated.
    """

    def __init__(self, name: str, iterable: Any) -> None:
        if not hasattr(iterable, "__iter__"):
            raise ArgumentError(f"sources: expected an iterable for region {name!r}, got {type(iterable).__name__}")
        self.name = name
        self._iterable = iterable
        self._once = iter(iterable) is iterable if hasattr(iterable, "__next__") else False
        self._iterator: Iterator[Any] | None = None
        self._cycle = 0
        self._position = 0  # samples taken in this cycle
        self._trace = ""  # of these, unless it has a state of its own
        self._has_cycled = False  # so it is told of its cycle, also when it goes back to the first
        self._state: dict[str, Any] | None = None  # of now, if known
        self.lost = False  # its place, since a source of the mixture failed half-way through a round
        self.strays = False  # when it was put back, it gave other samples than before

    def take(self) -> Any:
        """Return the next sample.

        Raises:
            ValueError: It is empty, or an iterator that has ended.
            RuntimeError: It is `lost`.
        """
        if self.lost:
            raise UsageError(
                f"region {self.name!r}: a source failed in the middle of a round, and samples of that round are lost; "
                "load a state that was saved before",
                remedy="mixture.load_state_dict(state)",
            )
        self._state = None
        if self._iterator is None:
            self._iterator = self._start()
        try:
            sample = next(self._iterator)
        except StopIteration:
            if self._once or self._position == 0:
                why = "an iterator, which cannot be started again; give an iterable" if self._once else "empty"
                raise ArgumentError(
                    f"sources: region {self.name!r} ended after {self._position} samples: it is {why}"
                ) from None
            self._cycle += 1
            self._position, self._trace = 0, ""
            self._iterator = self._start()
            return self.take()
        self._position += 1
        self._follow(sample)
        return sample

    def _follow(self, sample: Any) -> None:
        """Let the trace go on with a sample that came."""
        if not self._stateful and not self._once:
            self._trace = hashlib.blake2b(self._trace.encode() + _sketch(sample), digest_size=8).hexdigest()

    def _start(self) -> Iterator[Any]:
        self._has_cycled = self._has_cycled or self._cycle > 0
        if self._has_cycled and callable(tell := getattr(self._iterable, "set_epoch", None)):
            tell(self._cycle)
        return iter(self._iterable)

    def state(self) -> dict[str, Any]:
        """Return where it is: cycle, position, trace, and its own state if it has one. Not to be changed."""
        if self._state is None:
            own: Any = self._iterable.state_dict() if self._stateful else {}
            self._state = {
                "cycle": self._cycle,
                "position": self._position,
                "trace": self._trace,
                "own": {} if own is None else own,
            }
        return self._state

    @property
    def forgets(self) -> bool:
        """Whether its state leaves out what is in a shuffle buffer: Hugging Face's ``shuffle(buffer_size=...)``.

        Also inside a loader, and under layers of Hugging Face's own that map, filter or interleave.
        """
        dataset: Any = getattr(self._iterable, "dataset", self._iterable)
        layers: list[Any] = [getattr(dataset, "_ex_iterable", None)]
        for layer in layers:
            if type(layer).__name__ == "BufferShuffledExamplesIterable":
                return True
            inner = getattr(layer, "ex_iterable", None)
            layers += [inner] if inner is not None else getattr(layer, "ex_iterables", None) or []
        return False

    @property
    def moves(self) -> bool:
        """Whether it has one place only, whoever iterates it: an iterator, or a source with a state of its own."""
        return self._once or self._stateful

    def is_of(self, other: Source) -> bool:
        """Whether both read the same object."""
        return self._iterable is other._iterable

    @property
    def _stateful(self) -> bool:
        return all(callable(getattr(self._iterable, name, None)) for name in ("state_dict", "load_state_dict"))

    def check(self, state: Any) -> None:
        """Raise StateError unless it can go to where `state` was taken."""
        cycle, position = take(state, "cycle", int), take(state, "position", int)
        take(state, "trace", str)
        own = cast("dict[str, Any]", take(state, "own", dict))
        if own and not self._stateful:
            raise StateError(
                f"state: region {self.name!r} had a source with a state of its own, this one has none{_ANEW}",
                remedy=_ALLOCATION_ALONE,
            )
        if self._stateful and not own and (cycle or position):
            raise StateError(
                f"state: region {self.name!r} had a source without a state of its own, this one has one{_ANEW}",
                remedy=_ALLOCATION_ALONE,
            )
        if self._once and not own and (cycle, position) != (self._cycle, self._position):
            raise StateError(
                f"state: region {self.name!r} is to go to sample {position}, but its source is an iterator, which "
                "cannot go back or be started again; give an iterable, or one with state_dict and load_state_dict"
                f"{_ANEW}",
                remedy=_ALLOCATION_ALONE,
            )

    def go_to(self, state: dict[str, Any]) -> Callable[[], None]:
        """Go to where `state` was taken; `check` it first. Without a state of its own, samples are skipped.

        Returns:
            A function that goes back again. It has done so if there is an error.

        Raises:
            StateError: There are fewer samples than are to be skipped.
        """
        own: Any = None if self.lost else self.state()["own"]  # of now, if that is known
        before = vars(self).copy()

        def go_back() -> None:
            vars(self).update(before, _has_cycled=self._has_cycled)
            if own:
                self._iterable.load_state_dict(own)
                self._iterator = None  # the next begins there

        try:
            self._go(state)
        except BaseException:
            go_back()
            raise
        return go_back

    def _go(self, state: dict[str, Any]) -> None:
        self._state, self.lost, self.strays = None, False, False
        if self._once and not state["own"]:
            return  # it is there already
        self._cycle, self._position, self._trace = state["cycle"], state["position"], ""
        if state["own"]:
            self._iterable.load_state_dict(state["own"])
            self._iterator = self._start()
            return
        self._iterator = self._start()
        for taken in range(self._position):
            try:
                self._follow(next(self._iterator))
            except StopIteration:
                raise StateError(
                    f"state: region {self.name!r} ended after {taken} of {self._position} samples{_ANEW}",
                    remedy=_ALLOCATION_ALONE,
                ) from None
        self.strays = self._trace != state["trace"]


def _sketch(sample: Any) -> bytes:
    """Return what tells a sample from others, cheaply: its text and integers, or its other numbers if it has none.

    Images and other numbers may be augmented at random, so they count only where nothing else tells samples apart.
    What is of an unknown type is left out.
    """
    if isinstance(sample, Mapping) and "__key__" in sample:  # webdataset's name of a sample
        return repr(cast("Mapping[str, Any]", sample)["__key__"]).encode("utf-8", "replace")
    names: list[bytes] = []
    numbers: list[bytes] = []
    try:
        _look(sample, names, numbers, depth=3)
    except Exception:  # whatever the parts of a sample raise: it must not fail for being looked at
        return b""
    return b"|".join(names or numbers)


def _look(value: Any, names: list[bytes], numbers: list[bytes], depth: int) -> None:
    """Add the beginning of each leaf of `value`, of a few of them, to `names` or to `numbers`."""
    if isinstance(value, str | bytes | bool | int):
        start = value[:_CHARACTERS] if isinstance(value, str | bytes) else value
        names.append(repr(start).encode("utf-8", "replace"))
    elif isinstance(value, float):
        numbers.append(repr(value).encode())
    elif isinstance(value, Tensor):
        if value.is_cpu and value.is_contiguous() and not value.is_complex():
            start = value.detach().view(-1)[:_NUMBERS].double().numpy()
            numbers.append(repr(start.tolist()).encode())
    elif isinstance(value, np.ndarray | np.generic):
        numbers.append(repr(cast("Any", value).ravel()[:_NUMBERS].tolist()).encode("utf-8", "replace"))
    elif depth and isinstance(value, Mapping | Sequence):
        inner: Any = cast("Any", value)
        for entry in islice(inner.values() if isinstance(value, Mapping) else inner, _ENTRIES):
            _look(entry, names, numbers, depth - 1)


_CHARACTERS, _NUMBERS, _ENTRIES = 256, 32, 16  # of text, of an array and of a list or dictionary
_ANEW = ". To go on with what was learnt, and with the streams from their beginning, load the allocator's part alone"
_ALLOCATION_ALONE = 'mixture.allocator.load_state_dict(state["allocator"])'
