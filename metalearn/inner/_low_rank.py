"""A meta-optimizer of low rank, for memory that a rank decides."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._checks import check_count
from metalearn.inner._gradient_transform import GradientTransform
from metalearn.types import PyTree

START = 0.01
"""Standard deviation of L's elements at the start: at zero, L L^t would have no derivative."""


@dataclass(frozen=True)
class LowRank(GradientTransform):
    """The low-rank Cholesky variant: U(g) = g + L L^t g with an L of `[k, rank]` for a tensor of k elements.

    The identity is added to the paper's A = L L^t, since no L of low rank gives it: the rule starts near gradient
    descent, and A stays symmetric and positive definite.

    Args:
        lr: Learning rate, positive.
        rank: Number of columns of L, at least 1.

    Raises:
        TypeError: If `rank` is no int.
        ValueError: If a number is out of its range.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning", 2019 (section 4.2).
    """

    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("LowRank's rank", self.rank)

    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return a small random L."""
        return {"L": START * torch.randn(param.numel(), self.rank, dtype=param.dtype, device=param.device)}

    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return g + L L^t g."""
        vector = grad.reshape(-1)
        return (vector + weights["L"] @ (weights["L"].mT @ vector)).reshape(grad.shape)
