"""`embed.encode`: what an encoder may return, and what is refused with the item that it is about."""

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import embed


class Gives:
    def __init__(self, value):
        self.value = value

    def encode(self, texts):
        return self.value


TEXTS = ["a cat", "a dog"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "value",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]]),
        np.array([[1.0, 2], [3, 4]], np.float32),
        [np.array([1, 2]), (3, 4)],
    ],
)
def test_rows_of_any_kind_become_an_array(value, dtype):
    found = embed.encode(Gives(value), TEXTS, dtype=dtype, width=2)
    assert (found.dtype, found.tolist()) == (dtype, [[1, 2], [3, 4]])


def test_rows_in_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    for value in (tensor, tensor.bfloat16(), list(tensor)):
        assert embed.encode(Gives(value), TEXTS).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1.0, 2.0], r"\[2, width\].*got float64 \[2\] from Gives.encode"),
        ([[1.0]], r"a row for each of items 10 to 11.*float64 \[1, 1\]"),
        (np.ones((2, 3, 4)), r"float64 \[2, 3, 4\]"),
        (np.ones((2, 0)), r"float64 \[2, 0\]"),
        ([["a"], ["b"]], "expected real numbers"),
        (None, "expected real numbers"),
        ([[1.0], [1.0, 2.0]], "which NumPy cannot read"),
        (np.ones((2, 3)), r"expected 2 numbers a text, as before, got 3 for items 10 to 11"),
        ([[1.0, 2], [np.nan, 4]], r"NaN or infinity for 1 of items 10 to 11, the first is item 11: 'a dog'"),
        ([[np.inf, 2], [3, np.nan]], r"NaN or infinity for 2 of items 10 to 11, the first is item 10: 'a cat'"),
        ([[1.0, 2], [7e4, 4]], r"7e\+04 does not fit float16.*item 11: 'a dog'; pass dtype='float32'"),
        ([[0.0, 0], [3, 4]], r"got 0 for 1 of items 10 to 11, the first is item 10: 'a cat'; zeros='keep'"),
        ([[1e-9, 0], [3, 4]], r"item 10 \(its largest number, 1e-09, is 0 as float16\)"),
    ],
)
def test_what_is_no_embedding_is_refused(value, words):
    with pytest.raises(aria.ArgumentError, match=f"(?s){words}"):
        embed.encode(Gives(value), TEXTS, width=2, first=10)


def test_zeros_and_large_numbers_if_that_is_said():
    assert embed.encode(Gives([[0.0], [1.0]]), TEXTS, zeros="keep").tolist() == [[0], [1]]
    assert embed.encode(Gives([[7e4], [1e-9]]), TEXTS, dtype="float32")[0, 0] == 7e4


def test_errors_of_an_encoder_are_its_own():
    class Fails:
        def encode(self, texts):
            raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        embed.encode(Fails(), TEXTS)
