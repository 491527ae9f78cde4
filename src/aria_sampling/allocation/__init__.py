"""From estimates to shares: policies, targets, and the mixture that keeps every guarantee."""

from aria_sampling.allocation.baselines import PoolPolicy as PoolPolicy
from aria_sampling.allocation.baselines import UniformPolicy as UniformPolicy
from aria_sampling.allocation.minimax import Minimax as Minimax
from aria_sampling.allocation.mixture import Mixture as Mixture
from aria_sampling.allocation.policy import Policy as Policy
from aria_sampling.allocation.proportional import Proportional as Proportional
from aria_sampling.allocation.reducible import Reducible as Reducible
from aria_sampling.allocation.softmax import Softmax as Softmax
