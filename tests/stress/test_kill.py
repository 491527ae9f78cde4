"""kill -9 anywhere in a training run: what follows is bit for bit the run that was left alone."""

import multiprocessing

import pytest

pytest.importorskip("torch")

from tests.stress.killing import campaign, everywhere
from tests.stress.training import MODES, PLANTS, Plan

needs_fork = "forkserver" not in multiprocessing.get_all_start_methods()
pytestmark = pytest.mark.skipif(needs_fork, reason="processes are forked here")
# In the loader, between observe(step=False) and step(), before the optimizer step, while a checkpoint is written.
FEW = {
    "loader": [("fetch", 57), ("parts", 9), ("write", 3)],
    "workers": [("fetch", 3), ("reported", 12), ("worker", 5)],
    "conditioning": [("parts", 11), ("written", 2)],
    "mixture": [("fetch", 99), ("replaced", 1)],
}


def in_full(outcome):
    """What to show of a campaign that went wrong."""
    return "\n".join([*outcome.problems[:3], *map(str, outcome.kills)])


def rest_is_slow(cases, quick):
    """The cases, of which all but one are left out of the default suite."""
    return [case if case == quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


@pytest.mark.parametrize("mode", rest_is_slow(FEW, "conditioning"))
def test_kills_at_named_points(mode):
    outcome = campaign(Plan(mode, rounds=24), points=FEW[mode])
    assert not outcome.problems, in_full(outcome)
    assert [kill["asked"] for kill in outcome.kills] == [point for point, _ in FEW[mode]]


@pytest.mark.slow
def test_kills_at_random_moments():
    outcome = campaign(Plan("loader", seed=1), random_kills=4, seed=1)
    assert not outcome.problems, in_full(outcome)
    assert len(outcome.kills) == 4


@pytest.mark.parametrize("plant", rest_is_slow(PLANTS, "late state"))
def test_the_campaign_notices(plant):
    """Each way to get resuming wrong is found, or the two tests above mean nothing."""
    outcome = campaign(Plan("loader", rounds=24, plant=plant), points=[("write", 3), ("reported", 4)])
    assert outcome.problems


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_kills_everywhere_and_at_forty_random_moments(mode):
    """200 random kills over the five modes, and every named point early and late."""
    if mode == "stateful":
        pytest.importorskip("torchdata")
    outcome = campaign(Plan(mode, seed=2), points=everywhere(mode), random_kills=40, seed=MODES.index(mode))
    assert not outcome.problems, in_full(outcome)
    assert sum(kill["random"] for kill in outcome.kills) == 40
