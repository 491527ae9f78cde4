"""At home with diffusers' schedulers: how noisy the rows of a batch are, as `RandomConditioning` takes it.

What a scheduler calls a timestep is not one thing. In DDPM training it is an integer, larger is noisier. In flow
matching (Stable Diffusion 3, Flux) it is a float, and the integers of the script are places in ``scheduler.timesteps``,
which runs from noise to image: a larger one is *cleaner*. `noise_levels` knows both. It needs no diffusers itself.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from aria_sampling._check import float_vector, shown
from aria_sampling.errors import ArgumentError, AriaWarning

__all__ = ["noise_levels"]


def noise_levels(scheduler: Any, timesteps: Any) -> Any:
    """Return how noisy each row is, 0 for an image and 1 for pure noise, for ``switch.draw(noise=...)``.

    >>> from types import SimpleNamespace
    >>> import numpy as np
    >>> ddpm = SimpleNamespace(alphas_cumprod=[], config=SimpleNamespace(num_train_timesteps=1000))
    >>> noise_levels(ddpm, np.array([0, 250, 999])).tolist()
    [0.0, 0.25, 0.999]

    Args:
        scheduler: A scheduler of diffusers with discrete steps (``DDPMScheduler`` and all that have
            ``alphas_cumprod``), or one for flow matching (``FlowMatchEulerDiscreteScheduler`` and all whose
            ``timesteps`` are ``sigmas * num_train_timesteps``).
        timesteps: Of each row [B], a tensor or an array: what the script gives to ``scheduler.add_noise``, or to the
            model. For flow matching floats, ``scheduler.timesteps[indices]``. Keep them on the CPU until the switch is
            drawn: from an accelerator they have to be waited for.

    Returns:
        Noise levels, [B], as a float64 array or as a tensor on the device of `timesteps`, float64 where it has that.

    Raises:
        ValueError: A scheduler of another kind (of those of EDM the message says how); integers for flow matching,
            which are places in ``scheduler.timesteps`` and run the other way; another shape or dtype; a value out of
            range.

    Warns:
        AriaWarning: All timesteps are fractions of at most 1: they look like noise levels already.
    """
    most, flow = _kind_of(scheduler)
    values = float_vector("timesteps", timesteps)
    if flow and len(values) and not _is_floating(timesteps):
        raise ArgumentError(
            f"timesteps: expected floats, as {type(scheduler).__name__}.timesteps has them, got integers from "
            f"{values.min():g} to {values.max():g}: places in that list, where a larger one is cleaner",
            remedy="timesteps = scheduler.timesteps[timesteps]",
        )
    last = most if flow else most - 1
    if len(values) and not (values.min() >= 0 and values.max() <= last * (1 + 1e-6)):  # NaN included
        raise ArgumentError(
            f"timesteps: expected values in [0, {last}], as {type(scheduler).__name__} has them, got {values.min():g} "
            f"to {values.max():g}; pass what the script gives to the scheduler, and that scheduler"
        )
    if len(values) and values.max() <= 1 and (values % 1).any():
        warnings.warn(
            f"timesteps: {shown(values[:4].tolist())} are all at most 1, and {type(scheduler).__name__} counts to "
            f"{last}. If they are noise levels already, pass them as they are: switch.draw(noise=...)",
            AriaWarning,
            stacklevel=2,
        )
    levels = np.minimum(values / most, 1.0)
    if not isinstance(timesteps, torch.Tensor):
        return levels
    dtype = torch.float32 if timesteps.device.type == "mps" else torch.float64
    return torch.as_tensor(levels, dtype=dtype).to(timesteps.device)


def _kind_of(scheduler: Any) -> tuple[int, bool]:
    """Return the number of training steps, and whether timesteps are floats up to it, ``sigma`` times that number."""
    config = getattr(scheduler, "config", None)
    most = getattr(config, "num_train_timesteps", None)
    name = type(scheduler).__name__
    if not isinstance(most, int) or most < 1:
        raise ArgumentError(
            f"scheduler: expected a scheduler of diffusers with config.num_train_timesteps, got {name}; for another "
            "one pass noise levels of your own, 0 for an image and 1 for pure noise: switch.draw(noise=...)"
        )
    if getattr(config, "invert_sigmas", False):
        raise ArgumentError(
            f"scheduler: {name} with invert_sigmas=True, whose larger timesteps may be the cleaner ones; pass the "
            "share of noise in each row: switch.draw(noise=...)"
        )
    if hasattr(scheduler, "alphas_cumprod"):
        return most, False
    steps, sigmas = getattr(scheduler, "timesteps", None), getattr(scheduler, "sigmas", None)
    if steps is not None and sigmas is not None and 0 < len(steps) <= len(sigmas):
        there = np.asarray(steps.tolist()) - np.asarray(sigmas[: len(steps)].tolist()) * most
        if (np.abs(there) <= 1 + 1e-3 * most).all():  # some round them to integers
            return most, True
    if sigmas is not None and getattr(config, "sigma_data", None) is not None:
        raise ArgumentError(
            f"scheduler: {name} adds noise of standard deviation sigma, far above 1, to data of standard deviation "
            "sigma_data (EDM); pass the share of noise in the variance of each row, sigma**2 / (sigma_data**2 + "
            "sigma**2): with `sigmas`, that of each row, [B], then switch.draw(noise=noise)",
            remedy="noise = sigmas**2 / (scheduler.config.sigma_data**2 + sigmas**2)",
        )
    raise ArgumentError(
        f"scheduler: expected discrete steps (alphas_cumprod), or timesteps that are sigmas * {most} (flow matching), "
        f"got {name}; pass noise levels of your own, 0 for an image and 1 for pure noise: switch.draw(noise=...)"
    )


def _is_floating(timesteps: Any) -> bool:
    """Whether timesteps came as floats."""
    if isinstance(timesteps, torch.Tensor):
        return timesteps.is_floating_point()
    return np.asarray(timesteps).dtype.kind == "f"
