"""The gradient of a penalty on the value of the inner problem: F2SA, BOME."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from metalearn import inner
from metalearn._fields import Checked, Flag, Positive
from metalearn._tree import tree_map, tree_zeros_like
from metalearn.functional import grad_and_value
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._solution import check_rests, relative, unsolved, whole
from metalearn.types import (
    Adapted,
    Carry,
    Episode,
    Estimate,
    Meta,
    Params,
    Problem,
    PyTree,
    afresh,
)


class Penalised(NamedTuple):
    """Where the descent of the penalised loss stands.

    Attributes:
        minimiser: Its parameters, y.
        minimiser_state: The rule's state there.
    """

    minimiser: Params
    minimiser_state: PyTree


@dataclass(frozen=True, eq=False)
class WithQuery:
    """A support loss with the query loss / weight added.

    Attributes:
        support_loss: The support loss.
        query_loss: The query loss.
        weight: What it is divided by.
    """

    support_loss: Callable[..., Tensor]
    query_loss: Callable[..., Tensor]
    weight: float

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        query_loss = self.query_loss(params, shared, episode)
        return self.support_loss(params, shared, episode, step) + query_loss / self.weight


@dataclass(frozen=True)
class Penalty(MetaGradient, Checked):
    """The gradient of query loss + weight (support loss - its minimum): no second derivative.

    The inner loop on the support loss leads to z; as many steps of the same rule on support loss +
    query loss / weight lead from there to y. The gradient to `shared` is dquery/dshared(y) + weight
    (dsupport/dshared(y) - dsupport/dshared(z)). Where both are solved it is the exact one up to an
    error of order 1 / weight. `init` and the rule have no influence on the solutions, and get none.
    The rule must rest where the gradient is zero. After one step of SGD from z to y it is a
    one-sided difference in place of `OneStep`'s central one.

    `Continued(Penalty(weight, warm_start=True))` goes on with z and y from meta-step to meta-step,
    so that few steps do (F2SA). The loss is that of z, which `adapt` returns too. A larger weight
    may be assigned as training goes on: `learner.estimator = ...`. Rounding is multiplied by it: in
    float32 weights above a thousand say little.

    Diagnostics are `Implicit`'s: "inner_gradient", the norm of the support loss's gradient at z
    relative to that at the start, and "residual", weight (dsupport/dphi(y) - dsupport/dphi(z)) +
    dquery/dphi(y), relative to the last term: what y leaves of the linear system that it stands
    for. A learner warns at its first call if one is above 0.5, but not of what a warm start is to
    mend.

    Args:
        weight: Of the penalty, positive; lambda in F2SA.
        warm_start: Whether the way to y starts where it ended at the last meta-step of the same
            problem, with the rule's state there, in place of z.

    Raises:
        TypeError: If `weight` is no number, or `warm_start` no bool.
        ValueError: If `weight` is not positive.

    References:
        Kwon et al., "A fully first-order method for stochastic bilevel optimization", ICML 2023
        (F2SA). Liu et al., "BOME! Bilevel optimization made easy: a simple first-order approach",
        NeurIPS 2022. Shen and Chen, "On penalty-based bilevel gradient descent method", ICML 2023.
    """

    weight: Annotated[Positive, "Write Penalty(100.0), say."]
    warm_start: Flag = False

    reaches = frozenset({"shared"})
    traits = Traits(repeats_losses=True, order=1)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if the rule moves on at gradients of zero."""
        check_rests(self, problem, meta)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return where the inner loop begins, if the way to y is carried."""
        if not self.warm_start:
            return Carry()
        # no views of what is learned, which changes before the carry is read
        return Carry(
            own=Penalised(*tree_map(torch.clone, problem.begin(meta, episode.support, key)))
        )

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        solved = inner.adapt(problem, meta, episode, key)
        begun = carry.own if self.warm_start else None
        penalised = self._descend(problem, meta, episode, key, solved.params, begun)
        support_loss, last = whole(problem.support_loss), problem.num_steps - 1

        def on_support(params: Params, shared: Params) -> Tensor:
            return support_loss(params, shared, episode, last)

        slopes = grad_and_value(on_support, argnums=(0, 1))
        at_z, at_y = (
            slopes(params, meta.shared)[0] for params in (solved.params, penalised.params)
        )
        of_query = grad_and_value(problem.query_loss, argnums=(0, 1))(
            penalised.params, meta.shared, episode
        )[0]

        def total(query: Tensor, y: Tensor, z: Tensor) -> Tensor:
            return query + self.weight * (y - z)

        left, shared = (tree_map(total, *trees) for trees in zip(of_query, at_y, at_z, strict=True))
        start = problem.start(meta, episode.support, key)
        diagnostics = {
            "inner_gradient": relative(at_z[0], grad_and_value(on_support)(start, meta.shared)[0]),
            "residual": relative(left, of_query[0]),
        }
        if self.warm_start:
            carry = Carry(carry.common, Penalised(penalised.params, penalised.state))
        loss = problem.query_loss(solved.params, meta.shared, episode)
        gradient = tree_zeros_like(meta)._replace(shared=shared)
        return Estimate(gradient, loss, carry, diagnostics, solved.params, solved.state)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt inner problems that are far from solved."""
        slow = "Take more inner steps, or a larger rate"
        going_on = ", or let the problem go on: outer.Continued(outer.Penalty(...))."
        fixes = {
            "inner_gradient": (f"{slow}{going_on}", "Take a smaller rate."),
            "residual": (
                f"{slow}{going_on}" * (not self.warm_start),
                "Take more inner steps, a smaller rate, or a smaller weight.",
            ),
        }
        return unsolved(self, diagnostics, fixes)

    def _descend(
        self,
        problem: Problem,
        meta: Meta,
        episode: Episode,
        key: Tensor,
        solution: Params,
        begun: Penalised | None,
    ) -> Adapted:
        """Return y and the rule's state there, from the solution or from where it was."""
        loss = WithQuery(problem.support_loss, problem.query_loss, self.weight)
        resume = afresh if begun is None else lambda *_: tuple(begun)
        inside = problem._replace(support_loss=loss, start=lambda *_: solution, resume=resume)
        return inner.adapt(inside, meta, episode, key)
