"""Tabular Markov decision processes, whose trajectories can be enumerated."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, invalid, mistyped
from metalearn.functional._criteria import one_hot
from metalearn.rl._base import Environment, check_task
from metalearn.types import PyTree


@dataclass(frozen=True)
class Tabular(Environment):
    """A Markov decision process with finitely many states and actions.

    A task is a reward table `[num_states, num_actions]`. Trajectories start in state 0; the
    observation is the state, one-hot.

    Args:
        transitions: Probabilities of the next state, `transitions[state][action][next_state]`.
        horizon: Number of steps, at least 1.

    Raises:
        TypeError: If `transitions` are not nested tuples of numbers, or `horizon` not an int.
        ValueError: If `transitions` are not of shape `[num_states, num_actions, num_states]` or do
            not sum to 1, or `horizon` is below 1.

    >>> stays_or_leaves = Tabular((((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (0.5, 0.5))), horizon=3)
    >>> stays_or_leaves.observation_size, stays_or_leaves.action_size
    (2, 2)
    """

    transitions: tuple[tuple[tuple[float, ...], ...], ...]
    horizon: int

    noise_size = 1

    def __post_init__(self) -> None:
        check_count("Tabular's horizon", self.horizon, fix="Pass horizon=3.")
        fix = "Write (((1.0, 0.0), (0.0, 1.0)), ((1.0, 0.0), (0.5, 0.5))), say."
        what, got = "Tabular's transitions", brief(self.transitions)
        try:
            table = torch.tensor(self.transitions, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise mistyped(what, "be nested tuples of numbers", got, fix) from error
        if not isinstance(self.transitions, tuple):
            raise mistyped(what, "be nested tuples of numbers", got, fix)
        if table.dim() != 3 or table.shape[0] != table.shape[2] or 0 in table.shape:
            condition = "be of shape [num_states, num_actions, num_states]"
            raise invalid(what, condition, tuple(table.shape), fix)
        if not ((table >= 0).all() and torch.allclose(table.sum(-1), table.new_ones(()))):
            condition = "be probabilities that sum to 1 for every state and action"
            raise invalid(what, condition, got, fix)

    @property
    def observation_size(self) -> int:  # type: ignore[override]
        """Number of states."""
        return len(self.transitions)

    @property
    def action_size(self) -> int:  # type: ignore[override]
        """Number of actions."""
        return len(self.transitions[0])

    def reset(self, task: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return state 0 and the reward table."""
        check_task(self, task, (self.observation_size, self.action_size))
        rewards = task.expand(len(noise), *task.shape)
        state = torch.zeros(len(noise), dtype=torch.int64, device=noise.device)
        return {"state": one_hot(state, self.observation_size).to(rewards), "rewards": rewards}

    def observe(self, state: PyTree) -> Tensor:
        """Return the state, one-hot."""
        return state["state"]

    def step(self, state: PyTree, action: Tensor, noise: Tensor) -> tuple[PyTree, Tensor]:
        """Draw the next state and look up the reward."""
        here = state["state"]
        chosen = one_hot(action, self.action_size).to(here)
        table = torch.tensor(self.transitions, dtype=here.dtype, device=here.device)
        reward = torch.einsum("ns,na,nsa->n", here, chosen, state["rewards"])
        probabilities = torch.einsum("ns,na,sat->nt", here, chosen, table)
        following = choose(probabilities, noise)
        return {**state, "state": one_hot(following, self.observation_size).to(here)}, reward


def bandit(num_arms: int, horizon: int = 1) -> Tabular:
    """Return a bandit, a `Tabular` with one state; a task is the arms' rewards `[1, num_arms]`.

    Args:
        num_arms: Number of arms, at least 1.
        horizon: Number of pulls, at least 1.

    Raises:
        TypeError: If a number is not an int.
        ValueError: If a number is below 1.

    >>> bandit(num_arms=3).action_size
    3
    """
    check_count("num_arms", num_arms, fix="Write bandit(num_arms=3).")
    return Tabular((((1.0,),) * num_arms,), horizon)


def choose(probabilities: Tensor, noise: Tensor) -> Any:
    """Return an index drawn from each distribution `[..., n]` with uniform numbers `[..., 1]`."""
    below = probabilities.detach().to(noise.dtype).cumsum(-1)[..., :-1]
    return (noise > below).sum(-1)
