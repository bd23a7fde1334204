"""Metrics of adapted models, one number for every task."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_function, invalid, misfit, mistyped
from metalearn._ensemble import Ensemble
from metalearn._tasks import num_tasks, take
from metalearn.outer import MetaLearner
from metalearn.types import Episode

Metrics: TypeAlias = Mapping[str, Callable[..., Any]]
"""Functions `(output, target) -> number` of one task, or `(output, target, weight)`, by name."""


def check_metrics(metrics: Any) -> None:
    """Raise unless `metrics` are functions by name."""
    fix = 'Write metrics={"accuracy": functional.accuracy}, say.'
    if not isinstance(metrics, Mapping):
        raise mistyped("metrics", "be a dict of functions", brief(metrics), fix)
    for name, metric in metrics.items():
        if name == "loss":
            raise invalid("a metric's name", "be another than 'loss'", brief(name), fix)
        check_function(f"metric {name!r}", metric, fix=fix)


def measure(
    learner: MetaLearner | Ensemble, num_steps: int, batch: Episode, keys: Tensor, metrics: Metrics
) -> dict[str, Tensor]:
    """Adapt to a batch of tasks, and return loss and metrics of every task, `[num_tasks]`."""
    adapted, query = learner.adapt(batch.support, num_steps, keys=keys), batch.query
    if not metrics:
        return {"loss": _precise(adapted.loss(query))}
    output = adapted(query)
    judged = (output, query.y, *([query.weight] if isinstance(query.weight, Tensor) else []))
    loss = _precise(adapted.loss_of(output, query))
    measured = {name: _per_task(name, metric, judged) for name, metric in metrics.items()}
    return {"loss": loss, **measured}


def _per_task(name: str, metric: Callable[..., Any], judged: tuple[Any, ...]) -> Tensor:
    """Return one metric of every task, `[num_tasks]`."""
    if error := misfit(metric, len(judged)):
        taken = ", ".join(("output", "target", "weight")[: len(judged)])
        got = f"{'weights' if len(judged) > 2 else 'none'}, and {error}"
        fix = f"Write lambda {taken}: ..., or functional.accuracy."
        raise mistyped(f"metric {name!r}", f"take ({taken})", got, fix)
    # A loop, so that metrics may come from NumPy or scikit-learn.
    each = [_number(name, metric(*take(judged, task))) for task in range(num_tasks(judged))]
    if each[0].dim() != 0:
        fix = "Average it: .mean()."
        raise invalid(f"metric {name!r}", "be a scalar", f"shape {tuple(each[0].shape)}", fix)
    return _precise(torch.stack(each))


def _number(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Return a number, or a scalar tensor."
        raise mistyped(f"metric {name!r}", "be a number", brief(value), fix) from error


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
