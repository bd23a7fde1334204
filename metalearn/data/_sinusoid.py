"""Regression on sine waves."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from metalearn._fields import Checked, Count, NotNegative, Range
from metalearn.data._episodes import TaskDistribution
from metalearn.data._synthetic import add_noise, split, uniform
from metalearn.types import Episode

FIX = "Pass Sinusoid(k_shot=10, num_query=10)."


@dataclass(frozen=True)
class Sinusoid(TaskDistribution, Checked):
    """Sine waves `y = A sin(w x - p)`, each with its own amplitude, phase and frequency.

    A, p, w and every x are uniform on their ranges. An episode's x and y are `[tasks, k_shot, 1]`
    in the support set and `[tasks, num_query, 1]` in the query set, in the default dtype.

    Args:
        k_shot: Number of support points, at least 1.
        num_query: Number of query points, at least 1.
        amplitude: Range of A.
        phase: Range of p, in radians.
        frequency: Range of w, in radians per unit of x.
        x_range: Range of x.
        noise_std: Standard deviation of the Gaussian noise on support and query targets, at least
            0.

    Raises:
        TypeError: If a count is not an int, a range not a pair, or `noise_std` not a number.
        ValueError: If a count is below 1, a range infinite or descending, or `noise_std` negative
            or not finite.

    References:
        Finn, Abbeel and Levine, "Model-agnostic meta-learning for fast adaptation of deep
        networks", ICML 2017, where the frequency is 1; it varies in Li, Zhou, Chen and Li,
        "Meta-SGD", 2017.

    >>> episodes = Sinusoid(k_shot=5, num_query=20).sample(3)
    >>> episodes.support.x.shape, episodes.query.y.shape
    (torch.Size([3, 5, 1]), torch.Size([3, 20, 1]))
    """

    _what = "{field}"

    k_shot: Annotated[Count, FIX]
    num_query: Annotated[Count, FIX]
    amplitude: Range = (0.1, 5.0)
    phase: Range = (0, math.pi)
    frequency: Range = (1, 1)
    x_range: Range = (-5, 5)
    noise_std: Annotated[NotNegative, "Pass noise_std=0 for none."] = 0

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw sine waves and points on them."""
        amplitude, phase, frequency = (
            uniform(bounds, (num_tasks, 1, 1), generator, device)
            for bounds in (self.amplitude, self.phase, self.frequency)
        )
        x = uniform(self.x_range, (num_tasks, self.k_shot + self.num_query, 1), generator, device)
        y = amplitude * torch.sin(frequency * x - phase)
        return split(x, add_noise(y, self.noise_std, generator), self.k_shot)
