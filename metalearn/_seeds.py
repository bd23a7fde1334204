"""Several runs in one number each."""

from collections.abc import Iterable

import torch

from metalearn._checks import as_list, invalid
from metalearn._results import Evaluation, Summaries, Summary


def over_seeds(evaluations: Iterable[Evaluation]) -> Summaries:
    """Summarise the means of several runs, such as one learner trained from several seeds.

    Args:
        evaluations: One of each run; of the same tasks or not.

    Returns:
        Summaries of the means `[num_runs]`, float64, of every metric that all have. Their 95 % intervals are over runs,
        by Student's t distribution because runs are few.

    Raises:
        TypeError: If they are no evaluations.
        ValueError: If there are none.

    >>> from metalearn import Evaluation, Summary
    >>> runs = [Evaluation({"loss": Summary(torch.tensor([loss]))}, 1, 5, "none") for loss in (1.0, 2.0, 3.0)]
    >>> print(over_seeds(runs))
    loss 2 +- 2.5
    """
    fix = "Write over_seeds([evaluate(learner, tasks, num_tasks=600) for learner in learners])."
    runs = as_list("evaluations", evaluations, "be a list of Evaluations", fix=fix)
    if not runs:
        raise ValueError(invalid("evaluations", "be at least one", "[]", fix))
    for run in runs:
        if not isinstance(run, Evaluation):
            raise TypeError(invalid("evaluations", "be a list of Evaluations", f"one with {run!r}", fix))
    names = [name for name in runs[0] if all(name in run for run in runs)]
    means = {name: [run[name].values.double().mean() for run in runs] for name in names}
    return Summaries({name: Summary(torch.stack(means[name]), _student(len(runs))) for name in names})


def _student(count: int) -> float:
    """Return the 97.5 % quantile of Student's t with `count - 1` degrees of freedom, to 0.3 %."""
    # The first four terms are the expansion about the normal distribution (Abramowitz and Stegun, 26.7.5);
    # the last makes it exact for one degree of freedom.
    inverse = 1 / max(count - 1, 1)
    terms = (1.95996, 2.37227, 2.82250, 2.55585, 1.58954, 1.40607)
    return sum(term * inverse**power for power, term in enumerate(terms))
