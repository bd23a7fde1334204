import torch
import torch.nn as nn

from metalearn import rl
from metalearn._tree import tree_leaves
from tests.rl.cases import played


def test_a_rollout_pays_what_the_actions_lead_to():
    policy, goal = rl.GaussianPolicy(2, [4], 2), torch.tensor([0.3, -0.4])
    made = played(rl.Navigation2D(horizon=5), policy, goal, 6)
    places = made.actions.clamp(-0.1, 0.1).cumsum(0)
    assert torch.allclose(made.observations[1:], places[:-1], atol=1e-6)
    assert torch.allclose(made.rewards, -(places - goal).norm(dim=-1), atol=1e-6)
    assert made.log_probs.requires_grad
    assert not any(leaf.requires_grad for leaf in tree_leaves(made._replace(log_probs=())))


class Noisy(rl.Environment):
    """Shows the noise of the reset, and pays that of the step."""

    horizon, observation_size, action_size, noise_size = 3, 1, 1, 1

    def reset(self, task, noise):
        return {"seen": noise + 0 * task}

    def observe(self, state):
        return state["seen"]

    def step(self, state, action, noise):
        return state, noise[:, 0]


def test_policy_steps_and_reset_draw_numbers_of_their_own():
    policy = rl.GaussianPolicy(1, [], 1)
    for param in policy.parameters():
        nn.init.zeros_(param)  # so that actions are standard normal
    made = played(Noisy(), policy, torch.zeros(1), 4)
    drawn_by_policy = torch.special.ndtr(made.actions[..., 0])
    assert not torch.isclose(drawn_by_policy, made.rewards, atol=1e-3).any()
    assert not torch.isclose(made.rewards[0], made.observations[0, :, 0], atol=1e-3).any()
