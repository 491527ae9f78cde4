"""Law, exact resume: a run stopped anywhere continues bit-identically, and a state that does not fit is refused."""

import base64
import copy
import io
import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import StateError
from tests.helpers import loss_of, same_draw, same_estimate, small_pool

POLICIES = [
    aria.Proportional(),
    aria.PoolPolicy(),
    aria.UniformPolicy(),
    aria.Proportional(4.0),
    aria.GroupDRO(),
    aria.Reducible(),
]
ESTIMATORS = [aria.EmaBank(), aria.Ema(), aria.Ema(0.2, per="visit")]


COVERAGES = ["none", "counts", "kernel", "online", "fading"]
CENTERS = np.random.default_rng(3).normal(size=(6, 2))


def make(coverage="none", pool=None, **settings):
    """An allocator whose target's shares are not all alike, unless the policy has one of its own."""
    if pool is None:
        pool = aria.Partition.from_labels(small_pool().labels, centers=CENTERS)
    settings = {"lag": 2, "seed": 8, **settings}
    baseline = getattr(settings.get("policy"), "baseline", None)
    if baseline is None:
        settings = {
            "target": 0.5,
            "coverage": {
                "none": lambda: None,
                "counts": lambda: aria.Coverage(pool, items=[0, 3, 3, 20], power=0, weight=0.7),
                "kernel": lambda: aria.Coverage(pool, items=[0, 3, 3, 20]),
                "online": lambda: aria.Coverage.online(pool),
                "fading": lambda: aria.Coverage.online(pool, half_life=2.0),
            }[coverage](),
            **settings,
        }
    return aria.Allocator(pool, **settings)


def open_next(allocator):
    """The draw of the next round, a function of its number alone."""
    r = allocator.round + len(allocator.open_rounds)
    n, came = (1 + r % 9 if r % 5 else 0), [r % 6] * (r % 4)
    if allocator.coverage is not None and allocator.coverage.is_online:
        return allocator.draw(n, present=came)
    return allocator.draw(n, data_rows=len(came))


def play_from(allocator, until):
    """Keep lag + 1 rounds open, as a prefetching loader does; return all draws in the order they were made."""
    draws = []
    while allocator.round < until:
        while len(allocator.open_rounds) <= allocator.lag:
            draws.append(open_next(allocator))
        draw = allocator.open_rounds[0]
        allocator.observe(draw.regions, loss_of(draw))
        allocator.step()
    return draws


def through_json(state):
    def pack(value):
        if isinstance(value, bytes):
            return {"base64": base64.b64encode(value).decode()}
        if isinstance(value, dict):
            return {key: pack(entry) for key, entry in value.items()}
        return [pack(entry) for entry in value] if isinstance(value, list) else value

    def unpack(value):
        if isinstance(value, dict):
            packed = set(value) == {"base64"}
            return base64.b64decode(value["base64"]) if packed else {k: unpack(v) for k, v in value.items()}
        return [unpack(entry) for entry in value] if isinstance(value, list) else value

    return unpack(json.loads(json.dumps(pack(state))))


def through_torch(state):
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def through_pickle(state):
    return pickle.loads(pickle.dumps(state))


CARRIERS = {"as is": copy.deepcopy, "pickle": through_pickle, "torch": through_torch, "json": through_json}


def plain(value):
    """Whether a value is made of ints, floats, str, bytes, lists and dictionaries alone, of exactly those types."""
    if type(value) is dict:
        return all(type(key) is str and plain(entry) for key, entry in value.items())
    return all(plain(entry) for entry in value) if type(value) is list else type(value) in (int, float, str, bytes)


@given(
    st.integers(0, 30),
    st.integers(0, 3),
    st.sampled_from(POLICIES),
    st.sampled_from(ESTIMATORS),
    st.sampled_from(COVERAGES),
    st.sampled_from(list(CARRIERS)),
    st.integers(0, 2**64 - 1),
)
def test_resumes_bit_identically(stop, lag, policy, estimator, coverage, carrier, seed):
    settings = {"lag": lag, "policy": policy, "estimator": estimator, "coverage": coverage, "seed": seed}
    straight, stopped = make(**settings), make(**settings)
    play_from(straight, stop)
    play_from(stopped, stop)
    state = stopped.state_dict()
    assert plain(state)
    resumed = make(**settings)
    play_from(resumed, 3)  # whatever it did before is forgotten
    resumed.load_state_dict(CARRIERS[carrier](state))
    assert resumed.state_dict() == state
    assert same_estimate(resumed.estimate(), stopped.estimate())
    assert resumed.open_rounds == ()
    tail = play_from(straight, stop + 12)
    replayed = play_from(resumed, stop + 12)
    in_flight = len(replayed) - len(tail)  # those that the straight run had drawn before the stop
    assert in_flight == (lag if stop else 0)
    assert all(same_draw(a, b) for a, b in zip(tail, replayed[in_flight:], strict=True))
    assert same_estimate(straight.estimate(), resumed.estimate())
    assert straight.state_dict() == resumed.state_dict()
    assert straight.metrics() == resumed.metrics()


def test_draws_in_flight_are_replayed():
    """Three open rounds at the time of saving are drawn again, the same."""
    straight, resumed = make(lag=3), make(lag=3)
    play_from(straight, 7)
    flying = straight.open_rounds
    assert [draw.round for draw in flying] == [7, 8, 9]
    resumed.load_state_dict(straight.state_dict())
    assert all(same_draw(draw, open_next(resumed)) for draw in flying)


def test_state_is_as_of_the_last_step():
    """Neither drawing ahead nor feedback of a round that is still open shows in it."""
    allocator = make()
    play_from(allocator, 5)
    quiet = allocator.state_dict()
    allocator.observe(allocator.open_rounds[0].regions, allocator.open_rounds[0].regions * 1e3)
    allocator.draw(9, data_rows=2)
    assert allocator.state_dict() == quiet
    allocator.rewind()
    assert allocator.state_dict() == quiet


def test_a_rewind_gives_the_same_draws():
    allocator = make(lag=3)
    play_from(allocator, 6)
    flying = allocator.open_rounds
    allocator.rewind()
    assert all(same_draw(draw, open_next(allocator)) for draw in flying)


def test_a_saved_state_is_a_value():
    """Later rounds do not change it, changing it does not change the allocator, and loading does not consume it."""
    allocator = make()
    play_from(allocator, 4)
    state = allocator.state_dict()
    frozen = copy.deepcopy(state)
    play_from(allocator, 9)
    assert state == frozen
    one, two = make(), make()
    one.load_state_dict(state)
    play_from(one, 12)
    assert state == frozen
    two.load_state_dict(state)
    state["round"] = 99
    state["estimator_rows"].clear()
    assert two.state_dict() == frozen


def test_state_size_does_not_grow_with_the_pool():
    sizes = []
    for n_items in (60, 6000):
        allocator = aria.Allocator(small_pool(n_items=n_items))
        play_from(allocator, 10)
        sizes.append(len(pickle.dumps(allocator.state_dict())))
    assert abs(sizes[0] - sizes[1]) < 100


# ----------------------------------------------------------------------------------------- refusals


def refuses(target, state, *words):
    """`target` refuses `state` with a StateError that says these words, and stays as it was."""
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(StateError) as caught:
        target.load_state_dict(state)
    assert isinstance(caught.value, ValueError)
    for word in words:
        assert word in str(caught.value), (word, str(caught.value))
    assert target.state_dict() == before


def refusal(target, path, what, bad):
    """The message with which `target` refuses a damaged state."""
    try:
        target.load_state_dict(bad)
    except StateError as error:
        return str(error)
    return pytest.fail(f"accepted {path} {what}")


def saved(**settings):
    allocator = make(**settings)
    play_from(allocator, 5)
    return allocator


def test_refuses_another_pool():
    other = make(pool=small_pool(seed=1))
    state = saved().state_dict()
    refuses(other, state, "pool", "fingerprint", state["fingerprint"], other.partition.fingerprint)
    wider = make(pool=small_pool(n_regions=7))
    refuses(wider, state, "n_regions=6", "7")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("estimator", aria.Ema()),
        ("estimator", aria.EmaBank(discount=0.02)),
        ("policy", aria.Proportional(0.5)),
        ("policy", aria.GroupDRO()),
        ("exploration", 0.3),
        ("target", "pool"),
        ("target", [1, 2, 3, 4, 5, 6]),
        ("max_repeat", 20.0),
        ("coverage", "kernel"),
        ("coverage", "online"),
        ("seed", 9),
        ("lag", 1),
        ("lag", 3),
    ],
)
def test_refuses_another_configuration(field, value):
    allocator = saved()
    state = allocator.state_dict()
    other = make(**{field: value})
    refuses(other, state, "configuration", f"{field}: ", "adopt")
    if field not in ("target", "max_repeat"):
        assert {key for key in state["config"] if state["config"][key] != other.state_dict()["config"][key]} == {field}


def test_refuses_another_schema():
    allocator = saved()
    state = allocator.state_dict()
    refuses(allocator, {**state, "schema": state["schema"] + 1}, f"schema={state['schema'] + 1}", str(state["schema"]))


def leaves(value, path=()):
    """The path of every entry of a nested state, dictionaries and lists included."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from leaves(entry, (*path, key))


def replaced(state, path, change):
    """A deep copy of `state` with one entry changed, or dropped if `change` says so by returning `...`."""
    state = copy.deepcopy(state)
    inside = state
    for key in path[:-1]:
        inside = inside[key]
    new = change(inside[path[-1]])
    if new is ...:
        del inside[path[-1]]
    else:
        inside[path[-1]] = new
    return state


def damage(state):
    """Every state with one entry missing, of another type, or cut short."""
    for path in leaves(state):
        value = state
        for key in path:
            value = value[key]
        yield path, "missing", replaced(state, path, lambda _: ...)
        for wrong in (None, 1.5, "x", [], {}, b"", True):
            # text of another kind in the configuration is another configuration; any int is a size or counter
            if type(wrong) is not type(value):
                yield path, repr(wrong), replaced(state, path, lambda _, wrong=wrong: wrong)
        if isinstance(value, bytes):
            for cut in {0, 1, len(value) // 2, len(value) - 1} - {len(value), -1}:
                yield path, f"cut to {cut}", replaced(state, path, lambda v, cut=cut: v[:cut])
            yield path, "too long", replaced(state, path, lambda v: v + b"12345678")


def test_refuses_anything_damaged():
    allocator = saved(estimator=aria.Ema())
    state = allocator.state_dict()
    target = make(estimator=aria.Ema())
    before = target.state_dict()
    refused = [refusal(target, path, what, bad) for path, what, bad in damage(state)]
    assert len(refused) > 300
    assert min(map(len, refused)) > 20
    assert target.state_dict() == before
    for nothing in (None, 5, "state", [], {}, b"123"):
        refuses(target, nothing, "state")


def test_refuses_impossible_numbers():
    allocator = saved()
    state = allocator.state_dict()
    refuses(make(), {**state, "round": -1}, "round")
    refuses(make(), {**state, "round": 1}, "round", "1")
    for wrong in (np.nan, np.inf, -3.0):
        bad = np.array([wrong, 1.0, 1.0]).tobytes()
        refuses(make(), replaced(state, ("draws", "scalars", "data"), lambda _, bad=bad: bad), "draws.scalars")
    visits = np.full(6, -1, "<i8").tobytes()
    refuses(make(), replaced(state, ("draws", "visits", "data"), lambda _: visits), "draws.visits")


# -------------------------------------------------------------------- the faces that a trainer sees


def conditioning(lag=1, coverage="none", **settings):
    return aria.RandomConditioning(
        make(coverage, lag=lag), schedule=aria.ConstantSwitch(0.6), draws_ahead=lag, **settings
    )


def batch(r):
    """Timesteps, paired items and losses of batch r, a function of r alone."""
    rng = np.random.default_rng(r)
    return rng.integers(0, 1000, 10), rng.integers(-1, 60, 10), rng.lognormal(0, 1, 10)


def condition(switch, until):
    drawn = []
    while switch.allocator.round < until:
        while len(switch.allocator.open_rounds) <= switch.allocator.lag:
            r = switch.allocator.round + len(switch.allocator.open_rounds)
            online = switch.allocator.coverage is not None and switch.allocator.coverage.is_online
            s = switch.draw(batch(r)[0], paired=batch(r)[1] if online else None)
            drawn.append((r, s.mask.tolist(), s.items.tolist(), s.weights.tolist()))
        switch.observe(batch(switch.allocator.round)[2])
    return drawn


@given(
    st.integers(0, 12), st.integers(0, 2), st.booleans(), st.sampled_from(COVERAGES), st.sampled_from(list(CARRIERS))
)
def test_random_conditioning_resumes(stop, lag, normalise, coverage, carrier):
    straight, resumed = (conditioning(lag, coverage, normalise=normalise) for _ in "ab")
    condition(straight, stop)
    state = straight.state_dict()
    assert plain(state)
    condition(resumed, 3)
    resumed.load_state_dict(CARRIERS[carrier](state))
    assert resumed.state_dict() == state
    tail, replayed = condition(straight, stop + 8), condition(resumed, stop + 8)
    assert tail == replayed[len(replayed) - len(tail) :]
    assert straight.state_dict() == resumed.state_dict()


def test_random_conditioning_refuses():
    switch = conditioning()
    condition(switch, 4)
    state = switch.state_dict()
    refuses(conditioning(normalise=False), state, "configuration", "normalise")
    refuses(conditioning(num_train_timesteps=999), state, "configuration", "num_train_timesteps")
    other = aria.RandomConditioning(make(lag=1), schedule=aria.ConstantSwitch(0.5), draws_ahead=1)
    refuses(other, state, "configuration", "ConstantSwitch")
    refuses(conditioning(lag=2), state, "lag")
    refuses(switch, {**state, "schema": 0}, "schema")
    refuses(switch, state["allocator"], "schema")
    for path, what, bad in damage(state):
        if path[:1] != ("allocator",) or len(path) < 3:
            refusal(switch, path, what, bad)
    assert switch.state_dict() == state


def sampler(lag=0, **settings):
    pytest.importorskip("torch")
    return make(lag=lag).sampler(**{"batch_size": 4, "num_samples": 26, **settings})


def test_sampler_refuses():
    one = sampler()
    for index in range(3):
        rows = list(itertools.islice(one, 4))
        one.observe(rows, np.ones(len(rows)))
        one.set_epoch(index)
    state = one.state_dict()
    assert plain(state)
    refuses(sampler(batch_size=5), state, "batch_size=4", "5")
    refuses(sampler(num_samples=27), state, "num_samples=26", "27")
    refuses(sampler(lag=1), state, "lag")
    target = sampler()
    for path, what, bad in damage(state):
        if path[:1] != ("allocator",) or len(path) < 3:
            refusal(target, path, what, bad)
    assert target.state_dict() == sampler().state_dict()
    target.load_state_dict(state)
    assert target.state_dict() == state
    assert target.epoch == 2
