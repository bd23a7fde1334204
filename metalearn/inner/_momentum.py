"""Gradient descent with momentum: heavy ball and Nesterov's."""

from dataclasses import dataclass, replace

from torch import Tensor

from metalearn._checks import check_fraction, check_positive
from metalearn._tree import tree_zeros_like
from metalearn.inner._base import UpdateRule
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Momentum(UpdateRule):
    """Heavy-ball momentum, `torch.optim.SGD(momentum=...)`: v = momentum v + g; the update is -lr v.

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the velocity, from 0 to 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    lr: float
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check(self)

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return a velocity of zero."""
        return tree_zeros_like(params)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * velocity."""
        velocity = _accelerate(self.momentum, state, grads)
        return {name: -self.lr * v for name, v in velocity.items()}, velocity

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and the rule at rate 1."""
        return self.lr, replace(self, lr=1.0)


@dataclass(frozen=True)
class Nesterov(UpdateRule):
    """Nesterov momentum, `torch.optim.SGD(nesterov=True)`: v = momentum v + g; the update is -lr (g + momentum v).

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the velocity, from 0 to 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    lr: float
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check(self)

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return a velocity of zero."""
        return tree_zeros_like(params)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * (gradient + momentum * velocity)."""
        velocity = _accelerate(self.momentum, state, grads)
        return {name: -self.lr * (grads[name] + self.momentum * v) for name, v in velocity.items()}, velocity

    def split_rate(self) -> tuple[float, UpdateRule]:
        """Return lr and the rule at rate 1."""
        return self.lr, replace(self, lr=1.0)


def _accelerate(momentum: float, velocity: Params, grads: Params) -> Params:
    return {name: momentum * velocity[name] + grad for name, grad in grads.items()}


def _check(rule: Momentum | Nesterov) -> None:
    check_positive(f"{type(rule).__name__}'s lr", rule.lr)
    check_fraction(f"{type(rule).__name__}'s momentum", rule.momentum)
