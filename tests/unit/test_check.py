"""The checks of arguments: what they read, how they shorten what came, and that their hints work."""

import numpy as np
import pytest

from aria_sampling._check import as_array, float_vector, instance, int_vector, shown


@pytest.mark.parametrize(
    "value",
    [
        [0, 1] * 500_000,
        tuple("x" * 1000 for _ in range(30)),
        "x" * 10**6,
        b"x" * 10**6,
        {i: i for i in range(10**5)},
        np.arange(10**6),
        [["x" * 10**5]],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_came_is_shown_in_200_characters(value):
    assert len(shown(value)) <= 200
    with pytest.raises(ValueError, match=r"^partition: expected an instance of int, got ") as caught:
        instance("partition", value, int)
    assert len(str(caught.value)) <= 300


def test_short_values_are_shown_whole():
    for value in ([1, 2], (), "text", None, 0.1, {"a": 1}, list(range(20))):
        assert shown(value) == repr(value)
    assert shown(list(range(30))) == f"{str(list(range(20)))[:-1]}, ... (30 in all)"


def test_what_can_not_be_shown():
    class Mute:
        def __repr__(self):
            raise OSError

    assert shown(Mute()) == "<Mute>"


def test_tensors_are_read_with_their_gradient_in_any_precision():
    torch = pytest.importorskip("torch")
    for loss in (
        torch.ones(2, requires_grad=True),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2, dtype=torch.float16),
        torch.ones(2, dtype=torch.int32),
    ):
        found = float_vector("losses", loss)
        assert found.dtype == np.float64
        assert found.tolist() == [1.0, 1.0]
    assert int_vector("regions", torch.tensor([1, 0], dtype=torch.uint8)).tolist() == [1, 0]


class OnAnotherDevice:
    """A tensor that NumPy reads only after `.cpu()`, as those of an accelerator."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def cpu(self):
        return self.array

    def __array__(self, *_, **__):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_tensors_of_another_device():
    assert float_vector("losses", OnAnotherDevice(np.array([1.5]))).tolist() == [1.5]
    assert int_vector("regions", OnAnotherDevice(np.array([2]))).tolist() == [2]


def sparse_of(kind):
    dense = np.array([[0.0], [2.0]])
    if kind == "torch":
        return pytest.importorskip("torch").tensor(dense).to_sparse()
    return getattr(pytest.importorskip("scipy.sparse"), kind)(dense)


@pytest.mark.parametrize("kind", ["torch", "csr_matrix", "csr_array", "coo_matrix", "lil_matrix"])
def test_sparse_arrays_are_told_what_to_do(kind):
    values = sparse_of(kind)
    with pytest.raises(ValueError, match=r"^losses: expected .*, got a sparse \w+ of shape \(2, 1\)") as caught:
        float_vector("losses", values)
    names = {"losses": values, "x": values}
    exec(caught.value.remedy, names)
    assert float_vector("losses", names["losses"]).tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"^x: expected an array, got a sparse ") as caught:
        as_array("x", values, "an array")
    exec(caught.value.remedy, names)
    assert as_array("x", names["x"], "an array").shape == (2, 1)


def test_objects_that_are_all_numbers():
    assert float_vector("x", np.array([1, 2.5], object)).tolist() == [1, 2.5]
    assert int_vector("x", np.array([1, 2], object)).tolist() == [1, 2]
    for bad in ([1, None], ["1", 2], [[1], [1, 2]]):
        array = np.empty(2, object)
        array[:] = bad
        with pytest.raises(ValueError, match=r"^x: expected integers, got dtype object"):
            int_vector("x", array)
    with pytest.raises(ValueError, match=r"^x: expected integers, got dtype float64"):
        int_vector("x", np.array([1, 2.5], object))


def test_series():
    for name in ("pandas", "polars"):
        library = pytest.importorskip(name)
        assert float_vector("x", library.Series([1.5, 2.0])).tolist() == [1.5, 2.0]
        assert int_vector("x", library.Series([1, 2])).tolist() == [1, 2]
    pandas = pytest.importorskip("pandas")
    assert int_vector("x", pandas.Series([1, 2], dtype="Int64")).tolist() == [1, 2]


def test_what_numpy_can_not_read():
    class Unreadable:
        def __array__(self, *_, **__):
            raise OSError("no array " * 1000)

    for bad in (Unreadable(), [[1], [1, 2]]):
        with pytest.raises(ValueError, match=r"^x: expected .*, got \w+, which NumPy cannot read") as caught:
            float_vector("x", bad)
        assert len(str(caught.value)) <= 900
    with pytest.raises(ValueError, match=r"^x: expected numbers, got ndarray, which NumPy cannot read"):
        as_array("x", np.array(["a"]), "numbers", np.float64)
