"""Bad input: a ValueError (or its documented subclass) that names the argument, what came and what was expected.

And nothing has changed: the allocator goes on, bit for bit, as its twin that was never asked. Elsewhere: labels,
files and embeddings (`partition/`), damaged states (law 5), rounds left open (law 3), bad losses (law 6).
"""

import copy
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria
from tests.helpers import loss_of, play, same_draw, same_estimate, small_pool

NAN, INF = float("nan"), float("inf")


def seasoned(**settings):
    """Some rounds in, one round open with a part of its feedback, room for another draw."""
    allocator = aria.Allocator(small_pool(), **{"lag": 2, "seed": 3, "target": "uniform", **settings})
    play(allocator, 4)
    draw = allocator.draw(7, present=[1, 1])
    allocator.observe(draw.regions[:3], loss_of(draw)[:3])
    return allocator


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
    assert same_draw(allocator.draw(5, present=[0]), twin.draw(5, present=[0]))
    for _ in range(len(twin.open_rounds)):
        allocator.step()
        twin.step()
    assert allocator.state_dict() == twin.state_dict()
    assert same_estimate(allocator.estimate(), twin.estimate())
    assert all(same_draw(a, b) for a, b in zip(play(allocator, 3), play(twin, 3), strict=True))


NOT_A_COUNT = [0, -1, 1.5, 3.0, "4", None, True, np.float64(3), [3], NAN, np.bool_(True), 2 + 0j]

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
    (np.ones((2, 1)), "(2, 1)", "average over all but the first dimension: loss.flatten(1).mean(1)"),
    (np.ones((2, 3, 4, 4)), "(2, 3, 4, 4)", "loss.reshape(len(loss), -1).mean(1)"),
    (np.ones((1, 2)), "(1, 2)", "average over all but the first dimension"),
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


@pytest.mark.parametrize("n", NOT_A_COUNT, ids=repr)
def test_number_of_draws(n):
    allocator = seasoned()
    complains(lambda: allocator.draw(n), "n", "an integer in [1, 2147483647]")
    complains(lambda: allocator.draw(n, present=[1]), "n", "an integer in [1, 2147483647]")
    unharmed(allocator, seasoned())


@pytest.mark.parametrize("case", NOT_REGIONS, ids=repr)
def test_present(case):
    bad, *words = case
    allocator = seasoned()
    complains(lambda: allocator.draw(4, present=bad), "present", *words)
    complains(lambda: allocator.skip(present=bad), "present", *words)
    unharmed(allocator, seasoned())


@pytest.mark.parametrize("policy", [aria.PoolPolicy(), aria.UniformPolicy()])
def test_baselines_ignore_present_but_not_a_wrong_one(policy):
    """So that a comparison does not fail half-way when the policy is swapped."""
    allocator = seasoned(policy=policy)
    complains(lambda: allocator.draw(4, present=[99]), "present", "in [0, 6)")
    unharmed(allocator, seasoned(policy=policy))


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


def test_what_the_hint_says_works():
    """A loss of any shape, averaged as the message says, is accepted, in PyTorch as in NumPy."""
    torch = pytest.importorskip("torch")
    for shape in [(2, 1), (2, 3), (2, 3, 4, 4)]:
        loss = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
        allocator = seasoned()
        message = complains(lambda loss=loss, a=allocator: a.observe([0, 1], loss), "losses")
        in_torch, in_numpy = message.split("dimension: ")[1].split(", in NumPy ")
        rows = eval(in_numpy, {"loss": loss, "len": len})
        assert rows.shape == (2,)
        assert np.array_equal(eval(in_torch, {"loss": torch.tensor(loss)}).numpy(), rows)
        allocator.observe([0, 1], rows)


def test_empty_input_is_not_bad():
    allocator, twin = seasoned(), seasoned()
    allocator.observe([], [])
    assert len(allocator.draw(5, present=[]).items) == 5
    twin.draw(5)
    unharmed(allocator, twin)


def test_tensors_that_numpy_cannot_read_are_told_what_to_do():
    torch = pytest.importorskip("torch")
    allocator = seasoned()
    for loss in (torch.ones(2, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)):
        message = complains(lambda loss=loss: allocator.observe([0, 1], loss), "losses", "Tensor", "NumPy cannot read")
        assert message.endswith("; pass losses.detach().double().cpu()")
        assert eval(message.split("pass ")[1], {"losses": loss}).numpy().tolist() == [1.0, 1.0]
    complains(lambda: allocator.observe([0, 1], torch.tensor(1.0)), "losses", "Tensor", "reduction='none'")
    complains(lambda: allocator.observe([0, 1], torch.ones(2, 1)), "losses", "(2, 1)", "loss.flatten(1).mean(1)")
    complains(lambda: allocator.observe(torch.ones(2), [1.0, 2.0]), "regions", "integers", "float32")
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
    for bad in (_Unreadable(), [_Unreadable()], "text", torch.ones(1, requires_grad=True), torch.ones(1).to_sparse()):
        message = complains(lambda bad=bad: getattr(aria.bounds, function)(**rest, **{name: bad}), name)
        assert hasattr(bad, "detach") == message.endswith(f"; pass {name}.detach().double().cpu()")


def test_no_open_round_is_no_bad_input_and_changes_nothing():
    allocator, twin = (aria.Allocator(small_pool(), lag=2) for _ in "ab")
    for call in (allocator.step, lambda: allocator.observe([0], [1.0]), lambda: allocator.observe([99], [1.0])):
        with pytest.raises(RuntimeError, match="without an open round: call draw"):
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
    *[("floor", bad, "in (0, 1]") for bad in (0, 0.0, -0.1, 1.1, NAN, INF, "0.2", None, True, 1j, [0.2], np.ones(2))],
    *[("correction", bad, "in [0, 1]") for bad in (-0.1, 1.1, NAN, "1", None, False)],
    *[("present_weight", bad, "in [0, 1e+09]") for bad in (-1, 2e9, NAN, INF, "1", None, True)],
    *[("max_repeat", bad, "in [1, inf)") for bad in (0.5, 0, -1, NAN, INF, "2", True)],
    *[("max_gap", bad, "an integer >= 1") for bad in (0, -1, 1.0, NAN, "3", True)],
    *[("lag", bad, "an integer in [0, 1048576]") for bad in (-1, 1.0, "1", None, True)],
    *[("seed", bad, "an integer in [0, 18446744073709551615]") for bad in (-1, 2**64, 1.0, "0", None, True)],
    *[("target", bad, "in [0, 1]") for bad in (-0.1, 1.1, NAN, None, True, 1j)],
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


SETTABLE = ("floor", "correction", "present_weight", "max_gap", "seed", "lag")


@pytest.mark.parametrize("case", [case for case in BAD_SETTINGS if case[0] in SETTABLE], ids=repr)
def test_settings_set_later_are_checked_as_on_construction(case):
    name, bad, *words = case
    allocator = aria.Allocator(small_pool(), floor=0.3, correction=0.5, present_weight=2, max_gap=9, seed=7, lag=1)
    before = allocator.digest()
    complains(lambda: setattr(allocator, name, bad), name, *words)
    assert allocator.digest() == before


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
        *[(lambda bad=bad: aria.TimestepProfile(bad), "num_train_timesteps") for bad in (0, 1.5, None)],
        *[(lambda bad=bad: aria.TimestepProfile(10, n_bins=bad), "n_bins") for bad in (0, 11, 2.0)],
        *[(lambda bad=bad: aria.TimestepProfile(rate=bad), "rate") for bad in (0, 1.1, NAN)],
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


def test_profile():
    profile = aria.TimestepProfile(100, n_bins=5)
    state = profile.update(profile.init(), [1, 50, 99], [1.0, 2.0, 3.0])
    before = copy.deepcopy(state)
    for call in (lambda t, x, w: profile.update(state, t, x, w), lambda t, x, w: profile.ratio(state, t, x)):
        complains(lambda call=call: call([100], [1.0], None), "timesteps", "in [0, 100)")
        complains(lambda call=call: call([-1], [1.0], None), "timesteps", "in [0, 100)")
        complains(lambda call=call: call([0.5], [1.0], None), "timesteps", "integers")
        complains(lambda call=call: call([1, 2], [1.0], None), "losses", "2 numbers", "got 1")
        complains(lambda call=call: call([1], 1.0, None), "losses", "reduction='none'")
    for weights, words in (([1.0], "2 numbers"), ([1.0, -1.0], "-1.0"), ([1.0, NAN], "nan"), ([1.0, INF], "inf")):
        complains(lambda w=weights: profile.update(state, [1, 2], [1.0, 2.0], w), "weights", words)
    assert all(np.array_equal(state[name], before[name]) for name in before)


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
    other = aria.Allocator(small_pool(seed=1), lag=2, seed=3, target="uniform")
    with pytest.raises(aria.StateError, match=f"another pool: it has fingerprint='{other.partition.fingerprint}'"):
        allocator.load_state_dict(other.state_dict())
    unharmed(allocator, seasoned())


# ------------------------------------------------------------------------------- random conditioning


def switching(**settings):
    """Some batches in, one of two rows open."""
    allocator = aria.Allocator(small_pool(), lag=2, seed=3, target="uniform")
    switch = aria.RandomConditioning(allocator, **{"schedule": aria.ConstantSwitch(0.6), **settings})
    for index in range(3):
        switch.draw(np.arange(4) * 200, paired=[-1, 0, 5, 59])
        switch.observe(np.arange(4.0) + index)
    switch.draw([3, 4])
    return switch


def still_switching(switch, twin):
    assert switch.state_dict() == twin.state_dict()
    one, two = switch.draw([999, 0, 5], paired=[1, 2, 3]), twin.draw([999, 0, 5], paired=[1, 2, 3])
    for name in ("mask", "items", "regions", "weights"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    for each in (switch, twin):
        each.observe([1.0, 2.0])
        each.observe([1.0, 2.0, 4.0])
    assert switch.state_dict() == twin.state_dict()
    unharmed(switch.allocator, twin.allocator)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([1000], ("in [0, 1000)", "1000 to 1000")),
        ([-1, 5], ("in [0, 1000)", "-1 to 5")),
        ([0.5], ("integers", "float64")),
        (np.ones(2, np.float32), ("integers", "float32")),
        (500, ("one-dimensional", "int 500")),
        ([[1, 2]], ("one-dimensional", "(1, 2)")),
        (["a"], ("integers", "<U1")),
        (None, ("one-dimensional", "NoneType")),
    ],
)
def test_timesteps(bad, words):
    switch = switching()
    complains(lambda: switch.draw(bad), "timesteps", *words)
    still_switching(switch, switching())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([60, 0], ("in [-1, 60)", "0 to 60")),
        ([-2, 0], ("in [-1, 60)", "-2 to 0")),
        ([0], ("2 integers", "got 1")),
        ([0, 1, 2], ("2 integers", "got 3")),
        ([0.0, 1.0], ("integers", "float64")),
        ([None, 1], ("integers", "object")),
        ([NAN, 1], ("integers", "float64")),
        ([[0, 1]], ("one-dimensional", "(1, 2)")),
        (3, ("one-dimensional", "int 3")),
    ],
)
def test_paired(bad, words):
    switch = switching()
    complains(lambda: switch.draw([1, 2], paired=bad), "paired", *words)
    still_switching(switch, switching())


@pytest.mark.parametrize("step", [True, False])
@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_of_a_batch(case, step):
    """Two rows are open; a refused loss does not close their round either."""
    bad, *words = case
    switch = switching()
    complains(lambda: switch.observe(bad, step=step), "losses", *words)
    still_switching(switch, switching())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda noise: noise + 0.5, ("in [0, 1]", "to 1.49")),
        (lambda noise: noise - 0.5, ("in [0, 1]", "-0.5 to")),
        (lambda noise: noise * NAN, ("in [0, 1]", "nan")),
        (lambda noise: noise[1:], ("2 numbers", "got 1")),
        (lambda noise: 0.5, ("one-dimensional", "float 0.5")),
        (lambda noise: noise[:, None], ("one-dimensional", "(2, 1)")),
        (lambda noise: noise > 0.5, ("real numbers", "bool")),
        (lambda noise: None, ("one-dimensional", "NoneType")),
    ],
)
def test_a_schedule_of_ones_own_that_answers_wrongly(answer, words):
    class Own(aria.SwitchSchedule):
        wrong = False

        def __call__(self, noise):
            return answer(noise) if self.wrong else np.full_like(noise, 0.6)

        def __repr__(self):
            return "Own()"

    switch, twin = switching(schedule=Own()), switching(schedule=Own())
    switch.schedule.wrong = True
    complains(lambda: switch.draw([0, 999]), "schedule", *words)
    switch.schedule.wrong = False
    still_switching(switch, twin)


def test_settings_of_random_conditioning():
    allocator = seasoned()
    for name, bad, *words in (
        ("allocator", small_pool(), "an Allocator", "Partition("),
        ("allocator", aria.Allocator, "an Allocator"),
        ("schedule", 5.0, "a SwitchSchedule", "5.0"),
        ("schedule", aria.ExponentialSwitch, "a SwitchSchedule"),
        ("num_train_timesteps", 0, "an integer >= 1"),
        ("num_train_timesteps", 1e3, "an integer >= 1"),
        ("normalise", "no", "True or False", "'no'"),
        ("normalise", None, "True or False"),
    ):
        complains(lambda n=name, b=bad: aria.RandomConditioning(**{"allocator": allocator, n: b}), name, *words)
    unharmed(allocator, seasoned())


# ------------------------------------------------------------------------------------- with tensors


def sampling():
    sampler = aria.Allocator(small_pool(), lag=1, seed=3).sampler(batch_size=2, num_samples=20)
    rows = iter(sampler)
    batch = [next(rows), next(rows)]
    sampler.observe(batch, [1.0, 2.0])
    rows = iter(sampler)
    return sampler, [next(rows), next(rows)]


@pytest.mark.parametrize("case", NOT_LOSSES, ids=repr)
def test_losses_of_a_sampler(case):
    pytest.importorskip("torch")
    bad, *words = case
    (sampler, batch), (twin, _) = sampling(), sampling()
    complains(lambda: sampler.observe(batch, bad), "losses", *words)
    assert sampler.state_dict() == twin.state_dict()
    unharmed(sampler.allocator, twin.allocator)


def test_tensors_of_the_wrong_shape():
    torch = pytest.importorskip("torch")
    from aria_sampling.torch import RandomConditioning

    (sampler, batch), (twin, _) = sampling(), sampling()
    for loss, words in (
        (torch.tensor(0.5, requires_grad=True), "reduction='none'"),
        (torch.ones(2, 1, requires_grad=True), "loss.flatten(1).mean(1)"),
        (torch.ones(2, 3, 4, 4, dtype=torch.bfloat16), "loss.flatten(1).mean(1)"),
        (torch.ones(3), "got 3"),
        (torch.ones(2, dtype=torch.bool), "real numbers"),
    ):
        complains(lambda loss=loss: sampler.observe(torch.tensor(batch), loss), "losses", words)
    complains(lambda: sampler.observe(torch.tensor([0.0, 1.0]), torch.ones(2)), "indices", "integers", "float")
    complains(lambda: sampler.observe(torch.tensor([60, 0]), torch.ones(2)), "indices", "in [0, 60)")
    assert sampler.state_dict() == twin.state_dict()
    unharmed(sampler.allocator, twin.allocator)

    switch, other = (RandomConditioning(aria.Allocator(small_pool(), lag=2)) for _ in "ab")
    for each in (switch, other):
        each.draw(torch.tensor([999, 998]))
    complains(lambda: switch.draw(torch.tensor([0.5])), "timesteps", "integers")
    complains(lambda: switch.draw(torch.tensor([5]), paired=torch.tensor([60])), "paired", "in [-1, 60)")
    complains(lambda: switch.observe(torch.ones(2, 1)), "losses", "loss.flatten(1).mean(1)")
    complains(lambda: switch.observe(torch.tensor(1.0)), "losses", "reduction='none'")
    assert switch.state_dict() == other.state_dict()
    unharmed(switch.allocator, other.allocator)


class _Broken(aria.Policy):
    """A policy of a user's with a mistake in it."""

    def __init__(self, answer):
        self.answer = answer

    def init(self, n_regions):
        return {"seen": np.zeros(1)}

    def update(self, state, estimate):
        state["seen"] += 1
        return state

    def log_phi(self, state):
        return self.answer if state["seen"] else np.zeros(len(self.answer))


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_policy_that_answers_in_another_shape(length):
    with pytest.raises(ValueError, match=rf"policy: log_phi\(\) of _Broken: expected 3 numbers, got {length}"):
        aria.Allocator(aria.Partition.from_labels([0, 1, 2]), policy=_Broken(np.zeros(length)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_policy_that_answers_what_no_share_follows_from(bad):
    allocator = aria.Allocator(aria.Partition.from_labels([0, 1, 2]), policy=_Broken(np.array([0.0, bad, 0.0])))
    draw = allocator.draw(4)
    allocator.observe(draw.regions, np.ones(4))
    with pytest.raises(ValueError, match=r"policy: expected log_phi\(\) of _Broken to return numbers below inf"):
        allocator.step()


@dataclass(frozen=True)
class _Wrong(aria.Estimator):
    """Answers something else for one field of its estimate, from the start or once there is feedback."""

    field: str
    answer: Any
    cold: bool

    def init(self, n_regions):
        return aria.Ema().init(n_regions)

    def update(self, state, feedback):
        return aria.Ema().update(state, feedback)

    def estimate(self, state):
        right = aria.Ema().estimate(state)
        return replace(right, **{self.field: self.answer}) if self.cold or state["clock"] > 0 else right


@pytest.mark.parametrize("field", ["mean", "stderr", "count", "age"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (np.ones(4), "expected 3 numbers, got 4"),
        (np.ones((3, 1)), r"expected a one-dimensional array of numbers, got shape \(3, 1\)"),
        (None, "expected a one-dimensional array of numbers, got NoneType"),
        (["a", "b", "c"], "expected real numbers, got dtype"),
    ],
)
def test_an_estimator_that_answers_in_another_form(field, answer, words):
    pool = aria.Partition.from_labels([0, 1, 2])
    with pytest.raises(ValueError, match=rf"estimator: estimate\(\) of _Wrong, {field}: {words}"):
        aria.Allocator(pool, estimator=_Wrong(field, answer, True))
    allocator = aria.Allocator(pool, estimator=_Wrong(field, answer, False))
    allocator.observe(allocator.draw(4).regions, np.ones(4))
    before = allocator.digest()
    with pytest.raises(ValueError, match=rf"estimator: estimate\(\) of _Wrong, {field}: {words}"):
        allocator.step()
    assert allocator.digest() == before


@pytest.mark.parametrize(
    ("field", "bad"), [*((name, NAN) for name in ("mean", "stderr", "count", "age")), ("mean", INF)]
)
def test_an_estimator_that_answers_what_no_policy_can_use(field, bad):
    allocator = aria.Allocator(
        aria.Partition.from_labels([0, 1, 2]), estimator=_Wrong(field, np.array([1.0, bad, 1.0]), False)
    )
    allocator.observe(allocator.draw(4).regions, np.ones(4))
    before = allocator.digest()
    with pytest.raises(
        ValueError, match=rf"estimator: estimate\(\) of _Wrong, {field}: expected .* once there is feedback"
    ):
        allocator.step()
    assert allocator.digest() == before


def test_a_policy_that_answers_no_numbers():
    """Not at the start, where it is as it should be, but later."""
    for answer in (None, ["a", "b"], np.zeros((2, 1)), np.zeros(3)):
        policy = _Broken(np.zeros(2))
        allocator = aria.Allocator(aria.Partition.from_labels([0, 1]), policy=policy)
        policy.answer = answer
        allocator.observe(allocator.draw(4).regions, np.ones(4))
        before = allocator.digest()
        with pytest.raises(ValueError, match=r"policy: log_phi\(\) of _Broken: expected"):
            allocator.step()
        assert allocator.digest() == before
