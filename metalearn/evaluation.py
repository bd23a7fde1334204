"""Evaluation: adapt to many unseen tasks and summarise how well that went."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from metalearn._checks import check_count, check_generator, invalid, message, mistyped
from metalearn._ensemble import Ensemble
from metalearn._fingerprint import fingerprint
from metalearn._metrics import Metrics, check_metrics, measure
from metalearn._results import Evaluation
from metalearn._streams import TASKS_AT_ONCE, Tasks, keyed_batches
from metalearn._summary import Summary
from metalearn._tasks import take
from metalearn._tree import tree_map
from metalearn.data import TaskDistribution
from metalearn.data._names import as_strings
from metalearn.models import batch_statistics
from metalearn.models._batch_norm import PerStepNorm
from metalearn.outer import MetaLearner, Mixture, Replicas
from metalearn.outer._replicas import adapted_losses
from metalearn.types import Episode


def evaluate(
    learner: MetaLearner | Sequence[MetaLearner],
    episodes: TaskDistribution | Iterable[Episode],
    *,
    num_tasks: int,
    num_steps: int | None = None,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    task_names: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Adapt to tasks and measure the adapted models on their query sets.

    Memory does not grow with `num_tasks`. The learner keeps its mode: call `learner.eval()` first
    if the model has dropout, or a warning is issued.

    A list of learners is an ensemble, such as the best checkpoints of one run (`fit(...,
    keep_best=5)`). Each learner adapts on its own, and loss and metrics are computed from the mean
    of their outputs, the loss by the first learner's criterion. Averaging logits takes the
    normalised geometric mean of the probabilities.

    Args:
        learner: The learner, or a list of them on one device.
        episodes: Where the tasks come from: a distribution, or an iterable of batches of episodes.
        num_tasks: Number of tasks, at least 1.
        num_steps: Number of adaptation steps, at least 0; by default the number used in training.
        metrics: Functions `(output, target) -> number` of one task's query set, by name, such as
            `{"accuracy": functional.accuracy}`; `(output, target, weight)` where examples have
            weights.
        task_names: Names of the tasks in the order in which they come, different ones, for
            `Evaluation.by_task`, such as those of `data.Grouped.each`. A distribution, which draws
            its tasks at random, has none.
        generator: Source of the tasks' randomness and keys; PyTorch's by default. Evaluations with
            the same seed use the same tasks, and `compare` gives their paired differences.

    Returns:
        Query loss and metrics of every task.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is too low, a metric is named "loss", there are fewer episodes than
            `num_tasks`, `task_names` are not one for every task or are of random ones, the episodes
            or the first task's losses are ill posed, or learners cannot be averaged.

    Warns:
        UserWarning: If the model drops units or ignores its running statistics.

    References:
        Antoniou, Edwards and Storkey, "How to train your MAML", ICLR 2019 (the ensemble of the five
        best checkpoints).

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> tasks = data.Sinusoid(k_shot=5, num_query=5)
    >>> evaluation = evaluate(learner, tasks, num_tasks=50, num_steps=10)
    >>> evaluation["loss"].values.shape, evaluation.batch_statistics
    (torch.Size([50]), 'none')
    """
    one = _one(learner)
    pairs = [(one, one.num_steps if num_steps is None else num_steps)]
    names = None if task_names is None else _as_names(task_names, episodes, num_tasks)
    evaluations = evaluate_each(
        pairs, episodes, num_tasks=num_tasks, metrics=metrics, generator=generator
    )
    return replace(evaluations[0], task_names=names)


def evaluate_each(
    learners: Sequence[tuple[MetaLearner | Ensemble, int]],
    episodes: Tasks,
    *,
    num_tasks: int,
    metrics: Metrics,
    generator: torch.Generator | None,
) -> list[Evaluation]:
    """Evaluate every learner with its number of steps, all on the same tasks with the same keys."""
    check_count("num_tasks", num_tasks, fix="Write num_tasks=600, say.")
    check_metrics(metrics)
    check_generator(generator)
    warn_of_training_mode([learner for learner, _ in learners])
    parts: list[list[dict[str, Tensor]]] = [[] for _ in learners]
    tasks = 0
    for batch, keys in keyed_batches(episodes, num_tasks, generator, learners[0][0].device):
        tasks = fingerprint(batch, tasks)
        for part, (learner, num_steps) in zip(parts, learners, strict=True):
            learner.check_episodes(batch, keys)
            part.append(measure(learner, num_steps, batch, keys, metrics))
    evaluations = []
    for part, (learner, num_steps) in zip(parts, learners, strict=True):
        values = {name: torch.cat([each[name] for each in part]).cpu() for name in part[0]}
        summaries = {name: Summary(numbers) for name, numbers in values.items()}
        statistics = batch_statistics(learner.model)
        evaluations.append(Evaluation(summaries, num_tasks, num_steps, statistics, tasks))
    return evaluations


def mean_losses(
    replicas: Replicas,
    tasks: TaskDistribution,
    num_tasks: int,
    num_steps: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Return every replica's mean query loss `[R]` on the tasks that `evaluate` would draw."""
    count, precise = len(replicas), torch.promote_types(replicas.learner.dtype, torch.float32)
    total = torch.zeros(count, dtype=precise, device=replicas.device)
    at_once = max(TASKS_AT_ONCE // count, 1)
    for batch, keys in keyed_batches(tasks, num_tasks, generator, replicas.device):
        for start in range(0, len(keys), at_once):
            part = take((batch, keys), slice(start, start + at_once))
            batch_part, keys_part = tree_map(lambda leaf: torch.cat([leaf] * count), part)
            losses = adapted_losses(replicas, batch_part, keys_part, num_steps)
            total += losses.to(precise).sum(1)
    return total.cpu() / num_tasks


def warn_of_training_mode(learners: Sequence[MetaLearner | Ensemble]) -> None:
    """Warn of models that drop units while evaluated or ignore their running statistics."""
    modules = [each for learner in learners for each in learner.model.modules() if each.training]
    drops = [each for each in modules if isinstance(each, _DropoutNd) and each.p > 0]
    norms = [each for each in modules if isinstance(each, PerStepNorm)]
    for active in [*drops, *norms][:1]:
        does = "units are dropped" if drops else "the query batch normalises itself"
        condition = f"be in evaluation mode, or {does} while it is judged"
        fix = "Call learner.eval() first, and learner.train() to train on."
        warnings.warn(message("model", condition, f"an active {active}", fix), stacklevel=4)


Learner: TypeAlias = MetaLearner | Replicas | Mixture
"""What `fit` trains."""


def bare(learner: Any, kinds: Any = MetaLearner | Replicas) -> Any:
    """Return the learner inside `DistributedDataParallel` or `torch.compile`, or raise."""
    inside = learner
    while isinstance(inside, DistributedDataParallel) or hasattr(inside, "_orig_mod"):
        inside = inside.module if isinstance(inside, DistributedDataParallel) else inside._orig_mod
    if isinstance(inside, kinds):
        return inside
    fix = "Write outer.MAML(model, F.mse_loss, inner.SGD(lr=0.01), num_steps=5), say."
    if isinstance(inside, Replicas):
        fix = "Take one: replicas[0]."
    if isinstance(inside, Mixture):
        fix = "Take one, and the tasks that it learns on: mixture[0]."
    raise mistyped("learner", "be a MetaLearner", type(learner).__name__, fix)


def _as_names(names: Any, episodes: Any, num_tasks: int) -> tuple[str, ...]:
    """Return the tasks' names; raise unless every task has one of its own."""
    if isinstance(episodes, TaskDistribution):
        fix = "Pass clients.each(), which has every task once, in this order."
        condition = "be of tasks in an order, not of random draws"
        raise invalid("task_names", condition, type(episodes).__name__, fix)
    fix = "Pass task_names=clients.names, and clients.each() as episodes, say."
    names = as_strings("task_names", names, fix)
    if len(names) != num_tasks:
        raise invalid("task_names", f"be {num_tasks} names, each once", len(names), fix)
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise invalid("task_names", f"be {num_tasks} names, each once", f"{twice} twice", fix)
    return names


def _one(learner: Any) -> MetaLearner | Ensemble:
    """Return the learner, or the ensemble of a list of learners."""
    if isinstance(learner, list | tuple):
        return Ensemble([bare(member, MetaLearner) for member in learner])
    return bare(learner, MetaLearner)
