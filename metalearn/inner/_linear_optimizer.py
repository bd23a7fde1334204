"""The linear meta-optimizer with its matrix in full."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import Checked, Positive
from metalearn.inner._base import UpdateRule
from metalearn.inner._coordinates import flatten, unflatten
from metalearn.types import Params, PyTree

MAX_ELEMENTS = 4_096
"""Largest number of elements, whose matrix takes 64 MiB in float32."""


@dataclass(frozen=True)
class LinearOptimizer(UpdateRule, Checked):
    """The linear meta-optimizer in full: theta_{t+1} = theta_t - (A g + b).

    g is the gradient of all n fast elements as one vector, tensor by tensor. A `[n, n]` and b `[n]`
    are learned, with A starting at `lr` times the identity and b at zero, so that the rule starts
    as gradient descent. `KroneckerLinear`, `LowRank` and `MetaCurvature` are A with a structure,
    for models of more elements. A matrix for every tensor, or one for some of them, is
    `Groups({"0.*": LinearOptimizer(0.1), "*": SGD(0.1)})`. In the paper A and b also adapt within a
    task: `SelfAdapting(LinearOptimizer(0.1), lr)`.

    Args:
        lr: Initial learning rate, positive.

    Raises:
        ValueError: If `lr` is not positive and finite, or there are more than 4,096 elements.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (eqs. 2-3).

    >>> meta = LinearOptimizer(0.1).init_meta({"weight": torch.zeros(1, 2), "bias": torch.zeros(1)})
    >>> meta["A"].shape, meta["b"].shape
    (torch.Size([3, 3]), torch.Size([3]))
    """

    lr: Annotated[Positive, "Write {own}(lr=0.01), say."]

    def init_meta(self, params: Params) -> PyTree:
        """Return A `[n, n]` and b `[n]`.

        Raises:
            ValueError: If n is too large.
        """
        size = sum(param.numel() for param in params.values())
        if size > MAX_ELEMENTS:
            fix = (
                f"Use LowRank({self.lr}, rank=4, identity=True), or KroneckerLinear({self.lr}) "
                "if no side is too large."
            )
            condition = f"have up to {MAX_ELEMENTS:,} elements"
            got = f"{size:,}, whose matrix has {size**2:,}"
            raise invalid("parameters with one matrix for all", condition, got, fix)
        like = next(iter(params.values()))
        matrix = self.lr * torch.eye(size, dtype=like.dtype, device=like.device)
        return {"A": matrix, "b": like.new_zeros(size)}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -(A g + b)."""
        transformed = meta["A"] @ flatten(grads, params) + meta["b"]
        return unflatten(-transformed, params), state
