"""RMSProp."""

from dataclasses import dataclass

from torch import Tensor

from metalearn._fields import Decay, Positive
from metalearn._tree import tree_zeros_like
from metalearn.functional import safe_sqrt
from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class RMSProp(Rated):
    """RMSProp, `torch.optim.RMSprop`, with a finite second derivative where a gradient is zero.

    Args:
        lr: Learning rate, positive.
        alpha: Decay of the running mean of the squared gradient, at least 0 and below 1.
        eps: Added to the mean's root, positive.

    Raises:
        ValueError: If a number is out of its range.

    References:
        Tieleman and Hinton, "RMSProp", lecture 6.5 of Neural networks for machine learning, 2012.
    """

    alpha: Decay = 0.99
    eps: Positive = 1e-8

    elementwise = True

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return a mean of zero."""
        return tree_zeros_like(params)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * gradient / (sqrt(square) + eps)."""
        square = {
            name: self.alpha * state[name] + (1 - self.alpha) * grad**2
            for name, grad in grads.items()
        }
        root = {name: safe_sqrt(value) + self.eps for name, value in square.items()}
        return {name: -self.lr * grad / root[name] for name, grad in grads.items()}, square
