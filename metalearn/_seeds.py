"""Several runs in one number each."""

from collections.abc import Iterable
from functools import partial
from typing import Literal

import torch

from metalearn._brief import brief
from metalearn._checks import as_list, check_choice, invalid, mistyped
from metalearn._results import Evaluation
from metalearn._summary import Summaries, Summary, are_outliers


def over_seeds(
    evaluations: Iterable[Evaluation],
    *,
    of_run: Literal["mean", "median"] = "mean",
    without_outliers: bool = False,
) -> Summaries:
    """Summarise several runs, such as one learner trained from several seeds, by a number each.

    Runs are few, so the 95 % intervals use Student's t distribution. They hold for new runs on new
    tasks. If all runs were evaluated on the same tasks, the error due to these tasks does not show
    in the spread of the runs; it is added in quadrature, with Satterthwaite's degrees of freedom.
    The interaction of runs and tasks is then counted twice, which makes the interval slightly too
    wide. Different tasks for every run give a narrower one.

    Args:
        evaluations: One per run, either all of the same tasks or each of different ones.
        of_run: Each run's number, the "mean" or the "median" over its tasks. The interval of
            medians on the same tasks holds for these tasks alone, and says so.
        without_outliers: Whether to leave out runs whose number is 1.5 interquartile ranges outside
            of the middle half, as in Huisman's tables. The interval says how many, metric by
            metric.

    Returns:
        Summaries of the runs' numbers `[num_runs]`, float64, of every metric that all runs have.

    Raises:
        TypeError: If they are not evaluations.
        ValueError: If there are none, only some of them share their tasks, or `of_run` is neither
            of the two.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, section 4.1.1 (medians
        and outliers).
        Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
        Bulletin 1946.

    >>> from metalearn import Evaluation, Summary
    >>> losses = [Summary(torch.tensor([loss])) for loss in (1.0, 2.0, 3.0)]
    >>> runs = [Evaluation({"loss": loss}, 1, 5, "none") for loss in losses]
    >>> print(over_seeds(runs))
    loss 2 +- 2.5 (95 % over 3 runs, 4.31 standard errors)
    """
    check_choice("of_run", of_run, ("mean", "median"))
    fix = "Write over_seeds([evaluate(learner, tasks, num_tasks=600) for learner in learners])."
    runs = as_list("evaluations", evaluations, "be a list of Evaluations", fix=fix)
    if not runs:
        raise invalid("evaluations", "be at least one", "[]", fix)
    for run in runs:
        if not isinstance(run, Evaluation):
            raise mistyped("evaluations", "be a list of Evaluations", f"one with {brief(run)}", fix)
    summaries, shared = Summaries(), _share_tasks(runs)
    for name in (name for name in runs[0] if all(name in run for run in runs)):
        values = [run[name].values.double() for run in runs]
        middle = torch.mean if of_run == "mean" else partial(torch.quantile, q=0.5)
        numbers = torch.stack([middle(of_tasks) for of_tasks in values])
        kept = ~are_outliers(numbers) if without_outliers else torch.ones_like(numbers) > 0
        over, tasks = "runs", None
        if shared and of_run == "mean":
            tasks = Summary(torch.stack(values)[kept].mean(0))
        elif shared:
            over = "runs on the same tasks"
        summaries[name] = Summary(numbers[kept], over, tasks, int((~kept).sum()))
    return summaries


def _share_tasks(runs: list[Evaluation]) -> bool:
    """Return whether all runs are of the same tasks; raise if only some are."""
    known = [run.fingerprint for run in runs if run.fingerprint is not None]
    if len(set(known)) == len(known):
        return False
    if len(set(known)) == 1 and len(known) == len(runs):
        return True
    fix = (
        "Pass generator=torch.Generator().manual_seed(run) to evaluate, another one for every run."
    )
    got = f"fingerprints {[run.fingerprint for run in runs]}"
    raise invalid("evaluations", "be all of the same tasks, or each of its own", got, fix)
