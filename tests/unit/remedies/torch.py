"""Remedies of the PyTorch side: samplers, loaders, mixtures, and what is reported to them."""

from tests.unit.remedies.case import Case

SAMPLER = """
from torch.utils.data import BatchSampler, DataLoader
from aria_sampling.torch import RegionMixture, dataloader
dataset = range(100)
pool = aria.Partition.from_labels([index % 5 for index in range(100)])
allocator = aria.Allocator(pool, seed=0)
sampler = allocator.sampler(batch_size=10, num_samples=100)
"""
BATCH = (
    SAMPLER
    + """
loader = DataLoader(dataset, batch_size=10, sampler=sampler)
indices = next(iter(loader))
losses = 1.0 + indices
credit = None
"""
)
SAVED = (
    BATCH
    + """
sampler.observe(indices, losses)
state = sampler.state_dict()
"""
)
MIXTURE = """
from torch.utils.data import DataLoader
from aria_sampling.torch import RegionMixture
sources = {"a": range(50), "b": range(50)}
mixture = RegionMixture(sources, batch_size=4)
"""
SAVED_MIXTURE = (
    MIXTURE
    + """
loader = DataLoader(mixture, batch_size=4)
for step, (regions, samples) in enumerate(loader):
    mixture.observe(regions, 1.0 + regions)
    if step == 3:
        break
state = mixture.state_dict()
"""
)
STATEFUL = """
class Counting:
    at = 0
    def __iter__(self):
        while self.at < 100:
            self.at += 1
            yield self.at
        self.at = 0
    def state_dict(self):
        return {"at": self.at}
    def load_state_dict(self, state):
        self.at = state["at"]
"""
FLAKY = """
class Flaky:
    failed = False
    def __iter__(self):
        for number in range(100):
            if number == 7 and not self.failed:
                self.failed = True
                raise OSError("connection reset")
            yield number
"""

OBSERVE = "sampler.observe(indices, losses, credit=credit)"
ATTACH = "sampler.attach(loader)"
DRAW = "sampler.attach(DataLoader(dataset, batch_size=sampler.batch_size, sampler=sampler)); next(iter(sampler))"
MADE = (
    "allocator.sampler(batch_size=batch_size, num_samples=num_samples, num_replicas=num_replicas, drop_last=drop_last)"
)
MIXED = "RegionMixture(sources, batch_size=batch_size, num_samples=num_samples, num_replicas=num_replicas)"
GO_ON = "region, sample = next(iter(mixture)); assert mixture.allocator.estimate().count.any()"

PADDED = """
lengths = torch.arange(10) % 3 + 1
counted = torch.arange(4) < lengths[:, None]
tokens = torch.full((10, 4), 2.0)
"""
PADDED_ARRAYS = PADDED + "counted, tokens = counted.numpy(), tokens.numpy()\n"
MASKED = """
counted = torch.arange(16).reshape(4, 4) < torch.arange(1, 11)[:, None, None]
pixels = torch.full((10, 4, 4), 2.0)
"""
SHARDED = """
class Sharded(torch.Tensor):
    @staticmethod
    def __new__(cls, whole):
        made = torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=whole.dtype)
        made.whole = whole
        return made
    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(str(func))
    def full_tensor(self):
        return self.whole
"""

CASES: list[Case] = [
    # -- samplers
    Case(
        "a batch size per rank",
        SAMPLER + "batch_size, num_samples, num_replicas, drop_last = 5, 100, 2, False",
        MADE,
    ),
    Case(
        "a last batch with fewer rows than ranks",
        SAMPLER + "batch_size, num_samples, num_replicas, drop_last = 8, 81, 2, False",
        MADE,
    ),
    Case("shard with an open batch", BATCH, "sampler.shard(2, 0)"),
    Case(
        "a loader that draws ahead of its sampler",
        SAMPLER + "loader = DataLoader(dataset, batch_size=10, sampler=sampler, num_workers=1)",
        "next(iter(loader))",
    ),
    Case(
        "attached after the first draw",
        BATCH + "loader = DataLoader(dataset, batch_size=10, sampler=sampler, num_workers=1)",
        ATTACH,
    ),
    # -- loaders
    Case("another sampler", SAMPLER + "loader = DataLoader(dataset, batch_size=10, shuffle=True)", ATTACH),
    Case(
        "batches that overtake",
        SAMPLER + "loader = DataLoader(dataset, batch_size=10, sampler=sampler, num_workers=1, in_order=False)",
        ATTACH,
    ),
    Case("another batch size", SAMPLER + "loader = DataLoader(dataset, batch_size=20, sampler=sampler)", ATTACH),
    Case(
        "a batch sampler of buckets",
        SAMPLER
        + """
class Buckets(BatchSampler):
    def __iter__(self):
        yield from super().__iter__()
loader = DataLoader(dataset, batch_sampler=Buckets(sampler, 10, False))
""",
        ATTACH,
    ),
    Case(
        "a loader that drops the last batch",
        SAMPLER
        + """
sampler = allocator.sampler(batch_size=30, num_samples=100)
loader = DataLoader(dataset, batch_size=30, sampler=sampler, drop_last=True)
""",
        ATTACH,
    ),
    Case(
        "a bare loader that drops the last batch",
        SAMPLER
        + """
sampler = allocator.sampler(batch_size=30, num_samples=100)
loader = DataLoader(dataset, batch_size=30, sampler=sampler, drop_last=True)
""",
        "next(iter(loader))",
        "assert [len([sampler.step() for _ in loader]) for _ in range(3)] == [3, 3, 3]",
    ),
    Case(
        "samples that have an index already",
        SAMPLER
        + """
from aria_sampling.torch import WithIndex
rows = [{"x": 1.0, "index": 7 * row} for row in range(100)]
dataset = rows
""",
        "WithIndex(dataset)[3]",
        "assert dataset[3] == {'x': 1.0, 'index': 21, 'row': 3}",
    ),
    Case(
        "samples that have an entry of the name that was chosen",
        SAMPLER
        + """
from aria_sampling.torch import WithIndex
dataset = [{"row": 7 * row} for row in range(100)]
""",
        "WithIndex(dataset, key='row')[3]",
        "assert dataset[3] == {'row': 21, 'row_of_row': 3}",
    ),
    # -- reports
    Case("several losses a row", BATCH + "losses = losses[:, None].repeat(1, 3)", OBSERVE),
    Case("several losses a row in an array", BATCH + "losses = np.ones((10, 3))", OBSERVE),
    Case("several losses a row, flat", BATCH + "losses = losses.repeat(2)", OBSERVE),
    Case("several losses a row, flat, in an array", BATCH + "losses = np.ones(20)", OBSERVE),
    Case("losses of padded tokens", BATCH + PADDED + "losses = tokens * counted", OBSERVE),
    Case("losses of padded tokens in an array", BATCH + PADDED_ARRAYS + "losses = tokens * counted", OBSERVE),
    Case("losses of padded tokens, flat", BATCH + PADDED + "losses = (tokens * counted).reshape(-1)", OBSERVE),
    Case("losses of masked pixels", BATCH + MASKED + "losses = pixels * counted", OBSERVE),
    Case("sharded losses", BATCH + SHARDED + "losses = Sharded(losses)", OBSERVE),
    Case("sharded indices", BATCH + SHARDED + "indices = Sharded(indices)", OBSERVE),
    Case("losses of pixels", BATCH + "losses = torch.rand(10, 3, 4, 4)", OBSERVE),
    Case("losses of pixels in an array", BATCH + "losses = np.ones((10, 3, 4, 4))", OBSERVE),
    Case("sparse losses", BATCH + "losses = losses.to_sparse()", OBSERVE),
    Case("sparse credit", BATCH + "credit = (losses > 20).to_sparse()", OBSERVE),
    Case("credit in integers", BATCH + "credit = torch.arange(10) % 2", OBSERVE),
    Case("credit in a list of integers", BATCH + "credit = [1, 0] * 5", OBSERVE),
    Case(
        "one sample at a time",
        SAMPLER
        + """
sampler = allocator.sampler(batch_size=1, num_samples=100)
indices, losses = next(iter(DataLoader(dataset, batch_size=None, sampler=sampler))), torch.rand(5, requires_grad=True)
""",
        "sampler.observe(indices, losses)",
    ),
    # -- another run than the one that was saved
    Case(
        "resumed with another batch size",
        SAVED + "sampler = aria.Allocator(pool, seed=0).sampler(batch_size=20, num_samples=100)",
        "sampler.load_state_dict(state)",
        DRAW + "; assert sampler.allocator.round == 1",
    ),
    Case(
        "resumed with fewer workers",
        SAVED.replace("seed=0)", "seed=0, lag=4)", 1)
        + """
sampler = aria.Allocator(pool, seed=0).sampler(batch_size=10, num_samples=100)
sampler.attach(DataLoader(dataset, batch_size=10, sampler=sampler, num_workers=1))
""",
        "sampler.load_state_dict(state)",
    ),
    Case(
        "resumed with fewer workers and another batch size",
        SAVED.replace("seed=0)", "seed=0, lag=4)", 1)
        + """
sampler = aria.Allocator(pool, seed=0).sampler(batch_size=20, num_samples=100)
sampler.attach(DataLoader(dataset, batch_size=20, sampler=sampler, num_workers=1))
""",
        "sampler.load_state_dict(state)",
        DRAW + "; assert sampler.allocator.round == 1",
    ),
    Case(
        "resumed with more workers",
        SAVED
        + """
sampler = aria.Allocator(pool, seed=0).sampler(batch_size=10, num_samples=100)
sampler.attach(DataLoader(dataset, batch_size=10, sampler=sampler, num_workers=2))
""",
        "sampler.load_state_dict(state)",
        DRAW + "; assert sampler.allocator.estimate().count.any()",
    ),
    Case(
        "resumed with other data",
        SAVED
        + """
old_partition = pool
dataset = range(120)
allocator = aria.Allocator(aria.Partition.from_labels([index % 5 for index in range(120)]), seed=0)
sampler = allocator.sampler(batch_size=10, num_samples=120)
""",
        "sampler.load_state_dict(state)",
        DRAW + "; assert allocator.estimate().count.any()",
    ),
    # -- mixtures
    Case(
        "sources in another order than the regions",
        MIXTURE
        + """
allocator = aria.Allocator(aria.Partition.from_labels([0, 1], names=["1", "2"]))
sources = {2: [3, 4], 1: [5, 6]}
""",
        "RegionMixture(sources, allocator)",
    ),
    Case(
        "a batch size per rank in a mixture",
        MIXTURE + "batch_size, num_samples, num_replicas = 3, 12, 2",
        MIXED,
    ),
    Case("an epoch of half a batch", MIXTURE + "batch_size, num_samples, num_replicas = 4, 10, 1", MIXED),
    Case(
        "a loader of something else",
        MIXTURE + "loader = DataLoader([1, 2, 3], batch_size=4)",
        "mixture.attach(loader)",
    ),
    Case(
        "workers of the outer loader",
        MIXTURE + "loader = DataLoader(mixture, batch_size=4, num_workers=1)",
        "mixture.attach(loader)",
    ),
    Case(
        "batches that are no rounds of the mixture",
        MIXTURE + "loader = DataLoader(mixture, batch_size=2)",
        "mixture.attach(loader)",
    ),
    Case(
        "smaller batches than the rounds of the mixture",
        MIXTURE + "regions, samples = next(iter(DataLoader(mixture, batch_size=2)))",
        "mixture.observe(regions, 1.0 + regions)",
        "regions, samples = next(iter(loader)); mixture.observe(regions, 1.0 + regions)",
    ),
    Case(
        "a sample that is a batch",
        MIXTURE
        + """
mixture = RegionMixture({"a": [torch.ones(5)], "b": [torch.ones(5)]})
region, rows = next(iter(DataLoader(mixture, batch_size=None)))
regions, losses = [region] * 5, 2.0 * rows
""",
        "mixture.observe(regions, losses)",
    ),
    Case(
        "a sample that is a batch, with its one region",
        MIXTURE
        + """
mixture = RegionMixture({"a": [torch.ones(5)], "b": [torch.ones(5)]})
regions, losses = next(iter(DataLoader(mixture, batch_size=None)))
""",
        "mixture.observe(regions, losses)",
    ),
    Case(
        "a source that failed",
        MIXTURE
        + FLAKY
        + """
mixture = RegionMixture({"a": Flaky(), "b": Flaky()}, batch_size=4)
state = mixture.state_dict()
try:
    for regions, samples in DataLoader(mixture, batch_size=4):
        mixture.observe(regions, 1.0 + regions)
except OSError:
    pass
""",
        "next(iter(mixture))",
    ),
    Case(
        "an allocator put back without its mixture",
        MIXTURE
        + """
state = mixture.state_dict()
rows = iter(mixture)
next(rows)
mixture.allocator.rewind()
""",
        "[next(rows) for _ in range(4)]",
        "next(iter(mixture))",
    ),
    Case(
        "a mixture resumed with another batch size",
        SAVED_MIXTURE + "mixture = RegionMixture(sources, batch_size=6)",
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed by another rank",
        SAVED_MIXTURE + "mixture = RegionMixture(sources, batch_size=4, num_replicas=2, rank=1)",
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with other sources",
        SAVED_MIXTURE
        + """
old_partition = mixture.allocator.partition
mixture = RegionMixture({**sources, "c": range(50)}, batch_size=4)
""",
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with another seed",
        SAVED_MIXTURE
        + """
allocator = aria.Allocator(mixture.allocator.partition, target="uniform", seed=5)
mixture = RegionMixture(sources, allocator, batch_size=4)
""",
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with shorter sources",
        SAVED_MIXTURE + 'mixture = RegionMixture({"a": range(2), "b": range(2)}, batch_size=4)',
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with iterators",
        SAVED_MIXTURE + 'mixture = RegionMixture({"a": iter(range(50)), "b": iter(range(50))}, batch_size=4)',
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with sources that have a state",
        SAVED_MIXTURE + STATEFUL + 'mixture = RegionMixture({"a": Counting(), "b": Counting()}, batch_size=4)',
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
    Case(
        "a mixture resumed with sources that have none any more",
        SAVED_MIXTURE.replace('"a": range(50), "b": range(50)', '"a": Counting(), "b": Counting()').replace(
            "sources =", STATEFUL + "sources ="
        )
        + 'mixture = RegionMixture({"a": range(50), "b": range(50)}, batch_size=4)',
        "mixture.load_state_dict(state)",
        GO_ON,
    ),
]
