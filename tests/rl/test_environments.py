"""What the environments do, against their formulas."""

import math

import pytest
import torch

from metalearn import rl
from metalearn._tree import tree_leaves


def played(environment, policy, task, num_trajectories, seed=7):
    return rl.rollout(environment, policy, dict(policy.named_parameters()), task, torch.tensor(seed), num_trajectories)


def test_navigation_moves_and_pays_by_distance():
    goal = torch.tensor([0.3, -0.4])
    for reward, first in (("distance", -0.5), ("squared", -0.25)):
        environment = rl.Navigation2D(reward=reward)
        state = environment.reset(goal, torch.zeros(1, 0))
        _, paid = environment.step(state, torch.zeros(1, 2), torch.zeros(1, 0))
        assert paid.item() == pytest.approx(first)
        state, paid = environment.step(state, torch.tensor([[9.0, -9.0]]), torch.zeros(1, 0))
        assert torch.allclose(environment.observe(state), torch.tensor([[0.1, -0.1]]))


def test_a_rollout_pays_what_the_actions_lead_to():
    policy, goal = rl.GaussianPolicy(2, [4], 2), torch.tensor([0.3, -0.4])
    made = played(rl.Navigation2D(horizon=5), policy, goal, 6)
    places = made.actions.clamp(-0.1, 0.1).cumsum(0)
    assert torch.allclose(made.observations[1:], places[:-1], atol=1e-6)
    assert torch.allclose(made.rewards, -(places - goal).norm(dim=-1), atol=1e-6)
    assert made.log_probs.requires_grad
    assert not any(leaf.requires_grad for leaf in tree_leaves(made._replace(log_probs=())))


def test_trajectories_come_as_often_as_they_are_likely():
    environment = rl.Tabular((((0.7, 0.3),), ((0.0, 1.0),)), horizon=2)
    made = played(environment, rl.CategoricalPolicy(2, [], 1), torch.tensor([[0.0], [1.0]]), 20_000)
    assert made.rewards[1].mean().item() == pytest.approx(0.3, abs=0.01)


def test_arms_are_pulled_as_often_as_the_policy_says():
    policy = rl.CategoricalPolicy(1, [], 3)
    made = played(rl.bandit(3), policy, torch.tensor([[1.0, 2.0, 4.0]]), 20_000)
    frequencies = torch.bincount(made.actions.flatten(), minlength=3) / 20_000
    assert torch.allclose(frequencies, policy(torch.ones(1, 1)).softmax(-1)[0], atol=0.015)
    assert torch.equal(made.rewards, torch.tensor([1.0, 2.0, 4.0])[made.actions])


def test_actions_have_the_policys_mean_and_deviation():
    policy = rl.GaussianPolicy(2, [], 2, init_std=0.5)
    made = played(rl.Navigation2D(horizon=1), policy, torch.zeros(2), 20_000)
    assert torch.allclose(made.actions.mean((0, 1)), policy.network[0].bias, atol=0.02)
    assert torch.allclose(made.actions.std((0, 1)), torch.tensor(0.5), atol=0.02)


def test_the_pendulum_keeps_its_energy():
    environment = rl.Pendulum()
    state = environment.reset(torch.tensor([1.0, 1.0]), torch.tensor([[0.9, 0.5]]))

    def energy(state):  # 1/6 v^2 + 5 cos(angle), for a rod of mass and length 1 under gravity of 10
        return state["velocity"].square() / 6 + 5 * state["angle"].cos()

    start = energy(state)
    for _ in range(20):
        state, _ = environment.step(state, torch.zeros(1, 1), torch.zeros(1, 2))
        assert abs(energy(state) - start) < 0.2


def test_the_pendulum_pays_nothing_upright():
    environment = rl.Pendulum()
    at = {"angle": torch.tensor([0.0, math.pi]), "velocity": torch.zeros(2), "pendulum": torch.ones(2, 2)}
    _, reward = environment.step(at, torch.zeros(2, 1), torch.zeros(2, 2))
    assert torch.allclose(reward, torch.tensor([0.0, -(math.pi**2)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rl.Navigation2D(reward="dense"), "reward must be one of .*; got 'dense'"),
        (lambda: rl.Tabular((((0.5, 0.1),), ((0.0, 1.0),)), 2), "be probabilities that sum to 1"),
        (lambda: rl.Tabular((((1.0,),) * 2, ((1.0,),) * 2), 2), r"be of shape .*; got \(2, 2, 1\)"),
        (lambda: rl.Tabular([[[1.0]]], 2), "be nested tuples of numbers"),
        (lambda: rl.bandit(0), r"num_arms must be at least 1; got 0\. Write bandit"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()
