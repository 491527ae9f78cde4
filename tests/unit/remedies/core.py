"""Remedies of the core: allocator, rounds, coverage."""

from tests.unit.remedies.case import Case

CASES = [
    Case(
        "a share for a region without items",
        "partition = aria.Partition.from_sizes([2, 3]).without([0, 1])\ntarget = [0.5, 0.5]",
        "aria.Allocator(partition, target=target)",
    ),
]
