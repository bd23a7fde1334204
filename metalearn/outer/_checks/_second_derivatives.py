"""Functions of autograd whose backward passes are no functions that autograd can differentiate."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from metalearn._checks import invalid
from metalearn._tree import tree_leaves
from metalearn.outer._base import MetaGradient
from metalearn.outer._forward_gradient import ForwardGradient
from metalearn.outer._forward_mode import ForwardMode
from metalearn.outer._wrapper import unwrapped
from metalearn.types import Params

FIX = (
    "Write their backward in differentiable functions of PyTorch, without once_differentiable, or "
    "take first derivatives alone: estimator=outer.Unrolled(order=1), outer.OneStep(), "
    "outer.Penalty(100.0)."
)


def differentiated_twice(estimator: MetaGradient, init: Params, shared: Params) -> list[Tensor]:
    """Return what the support loss's gradient, which is differentiated, is taken with respect to.

    Layers that do not adapt are differentiated once, unless derivatives travel through them.
    """
    if estimator.traits.order < 2:
        return []
    travel = isinstance(unwrapped(estimator), ForwardMode | ForwardGradient)
    return tree_leaves((init, shared) if travel else init)


def check_second_derivatives(loss: Tensor, at: Sequence[Tensor]) -> None:
    """Raise if a loss's gradient is cut off from what it depends on.

    Where a backward pass is marked as `once_differentiable`, or computes without autograd,
    derivatives of the gradient lack a part: PyTorch raises only if the gradient that comes in
    requires grad itself. Here it always does, so that all that goes on must too.

    Args:
        loss: A scalar; its graph is kept.
        at: Tensors that the gradient is taken with respect to; none if it is not differentiated.

    Raises:
        ValueError: If a function's backward cannot be differentiated.
    """
    nodes = [node for node in _nodes(loss) if isinstance(node, BackwardCFunction)]
    if not (nodes and at):
        return
    cut: set[str] = set()
    handles = [node.register_hook(_finder(node, cut)) for node in nodes]
    try:
        scale = torch.ones_like(loss, requires_grad=True)
        torch.autograd.grad(loss, list(at), scale, create_graph=True, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    if cut:
        got = f"{sorted(cut)}, differentiable once"
        raise invalid("autograd functions in the support loss", "be differentiable twice", got, FIX)


def _nodes(loss: Tensor) -> Iterator[Any]:
    """Return all nodes of a loss's graph."""
    seen, left = set(), [loss.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            left += [following for following, _ in node.next_functions]
            yield node


def _finder(node: Any, cut: set[str]) -> Callable[..., None]:
    """Return a hook that notes a node by name if its backward cannot be differentiated."""

    def find(passed_on: tuple[Tensor | None, ...], come_in: tuple[Tensor | None, ...]) -> None:
        bars = [bar for bar in come_in if bar is not None and bar.requires_grad]
        if not bars:  # cut off already
            return
        moves = any(bar.any() for bar in bars)
        for grad, (following, _) in zip(passed_on, node.next_functions, strict=True):
            if grad is None or following is None:
                continue
            # a gradient of zero wherever it is taken, as that of a sign, may be a constant
            is_constant = not grad.requires_grad and (grad.any() or not moves)
            # what once_differentiable puts there
            if is_constant or type(grad.grad_fn).__name__ == "Error":
                cut.add(node._forward_cls.__qualname__)

    return find
