"""R2-D2: ridge regression on learned features, in closed form."""

from collections.abc import Callable

import torch
import torch.nn as nn
from torch import Tensor

from metalearn.baselines._linear_head import HeadSolver, solve_ridge, solved
from metalearn.functional import cross_entropy
from metalearn.outer import MetaLearner


def RidgeRegression(  # noqa: N802
    body: nn.Module,
    num_features: int,
    num_outputs: int,
    criterion: Callable[..., Tensor] = cross_entropy,
    *,
    penalty: float = 1.0,
) -> MetaLearner:
    """Return R2-D2: a linear head that ridge regression on the support set gives in closed form.

    With X the body's features of the support set and a constant one beside them, and Y its targets,
    or its labels as rows of zeros and a one, W minimises |X W - Y|^2 + lambda |W|^2. Outputs are
    alpha X W + beta. The outer loop learns the body, lambda, and alpha and beta, which start at 1
    and 0 and make logits of what is near 0 and 1. The system is of the size of the support set, or
    of the features if these are fewer.

    Args:
        body: Module from a batch of inputs to features `[n, num_features]`.
        num_features: Size of the features, at least 1.
        num_outputs: Number of classes in a task, or of outputs of a regression, at least 1.
        criterion: `(output, y) -> scalar`, of the query set; `F.mse_loss` for regressions.
        penalty: Start of lambda, positive.

    Raises:
        TypeError: If the body is not a module, or a size not an int.
        ValueError: If a size is below 1, or the penalty not positive.

    References:
        Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019.

    >>> from metalearn import data
    >>> images = data.ClassImages(torch.randint(256, (10, 20, 8, 8), dtype=torch.uint8))
    >>> learner = RidgeRegression(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), 16, 5)
    >>> learner(data.EpisodeSampler(images, 5, 1, 5).sample(4)).backward()
    """
    sizes = {"num_features": num_features, "num_outputs": num_outputs}
    solver = _Ridge("RidgeRegression", body, penalty)
    return solved(solver, body, sizes, criterion, _Calibration())


class _Ridge(HeadSolver):
    """Ridge regression."""

    def solve(self, x: Tensor, y: Tensor, weight: Tensor, penalty: Tensor) -> Tensor:
        return solve_ridge(x, y, weight.sqrt(), penalty)


class _Calibration(nn.Module):
    """A learned scale and shift of all outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.zeros(()))

    def forward(self, outputs: Tensor) -> Tensor:
        return self.alpha * outputs + self.beta
