"""One stream of a mixture: taken from, started again when it ends, and put back to where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

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
        self._has_cycled = False  # so it is told of its cycle, also when it goes back to the first
        self._state: dict[str, Any] | None = None  # of now, if known
        self.lost = False  # its place, since a source of the mixture failed half-way through a round

    def take(self) -> Any:
        """Return the next sample.

        Raises:
            ValueError: It is empty, or an iterator that has ended.
            RuntimeError: It is `lost`.
        """
        if self.lost:
            raise UsageError(
                f"region {self.name!r}: a source failed in the middle of a round, and samples of that round are lost; "
                "load a state saved before to go on"
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
            self._position = 0
            self._iterator = self._start()
            return self.take()
        self._position += 1
        return sample

    def _start(self) -> Iterator[Any]:
        self._has_cycled = self._has_cycled or self._cycle > 0
        if self._has_cycled and callable(tell := getattr(self._iterable, "set_epoch", None)):
            tell(self._cycle)
        return iter(self._iterable)

    def state(self) -> dict[str, Any]:
        """Return where it is: cycle, position, and its own state if it has one. Not to be changed."""
        if self._state is None:
            own: Any = self._iterable.state_dict() if self._stateful else {}
            self._state = {"cycle": self._cycle, "position": self._position, "own": {} if own is None else own}
        return self._state

    @property
    def forgets(self) -> bool:
        """Whether its state leaves out what is in a shuffle buffer: Hugging Face's ``shuffle(buffer_size=...)``."""
        layers: list[Any] = [getattr(self._iterable, "_ex_iterable", None)]
        for layer in layers:
            if type(layer).__name__ == "BufferShuffledExamplesIterable":
                return True
            inner = getattr(layer, "ex_iterable", None)
            layers += [inner] if inner is not None else getattr(layer, "ex_iterables", None) or []
        return False

    @property
    def _stateful(self) -> bool:
        return all(callable(getattr(self._iterable, name, None)) for name in ("state_dict", "load_state_dict"))

    def check(self, state: Any) -> None:
        """Raise StateError unless it can go to where `state` was taken."""
        cycle, position = take(state, "cycle", int), take(state, "position", int)
        own = cast("dict[str, Any]", take(state, "own", dict))
        if own and not self._stateful:
            raise StateError(f"state: region {self.name!r} had a source with a state of its own, this one has none")
        if self._stateful and not own and (cycle or position):
            raise StateError(f"state: region {self.name!r} had a source without a state of its own, this one has one")
        if self._once and not own and (cycle, position) != (self._cycle, self._position):
            raise StateError(
                f"state: region {self.name!r} is to go to sample {position}, but its source is an iterator, which "
                "cannot go back or be started again; give an iterable, or one with state_dict and load_state_dict"
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
        self._state, self.lost = None, False
        if self._once and not state["own"]:
            return  # it is there already
        self._cycle, self._position = state["cycle"], state["position"]
        if state["own"]:
            self._iterable.load_state_dict(state["own"])
            self._iterator = self._start()
            return
        self._iterator = self._start()
        for taken in range(self._position):
            try:
                next(self._iterator)
            except StopIteration:
                raise StateError(
                    f"state: region {self.name!r} ended after {taken} of {self._position} samples"
                ) from None
