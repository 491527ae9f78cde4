"""What the studies share: intervals of means over seeds, p values, and their correction for many comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t


@dataclass(frozen=True)
class Interval:
    """A mean, and half the width of its 95% interval (None from fewer than two values)."""

    mean: float
    half: float | None


@dataclass(frozen=True)
class Spread:
    """A standard deviation between seeds, and its degrees of freedom."""

    sd: float
    df: int


def pooled(groups: Sequence[Sequence[float]]) -> Spread | None:
    """The spread within groups, each about its own mean, taken to be the same in all; None if none has two values.

    >>> pooled([[1.0, 3.0], [10.0, 12.0], [5.0]]) == Spread(math.sqrt(2), 2)
    True
    >>> pooled([[1.0], []]) is None
    True
    """
    df = sum(len(values) - 1 for values in groups if values)
    squares = sum(float(np.var(values) * len(values)) for values in groups if values)
    return Spread(math.sqrt(squares / df), df) if df else None


def interval(values: Sequence[float], spread: Spread | None = None) -> Interval:
    """Student's t over the seeds, with their own spread or a given one.

    >>> interval([1.0, 2.0, 3.0]).mean, round(interval([1.0, 2.0, 3.0]).half, 3)
    (2.0, 2.484)
    >>> interval([1.0]).half is None, round(interval([1.0], Spread(1.0, 10)).half, 3)
    (True, 2.228)
    """
    spread = spread or pooled([values])
    half = None if spread is None else float(student_t.ppf(0.975, spread.df)) * spread.sd / math.sqrt(len(values))
    return Interval(float(np.mean(values)), half)


def p_value(values: Sequence[float], spread: Spread | None = None) -> float:
    """Two-sided, of a mean of 0: Student's t over the seeds, as `interval`; 1 without any spread.

    >>> round(p_value([1.0, 2.0, 3.0]), 4), p_value([1.0]), round(p_value([1.0], Spread(1.0, 10)), 4)
    (0.0742, 1.0, 0.3409)
    """
    spread = spread or pooled([values])
    if spread is None or not spread.sd:
        return 1.0
    return float(2 * student_t.sf(abs(np.mean(values)) / (spread.sd / math.sqrt(len(values))), spread.df))


def holm(p: Sequence[float]) -> list[float]:
    """P values adjusted for their number by Holm's step-down, in the order given; NaN counts as 1.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values = np.nan_to_num(np.asarray(p, float), nan=1.0)
    order = np.argsort(values, kind="stable")
    steps = np.minimum(np.maximum.accumulate((len(values) - np.arange(len(values))) * values[order]), 1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = steps
    return adjusted.tolist()


def adjusted(differences: Sequence[Sequence[float]], spread: Spread | None = None) -> list[float | None]:
    """`p_value` of each, adjusted by `holm` over those that can be tested.

    None of fewer than two values; with a given spread, of none.

    >>> adjusted([[1.0], [1.0, 2.0, 3.0]])[0] is None
    True
    """
    tested = [index for index, values in enumerate(differences) if len(values) > (0 if spread else 1)]
    found: list[float | None] = [None] * len(differences)
    for index, p in zip(tested, holm([p_value(differences[index], spread) for index in tested]), strict=True):
        found[index] = p
    return found
