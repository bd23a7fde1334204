"""Binary classification by hyperplanes through the origin."""

from dataclasses import dataclass
from typing import Annotated

import torch

from metalearn._fields import Checked, Count
from metalearn.data._episodes import TaskDistribution
from metalearn.data._synthetic import normal, split
from metalearn.types import Episode

FIX = "Pass LinearClassification(k_shot=10, num_query=10)."


@dataclass(frozen=True)
class LinearClassification(TaskDistribution, Checked):
    """Binary classification, label 1 where `w . x > 0`, each task with its own hyperplane.

    w and every x are drawn from N(0, I). An episode's x is `[tasks, n, dim]` and its y `[tasks, n,
    1]`, both in the default dtype, with n = k_shot in the support set and n = num_query in the
    query set. Labels are 0.0 and 1.0, as `F.binary_cross_entropy_with_logits` expects.

    Args:
        k_shot: Number of support points, of both labels together, at least 1.
        num_query: Number of query points, at least 1.
        dim: Dimension of x, at least 1.

    Raises:
        TypeError: If an argument is not an int.
        ValueError: If an argument is below 1.

    References:
        Arnold et al., "Decoupling adaptation from modeling with meta-optimizers for meta learning",
        2019 (section 3.2).

    >>> episodes = LinearClassification(k_shot=10, num_query=5).sample(2)
    >>> episodes.support.x.shape, episodes.support.y.shape
    (torch.Size([2, 10, 100]), torch.Size([2, 10, 1]))
    """

    _what = "{field}"

    k_shot: Annotated[Count, FIX]
    num_query: Annotated[Count, FIX]
    dim: Annotated[Count, FIX] = 100

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw hyperplanes and points on both of their sides."""
        w = normal((num_tasks, self.dim, 1), generator, device)
        x = normal((num_tasks, self.k_shot + self.num_query, self.dim), generator, device)
        return split(x, (x @ w > 0).to(x.dtype), self.k_shot)
