"""Estimators of regional discrepancy: the abstract base, `Ema`, `EmaBank`, and the certificate of an `Ema`."""

from aria_sampling.estimators.bank import EmaBank as EmaBank
from aria_sampling.estimators.base import Estimate as Estimate
from aria_sampling.estimators.base import Estimator as Estimator
from aria_sampling.estimators.base import Feedback as Feedback
from aria_sampling.estimators.base import borrowed as borrowed
from aria_sampling.estimators.certificate import Certificate as Certificate
from aria_sampling.estimators.certificate import certify as certify
from aria_sampling.estimators.ema import Ema as Ema
