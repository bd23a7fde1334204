"""Training that goes on when some tasks diverge."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._tree import tree_leaves, tree_map
from metalearn.outer._per_task import PerTask
from metalearn.types import Estimate


@dataclass(frozen=True)
class SkipDiverged(PerTask):
    """An estimator that leaves out tasks whose loss or gradient is not finite: their gradients are
    zero.

    The mean is still over all tasks. Nothing is hidden: such a task's loss is NaN,
    `diagnostics["finite"]` tells it from the others, and `History.num_diverged` counts it.

    Args:
        estimator: The estimator of the gradients.

    Raises:
        TypeError: If `estimator` is not an estimator.
    """

    def change(self, estimate: Estimate) -> Estimate:
        """Replace a gradient that is not finite by zero, and its loss by NaN."""
        sums = [leaf.sum() for leaf in [*tree_leaves(estimate.gradient), estimate.loss]]
        finite = torch.stack(sums).sum().isfinite()  # as a learner judges it

        def kept(leaf: Tensor) -> Tensor:
            return torch.where(finite, leaf, 0)

        loss = torch.where(finite, estimate.loss, math.nan)
        return estimate._replace(gradient=tree_map(kept, estimate.gradient), loss=loss)
