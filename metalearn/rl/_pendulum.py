"""Pendulum swing-up."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._fields import Checked, Count, Positive
from metalearn.rl._base import Environment, check_task
from metalearn.types import PyTree


@dataclass(frozen=True)
class Pendulum(Environment, Checked):
    """A hanging pendulum that must swing up, since its motor is too weak to lift it directly.

    A task `[2]` is the pendulum's mass and length, such as those of `UniformTasks((0.8, 0.8), (1.2,
    1.2))`. The observation is the cosine and sine of the angle, 0 upright, and the angular velocity
    divided by 8. An action is the torque in units of `max_torque`, clipped to [-1, 1]; cost and
    dynamics are those of Gymnasium's Pendulum-v1.

    Args:
        horizon: Number of steps of 0.05 seconds, at least 1.
        max_torque: Largest torque, positive.

    Raises:
        TypeError: If `horizon` is not an int, or `max_torque` not a number.
        ValueError: If `horizon` is below 1, or `max_torque` not positive.
    """

    horizon: Annotated[Count, "Pass horizon=200."] = 200
    max_torque: Annotated[Positive, "Pass max_torque=2.0."] = 2.0

    observation_size, action_size, noise_size = 3, 1, 2

    def reset(self, task: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return pendulums at most half a radian from hanging and nearly at rest."""
        check_task(self, task, (2,))
        angle, velocity = (noise - 0.5).unbind(-1)
        pendulum = task.expand(len(noise), 2)
        return {"angle": math.pi + angle, "velocity": velocity, "pendulum": pendulum}

    def observe(self, state: PyTree) -> Tensor:
        """Return cosine and sine of the angle, and the scaled velocity."""
        angle = state["angle"]
        return torch.stack([angle.cos(), angle.sin(), state["velocity"] / 8], -1)

    def step(self, state: PyTree, action: Tensor, noise: Tensor) -> tuple[PyTree, Tensor]:
        """Simulate 0.05 seconds; angle, velocity and torque cost reward."""
        mass, length = state["pendulum"].unbind(-1)
        angle, velocity = state["angle"], state["velocity"]
        torque = self.max_torque * action[..., 0].clamp(-1, 1)
        off = torch.atan2(angle.sin(), angle.cos())
        cost = off.square() + 0.1 * velocity.square() + 0.001 * torque.square()
        acceleration = 15 / length * angle.sin() + 3 / (mass * length.square()) * torque
        velocity = (velocity + 0.05 * acceleration).clamp(-8, 8)
        return {**state, "angle": angle + 0.05 * velocity, "velocity": velocity}, -cost
