"""Evaluation: adapt to many unseen tasks and summarise how well that went."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from metalearn._checks import check_count, invalid
from metalearn._tasks import num_tasks as count_tasks
from metalearn._tasks import take
from metalearn._tree import tree_map
from metalearn.data import TaskDistribution
from metalearn.functional import draw_keys
from metalearn.models import batch_statistics
from metalearn.outer import MetaLearner, Replicas
from metalearn.outer._learner_checks import check_episodes
from metalearn.types import Episode

TASKS_AT_ONCE = 32
"""Tasks that are adapted to together: enough to fill a CPU, few enough for the memory of image models."""


@dataclass(frozen=True, eq=False)
class Summary:
    """One number for every task.

    Attributes:
        values: The numbers `[num_tasks]`, on the CPU.
    """

    values: Tensor

    @property
    def mean(self) -> float:
        """Mean over tasks."""
        return self.values.mean().item()

    @property
    def median(self) -> float:
        """Median over tasks, the mean of the middle two for an even number."""
        return self.values.quantile(0.5).item()

    @property
    def ci95(self) -> float:
        """Half of the mean's 95 % confidence interval, 1.96 sd / sqrt(num_tasks); NaN for a single task."""
        return 1.96 * self.values.std().item() / math.sqrt(len(self.values)) if len(self.values) > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.mean:.4g} +- {self.ci95:.2g}"


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Summary]):
    """The result of `evaluate`: a mapping from "loss" and the names of the metrics to summaries over tasks.

    Attributes:
        summaries: The mapping.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps.
        batch_statistics: Where batch normalisation took its statistics for query examples from, as
            `models.batch_statistics` says: "transductive", "support", "per_step", "frozen" or "none".
    """

    summaries: dict[str, Summary]
    num_tasks: int
    num_steps: int
    batch_statistics: str

    @property
    def transductive(self) -> bool:
        """Whether the statistics of a query batch were used to predict its examples."""
        return "transductive" in self.batch_statistics

    def __getitem__(self, name: str) -> Summary:
        return self.summaries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries)

    def __len__(self) -> int:
        return len(self.summaries)

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {summary}" for name, summary in self.items())
        return f"{numbers} ({self.num_tasks} tasks, {self.num_steps} steps, batch statistics: {self.batch_statistics})"


def evaluate(
    learner: MetaLearner,
    episodes: TaskDistribution | Iterable[Episode],
    *,
    num_tasks: int,
    num_steps: int | None = None,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    generator: torch.Generator | None = None,
) -> Evaluation:
    """Adapt to tasks and measure the adapted models on their query sets. Memory does not grow with `num_tasks`.

    The learner is used in the mode it is in; call `learner.eval()` for a model with dropout.

    Args:
        learner: The learner.
        episodes: Where the tasks come from: a distribution, or an iterable of batches of episodes.
        num_tasks: Number of tasks, at least 1.
        num_steps: Number of adaptation steps, at least 0; as in training if not given.
        metrics: Functions `(output, target) -> number` of one task's query set, by name, such as
            `{"accuracy": functional.accuracy}`; `(output, target, weight)` where examples have weights.
        generator: Source of the tasks' randomness and keys; PyTorch's if not given.

    Returns:
        Query loss and metrics of every task.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a count is too low, or the episodes end before `num_tasks`.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> evaluation = evaluate(learner, data.Sinusoid(k_shot=5, num_query=5), num_tasks=50, num_steps=10)
    >>> evaluation["loss"].values.shape, evaluation.batch_statistics
    (torch.Size([50]), 'none')
    """
    learner = bare(learner, MetaLearner)
    check_count("num_tasks", num_tasks, fix="Write num_tasks=600, say.")
    num_steps = learner.num_steps if num_steps is None else num_steps
    _check_metrics(metrics)
    values: dict[str, list[Tensor]] = {name: [] for name in ("loss", *metrics)}
    for batch in _batches(episodes, num_tasks, generator, learner.device):
        keys = draw_keys(count_tasks(batch), generator=generator, device=learner.device)
        adapted = learner.adapt(batch.support, num_steps, keys=keys)
        values["loss"].append(_precise(adapted.loss(batch.query)))
        if metrics:
            judged = (
                adapted(batch.query),
                batch.query.y,
                *(part for part in [batch.query.weight] if isinstance(part, Tensor)),
            )
            for name, metric in metrics.items():
                values[name].append(_per_task(name, metric, judged))
    summaries = {name: Summary(torch.cat(parts).cpu()) for name, parts in values.items()}
    return Evaluation(summaries, num_tasks, num_steps, batch_statistics(learner.model))


def mean_losses(
    replicas: Replicas, tasks: TaskDistribution, num_tasks: int, generator: torch.Generator | None
) -> Tensor:
    """Return every replica's mean query loss, `[R]`, on the very tasks that `evaluate` would draw for it."""
    count, total = len(replicas), torch.zeros(len(replicas), dtype=replicas.learner.dtype, device=replicas.device)
    at_once = max(TASKS_AT_ONCE // count, 1)
    for batch in _batches(tasks, num_tasks, generator, replicas.device):
        keys = draw_keys(count_tasks(batch), generator=generator, device=replicas.device)
        for start in range(0, len(keys), at_once):
            part = take((batch, keys), slice(start, start + at_once))
            episodes, part_keys = tree_map(lambda leaf: leaf.repeat(count, *(1 for _ in leaf.shape[1:])), part)
            with torch.no_grad():
                total += replicas(episodes, keys=part_keys) * len(part[1])
    return total.cpu() / num_tasks


def _check_metrics(metrics: Any) -> None:
    fix = 'Write metrics={"accuracy": functional.accuracy}, say.'
    if not isinstance(metrics, Mapping):
        raise TypeError(invalid("metrics", "be a dict of functions", repr(metrics), fix))
    for name, metric in metrics.items():
        if not callable(metric) or name == "loss":
            raise TypeError(invalid(f"metric {name!r}", "be a function with a name other than 'loss'", metric, fix))


def _per_task(name: str, metric: Callable[..., Any], judged: tuple[Any, ...]) -> Tensor:
    """Return one metric of every task, `[num_tasks]`."""
    # A loop, so that a metric may be any function, of NumPy or scikit-learn too.
    each = [torch.as_tensor(metric(*take(judged, task))) for task in range(count_tasks(judged))]
    if each[0].dim() != 0:
        fix = "Average it: .mean()."
        raise ValueError(invalid(f"metric {name!r}", "be a scalar", f"shape {tuple(each[0].shape)}", fix))
    return _precise(torch.stack(each))


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def bare(learner: Any, kinds: Any = MetaLearner | Replicas) -> Any:
    """Return the learner inside `DistributedDataParallel` or `torch.compile`; raise unless there is one."""
    inside = learner.module if isinstance(learner, DistributedDataParallel) else learner
    inside = getattr(inside, "_orig_mod", inside)
    if isinstance(inside, kinds):
        return inside
    fix = "Write outer.MAML(model, F.mse_loss, inner.SGD(lr=0.01), num_steps=5), say."
    if isinstance(inside, Replicas):
        fix = "Take one: replicas[0]."
    raise TypeError(invalid("learner", "be a MetaLearner", type(learner).__name__, fix))


def as_iterable(what: str, episodes: Any) -> Iterable[Episode]:
    """Return what is no task distribution as an iterable of batches of episodes; one batch is one of them."""
    if isinstance(episodes, Episode):
        return [episodes]
    if not isinstance(episodes, Iterable):
        fix = "Pass data.Sinusoid(k_shot=10, num_query=10), say."
        raise TypeError(invalid(what, "be a task distribution or an iterable", repr(episodes), fix))
    return episodes


def _batches(
    episodes: TaskDistribution | Iterable[Episode],
    num_tasks: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> Iterator[Episode]:
    """Yield episodes in batches until `num_tasks` have come."""
    if isinstance(episodes, TaskDistribution):
        for start in range(0, num_tasks, TASKS_AT_ONCE):
            yield episodes.sample(min(TASKS_AT_ONCE, num_tasks - start), generator=generator, device=device)
        return
    seen = 0
    for batch in as_iterable("episodes", episodes):
        check_episodes(batch)
        batch = take(batch.to(device), slice(0, num_tasks - seen))
        yield batch
        seen += count_tasks(batch)
        if seen == num_tasks:
            return
    raise ValueError(invalid("episodes", f"give {num_tasks} tasks", f"{seen}", f"Write num_tasks={seen}."))
