"""Estimators at the edges: bad arguments, one region, no visit, no rows, equal, zero, infinite losses."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling.estimators import borrowed
from tests.feeding import advanced, after

ESTIMATORS = [
    aria.Ema(), aria.Ema(1.0), aria.Ema(1e-9), aria.Ema(0.3, per="visit"), aria.Ema(1e-9, per="visit"),
    aria.EmaBank(), aria.EmaBank((3.0,), discount=1.0), aria.EmaBank((1e-300, 1e9)),
]  # fmt: skip
NUMBERS_THAT_ARE_NONE = [np.nan, np.inf, "0.1", None, True]

pytestmark = pytest.mark.filterwarnings("error")


# -- arguments ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 1e-10, -0.1, 1.1, *NUMBERS_THAT_ARE_NONE])
def test_rates(rate):
    with pytest.raises(ValueError, match=r"rate=.*expected a finite number in \[1e-09, 1\]"):
        aria.Ema(rate=rate)


@pytest.mark.parametrize("per", ["round", None, 1, "Sample"])
def test_per(per):
    with pytest.raises(ValueError, match=r"per=.*expected 'sample' or 'visit'"):
        aria.Ema(per=per)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("half_lives", value) for value in ((), [4.0], 4.0, None, (4.0, 0.0), (-1.0,), (1.1e9,))],
        *[("half_lives", (value,)) for value in NUMBERS_THAT_ARE_NONE],
        *[("discount", value) for value in (0, -0.1, 1.1, *NUMBERS_THAT_ARE_NONE)],
        *[("clip", value) for value in (0, -1.0, *NUMBERS_THAT_ARE_NONE)],
    ],
)
def test_bank(name, value):
    with pytest.raises(ValueError, match=name):
        aria.EmaBank(**{name: value})


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("n_regions", [0, -1, 1.5, "3", None, True])
def test_number_of_regions(estimator, n_regions):
    with pytest.raises(ValueError, match="n_regions"):
        estimator.init(n_regions)


@pytest.mark.parametrize(
    ("regions", "losses", "message"),
    [
        ([0, 1], [1.0], "losses: expected 2 numbers, got 1"),
        ([0], [1.0, 2.0], "losses: expected 1 numbers, one a row, got 2"),
        ([0, 3], [1.0, 2.0], "regions"),
        ([-1], [1.0], "regions"),
        ([0.0], [1.0], "regions: expected integers"),
        ([[0]], [1.0], "regions"),
        ([0], 1.0, "losses.*already averaged"),
        ([0], ["1"], "losses"),
    ],
)
def test_rows_that_do_not_fit(regions, losses, message):
    with pytest.raises(ValueError, match=message):
        aria.Feedback.from_rows(regions, losses, n_regions=3)


@pytest.mark.parametrize("one", [1, np.float64(1.0), np.float32(1.0), np.int8(1)])
def test_equal_settings_are_equal(one):
    """Whatever kind of number they come in: a saved state is compared by the representation."""
    assert repr(aria.Ema(one)) == repr(aria.Ema(1.0))
    bank = aria.EmaBank((one,), discount=one, clip=one)
    assert repr(bank) == repr(aria.EmaBank((1.0,), discount=1.0, clip=1.0))
    for estimator in (aria.Ema(one), bank):
        assert after(estimator, [([0, 1], [1.0, 2.0])] * 2, 2).mean.tolist() == [1.0, 2.0]


# -- losses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_nothing_observed(estimator):
    """With or without rounds: NaN, infinite, 0, infinite."""
    for rounds in ([], [([], [])] * 3):
        one = after(estimator, rounds, 2)
        assert one.cold.all()
        assert np.isnan(one.mean).all()
        assert np.isinf([one.stderr, one.age]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_single_region(estimator):
    """K = 1 is the same as that region among others."""
    rng = np.random.default_rng(0)
    rounds = [rng.lognormal(size=n) for n in (3, 1, 0, 4, 1)]
    alone = after(estimator, [(np.zeros(len(losses), int), losses) for losses in rounds], 1)
    among = after(estimator, [(np.full(len(losses), 2), losses) for losses in rounds], 5)
    for name in ("mean", "stderr", "count", "age"):
        assert getattr(alone, name)[0] == getattr(among, name)[2]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_a_region_never_visited(estimator):
    """Region 2 is known to be unknown; it can be lent the mean of the others."""
    one = after(estimator, [([0, 0, 1], [1.0, 1.0, 5.0])] * 4, 3)
    assert one.cold.tolist() == [False, False, True]
    assert np.isnan(one.mean).tolist() == [False, False, True]
    assert 1 < borrowed(one).mean[2] < 5
    assert one.stderr[2] == one.age[2] == np.inf
    assert np.isfinite([one.stderr[:2], one.age[:2]]).all()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("value", [0.0, 1e-150, 3.0, 1e140])
def test_all_losses_equal(estimator, value):
    """That value, for all regions, lent to the unvisited one; the standard error only falls."""
    errors = []
    for rounds in (1, 10, 100):
        one = borrowed(after(estimator, [([0, 0, 1], [value] * 3)] * rounds, 3))
        np.testing.assert_allclose(one.mean, value, rtol=1e-12)
        assert (one.stderr[:2] >= 0).all()
        errors.append(one.stderr[0])
    assert errors == [0.0] * 3 if value == 0 else errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e150])
def test_one_loss_infinite(estimator, bad):
    """It is left out: the same, bit for bit, as if it had not come."""
    good = [([0, 1], [1.0, 2.0])] * 3
    one = after(estimator, [*good, ([0, 0, 1], [3.0, bad, 2.5]), ([1], [bad])], 2)
    other = after(estimator, [*good, ([0, 1], [3.0, 2.5]), ([], [])], 2)
    for name in ("mean", "stderr", "count", "age"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert aria.Feedback.from_rows([0, 0, 1], [3.0, bad, 2.5], n_regions=2).dropped == 1


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_no_rows(estimator):
    """A round without feedback, for rows of no region, and the estimate of no region."""
    state = estimator.init(3)
    nothing = aria.Feedback.from_rows([], [], n_regions=3)
    empty = {name: array[:0] for name, array in state.rows.items()}
    rows, shared = estimator.update(empty, state.shared, nothing)
    assert {name: array.shape for name, array in rows.items()} == {name: array.shape for name, array in empty.items()}
    assert shared["clock"] == 1
    assert estimator.estimate(aria.State(rows, shared)).mean.shape == (0,)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_many_losses_at_once(estimator):
    """10,000 losses of a region in one round: their mean, and the count they are worth; nothing overflows."""
    losses = np.random.default_rng(0).lognormal(size=10_000)
    one = after(estimator, [([1] * 10_000, losses)] * 2, 2)
    assert one.mean[1] == pytest.approx(losses.mean(), rel=1e-9)
    assert 0.99 < one.count[1] <= 20_000 * (1 + 1e-6)
    assert np.isfinite([one.stderr[1], one.age[1]]).all()


def test_rows_of_a_state_are_read_whatever_their_layout():
    """Columns first, or every second region: the same estimate."""
    state = aria.State({"average": np.random.default_rng(0).uniform(1, 2, (4, 6))}, aria.Ema().init(1).shared)
    turned = aria.State({"average": np.asfortranarray(state.rows["average"])}, state.shared)
    one, other = aria.Ema().estimate(state), aria.Ema().estimate(turned)
    assert np.array_equal(one.mean, other.mean)
    assert other.mean.flags.c_contiguous


def test_feedback_is_summed_up_in_the_order_of_the_rows():
    feedback = aria.Feedback.from_rows([3, 0, 3, 3], [1.0, 5.0, 2.0, np.nan], n_regions=4)
    assert feedback.regions.tolist() == [0, 3]
    assert feedback.count.tolist() == [1.0, 2.0]
    assert feedback.mean.tolist() == [5.0, 1.5]
    assert feedback.m2.tolist() == [0.0, 0.5]
    assert feedback.dropped == 1
    state = advanced(aria.Ema(), aria.Ema().init(4), feedback)
    assert state.rows["average"][:, 4:].tolist() == [[1, 1], [0, 0], [0, 0], [1, 2]]


def test_borrowing_without_anything_to_borrow():
    nothing = aria.Ema().estimate(aria.Ema().init(2))
    assert np.isnan(borrowed(nothing).mean).all()
    known = after(aria.Ema(), [([0, 1], [1.0, 2.0])], 2)
    assert borrowed(known) is known
