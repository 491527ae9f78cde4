"""A byte-level language model: what is trained on the mixture."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .corpus import START, VOCABULARY

CONTEXT = 8  # bytes


class ByteModel(nn.Module):
    """Predicts every byte of a sequence from the 8 before it: embeddings, one hidden layer, softmax.

    The neural language model of Bengio and others (2003), on bytes.

    Args:
        width: Hidden units.
        seed: Of the initial weights.
    """

    def __init__(self, *, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCABULARY, 16)
            self.hidden = nn.Linear(16 * CONTEXT, width)
            self.out = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """Losses in bits, float32 [n, length], of tokens int64 [n, length]."""
        before = F.pad(tokens[:, :-1], (CONTEXT, 0), value=START).unfold(1, CONTEXT, 1)
        logits = self.out(F.relu(self.hidden(self.embed(before).flatten(2))))
        losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
        return losses.view(tokens.shape) / math.log(2)


def tokens_of(sequences: np.ndarray) -> Tensor:
    """Tokens of sequences, uint8 [n, length], as the model takes them."""
    return torch.from_numpy(sequences.astype(np.int64))


def evaluate(model: ByteModel, groups: tuple[np.ndarray, ...]) -> list[float]:
    """Mean loss of each group's sequences, in bits a byte."""
    with torch.inference_mode():
        return [float(torch.cat([model(part) for part in tokens_of(group).split(256)]).mean()) for group in groups]
