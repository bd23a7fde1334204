"""Sensitivity to which class of a task gets which label."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import check_count, invalid, mistyped
from metalearn._metrics import check_metrics, measure
from metalearn._streams import keyed_batches
from metalearn._summary import Summary
from metalearn.analysis._plot import axes_or_new
from metalearn.data import TaskDistribution
from metalearn.evaluation import bare, warn_of_training_mode
from metalearn.functional import accuracy, derive_key, uniform
from metalearn.outer import MetaLearner
from metalearn.types import Episode

MOST_CLASSES = 6
"""Largest number of classes for which all permutations, 720, are tried by default."""


@dataclass(frozen=True, eq=False)
class LabelPermutations:
    """The result of `label_permutations`.

    Attributes:
        scores: The metric `[num_tasks, num_permutations]`, on the CPU.
    """

    scores: Tensor

    @property
    def mean(self) -> Summary:
        """Each task's mean over permutations."""
        return Summary(self.scores.mean(1))

    @property
    def std(self) -> Summary:
        """Each task's standard deviation over permutations; 0 for a single one."""
        return Summary(self.scores.std(1, correction=min(1, self.scores.shape[1] - 1)))

    @property
    def best(self) -> Summary:
        """Each task's largest score."""
        return Summary(self.scores.amax(1))

    @property
    def worst(self) -> Summary:
        """Each task's smallest score."""
        return Summary(self.scores.amin(1))

    def plot(self, ax: Any = None) -> Any:
        """Draw each task's mean, best and worst score, sorted by mean; return matplotlib's axes."""
        ax = axes_or_new(ax)
        order, tasks = self.mean.values.argsort(), range(len(self.scores))
        worst, best = self.worst.values[order].tolist(), self.best.values[order].tolist()
        ax.fill_between(tasks, worst, best, alpha=0.3, label="worst to best permutation")
        ax.plot(tasks, self.mean.values[order].tolist(), label="mean over permutations")
        ax.set_xlabel("task")
        ax.set_ylabel("score")
        ax.legend()
        return ax

    def __repr__(self) -> str:
        size = "{} tasks, {} permutations".format(*self.scores.shape)
        return f"mean {self.mean}, std {self.std}, worst {self.worst}, best {self.best} ({size})"


def label_permutations(
    learner: MetaLearner,
    episodes: TaskDistribution | Iterable[Episode],
    *,
    num_tasks: int,
    num_permutations: int | None = None,
    num_steps: int | None = None,
    metric: Callable[[Any, Any], Any] = accuracy,
    generator: torch.Generator | None = None,
) -> LabelPermutations:
    """Evaluate a classifier on the same tasks under several permutations of their labels.

    Each output has its own learned initial weights, so that the same images are easier under some
    permutations than under others.

    Args:
        learner: The learner.
        episodes: As for `evaluate`; y are the labels 0 to n_way - 1.
        num_tasks: Number of tasks, at least 1.
        num_permutations: Number of permutations, drawn separately for each task, at least 1; if not
            given, all of them, 120 for five classes.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
        metric: `(output, target) -> number` for one task's query set.
        generator: As for `evaluate`.

    Raises:
        TypeError: If an argument has the wrong type, or the targets are not class labels.
        ValueError: If a count is too low, the episodes end before `num_tasks`, or
            `num_permutations` is not given for more than six classes.

    References:
        Ye and Chao, "How to train your MAML to excel in few-shot classification", ICLR 2022.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> images = data.ClassImages(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    >>> tasks = data.EpisodeSampler(images, 3, 1, 2)
    >>> model = models.conv4(1, 3, num_filters=2, num_layers=1, image_size=8)
    >>> learner = outer.MAML(model, F.cross_entropy, inner.SGD(lr=0.1), num_steps=1)
    >>> label_permutations(learner, tasks, num_tasks=2).scores.shape
    torch.Size([2, 6])
    """
    learner = bare(learner, MetaLearner)
    num_steps = learner.num_steps if num_steps is None else num_steps
    check_count("num_tasks", num_tasks, fix="Write num_tasks=600, say.")
    if num_permutations is not None:
        check_count("num_permutations", num_permutations)
    metrics = {"score": metric}
    check_metrics(metrics)
    warn_of_training_mode([learner])
    scores = []
    for batch, keys in keyed_batches(episodes, num_tasks, generator, learner.device):
        orders = list(_permutations(_num_classes(batch), num_permutations, keys))
        learner.check_episodes(batch, keys)
        batches = (_relabelled(batch, labels) for labels in orders)
        measured = [measure(learner, num_steps, each, keys, metrics) for each in batches]
        scores.append(torch.stack([of_order["score"] for of_order in measured], 1))
    return LabelPermutations(torch.cat(scores).cpu())


def _permutations(n_way: int, num_permutations: int | None, keys: Tensor) -> Iterable[Tensor]:
    """Yield permutations as each task's new labels `[num_tasks, n_way]`."""
    if num_permutations is None:
        if n_way > MOST_CLASSES:
            condition = f"be given for more than {MOST_CLASSES} classes"
            fix = "Write num_permutations=100, say."
            raise invalid("num_permutations", condition, f"{n_way} classes", fix)
        for order in itertools.permutations(range(n_way)):
            yield torch.tensor(order, device=keys.device).expand(len(keys), n_way)
        return
    sources = derive_key(keys).unsqueeze(1)
    for stream in range(num_permutations):
        yield uniform(sources, (n_way,), stream).argsort(1)


def _relabelled(batch: Episode, labels: Tensor) -> Episode:
    support, query = (part._replace(y=labels.gather(1, part.y)) for part in batch)
    return Episode(support, query)


def _num_classes(batch: Episode) -> int:
    """Return the number of labels; raise unless the targets are labels."""
    fix = "Pass episodes of data.EpisodeSampler, say."
    for y in (batch.support.y, batch.query.y):
        is_tensor = isinstance(y, Tensor)
        if not (is_tensor and y.dtype == torch.int64 and y.dim() == 2):
            got = f"{y.dtype} {tuple(y.shape)}" if is_tensor else type(y).__name__
            raise mistyped("episodes", "have labels, int64 [num_tasks, num_examples]", got, fix)
    labels = torch.cat([batch.support.y, batch.query.y], 1)
    if labels.min() < 0:
        raise invalid("labels", "be at least 0", int(labels.min()), fix)
    return int(labels.max()) + 1
