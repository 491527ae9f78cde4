"""The emoji study: what its data hold, what no method may see, and that methods differ in their policy alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import testing

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks.emoji import distill as distillation  # noqa: E402
from benchmarks.emoji import evaluate, models, study  # noqa: E402
from benchmarks.emoji.__main__ import main  # noqa: E402
from benchmarks.emoji.build_data import concept_of  # noqa: E402
from benchmarks.emoji.cells import BASE, CELLS, TUNING  # noqa: E402
from benchmarks.emoji.methods import METHODS, make_switch, regions_of  # noqa: E402
from benchmarks.emoji.peers import Growth, LastLosses, Pooled, Regressed, SecondMoment  # noqa: E402
from benchmarks.emoji.world import CONDITIONS, DATA, POOLS, SPLITS, Emoji, Scenario, scenario  # noqa: E402

UNSEEN = "Animals & Nature,Food & Drink"
TINY = evaluate.EvalSize(prompts=3, sampling_steps=2, shown=3)


@pytest.fixture(scope="module")
def world() -> Emoji:
    return Emoji.load()


@pytest.fixture(scope="module")
def cell(world: Emoji) -> Scenario:
    return scenario(world, UNSEEN)


@pytest.fixture(scope="module")
def teacher() -> Any:
    return models.load_teacher(DATA)


# -- data


def test_counts(world: Emoji) -> None:
    assert len(world.names) == len(set(world.names)) == len(world.images) == 3655
    assert len(np.unique(world.images.reshape(3655, -1), axis=0)) == 3641
    assert len(set(world.groups)) == 9
    assert len(set(world.subgroups)) == 99
    assert (world.groups == "People & Body").sum() == 2148
    assert (world.groups == "Activities").sum() == 85
    assert len(world.prompts) == len(world.embeddings) == len(set(world.prompts)) > 4 * len(world.names)
    assert world.images.shape[1:] == (16, 16, 3)
    assert world.images.dtype == np.uint8


def test_prompts_belong_to_their_emoji_and_begin_with_its_name(world: Emoji) -> None:
    assert all(world.prompts[p].startswith(world.names[e]) for p, e in enumerate(world.prompt_emoji))
    assert [world.prompts[p] for p in world.prompt_start[:-1]] == list(world.names)


def test_embeddings_have_unit_average_variance(world: Emoji) -> None:
    assert np.isfinite(world.embeddings).all()
    assert world.embeddings.var(0).mean() == pytest.approx(1, abs=0.01)


def test_every_fifth_concept_of_a_subgroup_is_held_out_in_all_its_tones(world: Emoji) -> None:
    for subgroup in dict.fromkeys(world.subgroups):
        members = np.flatnonzero(world.subgroups == subgroup)
        concepts = list(dict.fromkeys(world.concepts[members].tolist()))
        expected = set(concepts[2::5])
        assert [bool(world.held_out[i]) for i in members] == [str(world.concepts[i]) in expected for i in members]


@pytest.mark.parametrize(
    ("name", "concept"),
    [
        ("waving hand: dark skin tone", "waving hand"),
        ("man: medium-dark skin tone, red hair", "man: red hair"),
        ("handshake: light skin tone, dark skin tone", "handshake"),
        ("kiss: person, person, light skin tone, dark skin tone", "kiss"),
        ("kiss: man, man, light skin tone", "kiss: man, man"),
        ("flag: Japan", "flag: Japan"),
        ("rainbow", "rainbow"),
    ],
)
def test_concepts_are_names_without_skin_tones(name: str, concept: str) -> None:
    assert concept_of(name) == concept


def test_data_and_teacher_stay_under_ten_megabytes() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 10e6


# -- who may see what


@pytest.mark.parametrize("unseen", [UNSEEN, "Travel & Places,Objects", "Flags"])
def test_no_leak(world: Emoji, unseen: str) -> None:
    cell = scenario(world, unseen)
    groups = unseen.split(",")
    assert not np.isin(world.groups[cell.paired], groups).any()
    assert not world.held_out[cell.paired].any()
    assert not world.held_out[world.prompt_emoji[cell.pool]].any()
    assert np.isin(
        world.groups[world.prompt_emoji[cell.pool]], groups
    ).any()  # prompts of unseen groups are in the pool
    assert not {*world.concepts[cell.paired]} & {*world.concepts[world.held_out]}
    assert (cell.pool_item[cell.pool] == np.arange(len(cell.pool))).all()
    drawn = np.concatenate([distillation.draw_batch(cell, 0, step, 64).prompts for step in range(50)])
    assert np.isin(world.prompt_emoji[drawn], cell.paired).all()
    assert (cell.pool_item[drawn] >= 0).all()


@pytest.mark.parametrize("kind", POOLS)
def test_pools_are_made_of_prompts_that_may_be_there(world: Emoji, kind: str) -> None:
    everything, cell = scenario(world, UNSEEN), scenario(world, UNSEEN, kind)
    emoji = world.prompt_emoji[cell.pool]
    assert not world.held_out[emoji].any()
    found = np.flatnonzero(cell.pool_item >= 0)
    assert (cell.pool[cell.pool_item[found]] == found).all()
    assert (cell.pool_embeddings[cell.pool_item[found]] == world.embeddings[found]).all()
    unseen, before = cell.is_unseen[emoji].mean(), everything.is_unseen[world.prompt_emoji[everything.pool]].mean()
    if kind == "names":
        assert sorted(emoji.tolist()) == np.flatnonzero(~world.held_out).tolist()
    if kind == "long_tail":  # the largest subgroup keeps all, half of them less than a seventh
        shares = np.unique(world.subgroups[emoji], return_counts=True)[1].tolist()
        assert set(cell.pool) < set(everything.pool)
        assert max(shares) > 200 * np.median(shares)
    if kind == "diluted_far":
        halfway = scenario(world, UNSEEN, "diluted").pool_embeddings[len(everything.pool) :]
        far = cell.pool_embeddings[len(everything.pool) :]
        lengths = [np.linalg.norm(x, axis=1) for x in (halfway, far, everything.pool_embeddings)]
        np.testing.assert_allclose((halfway * far).sum(1), lengths[0] * lengths[1], rtol=1e-4)  # the same direction
        assert np.mean(lengths[0]) < 0.8 * np.mean(lengths[2])
        assert np.mean(lengths[1]) == pytest.approx(np.mean(lengths[2]), rel=0.05)
    if kind.startswith("diluted"):
        assert unseen == pytest.approx(before / 5, rel=0.01)
        assert (
            cell.pool_embeddings[len(everything.pool) :] != world.embeddings[cell.pool[len(everything.pool) :]]
        ).any(1).mean() > 0.99


def test_few_images_are_some_of_the_images(world: Emoji) -> None:
    few, all_of_them = scenario(world, UNSEEN, paired_share=0.1).paired, scenario(world, UNSEEN).paired
    assert set(few) < set(all_of_them)
    assert len(few) == round(0.1 * len(all_of_them))


def test_partitions_of_every_kind(world: Emoji, cell: Scenario) -> None:
    assert regions_of(cell, "subgroups", 5, 0).n_regions == 99
    sizes = regions_of(cell, "random", 50, 0).sizes
    assert sizes.max() - sizes.min() <= 1
    with pytest.raises(ValueError, match="partition='none'"):
        regions_of(cell, "none", 5, 0)


def test_the_oracle_draws_unseen_prompts(cell: Scenario) -> None:
    oracle = METHODS["oracle"]
    assert oracle.partition is not None
    switch = make_switch(oracle, regions_of(cell, oracle.partition, 0, 0), cell, seed=0, lam=5.0)
    items = switch.allocator.draw(1000).items
    assert cell.is_unseen[world_emoji(cell, items)].mean() == pytest.approx(0.97, abs=0.0011)


def world_emoji(cell: Scenario, items: np.ndarray) -> np.ndarray:
    return cell.world.prompt_emoji[cell.pool[items]]


def test_splits_are_disjoint_and_cover_everything(cell: Scenario) -> None:
    parts = [cell.emoji_of(split, condition) for split in SPLITS for condition in CONDITIONS]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(cell.world.names)))
    rare = {s: (cell.world.subgroups == s).sum() for s in cell.rare_subgroups}
    others = {s: (cell.world.subgroups == s).sum() for s in cell.world.subgroups[~cell.is_unseen] if s not in rare}
    assert max(rare.values()) <= min(others.values())
    assert len(rare) == (len(rare) + len(others)) // 4


def test_unknown_groups_are_refused(world: Emoji) -> None:
    with pytest.raises(ValueError, match="Plants"):
        scenario(world, "Plants")
    with pytest.raises(ValueError, match="unseen"):
        scenario(world, "")


# -- models


@pytest.mark.parametrize(("name", "blocks"), [("depth4", [0, 1, 3, 4]), ("depth3", [0, 2, 4]), ("depth2", [0, 4])])
def test_a_student_is_the_teacher_with_blocks_removed(teacher: Any, name: str, blocks: list[int]) -> None:
    student = models.STUDENTS[name](teacher)
    assert len(student.transformer_blocks) == len(blocks)
    theirs = teacher.state_dict()
    for key, value in student.state_dict().items():
        source = key
        if key.startswith("transformer_blocks."):
            _, index, rest = key.split(".", 2)
            source = f"transformer_blocks.{blocks[int(index)]}.{rest}"
        assert torch.equal(value, theirs[source]), key
    assert all(p.requires_grad for p in student.parameters())


def test_a_student_of_all_blocks_predicts_as_the_teacher(teacher: Any) -> None:
    rng = np.random.default_rng(0)
    noisy = torch.from_numpy(rng.standard_normal((2, 3, 16, 16), dtype=np.float32))
    condition = torch.from_numpy(rng.standard_normal((2, teacher.config["caption_channels"]), dtype=np.float32))
    arguments = noisy, torch.tensor([100, 900]), condition
    copy = models.student_from_teacher(teacher, teacher.config["num_layers"])
    with torch.inference_mode():
        assert torch.equal(models.predict(copy, *arguments), models.predict(teacher, *arguments))


def test_the_committed_teacher_keeps_its_promise(teacher: Any, world: Emoji) -> None:
    """Its error on a sample is near the one its log claims, and it listens to its prompt."""
    rows = np.arange(0, len(world.names), 25)
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((len(rows), 3, 16, 16), dtype=np.float32))
    timesteps = torch.from_numpy(rng.permutation(np.linspace(0, 999, len(rows)).astype(np.int64)))
    noisy = models.training_scheduler().add_noise(torch.from_numpy(world.pixels[rows]), noise, timesteps)
    condition = torch.from_numpy(world.embeddings[world.prompt_start[rows]])

    def error(rows_condition: Any) -> float:
        with torch.inference_mode():
            velocity = models.predict(teacher, noisy, timesteps, rows_condition)
        return float((models.to_noise(velocity, noisy, timesteps) - noise).square().mean())

    claimed = json.loads((DATA / "teacher.json").read_text())["training"]["eps_mse"]
    assert error(condition) == pytest.approx(claimed, rel=0.25)
    assert error(condition) < 0.97 * error(torch.zeros_like(condition))


# -- fair play: methods differ in the policy alone


def test_batches_and_switch_masks_are_the_same_for_all_methods(cell: Scenario) -> None:
    switches = {
        name: make_switch(method, regions_of(cell, method.partition or "kmeans", 24, seed=3), cell, seed=3, lam=5.0)
        for name, method in METHODS.items()
        if method.policy is not None
    }
    items: dict[str, list[int]] = {name: [] for name in switches}
    for step in range(30):
        batch = distillation.draw_batch(cell, 3, step, 48)
        again = distillation.draw_batch(cell, 3, step, 48)
        assert all(np.array_equal(a, b) for a, b in zip(vars(batch).values(), vars(again).values(), strict=True))
        live = np.flatnonzero(~batch.null)
        masks = []
        for name, switch in switches.items():
            own = cell.pool_item[batch.prompts[live]] if METHODS[name].paired else None
            drawn = switch.draw(batch.timesteps[live], paired=own)
            masks.append(drawn.mask)
            items[name] += drawn.items.tolist()
            switch.observe(1.0 + 0.01 * batch.timesteps[live])
        assert all(np.array_equal(masks[0], mask) for mask in masks)
    distinct = [tuple(items[name]) for name in ("rc", "uniform", "aria", "aria_nopaired", "sqrt", "oracle")]
    assert len(set(distinct)) == len(distinct)


def test_steps_and_seeds_have_streams_of_their_own(cell: Scenario) -> None:
    first, other_step, other_seed = (distillation.draw_batch(cell, *key, 16) for key in ((0, 0), (0, 1), (1, 0)))
    assert not np.array_equal(first.prompts, other_step.prompts)
    assert not np.array_equal(first.prompts, other_seed.prompts)


# -- evaluation


def test_evaluation_is_deterministic_and_zero_for_the_teacher_itself(
    cell: Scenario, teacher: Any, tmp_path: Path
) -> None:
    inputs = evaluate.split_inputs(cell, "unseen", "pool", TINY)
    fresh = evaluate.answer(teacher, inputs)
    for _ in range(2):  # computed, then from the file
        cached = evaluate.teacher_answers(teacher, "teacher", inputs, tmp_path)
        assert evaluate.compare(cached, fresh) == dict.fromkeys(evaluate.METRICS, 0.0)
    assert len(list(tmp_path.iterdir())) == 1
    student = models.STUDENTS["depth2"](teacher).eval()
    again = evaluate.split_inputs(cell, "unseen", "pool", TINY)
    first = evaluate.compare(evaluate.answer(student, inputs), fresh)
    assert first == evaluate.compare(evaluate.answer(student, again), fresh)
    assert min(first.values()) > 0
    assert inputs.key("teacher") == again.key("teacher") != again.key("another")


# -- the command


def test_cost_is_measured_in_one_run(tmp_path: Path) -> None:
    main(["cost", "--rounds", "2", "--regions", "8", "--json", str(tmp_path / "cost.json")])
    found = json.loads((tmp_path / "cost.json").read_text())
    assert found["rounds"] == 2
    assert found["extra_us"] == found["aria"]["switch_us"] - found["by hand"]["switch_us"]
    assert found["aria / by hand"]["low"] <= found["aria / by hand"]["ratio"] <= found["aria / by hand"]["high"]


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "distill",
        "--smoke",
        "--methods",
        "none,rc,aria",
        "--seeds",
        "0",
        "--jobs",
        "1",
        "--out",
        str(tmp_path),
    ]
    main(command)
    runs = json.loads((tmp_path / "results.json").read_text())
    assert [(run["method"], run["seed"]) for run in runs] == [(method, 0) for method in ("none", "rc", "aria")]
    for run in runs:
        values = [run["metrics"][s][c][m] for s in SPLITS for c in CONDITIONS for m in evaluate.METRICS]
        assert np.isfinite(values).all()
        assert min(values) > 0
    assert {run["switched_rows"] for run in runs if run["method"] == "none"} == {0}
    switched = {(run["seed"], run["switched_rows"]) for run in runs if run["method"] != "none"}
    assert len(switched) == 1  # the same rows switch under every method
    (folder,) = (tmp_path / "figures").iterdir()
    assert {path.name for path in folder.iterdir()} == {"emoji.png", "regions.png", "curves.png", "headline.png"}
    assert str(folder / "headline.png") in capsys.readouterr().out
    before = (tmp_path / "results.json").read_text()
    plan = [study.settings_of(run) for run in runs]
    study.run_study({tmp_path: plan}, tmp_path / "cache", jobs=1)
    assert "3 of them finished before" in capsys.readouterr().out
    assert study.as_json(study.gather(tmp_path)) == before
    other = [{**run, "lr": 0.5} if run["method"] == "rc" else run for run in runs]  # not what its name says
    (tmp_path / "cell.json").write_text(study.as_json(other))
    assert study.restore(tmp_path / "cell.json", tmp_path / "elsewhere") == 2
    assert [run["method"] for run in study.gather(tmp_path / "elsewhere")] == ["none", "aria"]
    study.run_study({tmp_path / "elsewhere": plan}, tmp_path / "cache", jobs=1)
    assert "2 of them finished before" in capsys.readouterr().out


def test_a_run_without_switching_serves_all_cells_that_differ_in_the_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = evaluate.EvalSize(prompts=3, sampling_steps=3, shown=4)
    few_steps: dict[str, Any] = {"steps": 3, "batch": 4, "n_regions": 8, "curve_every": 3, "evaluation": size}
    base = distillation.RunSettings("none", "depth3", ("Objects",), 0, **few_steps)
    changes: list[dict[str, Any]] = [{"pool": "diluted"}, {"lam": 2.0}, {"pool": "names", "n_regions": 4}]
    others = [dataclasses.replace(base, **change) for change in changes]
    alone = [base, *others, dataclasses.replace(base, paired_share=0.1)]
    plans = {tmp_path / str(i): [settings] for i, settings in enumerate(alone)}
    study.run_study(plans, tmp_path / "cache", jobs=1)
    assert "3 the same as others" in capsys.readouterr().out
    (first,), *lent, (few,) = [study.gather(out) for out in plans]
    assert "same_run_as" not in first | few
    assert first["metrics"] != few["metrics"]
    for (run,), settings in zip(lent, others, strict=True):
        assert run["same_run_as"] == first["name"] != run["name"]
        assert study.settings_of(run) == settings
        elsewhere = tmp_path / "elsewhere" / run["name"]
        study.run_study({elsewhere: [settings]}, tmp_path / "cache", jobs=1)
        (made,) = study.gather(elsewhere)
        assert made["name"] == run["name"]
        assert made["metrics"] == first["metrics"] == run["metrics"]
    switched = {tmp_path / pool: [dataclasses.replace(base, method="rc", pool=pool)] for pool in ("all", "names")}
    study.run_study(switched, tmp_path / "cache", jobs=1)
    assert "0 the same as others" in capsys.readouterr().out


def test_a_run_repeats_bit_for_bit(cell: Scenario, teacher: Any, tmp_path: Path) -> None:
    settings = distillation.RunSettings(
        "aria", "depth2", cell.unseen, 5, steps=3, batch=8, n_regions=16, evaluation=TINY
    )
    data = study.fingerprint()
    records = [
        distillation.distill(settings, cell, teacher, data, tmp_path, lambda steps, text: None) for _ in range(2)
    ]
    (first, pictures), (second, again) = records
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert np.array_equal(pictures, again)


def test_unknown_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="magic"):
        main(["distill", "--methods", "rc,magic", "--out", str(tmp_path)])


# -- the study over cells


def test_every_cell_changes_one_thing_and_none_is_the_tuning_cell(world: Emoji) -> None:
    (tuned,) = {scenario(world, settings["unseen"]).unseen for settings in TUNING.values()}
    for title, changes in CELLS.values():
        assert title
        assert set(changes) <= {field.name for field in dataclasses.fields(distillation.RunSettings)}
        assert len(changes) <= 1
        assert not set(tuned) & set(scenario(world, {**BASE, **changes}["unseen"]).unseen)


def test_variants_of_aria_change_what_their_name_says() -> None:
    aria_itself = vars(METHODS["aria"])
    for name, method in METHODS.items():
        changed = {field for field, value in vars(method).items() if value != aria_itself[field]} - {"title"}
        assert changed if name != "aria" else not changed
    keys = [method.key for method in METHODS.values()]
    assert len(set(keys)) == len(keys)


def test_a_cell_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"nowhere not known; there are tuning, tuning_diluted, .*, base"):
        main(["study", "--cells", "nowhere", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="--methods: nothing not known; there are none, rc"):
        main(["study", "--methods", "nothing", "--out", str(tmp_path)])


# -- the peer's rule


def test_second_moments_are_of_the_last_visits_and_wait_for_every_region() -> None:
    estimator, policy = LastLosses(kept=2), SecondMoment(warm=2)
    state, shares = estimator.init(2), policy.init(2)
    losses = {0: [1.0, 3.0, 4.0], 1: [2.0, 2.0]}
    for region, visits in losses.items():
        for loss in visits:
            feedback = aria.Feedback.from_rows([region, region], [loss - 1, loss + 1], n_regions=2)
            state = estimator.update(state, feedback)
            shares = policy.update(shares, estimator.estimate(state))
            waits = estimator.estimate(state).count.min() < 2
            assert (shares["log_phi"] == 0).all() == waits
    # a visit's mean square is loss^2 + 1; of region 0 the last two are of 3 and 4
    np.testing.assert_allclose(np.exp(policy.log_phi(shares)), np.sqrt([(10 + 17) / 2, 5]))


def test_the_peer_s_policy_conforms() -> None:
    """Its estimator cannot: it is of the root mean square, and the conformance suite asks for the mean."""
    checks.check_policy(SecondMoment())
    with pytest.raises(AssertionError, match="the first visit sets the mean"):
        checks.check_estimator(LastLosses())


def test_pooled_means_are_drawn_to_their_group() -> None:
    """As if by eight losses of the group's, which is itself drawn to all by eight."""
    estimator = Pooled(aria.Ema(rate=1e-9), groups=(0, 0, 1), strength=8.0)
    feedback = aria.Feedback.from_rows([0] * 8 + [1] * 24, [1.0] * 8 + [3.0] * 24, n_regions=3)
    found = estimator.estimate(estimator.update(estimator.init(3), feedback))
    overall = (8 * 1 + 24 * 3) / 32
    group = (8 * 1 + 24 * 3 + 8 * overall) / 40
    expected = [(8 * 1 + 8 * group) / 16, (24 * 3 + 8 * group) / 32, overall]
    np.testing.assert_allclose(found.mean, expected, rtol=1e-6)
    np.testing.assert_allclose(found.count, [8, 24, 0], rtol=1e-6)


def test_growth_is_over_what_was_at_the_end_of_the_warm_up() -> None:
    checks.check_policy(Growth(2.0))
    policy, estimator = Growth(2.0, warm=2), aria.Ema(rate=1.0)
    estimate, shares = estimator.init(2), policy.init(2)
    for losses, wanted in (([1.0, 1.0], [1, 1]), ([2.0, 4.0], [1, 1]), ([4.0, 2.0], [4, 1 / 4])):
        estimate = estimator.update(estimate, aria.Feedback.from_rows([0, 1], losses, n_regions=2))
        shares = policy.update(shares, estimator.estimate(estimate))
        np.testing.assert_allclose(np.exp(policy.log_phi(shares)), wanted)


def test_regressed_growth_is_that_of_a_plane_through_log_losses() -> None:
    """Losses exp(a + b x) of before, and exp(c + d x) of late, in regions that are never all visited."""
    rng = np.random.default_rng(0)
    centers, sizes = rng.normal(size=(50, 3)), rng.integers(1, 9, size=50)
    before, late = rng.normal(size=3), rng.normal(size=3)
    estimator = Regressed(centers, sizes, strength=1e-9, rate=0.3, start=20, top=0.1)
    state = estimator.init(50)
    for round_ in range(120):
        plane = before if round_ < 20 else late
        seen = np.unique(rng.integers(40, size=8))  # the last ten regions never have a loss
        feedback = aria.Feedback.from_rows(seen, np.exp(centers[seen] @ plane), n_regions=50)
        if 0 < round_ < 20:
            assert (estimator.estimate(state).mean == 1).all()
        state = estimator.update(state, feedback)
    growth = centers @ (late - before)
    order = np.argsort(-growth)
    top = growth[order[np.flatnonzero(sizes[order].cumsum() >= 0.1 * sizes.sum())[0]]]
    np.testing.assert_allclose(np.log(estimator.estimate(state).mean), np.minimum(growth - top, 0), atol=1e-4)
