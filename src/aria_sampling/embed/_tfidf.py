"""`Tfidf`: captions as weighted words, in few dimensions. It needs no weights: it is fitted on the pool itself.

Words are hashed into 2^16 columns, weighted by how rare they are in a sample of the pool, and projected on its leading
singular vectors (latent semantic analysis; Deerwester et al., 1990). A small random part is added to the projection, so
that a caption of words that the sample has not is not zero. Vectors have length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aria_sampling._arrays import AnyArray
from aria_sampling._check import integer, shown_path
from aria_sampling._disk import replacing, writing
from aria_sampling.errors import MissingDependencyError, StoreError, UsageError
from aria_sampling.prompts import Prompts

__all__ = ["FILE", "Tfidf"]

FILE = "encoder.npy"
_COLUMNS = 1 << 16
_SAMPLE = 1 << 15  # captions
_RANDOM = 0.01  # of the length of a word's vector, about
_TOKEN = r"(?u)\w+|[^\w\s]"  # a word, or one sign: every caption has one


class Tfidf:
    """An encoder of words, fitted on the captions of a pool. Needs scikit-learn (``aria-sampling[cluster]``).

    Args:
        width: Numbers a text.
        seed: Of the sample and of the random part.
    """

    def __init__(self, width: int = 128, seed: int = 0) -> None:
        self.width, self.seed = integer("width", width, low=1, high=4096), integer("seed", seed, low=0)
        self._projection: AnyArray | None = None
        self._counter: Any = None

    def fit(self, texts: Sequence[str]) -> Tfidf:
        """Fit the weights of words and the projection on texts, all of them, and return itself."""
        try:
            from sklearn.decomposition import TruncatedSVD  # pyright: ignore
        except ImportError as error:
            raise _missing() from error
        counts: Any = self._counts(list(texts))
        n, rng = counts.shape[0], np.random.default_rng(self.seed)
        in_texts = np.bincount(counts.indices, minlength=_COLUMNS)
        # Not + 1 as in scikit-learn: words that nearly all captions have would make regions of "a photo of".
        weights = (np.log((1 + n) / (1 + in_texts)) + 0.1).astype(np.float32)
        projection = rng.standard_normal((_COLUMNS, self.width), np.float32) * np.float32(_RANDOM / self.width**0.5)
        seen = np.flatnonzero(in_texts)
        found = min(self.width, n - 1, len(seen) - 1)
        if found > 0:
            weighted = counts[:, seen].multiply(weights[seen]).tocsr()
            svd: Any = TruncatedSVD(found, random_state=self.seed)  # pyright: ignore
            with np.errstate(all="ignore"):  # the variance of captions that are all equal
                svd.fit(weighted)
            projection[seen[:, None], np.arange(found)] += svd.components_.T.astype(np.float32)
        self._projection = projection * weights[:, None]
        return self

    def encode(self, texts: list[str], /) -> AnyArray:
        """Return a row for each text, float32 [n, width], of length 1."""
        if self._projection is None:
            raise UsageError("tfidf: expected an encoder that is fitted, got one that is not: call fit(texts) first")
        rows = np.asarray(self._counts(list(texts)) @ self._projection)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return rows / np.maximum(lengths, np.finfo(np.float32).tiny)

    def prepare(self, folder: Path, pool: Prompts) -> Tfidf:
        """Return the encoder that a folder of embeddings has, or fit it on a sample of the pool and save it there."""
        path = folder / FILE
        if path.exists():
            return self.restored(folder)
        n = min(len(pool), _SAMPLE)
        sample = np.sort(np.random.default_rng(self.seed).choice(len(pool), size=n, replace=False, shuffle=False))
        fitted = Tfidf(self.width, self.seed).fit(pool.take(sample))
        with replacing(path) as unfinished, writing(path), unfinished.open("wb") as file:
            np.save(file, fitted._projection, allow_pickle=False)  # pyright: ignore
        return fitted

    def restored(self, folder: Path) -> Tfidf:
        """Return the encoder that a folder of embeddings has."""
        path = folder / FILE
        try:
            projection = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise StoreError(f"{shown_path(path)}: is damaged ({str(error)[:200]}); embed the pool anew") from None
        if projection.shape != (_COLUMNS, self.width):
            raise StoreError(
                f"{shown_path(path)}: expected an encoder of width {self.width}, got one of {projection.shape[-1]}"
            )
        found = Tfidf(self.width, self.seed)
        found._projection = projection
        return found

    def _counts(self, texts: list[str]) -> Any:
        """Return how often each word is in each text, sparse float32 [n, columns]."""
        if self._counter is None:
            try:
                from sklearn.feature_extraction.text import HashingVectorizer  # pyright: ignore
            except ImportError as error:
                raise _missing() from error
            counter: Any = HashingVectorizer
            self._counter = counter(
                n_features=_COLUMNS, alternate_sign=False, norm=None, token_pattern=_TOKEN, dtype=np.float32
            )
        return self._counter.transform(texts)


def _missing() -> MissingDependencyError:
    """Return the error where scikit-learn is not installed."""
    return MissingDependencyError("encoder 'tfidf' needs scikit-learn: pip install 'aria-sampling[cluster]'")
