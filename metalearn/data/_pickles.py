"""Read pickled data sets without executing code in them.

A pickle names functions to call and states to set on what they return. Only the few functions below
are allowed, enough for arrays of numbers and strings in lists, tuples and dicts. Dtypes and arrays
are stand-ins that check their states, since NumPy's own accept any, and functions take no state.
"""

import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from metalearn._checks import invalid, message

KINDS = "biufSU"
"""Allowed kinds of array elements: numbers and strings, not objects."""


def read_pickle(file: Path, condition: str) -> Any:
    """Read a pickle of plain values and arrays, written by any version of Python.

    Args:
        file: The pickle.
        condition: The condition for error messages.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged, or needs more than plain values and arrays.
    """
    if not file.is_file():
        raise FileNotFoundError(message("root", condition, f"no file {file}"))
    try:
        with file.open("rb") as stream:
            _check_sizes(stream)
            stream.seek(0)
            return _plain(_Unpickler(stream, encoding="latin1").load())
    except _RefusedError as error:
        fix = "Nothing in it was run; do not trust where it comes from."
        raise invalid(str(file), "hold plain values and arrays only", error, fix) from error
    except Exception as error:  # damaged pickles raise errors of many types
        got, fix = f"{type(error).__name__}: {error}", "Download it again."
        raise invalid(str(file), condition, got, fix) from error


def _check_sizes(stream: IO[bytes]) -> None:
    """Raise if a pickle is cut, or if a memo index would make the unpickler's table huge."""
    for place, (opcode, number, _) in enumerate(pickletools.genops(stream)):
        if opcode.name.endswith("PUT") and number not in range(place + 1):
            raise ValueError(f"part {number} after {place} operations")


class _RefusedError(Exception):
    """A pickle asked for something that is not allowed."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")  # NumPy 2's name
        if (module, name) not in ALLOWED:
            raise _RefusedError(f"the global {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a reference to an object outside it")


class _DType:
    """A dtype of plain elements; its state may say their byte order."""

    __slots__ = ("value",)

    def __init__(self, code: Any, *_: Any) -> None:
        self.value = np.dtype(code if isinstance(code, str) else object)
        if self.value.kind not in KINDS:
            raise _RefusedError(f"an array of dtype {self.value}")

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in structure):
            raise _RefusedError(f"a dtype with the state {state!r}")
        if order != "|":
            self.value = self.value.newbyteorder(order)


class _Array:
    """An array, once its state is set."""

    __slots__ = ("value",)

    def __init__(self, *_: Any) -> None:
        self.value = np.empty(0, np.int8)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        if not isinstance(dtype, _DType):
            raise _RefusedError(f"an array of dtype {dtype!r}")
        self.value = _elements(raw, dtype).reshape(shape, order="F" if is_fortran else "C")


class _Call:
    """A function that refuses a state."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _RefusedError("a state for a function")


def _elements(raw: bytes | str, dtype: _DType) -> np.ndarray:
    # Python 2 wrote bytes as strings, which are read as Latin-1
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.value)


def _from_buffer(buffer: bytes, dtype: _DType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return _elements(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: _DType, value: bytes | str) -> Any:
    return _elements(value, dtype)[0]


def _encode(text: str, *_: Any) -> bytes:
    """Return the bytes that protocol 2 stores as Latin-1 text."""
    return text.encode("latin1")


def _plain(content: Any, done: dict[int, Any] | None = None) -> Any:
    """Replace stand-ins by their arrays; shared parts stay shared."""
    done = {} if done is None else done
    if id(content) not in done:
        done[id(content)] = _replaced(content, done)
    return done[id(content)]


def _replaced(content: Any, done: dict[int, Any]) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value, done) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_plain(part, done) for part in content)
    return content.value if isinstance(content, _Array | _DType) else content


def as_array(content: Any) -> np.ndarray:
    """Return an array, or a list of ints as one; a nested list could become arbitrarily large."""
    is_list = isinstance(content, list | tuple)
    if is_list and not all(isinstance(part, int | np.integer) for part in content):
        raise TypeError(f"{type(content).__name__} of other things than integers")
    return np.asarray(content)


ALLOWED: dict[tuple[str, str], _Call | str] = {
    ("numpy", "dtype"): _Call(_DType),
    ("numpy", "ndarray"): "an argument of _reconstruct, of which nothing can be made",
    ("numpy.core.multiarray", "_reconstruct"): _Call(_Array),
    ("numpy.core.multiarray", "scalar"): _Call(_scalar),
    ("numpy.core.numeric", "_frombuffer"): _Call(_from_buffer),
    ("_codecs", "encode"): _Call(_encode),
}
