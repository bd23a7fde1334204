"""LR-D2: logistic regression on learned features, by Newton's method."""

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_count
from metalearn.baselines._linear_head import HeadSolver, solve_ridge, solved
from metalearn.functional import cross_entropy
from metalearn.outer import MetaLearner


def LogisticRegression(  # noqa: N802
    body: nn.Module,
    num_features: int,
    num_classes: int,
    *,
    num_newton_steps: int = 5,
    penalty: float = 1.0,
) -> MetaLearner:
    """Return LR-D2: a linear head that logistic regression on the support set gives.

    With x the body's features and a constant one beside them, the weights w of every class against
    all others minimise the sum of log(1 + exp(-s w.x)) + (lambda / 2) |w|^2, s being 1 for the
    class's examples and -1 for others. Newton's steps from zero are weighted ridge regressions, and
    are differentiated. The outer loop learns the body and lambda. It is for classification.

    Args:
        body: Module from a batch of inputs to features `[n, num_features]`.
        num_features: Size of the features, at least 1.
        num_classes: Number of classes in a task, at least 1.
        num_newton_steps: Number of Newton's steps, at least 1.
        penalty: Start of lambda, positive.

    Raises:
        TypeError: If the body is not a module, or a count not an int.
        ValueError: If a count is below 1, or the penalty not positive.

    References:
        Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019.

    >>> from metalearn import data
    >>> images = data.ClassImages(torch.randint(256, (10, 20, 8, 8), dtype=torch.uint8))
    >>> learner = LogisticRegression(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), 16, 5)
    >>> learner(data.EpisodeSampler(images, 5, 1, 5).sample(4)).backward()
    """
    fix = "Write LogisticRegression(body, 64, 5, num_newton_steps=5), say."
    check_count("LogisticRegression's num_newton_steps", num_newton_steps, fix=fix)
    solver = _Newton(body, penalty, num_newton_steps)
    sizes = {"num_features": num_features, "num_classes": num_classes}
    return solved(solver, body, sizes, cross_entropy)


class _Newton(HeadSolver):
    """Logistic regression of every class, by iteratively reweighted least squares."""

    def __init__(self, body: nn.Module, penalty: float, num_steps: int) -> None:
        super().__init__("LogisticRegression", body, penalty)
        self.num_steps = num_steps

    def solve(self, x: Tensor, y: Tensor, weight: Tensor, penalty: Tensor) -> Tensor:
        by_class, root = y.T[..., None], weight.sqrt()
        least = torch.finfo(x.dtype).eps  # of a slope to divide by
        logits = torch.zeros_like(by_class)
        for _ in range(self.num_steps):
            output = logits.sigmoid()
            slope = (output * (1 - output)).clamp(min=least)
            targets = logits + (by_class - output) / slope
            # apart, since a weight may be 0, where a root has no derivative
            roots = slope[..., 0].sqrt() * root
            weights = solve_ridge(x, targets, roots, penalty)
            logits = x @ weights
        return weights[..., 0].T
