"""`Mixture`: several policies in one, combined geometrically."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aria_sampling._typing import FloatArray, State
from aria_sampling._validation import real
from aria_sampling.allocation.policy import Policy
from aria_sampling.estimation.base import Estimate

__all__ = ["Mixture"]


@dataclass(frozen=True)
class Mixture(Policy):
    """log φ = Σ weight_i · log φ_i: a compromise that no unit or scale of the parts can distort.

    >>> from aria_sampling import Proportional, Reducible
    >>> policy = Mixture((Proportional(0.5), Reducible()), weights=(0.5, 0.5))

    Args:
        policies: At least one; baselines are not allowed (they are not about φ).
        weights: One a policy, not negative, not all 0; they are normalised. Default: all equal.

    Raises:
        ValueError: None of the above.
    """

    policies: tuple[Policy, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if not isinstance(self.policies, tuple) or not self.policies:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"policies={self.policies!r}: expected a tuple of at least one Policy")
        for index, policy in enumerate(self.policies):
            if not isinstance(policy, Policy) or policy.baseline is not None:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"policies[{index}]={policy!r}: expected a Policy that is not a baseline")
        if self.weights is not None:
            if not isinstance(self.weights, tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ValueError(f"weights={self.weights!r}: expected a tuple of numbers, one a policy")
            if len(self.weights) != len(self.policies):
                raise ValueError(f"weights: expected {len(self.policies)}, one a policy, got {len(self.weights)}")
            for index, weight in enumerate(self.weights):
                real(f"weights[{index}]", weight, low=0)
            if not any(self.weights):
                raise ValueError("weights: expected at least one positive, got zeros")

    def init(self, n_regions: int) -> State:
        """Return the states of all parts, their names prefixed by the number of the part."""
        states = [policy.init(n_regions) for policy in self.policies]
        return {f"{index}.{name}": array for index, state in enumerate(states) for name, array in state.items()}

    def update(self, state: State, estimate: Estimate) -> State:
        """Return the state after every part has taken in `estimate`."""
        for index, policy in enumerate(self.policies):
            for name, array in policy.update(_part(state, index), estimate).items():
                state[f"{index}.{name}"] = array
        return state

    def log_phi(self, state: State) -> FloatArray:
        """Return the weighted sum of the parts' log φ, float64 [n_regions]."""
        weights = np.array(self.weights or [1.0] * len(self.policies))
        weights = weights / weights.sum()
        parts = [policy.log_phi(_part(state, index)) for index, policy in enumerate(self.policies)]
        return np.sum([weight * part for weight, part in zip(weights, parts, strict=True) if weight > 0], axis=0)


def _part(state: State, index: int) -> State:
    """Return the state of one part."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}
