"""The objectives' derivatives against exact ones: all trajectories of a small decision process,
with probabilities."""

import itertools

import pytest
import torch

from metalearn import inner, outer, rl
from metalearn._modules import call_model
from metalearn.rl._advantages import advantages
from metalearn.types import Batch, Episode

HORIZON = 3
PROCESS = rl.Tabular((((0.9, 0.1), (0.2, 0.8)), ((0.5, 0.5), (0.0, 1.0))), HORIZON)
REWARDS = torch.tensor([[0.0, 1.0], [3.0, -1.0]], dtype=torch.float64)
RATE = 0.3


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return rl.CategoricalPolicy(2, [], 2).double()


def enumerated(policy, params, rewards=REWARDS):
    """Return log-probabilities of all trajectories' actions, those of their transitions, and the
    rewards."""
    logits = call_model(policy, params, torch.eye(2, dtype=torch.float64)).log_softmax(-1)
    moves = torch.tensor(PROCESS.transitions, dtype=torch.float64).log()
    trajectories = itertools.product(
        itertools.product(range(2), repeat=HORIZON), itertools.product(range(2), repeat=HORIZON - 1)
    )
    actions, later = map(torch.tensor, zip(*trajectories, strict=True))
    states = torch.cat([torch.zeros(len(later), 1, dtype=torch.int64), later], 1)
    of_moves = moves[states[:, :-1], actions[:, :-1], states[:, 1:]].sum(1)
    return logits[states, actions].T, of_moves, rewards[states, actions].T


def expected_return(policy, params, rewards=REWARDS):
    log_probs, of_moves, rewards = enumerated(policy, params, rewards)
    return ((log_probs.sum(0) + of_moves).exp() * rewards.sum(0)).sum()


def expected_surrogate(surrogate, policy, params, rewards=REWARDS):
    """Return an objective's expectation over trajectories that come from the policy, without its
    derivative."""
    log_probs, of_moves, rewards = enumerated(policy, params, rewards)
    probabilities = (log_probs.sum(0) + of_moves).exp().detach()
    gains = advantages(rewards, discount=1.0)
    return (probabilities * surrogate(log_probs, log_probs.detach(), gains).sum(0)).sum()


def derivatives(function, policy):
    params = {name: param.detach() for name, param in policy.named_parameters()}
    gradient = torch.func.grad(function)
    return params, gradient(params), torch.func.jacrev(gradient)(params)


def close(left, right):
    return all(
        torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(left, right, strict=True)
    )


def leaves(tree):
    return torch.utils._pytree.tree_leaves(tree)


@pytest.mark.parametrize("surrogate", [rl.reinforce, rl.dice, rl.clipped])
def test_first_derivatives_are_those_of_the_return(surrogate, policy):
    _, exact, _ = derivatives(lambda params: expected_return(policy, params), policy)
    _, ours, _ = derivatives(lambda params: expected_surrogate(surrogate, policy, params), policy)
    assert close(leaves(ours), leaves(exact))


@pytest.mark.parametrize(
    ("surrogate", "unbiased"), [(rl.dice, True), (rl.reinforce, False), (rl.clipped, False)]
)
def test_second_derivatives_are_those_of_the_return_for_dice_alone(surrogate, unbiased, policy):
    *_, exact = derivatives(lambda params: expected_return(policy, params), policy)
    *_, ours = derivatives(lambda params: expected_surrogate(surrogate, policy, params), policy)
    assert close(leaves(ours), leaves(exact)) == unbiased


@pytest.mark.parametrize(("surrogate", "unbiased"), [(rl.dice, True), (rl.reinforce, False)])
def test_the_meta_gradient_after_a_step_is_exact_for_dice_alone(surrogate, unbiased, policy):
    learner = outer.MAML(
        policy,
        None,
        inner.SGD(RATE),
        num_steps=1,
        support_loss=lambda params, shared, episode, step: (
            -expected_surrogate(surrogate, policy, params, episode.support.x)
        ),
        query_loss=lambda params, shared, episode: (
            -expected_surrogate(surrogate, policy, params, episode.query.x)
        ),
    )
    batch = Batch(torch.stack([REWARDS, 1 - REWARDS]))
    ours = learner.estimate(Episode(batch, batch)).gradient.init

    def adapted_return(params):
        gradients = [
            torch.func.grad(lambda p, r=r: expected_return(policy, p, r))(params) for r in batch.x
        ]
        moved = [
            {name: params[name] + RATE * gradient[name] for name in params}
            for gradient in gradients
        ]
        return (
            -sum(expected_return(policy, at, r) for at, r in zip(moved, batch.x, strict=True)) / 2
        )

    exact = torch.func.grad(adapted_return)(
        {name: param.detach() for name, param in policy.named_parameters()}
    )
    assert close(leaves(ours), leaves(exact)) == unbiased


def test_sampled_gradients_come_near_the_exact_one(policy):
    options = {"baseline": False, "normalise": False, "discount": 1.0}
    loss = rl.PolicyLoss(policy, PROCESS, 20_000, rl.dice, **options)
    params, exact, _ = derivatives(lambda params: expected_return(policy, params), policy)
    batch = Batch({"task": REWARDS, "key": torch.tensor(7)})
    ours = torch.func.grad(lambda params: loss(params, {}, batch))(params)
    error = torch.cat([(ours[name] + exact[name]).flatten() for name in params]).norm()
    assert error < 0.03 * torch.cat([leaf.flatten() for leaf in exact.values()]).norm()
    assert abs(loss(params, {}, batch) + expected_return(policy, params)) < 0.03


def test_clipped_stops_where_the_policy_has_moved_far():
    old = torch.zeros(1, 4)
    log_probs = torch.tensor([[0.1, 0.3, -0.3, -0.3]], requires_grad=True)
    gains = torch.tensor([[1.0, 1.0, -1.0, 1.0]])
    rl.clipped(log_probs, old, gains).sum().backward()
    assert (log_probs.grad != 0).tolist() == [[True, False, False, True]]


def test_wrong_arguments_are_named():
    steps = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="must be of one shape .horizon, num_trajectories.; got"):
        rl.dice(steps, steps, torch.zeros(2, 3))
    with pytest.raises(TypeError, match="advantages must be a floating tensor; got None"):
        rl.reinforce(steps, steps, None)
    with pytest.raises(ValueError, match=r"must be on one device; got \['cpu', 'meta'\]"):
        rl.dice(steps, steps.to("meta"), steps)
    with pytest.raises(ValueError, match="clip must be strictly between 0 and 1; got 20"):
        rl.clipped(steps, steps, steps, clip=20)
