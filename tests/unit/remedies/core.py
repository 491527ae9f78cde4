"""Remedies of the core: allocator, rounds, coverage."""

from tests.unit.remedies.case import Case

POOL = """
partition = aria.Partition.from_sizes([60, 40])
allocator = aria.Allocator(partition, seed=0)
n = 8
"""
ONLINE = POOL + "allocator = aria.Allocator(partition, coverage=aria.Coverage.online(partition))"
OF_ANOTHER = """
partition, items = aria.Partition.from_labels([0, 0, 1, 1, 1]), [0]
coverage = aria.Coverage(aria.Partition.from_labels([0, 1, 1]), items=[0])
"""
SAVED = (
    POOL
    + """
d = allocator.draw(n)
allocator.observe(d.regions, 1.0 + d.regions)
allocator.step()
state = allocator.state_dict()
old_partition = partition
"""
)

CASES = [
    Case("online coverage, and no rows that came", ONLINE, "draw = allocator.draw(n)", "draw"),
    Case(
        "a coverage of another pool",
        OF_ANOTHER,
        "aria.Allocator(partition, coverage=coverage)",
    ),
    Case(
        "a baseline that would ignore a target",
        POOL + "target = 'uniform'",
        "aria.Allocator(partition, policy=aria.PoolPolicy(), target=target)",
    ),
    Case("a certificate of another estimator", POOL, "allocator.certificate(drift=0.1, sigma=1.0)"),
    Case("a round that was not closed", POOL + "allocator.draw(n)", "allocator.draw(n)"),
    Case(
        "a lag that is too small",
        POOL + "allocator = aria.Allocator(partition, lag=1)\nahead = [allocator.draw(n), allocator.draw(n)]",
        "for _ in range(3): allocator.draw(n)",
    ),
    Case("no round is open", POOL, "allocator.step()"),
    Case(
        "a state of a larger lag",
        SAVED.replace("seed=0", "seed=0, lag=2") + "allocator = aria.Allocator(partition, seed=0, lag=1)",
        "allocator.load_state_dict(state)",
    ),
    Case(
        "a state of another configuration",
        SAVED + "allocator = aria.Allocator(partition, seed=1)",
        "allocator.load_state_dict(state)",
        "assert (allocator.estimate().count > 0).any()",
    ),
    Case(
        "a state of another pool",
        SAVED + "allocator = aria.Allocator(aria.Partition.from_sizes([60, 40, 10]), seed=0)",
        "allocator.load_state_dict(state)",
        "assert (allocator.estimate().count > 0).any()",
    ),
    Case(
        "a share for a region without items",
        "partition = aria.Partition.from_sizes([2, 3]).without([0, 1])\ntarget = [0.5, 0.5]",
        "aria.Allocator(partition, target=target)",
    ),
]
