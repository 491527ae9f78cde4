"""Random conditioning: which rows of a batch switch to another condition, and to which.

Random conditioning (RC, arXiv 2504.02011) distils on a noised image with, at times, the condition of something else:
with probability p, larger the noisier the image, the row's own condition gives way to one of the pool. There the pool
is drawn from uniformly; here an `Allocator` draws.
"""

from aria_sampling.conditioning.profile import TimestepProfile as TimestepProfile
from aria_sampling.conditioning.random_conditioning import RandomConditioning as RandomConditioning
from aria_sampling.conditioning.random_conditioning import Switch as Switch
from aria_sampling.conditioning.schedules import ConstantSwitch as ConstantSwitch
from aria_sampling.conditioning.schedules import ExponentialSwitch as ExponentialSwitch
from aria_sampling.conditioning.schedules import SigmoidSwitch as SigmoidSwitch
from aria_sampling.conditioning.schedules import SwitchSchedule as SwitchSchedule

__all__ = [
    "ConstantSwitch",
    "ExponentialSwitch",
    "RandomConditioning",
    "SigmoidSwitch",
    "Switch",
    "SwitchSchedule",
    "TimestepProfile",
]
