import torch

from metalearn import rl
from tests.rl.cases import played


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


def test_the_density_of_an_action_is_the_product_of_its_elements():
    policy, seen, action = (
        rl.GaussianPolicy(2, [], 3, init_std=0.5),
        torch.randn(7, 2),
        torch.randn(7, 3),
    )
    output = policy(seen)
    expected = torch.distributions.MultivariateNormal(output["mean"], 0.25 * torch.eye(3)).log_prob(
        action
    )
    torch.testing.assert_close(policy.log_prob(output, action), expected)
