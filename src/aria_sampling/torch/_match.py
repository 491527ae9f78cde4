"""Which row of a draw each reported row is; and where it is none, why.

Rows are told apart by their item alone, so a loader whose batches are not the rounds is recognised here: by which rows
came, and in which order. It is apart from the sampler because its messages are long, and need nothing but draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aria_sampling._arrays import IntArray
from aria_sampling.errors import ArgumentError
from aria_sampling.rounds import Draw

__all__ = ["BUCKETS", "CYCLE", "GATHERED", "GROUP", "LOOK", "RESUMED", "match", "places"]

GROUP = (
    "where ranks hold the same rows (tensor or sequence parallel), give the sampler group=, the process group of the "
    "ranks with different data"
)

BUCKETS = (
    "Where a batch can have rows of one size only (aspect-ratio buckets), group the rows of each round in collate_fn, "
    "and report group by group: sampler.observe(index, loss, step=False), the last without step=False"
)

GATHERED = (
    "as many as all ranks have together: if they were gathered (accelerator.gather, all_gather), pass this rank's own "
    "rows and losses, since observe() gathers them itself"
)

LOOK = (
    "To look at a batch, or to evaluate, make a loader of its own, without this sampler: "
    "DataLoader(dataset, batch_size=...)"
)

CYCLE = (
    "The epoch was drawn to its end, and all its batches were reported. itertools.cycle(loader) would play those "
    "batches again, and draws no new ones: use `while True:` with `for batch in loader:` in it"
)

RESUMED = (
    "A state was loaded in the middle of an epoch, and the loader yields the rest of that epoch by itself: remove the "
    "lines that skip batches (if step < resume_step: continue)"
)


def places(ids: IntArray, drawn: IntArray) -> IntArray:
    """Return which row of a draw each id is, int64 [m], every row at most once, equal ids in their order.

    -1 for an id that was not drawn, or for which no row is left.
    """
    if len(ids) == len(drawn) and np.array_equal(ids, drawn):
        return np.arange(len(ids))
    order, given = np.argsort(drawn, kind="stable"), np.argsort(ids, kind="stable")
    wanted, there = ids[given], drawn[order]
    place = np.searchsorted(there, wanted) + np.arange(len(wanted)) - np.searchsorted(wanted, wanted)  # of equal ids
    found = place < len(there)
    found[found] = there[place[found]] == wanted[found]
    rows = np.full(len(ids), -1)
    rows[given[found]] = order[place[found]]
    return rows


def match(
    items: IntArray,
    draws: Sequence[Draw],
    block: Callable[[int], slice],
    *,
    closed: tuple[Draw, IntArray] | None = None,
    ranks: int = 1,
    resumed: bool = False,
) -> IntArray:
    """Return which row of the first draw each of `items` is, int64 [m].

    Args:
        items: What was reported, int64 [m].
        draws: The draw that is being reported, then those that are open after it.
        block: Which rows of a draw of that size this rank's loader gets.
        closed: The draw that was closed last, and its items that were not reported.
        ranks: Number of ranks that report.
        resumed: A state was loaded in the middle of an epoch, and nothing was reported since.

    Raises:
        ValueError: An item that is not in the draw, or more often than it was drawn; the message names the cause.
    """
    draw = draws[0]
    place = places(items, draw.items)
    missing = items[place < 0]
    if len(missing) == 0:
        return place
    absent = missing[~np.isin(missing, draw.items)]
    cause = _cause(items, missing, draws, block, closed, resumed=resumed)
    if len(absent):
        few = 4 * len(absent) <= len(items) and len(items) > 1
        raise ArgumentError(
            f"indices: {len(absent)} of {len(items)} rows are not in the oldest open batch (round {draw.round}), the "
            f"first is {absent[0]}. {cause or (_SUBSTITUTED if few else _REPLACED)}"
        )
    twice = _ONCE if ranks == 1 else f"{ranks} ranks report. If each reports its rows once, {_SAME}"
    raise ArgumentError(
        f"indices: {len(missing)} of {len(items)} rows of round {draw.round} are reported more often than they were "
        f"drawn, the first is {missing[0]}. {cause or twice}"
    )


def _cause(
    items: IntArray,
    missing: IntArray,
    draws: Sequence[Draw],
    block: Callable[[int], slice],
    closed: tuple[Draw, IntArray] | None,
    *,
    resumed: bool,
) -> str:
    """Return why rows are not those of the batch being reported, as far as the draws tell; nothing if they do not."""
    blocks = [draw.items[block(len(draw.items))] for draw in draws]
    n, left = len(blocks[0]), missing[:0]
    if closed is not None and closed[0].round == draws[0].round - 1:
        last, left = closed
        if np.isin(missing, left).all():
            return (
                f"They are the rest of round {last.round}, which was closed with {len(last.items) - len(left)} of its "
                f"{len(last.items)} rows: the loader's batches must be the sampler's rounds, {n} rows on this rank "
                "(sampler.attach(loader) checks that); for parts of a batch pass step=False to all observe() but the "
                "last"
            )
    together = np.concatenate(blocks)
    if len(items) > n and np.array_equal(items, together[: len(items)]):
        return (
            f"They are those of round {draws[1].round}: the loader's batches have {len(items)} rows, and the sampler's "
            f"rounds {n} on this rank; make batch_size the same (sampler.attach(loader) checks that)"
        )
    for draw in draws[1:]:
        if (places(items, draw.items) >= 0).all():
            return (
                f"They are those of round {draw.round}, whose turn comes later: call observe() or step() for every "
                f"batch, in order, and leave in_order=False out of the loader{f'. {RESUMED}' if resumed else ''}"
            )
    if len(draws) > 1 and (places(items, np.concatenate([*(draw.items for draw in draws), left])) >= 0).all():
        return (
            "They come from several rounds: something regroups the rows of this sampler (a batch sampler of buckets, a "
            "shuffle of batches). Give the loader sampler= and batch_size=, and nothing in between "
            f"(sampler.attach(loader) checks that). {BUCKETS}"
        )
    return ""


_REPLACED = (
    "Something replaced or reordered this sampler (Lightning, Fabric: use_distributed_sampler=False, Ray: "
    "add_dist_sampler=False), or the index of a sample is not its number in the dataset: WithIndex adds that, around "
    "the whole dataset and not around its parts. sampler.attach(loader), before the first batch, says which"
)
_SUBSTITUTED = (
    "The others are. If the dataset gives another sample where one cannot be read, let it return None there, and leave "
    "None out in collate_fn: rows may be missing from a report. Or let such a sample carry the index that was asked "
    "for (WithIndex around the dataset adds that) and a mark, and pass credit=, False for those rows. If not: the "
    "index of a sample must be its number in the dataset, and nothing may reorder this sampler"
)
_ONCE = "Report each row once; a sample that is a batch by itself is one row, and its loss is the mean of its losses"
_SAME = (
    "several of them got the same rows: give the sampler num_replicas= and rank=, or let the framework deal them out; "
    f"{GROUP}"
)
