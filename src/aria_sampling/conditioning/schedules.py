"""How likely a row is to switch, by how noisy it is.

A schedule is a function of the noise level alone, 0 for a clean image and 1 for pure noise. Random conditioning
asks it once for all timesteps and keeps the answers. The exponential is the kernel's, so that a schedule gives the
same bits, and a run the same rows, on every machine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from aria_sampling import _kernel
from aria_sampling._arrays import FloatArray
from aria_sampling._check import real

__all__ = ["ConstantSwitch", "ExponentialSwitch", "SigmoidSwitch", "SwitchSchedule"]


class SwitchSchedule(ABC):
    """How likely a row is to switch, by how noisy it is.

    >>> import numpy as np
    >>> from aria_sampling import SwitchSchedule
    >>> class QuadraticSwitch(SwitchSchedule):
    ...     def __call__(self, noise):
    ...         return noise**2
    >>> QuadraticSwitch()(np.array([0.0, 0.5, 1.0])).tolist()
    [0.0, 0.25, 1.0]
    """

    @abstractmethod
    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch, float64 [n] in [0, 1].

        Args:
            noise: Noise levels, float64 [n] in [0, 1]; ``t / num_train_timesteps`` for timestep t.
        """


@dataclass(frozen=True)
class ExponentialSwitch(SwitchSchedule):
    """p = exp(-rate * (1 - noise)): the default of RC, there with rate 5 (a mean of 0.199 over noise levels).

    Raises:
        ValueError: `rate` negative or not finite.
    """

    rate: float = 5.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("rate", self.rate, low=0)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return _exp(-self.rate * (1 - noise))


@dataclass(frozen=True)
class SigmoidSwitch(SwitchSchedule):
    """p = 1 / (1 + exp(-steepness * (noise - midpoint))).

    Raises:
        ValueError: `steepness` negative, or `midpoint` outside [0, 1].
    """

    steepness: float = 20.0
    midpoint: float = 0.7

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("steepness", self.steepness, low=0)
        real("midpoint", self.midpoint, low=0, high=1)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return 1 / (1 + _exp(-self.steepness * (noise - self.midpoint)))


@dataclass(frozen=True)
class ConstantSwitch(SwitchSchedule):
    """p = probability at every noise level; 0 switches nothing, 1 everything.

    Raises:
        ValueError: `probability` outside [0, 1].
    """

    probability: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        real("probability", self.probability, low=0, high=1)

    def __call__(self, noise: FloatArray) -> FloatArray:
        """Return the probability to switch; see `SwitchSchedule`."""
        return np.full_like(noise, self.probability)


def _exp(x: FloatArray) -> FloatArray:
    """Return exp(x) in the kernel's bits, float64 of the same shape."""
    x = np.ascontiguousarray(x, np.float64)
    return _kernel.exp(x.reshape(-1)).reshape(x.shape)
