"""Cutting a pool into regions: the `Partition` value, and partitioners that make one."""

from aria_sampling.partition._quality import Quality as Quality
from aria_sampling.partition._quality import QualityCurve as QualityCurve
from aria_sampling.partition._quality import quality as quality
from aria_sampling.partition._quality import quality_curve as quality_curve
from aria_sampling.partition.kmeans import KMeansPartitioner as KMeansPartitioner
from aria_sampling.partition.partition import Partition as Partition
from aria_sampling.partition.partitioner import Partitioner as Partitioner
from aria_sampling.partition.summary import PartitionSummary as PartitionSummary
from aria_sampling.partition.summary import RegionSummary as RegionSummary
