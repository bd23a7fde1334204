"""Training that goes on when some tasks diverge."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._tree import over_first_axes, tree_map
from metalearn.outer._estimates import are_finite
from metalearn.outer._per_task import PerTask
from metalearn.types import Estimate


@dataclass(frozen=True)
class SkipDiverged(PerTask):
    """An estimator that leaves out tasks whose loss or gradient is not finite.

    Their gradients are zero.

    The mean is still over all tasks. Nothing is hidden: such a task's loss is NaN,
    `diagnostics["finite"]` tells it from the others, and `History.num_diverged` counts it.

    Args:
        estimator: The estimator of the gradients.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

    def change(self, estimate: Estimate) -> Estimate:
        """Replace a gradient that is not finite by zero, and its loss by NaN."""
        return _kept_if_finite(estimate)

    def change_tasks(self, estimates: Estimate) -> Estimate:
        """Do so for every task."""
        return _kept_if_finite(estimates)


def _kept_if_finite(estimate: Estimate) -> Estimate:
    """Keep what is finite of one task's estimate, or of all with a leading task axis."""
    gradient, loss = estimate.gradient, estimate.loss
    finite = are_finite((gradient, loss), loss.shape)

    def kept(leaf: Tensor) -> Tensor:
        return torch.where(over_first_axes(finite, leaf), leaf, 0)

    loss = torch.where(finite, loss, math.nan)
    return estimate._replace(gradient=tree_map(kept, gradient), loss=loss)
