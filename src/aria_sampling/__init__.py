"""aria-sampling: draw more of a dataset where it is still worth it.

A *pool* of items is cut into coarse *regions* (`Partition`); an estimator tracks the *discrepancy* of each
online; an `Allocator` draws items region by region, more where the discrepancy persists, while your loss
and your training loop stay what they were.

Importing this package loads NumPy only. The PyTorch side is `aria_sampling.torch`.
"""

from aria_sampling._errors import FeedbackLagError as FeedbackLagError
from aria_sampling._errors import PartitionFileError as PartitionFileError
from aria_sampling._errors import RankError as RankError
from aria_sampling._errors import StateError as StateError
from aria_sampling.allocation import Minimax as Minimax
from aria_sampling.allocation import Mixture as Mixture
from aria_sampling.allocation import Policy as Policy
from aria_sampling.allocation import PoolPolicy as PoolPolicy
from aria_sampling.allocation import Proportional as Proportional
from aria_sampling.allocation import Reducible as Reducible
from aria_sampling.allocation import Softmax as Softmax
from aria_sampling.allocation import UniformPolicy as UniformPolicy
from aria_sampling.allocator import Allocator as Allocator
from aria_sampling.conditioning import ConstantSwitch as ConstantSwitch
from aria_sampling.conditioning import ExponentialSwitch as ExponentialSwitch
from aria_sampling.conditioning import RandomConditioning as RandomConditioning
from aria_sampling.conditioning import SigmoidSwitch as SigmoidSwitch
from aria_sampling.conditioning import Switch as Switch
from aria_sampling.conditioning import SwitchSchedule as SwitchSchedule
from aria_sampling.drawing import Draw as Draw
from aria_sampling.estimation import Certificate as Certificate
from aria_sampling.estimation import Ema as Ema
from aria_sampling.estimation import EmaBank as EmaBank
from aria_sampling.estimation import Estimate as Estimate
from aria_sampling.estimation import Estimator as Estimator
from aria_sampling.estimation import Feedback as Feedback
from aria_sampling.estimation import TimestepProfile as TimestepProfile
from aria_sampling.history import History as History
from aria_sampling.partition import KMeansPartitioner as KMeansPartitioner
from aria_sampling.partition import Partition as Partition
from aria_sampling.partition import novelty as novelty
from aria_sampling.report.advice import Advice as Advice
from aria_sampling.report.advice import Gain as Gain

__version__: str  # looked up by __getattr__

__all__ = [
    "Advice",
    "Allocator",
    "Certificate",
    "ConstantSwitch",
    "Draw",
    "Ema",
    "EmaBank",
    "Estimate",
    "Estimator",
    "ExponentialSwitch",
    "Feedback",
    "FeedbackLagError",
    "Gain",
    "History",
    "KMeansPartitioner",
    "Minimax",
    "Mixture",
    "Partition",
    "PartitionFileError",
    "Policy",
    "PoolPolicy",
    "Proportional",
    "RandomConditioning",
    "RankError",
    "Reducible",
    "SigmoidSwitch",
    "Softmax",
    "StateError",
    "Switch",
    "SwitchSchedule",
    "TimestepProfile",
    "UniformPolicy",
    "__version__",
    "novelty",
]


def __getattr__(name: str) -> str:
    """Look `__version__` up when it is asked for: importlib.metadata would be half of the import time."""
    if name == "__version__":
        from importlib.metadata import version

        return version("aria-sampling")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
