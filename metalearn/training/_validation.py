"""The validations of a run of `fit`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from metalearn._brief import brief
from metalearn._checks import mistyped
from metalearn._random import random_numbers_kept
from metalearn._streams import keyed_batches
from metalearn.data import TaskDistribution
from metalearn.evaluation import Learner, evaluate, mean_losses
from metalearn.outer import Replicas
from metalearn.training._checkpoint import Run


def check_can_validate(run: Run, validate: Any, num_tasks: int) -> None:
    """Raise before training whatever a validation's first tasks would raise later."""
    if not isinstance(validate, TaskDistribution):
        return
    learner: Any = run.learner[0] if isinstance(run.learner, Replicas) else run.learner
    with random_numbers_kept(learner.device), _in_evaluation_mode(learner):
        batches = keyed_batches(validate, num_tasks, _same_tasks(), learner.device)
        learner.check_episodes(*next(batches))


def score(run: Run, validate: Any, num_tasks: int) -> None:
    """Score the learner or each replica, and update history and scheduler."""
    with _in_evaluation_mode(run.learner):
        scores = _scores(run.learner, validate, num_tasks, run.num_validation_steps)
    run.history.record(run.iteration, scores, run.learner)
    if isinstance(run.scheduler, ReduceLROnPlateau):
        run.scheduler.step(scores.nanmean().item())


@contextmanager
def _in_evaluation_mode(learner: Learner) -> Iterator[None]:
    """Put every module into evaluation mode, then restore its own."""
    modes = [(module, module.training) for module in learner.modules()]
    learner.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training


def _scores(learner: Learner, validate: Any, num_tasks: int, num_steps: int | None) -> Tensor:
    """Return the learner's score, a scalar, or the replicas' scores `[R]`."""
    if not isinstance(learner, Replicas):
        return torch.tensor(_score(learner, validate, num_tasks, num_steps), dtype=torch.float64)
    if isinstance(validate, TaskDistribution):
        return mean_losses(learner, validate, num_tasks, num_steps, _same_tasks()).double()
    each = [_score(learner[index], validate, num_tasks, num_steps) for index in range(len(learner))]
    return torch.tensor(each, dtype=torch.float64)


def _score(learner: Any, validate: Any, num_tasks: int, num_steps: int | None) -> float:
    if isinstance(validate, TaskDistribution):
        options: Any = {"num_tasks": num_tasks, "num_steps": num_steps, "generator": _same_tasks()}
        return evaluate(learner, validate, **options)["loss"].mean
    score = validate(learner)
    try:
        return float(score)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Write validate=lambda learner: evaluate(learner, ...)['loss'].mean."
        raise mistyped("validate", "return a number", brief(score), fix) from error


def _same_tasks() -> torch.Generator:
    """Return a generator that draws the same tasks at every validation."""
    return torch.Generator().manual_seed(0)
