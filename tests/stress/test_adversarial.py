"""Losses from hell through every face: shares keep to their exploration, nothing overflows, the books balance.

`tests/laws/test_nothing_poisons_it.py` holds the allocator to this round by round; here it is the faces that a trainer
sees, over many rounds, with low-precision tensors, and with states saved and loaded on the way.
"""

from itertools import islice

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import aria_sampling as aria
from aria_sampling.torch import RegionMixture
from tests.helpers import small_pool

REGIONS, ROUNDS, BATCH, EXPLORATION = 6, 90, 12, 0.3


def one_region(round_, regions):
    """Region 2 at 1e30, for ever."""
    return torch.where(regions == 2, 1e30, 1.0)


def alternating(round_, regions):
    return torch.full(regions.shape, 1e6 * (round_ % 2))


def storm(round_, regions):
    """Thirty rounds of nothing but NaN and infinity, thirty of ordinary losses."""
    bad = torch.tensor([float("nan"), float("inf"), -float("inf")])[(regions + round_) % 3]
    return bad if round_ // 30 % 2 == 0 else 1.0 + regions


def one_survivor(round_, regions):
    """All but one row of every batch is NaN."""
    losses = torch.full(regions.shape, float("nan"))
    losses[:1] = 1.0 + regions[:1]
    return losses


def to_the_edge(round_, regions):
    """The largest and the smallest that the dtype holds, and both signs."""
    return torch.tensor([3e38, -3e38, 1e-38, 6e4, 0.0, -0.0])[(regions * 5 + round_) % 6]


ATTACKS = [one_region, alternating, storm, one_survivor, to_the_edge]
FACES = ["sampler", "conditioning", "mixture"]
WIDER = [torch.float16, torch.float32]
POLICIES = [aria.Proportional(), aria.Proportional(8.0), aria.GroupDRO(), aria.GroupDRO(9.0), aria.Reducible()]


class Face:
    """One way to draw and to report, the same to whoever uses it."""

    def __init__(self, kind, policy):
        self.kind = kind
        pool = small_pool() if kind != "mixture" else aria.Partition.from_labels(np.arange(REGIONS))
        coverage = aria.Coverage(pool, items=[0, 1, 1]) if kind == "conditioning" else None
        settings = {"coverage": coverage, "target": "uniform", "exploration": EXPLORATION, "seed": 3}
        self.allocator = aria.Allocator(pool, policy=policy, **settings)
        if kind == "sampler":
            self.it = self.allocator.sampler(batch_size=BATCH, num_samples=BATCH * 50)
        elif kind == "conditioning":
            self.it = aria.RandomConditioning(
                self.allocator, schedule=aria.ConstantSwitch(0.7), num_train_timesteps=100
            )
        else:
            sources = {str(region): range(1000) for region in range(REGIONS)}
            self.it = RegionMixture(sources, self.allocator, batch_size=BATCH)
        self.rows = iter(())

    def draw(self):
        """What to report a batch by, and the region of each of its rows."""
        if self.kind == "conditioning":
            steps = np.random.default_rng(self.allocator.round).integers(0, 100, BATCH)
            switch = self.it.draw(torch.tensor(steps))
            regions = torch.zeros(BATCH, dtype=torch.int64)
            regions[switch.mask] = switch.regions
            return switch.mask, regions
        if not (batch := list(islice(self.rows, BATCH))):
            self.rows = iter(self.it)
            batch = list(islice(self.rows, BATCH))
        if self.kind == "mixture":
            regions = torch.tensor([region for region, _ in batch])
            return regions, regions
        return torch.tensor(batch), torch.as_tensor(self.allocator.partition.regions_of(batch))

    def report(self, what, losses):
        """Credit the losses; return how many of them an allocation sees."""
        if self.kind == "conditioning":
            self.it.observe(losses)
            return losses[what]
        self.it.observe(what, losses)
        return losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, *(pytest.param(each, marks=pytest.mark.slow) for each in WIDER)])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", FACES)
def test_no_share_falls_below_its_exploration(kind, attack, dtype):
    """With any overflow, division by zero or invalid operation inside NumPy an error."""
    policy = POLICIES[(FACES.index(kind) + ATTACKS.index(attack)) % len(POLICIES)]
    face, dropped, drawn = Face(kind, policy), 0, np.zeros(REGIONS)
    least = EXPLORATION * face.allocator.target
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        for round_ in range(ROUNDS):
            what, regions = face.draw()
            seen = face.report(what, attack(round_, regions).to(dtype).requires_grad_())
            dropped += int((~seen.isfinite()).sum())
            p = face.allocator.probabilities
            assert np.isfinite(p).all()
            assert abs(p.sum() - 1) < 1e-12
            assert (p >= least * (1 - 1e-12)).all()
            mine = regions[what] if kind == "conditioning" else regions
            drawn += np.bincount(mine, minlength=REGIONS)
        metrics = face.allocator.metrics()
    if kind != "conditioning" or attack is not to_the_edge:  # there a loss over what is expected may overflow, too
        assert metrics["dropped_losses"] == dropped
    assert metrics["top_share"] <= 1 - (REGIONS - 1) * least[0] + 1e-12
    expected = least * drawn.sum()
    # a draw is within a row of its mean: by Hoeffding this fails by chance with probability exp(-50) a region
    assert (drawn >= expected - 5 * np.sqrt(ROUNDS)).all()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_an_attack_leaves_nothing_that_a_state_could_not_carry(policy, attack):
    """Stopped in the middle of it and resumed, it ends in the same state."""
    straight, stopped = (Face("sampler", policy) for _ in "ab")

    def play(face, rounds):
        for round_ in range(face.allocator.round, rounds):
            what, regions = face.draw()
            face.report(what, attack(round_, regions).to(torch.bfloat16))

    play(straight, 60)
    play(stopped, 37)
    resumed = Face("sampler", policy)
    resumed.it.load_state_dict(stopped.it.state_dict())
    play(resumed, 60)
    assert resumed.allocator.digest() == straight.allocator.digest()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_ordinary_losses_after_an_attack_are_learnt_from(policy):
    """Whatever came before: the shares move to where the loss is now, and away from where it was."""
    face = Face("sampler", policy)
    for round_ in range(60):
        what, regions = face.draw()
        face.report(what, storm(round_, regions))
    for _ in range(250):
        what, regions = face.draw()
        face.report(what, torch.where(regions == 1, 5.0, 1.0))
    estimate = face.allocator.estimate().mean
    np.testing.assert_allclose(estimate, np.where(np.arange(REGIONS) == 1, 5.0, 1.0), rtol=0.05)
