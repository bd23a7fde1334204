"""Solvers of the linear system behind an implicit gradient, by products with its matrix alone."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metalearn._checks import check_positive
from metalearn._fields import Check, Checked, Count, NotNegative, Positive

Product = Callable[[Tensor], Tensor]


class Solution(NamedTuple):
    """What a solver returns.

    Attributes:
        x: The solution, a vector.
        residual: b - A x, what it leaves, a vector.
        num_steps: Number of steps that it took, an int64 scalar.
    """

    x: Tensor
    residual: Tensor
    num_steps: Tensor


class Solver(ABC):
    """How A x = b is solved for a symmetric A, I + H / strength or the Hessian H itself."""

    @abstractmethod
    def __call__(self, product: Product, target: Tensor, guess: Tensor | None = None) -> Solution:
        """Solve one task's system, under `vmap` and `torch.compile`.

        Args:
            product: The matrix times a vector.
            target: b, a vector.
            guess: Where an iteration starts, a vector; at zero if None. One more product.

        Returns:
            x, the residual b - A x that it leaves, and the number of steps.
        """


@dataclass(frozen=True)
class CG(Solver, Checked):
    """Conjugate gradients, for a positive definite matrix.

    Args:
        num_steps: Number of steps, at least 1, with one product each. As many as there are distinct
            eigenvalues are exact.
        damping: Added to the diagonal, at least 0; the residual is that of the damped system.
        tolerance: Norm of the residual relative to that of b, positive, at which it stops before;
            None for `num_steps` steps. Of a matrix without eigenvalues below 1, as that of an
            implicit gradient is where the support loss is convex, the solution is as close: this is
            delta' of the paper, over the norm of b. All tasks' steps are computed, as `vmap` and
            graphs need it; those of a system that is solved change nothing.

    Raises:
        TypeError: If `num_steps` is no int.
        ValueError: If a number is out of its range.

    References:
        Rajeswaran et al., "Meta-learning with implicit gradients", NeurIPS 2019 (5 steps).
    """

    num_steps: Count = 5
    damping: Annotated[NotNegative, "Write CG(5, damping=1.0)."] = 0.0
    tolerance: Annotated[
        float | None, Check(check_positive), "Write CG(20, tolerance=1e-3), or None."
    ] = None

    def __call__(self, product: Product, target: Tensor, guess: Tensor | None = None) -> Solution:
        """Return the solution after at most `num_steps` steps."""

        def damped(vector: Tensor) -> Tensor:
            return product(vector) + self.damping * vector

        x, residual = _first(damped, target, guess)
        direction, square = residual, residual @ residual
        enough = None if self.tolerance is None else self.tolerance**2 * (target @ target)
        taken = _count(0, target)
        for _ in range(self.num_steps):
            along = damped(direction)
            length = _safe_ratio(square, direction @ along)
            if enough is not None:
                length = torch.where(square <= enough, 0.0, length)
                taken = taken + ~(square <= enough)  # NaN goes on
            x, residual = x + length * direction, residual - length * along
            last, square = square, residual @ residual
            direction = residual + _safe_ratio(square, last) * direction
        return Solution(x, residual, taken if enough is not None else _count(self.num_steps, x))


@dataclass(frozen=True)
class Neumann(Solver, Checked):
    """The Neumann series x = rate * sum_k (I - rate A)^k b, which converges if 0 < rate A < 2.

    Every term is a step x += rate (b - A x) of gradient descent on the system. For an implicit
    gradient with rate 1: if the support loss's curvature is below the strength.

    Args:
        num_steps: Number of terms, at least 1, with one product each; 1 ignores the curvature.
        rate: Scale of the matrix, positive; below 2 / (1 + curvature / strength), and below 2 /
            curvature at a strength of 0.

    Raises:
        TypeError: If `num_steps` is no int.
        ValueError: If a number is out of its range.

    References:
        Lorraine et al., "Optimizing millions of hyperparameters by implicit differentiation",
        AISTATS 2020.
    """

    num_steps: Count = 5
    rate: Positive = 1.0

    def __call__(self, product: Product, target: Tensor, guess: Tensor | None = None) -> Solution:
        """Return the sum of the first `num_steps` terms, and its residual."""
        x, residual = _first(product, target, guess)
        for _ in range(self.num_steps):
            x = x + self.rate * residual
            residual = target - product(x)
        return Solution(x, residual, _count(self.num_steps, x))


@dataclass(frozen=True)
class Direct(Solver):
    """The exact solution by factorising the matrix: as many products as parameters."""

    def __call__(self, product: Product, target: Tensor, guess: Tensor | None = None) -> Solution:
        """Return the solution and what rounding leaves; it needs no guess."""
        matrix = vmap(product)(torch.eye(len(target), dtype=target.dtype, device=target.device))
        x = torch.linalg.solve(matrix, target)
        return Solution(x, target - matrix @ x, _count(1, x))


def _first(product: Product, target: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return where an iteration starts, and the residual there."""
    if guess is None:
        return torch.zeros_like(target), target
    return guess, target - product(guess)


def _count(number: int, like: Tensor) -> Tensor:
    return torch.full((), number, dtype=torch.int64, device=like.device)


def _safe_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the ratio, or zero where the denominator is: a system that is solved stays solved."""
    nonzero = denominator != 0
    return torch.where(nonzero, numerator / torch.where(nonzero, denominator, 1.0), 0.0)
