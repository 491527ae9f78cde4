"""The emoji study's signals other than the loss: each is what its docstring says, and closes every round."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks.emoji import models  # noqa: E402
from benchmarks.emoji.distill import RunSettings, make_loop  # noqa: E402
from benchmarks.emoji.signals import SIGNALS, Probe, Rows  # noqa: E402
from benchmarks.emoji.world import DATA, Emoji, Scenario, scenario  # noqa: E402

BATCH, REGIONS = 6, 3


@pytest.fixture(scope="module")
def cell() -> Scenario:
    return scenario(Emoji.load(), "Flags,Symbols", "names")


@pytest.fixture(scope="module")
def teacher() -> Any:
    return models.load_teacher(DATA)


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    return models.STUDENTS["depth2"](teacher)


@pytest.fixture
def switch(cell: Scenario) -> aria.RandomConditioning:
    labels = np.arange(len(cell.pool)) % REGIONS
    allocator = aria.Allocator(aria.Partition.from_labels(labels), estimator=aria.Ema(rate=1.0, per="visit"), seed=3)
    return aria.RandomConditioning(allocator, schedule=aria.ConstantSwitch(1.0), normalise=False)


def told(model: Any, noisy: Any, timesteps: Any, condition: Any) -> Any:
    with torch.inference_mode():
        return models.predict(model, noisy, timesteps, condition)


def one_step(switch: Any, cell: Scenario, teacher: Any, student: Any) -> Rows:
    """Draws a batch of switched rows and has both models answer."""
    rng = torch.Generator().manual_seed(0)
    noisy, timesteps = torch.randn(BATCH, 3, 16, 16, generator=rng), torch.arange(100, 1000, 150)
    drawn = switch.draw(timesteps.numpy())
    condition = torch.from_numpy(cell.pool_embeddings[drawn.items])
    mine, target = (told(model, noisy, timesteps, condition) for model in (student, teacher))
    losses = (mine - target).square().mean((1, 2, 3)).numpy()
    return Rows(noisy, timesteps, mine, target, losses, np.arange(BATCH), drawn)


def believed(switch: Any, drawn: Any, values: np.ndarray) -> None:
    """The allocator believes the mean of `values` of every region that was drawn."""
    mean = switch.allocator.estimate().mean
    for region in np.unique(drawn.regions):
        assert mean[region] == pytest.approx(values[drawn.regions == region].mean())


def test_the_loss_is_the_loss(switch: Any, cell: Scenario, teacher: Any, student: Any) -> None:
    rows = one_step(switch, cell, teacher, student)
    SIGNALS["loss"](switch, student, teacher, cell).report(0, rows)
    believed(switch, rows.drawn, rows.losses)


def test_the_direction_is_what_the_prompt_adds(switch: Any, cell: Scenario, teacher: Any, student: Any) -> None:
    rows = one_step(switch, cell, teacher, student)
    SIGNALS["direction"](switch, student, teacher, cell).report(0, rows)
    null = torch.zeros(BATCH, cell.pool_embeddings.shape[1])
    mine, target = (told(model, rows.noisy, rows.timesteps, null) for model in (student, teacher))
    error = ((rows.told - mine) - (rows.target - target)).square().mean((1, 2, 3)).numpy()
    assert (np.abs(error / rows.losses - 1) > 1e-3).all()  # another number than the loss
    believed(switch, rows.drawn, error)


def test_the_truth_is_measured_on_every_region_and_only_now_and_then(
    switch: Any, cell: Scenario, teacher: Any, student: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = SIGNALS["truth"](switch, student, teacher, cell)
    rows = one_step(switch, cell, teacher, student)
    signal.report(0, rows)
    items = [cell.pool_embeddings[switch.allocator.partition.labels == k] for k in range(REGIONS)]
    for region, mine in enumerate(signal.condition.reshape(REGIONS, -1, signal.condition.shape[1])):
        assert all((items[region] == condition.numpy()).all(1).any() for condition in mine)
    gap = signal.squares(told(student, signal.noisy, signal.timesteps, signal.condition))
    found = switch.allocator.estimate().mean
    np.testing.assert_allclose(found, gap.reshape(REGIONS, -1).mean(1), rtol=1e-4)
    signal.student = teacher  # from now on nothing is left to learn, but nobody looks before step 50
    for step in (1, 49, 50):
        signal.report(step, one_step(switch, cell, teacher, student))
        assert (switch.allocator.estimate().mean == (0 if step == 50 else found)).all()
    assert switch.allocator.round == 4


@pytest.mark.parametrize("name", ["of_start", "of_effect", "of_reference"])
def test_relative_losses(switch: Any, cell: Scenario, teacher: Any, student: Any, name: str) -> None:
    reference = models.STUDENTS["depth3"](teacher)
    signal = SIGNALS[name](switch, student, teacher, cell, lambda: reference)
    null = torch.zeros_like(signal.condition)
    others = {"of_start": (student, signal.condition), "of_effect": (teacher, null)}
    model, condition = others.get(name, (reference, signal.condition))
    answers = told(model, signal.noisy, signal.timesteps, condition)
    gaps = signal.squares(answers).reshape(REGIONS, -1).mean(1)
    assert gaps.min() > 0
    rows = one_step(switch, cell, teacher, student)
    before = rows.losses.copy()
    signal.report(0, rows)
    assert (rows.losses == before).all()  # what the loop reports is left alone
    believed(switch, rows.drawn, before / gaps[rows.drawn.regions])


def test_the_finished_student_is_one_of_random_conditioning_and_another_seed(cell: Scenario, teacher: Any) -> None:
    settings = RunSettings("first_of_reference", "depth2", cell.unseen, 3, steps=2, batch=48, n_regions=REGIONS)
    loop, _ = make_loop(settings, cell, teacher)
    found = loop.signal.finished().state_dict()
    for method, seed, equal in (("rc", 1003, True), ("rc", 3, False), ("uniform", 1003, False)):
        other, _ = make_loop(replace(settings, method=method, seed=seed), cell, teacher)
        for step in range(2):
            other.step(step)
        state = other.student.state_dict()
        assert all(torch.equal(state[name], found[name]) for name in state) == equal


def test_probes_are_late_and_the_same_for_all_methods(switch: Any, cell: Scenario, teacher: Any, student: Any) -> None:
    first, second = (Probe(switch, student, teacher, cell) for _ in range(2))
    assert first.timesteps.min() >= models.TIMESTEPS // 2
    assert torch.equal(first.noisy, second.noisy)
    assert torch.equal(first.condition, second.condition)
    for region in range(REGIONS):
        assert len(set(first.timesteps[first.regions == region].tolist())) == 4  # regions are asked at equal noise


def test_rows_without_a_prompt_are_left_out(cell: Scenario, teacher: Any, student: Any) -> None:
    reported: list[np.ndarray] = []
    partition = aria.Partition.from_labels(np.arange(len(cell.pool)) % REGIONS)
    switch: Any = SimpleNamespace(observe=reported.append, allocator=SimpleNamespace(partition=partition))
    live = np.array([0, 2, 5])
    drawn = SimpleNamespace(mask=np.array([True, False, True]), regions=np.array([1, 0]))
    noisy = torch.randn(BATCH, 3, 16, 16)
    rows = Rows(noisy, torch.full((BATCH,), 900), noisy, noisy, np.arange(1.0, BATCH + 1), live, drawn)
    for name in ("loss", "of_start", "of_effect", "direction"):
        SIGNALS[name](switch, student, teacher, cell).report(0, rows)
    reference = SIGNALS["of_start"](switch, student, teacher, cell).reference  # type: ignore[attr-defined]
    assert reported[0].tolist() == [1, 3, 6]
    assert reported[1].tolist() == pytest.approx([1 / reference[1], 3, 6 / reference[0]])
    assert [len(losses) for losses in reported] == [3, 3, 3, 3]
