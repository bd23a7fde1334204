"""Forward gradients: derivatives along a few random directions, whatever is learned."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._fields import Checked, Count
from metalearn.functional import derive_key, uniform
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._directions import (
    completed,
    learned_of,
    mean_along,
    random_directions,
    zeros_along,
)
from metalearn.outer._tangents import advance, num_learned, start
from metalearn.types import Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class ForwardGradient(MetaGradient, Checked):
    """An unbiased gradient by forward mode along random directions: forward gradient unrolling.

    With g the exact gradient, that of `Unrolled`, it is the mean of (v . g) v over directions v of
    independent signs, which come from the task's key. v . g is computed as in `ForwardMode`:
    derivatives in these directions are carried along with the fast parameters, with one
    Hessian-vector product a step. Memory is `num_directions` x (parameters + rule state +
    activations + learned numbers), whatever the number of steps and however many numbers are
    learned.

    The variance of a learned number's gradient is (|g|^2 - its own squared) / `num_directions`, so
    that of the whole gradient is (d - 1) |g|^2 / `num_directions` for d learned numbers. Tasks draw
    directions of their own: a meta-batch of n tasks averages over n times as many. For as many
    directions as learned numbers `ForwardMode` costs the same and is exact.

    Args:
        num_directions: Number of directions, at least 1.

    Raises:
        TypeError: If `num_directions` is no int.
        ValueError: If it is below 1.

    References:
        Shen et al., "Memory-efficient gradient unrolling for large-scale bi-level optimization",
        NeurIPS 2024 ((FG)^2U). Baydin et al., "Gradients without backpropagation", arXiv 2022.
    """

    _what = "ForwardGradient's {field}"

    num_directions: Count = 1

    traits = Traits(repeats_losses=True, stepless=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if nothing is learned, or complex numbers are."""
        num_learned(problem, meta)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        learned = learned_of(problem, meta)
        signs = random_directions(_signs, learned, derive_key(key), self.num_directions)
        directions = completed(signs, zeros_along(meta.init, self.num_directions))
        progress = start(problem, meta, directions, episode, key)
        slopes, loss, progress = advance(problem, meta, directions, episode, progress)
        gradient = mean_along(slopes, directions)
        return Estimate(gradient, loss, carry, {}, progress.params, progress.state)


def _signs(key: Tensor, shape: tuple[int, ...], stream: int, *, dtype: torch.dtype) -> Tensor:
    """Draw -1 or 1 with equal probability: Rademacher numbers."""
    return torch.where(uniform(key, shape, stream) < 0.5, -1, 1).to(dtype)
