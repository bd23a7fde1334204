"""Modes that code may be called in: transforms of `torch.func`, compilation, inference."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from metalearn._tree import tree_map

P = ParamSpec("P")
T = TypeVar("T")


_IS_CAPTURED: ContextVar[bool] = ContextVar("is_captured", default=False)


def in_transform() -> bool:
    """Return whether this code runs under a transform of `torch.func`, or is being compiled."""
    return is_traced() or torch._C._are_functorch_transforms_active()


def is_traced() -> bool:
    """Return whether `torch.compile` traces this code, or a learner captures it."""
    return torch.compiler.is_compiling() or _IS_CAPTURED.get()


@contextmanager
def capturing() -> Iterator[None]:
    """Let code run as it is to be compiled."""
    token = _IS_CAPTURED.set(True)
    try:
        yield
    finally:
        _IS_CAPTURED.reset(token)


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that an outer `torch.compile` does not trace, importing it only there."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def outside_inference_mode(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function under `torch.no_grad` in place of `torch.inference_mode`.

    Lightning and others validate in that mode, and adaptation needs gradients.
    """
    with torch.inference_mode(False), torch.no_grad():
        outer_args, outer_kwargs = tree_map(_as_made_outside, (args, kwargs))
        return function(*outer_args, **outer_kwargs)


def _as_made_outside(leaf: Any) -> Any:
    """Return a tensor that autograd takes: those made under `torch.inference_mode` it refuses."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf
