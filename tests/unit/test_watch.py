"""Losses that would switch the allocation off: each mistake is named once, and right losses are left in peace."""

import re
import threading
import warnings

import numpy as np
import pytest
from scipy.stats import binom

import aria_sampling as aria
from aria_sampling import watch
from aria_sampling.watch import alike

NAMES = [f"source {k}" for k in range(10)]


def make(names=NAMES, **settings):
    pool = aria.Partition.from_labels(np.repeat(names, 40))
    return aria.Allocator(pool, seed=0, **settings)


def warnings_of(allocator, loss, rounds=200, n=20):
    """What is said in so many rounds, with losses by `loss(regions, round, rng)`; None: left out."""
    rng, said = np.random.default_rng(1), []
    for _ in range(rounds):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            draw = allocator.draw(n)
            losses = loss(draw.regions, draw.round, rng)
            kept = ~np.isneginf(losses)
            allocator.observe(draw.regions[kept], losses[kept])
            allocator.step()
        said += [warning for warning in caught if issubclass(warning.category, aria.AriaWarning)]
    assert all(warning.filename == __file__ for warning in said)
    return [str(warning.message) for warning in said]


def right(regions, round_, rng):
    return (1.0 + regions) * rng.lognormal(0, 0.7, len(regions))


def half(losses):
    """Losses as float16 has them: all below 3e-8 are 0."""
    return np.asarray(losses).astype(np.float16).astype(float)


def bfloat16(losses):
    return (np.asarray(losses, np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(float)


@pytest.mark.parametrize(
    "loss",
    [
        right,
        lambda regions, round_, rng: right(regions, round_, rng) * 0.97**round_,  # learnt fast
        lambda regions, round_, rng: np.where(rng.random(len(regions)) < 0.05, np.nan, right(regions, round_, rng)),
        lambda regions, round_, rng: rng.normal(0.5, 1.0, len(regions)),  # some below 0, no region's mean
        lambda regions, round_, rng: np.zeros(len(regions)),  # all is learnt
        lambda regions, round_, rng: np.where(regions == 4, 0.0, right(regions, round_, rng)),  # one region is
        lambda regions, round_, rng: half(np.where(regions == 4, 0.0, right(regions, round_, rng))),
        lambda regions, round_, rng: half(np.maximum(rng.normal(regions == 4, 0.2, len(regions)), 0)),  # a hinge loss
        lambda regions, round_, rng: half(rng.random(len(regions)) < 0.05 * regions),  # right or wrong
        lambda regions, round_, rng: np.where(regions == 4, 0.0, bfloat16(1e-6 * right(regions, round_, rng))),
        lambda regions, round_, rng: right(regions, round_, rng) * np.where(regions == 3, 0.93**round_, 1.0),
        lambda regions, round_, rng: right(regions, round_, rng) * np.where(regions < 5, 1.0, 200.0),
    ],
    ids=[
        "noisy",
        "falling",
        "some not finite",
        "signed",
        "zero",
        "a region of zeros",
        "a region of zeros in half precision",
        "a hinge loss in half precision",
        "right or wrong in half precision",
        "small bfloat16 beside zeros",
        "a region that is learnt to the end",
        "regions far apart",
    ],
)
def test_nothing_is_said_of_losses_that_are_right(loss):
    assert warnings_of(make(), loss) == []


MISTAKES = {
    "a mean for every row": (
        lambda regions, round_, rng: np.full(len(regions), right(regions, round_, rng).mean()),
        "reduction='none'",
    ),
    "below 0": (
        lambda regions, round_, rng: np.where(regions == 3, -1.0, right(regions, round_, rng)),
        "'source 3' is below 0",
    ),
    "never finite": (
        lambda regions, round_, rng: np.where(regions == 4, np.inf, right(regions, round_, rng)),
        "'source 4' were not finite",
    ),
    "never reported": (
        lambda regions, round_, rng: np.where(regions == 7, -np.inf, right(regions, round_, rng)),
        "'source 7', though",
    ),
    "another unit": (
        lambda regions, round_, rng: rng.lognormal(0, 0.7, len(regions)) * (20.0 if round_ > 100 else 1.0),
        "another unit",
    ),
    "underflow in half precision": (
        lambda regions, round_, rng: half(np.where(regions == 4, 1e-9, 1e-4) * right(regions, round_, rng)),
        "most losses of region 'source 4' are exactly 0, and losses have half precision (fp16)",
    ),
    "another unit in some regions": (
        lambda regions, round_, rng: right(regions, round_, rng) * np.where(regions < 2, 2e4, 1.0),
        "losses of 2 regions, 'source 0', 'source 1' are more than 1,000 times those of 8 regions, 'source 2'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_once(mistake):
    loss, words = MISTAKES[mistake]
    names = [f"source {k:03}" for k in range(300)] if mistake == "another unit" else NAMES
    allocator = make(names)
    said = warnings_of(allocator, loss)
    assert [words in text for text in said] == [True]
    assert len(said[0]) < 900
    resumed = make(names)
    resumed.load_state_dict(allocator.state_dict())
    assert warnings_of(resumed, loss) == []  # the state remembers


def test_a_baseline_is_watched_too():
    loss, words = MISTAKES["never finite"]
    assert words in warnings_of(make(policy=aria.PoolPolicy()), loss)[0]


def test_looking_changes_no_draw():
    streams = []
    for names in (NAMES, [f"{name}!" for name in NAMES]):
        allocator = aria.Allocator(aria.Partition.from_labels(np.repeat(np.arange(10), 40), names=names), seed=0)
        warnings_of(allocator, MISTAKES["below 0"][0], rounds=20)
        streams.append(allocator.draw(30).items.tolist())
    assert streams[0] == streams[1]


@pytest.mark.parametrize(("wide", "scale"), [(0, 1.0), (4, 1.0), (4, 8.0)])
def test_underflow_of_a_part_of_a_region_is_seen_whatever_the_others_are(wide, scale):
    """Also if a power of two was multiplied in afterwards; and if none of the others is above what is left of it."""

    def loss(regions, round_, rng):
        size = np.where(regions == 2, 1.5e-8, 1e-6 * (1 + regions**wide))
        return scale * half(size * rng.lognormal(0, 0.7, len(regions)))

    said = warnings_of(make(), loss)
    assert len(said) == 1
    assert "most losses of region 'source 2' are exactly 0" in said[0]


def test_what_of_underflow_cannot_be_seen():
    """Squares in half precision whose mean is taken in float32: no loss is of half precision any more."""

    def loss(regions, round_, rng):
        error = np.where(regions == 2, 1e-5, 1e-2)[:, None] * rng.normal(size=(len(regions), 7))
        return (half(error) ** 2).astype(np.float16).astype(np.float32).mean(axis=1).astype(float)

    assert warnings_of(make(), loss) == []


def test_what_a_message_on_units_says_ends_it():
    loss, words = MISTAKES["another unit in some regions"]
    (said,) = warnings_of(make(), loss, rounds=70)
    assert words in said
    line = re.search(r"losses = losses / .*?(?=\. If)", said)[0]

    def mended(regions, round_, rng):
        draw = aria.Draw(regions, regions, regions, regions, 0)
        names = {"losses": loss(regions, round_, rng), "usual": np.where(np.arange(10) < 2, 2e4, 1.0), "draw": draw}
        exec(line, names)
        return names["losses"]

    assert warnings_of(make(), mended, rounds=70) == []


@pytest.mark.parametrize("resumed", [False, True])
def test_units_are_looked_at_early_and_once(resumed):
    """Later a region that was learnt to the end would look like one of another unit."""

    def loss(regions, round_, rng):
        return right(regions, round_, rng) * np.where((regions == 3) & (round_ > 200), 1e-6, 1.0)

    allocator = make()
    assert warnings_of(allocator, right, rounds=150) == []
    if resumed:
        state, allocator = allocator.state_dict(), make()
        allocator.load_state_dict(state)
    assert warnings_of(allocator, loss, rounds=800) == []
    heir = make()
    heir.adopt(allocator.state_dict(), partition=allocator.partition)
    assert warnings_of(heir, lambda regions, round_, rng: loss(regions, 300, rng)) == []


def test_units_play_no_part_in_a_baseline():
    assert warnings_of(make(policy=aria.UniformPolicy()), MISTAKES["another unit in some regions"][0]) == []


# ------------------------------------------------------------------------------ nothing to allocate


def estimates(rng, n_regions, noise, spread, overstated=1.0):
    """Estimates of regions whose true log means scatter by `spread`; standard errors are so many times too large."""
    noise = noise * rng.uniform(0.5, 1.5, n_regions)
    mean = np.exp(spread * rng.standard_normal(n_regions) + noise * rng.standard_normal(n_regions))
    return aria.Estimate(mean, overstated * noise * mean, np.ones(n_regions), np.ones(n_regions))


@pytest.mark.parametrize("n_regions", [2, 10, 100])
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.1])
@pytest.mark.parametrize("overstated", [1.0, 1.22])
def test_regions_that_differ_are_rarely_taken_for_alike(n_regions, noise, overstated):
    """At the limit, a spread of 10%, and at an exponent of 2 one of 5%. False alarms of this test: below 1e-9."""
    rng, runs, chance = np.random.default_rng(n_regions), 1500, 0.02
    for exponent, spread in ((1.0, 0.1), (2.0, 0.05)):
        wrong = sum(
            alike(estimates(rng, n_regions, noise / exponent, spread, overstated), exponent=exponent, chance=chance)
            for _ in range(runs)
        )
        assert wrong <= binom.isf(1e-11, runs, chance)


@pytest.mark.parametrize(("n_regions", "noise"), [(4, 0.005), (10, 0.02), (100, 0.05), (1000, 0.1)])
def test_regions_that_are_alike_are_taken_for_it(n_regions, noise):
    rng = np.random.default_rng(n_regions)
    assert sum(alike(estimates(rng, n_regions, noise, 0.0), exponent=1.0, chance=0.005) for _ in range(50)) >= 45


def test_one_region_that_stands_out_is_no_noise():
    rng = np.random.default_rng(0)
    for _ in range(50):
        found = estimates(rng, 1000, 0.03, 0.0)
        assert alike(found, exponent=1.0, chance=0.005)
        found.mean[7] *= 1.5
        assert not alike(found, exponent=1.0, chance=0.005)


@pytest.mark.parametrize(
    ("mean", "stderr"),
    [
        ([1.0], [0.1]),
        ([1.0, np.nan], [0.1, np.inf]),
        ([1.0, 1.0], [0.1, np.inf]),
        ([0.0, 0.0], [0, 0]),
        ([-1, 1], [0, 0]),
    ],
)
def test_what_is_not_known_is_not_alike(mean, stderr):
    found = aria.Estimate(np.array(mean), np.array(stderr), np.ones(len(mean)), np.ones(len(mean)))
    assert not alike(found, exponent=1.0, chance=0.5)


def the_same(regions, round_, rng):
    """A loss that says nothing of regions, falling as all are learnt."""
    return 0.9995**round_ * rng.lognormal(0, 0.3, len(regions))


WORDS = "so alike that the shares which they ask for differ by less than 10%"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "draws follow the target, as without any losses"),
        ({"target": "uniform", "estimator": aria.EmaBank(half_lives=(2000.0,))}, "or UniformPolicy() where the target"),
        ({"covered": range(0, 400, 7)}, "draws follow the target and the coverage, as without any losses"),
        ({"covered": range(0, 400, 7)}, "policy=Proportional(exponent=0) draws the same"),
    ],
)
def test_regions_that_are_alike_for_a_thousand_rounds_are_told_once(settings, words):
    def fresh():
        given = dict(settings)
        allocator = make()
        covered = given.pop("covered", None)
        coverage = None if covered is None else aria.Coverage(allocator.partition, items=list(covered))
        return make(coverage=coverage, **given)

    allocator = fresh()
    assert warnings_of(allocator, the_same, rounds=700, n=64) == []
    saved, allocator = allocator.state_dict(), fresh()
    allocator.load_state_dict(saved)
    assert warnings_of(allocator, the_same, rounds=323, n=64) == []
    said = warnings_of(allocator, the_same, rounds=1, n=64)  # the 1,024th
    assert [WORDS in text and words in text for text in said] == [True]
    assert len(said[0]) < 900
    assert warnings_of(allocator, the_same, rounds=1100, n=64) == []


def test_the_chances_of_all_looks_come_to_one_in_a_hundred(monkeypatch):
    """The chance that a look finds a run alike bounds the chance that it is told so then. The first tells nothing."""
    chances = []

    def remembered(estimate, *, exponent, chance):
        chances.append(chance)
        return True

    monkeypatch.setattr(watch, "alike", remembered)
    warnings_of(make(), the_same, rounds=2100, n=4)
    assert chances == [0.005, 0.005, 0.0025]
    looks = watch.Watch([], print, target=np.ones(2), policy=aria.Proportional(), exploration=0.2, covered=False)
    for rounds in range(4096, 2**16, 64):
        looks.alike(rounds, lambda: aria.Estimate(*4 * [np.ones(2)]))
    assert chances[3:] == [0.01 / 2**look for look in range(3, 7)]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [aria.EmaBank(), aria.Ema(0.005)], ids=repr)
def test_runs_whose_regions_differ_are_rarely_told_that_nothing_is_to_be_allocated(estimator):
    """In the loop, at the limit: ten regions whose log discrepancies scatter by 10%. False alarms: below 1e-9."""
    runs, told = 100, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        discrepancy = np.exp(0.1 * rng.standard_normal(10))
        allocator = aria.Allocator(make().partition, estimator=estimator, seed=seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(1024):
                draw = allocator.draw(64)
                allocator.observe(draw.regions, discrepancy[draw.regions] * rng.gamma(4, 1 / 4, 64))
                allocator.step()
        told += any(WORDS in str(warning.message) for warning in caught)
    assert told <= binom.isf(1e-9, runs, 0.01)


@pytest.mark.parametrize("when", ["always", "before", "after"])
def test_regions_that_differ_now_or_did_are_not_told_so(when):
    """One in ten differs by half: always, until a look has seen it, or from then on."""

    def loss(regions, round_, rng):
        differs = {"always": True, "before": round_ < 700, "after": round_ >= 600}[when]
        return the_same(regions, round_, rng) * np.where((regions == 3) & differs, 1.5, 1.0)

    assert warnings_of(make(estimator=aria.EmaBank(half_lives=(200.0,))), loss, rounds=1100, n=64) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": aria.PoolPolicy()},
        {"policy": aria.UniformPolicy()},
        {"policy": aria.Reducible()},
        {"policy": aria.GroupDRO()},
        {"policy": aria.Proportional(exponent=0)},
        {"exploration": 1.0},
    ],
    ids=repr,
)
def test_who_does_not_draw_by_the_discrepancy_is_not_told_that_it_is_alike(settings):
    assert warnings_of(make(**settings), the_same, rounds=1100, n=64) == []


def test_a_sharper_policy_makes_more_of_a_small_difference():
    def loss(regions, round_, rng):
        return the_same(regions, round_, rng) * np.where(regions % 2, 1.03, 1.0)

    assert WORDS in warnings_of(make(), loss, rounds=1100, n=64)[0]
    assert warnings_of(make(policy=aria.Proportional(exponent=8.0)), loss, rounds=1100, n=64) == []


def test_a_mean_for_every_row_is_not_told_a_second_time():
    loss, words = MISTAKES["a mean for every row"]
    said = warnings_of(make(), loss, rounds=1100, n=64)
    assert [words in text for text in said] == [True]


def test_an_estimator_that_fails_when_all_regions_are_looked_at_changes_nothing():
    failing = []

    class Sometimes(aria.EmaBank):
        def estimate(self, state):
            if failing and len(state.rows["read"]) == 10:
                raise RuntimeError("not now")
            return super().estimate(state)

    allocator = make(estimator=Sometimes())
    warnings_of(allocator, the_same, rounds=1023, n=64)
    draw, before = allocator.draw(64), allocator.state_dict()
    allocator.observe(draw.regions, the_same(draw.regions, 1023, np.random.default_rng(2)))
    failing.append(1)
    with pytest.raises(RuntimeError, match="not now"):
        allocator.step()
    assert allocator.state_dict() == before
    failing.clear()
    with pytest.warns(aria.AriaWarning, match=WORDS):
        allocator.step()


# ------------------------------------------------------------------------------------------ one thread


def in_a_thread(call):
    """What a call does in another thread: its result, or the error that it raised."""
    came = []

    def run():
        try:
            came.append(call())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return came[0]


def test_one_thread_owns_the_rounds():
    allocator = make(lag=1)
    draw = in_a_thread(lambda: allocator.draw(4))  # the first that draws is the owner, whoever made it
    before = allocator.digest()
    for call in (lambda: allocator.draw(4), lambda: allocator.observe(draw.regions, np.ones(4)), allocator.step):
        with pytest.raises(aria.UsageError, match="another thread"):
            call()
    assert (allocator.digest(), len(allocator.open_rounds)) == (before, 1)
    allocator.load_state_dict(allocator.state_dict())  # and begins anew
    assert len(allocator.draw(4).items) == 4
    assert isinstance(in_a_thread(lambda: allocator.draw(4)), aria.UsageError)
