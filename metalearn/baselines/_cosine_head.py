"""A classifier by cosine similarity."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import check_count, check_positive


class CosineHead(nn.Module):
    """Cosine similarities of features and class centroids, times a scale.

    Args:
        in_features: Size of the features, at least 1.
        num_classes: Number of classes, at least 1.
        scale: Positive; logits are between -scale and scale.

    Raises:
        TypeError: If a size is not an int, or the scale not a number.
        ValueError: If one of them is too small.

    References:
        Chen et al., "A closer look at few-shot classification", ICLR 2019 (Baseline++, without its
        learned norms).

    >>> CosineHead(800, 5)(torch.randn(10, 800)).abs().max() <= 2
    tensor(True)
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = 2.0) -> None:
        super().__init__()
        check_count("CosineHead's in_features", in_features, fix="Write CosineHead(800, 5), say.")
        check_count("CosineHead's num_classes", num_classes, fix="Write CosineHead(800, 5), say.")
        check_positive("CosineHead's scale", scale)
        self.centroids = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.kaiming_uniform_(self.centroids, a=5**0.5)
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return logits `[n, num_classes]` of features `[n, in_features]`."""
        return self.scale * F.normalize(features, dim=-1) @ F.normalize(self.centroids, dim=-1).T
