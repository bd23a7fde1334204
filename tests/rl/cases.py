"""What the tests share."""

import torch

from metalearn import rl


def played(environment, policy, task, num_trajectories, seed=7):
    return rl.rollout(
        environment,
        policy,
        dict(policy.named_parameters()),
        task,
        torch.tensor(seed),
        num_trajectories,
    )
