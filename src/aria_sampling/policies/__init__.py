"""Policies: how much more than its target share a region deserves."""

from aria_sampling.policies.base import Policy as Policy
from aria_sampling.policies.baselines import PoolPolicy as PoolPolicy
from aria_sampling.policies.baselines import UniformPolicy as UniformPolicy
from aria_sampling.policies.group_dro import GroupDRO as GroupDRO
from aria_sampling.policies.proportional import Proportional as Proportional
from aria_sampling.policies.reducible import Reducible as Reducible
