"""Regression on polynomials."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch

from metalearn._checks import invalid
from metalearn._fields import Checked, Count, CountFromZero, NotNegative, Range
from metalearn.data._episodes import TaskDistribution
from metalearn.data._synthetic import add_noise, split, uniform
from metalearn.types import Episode

FIX = "Pass Polynomial(k_shot=10, num_query=10, order=2)."


@dataclass(frozen=True)
class Polynomial(TaskDistribution, Checked):
    """Polynomials `y = sum_i c_i x^i`, i = 0, ..., order, each with its own coefficients.

    Every c_i and x is uniform on its range. An episode's x and y are `[tasks, k_shot, 1]` in the
    support set and `[tasks, num_query, 1]` in the query set, in the default dtype.

    Args:
        k_shot: Number of support points, at least 1.
        num_query: Number of query points, at least 1.
        order: Highest power of x, at least 0.
        coefficient_range: Range of every c_i.
        x_range: Range of x.
        noise_std: Standard deviation of the Gaussian noise on support and query targets, at least
            0.

    Raises:
        TypeError: If a count is not an int, a range not a pair, or `noise_std` not a number.
        ValueError: If a count is too low, a range infinite or descending, `noise_std` negative or
            not finite, or a power of x not finite.

    References:
        Lee and Choi, "Gradient-based meta-learning with learned layerwise metric and subspace",
        ICML 2018.

    >>> tasks = Polynomial(k_shot=2, num_query=1, order=2, coefficient_range=(3, 3), x_range=(2, 2))
    >>> tasks.sample(1).query.y.item()  # 3 + 3 * 2 + 3 * 4
    21.0
    """

    _what = "{field}"

    k_shot: Annotated[Count, FIX]
    num_query: Annotated[Count, FIX]
    order: Annotated[CountFromZero, FIX]
    coefficient_range: Range = (-1, 1)
    x_range: Range = (-2, 2)
    noise_std: Annotated[NotNegative, "Pass noise_std=0 for none."] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        largest = max(1.0, *(abs(float(bound)) for bound in self.x_range))
        if self.order * math.log10(largest) > 30:  # float32 ends at 1e38; coefficients come on top
            got = f"{self.order} for x up to {largest}"
            raise invalid("order", "be low enough for the powers of x to stay finite", got, FIX)

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw polynomials and points on them."""
        shape = (self.order + 1, num_tasks, 1, 1)
        coefficients = uniform(self.coefficient_range, shape, generator, device)
        x = uniform(self.x_range, (num_tasks, self.k_shot + self.num_query, 1), generator, device)
        y = torch.zeros_like(x)
        for coefficient in coefficients.flip(0):
            y = y * x + coefficient
        return split(x, add_noise(y, self.noise_std, generator), self.k_shot)
