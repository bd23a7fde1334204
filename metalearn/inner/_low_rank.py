"""A meta-optimizer of low rank, whose memory grows with the rank."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Count, Flag
from metalearn.inner._gradient_transform import GradientTransform
from metalearn.types import PyTree

START = 0.01
"""Initial standard deviation of L beside an identity; at zero, L L^t would have no gradient."""


@dataclass(frozen=True)
class LowRank(GradientTransform):
    """The low-rank Cholesky variant: U(g) = L L^t g, with an L `[k, rank]` per tensor of size k.

    A = L L^t is symmetric and positive semidefinite. It is never the identity: as in the paper, a
    tensor moves in at most `rank` directions. L starts with normal elements of standard deviation
    k^-1/2, so that A is close to the projection onto random directions.

    Args:
        lr: Learning rate, positive.
        rank: Number of columns of L, at least 1.
        identity: Whether A = I + L L^t instead, which the paper does not consider. This A is
            positive definite, moves a tensor in all directions, and starts near gradient descent,
            with a standard deviation of 0.01 for L.

    Raises:
        TypeError: If `rank` is not an int, or `identity` not a bool.
        ValueError: If a number is out of its range.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (section 4.2).
    """

    rank: Count = 4
    identity: Flag = False

    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return a random L."""
        size = param.numel()
        std = START if self.identity else size**-0.5
        return {"L": std * torch.randn(size, self.rank, dtype=param.dtype, device=param.device)}

    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return L L^t g, and g added to it with `identity`."""
        product = (weights["L"] @ (weights["L"].mT @ grad.reshape(-1))).reshape(grad.shape)
        return grad + product if self.identity else product
