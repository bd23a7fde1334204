import pytest
import torch

from metalearn import rl
from tests.rl.cases import played


def test_trajectories_come_as_often_as_they_are_likely():
    environment = rl.Tabular((((0.7, 0.3),), ((0.0, 1.0),)), horizon=2)
    made = played(environment, rl.CategoricalPolicy(2, [], 1), torch.tensor([[0.0], [1.0]]), 20_000)
    assert made.rewards[1].mean().item() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.Tabular((((0.5, 0.1),), ((0.0, 1.0),)), 2), "be probabilities that sum to 1"),
        (lambda: rl.Tabular((((1.0,),) * 2, ((1.0,),) * 2), 2), r"be of shape .*; got \(2, 2, 1\)"),
        (lambda: rl.Tabular([[[1.0]]], 2), "be nested tuples of numbers"),
        (lambda: rl.bandit(0), r"num_arms must be at least 1; got 0\. Write bandit"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
