import pytest
import torch

from metalearn import Evaluation, Summary, over_seeds


def run(loss, **metrics):
    summaries = {name: Summary(torch.tensor(values)) for name, values in {"loss": loss, **metrics}.items()}
    return Evaluation(summaries, len(loss), 5, "none")


def test_means_of_runs_and_what_all_have():
    pooled = over_seeds([run([1.0, 3.0], error=[1.0, 1.0]), run([3.0, 5.0])])
    assert list(pooled) == ["loss"]
    assert pooled["loss"].values.tolist() == [2, 4]
    assert pooled["loss"].mean == 3


@pytest.mark.parametrize(("count", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (10, 2.262), (31, 2.042)])
def test_intervals_are_those_of_few_runs(count, quantile):
    pooled = over_seeds([run([float(seed)]) for seed in range(count)])["loss"]
    expected = quantile * torch.arange(count).double().std().item() / count**0.5
    assert pooled.ci95 == pytest.approx(expected, rel=3e-3)


def test_bad_input():
    with pytest.raises(ValueError, match="evaluations must be at least one; got"):
        over_seeds([])
    with pytest.raises(TypeError, match="evaluations must be a list of Evaluations; got one with 3"):
        over_seeds([run([1.0]), 3])
