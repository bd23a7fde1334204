"""Meta-Curvature: a learned matrix for every side of a gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn.inner._gradient_transform import GradientTransform
from metalearn.inner._kronecker import identity
from metalearn.types import PyTree


@dataclass(frozen=True)
class MetaCurvature(GradientTransform):
    """Meta-Curvature: the gradient is multiplied by a learned matrix along every side.

    A matrix `[out, in]` has two factors; a convolution `[out, in, *kernel]` has three, over its
    filters, its channels and its flattened kernel; a vector is multiplied elementwise. All factors
    start at the identity. `KroneckerLinear` has two factors for a convolution too, as in Arnold et
    al. (2019).

    Args:
        lr: Learning rate, positive.

    Raises:
        ValueError: If `lr` is not positive and finite, or a side of a parameter is too large.

    References:
        Park and Oliva, "Meta-Curvature", NeurIPS 2019 (eqs. 7-9).
    """

    def init_weights(self, name: str, param: Tensor) -> PyTree:
        """Return the factors by side, or the vector of an elementwise product."""
        if param.dim() < 2:
            return {"scale": torch.ones_like(param)}
        sides = dict(zip(("out", "in", "kernel"), _sides(param).shape, strict=False))
        return {side: identity(name, size, param) for side, size in sides.items()}

    def transform(self, weights: PyTree, grad: Tensor) -> Tensor:
        """Return the gradient multiplied along every side."""
        if grad.dim() < 2:
            return weights["scale"] * grad
        result = torch.tensordot(weights["out"], _sides(grad), 1)
        result = weights["in"] @ result if grad.dim() > 2 else result @ weights["in"]
        return (result @ weights["kernel"] if grad.dim() > 2 else result).reshape(grad.shape)


def _sides(tensor: Tensor) -> Tensor:
    return tensor.flatten(2) if tensor.dim() > 2 else tensor
