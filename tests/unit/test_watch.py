"""Losses that would switch the allocation off: each mistake is named once, and right losses are left in peace."""

import threading
import warnings

import numpy as np
import pytest

import aria_sampling as aria

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


@pytest.mark.parametrize(
    "loss",
    [
        right,
        lambda regions, round_, rng: right(regions, round_, rng) * 0.97**round_,  # learnt fast
        lambda regions, round_, rng: np.where(rng.random(len(regions)) < 0.05, np.nan, right(regions, round_, rng)),
        lambda regions, round_, rng: rng.normal(0.5, 1.0, len(regions)),  # some below 0, no region's mean
        lambda regions, round_, rng: np.zeros(len(regions)),  # all is learnt
    ],
    ids=["noisy", "falling", "some not finite", "signed", "zero"],
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
