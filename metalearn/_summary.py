"""Means with their 95 % intervals, of one number for every task or for every run."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from metalearn._checks import check_choice, invalid


@dataclass(frozen=True, eq=False)
class Summary:
    """One number for every task, or for every run.

    Attributes:
        values: The numbers `[num_tasks]` or `[num_runs]`, on the CPU.
        over: What the values range over: "tasks", "runs", or "runs on the same tasks" if what these
            tasks are off by is in no interval.
        tasks: If all runs were evaluated on the same tasks, the summary over tasks of the mean over
            runs.
        num_outliers: How many numbers `without_outliers` has left out.
    """

    values: Tensor
    over: str = "tasks"
    tasks: "Summary | None" = None
    num_outliers: int = 0

    def __post_init__(self) -> None:
        check_choice("Summary's over", self.over, ("tasks", "runs", "runs on the same tasks"))

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
        outliers = f"outlier{'s' * (self.num_outliers > 1)}"
        left_out = f" without {self.num_outliers} {outliers}" if self.num_outliers else ""
        values = f"{len(self.values)} {self.over}{left_out}{tasks}"
        return f"95 % over {values}, {self.quantile:.3g} standard errors"

    def without_outliers(self) -> "Summary":
        """Return the summary of what is within 1.5 interquartile ranges of the middle half.

        Its interval says how many numbers were left out. It is too narrow for new runs or tasks,
        of which some will be outliers too.

        Raises:
            ValueError: If it holds the error of shared tasks: leave out whole runs, by
                `over_seeds(runs, without_outliers=True)`.

        References:
            Tukey, "Exploratory data analysis", 1977.

        >>> import torch
        >>> Summary(torch.tensor([1.0, 2.0, 3.0, 2.0, 90.0])).without_outliers().interval
        '95 % over 4 tasks without 1 outlier, 3.18 standard errors'
        """
        if self.tasks is not None:
            fix = "Write over_seeds(runs, without_outliers=True)."
            raise invalid("Summary", "be without an error of shared tasks", "one with it", fix)
        kept = self.values[~are_outliers(self.values)]
        left_out = self.num_outliers + len(self.values) - len(kept)
        return replace(self, values=kept, num_outliers=left_out)

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


def are_outliers(values: Tensor) -> Tensor:
    """Return which numbers are 1.5 interquartile ranges outside of the finite ones' middle half.

    Numbers that are not finite are outliers too, unless all are.
    """
    finite = values.isfinite()
    if not finite.any():
        return finite
    known = values[finite].double()
    first, third = known.quantile(known.new_tensor([0.25, 0.75]))
    reach = 1.5 * (third - first)
    return ~(finite & (values >= first - reach) & (values <= third + reach))


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
