"""A byte-level language model of one recurrent layer: what is trained on the mixture."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .corpus import START, VOCABULARY


class ByteModel(nn.Module):
    """Predicts every byte of a sequence from those before it: embedding, GRU, linear.

    Args:
        width: Units of the GRU.
        seed: Of the initial weights.
    """

    def __init__(self, *, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCABULARY, 64)
            self.gru = nn.GRU(64, width, batch_first=True)
            self.out = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Losses in bits, float32 [n, length], of tokens int64 [n, length]."""
        before = F.pad(tokens[:, :-1], (1, 0), value=START)
        hidden, _ = self.gru(self.embed(before))
        return F.cross_entropy(self.out(hidden).transpose(1, 2), tokens, reduction="none") / math.log(2)


def tokens_of(sequences: np.ndarray) -> Tensor:
    """Tokens of sequences, uint8 [n, length], as the model takes them."""
    return torch.from_numpy(sequences.astype(np.int64))


def evaluate(model: ByteModel, groups: tuple[np.ndarray, ...]) -> list[float]:
    """Mean loss of each group's sequences, in bits a byte."""
    with torch.inference_mode():
        return [float(torch.cat([model(part) for part in tokens_of(group).split(256)]).mean()) for group in groups]
