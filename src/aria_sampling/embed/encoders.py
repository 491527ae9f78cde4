"""The built-in encoders, by a text that names one: what it is, and where its weights are.

| text | what it is | needs |
|---|---|---|
| ``tfidf``, ``tfidf:256`` | words, weighted, in 128 or 256 dimensions; no weights to download | scikit-learn |
| ``model2vec:PATH-OR-ID`` | static vectors of words; fast on a CPU | model2vec |
| ``sentence-transformers:PATH-OR-ID`` | a sentence encoder | sentence-transformers |
| ``clip:PATH-OR-ID`` | the text tower of a diffusion pipeline, pooled: the student's own condition | transformers |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import integer, shown
from aria_sampling.embed._tfidf import Tfidf
from aria_sampling.embed.batch import Encoder
from aria_sampling.errors import ArgumentError, MissingDependencyError

__all__ = ["Clip", "SentenceTransformers", "load"]


class SentenceTransformers:
    """A model of sentence-transformers.

    Args:
        name: A folder, or the id of a model.
        device: Such as "cuda:1"; None: what the package chooses.
        batch_size: Texts that go through the model at once.
    """

    def __init__(self, name: str, device: str | None = None, batch_size: int = 64) -> None:
        try:
            from sentence_transformers import SentenceTransformer  # pyright: ignore
        except ImportError as error:
            raise _missing("sentence-transformers", "sentence-transformers", "encoders") from error
        self._batch_size = batch_size
        self._model: Any = _loaded("sentence-transformers", name, lambda: SentenceTransformer(name, device=device))

    def encode(self, texts: list[str], /) -> AnyArray:
        """Return a row for each text."""
        return self._model.encode(texts, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True)


class Clip:
    """The text encoder of a diffusion pipeline, or of a CLIP model, pooled: one vector a text.

    It is the projected one where the model has a projection, else the last hidden state at the end of the text. Texts
    are cut to the length of the tokenizer, 77 tokens.

    Args:
        name: A folder, or the id of a model. A pipeline has the folders ``tokenizer`` and ``text_encoder``; a name that
            ends in ``#2`` takes ``tokenizer_2`` and ``text_encoder_2``.
        device: Such as "cuda:1"; None: a GPU if there is one.
        batch_size: Texts that go through the model at once.
    """

    def __init__(self, name: str, device: str | None = None, batch_size: int = 64) -> None:
        try:
            import torch
            import transformers as package
        except ImportError as error:
            raise _missing("clip", "torch and transformers", "encoders") from error
        transformers: Any = package
        where, mark, number = name.rpartition("#")
        where, suffix = (where, f"_{number}") if mark and number.isdigit() else (name, "")
        pipeline = not Path(where).is_dir() or (Path(where) / f"text_encoder{suffix}").is_dir()

        def load(folder: bool) -> tuple[Any, Any]:
            tower = {"subfolder": f"text_encoder{suffix}"} if folder else {}
            config: Any = transformers.AutoConfig.from_pretrained(where, **tower)
            if config.model_type not in ("clip", "clip_text_model"):
                raise ArgumentError(
                    f"encoder='clip:{shown(name)[1:-1]}': expected the text encoder of CLIP, got {config.model_type!r}"
                )
            listed: list[str] = config.architectures or []
            projected = any("Projection" in name or name == "CLIPModel" for name in listed)
            kind: Any = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
            tokens = {"subfolder": f"tokenizer{suffix}"} if folder else {}
            return transformers.AutoTokenizer.from_pretrained(where, **tokens), kind.from_pretrained(where, **tower)

        self._tokenizer, model = _loaded("clip", name, lambda: load(pipeline))
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self._batch_size = batch_size

    def encode(self, texts: list[str], /) -> AnyArray:
        """Return a row for each text."""
        import torch

        rows: list[AnyArray] = []
        with torch.inference_mode():
            for begin in range(0, len(texts), self._batch_size):
                tokens = self._tokenizer(
                    texts[begin : begin + self._batch_size], padding="max_length", truncation=True, return_tensors="pt"
                )
                out = self._model(input_ids=tokens.input_ids.to(self._device))
                pooled = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
                rows.append(pooled.float().cpu().numpy())
        return np.concatenate(rows)


class _Model2Vec:
    """A static model of model2vec. It runs on the CPU."""

    def __init__(self, name: str, device: str | None = None, batch_size: int = 1024) -> None:
        del device
        try:
            from model2vec import StaticModel  # pyright: ignore
        except ImportError as error:
            raise _missing("model2vec", "model2vec", "encoders") from error
        self._model: Any = _loaded("model2vec", name, lambda: StaticModel.from_pretrained(name))  # pyright: ignore
        self._batch_size = batch_size

    def encode(self, texts: list[str], /) -> AnyArray:
        """Return a row for each text."""
        return self._model.encode(
            texts, batch_size=self._batch_size, show_progress_bar=False, use_multiprocessing=False
        )


_MODELS: dict[str, Callable[..., Encoder]] = {
    "sentence-transformers": SentenceTransformers,
    "model2vec": _Model2Vec,
    "clip": Clip,
}


def load(spec: str, *, device: str | None = None, batch_size: int | None = None) -> Encoder:
    """Return a built-in encoder.

    Args:
        spec: "tfidf", "tfidf:WIDTH", "model2vec:PATH-OR-ID", "sentence-transformers:PATH-OR-ID" or "clip:PATH-OR-ID".
        device: For those that run on torch, such as "cuda:1"; None: a GPU if there is one.
        batch_size: Texts that go through the model at once; None: what suits it.

    Raises:
        ValueError: The text names none, or there is no such model.
        ImportError: Its package is not installed.
    """
    if not isinstance(spec, str):  # pyright: ignore
        raise ArgumentError(f"encoder={shown(spec)}: expected {_EXPECTED}")
    kind, mark, name = spec.partition(":")
    more = {} if batch_size is None else {"batch_size": integer("batch_size", batch_size, low=1)}
    if kind == "tfidf":
        if mark and not (name.isdigit() and 1 <= int(name) <= 4096):
            raise ArgumentError(f"encoder={shown(spec)}: expected tfidf:WIDTH with a width from 1 to 4096")
        return Tfidf(int(name)) if mark else Tfidf()
    if kind not in _MODELS or not name:
        hint = f"; {kind}: takes a folder or the id of a model behind it" if kind in _MODELS else ""
        raise ArgumentError(f"encoder={shown(spec)}: expected {_EXPECTED}{hint}")
    return _MODELS[kind](name, device=device, **more)


_EXPECTED = (
    "an object with encode(texts), or tfidf, model2vec:PATH-OR-ID, sentence-transformers:PATH-OR-ID or clip:PATH-OR-ID"
)


def _missing(kind: str, packages: str, extra: str) -> MissingDependencyError:
    """Return the error for a package that is not there."""
    return MissingDependencyError(f"encoder '{kind}:...' needs {packages}: pip install 'aria-sampling[{extra}]'")


def _loaded(kind: str, name: str, load: Callable[[], Any]) -> Any:
    """Return a model; ValueError if there is none of that name."""
    try:
        return load()
    except (ArgumentError, MemoryError):
        raise
    except Exception as error:  # each package raises what it likes for a model that it does not find
        there = (
            "this folder is there" if Path(name).is_dir() else "there is no such folder, and it could not be fetched"
        )
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArgumentError(f"encoder='{kind}:{shown(name)[1:-1]}': could not be loaded; {there} ({reason})") from error
