"""aria-sampling: draw more of a dataset where it is still worth it.

A *pool* of items is cut into coarse *regions* (`Partition`). `Coverage` says which of them have data of their own. An
estimator tracks the *discrepancy* of each region online. An `Allocator` draws items region by region, more where the
discrepancy persists. Your loss and your training loop stay what they were.

Importing this package loads NumPy only. The PyTorch side is `aria_sampling.torch`.
"""

from aria_sampling._arrays import State as State
from aria_sampling.adoption import Adopted as Adopted
from aria_sampling.advice import Advice as Advice
from aria_sampling.advice import Gain as Gain
from aria_sampling.allocator import Allocator as Allocator
from aria_sampling.conditioning import ConstantSwitch as ConstantSwitch
from aria_sampling.conditioning import ExponentialSwitch as ExponentialSwitch
from aria_sampling.conditioning import RandomConditioning as RandomConditioning
from aria_sampling.conditioning import SigmoidSwitch as SigmoidSwitch
from aria_sampling.conditioning import Switch as Switch
from aria_sampling.conditioning import SwitchSchedule as SwitchSchedule
from aria_sampling.conditioning import TimestepProfile as TimestepProfile
from aria_sampling.coverage import Coverage as Coverage
from aria_sampling.errors import ArgumentError as ArgumentError
from aria_sampling.errors import AriaError as AriaError
from aria_sampling.errors import AriaWarning as AriaWarning
from aria_sampling.errors import FeedbackLagError as FeedbackLagError
from aria_sampling.errors import MissingDependencyError as MissingDependencyError
from aria_sampling.errors import PartitionFileError as PartitionFileError
from aria_sampling.errors import RankError as RankError
from aria_sampling.errors import StateError as StateError
from aria_sampling.errors import StoreError as StoreError
from aria_sampling.errors import UsageError as UsageError
from aria_sampling.errors import WriteError as WriteError
from aria_sampling.estimators import Certificate as Certificate
from aria_sampling.estimators import Ema as Ema
from aria_sampling.estimators import EmaBank as EmaBank
from aria_sampling.estimators import Estimate as Estimate
from aria_sampling.estimators import Estimator as Estimator
from aria_sampling.estimators import Feedback as Feedback
from aria_sampling.history import History as History
from aria_sampling.partition import KMeansPartitioner as KMeansPartitioner
from aria_sampling.partition import Partition as Partition
from aria_sampling.partition import Partitioner as Partitioner
from aria_sampling.partition import PartitionSummary as PartitionSummary
from aria_sampling.partition import Quality as Quality
from aria_sampling.partition import QualityCurve as QualityCurve
from aria_sampling.partition import RegionSummary as RegionSummary
from aria_sampling.partition import quality as quality
from aria_sampling.partition import quality_curve as quality_curve
from aria_sampling.policies import GroupDRO as GroupDRO
from aria_sampling.policies import Policy as Policy
from aria_sampling.policies import PoolPolicy as PoolPolicy
from aria_sampling.policies import Proportional as Proportional
from aria_sampling.policies import Reducible as Reducible
from aria_sampling.policies import UniformPolicy as UniformPolicy
from aria_sampling.rounds import Draw as Draw

__version__: str  # looked up by __getattr__

__all__ = [
    "Adopted",
    "Advice",
    "Allocator",
    "ArgumentError",
    "AriaError",
    "AriaWarning",
    "Certificate",
    "ConstantSwitch",
    "Coverage",
    "Draw",
    "Ema",
    "EmaBank",
    "Estimate",
    "Estimator",
    "ExponentialSwitch",
    "Feedback",
    "FeedbackLagError",
    "Gain",
    "GroupDRO",
    "History",
    "KMeansPartitioner",
    "MissingDependencyError",
    "Partition",
    "PartitionFileError",
    "PartitionSummary",
    "Partitioner",
    "Policy",
    "PoolPolicy",
    "Proportional",
    "Quality",
    "QualityCurve",
    "RandomConditioning",
    "RankError",
    "Reducible",
    "RegionSummary",
    "SigmoidSwitch",
    "State",
    "StateError",
    "StoreError",
    "Switch",
    "SwitchSchedule",
    "TimestepProfile",
    "UniformPolicy",
    "UsageError",
    "WriteError",
    "__version__",
    "quality",
    "quality_curve",
]


def __getattr__(name: str) -> str:
    """Look `__version__` up when it is asked for: importlib.metadata would be half of the import time."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aria-sampling")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
