import pytest
import torch

from metalearn import rl


def test_bad_input():
    with pytest.raises(ValueError, match="reward must be one of .*; got 'dense'"):
        rl.Navigation2D(reward="dense")


def test_navigation_moves_and_pays_by_distance():
    goal = torch.tensor([0.3, -0.4])
    for reward, first in (("distance", -0.5), ("squared", -0.25)):
        environment = rl.Navigation2D(reward=reward)
        state = environment.reset(goal, torch.zeros(1, 0))
        _, paid = environment.step(state, torch.zeros(1, 2), torch.zeros(1, 0))
        assert paid.item() == pytest.approx(first)
        state, paid = environment.step(state, torch.tensor([[9.0, -9.0]]), torch.zeros(1, 0))
        assert torch.allclose(environment.observe(state), torch.tensor([[0.1, -0.1]]))


def test_a_task_of_another_shape():
    with pytest.raises(
        ValueError, match=r"task of Navigation2D must be a tensor \[2\]; got \(1,\)\. Draw tasks"
    ):
        rl.Navigation2D().reset(torch.zeros(1), torch.zeros(3, 0))
    with pytest.raises(ValueError, match=r"task of Pendulum must be a tensor \[2\]; got 0\.5\."):
        rl.Pendulum().reset(0.5, torch.zeros(3, 2))
