"""Evaluation: adapt to many unseen tasks and summarise how well that went."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parallel import DistributedDataParallel

from metalearn._brief import brief
from metalearn._checks import (
    check_count,
    check_function,
    check_generator,
    invalid,
    message,
    misfit,
    mistyped,
)
from metalearn._ensemble import Ensemble
from metalearn._fingerprint import fingerprint
from metalearn._results import Evaluation
from metalearn._summary import Summary
from metalearn._tasks import num_tasks as count_tasks
from metalearn._tasks import take
from metalearn._tree import tree_map
from metalearn.data import TaskDistribution
from metalearn.data._collate import explained
from metalearn.functional import draw_keys
from metalearn.models import batch_statistics
from metalearn.models._batch_norm import PerStepNorm
from metalearn.outer import MetaLearner, Replicas
from metalearn.outer._checks._episodes import check_episodes
from metalearn.outer._replicas import adapted_losses
from metalearn.types import Episode

TASKS_AT_ONCE = 32
"""Tasks that are adapted to together: enough to fill a CPU, few enough for the memory of image
models."""


def evaluate(
    learner: MetaLearner | Sequence[MetaLearner],
    episodes: TaskDistribution | Iterable[Episode],
    *,
    num_tasks: int,
    num_steps: int | None = None,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Adapt to tasks and measure the adapted models on their query sets. Memory does not grow with
    `num_tasks`.

    The learner is used in the mode it is in; call `learner.eval()` for a model with dropout, which
    warns otherwise.

    A list of learners is an ensemble, such as the best checkpoints of one run, `fit(...,
    keep_best=5)`: each adapts by itself, their outputs are averaged, and loss and metrics are those
    of the mean output, the loss by the first one's criterion. Averaged logits are those of the
    geometric mean of the probabilities, normalised.

    Args:
        learner: The learner, or a list of them on one device.
        episodes: Where the tasks come from: a distribution, or an iterable of batches of episodes.
        num_tasks: Number of tasks, at least 1.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
        metrics: Functions `(output, target) -> number` of one task's query set, by name, such as
            `{"accuracy": functional.accuracy}`; `(output, target, weight)` where examples have
            weights.
        generator: Source of the tasks' randomness and keys; PyTorch's if not given. Seeded alike,
            evaluations are of the same tasks, and `compare` gives their paired differences.

    Returns:
        Query loss and metrics of every task.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is too low, a metric is named "loss", the episodes end before
            `num_tasks`, they or the first task's losses are ill posed, or learners cannot be
            averaged.

    Warns:
        UserWarning: If the model drops units, or does not use the running statistics that it has.

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
    num_steps = one.num_steps if num_steps is None else num_steps
    return evaluate_each(
        [(one, num_steps)], episodes, num_tasks=num_tasks, metrics=metrics, generator=generator
    )[0]


def evaluate_each(
    learners: Sequence[tuple[MetaLearner | Ensemble, int]],
    episodes: TaskDistribution | Iterable[Episode],
    *,
    num_tasks: int,
    metrics: Mapping[str, Callable[[Any, Any], Any]],
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
        summaries = {
            name: Summary(torch.cat([values[name] for values in part]).cpu()) for name in part[0]
        }
        statistics = batch_statistics(learner.model)
        evaluations.append(Evaluation(summaries, num_tasks, num_steps, statistics, tasks))
    return evaluations


def measure(
    learner: MetaLearner | Ensemble,
    num_steps: int,
    batch: Episode,
    keys: Tensor,
    metrics: Mapping[str, Callable[[Any, Any], Any]],
) -> dict[str, Tensor]:
    """Adapt to a batch of tasks, and return loss and metrics of every task, `[num_tasks]`."""
    adapted, query = learner.adapt(batch.support, num_steps, keys=keys), batch.query
    if not metrics:
        return {"loss": _precise(adapted.loss(query))}
    output = adapted(query)
    values = {"loss": _precise(adapted.judged(output, query))}
    judged = (output, query.y, *([query.weight] if isinstance(query.weight, Tensor) else []))
    for name, metric in metrics.items():
        values[name] = _per_task(name, metric, judged)
    return values


def mean_losses(
    replicas: Replicas,
    tasks: TaskDistribution,
    num_tasks: int,
    num_steps: int | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Return every replica's mean query loss, `[R]`, on the very tasks that `evaluate` would draw
    for it.
    """
    count, precise = len(replicas), torch.promote_types(replicas.learner.dtype, torch.float32)
    total = torch.zeros(count, dtype=precise, device=replicas.device)
    at_once = max(TASKS_AT_ONCE // count, 1)
    for batch, keys in keyed_batches(tasks, num_tasks, generator, replicas.device):
        for start in range(0, len(keys), at_once):
            part = take((batch, keys), slice(start, start + at_once))
            episodes, part_keys = tree_map(
                lambda leaf: leaf.repeat(count, *(1 for _ in leaf.shape[1:])), part
            )
            total += adapted_losses(replicas, episodes, part_keys, num_steps).to(precise).sum(1)
    return total.cpu() / num_tasks


def warn_of_training_mode(learners: Sequence[MetaLearner | Ensemble]) -> None:
    """Warn of models that drop units while they are judged, or have running statistics that would
    not be used.
    """
    modules = [
        module for learner in learners for module in learner.model.modules() if module.training
    ]
    drops = (each for each in modules if isinstance(each, _DropoutNd) and each.p > 0)
    active = next(drops, None) or next(
        (each for each in modules if isinstance(each, PerStepNorm)), None
    )
    if active is not None:
        fix = "Call learner.eval() first, and learner.train() to train on."
        does = (
            "units are dropped"
            if isinstance(active, _DropoutNd)
            else "the query batch normalises itself"
        )
        condition = f"be in evaluation mode, or {does} while it is judged"
        warnings.warn(message("model", condition, f"an active {active}", fix), stacklevel=4)


def check_metrics(metrics: Any) -> None:
    """Raise unless `metrics` are functions by name."""
    fix = 'Write metrics={"accuracy": functional.accuracy}, say.'
    if not isinstance(metrics, Mapping):
        raise mistyped("metrics", "be a dict of functions", brief(metrics), fix)
    for name, metric in metrics.items():
        if name == "loss":
            raise invalid("a metric's name", "be another than 'loss'", brief(name), fix)
        check_function(f"metric {name!r}", metric, fix=fix)


def _per_task(name: str, metric: Callable[..., Any], judged: tuple[Any, ...]) -> Tensor:
    """Return one metric of every task, `[num_tasks]`."""
    # A loop, so that a metric may be any function, of NumPy or scikit-learn too.
    _check_takes(name, metric, len(judged))
    each = [_number(name, metric(*take(judged, task))) for task in range(count_tasks(judged))]
    if each[0].dim() != 0:
        fix = "Average it: .mean()."
        raise invalid(f"metric {name!r}", "be a scalar", f"shape {tuple(each[0].shape)}", fix)
    return _precise(torch.stack(each))


def _check_takes(name: str, metric: Callable[..., Any], count: int) -> None:
    """Raise if a metric cannot be called with output, target and, where examples have weights,
    these.
    """
    if error := misfit(metric, count):
        taken, weights = (
            ("(output, target)", "none") if count == 2 else ("(output, target, weight)", "weights")
        )
        fix = f"Write lambda {taken[1:-1]}: ..., or functional.accuracy."
        raise mistyped(f"metric {name!r}", f"take {taken}", f"{weights}, and {error}", fix)


def _number(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Return a number, or a scalar tensor."
        raise mistyped(f"metric {name!r}", "be a number", brief(value), fix) from error


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def bare(learner: Any, kinds: Any = MetaLearner | Replicas) -> Any:
    """Return the learner inside `DistributedDataParallel` or `torch.compile`; raise unless there is
    one.
    """
    inside = learner
    while isinstance(inside, DistributedDataParallel) or hasattr(inside, "_orig_mod"):
        inside = inside.module if isinstance(inside, DistributedDataParallel) else inside._orig_mod
    if isinstance(inside, kinds):
        return inside
    fix = "Write outer.MAML(model, F.mse_loss, inner.SGD(lr=0.01), num_steps=5), say."
    if isinstance(inside, Replicas):
        fix = "Take one: replicas[0]."
    raise mistyped("learner", "be a MetaLearner", type(learner).__name__, fix)


def _one(learner: Any) -> MetaLearner | Ensemble:
    """Return what adapts: a learner, or the ensemble of a list of them."""
    if isinstance(learner, list | tuple):
        return Ensemble([bare(member, MetaLearner) for member in learner])
    return bare(learner, MetaLearner)


def as_iterable(what: str, episodes: Any) -> Iterable[Episode]:
    """Return what is no task distribution as an iterable of batches of episodes; one batch is one
    of them.
    """
    if isinstance(episodes, Episode):
        return [episodes]
    if not isinstance(episodes, Iterable) or isinstance(episodes, Tensor):
        fix = "Pass data.Sinusoid(k_shot=10, num_query=10), say."
        raise mistyped(what, "be a task distribution or an iterable", brief(episodes), fix)
    return episodes


def keyed_batches(
    episodes: TaskDistribution | Iterable[Episode],
    num_tasks: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> Iterator[tuple[Episode, Tensor]]:
    """Yield episodes in batches until `num_tasks` have come, each with its tasks' keys."""
    for batch in _batches(episodes, num_tasks, generator, device):
        yield batch, draw_keys(count_tasks(batch), generator=generator, device=device)


def _batches(
    episodes: TaskDistribution | Iterable[Episode],
    num_tasks: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> Iterator[Episode]:
    """Yield episodes in batches until `num_tasks` have come."""
    if isinstance(episodes, TaskDistribution):
        for start in range(0, num_tasks, TASKS_AT_ONCE):
            yield episodes.sample(
                min(TASKS_AT_ONCE, num_tasks - start), generator=generator, device=device
            )
        return
    seen = 0
    for batch in explained(as_iterable("episodes", episodes)):
        check_episodes(batch)
        batch = take(batch.to(device), slice(0, num_tasks - seen))
        yield batch
        seen += count_tasks(batch)
        if seen >= num_tasks:
            return
    fix = f"Write num_tasks={seen}." if seen else "Pass a list: an iterator can be read once."
    raise invalid("episodes", f"give {num_tasks} tasks", f"{seen}", fix)
