"""Policies: modules from observations to distributions over actions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.distributions import Normal

from metalearn import models
from metalearn._checks import check_between, invalid
from metalearn.rl._base import Environment
from metalearn.rl._tabular import choose


class Policy(nn.Module, ABC):
    """A module from observations `[..., observation_size]` to a distribution over actions.

    Its output, any tree of tensors, describes the distribution. `sample` and `log_prob` are pure
    functions of the output and use no parameters of the module.

    Attributes:
        action_size: Size of an action, or the number of discrete actions.
    """

    action_size: int

    @property
    @abstractmethod
    def noise_size(self) -> int:
        """Number of uniform numbers needed to draw an action."""

    @abstractmethod
    def sample(self, output: Any, noise: Tensor) -> Tensor:
        """Return actions drawn with uniform numbers `[..., noise_size]`."""

    @abstractmethod
    def log_prob(self, output: Any, action: Tensor) -> Tensor:
        """Return the log-probabilities or log-densities of the actions, `[...]`."""


class GaussianPolicy(Policy):
    """A normal distribution over actions, with a network's mean and a learned standard deviation.

    Args:
        observation_size: Size of an observation, at least 1.
        hidden: Widths of the network's hidden layers.
        action_size: Size of an action, at least 1.
        init_std: Initial standard deviation, strictly between 1e-6 and 1e6.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a width is below 1, or `init_std` is out of range.

    >>> policy = GaussianPolicy(2, [100, 100], 2)
    >>> policy(torch.zeros(5, 2))["mean"].shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        observation_size: int,
        hidden: Sequence[int],
        action_size: int,
        *,
        init_std: float = 1.0,
    ) -> None:
        # float32 can represent its square
        check_between("init_std", init_std, 1e-6, 1e6, fix="Pass init_std=1.0.")
        super().__init__()
        self.network = models.mlp(observation_size, hidden, action_size)
        self.action_size = action_size
        self.log_std = nn.Parameter(torch.full((action_size,), math.log(init_std)))

    @property
    def noise_size(self) -> int:
        """Size of an action."""
        return len(self.log_std)

    def forward(self, observation: Tensor) -> dict[str, Tensor]:
        """Return "mean" and "log_std" `[..., action_size]`."""
        mean = self.network(observation)
        return {"mean": mean, "log_std": self.log_std.expand(mean.shape)}

    def sample(self, output: Any, noise: Tensor) -> Tensor:
        """Return actions `[..., action_size]`."""
        return output["mean"] + output["log_std"].exp() * math.sqrt(2) * torch.erfinv(2 * noise - 1)

    def log_prob(self, output: Any, action: Tensor) -> Tensor:
        """Return the log-density, `[...]`."""
        normal = Normal(output["mean"], output["log_std"].exp(), validate_args=False)
        return normal.log_prob(action).sum(-1)


class CategoricalPolicy(Policy):
    """A categorical distribution over actions, with a network's logits.

    Args:
        observation_size: Size of an observation, at least 1.
        hidden: Widths of the network's hidden layers; [] gives a table of logits for one-hot
            observations.
        num_actions: Number of actions, at least 1.

    Raises:
        TypeError: If a width is not an int.
        ValueError: If a width is below 1.

    >>> CategoricalPolicy(2, [], 3)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    noise_size = 1

    def __init__(self, observation_size: int, hidden: Sequence[int], num_actions: int) -> None:
        super().__init__()
        self.network = models.mlp(observation_size, hidden, num_actions)
        self.action_size = num_actions

    def forward(self, observation: Tensor) -> Tensor:
        """Return logits `[..., num_actions]`."""
        return self.network(observation)

    def sample(self, output: Any, noise: Tensor) -> Tensor:
        """Return action indices `[...]`."""
        return choose(output.to(noise.dtype).softmax(-1), noise)

    def log_prob(self, output: Any, action: Tensor) -> Tensor:
        """Return the log-probabilities, `[...]`."""
        return output.log_softmax(-1).gather(-1, action[..., None])[..., 0]


def check_action_size(environment: Environment, policy: Policy) -> None:
    """Raise unless the policy's and the environment's action sizes agree."""
    size, wanted = getattr(policy, "action_size", None), environment.action_size
    if size != wanted:
        condition = f"be {wanted}, as {type(environment).__name__}'s"
        fix = f"Give the policy {wanted} outputs."
        raise invalid("policy's action_size", condition, size, fix)
