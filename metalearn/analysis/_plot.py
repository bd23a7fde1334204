"""Helpers for plots."""

from collections.abc import Mapping
from typing import Any

from metalearn._checks import check_choice
from metalearn._results import Evaluation


def axes_or_new(ax: Any) -> Any:
    """Return the axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def draw_curve(
    ax: Any,
    evaluations: Mapping[Any, Evaluation],
    score: str,
    xlabel: str,
    label: str | None = None,
) -> Any:
    """Draw a score's mean and 95 % interval over numbers such as steps; return the axes."""
    ax = axes_or_new(ax)
    check_score(score, evaluations)
    summaries = [evaluation[score] for evaluation in evaluations.values()]
    means = [summary.mean for summary in summaries]
    intervals = [summary.ci95 for summary in summaries]
    ax.errorbar(list(evaluations), means, intervals, marker="o", capsize=3, label=label)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(score)
    return ax


def check_score(score: str, evaluations: Mapping[Any, Evaluation]) -> None:
    """Raise unless `score` is one of the evaluations' summaries."""
    check_choice("score", score, next(iter(evaluations.values())))
