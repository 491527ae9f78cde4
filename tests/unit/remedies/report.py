"""Remedies of the history, the advice and the report."""

from tests.unit.remedies.case import Case

CASES: list[Case] = [
    Case(
        name="advice as if regions learnt alone, with a coverage",
        setup=(
            "pool = aria.Partition.from_labels([0, 0, 1, 1])\n"
            "allocator = aria.Allocator(pool, coverage=aria.Coverage(pool, items=[0]))\n"
            "history = aria.History(allocator)"
        ),
        call="history.advice(regions_learn_alone=True)",
        again="advice.verdict",
    ),
]
