import torch

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
