"""First derivatives that nest, by `torch.func` under its transforms, by autograd without.

For a single task plain autograd is much faster, and it differentiates all that PyTorch can
differentiate twice: models that `torch.func` cannot trace work in a loop over tasks. As with
`torch.func`, a result requires grad only if something that it was computed from does.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_function, invalid, message, mistyped
from metalearn._modes import in_transform
from metalearn._tree import tree_detach, tree_filled, tree_leaves, tree_pairs
from metalearn.types import Params


def grad_and_value(
    function: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
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
        has_aux: Whether it returns `(value, aux)`, with a pytree of tensors that comes along.

    Returns:
        A function of the same arguments that returns `(gradient, value)`, or
        `(gradient, (value, aux))`: a gradient shaped as the argument, or a tuple of them if
        `argnums` is one; zero for what `function` does not use.

    Raises:
        TypeError: If `function` is no function or returns no tensor, `argnums` is no int or tuple
            of ints, or an argument to differentiate has a leaf that is no floating tensor.
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

    def gradient(*args: Any) -> tuple[Any, Any]:
        if in_transform():
            return torch.func.grad_and_value(function, argnums=argnums, has_aux=has_aux)(*args)
        if not all(-len(args) <= index < len(args) for index in chosen):
            raise invalid("argnums", f"be numbers of {len(args)} arguments", argnums)
        if len({index % len(args) for index in chosen}) < len(chosen):
            raise invalid("argnums", "be each given once", argnums)
        at = tuple(args[index] for index in chosen)
        nested = _requires_grad(at, args)
        inputs = _inputs(tree_leaves(at), nested)
        replaced = list(args)
        for index, tree in zip(chosen, tree_filled(at, inputs), strict=True):
            replaced[index] = tree
        with torch.enable_grad():
            value = result = function(*replaced)
        if has_aux:
            value, _ = result
        gradients = tree_filled(at, _slopes(value, inputs, nested))
        result = result if nested else tree_detach(result)
        return (gradients if isinstance(argnums, tuple) else gradients[0]), result

    return gradient


def vjp(function: Callable[..., Any], *at: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return a function's value, and the map from its cotangents to those of the arguments.

    It is `torch.func.vjp` under transforms of `torch.func` and where it is compiled, and plain
    autograd elsewhere; as `grad_and_value`, it nests.

    Args:
        function: Returns a pytree of tensors, of tensors that are its arguments or require no grad.
        at: Its arguments, pytrees of tensors.

    Returns:
        The value, and a function of a pytree shaped as it that returns a tuple, for every argument
        a pytree shaped as this; it can be called many times.

    Raises:
        TypeError: If `function` is no function or does not return tensors, or an argument has a
            leaf that is no floating tensor.

    >>> value, pull = vjp(lambda x, y: x * y, torch.tensor(2.0), torch.tensor(3.0))
    >>> pull(torch.tensor(1.0))
    (tensor(3.), tensor(2.))
    """
    check_function("function", function, fix="Write vjp(gradient, params).")
    if in_transform():
        return torch.func.vjp(function, *at)  # type: ignore[return-value]
    nested = _requires_grad(at)
    outputs, pull = _linearised(function, at, nested, retain_graph=True)
    for leaf in tree_leaves(outputs):
        if not isinstance(leaf, Tensor):
            raise mistyped("function", "return tensors", brief(leaf))
    return (outputs if nested else tree_detach(outputs)), pull


def pullback(function: Callable[..., Any], *at: Any) -> Callable[[Any], Any]:
    """Return the map that `vjp` returns, to be called once: it frees what it has passed."""
    if in_transform():
        return torch.func.vjp(function, *at)[1]
    nested = _requires_grad(at)
    return _linearised(function, at, nested, retain_graph=nested)[1]


def loss_gradient(
    loss: Callable[..., Tensor], params: Params, *rest: Any, fresh: bool
) -> tuple[Params, Tensor]:
    """Return `grad_and_value(loss)(params, *rest)`, as an inner loop needs it at every step.

    Args:
        loss: As there.
        params: What it is differentiated with respect to.
        rest: Its other arguments.
        fresh: Whether nothing that the loss may read depends on `params` but these themselves.
    """
    if in_transform():
        return torch.func.grad_and_value(loss)(params, *rest)
    nested = _requires_grad(params, rest)
    inputs = _inputs(list(params.values()), nested, fresh)
    args = dict(zip(params, inputs, strict=True)), *rest
    with torch.enable_grad():
        value = loss(*args)
    grads = _slopes(value, inputs, nested)
    return dict(zip(params, grads, strict=True)), value if nested else value.detach()


def _linearised(
    function: Callable[..., Any], at: tuple[Any, ...], nested: bool, retain_graph: bool
) -> tuple[Any, Callable[[Any], Any]]:
    """Return a function's value with its graph, and the map from its cotangents to `at`'s."""
    inputs = _inputs(tree_leaves(at), nested)
    with torch.enable_grad():
        outputs = function(*tree_filled(at, inputs))

    def pull(cotangents: Any) -> Any:
        pairs = tree_pairs(outputs, cotangents)
        inside = nested or _requires_grad(cotangents)
        return tree_filled(at, _pulled(pairs, inputs, inside, retain_graph or inside))

    return outputs, pull


def _requires_grad(*trees: Any) -> bool:
    """Return whether a derivative around this one may need how the result depends on these."""
    if torch.is_grad_enabled():
        for tree in trees:
            for leaf in tree_leaves(tree):
                if isinstance(leaf, Tensor) and leaf.requires_grad:
                    return True
    return False


def _inputs(leaves: Sequence[Any], nested: bool, fresh: bool = False) -> list[Tensor]:
    """Return tensors of the same values that nothing else depends on: constants stay constant.

    They are views, or the leaves themselves if these are fresh.
    """
    for leaf in leaves:
        if not (isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())):
            what, fix = "what is differentiated with respect to", "Pass weights.float(), say."
            raise mistyped(what, "be floating tensors", brief(leaf), fix)
    return [
        (leaf if fresh else leaf.view_as(leaf))
        if nested and leaf.requires_grad
        else leaf.detach().requires_grad_()
        for leaf in leaves
    ]


def _slopes(value: Any, inputs: list[Tensor], nested: bool) -> list[Tensor]:
    """Return the derivatives of a value with respect to inputs; of several values, of their sum."""
    if not isinstance(value, Tensor):
        raise mistyped("function", "return a scalar tensor", brief(value))
    with torch.enable_grad():
        total = value.sum() if value.dim() else value
    return _pulled([(total, None)], inputs, nested, retain_graph=nested)


def _pulled(
    pairs: Sequence[tuple[Tensor, Tensor | None]],
    inputs: list[Tensor],
    nested: bool,
    retain_graph: bool,
) -> list[Tensor]:
    """Pull cotangents, paired with what they are of, back to the inputs; None for a scalar."""
    if not nested:  # Autocast would keep a copy of every step's parameters for as long as it lasts.
        torch.clear_autocast_cache()
    reached = [pair for pair in pairs if pair[0].requires_grad]
    if not inputs:
        return []
    if not reached:
        if torch.is_inference_mode_enabled():
            got, fix = "torch.inference_mode", "Use torch.no_grad()."
            raise RuntimeError(message("mode of inner gradients", "let autograd record", got, fix))
        return [torch.zeros_like(each) for each in inputs]
    outputs, bars = zip(*reached, strict=True)
    options = {"retain_graph": retain_graph, "create_graph": nested, "allow_unused": True}
    grads = torch.autograd.grad(outputs, inputs, bars, **options)
    return [
        torch.zeros_like(each) if grad is None else grad
        for each, grad in zip(inputs, grads, strict=True)
    ]
