"""Second derivatives of a support loss as products with vectors: exact, or by first derivatives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalearn._tree import tree_map, tree_ravel
from metalearn.functional import grad_and_value, vjp
from metalearn.types import Params

Loss = Callable[[Params, Params], Tensor]


class Curvature(NamedTuple):
    """A loss around a point, to second order.

    Attributes:
        gradient: Its gradient to the parameters.
        hessian: The Hessian times a vector, both shaped as the parameters.
        mixed: (d^2 loss / dshared dparams) times a vector, shaped as what is shared.
    """

    gradient: Params
    hessian: Callable[[Params], Params]
    mixed: Callable[[Params], Params]


def curvature(loss: Loss, params: Params, shared: Params, epsilon: float | None) -> Curvature:
    """Return the curvature of a loss of parameters and what is shared.

    Args:
        loss: `(params, shared) -> scalar`.
        params: Where it is taken.
        shared: Likewise.
        epsilon: Norm of the steps over which gradients are differenced; None for exact products.
    """

    def gradient(params: Params, shared: Params) -> Params:
        return grad_and_value(loss)(params, shared)[0]

    def slope(params: Params) -> Params:
        return grad_and_value(loss, argnums=1)(params, shared)[0]

    if epsilon is not None:
        return Curvature(
            gradient(params, shared),
            lambda v: difference(lambda at: gradient(at, shared), params, v, epsilon),
            lambda v: difference(slope, params, v, epsilon),
        )
    grads, pull = vjp(lambda params: gradient(params, shared), params)
    return Curvature(
        grads,
        lambda v: pull(v)[0],
        lambda v: vjp(lambda shared: gradient(params, shared), shared)[1](v)[0],
    )


def difference(
    gradient: Callable[[Params], Any], params: Params, direction: Params, epsilon: float
) -> Any:
    """Return (g(params + h v) - g(params - h v)) / 2 h along v, with h = epsilon / |v|.

    That is the derivative of g along v, with an error of order epsilon^2; zero for a zero v.

    Args:
        gradient: g, which returns a pytree.
        params: Where the derivative is taken.
        direction: v.
        epsilon: Norm of a step to either side.
    """
    norm = tree_ravel(direction)[0].norm()
    step = epsilon / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    ahead = gradient(tree_map(lambda param, move: param + step * move, params, direction))
    behind = gradient(tree_map(lambda param, move: param - step * move, params, direction))
    return tree_map(lambda left, right: (left - right) / (2 * step), ahead, behind)
