"""A support loss that draws to a point."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._tree import as_real
from metalearn.types import Episode, Params


@dataclass(frozen=True, eq=False)
class Proximal:
    """A support loss with (strength / 2) |params - init|^2 added.

    Attributes:
        loss: The support loss.
        init: Where the parameters are drawn to.
        strength: How strongly.
        alone_at: The step at which the added term is all there is, and before which it is absent;
            None adds it always.
    """

    loss: Callable[..., Tensor]
    init: Params
    strength: float
    alone_at: int | None = None

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        if self.alone_at is not None and step != self.alone_at:
            return self.loss(params, shared, episode, step)
        squares = [
            as_real(param - self.init[name]).square().sum() for name, param in params.items()
        ]
        distance = 0.5 * self.strength * torch.stack(squares).sum()
        return (
            distance
            if self.alone_at is not None
            else self.loss(params, shared, episode, step) + distance
        )
