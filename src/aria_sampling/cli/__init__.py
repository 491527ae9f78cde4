"""``aria-sampling``: pools, regions, settings and reports from files, without code.

``aria-sampling COMMAND --help`` has the arguments. Everything here is a few calls of the public API, which has more.
A module holds one group of commands: `pools` what comes before a partition, `partitions` partitions themselves, and
`regions` what is done with them.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from aria_sampling.cli import partitions, pools, regions
from aria_sampling.errors import AriaError

__all__ = ["main"]

_MOST_SAID = 900  # characters of a message


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out one command. Wrong arguments and files end it with status 2 and one line that names them."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        with warnings.catch_warnings(record=True, action="default", category=UserWarning) as caught:
            args.carry_out(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `aria-sampling ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        parser.exit(130, "aria-sampling: interrupted\n")
    except (AriaError, OSError, ValueError, ImportError, MemoryError) as error:
        command = " ".join(filter(None, (args.command, getattr(args, "part", None))))
        parser.error(f"{command}: {str(error) or type(error).__name__}")
    else:
        for warning in caught:
            print(f"aria-sampling: warning: {warning.message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong. `argparse` would print its usage, too."""

    def error(self, message: str) -> NoReturn:
        """End with status 2."""
        message = " ".join(message.split())
        if len(message) > _MOST_SAID:
            message = f"{message[: _MOST_SAID - 4]} ..."
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(prog="aria-sampling", description="Pools of prompts, their regions, and allocation over them.")
    commands = parser.add_subparsers(dest="command", required=True)
    pools.add(commands)
    partitions.add(commands)
    regions.add(commands)
    return parser
