"""The text-to-image script, on diffusers' and transformers' own classes with tiny random weights."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("accelerate")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import CLIPTextModel  # noqa: E402

import aria_sampling as aria  # noqa: E402
from aria_sampling.torch import WithIndex, dataloader  # noqa: E402
from integrations._common import corpus, models, regions  # noqa: E402
from integrations._common.images import CaptionedFolder, RandomImages, some_prompts  # noqa: E402
from integrations.diffusers_text_to_image import train  # noqa: E402
from tests.unit.integrations.helpers import contents, digests_of_two_ranks, reset, start  # noqa: E402

README = Path(train.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def parts():
    return models.tiny()


@pytest.fixture
def folder(tmp_path):
    """Six captioned images of several sizes, with their group in a column."""
    lines = []
    for number in range(6):
        size = (40 + 7 * number, 50, 3)
        pixels = np.random.default_rng(number).integers(256, size=size, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        caption = f"a thing, number {number}"
        lines.append({"file_name": f"{number}.png", "text": caption, "group": "even" if number % 2 == 0 else "odd"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


# -- the parts


def test_the_tiny_parts_are_the_hosts_own_classes_and_go_through_their_files(parts, tmp_path):
    assert isinstance(parts.unet, UNet2DConditionModel)
    assert isinstance(parts.vae, AutoencoderKL)
    assert isinstance(parts.text_encoder, CLIPTextModel)
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(tmp_path / name)
    parts.noise_scheduler.save_pretrained(tmp_path / "scheduler")
    loaded = models.load(str(tmp_path))
    for name in ("unet", "vae", "text_encoder"):
        ours, theirs = getattr(parts, name).state_dict(), getattr(loaded, name).state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    hidden = [models.encode(each.tokenizer, each.text_encoder, ["a red cat"])[0] for each in (parts, loaded)]
    assert torch.equal(*hidden)


def test_a_unet_that_needs_more_than_text_is_refused(parts, tmp_path):
    config = {**parts.unet.config, "addition_embed_type": "text", "encoder_hid_dim": None}
    config.pop("_use_default_values", None)
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match="takes 'text' conditions besides the text"):
        models.load(str(tmp_path))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_snr_weights(prediction):
    scheduler = DDPMScheduler(prediction_type=prediction)
    steps = torch.tensor([0, 10, 300, 999])
    alphas = scheduler.alphas_cumprod[steps].double()
    snr = alphas / (1 - alphas)
    wanted = snr.clamp(max=5) / (snr + (prediction == "v_prediction"))
    assert torch.allclose(train.snr_weights(scheduler, steps, 5.0).double(), wanted, rtol=1e-5)


def test_captioned_images(folder):
    images = CaptionedFolder(str(folder), resolution=32)
    sample = images[3]
    assert sample["pixel_values"].shape == (3, 32, 32)
    assert sample["pixel_values"].abs().max() <= 1
    assert sample["text"] == "a thing, number 3"
    assert images.column("group") == ["even", "odd"] * 3


@pytest.mark.parametrize("after", [True, False])
def test_labels_are_made_after_the_select(after):
    """--max_train_samples N shuffles first, though N be all rows: labels from before belong to other rows.

    The lengths agree. The region that each sample carries tells, if it is reported.
    """
    sources = [row % 5 if row < 30 else 5 for row in range(48)]
    order = np.random.default_rng(0).permutation(48)
    selected = [{"source": sources[row], "x": float(row)} for row in order]
    labels = [sample["source"] for sample in selected] if after else sources
    allocator = aria.Allocator(aria.Partition.from_labels(labels), seed=0)
    loader = dataloader(WithIndex(selected), allocator, batch_size=8)
    batch = next(iter(loader))
    if after:
        loader.sampler.observe(batch["index"], torch.ones(8), regions=batch["source"])
        return
    with pytest.raises(ValueError, match="regions"):
        loader.sampler.observe(batch["index"], torch.ones(8), regions=batch["source"])


# -- bad input


def test_a_caption_is_one_line_of_the_file_whatever_is_in_it(folder):
    """Line separators of Unicode inside a caption, and a byte order mark: six lines are six images."""
    lines = [
        {"file_name": f"{number}.png", "text": f"one{mark}two"} for number, mark in enumerate("\u2028\x0b\x0c\x85\x1ce")
    ]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (folder / "metadata.jsonl").write_bytes(("\ufeff" + text).encode("utf-8"))
    assert CaptionedFolder(str(folder), 32).captions == [line["text"] for line in lines]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("", r"line 2: expected a caption, got an empty one"),  # skipped, it would move all images behind it
        ("{", r"line 2: expected an object of JSON, got '\{'"),
        ('"a cat"', r"line 2: expected an object of JSON, got '\"a cat\"'"),
    ],
)
def test_a_line_that_is_no_image_is_named(folder, second, words):
    first = json.dumps({"file_name": "0.png", "text": "a cat"})
    (folder / "metadata.jsonl").write_text("\n".join([first, second, first]))
    with pytest.raises(ValueError, match=words):
        CaptionedFolder(str(folder), 32)


@pytest.mark.parametrize("caption", [None, ["a", "b"], 3])
def test_a_caption_that_is_no_text(folder, caption):
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": caption}))
    with pytest.raises(ValueError, match=r"line 1: expected 'text' to be one text, got"):
        CaptionedFolder(str(folder), 32)


def test_a_folder_that_is_none_of_captioned_images(folder):
    with pytest.raises(ValueError, match=r"expected a metadata.jsonl in it"):
        CaptionedFolder(str(folder / "nowhere"), 32)
    with pytest.raises(ValueError, match=r"--region_column source: 6 lines of metadata.jsonl have none"):
        CaptionedFolder(str(folder), 32).column("source")
    with pytest.raises(ValueError, match=r"line 1: no \['caption'\], only \['file_name', 'group', 'text'\]"):
        CaptionedFolder(str(folder), 32, caption_column="caption")


def test_regions_of_another_corpus(tmp_path):
    file, captions = tmp_path / "regions.npz", ["a", "b", "c"]

    def make():
        return aria.Partition.from_labels(captions)

    pool = regions.load_or_make(file, captions, make)
    assert regions.load_or_make(file, captions, pytest.fail) == pool
    for other in (["a", "b", "x"], ["a", "b"]):
        with pytest.raises(ValueError, match=r"--regions regions.npz: was made for another list, of 3 texts, here are"):
            regions.load_or_make(file, other, make)
    (tmp_path / "regions.npz.json").unlink()
    with pytest.raises(ValueError, match="of unknown texts, here are 3"):
        corpus.holds(file, captions, option="--regions")


def test_the_arguments_that_are_needed(capsys):
    with pytest.raises(SystemExit):
        train.arguments([])
    assert "--pretrained_model_name_or_path and --train_data_dir are needed, or --smoke" in capsys.readouterr().err


# -- runs


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """Stopped after 2 of 4 steps, with 2 passes to a step: weights, averaged weights, optimizer, allocation, rows."""
    rows = []
    monkeypatch.setattr(train, "index_of", lambda batch: rows.append(batch["index"]) or batch["index"])
    whole = start(train.main, "--output_dir", tmp_path, "--snr_gamma", 5, "--random_flip")
    wanted, seen = contents(tmp_path / "checkpoint-4"), rows[:]
    rows.clear()
    resume = "--resume_from_checkpoint", tmp_path / "checkpoint-2"
    again = start(train.main, "--output_dir", tmp_path, "--snr_gamma", 5, "--random_flip", *resume)
    assert rows == seen[4:]
    assert again.digest() == whole.digest()
    found = contents(tmp_path / "checkpoint-4")
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_from_local_folders_with_pictures_and_a_tracker(parts, folder, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    for name in ("unet", "vae", "text_encoder", "tokenizer"):
        getattr(parts, name).save_pretrained(tmp_path / "model" / name)
    parts.noise_scheduler.save_pretrained(tmp_path / "model" / "scheduler")
    out = tmp_path / "out"
    given = {
        "pretrained_model_name_or_path": tmp_path / "model",
        "train_data_dir": folder,
        "region_column": "group",
        "resolution": 32,
        "train_batch_size": 3,
        "max_train_steps": 2,
        "logging_steps": 1,
        "validation_steps": 2,
        "checkpointing_steps": 1,
        "checkpoints_total_limit": 1,
        "mixed_precision": "bf16",
        "output_dir": out,
    }
    argv = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    reset()
    allocator = train.main([*argv, "--weighted", "--use_ema", "--validation_prompts", "a thing"])
    assert allocator.partition.names == ("even", "odd")
    assert allocator.round == 2
    assert [path.name for path in out.glob("checkpoint-*")] == ["checkpoint-2"]
    assert (out / "validation-2.png").exists()
    assert (out / "pipeline" / "model_index.json").exists()
    assert list(out.glob("logs/**/events*"))
    assert "step 1: loss" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_have_one_allocation(tmp_path):
    first, second = digests_of_two_ranks(train.main, "--output_dir", tmp_path)
    assert first == second
    resume = "--resume_from_checkpoint", tmp_path / "checkpoint-2"
    assert digests_of_two_ranks(train.main, "--output_dir", tmp_path, *resume) == [first, first]


def test_the_smoke_images_have_a_column():
    images = RandomImages(some_prompts())
    assert len(images) == 200
    assert len(set(images.column("animal"))) == 8


def test_the_diff_in_the_readme_is_short():
    text = README.read_text(encoding="utf-8")
    diff = text.split("```diff\n")[1].split("```")[0]
    assert sum(line[:1] in "+-" for line in diff.splitlines()) <= 16
    assert text.index("```diff") < 1500  # it opens with it
