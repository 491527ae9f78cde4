"""Arguments that nobody should give, and the calls to give them to.

A call has good arguments, of which the tests replace some. It may raise ValueError; and RuntimeError if its docstring
says so (no open round, too small a lag).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import torch as faces
from tests.helpers import small_pool


class Strange:
    """A number until it is asked which."""

    def __float__(self):
        raise OSError("no number")

    def __index__(self):
        raise OSError("no number")


class Unreadable:
    """What NumPy is to ask for an array, and gets none."""

    def __array__(self, *_, **__):
        raise OSError("no array")

    def __len__(self):
        return 2


NAN, INF = float("nan"), float("inf")
NUMBERS = [
    0,
    -1,
    1,
    2,
    -(2**63),
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
    0.0,
    -0.0,
    0.5,
    1.5,
    -3.5,
    1e-320,
    1e308,
    NAN,
    INF,
    -INF,
]
OTHERS = [
    None,
    True,
    False,
    "",
    "pool",
    "3",
    b"1",
    1j,
    ...,
    [],
    {},
    (),
    {1, 2},
    object,
    object(),
    Strange(),
    Unreadable(),
    len,
    aria.Ema,
]
ARRAYS = [
    np.array(3), np.array([]), np.zeros((2, 3)), np.zeros((0, 2)), np.array([NAN, 1.0]), np.array([INF] * 8),
    np.array(["a", "b"]), np.array([None, 1], object), np.array([1 + 2j]), np.array([True, False]), np.arange(8) - 5,
    np.array([2**63], np.uint64), np.array([2**62] * 8), np.array([1e308] * 6), np.array([1e308] * 8),
    np.array(["2020-01-01"], "datetime64[D]"), np.zeros(3, [("a", int)]), np.array([1.5] * 8, np.float16),
    [1, [2, 3]], ["a"] * 8, [None] * 8, [10**30] * 8, [[1] * 8], range(8), {"a": 1}, [NAN] * 8, [-1] * 8,
]  # fmt: skip
TENSORS = [
    torch.tensor(3), torch.tensor([]), torch.zeros(2, 3), torch.arange(8), torch.arange(8.0), torch.tensor([NAN] * 8),
    torch.ones(8, dtype=torch.bfloat16), torch.ones(8, dtype=torch.complex64), torch.ones(8, dtype=torch.bool),
    torch.ones(8, requires_grad=True), torch.ones(3).to_sparse(), torch.full((8,), 2**62), torch.full((8,), -7),
]  # fmt: skip
STATES = [{"schema": 1}, {"schema": 2}, {"schema": 3}, {1: 2}, {"schema": None}, {"epoch": 1}, [{}], {"allocator": {}}]
VALUES = [*NUMBERS, *OTHERS, *ARRAYS, *TENSORS, *STATES]
MADE_UP = st.one_of(
    st.integers(-3, 3),
    st.floats(),
    st.lists(st.one_of(st.integers(-2, 100), st.floats()), max_size=9),
    st.builds(
        lambda shape, dtype, value: np.full(shape, value).astype(dtype),
        st.sampled_from([(), (0,), (1,), (8,), (9,), (8, 1), (2, 4), (60,), (6,)]),
        st.sampled_from(["int64", "int8", "uint64", "float64", "float16", "bool", "complex128", "O", "U3"]),
        st.sampled_from([0, 1, 3, 100]),
    ),
    st.builds(
        lambda n, dtype: torch.ones(n, dtype=dtype), st.integers(0, 9), st.sampled_from([torch.int64, torch.bfloat16])
    ),
)
ANYTHING = st.one_of(st.sampled_from(VALUES), MADE_UP)


@dataclass
class Call:
    """Something to call: `make` returns the object whose state must not change, or None, and what to call."""

    name: str
    make: Callable[[], tuple[Any, Callable[..., Any]]]
    good: dict[str, Any] = field(default_factory=dict)
    also: tuple[type[Exception], ...] = ()


def begun(lag: int = 1) -> aria.Allocator:
    """An allocator with three closed rounds and one open one."""
    allocator = aria.Allocator(small_pool(), target="uniform", lag=lag, estimator=aria.Ema())
    for _ in range(3):
        draw = allocator.draw(8)
        allocator.observe(draw.regions, 1.0 + draw.regions)
        allocator.step()
    allocator.draw(8)
    return allocator


def sampler() -> Any:
    """A sampler in its second batch, and the indices of that batch."""
    it = aria.Allocator(small_pool(), lag=1).sampler(batch_size=8, num_samples=40)
    rows = iter(it)
    first = [next(rows) for _ in range(8)]
    it.observe(first, np.ones(8))
    second = [next(rows) for _ in range(8)]
    return it, second


def switcher(kind: Any) -> Any:
    """A random conditioning with an open batch of eight."""
    it = kind(aria.Allocator(small_pool(), lag=1), schedule=aria.ConstantSwitch(0.5))
    it.draw(np.arange(8) * 100)
    it.observe(np.ones(8))
    it.draw(np.arange(8) * 50)
    return it


def mixture() -> Any:
    """A mixture in its second batch."""
    it = faces.RegionMixture({"a": range(9), "b": range(50)}, batch_size=8, num_samples=40)
    rows = iter(it)
    it.observe([next(rows)[0] for _ in range(8)], np.ones(8))
    next(rows)
    return it


def history() -> Any:
    """A history with a record, of an allocator with open rounds."""
    it = aria.History(begun(), every=1, max_records=8)
    it.record()
    return it


class Profile:
    """A timestep profile with its state, which is a value apart."""

    def __init__(self):
        self.it = aria.TimestepProfile(num_train_timesteps=400, n_bins=5)
        self.state = self.it.update(self.it.init(), [0, 100, 399], [1.0, 2.0, 3.0])

    def __getattr__(self, name):
        return functools.partial(getattr(self.it, name), self.state)


def method(make: Callable[[], Any], name: str, /, *, also=(), **good: Any) -> Call:
    def prepare():
        owner = make()
        return owner, getattr(owner, name)

    owner = type(make()).__name__
    return Call(f"{owner}.{name}", prepare, good, also)


def function(value: Callable[..., Any], name: str = "", **good: Any) -> Call:
    return Call(name or getattr(value, "__qualname__", str(value)), lambda: (None, value), good)


RUNTIME = (RuntimeError,)
POOL = small_pool()
POLICY = [aria.Proportional, aria.Softmax, aria.Minimax, aria.Reducible, aria.Mixture]
POLICY_ARGUMENTS = [
    {"exponent": 1.0},
    {"temperature": 1.0},
    {"step_size": 0.1, "scale": 1.0, "reference": 0.0},
    {"reference": 0.0, "least": 0.1},
    {"policies": (aria.Proportional(),), "weights": (1.0,)},
]


def calls() -> list[Call]:
    """Every public constructor and method that takes arguments."""
    one, rows = sampler()
    losses, regions = np.ones(8), np.arange(8) % 6
    numpy_switch, torch_switch = (
        (lambda: switcher(aria.RandomConditioning)),
        (lambda: switcher(faces.RandomConditioning)),
    )
    options = {"estimator": aria.Ema(), "policy": aria.Proportional(), "floor": 0.2, "target": "pool", "max_gap": 4}
    options |= {"max_repeat": 5.0, "correction": 1.0, "present_weight": 2.0, "present_rate": 0.1, "seed": 0, "lag": 0}
    ranks = {"num_replicas": 1, "rank": 0, "check_every": 8}
    steps = np.arange(8) * 50
    found = [
        function(aria.Allocator, partition=POOL, **options),
        method(begun, "draw", n=8, present=regions),
        method(begun, "skip", present=regions),
        method(begun, "observe", regions=regions, losses=losses),
        method(begun, "certificate", drift=0.1, sigma=1.0, alpha=0.05),
        method(begun, "load_state_dict", state=begun().state_dict()),
        method(begun, "sampler", batch_size=8, num_samples=40, num_replicas=2, rank=1, check_every=64),
        function(aria.History, allocator=begun(), every=3, max_records=8),
        method(history, "metrics", name="ess"),
        method(history, "load_state_dict", state=history().state_dict()),
        function(aria.Partition.from_labels, labels=[0, 1, 1], names=["a", "b"], centers=np.eye(2)),
        function(aria.Partition.from_labels(np.arange(8) % 2, centers=np.eye(2)).assign, "Partition.assign",
                 embeddings=np.eye(2)),
        function(POOL.regions_of, "Partition.regions_of", items=rows),
        function(POOL.items_of, "Partition.items_of", region=1),
        function(aria.KMeansPartitioner, n_regions=2, seed=0, points_per_region=9, max_iter=2),
        function(aria.KMeansPartitioner(n_regions=2).fit, embeddings=np.eye(4)),
        function(aria.Ema, rate=0.1, per="visit"),
        function(aria.EmaBank, half_lives=(2.0, 9.0), discount=0.1, clip=9.0),
        function(aria.Feedback.from_rows, regions=regions, losses=losses, n_regions=6),
        function(aria.TimestepProfile, num_train_timesteps=100, n_bins=5, rate=0.1),
        method(Profile, "update", timesteps=steps, losses=losses, weights=losses),
        method(Profile, "expected", timesteps=steps),
        method(Profile, "ratio", timesteps=steps, losses=losses),
        method(Profile, "control_variate", timesteps=steps, losses=losses, coefficient=1.0),
        *(function(kind, **good) for kind, good in zip(POLICY, POLICY_ARGUMENTS, strict=True)),
        function(aria.ExponentialSwitch, rate=5.0),
        function(aria.SigmoidSwitch, steepness=3.0, midpoint=0.5),
        function(aria.ConstantSwitch, probability=0.5),
        function(aria.RandomConditioning, allocator=begun(), schedule=aria.ConstantSwitch(0.5), num_train_timesteps=9),
        method(numpy_switch, "draw", timesteps=steps, paired=steps // 10),
        method(numpy_switch, "observe", losses=losses),
        method(numpy_switch, "load_state_dict", state=numpy_switch().state_dict()),
        function(faces.AriaSampler, allocator=begun(), batch_size=8, num_samples=40, drop_last=False, **ranks),
        method(lambda: sampler()[0], "observe", indices=rows, losses=losses),
        method(lambda: sampler()[0], "weights", indices=rows),
        method(lambda: sampler()[0], "set_epoch", epoch=3),
        method(lambda: sampler()[0], "deal", num_replicas=1, rank=0),
        method(lambda: sampler()[0], "load_state_dict", state=one.state_dict()),
        function(faces.RandomConditioning, "torch.RandomConditioning", allocator=begun(),
                 schedule=aria.ConstantSwitch(0.5), num_train_timesteps=9, normalise=True, check_every=8),
        method(torch_switch, "draw", timesteps=steps, paired=steps // 10),
        method(torch_switch, "observe", losses=losses),
        method(torch_switch, "load_state_dict", state=torch_switch().state_dict()),
        function(faces.RegionMixture, sources={"a": range(3)}, allocator=None, batch_size=8, num_samples=40, **ranks),
        method(mixture, "observe", regions=regions % 2, losses=losses),
        method(mixture, "weights", regions=regions % 2),
        method(mixture, "load_state_dict", state=mixture().state_dict()),
        function(faces.lag_for, loader=torch.utils.data.DataLoader(range(8))),
        function(faces.dataloader, dataset=range(60), allocator=aria.Allocator(POOL), batch_size=8, num_samples=40),
    ]  # fmt: skip
    for call in found:
        if call.name.split(".")[-1] in ("draw", "skip", "observe", "weights", "deal"):
            call.also = RUNTIME
    return found
