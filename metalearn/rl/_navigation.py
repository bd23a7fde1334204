"""2D navigation to a goal."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn._checks import check_choice
from metalearn._fields import Check, Checked, Count, Positive
from metalearn.rl._base import Environment, check_task
from metalearn.types import PyTree


@dataclass(frozen=True)
class Navigation2D(Environment, Checked):
    """A point in the plane that starts at the origin and is rewarded near an unseen goal.

    A task is a goal `[2]`; the paper's are those of `UniformTasks((-0.5, -0.5), (0.5, 0.5))`. An
    action moves the point by at most `max_step` along each axis. The observation is the point's
    position.

    Args:
        horizon: Number of steps, at least 1.
        max_step: Largest move along an axis, positive.
        reward: "distance" for minus the distance to the goal, as in the authors' code, or "squared"
            for minus its square, as in the paper.

    Raises:
        TypeError: If `horizon` is not an int, or `max_step` not a number.
        ValueError: If `horizon` is below 1, `max_step` not positive, or `reward` unknown.

    References:
        Finn et al., "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017,
        section 5.3.
    """

    horizon: Annotated[Count, "Pass horizon=100."] = 100
    max_step: Annotated[Positive, "Pass max_step=0.1."] = 0.1
    reward: Annotated[str, Check(check_choice, ("distance", "squared"))] = "distance"

    observation_size = action_size = 2

    def reset(self, task: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return points at the origin and the goal."""
        check_task(self, task, (2,))
        goal = task.expand(len(noise), 2)
        return {"place": torch.zeros_like(goal), "goal": goal}

    def observe(self, state: PyTree) -> Tensor:
        """Return the points' positions."""
        return state["place"]

    def step(self, state: PyTree, action: Tensor, noise: Tensor) -> tuple[PyTree, Tensor]:
        """Move; the reward depends on the remaining distance."""
        place = state["place"] + action.clamp(-self.max_step, self.max_step)
        squared = (place - state["goal"]).square().sum(-1)
        return {**state, "place": place}, -(squared if self.reward == "squared" else squared.sqrt())
