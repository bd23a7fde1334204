"""Read the pickles that data sets come in, which could hold code, without running any.

A pickle says which functions to call. Here they are the few below, whatever it asks for: enough for arrays of numbers
and strings in lists, tuples and dicts. None of them is a class, so that nothing else can be constructed.
"""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metalearn._checks import invalid

KINDS = "biufSU"
"""Kinds of the elements of arrays: numbers and strings, no objects."""


def read_pickle(file: Path, condition: str) -> Any:
    """Read a pickle of plain values and arrays, by whichever Python it was written.

    Args:
        file: The pickle.
        condition: What errors say that it must be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or asks for anything that is not needed for arrays.
    """
    if not file.is_file():
        raise FileNotFoundError(invalid("root", condition, f"no file {file}"))
    try:
        with file.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except _RefusedError as error:
        fix = "Nothing in it was run; do not trust where it comes from."
        raise ValueError(invalid(str(file), "hold plain values and arrays only", error, fix)) from error
    except Exception as error:  # Damaged pickles raise errors of many types.
        got, fix = f"{type(error).__name__}: {error}", "Download it again."
        raise ValueError(invalid(str(file), condition, got, fix)) from error


class _RefusedError(Exception):
    """What a pickle asked for that it does not get."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")  # As NumPy 2 calls it.
        if (module, name) not in ALLOWED:
            raise _RefusedError(f"the global {module}.{name}")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a reference to an object outside it")


def _dtype(code: Any, *_: Any) -> np.dtype:
    dtype = np.dtype(code, copy=True)  # The pickle then sets its byte order.
    if dtype.kind not in KINDS:
        raise _RefusedError(f"an array of dtype {dtype}")
    return dtype


def _array(*_: Any) -> np.ndarray:
    """Return the empty array that NumPy's pickles then fill."""
    return np.empty(0, np.int8)


def _array_of_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, value: bytes) -> Any:
    return np.frombuffer(value, dtype)[0]


def _encode(text: str, *_: Any) -> bytes:
    """Encode the bytes of pickles of protocol 2, which are text in Latin-1."""
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): "an argument of _reconstruct, of which nothing can be made",
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _array_of_buffer,
    ("_codecs", "encode"): _encode,
}
