"""Text conditions by number: tokenised and encoded in the loop, or looked up in a cache (the SDXL way).

The texts are those of the pool, then the captions of images that are not in it, then the empty one, so that a number
below ``n_pool`` is an item of the allocator's pool. With a cache the text encoder leaves the device once
it is filled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from integrations._common import corpus
from integrations._common.models import encode


class Conditions:
    """Embeddings of the texts of a run, by number.

    Attributes:
        texts: All texts.
        n_pool: How many of them are the pool.
        null: Number of the empty text.
        of_image: Number of every image's own caption, int64 [images].
    """

    def __init__(self, prompts: list[str], captions: list[str], tokenizer: Any, text_encoder: Any) -> None:
        numbers = {text: number for number, text in reversed(list(enumerate(prompts)))}
        self.n_pool = len(prompts)
        extra = [caption for caption in dict.fromkeys(captions) if caption not in numbers]
        numbers |= {text: self.n_pool + number for number, text in enumerate(extra)}
        self.texts = [*prompts, *extra, ""]
        self.null = len(self.texts) - 1
        self.of_image = torch.tensor([numbers[caption] for caption in captions])
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._cache: Any = None
        self._device = text_encoder.device

    @torch.no_grad()
    def __call__(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return the conditions of texts, float32 [n, length, width], on the device; numbers int64 [n] on the CPU."""
        if self._cache is not None:
            return torch.from_numpy(self._cache[numbers.numpy()]).to(self._device).float()
        return self.encode([self.texts[number] for number in numbers.tolist()])

    @torch.no_grad()
    def encode(self, texts: list[str]) -> torch.Tensor:
        """Return the conditions of any texts, as a call does."""
        return encode(self._tokenizer, self._text_encoder, texts)[0].float()

    def fill_cache(self, path: Path, batch: int = 256) -> None:
        """Encode all texts into a file, float16 [n, length, width], if it is not there, and read from it ever after.

        Raises:
            ValueError: The file is there and belongs to other texts.
        """
        if not corpus.holds(path, self.texts, option="--embeddings"):
            begun = path.with_suffix(".unfinished")
            for begin in range(0, len(self.texts), batch):
                part = self.encode(self.texts[begin : begin + batch]).half().cpu().numpy()
                if begin == 0:
                    shape = (len(self.texts), *part.shape[1:])
                    cache = np.lib.format.open_memmap(begun, mode="w+", dtype=np.float16, shape=shape)
                cache[begin : begin + len(part)] = part
            cache.flush()
            begun.rename(path)
            corpus.claim(path, self.texts)
        self._cache = np.load(path, mmap_mode="r")
        self._text_encoder.cpu()
