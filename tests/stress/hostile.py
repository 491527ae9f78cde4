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
STATES = [{"schema": 1}, {"schema": 4}, {"schema": 5}, {1: 2}, {"schema": None}, {"epoch": 1}, [{}], {"allocator": {}}]
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


POOL = aria.Partition.from_labels(small_pool().labels, centers=np.random.default_rng(0).normal(size=(6, 3)))


def begun(lag: int = 1, **settings: Any) -> aria.Allocator:
    """An allocator with three closed rounds and one open one."""
    allocator = aria.Allocator(POOL, target="uniform", lag=lag, estimator=aria.Ema(), **settings)
    came = {"present": [0, 1]} if allocator.coverage is not None and allocator.coverage.is_online else {}
    for _ in range(3):
        draw = allocator.draw(8, **came)
        allocator.observe(draw.regions, 1.0 + draw.regions)
        allocator.step()
    allocator.draw(8, **came)
    return allocator


def online() -> aria.Allocator:
    """The same with online coverage."""
    return begun(coverage=aria.Coverage.online(POOL, half_life=5.0))


def static() -> aria.Allocator:
    """The same with static coverage."""
    return begun(coverage=aria.Coverage(POOL, items=[0, 1, 1]))


def fresh() -> aria.Allocator:
    """An allocator that has not begun."""
    return aria.Allocator(POOL, estimator=aria.Ema(), seed=3)


def sampler() -> Any:
    """A sampler in its second batch, and the indices of that batch."""
    it = aria.Allocator(POOL, lag=1).sampler(batch_size=8, num_samples=40)
    rows = iter(it)
    first = [next(rows) for _ in range(8)]
    it.observe(first, np.ones(8))
    second = [next(rows) for _ in range(8)]
    return it, second


def switcher(form: Callable[[Any], Any], coverage: aria.Coverage | None = None) -> Any:
    """A random conditioning with an open batch of eight, on arrays or on tensors."""
    allocator = aria.Allocator(POOL, lag=1, coverage=coverage)
    it = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.5), draws_ahead=1)
    own = {} if coverage is None else {"paired": form(np.arange(8) * 5 - 1)}
    it.draw(form(np.arange(8) * 100), **own)
    it.observe(form(np.ones(8)))
    it.draw(form(np.arange(8) * 50), **own)
    return it


def mixture() -> Any:
    """A mixture in its second batch."""
    it = faces.RegionMixture({"a": range(9), "b": range(50)}, batch_size=8, num_samples=40)
    rows = iter(it)
    it.observe([next(rows)[0] for _ in range(8)], np.ones(8))
    for _ in range(8):
        next(rows)
    return it


LOADER = object()


def attach(it: Any, *, loader: Any, overlap: Any) -> Any:
    """Attach a loader, in place of `LOADER` one of the sampler's own."""
    own = torch.utils.data.DataLoader(range(60), 8, sampler=it)
    return it.attach(own if loader is LOADER else loader, overlap=overlap)


def history() -> Any:
    """A history with a record, of an allocator with open rounds."""
    it = aria.History(begun(), every=1, max_records=8)
    it.record()
    return it


def prepared(make: Callable[[], Any], act: Callable[..., Any]) -> Callable[[], tuple[Any, Callable[..., Any]]]:
    """What makes an object, and a function that acts on it."""

    def prepare():
        owner = make()
        return owner, functools.partial(act, owner)

    return prepare


def method(make: Callable[[], Any], name: str, called: str = "", /, **good: Any) -> Call:
    def prepare():
        owner = make()
        return owner, getattr(owner, name)

    return Call(called or f"{type(make()).__name__}.{name}", prepare, good)


def function(value: Callable[..., Any], name: str = "", /, **good: Any) -> Call:
    return Call(name or getattr(value, "__qualname__", str(value)), lambda: (None, value), good)


RUNTIME = (RuntimeError,)
POLICIES = [
    (aria.Proportional, {"exponent": 1.0}),
    (aria.GroupDRO, {"step_size": 0.1, "scale": 1.0, "reference": 0.0}),
    (aria.Reducible, {"reference": 0.0, "least": 0.1}),
]


def calls() -> list[Call]:
    """Every public constructor and method that takes arguments."""
    one, rows = sampler()
    losses, regions, items = np.ones(8), np.arange(8) % 6, np.array([0, 1, 1])
    options = {"coverage": aria.Coverage(POOL, items=items), "estimator": aria.Ema(), "policy": aria.Proportional()}
    options |= {"exploration": 0.2, "target": "pool", "max_repeat": 5.0, "seed": 0, "lag": 0}
    ranks = {"num_replicas": 1, "rank": 0, "check_every": 8}
    kernel = {"weight": 10.0, "power": 4.0, "length_scale": 1.0, "noise": 1.0}
    mixed = mixture().allocator.open_rounds[0].regions
    steps, mask = np.arange(8) * 50, np.arange(8) % 2 == 0
    found = [
        function(aria.Allocator, partition=POOL, **options),
        method(begun, "draw", n=8, data_rows=4),
        method(static, "draw", "Allocator.draw, static coverage", n=8, data_rows=4),
        method(online, "draw", "Allocator.draw, online coverage", n=8, data_rows=4, present=regions),
        method(begun, "observe", regions=regions, losses=losses),
        method(begun, "close_round", regions=regions, losses=losses),
        method(begun, "certificate", drift=0.1, sigma=1.0, alpha=0.05),
        method(begun, "load_state_dict", state=begun().state_dict()),
        method(online, "load_state_dict", "Allocator.load_state_dict, online coverage", state=online().state_dict()),
        method(fresh, "adopt", state=begun().state_dict(), partition=POOL, mapping=np.arange(6)),
        method(fresh, "sampler", batch_size=8, num_samples=40, num_replicas=2, rank=1, check_every=64),
        Call("Allocator.lag", prepared(fresh, lambda it, *, lag: setattr(it, "lag", lag)), {"lag": 3}),
        function(aria.Coverage, partition=POOL, items=items, embeddings=np.ones((2, 3)), **kernel),
        function(aria.Coverage, "Coverage, counts", partition=POOL, counts=np.arange(6), **kernel),
        function(aria.Coverage.online, partition=POOL, half_life=9.0, weight=1.0),
        function(aria.History, allocator=begun(), every=3, max_records=8),
        method(history, "metrics", name="ess"),
        method(history, "load_state_dict", state=history().state_dict()),
        function(aria.Partition.from_labels, labels=[0, 1, 1], names=["a", "b"], centers=np.eye(2)),
        function(aria.Partition.from_labels(np.arange(8) % 2, centers=np.eye(2)).assign, "Partition.assign",
                 embeddings=np.eye(2), device="cpu", progress=False),
        function(aria.Partition.from_centers, embeddings=np.eye(3), centers=np.eye(3), names=["a", "b", "c"],
                 device="cpu", progress=False),
        function(POOL.named, "Partition.named", texts=["a"] * POOL.n_items, embeddings=np.ones((POOL.n_items, 3))),
        function(POOL.describe, "Partition.describe", counts=np.arange(6), most=3),
        function(POOL.product, "Partition.product", other=POOL),
        function(POOL.pairs, "Partition.pairs", other=aria.Partition.from_labels([0, 1])),
        function(aria.quality, partition=POOL, embeddings=np.ones((POOL.n_items, 3)), losses=np.arange(POOL.n_items),
                 items=None, partitioner=aria.KMeansPartitioner(n_regions=2), refits=1, seed=0),
        function(aria.quality_curve, embeddings=np.eye(9), losses=np.arange(9), n_regions=[2], refits=0, seed=0),
        function(POOL.regions_of, "Partition.regions_of", items=rows),
        function(POOL.items_of, "Partition.items_of", region=1),
        function(aria.KMeansPartitioner, n_regions=2, seed=0, points_per_region=9, max_iter=2, spherical=True,
                 max_size=3, device="cpu", progress=False),
        function(aria.KMeansPartitioner(n_regions=2).fit, embeddings=np.eye(4)),
        function(aria.Ema, rate=0.1, per="visit"),
        function(aria.EmaBank, half_lives=(2.0, 9.0), discount=0.1, clip=9.0),
        function(aria.Feedback.from_rows, regions=regions, losses=losses, n_regions=6),
        function(aria.TimestepProfile, n_bins=5, rate=0.1),
        *(function(kind, **good) for kind, good in POLICIES),
        function(aria.ExponentialSwitch, rate=5.0),
        function(aria.SigmoidSwitch, steepness=3.0, midpoint=0.5),
        function(aria.ConstantSwitch, probability=0.5),
        function(aria.RandomConditioning, allocator=begun(), schedule=aria.ConstantSwitch(0.5), num_train_timesteps=9,
                 normalise=True, check_every=8),
        method(lambda: sampler()[0], "observe", indices=rows, losses=losses, credit=mask,
               regions=POOL.regions_of(rows)),
        method(lambda: sampler()[0], "weights", indices=rows),
        method(lambda: sampler()[0], "set_epoch", epoch=3),
        method(lambda: sampler()[0], "shard", num_replicas=1, rank=0),
        method(lambda: sampler()[0], "load_state_dict", state=one.state_dict()),
        Call("AriaSampler.attach", prepared(lambda: fresh().sampler(batch_size=8, num_samples=40), attach),
             {"loader": LOADER, "overlap": False}),
        function(faces.AriaSampler, allocator=begun(), batch_size=8, num_samples=40, drop_last=False,
                 data_rows_per_batch=3, **ranks),
        function(faces.RegionMixture, sources={"a": range(3)}, allocator=None, batch_size=8, num_samples=40, **ranks),
        method(mixture, "observe", regions=mixed, losses=losses),
        method(mixture, "weights", regions=mixed),
        method(mixture, "load_state_dict", state=mixture().state_dict()),
        function(faces.lag_for, loader=torch.utils.data.DataLoader(range(8))),
        function(faces.dataloader, dataset=range(60), allocator=aria.Allocator(POOL), batch_size=8, num_samples=40),
    ]  # fmt: skip
    for name, form in (("arrays", np.asarray), ("tensors", torch.as_tensor)):
        plain = functools.partial(switcher, form)
        paired = functools.partial(switcher, form, aria.Coverage.online(POOL))
        noise, own = form(np.linspace(0, 1, 8)), form(steps // 10)
        found += [
            method(plain, "draw", f"RandomConditioning.draw, {name}", timesteps=form(steps)),
            method(plain, "draw", f"RandomConditioning.draw, noise, {name}", noise=noise),
            method(paired, "draw", f"RandomConditioning.draw, paired, {name}", timesteps=form(steps), paired=own),
            method(plain, "observe", f"RandomConditioning.observe, {name}", losses=form(losses), credit=form(mask)),
            method(plain, "load_state_dict", f"RandomConditioning.load_state_dict, {name}", state=plain().state_dict()),
        ]
    for call in found:
        what = call.name.split(",")[0].split(".")[-1]
        if what in ("draw", "observe", "close_round", "weights", "shard", "attach", "adopt"):
            call.also = RUNTIME
    return found
