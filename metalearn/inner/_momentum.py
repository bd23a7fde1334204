"""Gradient descent with momentum: heavy ball and Nesterov's."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from metalearn._fields import Fraction
from metalearn._tree import tree_zeros_like
from metalearn.inner._rated import Rated
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class _WithVelocity(Rated):
    """A rule with a velocity v = momentum v + g, from zero."""

    momentum: Fraction = 0.9

    elementwise = True

    @abstractmethod
    def _direction(self, grad: Tensor, velocity: Tensor) -> Tensor:
        """Return the update up to the factor -lr."""

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return a velocity of zero."""
        return tree_zeros_like(params)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * direction."""
        velocity = {name: self.momentum * state[name] + grad for name, grad in grads.items()}
        updates = {n: -self.lr * self._direction(grads[n], v) for n, v in velocity.items()}
        return updates, velocity


@dataclass(frozen=True)
class Momentum(_WithVelocity):
    """Heavy-ball momentum, `torch.optim.SGD(momentum=...)`.

    The velocity is v = momentum v + g, the update -lr v.

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the velocity, from 0 to 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    elementwise = True

    def _direction(self, grad: Tensor, velocity: Tensor) -> Tensor:
        return velocity


@dataclass(frozen=True)
class Nesterov(_WithVelocity):
    """Nesterov momentum, `torch.optim.SGD(nesterov=True)`.

    The velocity is v = momentum v + g, the update -lr (g + momentum v).

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the velocity, from 0 to 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    elementwise = True

    def _direction(self, grad: Tensor, velocity: Tensor) -> Tensor:
        return grad + self.momentum * velocity
