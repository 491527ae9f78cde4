"""`noise_levels` on diffusers' own schedulers: right levels, the right direction, and refusals by name."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import aria_sampling as aria
from aria_sampling.integrations.diffusers import noise_levels

diffusers = pytest.importorskip("diffusers")

from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler  # noqa: E402

T = 1000


def a_switch():
    allocator = aria.Allocator(aria.Partition.from_labels(np.arange(60) % 6), seed=2)
    return aria.RandomConditioning(allocator)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_of_ddpm_they_switch_as_the_timesteps(kind):
    steps = kind(np.random.default_rng(0).integers(0, T, 4000))
    levels = noise_levels(DDPMScheduler(), steps)
    assert type(levels) is type(steps)
    assert np.array_equal(np.asarray(levels), np.asarray(steps) / T)
    one, two = a_switch().draw(steps), a_switch().draw(noise=levels)
    assert np.asarray(one.mask).any()
    assert np.array_equal(one.mask, two.mask)
    assert np.array_equal(one.items, two.items)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_of_flow_matching_they_are_the_sigmas(shift):
    """As in the scripts for SD3 and Flux: indices, timesteps and sigmas; image and noise are mixed by sigma."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    indices = (torch.rand(4000, generator=torch.Generator().manual_seed(0)) * T).long()
    levels = noise_levels(scheduler, scheduler.timesteps[indices])
    assert torch.allclose(levels.float(), scheduler.sigmas[indices], atol=1e-6)
    noised = scheduler.scale_noise(torch.zeros(4, 1), scheduler.timesteps[indices[:4]], torch.ones(4, 1))
    assert torch.allclose(levels[:4].float(), noised[:, 0], atol=1e-6)


def test_the_noisy_rows_switch():
    """The mistake of the field: with indices the clean half switches. With levels the noisy half does."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    indices = torch.arange(T).repeat(4)
    sigmas = scheduler.sigmas[indices]
    switch = a_switch()
    s = switch.draw(noise=noise_levels(scheduler, scheduler.timesteps[indices]))
    switch.step()
    assert sigmas[s.mask].mean() > 0.7
    assert switch.metrics()["switched"] == pytest.approx(0.2, abs=0.05)
    wrong = a_switch().draw(indices)
    assert sigmas[wrong.mask].mean() < 0.3


def test_indices_of_flow_matching_are_refused():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    for indices in (torch.tensor([0, 400, 999]), np.array([0, 400, 999])):
        with pytest.raises(ValueError, match=r"got integers from 0 to 999: places in that list") as refused:
            noise_levels(scheduler, indices)
        names = {"scheduler": scheduler, "timesteps": indices}
        exec(refused.value.remedy, names)
        assert noise_levels(scheduler, names["timesteps"])[0] == 1.0


DISCRETE = ("DDPM", "DDIM", "DDIMInverse", "LCM", "DPMSolverMultistep", "UniPCMultistep", "TCD", "EulerDiscrete")
FLOW = ("FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM")
EDM = ("CMStochasticIterative", "EDMEuler", "EDMDPMSolverMultistep")
OTHERS = ("ScoreSdeVe", "SCM")


def made(name):
    return getattr(diffusers.schedulers, f"{name}Scheduler")()


@pytest.mark.filterwarnings("ignore")  # of NumPy about diffusers
@pytest.mark.parametrize("name", [*DISCRETE, *FLOW])
def test_schedulers_of_diffusers(name):
    """Each one's own list of timesteps, noisiest first, falls from nearly 1 to nearly 0."""
    scheduler = made(name)
    steps = scheduler.timesteps
    levels = noise_levels(scheduler, torch.as_tensor(steps))
    if "Inverse" in name:
        levels = levels.flip(0)
    assert levels[0] > 0.99
    assert levels[-1] < 0.01
    assert (levels.diff() <= 1e-6).all()


@pytest.mark.parametrize("name", OTHERS)
def test_schedulers_whose_timesteps_are_something_else(name):
    with pytest.raises(
        ValueError, match=rf"scheduler: expected discrete steps .*, got {name}Scheduler; pass noise levels"
    ):
        noise_levels(made(name), torch.tensor([0.5, 1.0]))


@pytest.mark.parametrize("name", EDM)
def test_the_remedy_for_edm_is_the_share_of_noise(name):
    """As in diffusers' scripts: sigmas of the rows, by which `add_noise` mixes data and noise."""
    scheduler = made(name)
    places = torch.arange(len(scheduler.timesteps))
    with pytest.raises(ValueError, match=rf"scheduler: {name}Scheduler adds noise .* \(EDM\)") as refused:
        noise_levels(scheduler, scheduler.timesteps)
    names = {"scheduler": scheduler, "sigmas": scheduler.sigmas[places]}
    exec(refused.value.remedy, names)
    noise = names["noise"]
    data, pure = torch.full((len(places), 1), scheduler.config.sigma_data), torch.zeros(len(places), 1)
    data = scheduler.add_noise(data, pure, scheduler.timesteps) ** 2
    pure = scheduler.add_noise(pure, torch.ones_like(pure), scheduler.timesteps) ** 2
    assert torch.allclose(noise.double(), (pure / (pure + data)).double()[:, 0], atol=1e-6)
    assert noise.min() >= 0
    assert noise.max() <= 1
    mask = a_switch().draw(noise=noise.repeat(50)).mask.double()
    noisier = scheduler.sigmas[places].repeat(50) > scheduler.config.sigma_data
    assert mask[noisier].mean() > 5 * mask[~noisier].mean()


@pytest.mark.parametrize(
    ("scheduler", "timesteps", "words"),
    [
        (
            DDPMScheduler(),
            torch.tensor([5, T]),
            r"expected values in \[0, 999\], as DDPMScheduler has them, got 5 to 1000",
        ),
        (DDPMScheduler(), torch.tensor([-1, 5]), "got -1 to 5"),
        (FlowMatchEulerDiscreteScheduler(), torch.tensor([1.0, 1001.0]), r"in \[0, 1000\]"),
        (FlowMatchEulerDiscreteScheduler(), np.array([np.nan, 1.0]), "got nan"),
        (DDPMScheduler(), torch.zeros(2, 2), "one-dimensional"),
        (DDPMScheduler(), torch.tensor([True]), "timesteps: expected real numbers"),
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), torch.tensor([1.0]), "scheduler: .* invert_sigmas=True"),
        (object(), torch.tensor([1.0]), "scheduler: expected a scheduler of diffusers"),
        (
            SimpleNamespace(config=SimpleNamespace(num_train_timesteps=T)),
            torch.tensor([1.0]),
            "scheduler: expected discrete",
        ),
    ],
)
def test_what_is_refused(scheduler, timesteps, words):
    with pytest.raises(ValueError, match=words):
        noise_levels(scheduler, timesteps)


def test_noise_levels_in_the_place_of_timesteps_warn():
    for scheduler in (DDPMScheduler(), FlowMatchEulerDiscreteScheduler()):
        with pytest.warns(aria.AriaWarning, match=r"all at most 1, and .* counts to .*draw\(noise=\.\.\.\)") as said:
            noise_levels(scheduler, torch.tensor([0.1, 0.7, 1.0]))
        assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noise_levels(DDPMScheduler(), torch.tensor([0, 1]))
        noise_levels(FlowMatchEulerDiscreteScheduler(), torch.tensor([0.5, 1000.0]))
        assert noise_levels(DDPMScheduler(), torch.tensor([], dtype=torch.int64)).tolist() == []
