"""Gymnasium's environments behind the `Environment` protocol."""

from collections.abc import Callable
from typing import Any, NoReturn
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_function, invalid, mistyped
from metalearn.rl._base import Environment
from metalearn.types import PyTree

ADAPTERS: WeakValueDictionary[int, "Gymnasium"] = WeakValueDictionary()
"""All adapters by id, since PyTorch's custom operators take only numbers and tensors."""


MAKE = 'Write rl.Gymnasium(lambda n: gymnasium.make_vec("Pendulum-v1", n), horizon=200), say.'


class Gymnasium(Environment):
    """Gymnasium's vector environments, for learners with `batching="loop"`.

    A simulator hides its state, so a state here is what leads to it: task, seed and past actions. A
    step from the simulator's current state continues there; a step from any other state resets it
    and replays the actions. So all functions are pure if the simulator is deterministic given its
    seed. Every step leaves PyTorch for the CPU, which `vmap` and `torch.compile` do not support. An
    episode that has ended stays in its state with reward 0.

    Args:
        make: Function of n that returns a vector environment of n. Its observations are vectors;
            its actions are vectors, which are clipped to their bounds, or discrete.
        horizon: Number of steps, at least 1.
        set_task: Function of the vector environment and the task, an array, called before a reset,
            such as `lambda environment, task: environment.set_attr("goal", task)`; None if all
            tasks are alike.

    Raises:
        ImportError: If the package gymnasium is missing.
        TypeError: If an argument has the wrong type.
        ValueError: If `horizon` is below 1, or observations or actions are unsupported.

    >>> import gymnasium
    >>> environment = Gymnasium(lambda n: gymnasium.make_vec("Pendulum-v1", n), horizon=200)
    >>> environment.observation_size, environment.action_size
    (3, 1)
    """

    noise_size = 1

    def __init__(
        self,
        make: Callable[[int], Any],
        horizon: int,
        set_task: Callable[[Any, Any], object] | None = None,
    ) -> None:
        from gymnasium.spaces import Box, Discrete  # an optional dependency
        from gymnasium.vector import VectorEnv

        condition = "be a function of the number of environments"
        check_function("Gymnasium's make", make, condition, fix=MAKE)
        check_count("Gymnasium's horizon", horizon, fix=MAKE)
        if set_task is not None:
            condition = "be a function of environment and task"
            fix = 'Write lambda environment, task: environment.set_attr("goal", task), say.'
            check_function("Gymnasium's set_task", set_task, condition, fix=fix)
        self.make, self.horizon, self.set_task = make, horizon, set_task
        self.simulators: dict[int, _Simulator] = {}
        environment: Any = self.simulator(1).environment
        if not isinstance(environment, VectorEnv):
            what = "what Gymnasium's make returns"
            raise mistyped(what, "be a vector environment", environment, MAKE)
        seen: Any = environment.single_observation_space
        done: Any = environment.single_action_space
        is_discrete = isinstance(done, Discrete) and done.start == 0
        is_vector = isinstance(done, Box) and len(done.shape) == 1
        if len(seen.shape or ()) != 1 or not (is_discrete or is_vector):
            condition = (
                "have observations that are vectors, and actions that are vectors or discrete"
            )
            fix = "Wrap it, in gymnasium.wrappers.vector.FlattenObservation, say."
            raise invalid("Gymnasium's environment", condition, f"{seen} and {done}", fix)
        self.observation_size = seen.shape[0]
        self.action_size = done.shape[0] if done.shape else int(done.n)
        self._action_shape = tuple(done.shape)
        ADAPTERS[id(self)] = self

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies make their own environments."""
        return Gymnasium, (self.make, self.horizon, self.set_task)

    def reset(self, task: PyTree, noise: Tensor) -> dict[str, Tensor]:
        """Return states after a reset, seeded by the noise; the task is one tensor."""
        if not isinstance(task, Tensor):
            fix = "Concatenate what it holds."
            raise mistyped("task of a Gymnasium environment", "be a tensor", brief(task), fix)
        count = len(noise)
        state = {
            "task": task.expand(count, *task.shape),
            "seed": (noise[:, 0].double() * 2**31).long(),
            "actions": noise.new_zeros(count, self.horizon, *self._action_shape),
            "num_steps": torch.zeros(count, dtype=torch.int64, device=noise.device),
        }
        return {**state, "observation": simulate(id(self), *state.values())[0]}

    def observe(self, state: PyTree) -> Tensor:
        """Return the simulator's observations."""
        return state["observation"]

    def step(self, state: PyTree, action: Tensor, noise: Tensor) -> tuple[PyTree, Tensor]:
        """Take one more action."""
        is_now = torch.arange(self.horizon, device=action.device) == state["num_steps"][:, None]
        is_now = is_now.reshape(*is_now.shape, *[1] * len(self._action_shape))
        past = {
            "task": state["task"],
            "seed": state["seed"],
            "actions": torch.where(is_now, action[:, None].to(state["actions"]), state["actions"]),
            "num_steps": state["num_steps"] + 1,
        }
        observation, reward = simulate(id(self), *past.values())
        return {**past, "observation": observation}, reward

    def simulator(self, count: int) -> "_Simulator":
        """Return the simulator of `count` environments, made on first use."""
        if count not in self.simulators:
            self.simulators[count] = _Simulator(self.make(count), self.set_task)
        return self.simulators[count]


class _Simulator:
    """A vector environment that remembers how it reached its state."""

    def __init__(self, environment: Any, set_task: Callable[[Any, Any], object] | None) -> None:
        self.environment, self._set_task = environment, set_task
        self._past: tuple[Any, ...] | None = None

    def after(self, task: Any, seed: Any, actions: Any) -> tuple[Any, Any]:
        """Reset, take actions `[n, num_steps, ...]`, and return observations and last rewards."""
        before, past = (task, seed, actions[:, :-1]), self._past
        self._past = None  # stays None if an error interrupts the steps below
        if not (actions.shape[1] and past and all(map(np.array_equal, past, before))):
            self._reset(task, seed)
            for step in range(actions.shape[1] - 1):
                self._step(actions[:, step])
        if actions.shape[1]:
            self._step(actions[:, -1])
        self._past = (task, seed, actions.copy())
        return self._observation, self._reward

    def _reset(self, task: Any, seed: Any) -> None:
        if self._set_task is not None:
            self._set_task(self.environment, task)
        # Gymnasium derives each environment's seed from the first.
        self._observation, _ = self.environment.reset(seed=int(seed[0]))
        self._has_ended = np.zeros(len(seed), dtype=bool)
        self._reward = np.zeros(len(seed))

    def _step(self, action: Any) -> None:
        space = self.environment.single_action_space
        action = action.clip(space.low, space.high) if space.shape else action
        stepped = self.environment.step(action.astype(space.dtype))
        observation, reward, terminated, truncated, _ = stepped
        self._observation = np.where(self._has_ended[:, None], self._observation, observation)
        self._reward = np.where(self._has_ended, 0.0, reward)
        self._has_ended = self._has_ended | terminated | truncated


@torch.library.custom_op("metalearn::simulate", mutates_args=())
def simulate(
    adapter: int, task: Tensor, seed: Tensor, actions: Tensor, num_steps: Tensor
) -> tuple[Tensor, Tensor]:
    """Return observations and last rewards of an adapter's environments, on plain tensors."""
    simulator = ADAPTERS[adapter].simulator(len(seed))
    taken = actions[:, : int(num_steps[0])]
    given = (each.detach().cpu().numpy() for each in (task[0], seed, taken))
    observation, reward = (torch.tensor(each).to(actions) for each in simulator.after(*given))
    return observation, reward


@simulate.register_vmap
def _simulate_tasks(*_: Any) -> NoReturn:
    fix = 'Pass batching="loop" to the learner, and an estimator other than EvolutionStrategies.'
    raise invalid("learner's batching", 'be "loop" for Gymnasium environments', "vmap", fix)
