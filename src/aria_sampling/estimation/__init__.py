"""Estimators of regional discrepancy: the abstract base, `Ema`, `EmaBank`, and the timestep profile."""

from aria_sampling.estimation.bank import EmaBank as EmaBank
from aria_sampling.estimation.base import Estimate as Estimate
from aria_sampling.estimation.base import Estimator as Estimator
from aria_sampling.estimation.base import Feedback as Feedback
from aria_sampling.estimation.certificate import Certificate as Certificate
from aria_sampling.estimation.certificate import certify as certify
from aria_sampling.estimation.ema import Ema as Ema
from aria_sampling.estimation.timestep import TimestepProfile as TimestepProfile
