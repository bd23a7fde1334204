"""Whether a label means the same in all tasks, where all are learned together."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modules import call_model
from metalearn._random import random_numbers_kept
from metalearn._tasks import take
from metalearn._tree import tree_leaves
from metalearn.functional import OnQuery
from metalearn.types import Episode


def check_labels_of_all(learner: Any, episodes: Episode) -> None:
    """Raise if one model learns the classes of all tasks, but each task numbers its own.

    Such a task has fewer classes than the model has outputs. They are numbered from 0, with the
    same number of examples each in the support set, and in the query set. A mini-batch of all
    classes may look like it, but is its own query set.
    """
    on, problem = learner.problem.query_loss, learner.problem
    learned = learner._shared or set(learner._fast) - problem.constant
    if not (learner.estimator.traits.joint and learned and isinstance(on, OnQuery)):
        return
    counts = {_num_classes(batch.y) for batch in episodes}
    if len(counts) != 1 or (count := counts.pop()) < 2 or _is_one_batch(episodes):
        return
    with torch.no_grad(), random_numbers_kept(learner.device):
        tensors = on.loss.model_tensors(learner.meta.init, learner.meta.shared)
        output = call_model(on.loss.model, tensors, take(episodes.query.x, 0))
    if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > count:
        outputs = f"the {output.shape[1]} classes of the model's outputs"
        condition = f"number {outputs}, the same ones in every task"
        fix = "Train on data.MiniBatches(classes, 16), and judge a new head on the features: "
        fix += f"evaluate(baselines.Finetuning(body, nn.Linear(width, {count})), tasks, "
        fix += "num_tasks=600), or in fit validate=lambda learner: evaluate(...)['loss'].mean."
        got = f"tasks of {count} classes that each numbers anew"
        raise invalid(f"labels under {learner.estimator}", condition, got, fix)


def _is_one_batch(episodes: Episode) -> bool:
    """Return whether the support set is the query set too."""
    left, right = map(tree_leaves, episodes)
    same_shapes = [leaf.shape for leaf in left] == [leaf.shape for leaf in right]
    return same_shapes and all(map(torch.equal, left, right))


def _num_classes(labels: Any) -> int:
    """Return the number of equally frequent classes, numbered from 0, of every task, or else 0."""
    is_labels = isinstance(labels, Tensor) and labels.dim() == 2 and labels.numel()
    if not is_labels or labels.is_floating_point() or labels.min() < 0:
        return 0
    frequency = F.one_hot(labels.long()).sum(1)
    return frequency.shape[1] if (frequency == frequency[0, 0]).all() and frequency[0, 0] else 0
