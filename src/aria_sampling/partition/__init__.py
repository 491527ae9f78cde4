"""Cutting a pool into regions: the `Partition` value, and partitioners that make one."""

from aria_sampling.partition._novelty import novelty as novelty
from aria_sampling.partition.kmeans import KMeansPartitioner as KMeansPartitioner
from aria_sampling.partition.partition import Partition as Partition
