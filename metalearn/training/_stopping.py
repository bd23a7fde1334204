"""Early stopping of a run of `fit`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import check_count, check_not_negative, invalid
from metalearn.training._history import History
from metalearn.training._logs import Progress


class EarlyStopping:
    """A callback of `fit` that ends the run when the validation score stops improving.

    The score is `fit`'s, lower is better; for replicas, the mean without NaN. It depends only on
    `history.scores`, so a run resumed from a checkpoint stops where an uninterrupted one does.

    Args:
        patience: Number of consecutive validations without improvement after which the run ends, at
            least 1.
        min_improvement: How far a score must be below the best to count as an improvement, at least
            0.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `patience` is below 1 or `min_improvement` below 0.
    """

    def __init__(self, patience: int, min_improvement: float = 0.0) -> None:
        fix = "Write training.EarlyStopping(patience=10), say."
        check_count("patience", patience, fix=fix)
        check_not_negative("min_improvement", min_improvement, fix=fix)
        self._patience, self._min_improvement = patience, min_improvement

    def __call__(self, progress: Progress) -> bool:
        """Return whether this iteration's score ends the run; False if it has none."""
        return progress.iteration in progress.history.scores and self._is_over(progress.history)

    def _is_over(self, history: History) -> bool:
        best, since = math.inf, 0
        for scores in history.scores.values():
            score = torch.tensor(scores).nanmean().item()
            is_better = score < best - self._min_improvement
            best, since = (score, 0) if is_better else (best, since + 1)
        return since >= self._patience


def is_over(callbacks: Sequence[Callable[[Progress], Any]], progress: Progress) -> bool:
    """Call all callbacks; return whether any of them, in any process, ends the run."""
    ends = [_is_true(callback(progress)) for callback in callbacks]
    return progress.processes.any(any(ends), progress.learner.device)


def check_has_score(callbacks: Sequence[Any], validate: Any) -> None:
    """Raise if early stopping has no validation score."""
    if validate is None and any(isinstance(callback, EarlyStopping) for callback in callbacks):
        fix = "Pass validate=tasks too."
        raise invalid("EarlyStopping", "have a validation score", "validate=None", fix)


def _is_true(value: Any) -> bool:
    """Return whether this is True or a true boolean tensor; other truthy values do not count."""
    is_flag = isinstance(value, Tensor) and value.dtype == torch.bool
    return value is True or (is_flag and bool(value.all()))
