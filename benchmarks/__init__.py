"""Benchmarks and studies: run from the root of the repository, never shipped in the wheel."""

EDITION = 2
"""The edition of the library that results are made with today; files of results name theirs."""
