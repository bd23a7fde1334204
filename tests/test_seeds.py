import pytest
import torch

from metalearn import Evaluation, Summary, over_seeds


def run(loss, fingerprint=None, **metrics):
    summaries = {
        name: Summary(torch.as_tensor(values)) for name, values in {"loss": loss, **metrics}.items()
    }
    return Evaluation(summaries, len(loss), 5, "none", fingerprint)


def test_means_of_runs_and_what_all_have():
    pooled = over_seeds([run([1.0, 3.0], error=[1.0, 1.0]), run([3.0, 5.0])])
    assert list(pooled) == ["loss"]
    assert pooled["loss"].values.tolist() == [2, 4]
    assert pooled["loss"].mean == 3
    assert str(pooled) == "loss 3 +- 13 (95 % over 2 runs, 12.7 standard errors)"


def test_intervals_are_those_of_few_runs():
    pooled = over_seeds([run([float(seed)]) for seed in range(5)])["loss"]
    assert pooled.ci95 == pytest.approx(2.776 * torch.arange(5.0).std().item() / 5**0.5, rel=1e-3)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    ("of_run", "of_task", "of_both"), [(0.0, 1.0, 1.0), (0.2, 1.0, 0.5), (1.0, 0.3, 0.3)]
)
def test_intervals_hold_new_runs_on_new_tasks(shared, of_run, of_task, of_both):
    generator, num_runs, num_tasks, held = torch.Generator().manual_seed(0), 5, 40, []

    def normal(std, *shape):
        return std * torch.randn(shape, generator=generator)

    for _ in range(500):  # experiments, whose true mean is 0
        tasks = normal(of_task, 1 if shared else num_runs, num_tasks)
        values = normal(of_run, num_runs, 1) + tasks + normal(of_both, num_runs, num_tasks)
        runs = [run(row, 7 if shared else 7 + index) for index, row in enumerate(values)]
        pooled = over_seeds(runs)["loss"]
        held.append(abs(pooled.mean) <= pooled.ci95)
        assert ("their 40 tasks" in pooled.interval) == shared
    assert 0.93 <= sum(held) / len(held) <= 0.99


def test_bad_input():
    with pytest.raises(ValueError, match="evaluations must be at least one; got"):
        over_seeds([])
    with pytest.raises(
        TypeError, match="evaluations must be a list of Evaluations; got one with 3"
    ):
        over_seeds([run([1.0]), 3])
    with pytest.raises(ValueError, match="of_run must be one of .*; got 'middle'"):
        over_seeds([run([1.0])], of_run="middle")
    mixed = [run([1.0], fingerprint) for fingerprint in (3, 3, 4)]
    with pytest.raises(
        ValueError, match=r"all of the same tasks, or each of its own; got fingerprints \[3, 3, 4\]"
    ):
        over_seeds(mixed)


def test_medians_of_runs():
    pooled = over_seeds([run([1.0, 3.0, 50.0]), run([2.0, 5.0, 0.0])], of_run="median")["loss"]
    assert pooled.values.tolist() == [3, 2]
    assert pooled.interval == "95 % over 2 runs, 12.7 standard errors"
    same = over_seeds([run([1.0, 3.0], 7), run([3.0, 4.0], 7)], of_run="median")["loss"]
    assert same.tasks is None
    assert same.interval.startswith("95 % over 2 runs on the same tasks, ")


def test_runs_that_are_outliers_leave_the_tasks_error_too():
    runs = [run([loss - 1, loss + 1.5], 7) for loss in (1.0, 1.1, 0.9, 1.0, 30.0)]
    pooled = over_seeds(runs, without_outliers=True)["loss"]
    assert pooled.values.tolist() == pytest.approx([1.25, 1.35, 1.15, 1.25])
    assert pooled.num_outliers == 1
    assert pooled.tasks.values.tolist() == pytest.approx([0.0, 2.5])
    assert pooled.interval.startswith("95 % over 4 runs without 1 outlier and their 2 tasks, ")
    assert over_seeds(runs)["loss"].mean == pytest.approx(7.05)  # never by default
