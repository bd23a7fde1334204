"""First derivatives that nest: those of `torch.func` under its transforms, and of plain autograd
without.

For a single task plain autograd is much faster, and it differentiates all that PyTorch can
differentiate twice: models that `torch.func` cannot trace work in a loop over tasks. As with
`torch.func`, a result requires grad only if something that it was computed from does.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from metalearn._checks import message
from metalearn._tree import tree_detach, tree_leaves, tree_map, tree_pairs

P = ParamSpec("P")
T = TypeVar("T")


def grad_and_value(
    function: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0
) -> Callable[..., Any]:
    """Return a function that returns gradient and value, as `torch.func.grad_and_value` does.

    Args:
        function: Returns a scalar, of tensors that are among its arguments or require no grad.
            Outside of transforms it may return one scalar for each of independent tasks, whose sum
            is differentiated.
        argnums: Which of its arguments, pytrees of tensors, it is differentiated with respect to.
    """
    if in_transform():
        return torch.func.grad_and_value(function, argnums=argnums)

    def gradient(*args: Any) -> tuple[Any, Tensor]:
        chosen = (argnums,) if isinstance(argnums, int) else argnums
        nested = _requires_grad(args)
        inputs = _inputs(tuple(args[index] for index in chosen), nested)
        replaced = dict(zip(chosen, inputs, strict=True))
        with torch.enable_grad():
            value = function(*(replaced.get(index, arg) for index, arg in enumerate(args)))
            total = value.sum() if value.dim() else value
        grads = _backward(total, inputs, None, nested, retain_graph=nested)
        return (grads[0] if isinstance(argnums, int) else grads), (
            value if nested else value.detach()
        )

    return gradient


def vjp(function: Callable[..., Any], *at: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return the function's value, and the map from its cotangents to those of `at`, as
    `torch.func.vjp` does.

    Args:
        function: Returns a pytree of tensors, of tensors that are its arguments or require no grad.
        at: Its arguments, pytrees of tensors.
    """
    if in_transform():
        return torch.func.vjp(function, *at)  # type: ignore[return-value]
    nested = _requires_grad(at)
    inputs = _inputs(at, nested)
    with torch.enable_grad():
        outputs = function(*inputs)

    def pull(cotangents: Any) -> Any:
        return _backward(
            outputs, inputs, cotangents, nested or _requires_grad(cotangents), retain_graph=True
        )

    return (outputs if nested else tree_detach(outputs)), pull


def in_transform() -> bool:
    """Return whether this code runs under a transform of `torch.func`, or is being compiled."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that an outer `torch.compile` does not trace; without one nothing of it is
    imported.
    """
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def outside_inference_mode(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function under `torch.no_grad` in place of `torch.inference_mode`, where nothing has a
    gradient.

    Lightning and others validate in that mode, and adaptation needs gradients.
    """
    with torch.inference_mode(False), torch.no_grad():
        outer_args, outer_kwargs = tree_map(_as_made_outside, (args, kwargs))
        return function(*outer_args, **outer_kwargs)


def _as_made_outside(leaf: Any) -> Any:
    """Return a tensor that autograd takes: those made under `torch.inference_mode` it refuses."""
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.is_inference() else leaf


def _requires_grad(tree: Any) -> bool:
    """Return whether a derivative around this one needs to know how the result depends on the
    tree.
    """
    tensors = (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _inputs(at: Any, nested: bool) -> Any:
    """Return tensors of the same values that nothing depends on yet, so that constants stay
    constant.
    """
    return tree_map(
        lambda leaf: (
            leaf.view_as(leaf) if nested and leaf.requires_grad else leaf.detach().requires_grad_()
        ),
        at,
    )


def _backward(outputs: Any, inputs: Any, cotangents: Any, nested: bool, retain_graph: bool) -> Any:
    """Pull cotangents of the outputs back to the inputs; None for a scalar's derivative."""
    if not nested:  # Autocast would keep a copy of every step's parameters for as long as it lasts.
        torch.clear_autocast_cache()
    pairs = [(outputs, None)] if cotangents is None else tree_pairs(outputs, cotangents)
    reached = [pair for pair in pairs if pair[0].requires_grad]
    if not reached:
        if torch.is_inference_mode_enabled():
            got, fix = "torch.inference_mode", "Use torch.no_grad()."
            raise RuntimeError(message("mode of inner gradients", "let autograd record", got, fix))
        return tree_map(torch.zeros_like, inputs)
    values, bars = zip(*reached, strict=True)
    options = {"retain_graph": retain_graph, "create_graph": nested, "materialize_grads": True}
    grads = iter(torch.autograd.grad(values, tree_leaves(inputs), bars, **options))
    return tree_map(lambda _: next(grads), inputs)
