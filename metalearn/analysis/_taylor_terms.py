"""The two gradients that MAML, first-order MAML and Reptile are made of."""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn as nn
from torch import Tensor
from torch.func import grad, vmap

from metalearn._checks import check_function, check_kind, invalid
from metalearn._computable import computable
from metalearn._tree import tree_leaves
from metalearn.functional import ModelLoss
from metalearn.types import Batch


class TaylorTerms(NamedTuple):
    """What `taylor_terms` returns, by the names of the model's parameters.

    Attributes:
        average_gradient: AvgGrad, the mean gradient over mini-batches and tasks.
        average_inner_gradient: AvgGradInner, half of the gradient of the inner product of two
            mini-batches' gradients, its mean over pairs of mini-batches and tasks.
    """

    average_gradient: dict[str, Tensor]
    average_inner_gradient: dict[str, Tensor]


def taylor_terms(model: nn.Module, criterion: Callable[..., Tensor], batches: Batch) -> TaylorTerms:
    """Compute AvgGrad and AvgGradInner at a model's parameters.

    In expectation over the order of k mini-batches, the meta-gradient of k - 1 steps of SGD with
    rate alpha on these and the loss on the last is AvgGrad - c alpha AvgGradInner to first order in
    alpha, with c = 2 (k - 1) for MAML and k - 1 for first-order MAML; the sum of Reptile's k
    gradients is k AvgGrad - k (k - 1) / 2 alpha AvgGradInner.

    Args:
        model: A model without buffers that change.
        criterion: `(output, y) -> loss` of one mini-batch; `(output, y, weight)` if examples have
            weights.
        batches: Mini-batches of tasks, `[num_tasks, num_batches, batch_size, ...]`, two or more of
            each task.

    Returns:
        Both, with the shapes of the parameters.

    Raises:
        TypeError: If `model` is not a module, `criterion` not a function, or `batches` no batch.
        ValueError: If a task has fewer than two mini-batches, or the criterion's gradient cannot be
            computed.

    References:
        Nichol, Achiam and Schulman, "On first-order meta-learning algorithms", 2018, equations 28
        to 31 (of Sun's overview: 28 to 41).

    >>> import torch
    >>> x, y = torch.randn(2, 8, 3, 5, 1)
    >>> terms = taylor_terms(nn.Linear(1, 1), nn.functional.mse_loss, Batch(x, y))
    >>> terms.average_inner_gradient["weight"].shape
    torch.Size([1, 1])
    """
    check_kind("model", model, nn.Module, "a module", "taylor_terms(learner.model, ...)")
    check_function("criterion", criterion, "be a function", fix="Pass F.mse_loss, say.")
    check_kind("batches", batches, Batch, "a Batch", "Batch(x, y)")
    shapes = [tuple(leaf.shape) for leaf in tree_leaves(batches)]
    if any(len(shape) < 3 or shape[1] < 2 for shape in shapes):
        condition = "have [num_tasks, num_batches, batch_size, ...] with two mini-batches or more"
        raise invalid("batches", condition, shapes, "Pass x.unflatten(1, (2, -1)), say.")
    params = {name: param.detach() for name, param in model.named_parameters()}
    num_batches, loss = shapes[0][1], ModelLoss(model, criterion)

    def gradient(params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        of_params: dict[str, Tensor] = grad(loss)(params, {}, batch)
        return of_params

    def product(params: dict[str, Tensor], batches: Batch) -> Tensor:
        """Return half of the mean inner product of two mini-batches' gradients."""
        each = vmap(gradient, (None, 0))(params, batches).values()
        pairs = sum(leaf.sum(0).square().sum() - leaf.square().sum() for leaf in each)
        return pairs / (2 * num_batches * (num_batches - 1))

    def of_task(batches: Batch) -> TaylorTerms:
        each = vmap(gradient, (None, 0))(params, batches)
        return TaylorTerms(_mean(each), grad(product)(params, batches))

    with computable("gradients of the criterion", batches.x):
        terms = vmap(of_task)(batches)
    return TaylorTerms(*map(_mean, terms))


def _mean(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return means over the first axis."""
    return {name: tensor.mean(0) for name, tensor in tensors.items()}
