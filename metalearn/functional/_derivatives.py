"""First derivatives that nest: those of `torch.func` under its transforms, and of plain autograd
without.

For a single task plain autograd is much faster, and it differentiates all that PyTorch can
differentiate twice: models that `torch.func` cannot trace work in a loop over tasks. As with
`torch.func`, a result requires grad only if something that it was computed from does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_function, invalid, message, mistyped
from metalearn._modes import in_transform
from metalearn._tree import tree_detach, tree_leaves, tree_map, tree_pairs


def grad_and_value(
    function: Callable[..., Tensor], argnums: int | tuple[int, ...] = 0
) -> Callable[..., Any]:
    """Return a function that returns the gradient of another one, and its value.

    It is `torch.func.grad_and_value` under transforms of `torch.func` and where it is compiled, and
    plain autograd elsewhere, so that an estimator works under `vmap` and in a loop over tasks.
    Derivatives nest: gradient and value are functions of all arguments that require grad.

    Args:
        function: Returns a scalar, of tensors that are among its arguments or require no grad.
            Outside of transforms it may return one scalar for each of independent tasks, whose sum
            is differentiated.
        argnums: Which of its arguments, pytrees of tensors, it is differentiated with respect to.

    Returns:
        A function of the same arguments that returns `(gradient, value)`: a gradient shaped as the
        argument, or a tuple of them if `argnums` is one; zero for what `function` does not use.

    Raises:
        TypeError: If `function` is none or returns no tensor, `argnums` is no int or tuple of ints,
            or an argument to differentiate has a leaf that is no floating tensor.
        ValueError: If there is no argument of such a number.

    >>> def energy(params, x):
    ...     return (params["weight"] * x).square().sum()
    >>> params, x = {"weight": torch.tensor([1.0, 2.0])}, torch.tensor([3.0, 1.0])
    >>> gradient, value = grad_and_value(energy)(params, x)
    >>> gradient["weight"].tolist(), value.item()
    ([18.0, 4.0], 13.0)
    """
    check_function("function", function, fix="Write grad_and_value(loss)(params).")
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    if not chosen or not all(type(index) is int for index in chosen):
        fix = "Write argnums=(0, 1), say."
        raise mistyped("argnums", "be an int or a tuple of ints", brief(argnums), fix)
    if in_transform():
        return torch.func.grad_and_value(function, argnums=argnums)

    def gradient(*args: Any) -> tuple[Any, Tensor]:
        if not all(-len(args) <= index < len(args) for index in chosen):
            raise invalid("argnums", f"be numbers of {len(args)} arguments", argnums)
        nested = _requires_grad(args)
        inputs = _inputs(tuple(args[index] for index in chosen), nested)
        replaced = list(args)
        for index, tree in zip(chosen, inputs, strict=True):
            replaced[index] = tree
        with torch.enable_grad():
            value = function(*replaced)
            if not isinstance(value, Tensor):
                raise mistyped("function", "return a scalar tensor", brief(value))
            total = value.sum() if value.dim() else value
        grads = _backward(total, inputs, None, nested, retain_graph=nested)
        return (grads if isinstance(argnums, tuple) else grads[0]), (
            value if nested else value.detach()
        )

    return gradient


def vjp(function: Callable[..., Any], *at: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a function's value, and the map from cotangents of the value to those of its
    arguments.

    It is `torch.func.vjp` under transforms of `torch.func` and where it is compiled, and plain
    autograd elsewhere; as `grad_and_value`, it nests.

    Args:
        function: Returns a pytree of tensors, of tensors that are its arguments or require no grad.
        at: Its arguments, pytrees of tensors.

    Returns:
        The value, and a function of a pytree shaped as it that returns a tuple, for every argument
        a pytree shaped as this; it can be called many times.

    Raises:
        TypeError: If `function` is none, or an argument has a leaf that is no floating tensor.

    >>> value, pull = vjp(lambda x, y: x * y, torch.tensor(2.0), torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(3.), tensor(2.))
    """
    check_function("function", function, fix="Write vjp(gradient, params).")
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
    return tree_map(lambda leaf: _input(leaf, nested), at)


def _input(leaf: Any, nested: bool) -> Tensor:
    if not (isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())):
        what, fix = "what is differentiated with respect to", "Pass weights.float(), say."
        raise mistyped(what, "be floating tensors", brief(leaf), fix)
    return leaf.view_as(leaf) if nested and leaf.requires_grad else leaf.detach().requires_grad_()


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
