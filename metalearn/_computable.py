"""Errors of user code on user data, raised again with the shapes that do not fit."""

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
"""Errors of arguments of a wrong kind; others concern shapes and values."""

OF_CLASS_AXES = ("Expected target size", "size mismatch (got input")
"""Messages of criteria for outputs whose classes are not along axis 1."""


@contextmanager
def computable(what: str, data: Any, whose: str = "Its", beside: str = "") -> Iterator[None]:
    """Raise errors of a computation again with the shapes of its data.

    Out-of-memory errors and outputs that do not match pass unchanged.

    Args:
        what: Name of the computation.
        data: Tensors that go into it.
        whose: Whose tensors the data are.
        beside: Part of a sentence that the error adds.

    Raises:
        TypeError: For PyTorch's TypeErrors and missing attributes.
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
