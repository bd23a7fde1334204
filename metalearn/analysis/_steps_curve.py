"""Scores after several numbers of adaptation steps."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from metalearn._checks import as_list, check_choice, check_count, invalid
from metalearn._results import Evaluation
from metalearn.analysis._plot import check_score, draw_curve
from metalearn.data import TaskDistribution
from metalearn.evaluation import bare, evaluate_each
from metalearn.outer import MetaLearner
from metalearn.types import Episode


@dataclass(frozen=True, eq=False)
class StepsCurve:
    """The result of `steps_curve`.

    Attributes:
        evaluations: Evaluations on the same tasks, by number of steps.
    """

    evaluations: dict[int, Evaluation]

    def best(self, score: str = "loss", *, mode: str | None = None) -> int:
        """Return the number of steps with the best mean, to choose it on validation tasks.

        Args:
            score: "loss" or the name of a metric.
            mode: Whether "min" or "max" is best; for the loss, "min" if not given.

        Raises:
            ValueError: If the score is unknown, or `mode` is neither, or not given for a metric.
        """
        check_score(score, self.evaluations)
        if mode is None and score != "loss":
            fix = f"Write curve.best({score!r}, mode='max')."
            raise invalid("mode", "be given for a metric", mode, fix)
        check_choice("mode", mode or "min", ["min", "max"])
        sign = -1 if mode == "max" else 1
        means = {steps: sign * each[score].mean for steps, each in self.evaluations.items()}
        return min(means, key=lambda steps: math.inf if math.isnan(means[steps]) else means[steps])

    def plot(self, ax: Any = None, *, score: str = "loss", label: str | None = None) -> Any:
        """Draw the mean score and its 95 % interval over steps; return matplotlib's axes.

        Args:
            ax: Matplotlib's axes; None for a new figure.
            score: "loss" or the name of a metric.
            label: Name for a legend.
        """
        return draw_curve(ax, self.evaluations, score, "adaptation steps", label)

    def __repr__(self) -> str:
        return "\n".join(map(str, self.evaluations.values()))


def steps_curve(
    learner: MetaLearner,
    episodes: TaskDistribution | Iterable[Episode],
    steps: Iterable[int] = range(11),
    *,
    num_tasks: int,
    metrics: Mapping[str, Callable[[Any, Any], Any]] = {},
    generator: torch.Generator | None = None,
) -> StepsCurve:
    """Evaluate a learner after several numbers of adaptation steps on the same tasks.

    Args:
        learner: The learner.
        episodes: As for `evaluate`.
        steps: Numbers of steps, each at least 0.
        num_tasks: Number of tasks, at least 1.
        metrics: As for `evaluate`.
        generator: As for `evaluate`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `steps` is empty, a count is too low, or the episodes end before `num_tasks`.

    >>> import torch.nn.functional as F
    >>> from metalearn import data, evaluate, inner, models, outer
    >>> learner = outer.MAML(models.mlp(1, [8], 1), F.mse_loss, inner.SGD(lr=0.01), num_steps=2)
    >>> tasks = data.Sinusoid(k_shot=5, num_query=5)
    >>> curve = steps_curve(learner, tasks, steps=[0, 1, 5], num_tasks=50)
    >>> evaluation = evaluate(learner, tasks, num_tasks=50, num_steps=curve.best())
    """
    learner = bare(learner, MetaLearner)
    counts = as_list("steps", steps) if isinstance(steps, Iterable) else [steps]
    fix = "Write steps=range(11), say."
    for count in counts:
        check_count("steps", count, minimum=0, fix=fix)
    if not counts:
        raise invalid("steps", "be at least one number", "[]", fix)
    conditions = [(learner, count) for count in counts]
    evaluations = evaluate_each(
        conditions, episodes, num_tasks=num_tasks, metrics=metrics, generator=generator
    )
    return StepsCurve(dict(zip(counts, evaluations, strict=True)))
