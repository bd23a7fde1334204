"""Gradients from function values alone, by antithetic random directions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn import inner
from metalearn._fields import Checked, Count, Flag, Positive
from metalearn._tree import tree_detach, tree_map, tree_zeros_like
from metalearn.functional import derive_key, normal
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._directions import (
    check_real,
    completed,
    learned_of,
    mean_along,
    over_points,
    random_directions,
)
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Params, Problem


@dataclass(frozen=True)
class EvolutionStrategies(MetaGradient, Checked):
    """The gradient of the smoothed query loss, from its values at antithetic pairs of points.

    With F the query loss after adaptation, it is the mean of (F(m + std e) - F(m - std e)) / (2
    std) e over directions e from N(0, I), which come from the task's key. The query loss and the
    inner loop need no derivative; with `inner=True` the support loss needs none either: the rule
    gets gradients of it that are estimated likewise, in training, `adapt` and `evaluate`. Both
    losses are vmapped over the points, so memory is that of 2 `num_pairs` tasks.

    Args:
        num_pairs: Number of pairs of points, at least 1. The variance falls with its inverse and
            grows with the number of learned numbers.
        std: Standard deviation of the noise, positive, in the units of what is learned.
        inner: Whether the support loss's gradient is estimated too, for losses that have none.

    Raises:
        TypeError: If `num_pairs` is no int, or `inner` no bool.
        ValueError: If a number is out of its range.

    References:
        Salimans et al., "Evolution strategies as a scalable alternative to reinforcement learning",
        arXiv 2017. Song et al., "ES-MAML: simple Hessian-free meta learning", ICLR 2020.
    """

    _what = "EvolutionStrategies' {field}"

    num_pairs: Count = 32
    std: Positive = 0.01
    inner: Flag = False

    @property
    def traits(self) -> Traits:
        """Derivatives of the support loss alone, or of none if its gradient is estimated too."""
        losses = frozenset() if self.inner else frozenset({"support"})
        return Traits(differentiates=losses, order=len(losses), stepless=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if what is perturbed has complex numbers."""
        check_real(meta if self.inner else learned_of(problem, meta), "evolution strategies")

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        inside = self._inner_problem(problem, key)

        def query_loss(meta: Meta, episode: Episode) -> Tensor:
            params = inner.adapt(inside, meta, episode, key).params
            return problem.query_loss(params, meta.shared, episode)

        def of_learned(learned: Meta, episode: Episode) -> Tensor:
            return query_loss(completed(learned, meta.init), episode)

        learned = learned_of(problem, meta)
        gradient = antithetic(
            of_learned, learned, episode, derive_key(key), self.num_pairs, self.std
        )
        gradient = completed(gradient, tree_zeros_like(meta.init))
        return Estimate(gradient, query_loss(meta, episode), carry, {})

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt to one task's support set, by estimated gradients if `inner`."""
        return super().adapt(self._inner_problem(problem, key), meta, support, key, num_steps)

    def _inner_problem(self, problem: Problem, key: Tensor) -> Problem:
        if not self.inner:
            return problem
        return problem._replace(
            support_loss=Smoothed(
                problem.support_loss, derive_key(key, 1), self.num_pairs, self.std
            )
        )


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A support loss with its own value and an estimated gradient.

    Attributes:
        loss: The support loss.
        key: Decides the directions, new ones at every step.
        num_pairs: Number of pairs of points.
        std: Standard deviation of the noise.
    """

    loss: Callable[..., Tensor]
    key: Tensor
    num_pairs: int
    std: float

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""

        def loss(params: Params, episode: Episode) -> Tensor:
            return self.loss(params, shared, episode, step).detach()

        at = tree_detach(params)
        gradient = antithetic(
            loss, at, episode, derive_key(self.key, step), self.num_pairs, self.std
        )
        slopes = [((param - at[name]) * gradient[name]).sum() for name, param in params.items()]
        return loss(at, episode) + torch.stack(slopes).sum()


def antithetic(
    function: Callable[[Any, Episode], Tensor],
    at: Any,
    episode: Episode,
    key: Tensor,
    num_pairs: int,
    std: float,
) -> Any:
    """Estimate the gradient of a smoothed function of a pytree from values at pairs of points.

    Args:
        function: Returns a scalar of `at` and the episode.
        at: Where the gradient is taken.
        episode: The task's data.
        key: Decides the directions.
        num_pairs: Number of pairs of points.
        std: Standard deviation of the noise.
    """
    directions = random_directions(normal, at, key, num_pairs)

    def slope(episode: Episode, direction: Any) -> Tensor:
        ahead = function(tree_map(lambda leaf, move: leaf + std * move, at, direction), episode)
        behind = function(tree_map(lambda leaf, move: leaf - std * move, at, direction), episode)
        return (ahead - behind) / (2 * std)

    slopes = over_points(slope, episode, directions)
    return mean_along(slopes, directions)
