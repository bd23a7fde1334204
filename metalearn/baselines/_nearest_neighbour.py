"""The nearest-neighbour baseline: a query has the label of the support example closest to it."""

from collections import OrderedDict
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import deep_copied
from metalearn._brief import brief
from metalearn._checks import check_count, check_kind, invalid
from metalearn._layers import Network
from metalearn._modules import below
from metalearn.baselines._linear_head import are_labels, check_features
from metalearn.functional import cross_entropy
from metalearn.functional._criteria import one_hot
from metalearn.inner import SGD
from metalearn.outer import MetaLearner
from metalearn.types import Batch, Meta, Params


def NearestNeighbour(  # noqa: N802
    body: nn.Module, num_features: int, num_classes: int, num_support: int
) -> MetaLearner:
    """Return a learner that gives a query the label of the support example closest to it.

    The logit of a class is minus the squared distance to the closest of its support examples, up to
    a constant over classes. Distances are those of features: of a pretrained body, or of pixels if
    it is `nn.Flatten()`. Nothing is learned: it needs no `fit`.

    Args:
        body: Module from a batch of inputs to features `[n, num_features]`; it is copied.
        num_features: Size of the features, at least 1.
        num_classes: Number of classes in a task, at least 1.
        num_support: Number of support examples of a task, padding included, at least 1.

    Raises:
        TypeError: If the body is not a module, or a count not an int.
        ValueError: If a count is below 1.

    References:
        Franceschi et al., "A bridge between hyperparameter optimization and learning-to-learn",
        2017, table 1. Ravi and Larochelle, "Optimization as a model for few-shot learning", ICLR
        2017, table 1.

    >>> from metalearn import data
    >>> images = data.ClassImages(torch.randint(256, (10, 20, 8, 8), dtype=torch.uint8))
    >>> learner = NearestNeighbour(nn.Flatten(), 64, 5, num_support=10)
    >>> episodes = data.EpisodeSampler(images, n_way=5, k_shot=2, num_query=3).sample(4)
    >>> adapted = learner.adapt(episodes.support)
    >>> bool((adapted(episodes.support.x).argmax(-1) == episodes.support.y).all())
    True
    """
    example = "models.conv4(3, 5).features"
    check_kind("NearestNeighbour's body", body, nn.Module, "a module", f"{example}, say")
    counts = {"features": num_features, "classes": num_classes, "support": num_support}
    for what, count in counts.items():
        fix = f"Write NearestNeighbour({example}, 64, 5, num_support=25), say."
        check_count(f"NearestNeighbour's num_{what}", count, fix=fix)
    frozen = deep_copied(body).requires_grad_(False)
    memory = _Memory(num_features, num_classes, num_support)
    model = nn.Sequential(OrderedDict(body=frozen, memory=memory))
    start: Any = {"fast": "memory", "learn_init": False, "start": _Memorised(frozen)}
    return MetaLearner(model, cross_entropy, SGD(0.1), num_steps=0, **start)


class _Memory(nn.Module):
    """Minus the squared distances of features to the closest one of every class in memory.

    The constant that does not depend on the memory is left out.
    """

    def __init__(self, num_features: int, num_classes: int, num_support: int) -> None:
        super().__init__()
        self.features = nn.Parameter(torch.zeros(num_support, num_features))
        self.labels = nn.Parameter(torch.zeros(num_support, num_classes))

    def forward(self, features: Tensor) -> Tensor:
        near = 2 * features @ self.features.T - self.features.square().sum(1)
        least = torch.finfo(near.dtype).min / 4  # finite, as a logit has to be
        return torch.where(self.labels > 0, near[..., None], least).amax(1)


class _Memorised(nn.Module):
    """A start that is the support set itself: its features and labels."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.network = Network.of(body)

    def forward(self, meta: Meta, support: Batch, key: Tensor) -> Params:
        """Return the memory; padding has no label."""
        features = self.network(below("model.body", meta.shared), support)
        (num_support, num_features), (_, num_classes) = (leaf.shape for leaf in meta.init.values())
        example = f"baselines.NearestNeighbour(body, {{}}, {num_classes}, {num_support})"
        check_features("NearestNeighbour", features, num_features, example)
        if len(features) != num_support:
            example = f"baselines.NearestNeighbour(body, {num_features}, {num_classes}"
            fix = f"Write {example}, {len(features)})."
            raise invalid(
                "support set of NearestNeighbour",
                f"have {num_support} examples",
                len(features),
                fix,
            )
        if not are_labels(support.y, num_support):
            fix = "Write Batch(x, y.argmax(-1)) for one-hot labels."
            what, condition = "support.y of NearestNeighbour", "be labels [num_examples], int64"
            raise invalid(what, condition, brief(support.y), fix)
        labels = one_hot(support.y, num_classes).to(features.dtype)
        if isinstance(support.weight, Tensor):
            labels = labels * (support.weight > 0)[:, None]
        return {"memory.features": features, "memory.labels": labels}
