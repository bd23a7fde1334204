"""Gradient descent."""

from dataclasses import dataclass, replace

from torch import Tensor

from metalearn._checks import check_positive
from metalearn.inner._base import UpdateRule
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class SGD(UpdateRule):
    """Gradient descent: the update is -lr times the gradient.

    Args:
        lr: Learning rate, positive. To learn it, wrap the rule: `LearnedRate(SGD(lr))`.

    Raises:
        ValueError: If `lr` is not positive and finite.
    """

    lr: float

    def __post_init__(self) -> None:
        check_positive("SGD's lr", self.lr, fix="Pass inner.SGD(lr=0.01), say.")

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * grads."""
        return {name: -self.lr * grad for name, grad in grads.items()}, state

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and gradient descent at rate 1."""
        return self.lr, replace(self, lr=1.0)
