"""From estimates to shares: policies, targets, and the mixture that keeps every guarantee."""

from aria_sampling.allocation.baselines import PoolPolicy as PoolPolicy
from aria_sampling.allocation.baselines import UniformPolicy as UniformPolicy
from aria_sampling.allocation.policy import Policy as Policy
from aria_sampling.allocation.proportional import Proportional as Proportional
