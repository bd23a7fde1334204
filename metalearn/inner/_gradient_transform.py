"""Rules that transform the gradient of every tensor by learned weights."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class GradientTransform(Rated):
    """A meta-optimizer U_xi with weights xi for every tensor: the update is -lr U_xi(gradient).

    A subclass defines `init_weights` and `transform`. If U_xi starts as the identity, the rule
    starts as gradient descent. The weights are constant within a task; `SelfAdapting(rule, lr)`
    adapts them too.

    Args:
        lr: Learning rate, positive.

    Raises:
        ValueError: If `lr` is not positive and finite.
    """

    @abstractmethod
    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return the start of one tensor's weights."""

    @abstractmethod
    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return U_xi(grad) of one tensor, in its shape."""

    def init_meta(self, params: Params) -> PyTree:
        """Return every tensor's weights, by its name."""
        return {name: self.init_weights(name, param) for name, param in params.items()}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * U_xi(gradient)."""
        updates = {n: -self.lr * self.transform(meta[n], grad) for n, grad in grads.items()}
        return updates, state
