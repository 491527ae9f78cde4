"""`Texts`: some texts of every region, as arrays: a million of them can be mapped, and only those wanted are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, final, overload

import numpy as np

from aria_sampling._arrays import AnyArray

__all__ = ["Texts"]


@final
@dataclass(frozen=True, eq=False, repr=False)
class Texts(Sequence[tuple[str, ...]]):
    """The texts of each region, a tuple each. A read-only sequence.

    Attributes:
        bytes: All texts, one after the other, in UTF-8, uint8 [n_bytes].
        ends: Where each text ends in `bytes`, int64 [n_texts].
        last: How many texts the regions up to each have, int64 [n_regions].
    """

    bytes: AnyArray
    ends: AnyArray
    last: AnyArray

    @classmethod
    def of(cls, texts: Sequence[Sequence[str]]) -> Texts:
        """Return the texts of each region as arrays."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in chain.from_iterable(texts)]
        return cls(
            _frozen(np.frombuffer(b"".join(encoded), np.uint8)),
            _frozen(np.cumsum([len(text) for text in encoded], dtype=np.int64)),
            _frozen(np.cumsum([len(some) for some in texts], dtype=np.int64)),
        )

    @property
    def fits(self) -> bool:
        """Whether the arrays, which came from a file, fit each other."""
        return (
            (self.bytes.dtype.str, self.ends.dtype.str, self.last.dtype.str) == ("|u1", "<i8", "<i8")
            and self.bytes.ndim == self.ends.ndim == self.last.ndim == 1
            and all(bool((np.diff(array, prepend=0) >= 0).all()) for array in (self.ends, self.last))
            and _end(self.ends) == len(self.bytes)
            and _end(self.last) == len(self.ends)
        )

    def __len__(self) -> int:
        """Number of regions."""
        return len(self.last)

    @overload
    def __getitem__(self, region: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, region: slice) -> Sequence[tuple[str, ...]]: ...
    def __getitem__(self, region: int | slice) -> Any:
        """Return the texts of a region, or of several."""
        if isinstance(region, slice):
            return [self[k] for k in range(*region.indices(len(self)))]
        k = range(len(self))[region]
        return tuple(self._text(i) for i in range(int(self.last[k - 1]) if k else 0, int(self.last[k])))

    def _text(self, i: int) -> str:
        """Return one text; what a damaged file has in its place, as far as it can be read."""
        raw = self.bytes[int(self.ends[i - 1]) if i else 0 : int(self.ends[i])].tobytes()
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        """Yield the texts of each region."""
        return (self[k] for k in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether all texts are the same."""
        return (
            all(np.array_equal(getattr(self, name), getattr(other, name)) for name in ("bytes", "ends", "last"))
            if isinstance(other, Texts)
            else NotImplemented
        )

    def __hash__(self) -> int:
        """Hash of the size."""
        return hash((len(self.bytes), len(self.ends), len(self.last)))

    def __repr__(self) -> str:
        """Short form."""
        return f"Texts(n_regions={len(self)}, n_texts={len(self.ends)})"


def _end(ends: AnyArray) -> int:
    return int(ends[-1]) if len(ends) else 0


def _frozen(array: AnyArray) -> AnyArray:
    array.flags.writeable = False
    return array
