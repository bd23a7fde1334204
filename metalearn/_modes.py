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


_CAPTURED: ContextVar[str] = ContextVar("captured", default="")


def in_transform() -> bool:
    """Return whether this code runs under a transform of `torch.func`, or is being compiled."""
    return (
        torch.compiler.is_compiling()
        or _CAPTURED.get() == "whole"
        or torch._C._are_functorch_transforms_active()
    )


def is_captured() -> bool:
    """Return whether a learner captures this code: its tensors have no values."""
    return bool(_CAPTURED.get())


@contextmanager
def capturing(what: str) -> Iterator[None]:
    """Let code be captured.

    Args:
        what: "whole" for a meta-step, which runs under transforms of `torch.func` then; or "piece"
            for a part of its inner loop, which plain autograd differentiates.
    """
    token = _CAPTURED.set(what)
    try:
        yield
    finally:
        _CAPTURED.reset(token)


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
