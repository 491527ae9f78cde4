"""Every result of every function of `aria_sampling.bounds`, one percent too large and one too small.

A formula that lost a factor must not pass. Kept apart from `mutants.py`, as these bugs are made and not written.
"""

from __future__ import annotations

from pathlib import Path

from aria_sampling import bounds
from tests.stress.mutation.mutants import Mutant

RESULTS = {
    "ema_error": ("bias", "variance"),
    "ema_steady_state": ("bias", "variance"),
    "bernoulli_age": ("mean", "mean square"),
    "merged_moments": ("count", "mean", "m2"),
}  # of those that return several
FACTORS = (0.99, 1.01)
WRAPPER = """

_exact = {function}


def {function}(*args, **kwargs):
    result = _exact(*args, **kwargs)
    if isinstance(result, tuple):
        return tuple(value * {factor} if part == {part} else value for part, value in enumerate(result))
    return result * {factor}
"""
LAWS = Path(__file__).resolve().parents[2] / "laws"


def tests_of(function: str) -> tuple[str, ...]:
    """The files of laws that use it."""
    files = [file for file in sorted(LAWS.glob("test_*.py")) if f"bounds.{function}(" in file.read_text("utf-8")]
    if not files:
        raise LookupError(f"no law uses bounds.{function}")
    return tuple(f"tests/laws/{file.name}" for file in files)


def scaled(function: str, part: int, result: str, factor: float) -> Mutant:
    """That result of the function times the factor."""
    code = WRAPPER.format(function=function, part=part, factor=factor)
    name = f"{function}{':' if result else ''}{result} × {factor}"
    return Mutant(name, "scaled", "bounds.py", (), tests_of(function), appended=code)


SCALED = [
    scaled(function, part, result, factor)
    for function in bounds.__all__
    for part, result in enumerate(RESULTS.get(function, ("",)))
    for factor in FACTORS
]
