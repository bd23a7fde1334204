"""Trajectories of a policy in an environment, as a pure function of a key."""

from typing import NamedTuple

import torch
from torch import Tensor

from metalearn._checks import check_count, check_kind
from metalearn._modes import in_transform
from metalearn._modules import call_model
from metalearn._tree import tree_detach, tree_map
from metalearn.functional import derive_key, uniform
from metalearn.rl._base import Environment, check_environment, check_sizes
from metalearn.rl._policies import Policy, check_action_size
from metalearn.types import Params, PyTree


class Rollout(NamedTuple):
    """Trajectories, with a leading time axis; all except the log-probabilities are detached.

    Attributes:
        observations: Observations `[horizon, num_trajectories, observation_size]`.
        actions: Actions `[horizon, num_trajectories, action_size]`, or `[horizon,
            num_trajectories]` if discrete.
        log_probs: Log-probabilities of the actions, `[horizon, num_trajectories]`, differentiable
            with respect to the parameters.
        rewards: Rewards of the actions, `[horizon, num_trajectories]`.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor


def rollout(
    environment: Environment,
    policy: Policy,
    params: Params,
    task: PyTree,
    key: Tensor,
    num_trajectories: int,
) -> Rollout:
    """Return trajectories of one task.

    Only the log-probabilities are differentiable; they are computed afterwards, for all steps at
    once.

    Args:
        environment: The environment.
        policy: The policy.
        params: Replacements for the policy's parameters of these names.
        task: The task, tensors without a leading axis. Floating ones are converted to the
            parameters' dtype.
        key: Random key, which determines all random numbers: int64 in [0, 2**62), a scalar.
        num_trajectories: Number of trajectories, at least 1.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `num_trajectories` is below 1, or the environment breaks its protocol.

    >>> from metalearn import rl
    >>> environment, policy = rl.Navigation2D(), rl.GaussianPolicy(2, [8], 2)
    >>> goal = torch.tensor([0.5, 0.5])
    >>> params = dict(policy.named_parameters())
    >>> rollout(environment, policy, params, goal, torch.tensor(7), 20).rewards.shape
    torch.Size([100, 20])
    """
    check_kind("environment", environment, Environment, "an Environment", "one: rl.Navigation2D()")
    check_kind("policy", policy, Policy, "a Policy", "one: rl.GaussianPolicy(2, [100, 100], 2)")
    check_count("num_trajectories", num_trajectories, fix="Pass num_trajectories=20.")
    check_sizes(environment)
    check_action_size(environment, policy)
    fixed = tree_detach(params)
    dtype = next(iter([*fixed.values(), *policy.parameters()])).dtype
    task = tree_map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, task)
    shape = (environment.horizon, num_trajectories)
    wide = torch.promote_types(dtype, torch.float32)  # bfloat16 has 128 uniform numbers
    of_policy = uniform(derive_key(key, 0), (*shape, policy.noise_size), dtype=wide)
    of_steps = uniform(derive_key(key, 1), (*shape, environment.noise_size), dtype=dtype)
    of_reset = uniform(derive_key(key, 2), (num_trajectories, environment.noise_size), dtype=dtype)
    state = environment.reset(task, of_reset)
    steps: list[tuple[Tensor, Tensor, Tensor]] = []
    for step in range(environment.horizon):
        observation = environment.observe(state)
        action = policy.sample(call_model(policy, fixed, observation), of_policy[step])
        action = action.to(dtype) if action.is_floating_point() else action
        if step == 0 and not in_transform():  # a learner's first call uses a single task
            check_environment(environment, task, action)
        state, reward = environment.step(state, action, of_steps[step])
        steps.append((observation, action, reward))
    parts = zip(*steps, strict=True)
    observations, actions, rewards = (tree_detach(torch.stack(part)) for part in parts)
    return Rollout(observations, actions, log_probs(policy, params, observations, actions), rewards)


def log_probs(policy: Policy, params: Params, observations: Tensor, actions: Tensor) -> Tensor:
    """Return the actions' log-probabilities `[horizon, num_trajectories]` under `params`."""
    return policy.log_prob(call_model(policy, params, observations), actions)
