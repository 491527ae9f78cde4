"""The PyTorch side: an adaptive sampler for any `DataLoader`, streams mixed by region, many ranks.

Nothing in here decides anything: it turns tensors into arrays and back, brings the feedback of all ranks
together, and lets `Allocator` do the work.

>>> import torch, aria_sampling as aria
>>> from torch.utils.data import DataLoader, TensorDataset
>>> dataset = TensorDataset(torch.arange(100))  # the index must come with the batch
>>> pool = aria.Partition.from_labels([index % 5 for index in range(100)])
>>> sampler = aria.Allocator(pool, seed=0).sampler(batch_size=10, num_samples=len(dataset))
>>> for (index,) in DataLoader(dataset, batch_size=10, sampler=sampler):
...     per_sample_loss = torch.rand(len(index))
...     sampler.observe(index, per_sample_loss)
>>> sampler.allocator.round
10
"""

from aria_sampling.conditioning import RandomConditioning as RandomConditioning
from aria_sampling.conditioning import Switch as Switch
from aria_sampling.torch.lag import lag_for as lag_for
from aria_sampling.torch.loader import WithIndex as WithIndex
from aria_sampling.torch.loader import dataloader as dataloader
from aria_sampling.torch.mixture import RegionMixture as RegionMixture
from aria_sampling.torch.sampler import AriaSampler as AriaSampler

__all__ = ["AriaSampler", "RandomConditioning", "RegionMixture", "Switch", "WithIndex", "dataloader", "lag_for"]
