import math

import pytest
import torch

from metalearn import Summaries, Summary


def test_statistics():
    summary = Summary(torch.tensor([1.0, 2.0, 3.0, 10.0]))
    assert summary.mean == 4
    assert summary.median == 2.5
    assert summary.standard_error == pytest.approx(torch.tensor([1.0, 2, 3, 10]).std().item() / 2)
    assert summary.ci95 == pytest.approx(3.1824 * summary.standard_error, rel=1e-3)
    assert math.isnan(Summary(torch.ones(1)).ci95)


@pytest.mark.parametrize(
    ("count", "quantile"),
    [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042), (100, 1.984), (600, 1.964)],
)
def test_intervals_are_by_student_s_t(count, quantile):
    summary = Summary(torch.arange(float(count)))
    assert summary.quantile == pytest.approx(quantile, rel=3e-3)
    expected = quantile * torch.arange(float(count)).std().item() / count**0.5
    assert summary.ci95 == pytest.approx(expected, rel=3e-3)


def test_values_that_are_not_finite_leave_the_quantile():
    assert Summary(torch.tensor([1.0, math.inf] * 300)).quantile == pytest.approx(1.964, rel=1e-3)


def test_the_error_of_shared_tasks_is_added():
    runs, tasks = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), Summary(torch.arange(600.0) / 100)
    summary = Summary(runs, "runs", tasks)
    squares = [runs.var().item() / 5, tasks.values.var().item() / 600]
    assert summary.standard_error == pytest.approx(math.sqrt(sum(squares)))
    assert Summary(runs, "runs").quantile > summary.quantile > tasks.quantile
    equal = Summary(torch.ones(5), "runs", tasks)  # of runs alike, all that is left is the tasks'
    assert equal.ci95 == pytest.approx(tasks.ci95)
    assert Summary(torch.ones(5), "runs", Summary(torch.ones(600))).ci95 == 0


def test_an_interval_says_what_it_is():
    runs, tasks = Summary(torch.tensor([1.0, 2.0, 3.0]), "runs"), Summary(torch.arange(600.0) / 600)
    assert runs.interval == "95 % over 3 runs, 4.31 standard errors"
    assert tasks.interval == "95 % over 600 tasks, 1.96 standard errors"
    both = Summary(runs.values, "runs", tasks)
    assert both.interval.startswith("95 % over 3 runs and their 600 tasks, 4.3")
    assert repr(both) == repr(runs) == "2 +- 2.5"
    assert (
        repr(Summaries(loss=runs, error=runs)) == f"loss 2 +- 2.5, error 2 +- 2.5 ({runs.interval})"
    )
    assert repr(Summaries()) == "no summaries"


def test_outliers_are_left_out_and_counted():
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 8.1, -2.1, 2.0, 3.0, math.nan])
    first, third = torch.tensor(values[:8].tolist()).quantile(torch.tensor([0.25, 0.75])).tolist()
    kept = [x for x in values[:8].tolist() if abs(x - (first + third) / 2) <= 2 * (third - first)]
    assert len(kept) == 6
    summary = Summary(values[:8], "runs").without_outliers()
    assert summary.values.tolist() == kept
    assert summary.interval == "95 % over 6 runs without 2 outliers, 2.57 standard errors"
    again = Summary(torch.cat([summary.values, torch.tensor([99.0])]), "runs", num_outliers=2)
    assert again.without_outliers().num_outliers == 3


def test_counts_have_quartiles_too():
    summary = Summary(torch.tensor([1, 2, 3, 2, 90])).without_outliers()
    assert summary.values.tolist() == [1, 2, 3, 2]


def test_numbers_that_are_not_finite_are_outliers():
    values = [1.0, 2.0, 3.0, 2.0, 2.5, math.nan, math.inf]
    summary = Summary(torch.tensor(values)).without_outliers()
    assert summary.values.tolist() == [2, 3, 2, 2.5]  # 1 is an outlier of these too
    diverged = Summary(torch.full((3,), math.nan)).without_outliers()
    assert len(diverged.values) == 3
    assert math.isnan(diverged.mean)
    assert Summary(torch.ones(3)).without_outliers().interval.startswith("95 % over 3 tasks, ")


def test_whole_runs_are_left_out_where_tasks_are_shared():
    shared = Summary(torch.ones(3), "runs", Summary(torch.ones(4)))
    with pytest.raises(ValueError, match="Write over_seeds.runs, without_outliers=True"):
        shared.without_outliers()
