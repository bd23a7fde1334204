"""Distances between the features of a task's support and query examples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._tasks import map_tasks
from metalearn.analysis._plot import axes_or_new
from metalearn.outer._learner_checks import check_episodes
from metalearn.types import Episode


@dataclass(frozen=True, eq=False)
class FeatureDistances:
    """The result of `feature_distances`.

    Attributes:
        values: Euclidean distances `[num_tasks, num_support, num_query]`.
        same_class: Which pairs are of one class, of the same shape.
    """

    values: Tensor
    same_class: Tensor

    @property
    def other_class(self) -> Tensor:
        """Which pairs are of two classes, `[num_tasks, num_support, num_query]`."""
        return ~self.same_class

    @property
    def closest(self) -> Tensor:
        """Every task's closest pair of one class, `[num_tasks, 2]`: indices of a support and of a query example."""
        return self._pair(self.values.masked_fill(self.other_class, math.inf))

    @property
    def farthest(self) -> Tensor:
        """Every task's farthest pair of one class, likewise."""
        return self._pair(-self.values.masked_fill(self.other_class, -math.inf))

    def _pair(self, costs: Tensor) -> Tensor:
        lowest = costs.flatten(1).argmin(1)
        num_query = costs.shape[2]
        return torch.stack([lowest // num_query, lowest % num_query], 1)

    def plot(self, ax: Any = None) -> Any:
        """Draw histograms of the distances within classes and between them, and return matplotlib's axes."""
        ax = axes_or_new(ax)
        for label, pairs in {"same class": self.same_class, "other class": self.other_class}.items():
            ax.hist(self.values[pairs].tolist(), bins=30, density=True, alpha=0.6, label=label)
        ax.set_xlabel("Euclidean distance of features")
        ax.set_ylabel("density")
        ax.legend()
        return ax


def feature_distances(features: Callable[[Any], Tensor], episodes: Episode) -> FeatureDistances:
    """Compute how far apart a task's support and query examples are in a space of features.

    Support and query set of every task go through `features` by themselves, so that batch normalisation takes the
    statistics of that set, whatever the model's source of them. Weights are not looked at. A module is used in the mode
    it is in.

    Args:
        features: A module or function from examples `[num_examples, ...]` to features `[num_examples, ...]`, such as
            `learner.model.features`, or `adapted[0].features` for one task.
        episodes: Tasks with a leading task axis; y are labels `[num_tasks, num_examples]`.

    Returns:
        Distances and which pairs are of one class.

    Raises:
        TypeError: If `features` is no function, or the episodes are of the wrong kind.
        ValueError: If shapes disagree, or a task has no pair of one class.

    References:
        Franceschi, Frasconi, Donini and Pontil, "A bridge between hyperparameter optimization and learning-to-learn",
            2017 (Figure 2).

    >>> from metalearn.types import Batch
    >>> support = Batch(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]), torch.tensor([[0, 1]]))
    >>> query = Batch(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[1]]))
    >>> distances = feature_distances(torch.nn.Identity(), Episode(support, query))
    >>> distances.values.tolist(), distances.closest.tolist()
    ([[[0.0], [5.0]]], [[1, 0]])
    """
    if not callable(features):
        fix = "Pass learner.model.features, say."
        raise TypeError(invalid("features", "be a module or a function", repr(features), fix))
    check_episodes(episodes)
    same_class = _same_class(episodes)
    with torch.no_grad():
        support, query = (map_tasks(features, (part.x,), "loop").flatten(2) for part in episodes)
    # By differences, as products would lose the digits of small distances.
    values = torch.cdist(support, query, compute_mode="donot_use_mm_for_euclid_dist")
    return FeatureDistances(values, same_class)


def _same_class(episodes: Episode) -> Tensor:
    for part in episodes:
        if not (isinstance(part.y, Tensor) and part.y.dim() == 2):
            got = tuple(part.y.shape) if isinstance(part.y, Tensor) else type(part.y).__name__
            fix = "Pass data.EpisodeSampler(...).sample(10), say."
            raise ValueError(invalid("episodes", "have labels [num_tasks, num_examples]", got, fix))
    same_class = episodes.support.y.unsqueeze(2) == episodes.query.y.unsqueeze(1)
    if lonely := (~same_class.flatten(1).any(1)).nonzero().flatten().tolist():
        raise ValueError(invalid("every task", "have support and query examples of one class", f"tasks {lonely}"))
    return same_class
