"""Random-conditioning distillation: pruned students, conditions, switching, resuming; real classes, random weights."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from diffusers import UNet2DConditionModel  # noqa: E402

import aria_sampling as aria  # noqa: E402
from integrations._common import models, regions  # noqa: E402
from integrations._common.images import RandomImages, some_prompts  # noqa: E402
from integrations.rc_distillation import benchmark, train  # noqa: E402
from integrations.rc_distillation.conditions import Conditions  # noqa: E402
from integrations.rc_distillation.distil import Distiller, _Outputs  # noqa: E402
from integrations.rc_distillation.student import SIZES, block_names, prune, teacher_name  # noqa: E402
from tests.unit.integrations.helpers import contents, digests_of_two_ranks, start  # noqa: E402

README = Path(train.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def parts():
    parts = models.tiny()
    parts.freeze("vae", "text_encoder", "unet", device="cpu", dtype=torch.float32)
    return parts


# -- the student


@pytest.mark.parametrize("size", SIZES)
def test_a_student_is_the_teacher_with_blocks_removed(parts, size):
    student = prune(parts.unet, size)
    weights = parts.unet.state_dict()
    assert all(torch.equal(value, weights[teacher_name(key, size)]) for key, value in student.state_dict().items())
    assert (student.mid_block is None) == (size != "base")
    inputs = torch.randn(2, 4, 16, 16), torch.tensor([3, 900]), torch.randn(2, 5, 16)
    names = block_names(student, size)
    ours = _Outputs(student, names)
    theirs = _Outputs(parts.unet, [teacher_name(name, size) for name in names])
    found = student(*inputs).sample
    with torch.no_grad():
        wanted = parts.unet(*inputs).sample
    assert found.shape == wanted.shape
    distance = ours.distance(theirs)
    assert distance.shape == (2,)
    assert (distance > 0).all()
    distance.sum().backward()


@pytest.mark.slow
def test_students_of_stable_diffusion_have_the_sizes_of_bk_sdm():
    """Of 860 million parameters 0.58, 0.48 and 0.32 billion stay (BK-SDM, arXiv 2305.15798, table 1)."""
    with torch.device("meta"):
        teacher = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        sizes = [sum(p.numel() for p in prune(teacher, size).parameters()) / 1e9 for size in SIZES]
    assert [round(size, 2) for size in sizes] == [0.58, 0.48, 0.32]


def test_what_cannot_be_pruned(parts):
    with pytest.raises(ValueError, match="size='micro': expected one of"):
        prune(parts.unet, "micro")
    with pytest.raises(ValueError, match="expected layers_per_block=2, got 1"):
        prune(prune(parts.unet, "base"), "base")


# -- conditions


def test_conditions_by_number_cached_or_not(parts, tmp_path):
    prompts = ["a red cat", "a dog", "a red cat"]
    conditions = Conditions(prompts, ["a dog", "not in the pool", "a red cat"], parts.tokenizer, parts.text_encoder)
    assert conditions.n_pool == 3
    assert conditions.of_image.tolist() == [1, 3, 0]
    assert conditions.texts[conditions.null] == ""
    numbers = torch.tensor([4, 0, 3])
    live = conditions(numbers)
    conditions.fill_cache(tmp_path / "embeddings.npy")
    assert torch.equal(conditions(numbers), live.half().float())
    other = Conditions([*prompts, "more"], [], parts.tokenizer, parts.text_encoder)
    with pytest.raises(
        ValueError, match=r"--embeddings embeddings.npy: was made for another list, of 5 texts, here ar"
    ):
        other.fill_cache(tmp_path / "embeddings.npy")


def test_the_pool_is_every_prompt_once(tmp_path, parts, monkeypatch):
    """A byte order mark, a separator of Unicode inside a prompt, Windows line ends and a prompt that comes twice."""
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red cat\r\na dog\u2028in snow\r\na red cat\r\n\r\nan owl".encode())
    monkeypatch.setattr(models, "load", lambda *_: parts)
    monkeypatch.setattr(train, "CaptionedFolder", lambda *_: RandomImages(["a red cat"]))
    given = ["--pretrained_model_name_or_path", "x", "--train_data_dir", "x", "--prompts", str(file)]
    _, images, prompts = train.load(train.arguments(given))
    assert prompts == ["a red cat", "a dog\u2028in snow", "an owl"]
    assert Conditions(prompts, images.captions, parts.tokenizer, parts.text_encoder).of_image.tolist() == [0]


# -- the switch


def a_distiller(parts, switch, null_share=0.5):
    student = prune(parts.unet, "base")
    prompts = some_prompts()
    conditions = Conditions(prompts, prompts[:75], parts.tokenizer, parts.text_encoder)
    options = {"conditions": conditions, "switch": switch, "null_share": null_share, "seed": 0, "rank": 0}
    return Distiller(parts, student, student, "base", **options)


def a_batch(n=16):
    images = RandomImages(some_prompts()[:75])
    return {
        "pixel_values": torch.stack([images[number]["pixel_values"] for number in range(n)]),
        "index": list(range(n)),
    }


def test_rows_without_a_caption_are_not_credited(parts):
    calls = {}

    class Recorder:
        def draw(self, steps):
            calls.update(steps=steps)
            return SimpleNamespace(mask=torch.arange(len(steps)) % 2 == 0, items=torch.full((len(steps) // 2,), 199))

        def observe(self, losses, *, credit):
            calls.update(losses=losses, credit=credit)

    distiller = a_distiller(parts, Recorder())
    asked = []
    encode, distiller.conditions.encode = (
        distiller.conditions.encode,
        lambda texts: asked.extend(texts) or encode(texts),
    )
    losses = distiller.losses(a_batch(), 0)
    distiller.observe(losses)
    live = losses.live
    assert 0 < live.sum() < 16
    prompts = some_prompts()
    own_or_drawn = [prompts[row] if row % 2 else prompts[199] for row in range(16)]
    assert asked == [text if kept else "" for text, kept in zip(own_or_drawn, live, strict=True)]
    assert torch.equal(calls["losses"], losses.output)
    assert torch.equal(calls["credit"], live)
    assert losses.output.shape == losses.features.shape == calls["steps"].shape == (16,)


def test_the_stream_and_the_losses_are_a_function_of_seed_rank_and_pass(parts):
    def run():
        allocator = aria.Allocator(aria.Partition.from_labels(torch.arange(200) % 8), target="uniform", seed=0)
        distiller = a_distiller(parts, aria.RandomConditioning(allocator))
        found = []
        for passes in range(3):
            torch.rand(passes + 1)  # the global generator is nobody's
            losses = distiller.losses(a_batch(), passes)
            distiller.observe(losses)
            found.append(losses.output.tolist())
        return found, allocator.digest()

    assert run() == run()


# -- runs


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """Stopped after 2 of 4 steps: weights, averaged weights, optimizer, allocation, and which prompts were drawn."""
    drawn, draw = [], aria.RandomConditioning.draw

    def recorded(self, steps):
        switch = draw(self, steps)
        drawn.append((steps.tolist(), switch.mask.tolist(), switch.items.tolist()))
        return switch

    monkeypatch.setattr(aria.RandomConditioning, "draw", recorded)
    options = "--output_dir", tmp_path, "--embeddings", tmp_path / "embeddings.npy", "--switch_rate", 1
    whole = start(train.main, *options)
    wanted, seen = contents(tmp_path / "checkpoint-4"), drawn[:]
    drawn.clear()
    again = start(train.main, *options, "--resume_from_checkpoint", tmp_path / "checkpoint-2")
    assert drawn == seen[4:]
    assert again.digest() == whole.digest()
    found = contents(tmp_path / "checkpoint-4")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


@pytest.mark.slow
def test_a_run_over_the_end_of_an_epoch_is_resumed(tmp_path):
    """75 images in batches of 30 are 2 to an epoch."""
    options = "--output_dir", tmp_path, "--train_batch_size", 30, "--checkpointing_steps", 1
    whole = start(train.main, *options)
    wanted = contents(tmp_path / "checkpoint-4")
    for stopped in (1, 2, 3):
        again = start(train.main, *options, "--resume_from_checkpoint", tmp_path / f"checkpoint-{stopped}")
        assert again.digest() == whole.digest()
        assert contents(tmp_path / "checkpoint-4") == wanted


@pytest.mark.slow
def test_two_processes_have_one_allocation(tmp_path):
    first, second = digests_of_two_ranks(train.main, "--output_dir", tmp_path)
    assert first == second
    resume = "--resume_from_checkpoint", tmp_path / "checkpoint-2"
    assert digests_of_two_ranks(train.main, "--output_dir", tmp_path, *resume) == [first, first]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "tiny"])
def test_every_size_with_pictures_and_mixed_precision(tmp_path, size):
    options = "--mixed_precision", "bf16", "--validation_steps", 4, "--validation_prompts", "a red cat in snow"
    start(train.main, "--output_dir", tmp_path, "--student", size, *options)
    assert (tmp_path / "validation-4.png").exists()
    assert (tmp_path / "pipeline" / "unet").is_dir()


def test_the_default_draws_what_the_images_do_not_cover(tmp_path):
    allocator = start(train.main, "--output_dir", tmp_path)
    pool, coverage = allocator.partition, allocator.coverage
    assert coverage == aria.Coverage(pool, items=range(75))
    bare = coverage.counts < 0.375 * pool.sizes  # fewer images than the pool's own share of them
    assert bare.any()
    assert allocator.probabilities[bare].sum() > pool.sizes[bare].sum() / pool.n_items
    (kept,) = tmp_path.glob("coverage-*.npz")
    assert np.array_equal(aria.Coverage.load(kept, pool).uncovered, coverage.uncovered)


@pytest.mark.parametrize(("name", "policy"), [("pool", aria.PoolPolicy), ("uniform", aria.UniformPolicy)])
def test_the_controls_know_of_no_images(tmp_path, name, policy):
    allocator = start(train.main, "--output_dir", tmp_path, "--policy", name, "--max_train_steps", 1)
    assert isinstance(allocator.policy, policy)
    assert allocator.coverage is None
    assert not list(tmp_path.glob("coverage-*"))


def test_coverage_counts_captions_that_are_not_in_the_pool(parts, tmp_path):
    prompts = some_prompts()
    pool = regions.by_embedding(prompts, 12, parts)
    images = [prompts[3], prompts[3], "a purple cat in snow"]
    coverage = regions.covered(tmp_path, pool, prompts, images, parts)
    assert coverage == aria.Coverage(pool, items=[3, 3], embeddings=regions.embed(images[2:], parts))
    assert coverage.counts.sum() == 3
    assert regions.covered(tmp_path, pool, prompts, images, without_models(parts)) == coverage  # read from its file
    other = regions.covered(tmp_path, pool, prompts, images[:2], without_models(parts))  # of other images: made anew
    assert other == aria.Coverage(pool, items=[3, 3])


def without_models(parts):
    """The same parts, of which none can be used."""
    parts = copy.copy(parts)
    parts.text_encoder = parts.tokenizer = None
    return parts


def test_a_checkpoint_of_another_pool_is_refused(tmp_path):
    start(train.main, "--output_dir", tmp_path, "--max_train_steps", 2)
    options = "--regions", tmp_path / "other.npz", "--n_regions", 5, "--resume_from_checkpoint", "latest"
    with pytest.raises(aria.StateError, match="state of another pool"):
        start(train.main, "--output_dir", tmp_path, *options)
    with pytest.raises(ValueError, match="--resume_from_checkpoint latest: no checkpoint in"):
        start(train.main, "--output_dir", tmp_path / "empty", "--resume_from_checkpoint", "latest")


@pytest.mark.slow
def test_the_benchmark_compares_within_one_run(tmp_path):
    found = benchmark.main(["--rounds", "2", "--batch", "2", "--json", str(tmp_path / "cost.json")])
    assert found["aria / by hand"]["low"] <= found["aria / by hand"]["ratio"] <= found["aria / by hand"]["high"]
    assert found["extra_us"] == found["aria"]["switch_us"] - found["by hand"]["switch_us"]


def test_the_diff_in_the_readme_is_short():
    text = README.read_text(encoding="utf-8")
    diff = text.split("```diff\n")[1].split("```")[0]
    assert sum(line[:1] in "+-" for line in diff.splitlines()) <= 25
    assert text.index("```diff") < 1500  # it opens with it
