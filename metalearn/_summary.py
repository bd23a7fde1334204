"""Means with their 95 % intervals, of one number for every task or for every run."""

import math
from dataclasses import dataclass

from torch import Tensor

from metalearn._checks import check_choice


@dataclass(frozen=True, eq=False)
class Summary:
    """One number for every task, or for every run.

    Attributes:
        values: The numbers `[num_tasks]` or `[num_runs]`, on the CPU.
        over: What the values range over, "tasks" or "runs".
        tasks: If all runs were evaluated on the same tasks, the summary over tasks of the mean over
            runs.
    """

    values: Tensor
    over: str = "tasks"
    tasks: "Summary | None" = None

    def __post_init__(self) -> None:
        check_choice("Summary's over", self.over, ("tasks", "runs"))

    @property
    def mean(self) -> float:
        """Mean over tasks, or over runs."""
        return self.values.mean().item()

    @property
    def median(self) -> float:
        """Median over tasks, or over runs, the mean of the middle two for an even number."""
        return self.values.quantile(0.5).item()

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, that of `tasks` added in quadrature; NaN for one value."""
        return math.sqrt(sum(variance for variance, _ in self._variances()))

    @property
    def quantile(self) -> float:
        """Half of the 95 % interval in standard errors, by Student's t; NaN for a single value."""
        # Satterthwaite's degrees of freedom combine the errors of runs and of tasks.
        (_, freedom), *shared = self._variances()
        if len(self.values) == 1:
            return math.nan
        spread = sum(variance**2 / count for variance, count in self._variances())
        return _student(self.standard_error**4 / spread if shared and spread else freedom)

    @property
    def ci95(self) -> float:
        """Half of the mean's 95 % confidence interval; NaN for a single value."""
        return self.quantile * self.standard_error

    @property
    def interval(self) -> str:
        """The meaning of `ci95` in words, such as "95 % over 5 runs, 2.78 standard errors"."""
        tasks = "" if self.tasks is None else f" and their {len(self.tasks.values)} tasks"
        values = f"{len(self.values)} {self.over}{tasks}"
        return f"95 % over {values}, {self.quantile:.3g} standard errors"

    def _variances(self) -> list[tuple[float, int]]:
        """Return the variance of each part of the mean's error, and its degrees of freedom."""
        freedom = len(self.values) - 1
        variance = self.values.double().var().item() / (freedom + 1) if freedom else math.nan
        shared = [] if self.tasks is None else self.tasks._variances()
        return [(variance, max(freedom, 1)), *shared]

    def __repr__(self) -> str:
        return f"{self.mean:.4g} +- {self.ci95:.2g}"


class Summaries(dict[str, Summary]):
    """Summaries by name, printed on one line with the meaning of their intervals."""

    def __repr__(self) -> str:
        intervals = "; ".join(dict.fromkeys(summary.interval for summary in self.values()))
        return f"{line(self)} ({intervals})" if self else "no summaries"


def line(summaries: dict[str, Summary]) -> str:
    """Return names, means and intervals as one line."""
    return ", ".join(f"{name} {summary}" for name, summary in summaries.items())


def _student(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t.

    It is within 0.03 % from four degrees of freedom on, and within 0.7 % from one on.
    """
    # The first four terms are the expansion about the normal distribution (Abramowitz and Stegun,
    # 26.7.5); the last makes it exact for one degree of freedom.
    terms = (1.95996, 2.37227, 2.82250, 2.55585, 1.58954, 1.40607)
    return sum(term / freedom**power for power, term in enumerate(terms))
