"""A meta-optimizer of low rank, for memory that a rank decides."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Count, Flag
from metalearn.inner._gradient_transform import GradientTransform
from metalearn.types import PyTree

START = 0.01
"""Standard deviation of L's elements at the start beside an identity: at zero, L L^t would have no
derivative."""


@dataclass(frozen=True)
class LowRank(GradientTransform):
    """The low-rank Cholesky variant: U(g) = A g, A = L L^t, with an L of `[k, rank]` for a tensor
    of k elements.

    A is symmetric and positive semidefinite. No L of low rank makes it the identity: as in the
    paper, a tensor moves in at most `rank` directions. L starts with normal elements of standard
    deviation k^-1/2, so that A is about the projection onto random directions.

    Args:
        lr: Learning rate, positive.
        rank: Number of columns of L, at least 1.
        identity: Whether A = I + L L^t instead, which the paper does not have: it is positive
            definite, moves a tensor in all directions, and starts near gradient descent, L having a
            standard deviation of 0.01 there.

    Raises:
        TypeError: If `rank` is no int, or `identity` no bool.
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
