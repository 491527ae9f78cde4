"""Bad input: a ValueError (or its documented subclass) that names the argument, what came and what was expected.

And nothing has changed: the allocator goes on, bit for bit, as its twin that was never asked. Elsewhere: labels,
files and embeddings (`partition/`), coverage (`test_coverage.py`), damaged states (exact resume), rounds left open
(lag determinism), bad losses (nothing poisons it).
"""

import contextlib
import inspect
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria
from tests.helpers import loss_of, same_draw, same_estimate, small_pool

NAN, INF = float("nan"), float("inf")


POOL = small_pool()
ONLINE, STATIC = aria.Coverage.online(POOL, half_life=3.0), aria.Coverage(POOL, items=[0, 1, 1, 30])


def draw_from(allocator, n=5, came=(0,)):
    """Draw, telling of the rows that came in the way that its coverage wants."""
    if allocator.coverage is None:
        return allocator.draw(n)
    return allocator.draw(n, present=list(came)) if allocator.coverage.is_online else allocator.draw(n, data_rows=1)


def seasoned(**settings):
    """Some rounds in, one round open with a part of its feedback, room for another draw."""
    allocator = aria.Allocator(POOL, **{"lag": 2, "seed": 3, **settings})
    for _ in range(4):
        closed(allocator, draw_from(allocator, 8))
    draw = draw_from(allocator, 7, [1, 1])
    allocator.observe(draw.regions[:3], loss_of(draw)[:3])
    return allocator


def closed(allocator, draw):
    allocator.observe(draw.regions, loss_of(draw))
    allocator.step()
    return draw


def complains(call, name, *words):
    """`call` raises a ValueError whose message begins with the argument, and says these words."""
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        call()
    message = str(caught.value)
    assert message.startswith((f"{name}:", f"{name}=")), message
    for word in ("expected", *words):
        assert word in message, (word, message)
    return message


def unharmed(allocator, twin):
    """Equal now, equal in the next draw, and equal once the feedback of the open round has been taken in."""
    assert len(allocator.open_rounds) == len(twin.open_rounds)
    assert allocator.state_dict() == twin.state_dict()
    assert repr(allocator.metrics()) == repr(twin.metrics())  # NaN where nothing is known yet
    assert same_draw(draw_from(allocator), draw_from(twin))
    for _ in range(len(twin.open_rounds)):
        allocator.step()
        twin.step()
    assert allocator.state_dict() == twin.state_dict()
    assert same_estimate(allocator.estimate(), twin.estimate())
    for _ in range(3):
        assert same_draw(closed(allocator, draw_from(allocator)), closed(twin, draw_from(twin)))


NOT_A_COUNT = [-1, 1.5, 3.0, "4", None, True, np.float64(3), [3], NAN, np.bool_(True), 2 + 0j]

NOT_REGIONS = [
    ([6], "in [0, 6)", "6 to 6"),
    ([0, -1], "in [0, 6)", "-1 to 0"),
    ([2**63], "in [0, 6)", "9223372036854775808"),
    ([0.0, 1.0], "integers", "float64"),
    (np.ones(2, np.float32), "integers", "float32"),
    (["a", "b"], "integers", "<U1"),
    ([True, False], "integers", "bool"),
    ([None, 1], "integers", "object"),
    ([[0, 1]], "one-dimensional", "(1, 2)"),
    (3, "one-dimensional", "int 3"),
    ("01", "one-dimensional", "str '01'"),
    ({0, 1}, "one-dimensional", "set"),
    ([[0], [0, 1]], "NumPy cannot read", "list"),
]

# two rows: what else their losses must not be
NOT_LOSSES = [
    (0.5, "float 0.5", "reduction='none'"),
    (np.float32(0.5), "float32", "reduction='none'"),
    (np.array(0.5), "ndarray", "reduction='none'"),
    (3, "int 3", "reduction='none'"),
    (np.ones((2, 1)), "(2, 1)", "Try: losses = "),
    (np.ones((2, 3, 4, 4)), "(2, 3, 4, 4)", "Try: losses = ", "mean("),
    (np.ones((1, 2)), "(1, 2)"),
    ([1.0, 2.0, 3.0], "2 numbers", "got 3"),
    ([1.0], "2 numbers", "got 1"),
    ([], "2 numbers", "got 0"),
    (["1", "2"], "real numbers", "<U1"),
    ([True, False], "real numbers", "bool"),
    ([1j, 2.0], "real numbers", "complex128"),
    ([None, 1.0], "real numbers", "object"),
    (None, "one-dimensional", "NoneType"),
    ("loss", "one-dimensional", "str 'loss'"),
    ([[1.0], [1.0, 2.0]], "NumPy cannot read", "list"),
    (np.array(["2020"] * 2, "M8[D]"), "real numbers", "datetime64"),
]


# ----------------------------------------------------------------------------------- what a round takes


@pytest.mark.parametrize("n", [*NOT_A_COUNT, 2**31, 10**30], ids=repr)
def test_number_of_draws(n):
    allocator = seasoned(coverage=ONLINE)
    complains(lambda: allocator.draw(n), "n", "an integer in [0, 2147483647]")
    complains(lambda: allocator.draw(n, present=[1]), "n", "an integer in [0, 2147483647]")
    unharmed(allocator, seasoned(coverage=ONLINE))


@pytest.mark.parametrize("n", [bad for bad in (*NOT_A_COUNT, 2**31, 10**30) if bad is not None], ids=repr)
@pytest.mark.parametrize("settings", [{"coverage": STATIC}, {}, {"policy": aria.PoolPolicy()}], ids=str)
def test_number_of_data_rows(n, settings):
    """Also where nothing depends on it, so that a comparison does not fail half-way when the policy is swapped."""
    allocator = seasoned(**settings)
    complains(lambda: allocator.draw(4, data_rows=n), "data_rows", "an integer in [0, 2147483647]")
    unharmed(allocator, seasoned(**settings))


@pytest.mark.parametrize("case", NOT_REGIONS, ids=repr)
def test_present(case):
    bad, *words = case
    allocator = seasoned(coverage=ONLINE)
    complains(lambda: allocator.draw(4, present=bad), "present", *words)
    complains(lambda: allocator.draw(0, present=bad), "present", *words)
    unharmed(allocator, seasoned(coverage=ONLINE))


@pytest.mark.parametrize("coverage", [None, STATIC], ids=["none", "static"])
def test_present_is_for_online_coverage(coverage):
    """Right or wrong, empty or not: it would be ignored."""
    allocator = seasoned(coverage=coverage)
    for present in ([0], [], [99], "x"):
        message = complains(lambda p=present: allocator.draw(4, present=p), "present", "with online coverage only")
        assert "aria.Coverage.online(partition)" in message
        assert "aria.Coverage(partition, items=...)" in message
    unharmed(allocator, seasoned(coverage=coverage))


def test_online_coverage_wants_present():
    allocator = seasoned(coverage=ONLINE)
    for call in (lambda: allocator.draw(4), lambda: allocator.draw(0, data_rows=3)):
        complains(call, "present", "the regions of the rows that train anyway", "present=[]")
    unharmed(allocator, seasoned(coverage=ONLINE))


@pytest.mark.parametrize("case", NOT_REGIONS, ids=repr)
def test_regions_observed(case):
    bad, *words = case
    allocator = seasoned()
    complains(lambda: allocator.observe(bad, [1.0, 2.0]), "regions", *words)
    unharmed(allocator, seasoned())


@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_observed(case):
    bad, *words = case
    allocator = seasoned()
    complains(lambda: allocator.observe([0, 1], bad), "losses", *words)
    unharmed(allocator, seasoned())


def test_losses_of_any_shape_become_one_a_row_as_the_message_says():
    """In PyTorch, in NumPy, and in lists."""
    torch = pytest.importorskip("torch")
    for shape in [(2, 1), (2, 3), (2, 3, 4, 4)]:
        loss = np.arange(1, 1 + np.prod(shape), dtype=np.float64).reshape(shape)
        for losses in (loss, loss.tolist(), torch.tensor(loss), torch.tensor(loss, requires_grad=True)):
            allocator, names = seasoned(), {"losses": losses, "np": np}
            with pytest.raises(ValueError, match=r"^losses: expected 2 numbers, one a row, got shape") as caught:
                allocator.observe([0, 1], losses)
            exec(caught.value.remedy, names)
            rows = names["losses"]
            rows = rows.detach().numpy() if isinstance(rows, torch.Tensor) else rows
            assert np.array_equal(rows, loss.reshape(2, -1).mean(axis=1))
            allocator.observe([0, 1], names["losses"])


def test_empty_input_is_not_bad():
    allocator, twin = seasoned(coverage=ONLINE), seasoned(coverage=ONLINE)
    allocator.observe([], [])
    assert same_draw(allocator.draw(5, present=[]), twin.draw(5, present=np.empty(0, np.int64)))
    unharmed(allocator, twin)


def test_tensors_are_read_whatever_their_dtype_and_gradient():
    torch = pytest.importorskip("torch")
    allocator = seasoned()
    for loss in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        one, other = seasoned(), seasoned()
        one.observe(torch.tensor([0, 1]), loss)
        other.observe([0, 1], [1.0, 1.0])
        unharmed(one, other)
    complains(lambda: allocator.observe([0, 1], torch.tensor(1.0)), "losses", "Tensor", "reduction='none'")
    complains(lambda: allocator.observe([0, 1], torch.ones(2, 1)), "losses", "(2, 1)", "losses = losses.ravel()")
    complains(lambda: allocator.observe(torch.ones(2), [1.0, 2.0]), "regions", "integers", "float32")
    sparse = torch.ones(2).to_sparse()
    complains(lambda: allocator.observe([0, 1], sparse), "losses", "sparse Tensor of shape (2,)", "losses.to_dense()")
    unharmed(allocator, seasoned())


class _Unreadable:
    """What NumPy cannot read, for a reason of its own."""

    def __array__(self, *_, **__):
        raise OSError("no array")

    def __len__(self):
        return 2


def test_names_that_numpy_cannot_read():
    for bad in (_Unreadable(), [_Unreadable(), _Unreadable()], [["a"], ["b", "c"]]):
        complains(lambda bad=bad: aria.Partition.from_labels([0, 1], names=bad), "names", "a sequence of 2 names")


UNREADABLE = [
    ("sample_gain", {"rate": 0.1}, "count"),
    ("ema_error", {"gains": [0.1], "counts": [1], "sigma": 1}, "drift"),
    ("variance_limit", {"rate": 0.1, "samples": 3}, "sigma"),
    ("minimax_risk", {"sigma": 1}, "drift"),
    ("ess_fraction", {"q": [1.0]}, "p"),
    ("merged_moments", {"mean": [1.0], "m2": [0.0]}, "count"),
    ("merged_moments", {"count": [1.0], "m2": [0.0]}, "mean"),
    ("merged_moments", {"count": [1.0], "mean": [1.0]}, "m2"),
]


@pytest.mark.parametrize(("function", "rest", "name"), UNREADABLE)
def test_bounds_of_what_numpy_cannot_read(function, rest, name):
    torch = pytest.importorskip("torch")
    for bad in (_Unreadable(), [_Unreadable()], "text", torch.ones(1).to_sparse()):
        complains(lambda bad=bad: getattr(aria.bounds, function)(**rest, **{name: bad}), name)


def test_no_open_round_is_no_bad_input_and_changes_nothing():
    allocator, twin = (aria.Allocator(POOL, lag=2) for _ in "ab")
    for call in (allocator.step, lambda: allocator.observe([0], [1.0]), lambda: allocator.observe([99], [1.0])):
        with pytest.raises(RuntimeError, match=r"without an open round: each draw\(\)"):
            call()
    unharmed(allocator, twin)


# --------------------------------------------------------------------------------------- the settings

BAD_SETTINGS = [
    ("partition", [0, 1], "an instance of Partition", "[0, 1]"),
    ("partition", None, "Partition", "None"),
    ("partition", aria.Partition, "pass an instance, not the class"),
    ("estimator", aria.Ema, "an instance of Estimator", "pass an instance, not the class"),
    ("estimator", "ema", "Estimator", "'ema'"),
    ("estimator", aria.Proportional(), "Estimator", "Proportional(exponent=1.0)"),
    ("policy", aria.UniformPolicy, "an instance of Policy", "pass an instance, not the class"),
    ("policy", "uniform", "Policy", "'uniform'"),
    ("policy", aria.Ema(), "Policy", "Ema(rate=0.02"),
    ("coverage", [0, 1], "an instance of Coverage", "[0, 1]"),
    ("coverage", aria.Coverage, "an instance of Coverage", "pass an instance, not the class"),
    ("coverage", aria.Coverage(small_pool(seed=1), items=[0]), "of the allocator's partition", "items="),
    ("coverage", aria.Coverage.online(small_pool(seed=1)), "of the allocator's partition"),
    *[("exploration", bad, "in (0, 1]") for bad in (0, 0.0, -0.1, 1.1, NAN, INF, "0.2", True, 1j, [0.2], np.ones(2))],
    *[("max_repeat", bad, "in [1, inf)") for bad in (0.5, 0, -1, NAN, INF, "2", True)],
    *[("lag", bad, "an integer in [0, 1048576]") for bad in (-1, 1.0, "1", True, 2**20 + 1)],
    *[("seed", bad, "an integer in [0, 18446744073709551615]") for bad in (-1, 2**64, 1.0, "0", None, True)],
    *[("target", bad, "in [0, 1]") for bad in (-0.1, 1.1, NAN, True, 1j)],
    ("target", "size", "'pool', 'uniform', a number in [0, 1], or one share a region", "'size'"),
    ("target", [1, 2, 3], "6 numbers", "got 3"),
    ("target", np.ones((6, 1)), "one-dimensional", "(6, 1)"),
    ("target", [0] * 6, "not all 0", "0.0 to 0.0"),
    ("target", [1, 1, 1, 1, 1, -1], "none negative", "-1.0 to 1.0"),
    ("target", [1, 1, 1, 1, 1, NAN], "finite", "nan"),
    ("target", [1, 1, 1, 1, 1, INF], "finite", "inf"),
    ("target", ["a"] * 6, "real numbers", "<U1"),
    ("target", [[1], [1, 2]], "NumPy cannot read"),
]


@pytest.mark.parametrize("case", BAD_SETTINGS, ids=repr)
def test_settings_of_an_allocator(case):
    name, bad, *words = case
    pool = small_pool()
    fingerprint, labels = pool.fingerprint, pool.labels.copy()
    complains(lambda: aria.Allocator(**{"partition": pool, name: bad}), name, *words)
    assert pool.fingerprint == fingerprint
    assert np.array_equal(pool.labels, labels)


@pytest.mark.parametrize("bad", [-1, 1.0, "1", None, True, 2**20 + 1], ids=repr)
def test_a_lag_set_later_is_checked_as_on_construction(bad):
    allocator = aria.Allocator(POOL, seed=7)
    before = allocator.digest()
    complains(lambda: setattr(allocator, "lag", bad), "lag", "an integer in [0, 1048576]")
    assert allocator.digest() == before


def test_a_lag_cannot_be_set_once_a_round_was_drawn():
    allocator = seasoned()
    with pytest.raises(RuntimeError, match="lag=3: the allocation has begun with lag=2"):
        allocator.lag = 3
    allocator.lag = 2  # the same
    unharmed(allocator, seasoned())


def test_max_repeat_that_the_pool_cannot_serve():
    """The message names the least that works, and it does."""
    pool = aria.Partition.from_labels([0] * 90 + [1] * 10)
    for target, least in (([0, 1], 10.0), ([1, 0], 100 / 90)):
        message = complains(lambda t=target: aria.Allocator(pool, target=t, max_repeat=1.05), "max_repeat", "1.05")
        named = float(message.split("at least ")[1])
        assert named == pytest.approx(least, rel=0.01)
        aria.Allocator(pool, target=target, max_repeat=least * 1.0001)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *[(lambda bad=bad: aria.Ema(rate=bad), "rate") for bad in (0, -0.1, 1.1, NAN, "1", None, True)],
        *[(lambda bad=bad: aria.Ema(per=bad), "per") for bad in ("round", None, 1)],
        *[(lambda bad=bad: aria.EmaBank(half_lives=bad), "half_lives") for bad in ((), [4.0], 4.0, None, "4")],
        *[(lambda bad=bad: aria.EmaBank(half_lives=(4.0, bad)), "half_lives[1]") for bad in (0, -1, NAN, INF, "4")],
        *[(lambda bad=bad: aria.EmaBank(discount=bad), "discount") for bad in (0, 1.1, NAN, None)],
        *[(lambda bad=bad: aria.EmaBank(clip=bad), "clip") for bad in (0, -1, NAN, INF, None)],
        *[(lambda bad=bad: aria.Proportional(bad), "exponent") for bad in (-1, 1e101, NAN, "1", None, True)],
        *[(lambda bad=bad: aria.GroupDRO(step_size=bad), "step_size") for bad in (0, -1, NAN, INF, None)],
        *[(lambda bad=bad: aria.GroupDRO(scale=bad), "scale") for bad in (0, -1, NAN, "1")],
        *[(lambda bad=bad: aria.GroupDRO(reference=(0.0, bad)), "reference[1]") for bad in (-1, NAN, None)],
        *[(lambda bad=bad: aria.Reducible(reference=bad), "reference") for bad in (-1, NAN, INF, "1", [1.0])],
        *[(lambda bad=bad: aria.Reducible(least=bad), "least") for bad in (-0.1, 1.1, NAN, None)],
        *[
            (lambda k=kind: aria.Allocator(POOL, policy=k(reference=(1.0,) * 5)), "reference")
            for kind in (aria.GroupDRO, aria.Reducible)
        ],
        *[(lambda bad=bad: aria.Ema().init(bad), "n_regions") for bad in (0, -1, 1.5, "3", True)],
        *[(lambda bad=bad: aria.EmaBank().init(bad), "n_regions") for bad in (0, -1, 1.5, "3", True)],
        *[(lambda bad=bad: aria.ExponentialSwitch(bad), "rate") for bad in (-1, NAN, INF, "5", None, True)],
        *[(lambda bad=bad: aria.SigmoidSwitch(bad), "steepness") for bad in (-1, NAN, INF, "5", None)],
        *[(lambda bad=bad: aria.SigmoidSwitch(midpoint=bad), "midpoint") for bad in (-0.1, 1.1, NAN, None)],
        *[(lambda bad=bad: aria.ConstantSwitch(bad), "probability") for bad in (-0.1, 1.1, NAN, "1", None, True)],
    ],
)
def test_settings_of_parts(make, name):
    complains(make, name)


# ---------------------------------------------------------------------------------------- summing up


@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_of_feedback(case):
    bad, *words = case
    complains(lambda: aria.Feedback.from_rows([0, 1], bad, n_regions=2), "losses", *words)


@pytest.mark.parametrize("case", NOT_REGIONS, ids=repr)
def test_regions_of_feedback(case):
    bad, *words = case
    complains(lambda: aria.Feedback.from_rows(bad, [1.0, 2.0], n_regions=6), "regions", *words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, bad) for name in ("drift", "sigma") for bad in (-1.0, NAN, INF, [1.0], [[1.0] * 6])],
        *[("alpha", bad) for bad in (0, 1, -0.1, NAN, "0.05")],
    ],
)
def test_certificate(name, value):
    allocator = seasoned(estimator=aria.Ema())
    complains(lambda: allocator.certificate(**{"drift": 0.1, "sigma": 1.0, name: value}), name)
    unharmed(allocator, seasoned(estimator=aria.Ema()))


def test_certificate_of_another_estimator():
    allocator = seasoned()
    with pytest.raises(ValueError, match=r"certificate: needs the estimator Ema.*got EmaBank.*estimator="):
        allocator.certificate(drift=0.1, sigma=1.0)
    unharmed(allocator, seasoned())


def test_a_state_from_another_pool():
    allocator = seasoned()
    other = aria.Allocator(small_pool(seed=1), lag=2, seed=3)
    with pytest.raises(aria.StateError, match=f"another pool: it has fingerprint='{other.partition.fingerprint}'"):
        allocator.load_state_dict(other.state_dict())
    unharmed(allocator, seasoned())


NOT_MAPPINGS = [
    ([6] * 6, "in [-1, 6)", "6 to 6"),
    ([-2] * 6, "in [-1, 6)", "-2 to -2"),
    ([0] * 5, "6 integers", "got 5"),
    ([0.0] * 6, "integers", "float64"),
    ([None] * 6, "integers", "object"),
    (3, "one-dimensional", "int 3"),
]


@pytest.mark.parametrize("case", NOT_MAPPINGS, ids=repr)
def test_a_mapping_that_maps_nothing(case):
    bad, *words = case
    allocator, twin = (aria.Allocator(POOL, seed=5) for _ in "ab")
    state = seasoned().state_dict()
    complains(lambda: allocator.adopt(state, partition=POOL, mapping=bad), "mapping", *words)
    complains(lambda: allocator.adopt(state, partition=[0, 1]), "partition", "an instance of Partition")
    unharmed(allocator, twin)


# ------------------------------------------------------------------------- messages are short, whatever comes

LONG = "x" * 5000


class Loud:
    """Its text is long, and so is that of every error that it raises."""

    def __repr__(self):
        return LONG

    def __array__(self, *_, **__):
        raise ValueError(LONG)

    __len__ = __iter__ = __index__ = __float__ = __array__


def deep():
    """A list in a list in a list: its repr exceeds the depth of recursion."""
    found = []
    for _ in range(5000):
        found = [found]
    return found


HUGE = {
    "list": [0, 1] * 10_000,
    "text": LONG,
    "bytes": LONG.encode(),
    "deep": deep(),
    "loud": Loud(),
    "loud ones": [Loud()] * 3,
    "type": type(LONG, (), {}),
    "long name": type(LONG, (), {})(),
    "keys": {f"key {i}": LONG for i in range(300)},
    "set": {LONG},
    "number": 10**4000,
    "more digits than Python prints": -(10**5000),
    "texts": np.array([LONG] * 3),
    "axes": np.zeros((1,) * 60),
    "fields": np.zeros(3, [(f"field {i}", "f8") for i in range(300)]),
    "ragged": [[1], [2, 3]] * 1000,
    "path": "folder/" * 800,
}
NEEDED = {
    **{"partition": POOL, "labels": [0, 1], "items": [0], "sizes": [1, 2], "embeddings": np.zeros((4, 1)), "n": 2},
    **{"regions": [0, 1], "losses": [1.0, 2.0], "n_regions": 2, "indices": [0, 1], "timesteps": np.array([1, 2])},
    **{"drift": 0.1, "sigma": 1.0, "batch_size": 2, "num_samples": 4, "half_lives": (2.0,), "places": [0], "region": 0},
}


def public_calls():
    """Constructors, and the methods that take what a user has: a name, what makes the callable, its parameters."""
    makers = {
        "Allocator": lambda: aria.Allocator(POOL),
        "Partition": lambda: aria.Partition.from_labels([0, 1], centers=[[0.0], [1.0]]),
        "Coverage": lambda: STATIC,
        "KMeansPartitioner": lambda: aria.KMeansPartitioner(n_regions=2),
        "RandomConditioning": lambda: aria.RandomConditioning(aria.Allocator(POOL)),
        "History": lambda: aria.History(aria.Allocator(POOL)),
        "Feedback": lambda: aria.Feedback,
    }
    names = (
        "draw observe close_round load_state_dict adopt certificate from_labels from_sizes items_at items_of load fit "
        "from_centers named describe product pairs "
    )
    for kind in (name for name in aria.__all__ if isinstance(getattr(aria, name), type)):
        if not issubclass(getattr(aria, kind), BaseException):
            yield kind, lambda kind=kind: getattr(aria, kind)
    for kind, make in makers.items():
        for method in (names + "regions_of assign without online from_rows").split():
            if hasattr(getattr(aria, kind), method):
                yield f"{kind}.{method}", lambda make=make, method=method: getattr(make(), method)


@pytest.mark.parametrize("what", [name for name, _ in public_calls()])
def test_messages_stay_short_whatever_comes(what):
    """Each argument in turn is huge, deep, loud, or has a long name: an error of ours says so in 900 characters."""
    get = dict(public_calls())[what]
    try:
        parameters = inspect.signature(get()).parameters.values()
    except (TypeError, ValueError):
        return
    named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    said = []
    for bad in named:
        for value in HUGE.values():
            others = {
                each.name: aria.Allocator(POOL) if each.name == "allocator" else NEEDED.get(each.name, 1.0)
                for each in named
                if each.default is each.empty
            }
            with contextlib.suppress(Exception), _noted(said):  # an object's own errors are not ours
                get()(**others | {bad.name: value})
    assert not [text[:300] for text in said if len(text) > 900]


@contextlib.contextmanager
def _noted(said):
    """Note the text of an error of the library."""
    try:
        yield
    except aria.AriaError as error:
        said.append(str(error))


# -------------------------------------------------------------------------- losses, through every face
# What else a face refuses: test_conditioning.py, torch/test_reports.py, torch/test_sampler.py.


@pytest.mark.parametrize("step", [True, False])
@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_of_a_batch(case, step):
    """Two rows are open; a refused loss does not close their round either."""
    bad, *_ = case

    def switching():
        switch = aria.RandomConditioning(seasoned(lag=3), schedule=aria.ConstantSwitch(0.6))
        switch.allocator.step()
        switch.draw([3, 4])
        return switch

    switch, twin = switching(), switching()
    complains(lambda: switch.observe(bad, step=step), "losses")
    assert switch.state_dict() == twin.state_dict()
    for each in (switch, twin):
        each.observe([1.0, 2.0])
    assert switch.state_dict() == twin.state_dict()
    unharmed(switch.allocator, twin.allocator)


def sampling():
    sampler = aria.Allocator(POOL, lag=1, seed=3).sampler(batch_size=2, num_samples=20)
    rows = iter(sampler)
    batch = [next(rows), next(rows)]
    sampler.observe(batch, [1.0, 2.0])
    rows = iter(sampler)
    return sampler, [next(rows), next(rows)]


@pytest.mark.parametrize("step", [True, False])
@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_of_a_sampler(case, step):
    pytest.importorskip("torch")
    bad, *words = case
    (sampler, batch), (twin, _) = sampling(), sampling()
    complains(lambda: sampler.observe(batch, bad, step=step), "losses", *words)
    assert sampler.state_dict() == twin.state_dict()
    for each in (sampler, twin):
        each.observe(batch, [3.0, 4.0])
    assert sampler.state_dict() == twin.state_dict()
    unharmed(sampler.allocator, twin.allocator)


# ----------------------------------------------------------------------------- parts of one's own, with a mistake


@dataclass(frozen=True, eq=False)
class _Policy(aria.Policy):
    """Answers right, but for what it is told to answer: the state from `init` or `update`, or the scores."""

    kind: str = "all"
    first: Any = None
    state: Any = None
    scores: Any = None

    @property
    def local(self):
        return self.kind == "local"

    def init(self, n_regions):
        return aria.State({"seen": np.zeros(n_regions)}, {}) if self.first is None else self.first

    def update(self, state, estimate):
        return aria.State({"seen": state.rows["seen"] + 1}, {}) if self.state is None else self.state

    def log_score(self, *arguments):
        length = len(arguments[0].mean) if self.local else len(arguments[0].rows["seen"])
        return np.zeros(length) if self.scores is None else self.scores


@dataclass(frozen=True, eq=False)
class _Estimator(aria.Estimator):
    """Answers right, but for what it is told to answer."""

    first: Any = None
    learnt: Any = None
    field: str = ""
    answer: Any = None

    def init(self, n_regions):
        return aria.Ema().init(n_regions) if self.first is None else self.first

    def update(self, rows, shared, feedback):
        return aria.Ema().update(rows, shared, feedback) if self.learnt is None else self.learnt

    def estimate(self, state):
        right = aria.Ema().estimate(state)
        return replace(right, **{self.field: self.answer}) if self.field and state.shared["clock"] > 0 else right


THREE = aria.Partition.from_labels([0, 1, 2])


def refused_in_step(message, **parts):
    """A step with these parts fails with that message, twice, and leaves the round open as it was."""
    allocator = aria.Allocator(THREE, **parts)
    allocator.draw(4)
    allocator.observe([0, 1, 2, 2], np.ones(4))
    before = allocator.digest()
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            allocator.step()
        assert allocator.digest() == before
        assert len(allocator.open_rounds) == 1


NO_STATES = [
    None,
    {"seen": np.zeros(3)},
    aria.State({"seen": np.zeros(4)}, {}),
    aria.State({"seen": np.zeros((1, 3))}, {}),
    aria.State({"seen": np.zeros(3, np.float32)}, {}),
    aria.State({"seen": [0.0, 0.0, 0.0]}, {}),
    aria.State({}, {"seen": 1.0}),
]


@pytest.mark.parametrize("first", NO_STATES[1:], ids=repr)
def test_a_first_state_in_another_form(first):
    for who, part in (("estimator", _Estimator(first=first)), ("policy", _Policy(first=first))):
        with pytest.raises(ValueError, match=rf"{who}: expected init\(\) to return a State of float64 arrays.*, got "):
            aria.Allocator(THREE, **{who: part})


@pytest.mark.parametrize(
    ("learnt", "words"),
    [
        (0, r"a tuple \(rows, shared\), got 0"),
        ([{}, {}], r"a tuple \(rows, shared\), got \["),
        (({},), r"a tuple \(rows, shared\), got \("),
        (({}, {}), r"rows with 'average', float64\[3, 6\], got None"),
        (({"average": np.zeros((3, 5))}, {}), r"rows with 'average', float64\[3, 6\], got array"),
        (({"average": np.zeros((3, 6), np.float32)}, {}), r"rows with 'average', float64\[3, 6\], got array"),
        (({"average": np.zeros((3, 6)), "more": np.zeros(3)}, {}), r"rows \['average'\], got \['average', 'more'\]"),
        (({"average": np.zeros((3, 6))}, None), r"shared with 'clock', float64\[1\], got None"),
        (
            ({"average": np.zeros((3, 6))}, {"clock": np.ones(1), "cv2": np.ones(3)}),
            r"shared with 'cv2', float64\[2\], got array",
        ),
    ],
)
def test_an_estimator_that_learns_in_another_form(learnt, words):
    refused_in_step(rf"estimator: update\(\): expected {words}", estimator=_Estimator(learnt=learnt))


@pytest.mark.parametrize("field", ["mean", "stderr", "count", "age"])
@pytest.mark.parametrize("answer", [np.ones(4), np.ones((3, 1)), np.ones(3, int), None, [1.0] * 3, ["a", "b", "c"]])
def test_an_estimator_that_answers_in_another_form(field, answer):
    refused_in_step(
        rf"estimator: estimate\(\) of _Estimator, {field}: expected float64 \[3\], got ",
        estimator=_Estimator(field=field, answer=answer),
    )


@pytest.mark.parametrize(
    ("field", "bad"),
    [("mean", NAN), ("mean", INF), ("mean", -INF), ("stderr", NAN), ("stderr", -1.0), ("count", NAN), ("count", 0.0)],
)
@pytest.mark.parametrize("policy", [aria.Proportional(), aria.Reducible()])
def test_an_estimator_that_answers_what_no_policy_can_use(field, bad, policy):
    refused_in_step(
        r"estimator: estimate\(\) of _Estimator: expected finite means.* once there is feedback, got ",
        estimator=_Estimator(field=field, answer=np.array([1.0, bad, 1.0])),
        policy=policy,
    )


@pytest.mark.parametrize("state", NO_STATES[1:], ids=repr)
def test_a_policy_that_learns_in_another_form(state):
    refused_in_step(r"policy: update\(\): expected .*, got ", policy=_Policy(state=state))


@pytest.mark.parametrize("kind", ["all", "local"])
@pytest.mark.parametrize(
    ("scores", "words"),
    [
        *[(np.zeros(n), f"expected 3 numbers, got {n}") for n in (1, 2, 4)],
        (np.array([0.0, NAN, 0.0]), "expected numbers below inf, got "),
        (np.array([0.0, INF, 0.0]), "expected numbers below inf, got "),
        (0.0, "expected a one-dimensional array of numbers, got float 0.0"),
        (["a", "b", "c"], "expected real numbers, got dtype"),
        (np.zeros((3, 1)), r"expected a one-dimensional array of numbers, got shape \(3, 1\)"),
    ],
)
def test_a_policy_that_answers_what_no_share_follows_from(kind, scores, words):
    policy = _Policy(kind=kind, first=aria.State({}, {}) if kind == "local" else None, scores=scores)
    refused_in_step(rf"policy: log_score\(\) of _Policy: {words}", policy=policy)
