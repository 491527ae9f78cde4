"""Cutting a pool into regions: the `Partition` value, and partitioners that make one."""

from aria_sampling.partition.kmeans import KMeansPartitioner as KMeansPartitioner
from aria_sampling.partition.partition import Partition as Partition
from aria_sampling.partition.partitioner import Partitioner as Partitioner
from aria_sampling.partition.summary import PartitionSummary as PartitionSummary
from aria_sampling.partition.summary import RegionSummary as RegionSummary
