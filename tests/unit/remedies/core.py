"""Remedies of the core: allocator, rounds, coverage."""

from tests.unit.remedies.case import Case

CASES: list[Case] = []
