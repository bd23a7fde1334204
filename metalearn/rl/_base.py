"""The protocol of environments and its check."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_kind, invalid, mistyped
from metalearn._tree import tree_flatten, tree_leaves, tree_map
from metalearn.types import PyTree


class Environment(ABC):
    """An environment of fixed-length episodes, as pure functions of tensors; a frozen dataclass.

    All randomness is a function of `noise`, uniform numbers that the caller draws, and all that
    differs between tasks a function of `task`. So a rollout runs under `vmap` over tasks and
    `torch.compile`, and the same key gives the same trajectories. All tensors except the task's
    have a leading axis of `num_trajectories`. To end an episode early, move to an absorbing state
    with reward 0. `check_environment` checks an implementation.

    Attributes:
        horizon: Number of steps, at least 1.
        observation_size: Size of an observation.
        action_size: Size of an action, or the number of discrete actions.
        noise_size: Number of uniform numbers for a reset and for each step, at least 0.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Walk(Environment):  # a walk on a line to the task's goal
    ...     horizon, observation_size, action_size = 10, 1, 1
    ...     def reset(self, task, noise):
    ...         return {"place": noise.new_zeros(len(noise), 1), "goal": task.expand(len(noise), 1)}
    ...     def observe(self, state):
    ...         return state["place"]
    ...     def step(self, state, action, noise):
    ...         place = state["place"] + action
    ...         return {**state, "place": place}, -(place - state["goal"]).abs().sum(1)
    >>> check_environment(Walk(), torch.tensor([0.5]), torch.ones(3, 1))
    """

    horizon: int
    observation_size: int
    action_size: int
    noise_size: int = 0

    @abstractmethod
    def reset(self, task: PyTree, noise: Tensor) -> PyTree:
        """Return the initial states.

        Args:
            task: The task's parameters, such as a goal, without an axis of trajectories.
            noise: Uniform numbers in (0, 1), `[num_trajectories, noise_size]`.

        Returns:
            Any pytree of tensors `[num_trajectories, ...]`, including what `step` needs of the
            task.
        """

    @abstractmethod
    def observe(self, state: PyTree) -> Tensor:
        """Return the observations `[num_trajectories, observation_size]` for the policy."""

    @abstractmethod
    def step(self, state: PyTree, action: Tensor, noise: Tensor) -> tuple[PyTree, Tensor]:
        """Return the next states and the rewards.

        Args:
            state: States, as `reset` returns them.
            action: Actions `[num_trajectories, action_size]`, or indices `[num_trajectories]` if
                discrete.
            noise: Uniform numbers in (0, 1), `[num_trajectories, noise_size]`.

        Returns:
            States of the same structure, and rewards `[num_trajectories]`.
        """


def check_environment(environment: Environment, task: PyTree, action: Tensor) -> None:
    """Check that an environment follows the protocol: shapes and pure functions.

    A `PolicyLoss` does so at its first call, before any gradient.

    Args:
        environment: The environment.
        task: One task.
        action: Actions `[num_trajectories, action_size]`, or indices `[num_trajectories]` if
            discrete, for at least one trajectory.

    Raises:
        TypeError: If an argument or a returned value has the wrong type.
        ValueError: If a shape is wrong, two calls with the same arguments differ, or a call changes
            its arguments.
    """
    check_kind("environment", environment, Environment, "an Environment", "one: rl.Navigation2D()")
    check_sizes(environment)
    if not isinstance(action, Tensor) or action.dim() not in (1, 2) or not len(action):
        condition = "be a tensor of actions for at least one trajectory"
        fix = "Write torch.zeros(num_trajectories, environment.action_size)."
        raise mistyped("action", condition, brief(action), fix)
    size = environment.action_size
    if action.shape[1:] not in ((), (size,)):
        condition = f"be [num_trajectories, {size}], or indices [num_trajectories]"
        fix = "Write policy.sample(output, noise)."
        raise invalid("action", condition, tuple(action.shape), fix)
    count, name = len(action), type(environment).__name__
    dtype = action.dtype if action.is_floating_point() else None
    noise = torch.full((count, environment.noise_size), 0.25, dtype=dtype, device=action.device)
    state = _pure(f"{name}.reset", environment.reset, task, noise)
    _check_state(f"{name}.reset", state, count)
    observation = _pure(f"{name}.observe", environment.observe, state)
    fix = "Return torch.stack([...], -1) of what is seen, or correct observation_size."
    _check_tensor(f"{name}.observe", observation, (count, environment.observation_size), fix)
    returned = _pure(f"{name}.step", environment.step, state, action, noise)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        got, fix = type(returned).__name__, "Write `return state, reward`."
        raise mistyped(f"{name}.step", "return the next state and the reward", got, fix)
    following, reward = returned
    fix = "Sum over what is not trajectories: .sum(-1)."
    _check_tensor(f"{name}.step's reward", reward, (count,), fix)
    if not reward.is_floating_point():
        fix = "Write .to(noise.dtype)."
        raise mistyped(f"{name}.step's reward", "be a floating tensor", reward.dtype, fix)
    _check_state(f"{name}.step", following, count)
    if _form(following) != _form(state):
        condition = f"return states shaped as they come, {_shapes(state)}"
        raise invalid(f"{name}.step", condition, _shapes(following), "Return `{**state, ...}`.")


def check_sizes(environment: Environment) -> None:
    """Raise unless an environment has a valid horizon and valid sizes."""
    name = type(environment).__name__
    for size in ("horizon", "observation_size", "action_size", "noise_size"):
        fix = f"Write `{size} = 2` in the class, say."
        check_count(f"{name}.{size}", getattr(environment, size, None), minimum=0, fix=fix)
    check_count(f"{name}.horizon", environment.horizon)


def check_task(environment: Environment, task: Any, shape: tuple[int, ...]) -> None:
    """Raise unless a task is a tensor of this shape."""
    if not isinstance(task, Tensor) or tuple(task.shape) != shape:
        got = tuple(task.shape) if isinstance(task, Tensor) else brief(task)
        sizes = ", ".join(map(str, (10, *shape)))
        fix = f"Draw tasks of that shape, such as rl.FiniteTasks(torch.rand({sizes}))."
        what = f"task of {type(environment).__name__}"
        raise invalid(what, f"be a tensor {list(shape)}", got, fix)


def _pure(what: str, function: Any, *args: Any) -> Any:
    """Return a function's result; raise unless a second call returns the same."""
    before = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, args)
    first = function(*args)
    if not _same(before, args):
        fix = "Write `place = place + action`, not `place += action`."
        raise invalid(what, "leave its arguments as they are", "a change in place", fix)
    if not _same(first, function(*args)):
        fix = "Draw from `noise`, with noise_size > 0, and keep all else in the state."
        raise invalid(what, "be a pure function", "two results from the same arguments", fix)
    return first


def _check_state(what: str, state: Any, count: int) -> None:
    leaves = tree_leaves(state)
    fit = all(isinstance(leaf, Tensor) and leaf.shape[:1] == (count,) for leaf in leaves)
    if not (leaves and fit):
        condition = f"return states of tensors [num_trajectories = {count}, ...]"
        fix = "Expand what all share: task.expand(len(noise), ...)."
        raise invalid(what, condition, _shapes(state), fix)


def _check_tensor(what: str, value: Any, shape: tuple[int, ...], fix: str) -> None:
    if not isinstance(value, Tensor):
        raise mistyped(what, "be a tensor", type(value).__name__, fix)
    if value.shape != shape:
        raise invalid(what, f"be of shape {shape}", tuple(value.shape), fix)


def _same(left: Any, right: Any) -> bool:
    pairs = zip(tree_leaves(left), tree_leaves(right), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def _form(state: Any) -> Any:
    return tree_flatten(state)[1], _shapes(state)


def _shapes(state: Any) -> list[Any]:
    return [tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(state)]
