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


def interval(values: Sequence[float]) -> Interval:
    """Student's t over the seeds.

    >>> interval([1.0, 2.0, 3.0]).mean, round(interval([1.0, 2.0, 3.0]).half, 3)
    (2.0, 2.484)
    >>> interval([1.0]).half is None
    True
    """
    n = len(values)
    half = None if n < 2 else float(student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(float(np.mean(values)), half)


def p_value(values: Sequence[float]) -> float:
    """Two-sided, of a mean of 0: Student's t over the seeds; 1 from fewer than two values.

    >>> round(p_value([1.0, 2.0, 3.0]), 4), p_value([1.0])
    (0.0742, 1.0)
    """
    n = len(values)
    if n < 2 or not np.std(values):
        return 1.0
    t = np.mean(values) / (np.std(values, ddof=1) / math.sqrt(n))
    return float(2 * student_t.sf(abs(t), n - 1))


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


def adjusted(differences: Sequence[Sequence[float]]) -> list[float | None]:
    """`p_value` of each, adjusted by `holm` over those that can be tested; None of fewer than two values.

    >>> adjusted([[1.0], [1.0, 2.0, 3.0]])[0] is None
    True
    """
    tested = [index for index, values in enumerate(differences) if len(values) > 1]
    found: list[float | None] = [None] * len(differences)
    for index, p in zip(tested, holm([p_value(differences[index]) for index in tested]), strict=True):
        found[index] = p
    return found
