"""Gradient descent with momentum: heavy ball and Nesterov's."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Fraction
from metalearn._tree import over_first_axes, tree_zeros_like
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
    """Heavy-ball momentum, `torch.optim.SGD(momentum=..., dampening=...)`.

    The velocity is v = momentum v + (1 - dampening) g, and g after the first step; the update is
    -lr v.

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the velocity, from 0 to 1.
        dampening: The part of every gradient but the first that the velocity does not get, from 0
            to 1.

    Raises:
        ValueError: If a number is out of its range.
    """

    dampening: Fraction = 0.0

    elementwise = True

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return a velocity of zero; with dampening, the weight of the next gradient too."""
        velocity = tree_zeros_like(params)
        if not self._is_dampened:
            return velocity
        return {"velocity": velocity, "weight": next(iter(params.values())).new_ones(key.shape)}

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return -lr * velocity."""
        if not self._is_dampened:
            return super().update(meta, grads, state, params, loss, step)
        weight = state["weight"]
        weighted = {name: over_first_axes(weight, grad) * grad for name, grad in grads.items()}
        updates, velocity = super().update(meta, weighted, state["velocity"], params, loss, step)
        weight = (1 - self.dampening) * torch.ones_like(weight)
        return updates, {"velocity": velocity, "weight": weight}

    @property
    def _is_dampened(self) -> bool:
        # a learned number, a tensor, may become any other
        return isinstance(self.dampening, Tensor) or self.dampening != 0

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
