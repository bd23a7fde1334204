"""Distances between the features of a task's support and query examples, or of two data sets."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_function, check_one_device, invalid
from metalearn._computable import computable
from metalearn._modules import call_model
from metalearn._tasks import map_tasks
from metalearn._tree import tree_leaves
from metalearn.analysis._plot import axes_or_new
from metalearn.models._batch_norm import Norms
from metalearn.outer._checks._episodes import check_episodes
from metalearn.types import Batch, Episode

FIX = "Pass learner.model.features, say."


@dataclass(frozen=True, eq=False)
class FeatureDistances:
    """The result of `feature_distances`.

    Attributes:
        values: Euclidean distances `[num_tasks, num_support, num_query]`.
        same_class: Which pairs have equal labels, of the same shape.
        other_class: Which pairs have different labels. Pairs with padding, an example of weight 0,
            are in neither.
    """

    values: Tensor
    same_class: Tensor
    other_class: Tensor

    def __repr__(self) -> str:
        size = "{} tasks, {} support x {} query examples".format(*self.values.shape)
        return f"FeatureDistances({size})"

    @property
    def closest(self) -> Tensor:
        """Each task's closest pair of any labels, `[num_tasks, 2]`: support and query index."""
        return self._pair(self.values)

    @property
    def farthest(self) -> Tensor:
        """Each task's farthest pair of any labels, `[num_tasks, 2]`: support and query index."""
        return self._pair(-self.values)

    def _pair(self, costs: Tensor) -> Tensor:
        is_pair = self.same_class | self.other_class
        lowest = costs.masked_fill(~is_pair, math.inf).flatten(1).argmin(1)
        return torch.stack(torch.unravel_index(lowest, costs.shape[1:]), 1)

    def plot(self, ax: Any = None) -> Any:
        """Draw histograms of distances within and between labels; return matplotlib's axes."""
        ax = axes_or_new(ax)
        kinds = {"same class": self.same_class, "other class": self.other_class}
        for label, pairs in kinds.items():
            if pairs.any():
                ax.hist(self.values[pairs].tolist(), bins=30, density=True, alpha=0.6, label=label)
        ax.set_xlabel("Euclidean distance of features")
        ax.set_ylabel("density")
        ax.legend()
        return ax


def feature_distances(features: Callable[[Any], Tensor], episodes: Episode) -> FeatureDistances:
    """Compute distances between the features of each task's support and query examples.

    The two sets of an episode may belong to one task or be any two data sets to compare: with
    `Episode(train.sample(1).support, test.sample(1).support)`, of a training and a test task,
    `closest` and `farthest` are the pairs of the paper's figure. If their classes differ, so should
    their labels for `same_class` to make sense.

    Each task's support and query set pass through `features` separately, so that batch
    normalisation always uses the statistics of that set. Examples of weight 0 are in no pair, and
    `models.BatchNorm` layers use the tasks' weights. A module keeps its mode.

    Args:
        features: A module or function from examples `[num_examples, ...]` to features
            `[num_examples, ...]`, such as `learner.model.features`, or `adapted[0].features` for
            one task.
        episodes: Tasks with a leading task axis; y are labels `[num_tasks, num_examples]`.

    Returns:
        Distances, and which pairs have equal labels.

    Raises:
        TypeError: If `features` is not a function, or the episodes have the wrong type.
        ValueError: If shapes or devices disagree, or a task has no pair, since all weights of a set
            are 0.

    References:
        Franceschi, Frasconi, Donini and Pontil, "A bridge between hyperparameter optimization and
            learning-to-learn", 2017 (Figure 2: all pairs of an example of a training and one of a
            test data set).

    >>> from metalearn.types import Batch
    >>> support = Batch(torch.tensor([[[0.0, 0.0], [3.0, 4.0]]]), torch.tensor([[0, 1]]))
    >>> query = Batch(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[1]]))
    >>> distances = feature_distances(torch.nn.Identity(), Episode(support, query))
    >>> distances.values.tolist(), distances.closest.tolist()
    ([[[0.0], [5.0]]], [[0, 0]])
    """
    check_function("features", features, "be a module or a function", fix=FIX)
    check_episodes(episodes)
    check_one_device("episodes", tree_leaves(episodes))
    same_class, other_class = _pairs(episodes)
    with torch.no_grad():
        support, query = (_features(features, part).flatten(2) for part in episodes)
    if support.dtype != query.dtype:
        got, fix = f"{support.dtype} and {query.dtype}", "Convert the episodes."
        raise invalid("features of support and query", "be of one dtype", got, fix)
    # from differences: inner products would lose small distances to cancellation
    values = torch.cdist(support, query, compute_mode="donot_use_mm_for_euclid_dist")
    return FeatureDistances(values, same_class, other_class)


def _features(features: Callable[[Any], Tensor], batch: Batch) -> Tensor:
    """Return each task's features `[num_tasks, num_examples, ..., 1]`."""

    def call(batch: Batch) -> Tensor:
        if not isinstance(features, nn.Module):
            return features(batch.x)
        return call_model(features, Norms.of(features).buffers(features, batch.weight), batch.x)

    with computable("features", batch.x):
        result = map_tasks(call, (batch,), "loop")
    is_tensor, shape = isinstance(result, Tensor), batch.y.shape
    if not (is_tensor and result.is_floating_point() and result.shape[:2] == shape):
        got = f"{tuple(result.shape)} of {result.dtype}" if is_tensor else type(result).__name__
        condition = f"be floating numbers of shape {tuple(shape)} and more"
        raise invalid("features", condition, got, FIX)
    return result.unsqueeze(-1)


def _pairs(episodes: Episode) -> tuple[Tensor, Tensor]:
    """Return which pairs of support and query examples have equal labels, and which do not."""
    for part in episodes:
        if not (isinstance(part.y, Tensor) and part.y.dim() == 2):
            got = tuple(part.y.shape) if isinstance(part.y, Tensor) else type(part.y).__name__
            fix = "Pass data.EpisodeSampler(...).sample(10), say."
            raise invalid("episodes", "have labels [num_tasks, num_examples]", got, fix)
    same = episodes.support.y.unsqueeze(2) == episodes.query.y.unsqueeze(1)
    counts = [
        part.weight > 0 if isinstance(part.weight, Tensor) else torch.ones_like(part.y) > 0
        for part in episodes
    ]
    is_pair = counts[0].unsqueeze(2) & counts[1].unsqueeze(1)
    if empty := (~is_pair.flatten(1).any(1)).nonzero().flatten().tolist():
        got, fix = f"none in tasks {empty}", "Leave these tasks out."
        raise invalid("every task", "have examples of weights above 0", got, fix)
    return same & is_pair, ~same & is_pair
