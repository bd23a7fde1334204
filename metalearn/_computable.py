"""Errors of the user's functions on the user's data, raised again as one error that says what does
not fit what.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import message
from metalearn._join import OutputTypeError, OutputValueError
from metalearn._tree import tree_leaves

WRONG_KINDS = (TypeError, AttributeError)
"""What is raised for arguments of a wrong kind; the others are for shapes and values."""

OF_CLASS_AXES = ("Expected target size", "size mismatch (got input")
"""What criteria say of outputs whose classes are not along axis 1."""


@contextmanager
def computable(what: str, data: Any, whose: str = "Its", beside: str = "") -> Iterator[None]:
    """Raise with the shapes of the data whatever goes wrong in a computation.

    A lack of memory and outputs that do not fit together say so themselves.

    Args:
        what: What is computed.
        data: Tensors that it is computed from.
        whose: Whose tensors the data are.
        beside: What else the error shall tell of, a part of a sentence.

    Raises:
        TypeError: For what PyTorch raises a TypeError, and for attributes that are missing.
        ValueError: For its other errors.
    """
    try:
        yield
    except (torch.OutOfMemoryError, OutputTypeError, OutputValueError):
        raise
    except (RuntimeError, IndexError, ValueError, *WRONG_KINDS) as error:
        shapes = ", ".join(
            f"{tuple(x.shape)} of {x.dtype}" if isinstance(x, Tensor) else brief(x)
            for x in tree_leaves(data)
        )
        kind = TypeError if isinstance(error, WRONG_KINDS) else ValueError
        fix = f"{whose} tensors are {shapes}{beside}: make them fit."
        if "dtype" in str(error):
            fix += " For one dtype write x.float(), say, or learner.double()."
        if any(text in str(error) for text in OF_CLASS_AXES):
            fix += " Classes are along axis 1 of an output: write output.movedim(-1, 1)."
        if isinstance(getattr(data, "x", data), tuple) and "missing" in str(error):
            fix += " A tuple is one argument; a dict is passed as keywords: "
            fix += "Batch({'u': u, 'v': v}, y)."
        got = f"{type(error).__name__}: {error}"
        raise kind(message(what, "be computable", got, fix)) from error
