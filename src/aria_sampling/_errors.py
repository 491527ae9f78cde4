"""The errors this library raises beyond the built-in ones.

They live apart so that every layer can raise them. Each is a subclass of the built-in error that a
caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

__all__ = ["FeedbackLagError", "PartitionFileError", "RankError", "StateError"]


class FeedbackLagError(RuntimeError):
    """A draw needs feedback that has not arrived: the loader runs further ahead than ``lag`` allows.

    The message names the smallest lag that would have let this draw go ahead.
    """


class StateError(ValueError):
    """A saved state does not fit this object: another pool, configuration or schema, or damaged."""


class PartitionFileError(ValueError):
    """A partition file is truncated, damaged, or not a partition file at all."""


class RankError(RuntimeError):
    """The ranks of a distributed run have come apart: another round, or another state. The message names them."""
