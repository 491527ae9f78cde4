"""Remedies of random conditioning and of the glue for hosts."""

from tests.unit.remedies.case import Case

_POOL = "allocator = aria.Allocator(aria.Partition.from_labels([0, 0, 0, 1, 1]), seed=0)\n"
_SWITCH = _POOL + "switch = aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(0.5))\n"
_DRAWN = _SWITCH + "s = switch.draw(torch.tensor([10, 500, 990, 999]))\n"
_OBSERVE = "switch.observe(losses)"
_FLOW = """
from types import SimpleNamespace
from aria_sampling.integrations.diffusers import noise_levels
sigmas = torch.arange(1000, 0, -1) / 1000
scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000), sigmas=sigmas, timesteps=sigmas * 1000)
"""

CASES = [
    Case(
        "timesteps that are noise levels",
        _SWITCH + "timesteps = np.array([0.1, 0.7, 1.0])",
        "switch.draw(timesteps)",
        "switch.observe(np.ones(len(s.mask)))",
    ),
    Case(
        "timesteps of a flow-matching scheduler",
        _SWITCH + "timesteps = torch.tensor([1.0, 700.5, 1000.0])",
        "switch.draw(timesteps)",
        "switch.observe(torch.ones(len(s.mask)))",
    ),
    Case("timesteps that count from 1", _SWITCH + "timesteps = torch.tensor([1, 1000])", "switch.draw(timesteps)"),
    Case(
        "timesteps of a longer scheduler",
        _SWITCH
        + "from types import SimpleNamespace\n"
        + "noise_scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=4000))\n"
        + "timesteps = [5, 3999]",
        "switch.draw(timesteps)",
    ),
    Case(
        "timesteps given as noise",
        _SWITCH + "noise = torch.tensor([5, 999])",
        "switch.draw(noise=noise)",
        "switch.observe(torch.ones(len(s.mask)))",
    ),
    Case(
        "paired items that nobody counts",
        _SWITCH + "timesteps = [5, 999]",
        "switch.draw(timesteps, paired=[0, -1])",
        "switch.observe(np.ones(len(s.mask)))",
    ),
    Case("an array for a batch of tensors", _DRAWN + "losses = np.ones(4)", _OBSERVE),
    Case("a sparse tensor", _DRAWN + "losses = torch.ones(4).to_sparse()", _OBSERVE),
    Case("two losses a row", _DRAWN + "losses = torch.ones(4, 2)", _OBSERVE),
    Case("losses of every pixel", _DRAWN + "losses = torch.ones(4, 3, 2, 2)", _OBSERVE),
    Case("losses in a column", _DRAWN + "losses = torch.ones(4, 1)", _OBSERVE),
    Case(
        "losses of padded tokens, random conditioning",
        _DRAWN + "counted = torch.arange(3) < torch.tensor([1, 3, 2, 1])[:, None]\nlosses = torch.ones(4, 3) * counted",
        _OBSERVE,
    ),
    Case("two losses a row in one vector", _DRAWN + "losses = torch.ones(8)", _OBSERVE),
    Case(
        "losses that were reported before",
        _DRAWN + "switch.observe(torch.ones(4), step=False)",
        "switch.observe(torch.ones(4))",
        "switch.draw(torch.tensor([10]))",
    ),
    Case(
        "a state of another schedule",
        _SWITCH + "state = switch.state_dict()\nswitch = aria.RandomConditioning(allocator)",
        "switch.load_state_dict(state)",
        "switch.draw([10])",
    ),
    Case(
        "places in the list of a flow-matching scheduler",
        _FLOW + "timesteps = torch.tensor([0, 400, 999])",
        "noise_levels(scheduler, timesteps)",
    ),
    Case(
        "timesteps to divide losses by",
        """
from types import SimpleNamespace
noise_scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000))
profile = aria.TimestepProfile()
usual, losses, noise = profile.init(), [0.1, 0.2], torch.tensor([5, 999])
""",
        "profile.normalise(usual, noise, losses)",
    ),
    Case(
        "a scheduler of EDM",
        _SWITCH
        + """
from types import SimpleNamespace
from aria_sampling.integrations.diffusers import noise_levels
sigmas = torch.tensor([80.0, 0.5, 0.002])
scheduler = SimpleNamespace(config=SimpleNamespace(num_train_timesteps=1000, sigma_data=0.5), sigmas=sigmas)
""",
        "noise_levels(scheduler, sigmas.log() / 4)",
        "assert noise[1] == 0.5; switch.draw(noise=noise)",
    ),
    Case(
        "a batch that was left out",
        _SWITCH + "switch = aria.RandomConditioning(aria.Allocator(allocator.partition, lag=1))\nswitch.draw([10])",
        "switch.draw([10])",
    ),
    Case(
        "losses of another batch",
        _SWITCH
        + "switch = aria.RandomConditioning(aria.Allocator(allocator.partition, lag=1), draws_ahead=1)\n"
        + "s = [switch.draw([10]), switch.draw([20])]",
        "switch.observe([1.0], of=s[1])",
    ),
]
