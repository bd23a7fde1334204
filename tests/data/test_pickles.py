"""Pickles of data are read as pickle reads them; pickles of code are not."""

import collections
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from metalearn.data._pickles import read_pickle

NUMBERS = np.random.default_rng(0)

PLAIN = {
    "image_data": NUMBERS.integers(256, size=(4, 5, 5, 3), dtype=np.uint8),
    "class_dict": {"n01": [0, 2], "n02": np.array([1, 3])},
    "nested": [(1, 2.5, None, True), "text", b"bytes", np.int32(7), np.float64(0.5)],
    "fortran": np.asfortranarray(NUMBERS.normal(size=(3, 4))),
    "strings": np.array(["a", "bcd"]),
    "big endian": np.arange(3, dtype=">i4"),
}


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def write(tmp_path):
    def write(value, protocol=pickle.DEFAULT_PROTOCOL):
        (tmp_path / "x.pkl").write_bytes(
            value if isinstance(value, bytes) else pickle.dumps(value, protocol)
        )
        return tmp_path / "x.pkl"

    return write


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_and_arrays(write, protocol):
    value = read_pickle(write(PLAIN, protocol), "be a pickle")
    np.testing.assert_equal(value, PLAIN)
    assert value["image_data"].dtype == np.uint8


def test_pickles_of_python_2(write):
    # An array as Python 2 wrote it: its bytes are a string.
    written = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x02\xff\x07tbs."
    )
    np.testing.assert_equal(
        read_pickle(write(written), "be a pickle"), {"a": np.array([255, 7], np.uint8)}
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_does_not_run(write, tmp_path, protocol):
    payload = {"class_dict": {}, "image_data": Call(os.system, f"touch {tmp_path / 'ran'}")}
    with pytest.raises(
        ValueError,
        match=r"plain values and arrays only; got the global (posix|nt)\.system\. Nothing",
    ):
        read_pickle(write(payload, protocol), "be a pickle")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (Call(eval, "1"), r"the global (__builtin__|builtins)\.eval"),
        (Call(getattr, "a", "upper"), r"the global (__builtin__|builtins)\.getattr"),
        (partial(print), r"the global functools\.partial"),
        (collections.OrderedDict(a=1), r"the global collections\.OrderedDict"),
        (Path("a"), r"the global pathlib"),
        (np.array([{}, {}]), "an array of dtype object"),
        (np.zeros(2, [("a", "O")]), "an array of dtype"),
        (np.zeros(2, "V8"), r"an array of dtype \|V8"),
        (np.array(["2020"], "M8[D]"), "an array of dtype datetime64"),
        (np.load, r"the global numpy\.load"),
        (np.random.default_rng, r"the global numpy\.random"),
        (b"Pname\n.", "a reference to an object outside it"),
    ],
)
def test_what_is_refused_is_named(write, value, refused):
    with pytest.raises(
        ValueError, match=rf"x\.pkl must hold plain values and arrays only; got {refused}"
    ):
        read_pickle(write(value), "be a pickle")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"no pickle",
        pickle.dumps(PLAIN)[:-50],
        pickle.dumps(Call(np.ndarray, (2,), "O")),
        b"\x80\x02cnumpy\nndarray\n)\x81.",  # numpy.ndarray.__new__
        # an empty list, as part 67,108,863, which Python makes a table for
        b"\x80\x02]r\xff\xff\xff\x03.",
    ],
    ids=["empty", "text", "cut", "constructor", "new", "sparse"],
)
def test_damaged_pickles_are_named(write, value):
    with pytest.raises(
        ValueError, match=r"x\.pkl must be a pickle; got .*: .*\. Download it again\."
    ):
        read_pickle(write(value), "be a pickle")


def test_a_missing_pickle(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"root must hold it; got no file .*x\.pkl"):
        read_pickle(tmp_path / "x.pkl", "hold it")


class WithState:
    """Pickles as NumPy's dtype "u1" with a state of its own."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.dtype, ("u1", False, True), self.state


@pytest.mark.parametrize(
    "state",
    [
        # an element outside of the array's memory
        (3, "|", None, ("a",), {"a": (np.dtype("u1"), 4096)}, 1, 1, 0),
        (3, "|", (np.dtype("u1"), (9,)), None, None, -1, -1, 0),
        (3, "O", None, None, None, -1, -1, 0x3F),
    ],
)
def test_types_take_no_state_but_their_byte_order(tmp_path, state):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(WithState(state)))
    with pytest.raises(ValueError, match="a dtype with the state"):
        read_pickle(path, "be a pickle")


@pytest.mark.parametrize(
    "name", ["multiarray\nscalar", "multiarray\n_reconstruct", "numeric\n_frombuffer"]
)
def test_functions_take_no_state(tmp_path, name):
    path = tmp_path / "x.pkl"
    path.write_bytes(f"cnumpy.core.{name}\n}}b.".encode())
    with pytest.raises(ValueError, match="a state for a function"):
        read_pickle(path, "be a pickle")
