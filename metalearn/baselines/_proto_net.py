"""Prototypical networks, as one gradient step."""

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_count, check_kind
from metalearn.functional import cross_entropy
from metalearn.functional._criteria import one_hot
from metalearn.inner import SGD
from metalearn.outer import MetaLearner


def ProtoNet(body: nn.Module, num_features: int, num_classes: int) -> MetaLearner:  # noqa: N802
    """Return a prototypical network, which picks the class with the closest mean features.

    Prototypes start at zero. The inner loss is half the mean squared distance to the class's
    prototype, summed over classes, and one step of `SGD(1.0)` reaches the class means. The body is
    shared.

    Args:
        body: Module from a batch of inputs to features `[n, num_features]`.
        num_features: Size of the features, at least 1.
        num_classes: Number of classes in a task, at least 1.

    Raises:
        TypeError: If the body is not a module, or a size not an int.
        ValueError: If a size is below 1.

    References:
        Snell, Swersky and Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017.

    >>> from metalearn import data
    >>> images = data.ClassImages(torch.randint(256, (10, 20, 8, 8), dtype=torch.uint8))
    >>> learner = ProtoNet(nn.Sequential(nn.Flatten(), nn.Linear(64, 16)), 16, 5)
    >>> learner(data.EpisodeSampler(images, 5, 1, 5).sample(4)).backward()
    """
    model = _Prototypes(body, num_features, num_classes)
    start: Any = {"fast": "prototypes", "learn_init": False, "support_criterion": _spread}
    return MetaLearner(model, cross_entropy, SGD(1.0), num_steps=1, **start)


class _Prototypes(nn.Module):
    """Minus the squared distances of features to prototypes, up to a constant over classes."""

    def __init__(self, body: nn.Module, num_features: int, num_classes: int) -> None:
        super().__init__()
        example = "models.conv4(3, 5).features"
        fix = f"Write ProtoNet({example}, 64, 5), say."
        check_kind("ProtoNet's body", body, nn.Module, "a module", f"{example}, say")
        check_count("ProtoNet's num_features", num_features, fix=fix)
        check_count("ProtoNet's num_classes", num_classes, fix=fix)
        self.body = body
        self.prototypes = nn.Parameter(torch.zeros(num_classes, num_features))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * self.body(x) @ self.prototypes.T - self.prototypes.square().sum(1)


def _spread(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return half the mean squared distance to the class's prototype, summed over classes.

    The constant that does not depend on prototypes is left out.
    """
    own = one_hot(target, output.shape[-1]).to(output.dtype)
    own = own if weight is None else own * weight[:, None]
    return -0.5 * (own * output / own.sum(0).clamp(min=torch.finfo(own.dtype).tiny)).sum()
