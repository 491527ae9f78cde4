"""What regions are called: the words that tell each from the others, and captions that are typical of it.

Class-based TF-IDF (Grootendorst 2022, "BERTopic", arXiv:2203.05794) ranks the words. A region's terms are those that
clearly more of its captions have than of all captions: that takes out "a" and "of" in any language, without a list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from aria_sampling._arrays import AnyArray, FloatArray, IntArray
from aria_sampling._check import is_null, kind_of, shown
from aria_sampling.errors import ArgumentError
from aria_sampling.partition._assign import Rows
from aria_sampling.partition._progress import Progress
from aria_sampling.partition._words import words

__all__ = ["Captions", "found_names", "found_texts"]

_MOST, _FEWEST, _IN_ALL = 256, 16, 1 << 20  # captions read a region; about so many in all
_AT_A_TIME = 1 << 13  # captions that are text at one time
_TERMS = 10  # kept a region
_IN_A_NAME = 3
_LIFT, _ERRORS, _MANY = 1.25, 2.0, 8
_CANDIDATES = 12  # captions of a region among which three different ones are looked for
_SHOWN = 3
_LONGEST = 300  # characters of a caption


class Captions:
    """The text of every item: a sequence, or an object with ``len()`` and ``take(items) -> list of str``."""

    def __init__(self, texts: Any, n_items: int) -> None:
        kind = type(texts)  # pyright: ignore
        wanted = f"a caption for each of {n_items} items, as a list or an object with len() and take(items)"
        flat = getattr(texts, "ndim", 1) == 1 and hasattr(texts, "__len__")
        if issubclass(kind, str | bytes | dict | set) or not flat:
            raise ArgumentError(f"texts: expected {wanted}, got {kind_of(texts)} {shown(texts)}")
        if len(texts) != n_items:
            raise ArgumentError(f"texts: expected {wanted}, got {len(texts)}")
        self._texts, self._takes = texts, hasattr(texts, "take")

    def take(self, items: IntArray) -> list[str]:
        """Return the captions of some items, "" for null."""
        if self._takes:
            found: Any = self._texts.take(items)
            found = found.to_pylist() if hasattr(found, "to_pylist") else list(found)
        else:
            found = [self._texts[item] for item in items.tolist()]
        if len(found) != len(items):
            raise ArgumentError(f"texts: expected take() to return {len(items)} captions, got {len(found)}")
        return [self._caption(item, text) for item, text in zip(items.tolist(), cast("list[Any]", found), strict=True)]

    @staticmethod
    def _caption(item: int, text: Any) -> str:
        if isinstance(text, str):
            return text
        if is_null(text):
            return ""
        raise ArgumentError(f"texts: expected text, got {kind_of(text)} {shown(text)} for item {item}")


@dataclass(frozen=True)
class _Sample:
    """The captions that were read: of a region, evenly spaced among its items.

    Attributes:
        items: Item of each, int64 [m], region by region.
        ends: How many captions the regions up to each have, int64 [n_regions].
        words: Numbers of the words of all captions, one caption after the other, int32 [n].
        word_ends: How many words the captions up to each have, int64 [m].
        vocabulary: The words by number.
        nearness: How near each is to the centre of its region, float64 [m]; None without embeddings.
    """

    items: IntArray
    ends: IntArray
    words: AnyArray
    word_ends: IntArray
    vocabulary: list[str]
    nearness: FloatArray | None


def found_texts(
    items_of: Callable[[int], IntArray],
    n_regions: int,
    captions: Captions,
    *,
    rows: Rows | None,
    centers: AnyArray | None,
    progress: Progress,
) -> tuple[list[list[str]], list[list[str]]]:
    """Return the terms of each region, best first, and its typical captions.

    Args:
        items_of: The items of a region.
        n_regions: How many there are.
        captions: Of all items.
        rows: Embeddings of all items, or None.
        centers: float32 [n_regions, d], or None: then captions are typical that have the region's terms.
        progress: Told of each region.
    """
    most = max(_FEWEST, min(_MOST, _IN_ALL // n_regions))
    chosen = [_spread(items_of(region), most) for region in range(n_regions)]
    progress.stage("reading captions", sum(map(len, chosen)))
    sample = _read(chosen, captions, rows=rows, centers=centers, progress=progress)
    regions = np.repeat(np.arange(n_regions), np.diff(sample.ends, prepend=0))
    terms, weights = _terms(sample, regions, n_regions)
    scores = sample.nearness if sample.nearness is not None else _by_terms(sample, regions, weights)
    return terms, _typical(sample, scores, captions)


def _spread(items: IntArray, most: int) -> IntArray:
    """Return at most so many of the items, evenly spaced."""
    return items if len(items) <= most else items[np.arange(most) * len(items) // most]


def _read(
    chosen: list[IntArray], captions: Captions, *, rows: Rows | None, centers: AnyArray | None, progress: Progress
) -> _Sample:
    """Read the chosen captions of each region, and how near they are to its centre."""
    place: dict[str, int] = {}
    numbers: list[AnyArray] = []
    lengths: list[int] = []
    near: list[FloatArray] = []
    for first, last in _batches(chosen):
        items = np.concatenate(chosen[first:last])
        ascending = np.argsort(items, kind="stable")
        texts = dict(zip(items[ascending].tolist(), captions.take(items[ascending]), strict=True))
        for item in items.tolist():
            found = [place.setdefault(word, len(place)) for word in words(texts[item])]
            numbers.append(np.array(found, np.int32))
            lengths.append(len(found))
        if rows is not None and centers is not None:
            own = np.repeat(np.arange(first, last), [len(some) for some in chosen[first:last]])[ascending]
            nearness = np.empty(len(items))
            nearness[ascending] = _nearness(rows.take(items[ascending]), centers[own])
            near.append(nearness)
        progress.update(len(items))
    return _Sample(
        items=np.concatenate([np.empty(0, np.int64), *chosen]).astype(np.int64),
        ends=np.cumsum([len(some) for some in chosen], dtype=np.int64),
        words=np.concatenate([np.empty(0, np.int32), *numbers]),
        word_ends=np.cumsum(lengths, dtype=np.int64),
        vocabulary=list(place),
        nearness=np.concatenate(near) if near else None,
    )


def _batches(chosen: list[IntArray]) -> Iterator[tuple[int, int]]:
    """Yield the first region of each batch, and the one after its last."""
    first, n = 0, 0
    for region, items in enumerate(chosen):
        n += len(items)
        if n >= _AT_A_TIME or region == len(chosen) - 1:
            yield first, region + 1
            first, n = region + 1, 0


def _nearness(rows: AnyArray, centers: AnyArray) -> FloatArray:
    """Return how near each row is to its centre, float64 [m]: by direction if all centres have norm 1."""
    squares = np.einsum("nd,nd->n", centers, centers, dtype=np.float64)
    if (np.abs(squares - 1) <= 1e-6).all():
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        return np.einsum("nd,nd->n", rows, centers, dtype=np.float64) / np.maximum(lengths, 1e-300)
    return -np.einsum("nd,nd->n", rows - centers, rows - centers, dtype=np.float64)


def _terms(sample: _Sample, regions: IntArray, n_regions: int) -> tuple[list[list[str]], list[dict[int, float]]]:
    """Return the terms of each region, best first, and the weights of its words by number.

    Of a word that is in n of a region's captions, whose captions have m words together, the weight is
    ``n / m * log(1 + A / f)``: f captions of all regions have it, and A is the mean of m (Grootendorst 2022, eq. 2). It
    is 0 unless the share of the region's captions with that word is 1.25 times that of all captions, and two standard
    errors above it; two captions at least, where there are eight.
    """
    n_words = len(sample.vocabulary)
    n_captions = np.diff(sample.ends, prepend=0)
    region_of_word = np.repeat(regions, np.diff(sample.word_ends, prepend=0))
    pairs, counts = np.unique(region_of_word * max(n_words, 1) + sample.words, return_counts=True)
    region, word = np.divmod(pairs, max(n_words, 1))
    mass = np.bincount(region, weights=counts, minlength=n_regions)
    overall = np.bincount(word, weights=counts, minlength=n_words)
    average = mass.sum() / max(np.count_nonzero(mass), 1)
    share = overall[word] / max(len(regions), 1)
    expected, least = n_captions[region] * share, 1 + (n_captions[region] >= _MANY)
    telling = (counts >= least) & (counts >= _LIFT * expected)
    telling &= counts - expected >= _ERRORS * np.sqrt(expected * (1 - share))
    weight = telling * counts / np.maximum(mass[region], 1) * np.log1p(average / overall[word])
    ends = np.searchsorted(region, np.arange(n_regions), side="right")
    terms: list[list[str]] = []
    weights: list[dict[int, float]] = []
    weight_of: list[float] = weight.tolist()
    for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        own = [
            (-weight_of[i], -int(counts[i]), sample.vocabulary[int(word[i])], int(word[i]))
            for i in range(begin, end)
            if weight_of[i] > 0
        ]
        own.sort()
        terms.append([term for _, _, term, _ in own[:_TERMS]])
        weights.append({number: -value for value, _, _, number in own})
    return terms, weights


def _by_terms(sample: _Sample, regions: IntArray, weights: list[dict[int, float]]) -> FloatArray:
    """Return how much each caption has of its region's terms, float64 [m]: their weights over √(number of words)."""
    scores, begin, all_words = np.zeros(len(regions)), 0, sample.words
    for i, (end, region) in enumerate(zip(sample.word_ends.tolist(), regions.tolist(), strict=True)):
        own, numbers = weights[int(region)], all_words[begin : int(end)]
        scores[i] = sum(own.get(int(number), 0.0) for number in numbers) / max(int(end) - begin, 1) ** 0.5
        begin = int(end)
    return scores


def _typical(sample: _Sample, scores: FloatArray, captions: Captions) -> list[list[str]]:
    """Return three different captions of each region, those with the highest scores."""
    begins = np.concatenate([[0], sample.ends[:-1]]).astype(np.int64)
    best = [
        sample.items[begin + np.argsort(-scores[begin:end], kind="stable")[:_CANDIDATES]]
        for begin, end in zip(begins, sample.ends, strict=True)
    ]
    typical: list[list[str]] = []
    for first, last in _batches(best):
        items = np.unique(np.concatenate(best[first:last]))
        texts = dict(zip(items.tolist(), captions.take(items), strict=True))
        for some in best[first:last]:
            different: dict[str, str] = {}
            for item in some.tolist():
                text = " ".join(texts[item].split())
                shown_text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]} …"
                if text:
                    different.setdefault(text.casefold(), shown_text)
            typical.append(list(different.values())[:_SHOWN])
    return typical


def found_names(names: Sequence[str], terms: Sequence[Sequence[str]], *, rename: bool) -> list[str]:
    """Return names made of the first three terms, more where two would be alike, and the number as a last resort.

    A name that is not the number of its region stays, unless `rename`.
    """
    free = [rename or name == str(region) for region, name in enumerate(names)]
    lengths = [_IN_A_NAME] * len(names)
    made = list(names)
    again = [region for region, is_free in enumerate(free) if is_free and terms[region]]
    for _ in range(_TERMS):
        for region in again:
            made[region] = ", ".join(terms[region][: lengths[region]])
        count = Counter(made)
        again = [region for region in again if count[made[region]] > 1 and lengths[region] < len(terms[region])]
        if not again:
            break
        for region in again:
            lengths[region] += 1
    count = Counter(made)
    return [
        f"{name} (#{region})" if free[region] and terms[region] and count[name] > 1 else name
        for region, name in enumerate(made)
    ]
