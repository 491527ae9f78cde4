"""A report from saved files: ``python -m aria_sampling.report HISTORY POOL OUT``.

HISTORY is the state of a `History`, saved by ``torch.save``; POOL the partition, saved by `Partition.save`; OUT the
HTML file to write. The settings of the allocator are in neither file: pass the history itself to `html` to have them.
"""

from __future__ import annotations

import argparse
from pickle import UnpicklingError
from typing import Any

from aria_sampling import Allocator, History, Partition
from aria_sampling._state import decode, take
from aria_sampling.report._page import write


def main(argv: list[str] | None = None) -> None:
    """Carry out the command."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m aria_sampling.report", description=__doc__)
    for name in ("history", "pool", "out"):
        parser.add_argument(name)
    args = parser.parse_args(argv)
    try:
        pool = Partition.load(args.pool)
    except (OSError, ValueError) as error:
        parser.error(f"POOL {args.pool}: {error}")
    try:
        state: Any = torch.load(args.history, weights_only=True)
        config: dict[str, str] = take(state, "config", dict)
        allocator = Allocator(pool, target=decode("target", take(state, "target", dict)))
        history = History(
            allocator, every=int(take(config, "every", str)), max_records=int(take(config, "max_records", str))
        )
        history.load_state_dict(state)
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        parser.error(f"HISTORY {args.history}: {error}")
    try:
        print(write(history, args.out, ""))
    except OSError as error:
        parser.error(f"OUT {args.out}: {error}")


if __name__ == "__main__":
    main()
