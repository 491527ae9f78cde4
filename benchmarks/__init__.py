"""Benchmarks and studies: run from the root of the repository, never shipped in the wheel."""
