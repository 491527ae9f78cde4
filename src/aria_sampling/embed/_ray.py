"""Shards made by a Ray cluster: Ray Data sends their numbers to processes that have an encoder each.

The processes write the shards into the folder themselves, which they share with this one, by the function that makes
them here. So the results are the same, and a run that breaks off goes on where it was, on any engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from aria_sampling import errors
from aria_sampling.errors import MissingDependencyError

__all__ = ["on_ray"]


def on_ray(worker: type[Any], task: Any, numbers: Sequence[int], count: int) -> Iterator[int]:
    """Make shards by processes of Ray, and yield how many items each has.

    Args:
        worker: What a process makes of `task`; it is called with a batch of numbers.
        task: What is to be made.
        numbers: Of the shards.
        count: How many processes.

    Raises:
        ImportError: Ray is not installed.
    """
    try:
        import ray as package  # pyright: ignore
        import ray.data  # pyright: ignore
    except ImportError as error:
        raise MissingDependencyError("engine='ray' needs Ray: pip install 'aria-sampling[ray]'") from error
    if not numbers:
        return
    ray: Any = package
    data: Any = ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers))
    gpus = {"num_gpus": 1} if str(task.device).startswith("cuda") else {}
    made = data.map_batches(
        worker,
        fn_constructor_args=(task,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(count, len(numbers))),
        **gpus,
    )
    for row in made.iter_rows():
        if row["kind"]:
            raise getattr(errors, row["kind"])(row["message"])
        yield int(row["rows"])
