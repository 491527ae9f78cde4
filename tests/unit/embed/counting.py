"""Encoders for tests: real functions of a text, that count their calls and can be told to fail."""

import hashlib

import numpy as np


class Counting:
    """Four numbers of a digest of each text. It keeps the texts that it has encoded, and fails at one if told to."""

    def __init__(self, width=4, fail_at=None):
        self.width, self.fail_at, self.texts = width, fail_at, []

    def encode(self, texts):
        assert type(texts) is list
        if self.fail_at in texts:
            raise RuntimeError("no more")
        self.texts += texts
        return rows(texts, self.width)


def rows(texts, width=4):
    """What `Counting` makes of texts: numbers that float16 has exactly."""
    digests = [hashlib.blake2b(text.encode(), digest_size=width).digest() for text in texts]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, width).astype(np.float64) + 1
