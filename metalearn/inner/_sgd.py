"""Gradient descent."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class SGD(Rated):
    """Gradient descent: the update is -lr times the gradient.

    Args:
        lr: Learning rate, positive. To learn it, wrap the rule: `LearnedRate(SGD(lr))`.

    Raises:
        ValueError: If `lr` is not positive and finite.
    """

    elementwise = True

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * grads."""
        return {name: -self.lr * grad for name, grad in grads.items()}, state

    def advance(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return params - lr * grads."""
        return {
            name: torch.add(param, grads[name], alpha=-self.lr) for name, param in params.items()
        }, state
