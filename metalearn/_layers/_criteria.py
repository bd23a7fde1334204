"""Criteria of all tasks at once, without `vmap`."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from metalearn.functional._criteria import cross_entropy

IGNORED = -100
"""The target that `F.cross_entropy` leaves out."""


def known_losses(criterion: Callable[..., Any], outputs: Any, targets: Any) -> Tensor | None:
    """Return the criterion of every task, None if it or what it is given is not known.

    Args:
        criterion: `F.mse_loss`, `F.cross_entropy` or `functional.cross_entropy`, to be known.
        outputs: What a model returns, with a leading task axis.
        targets: What it should, likewise.
    """
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    if criterion is F.mse_loss and outputs.shape == targets.shape and outputs.dim() > 1:
        return F.mse_loss(outputs, targets, reduction="none").flatten(1).mean(1)
    are_classes = outputs.dim() == 3 and targets.dim() == 2 and not targets.is_floating_point()
    if criterion in (F.cross_entropy, cross_entropy) and are_classes:
        each = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return each.unflatten(0, targets.shape).sum(1) / (targets != IGNORED).sum(1)
    return None
