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
    mixed = [run([1.0], fingerprint) for fingerprint in (3, 3, 4)]
    with pytest.raises(
        ValueError, match=r"all of the same tasks, or each of its own; got fingerprints \[3, 3, 4\]"
    ):
        over_seeds(mixed)
