"""The implicit function theorem at the end of the inner loop: iMAML."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn import inner
from metalearn._checks import check_choice, check_kind, check_positive, invalid
from metalearn._fields import Check, Checked, Positive
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_add, tree_map, tree_ravel
from metalearn.functional import OnSupport, grad_and_value, vjp
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._checks._rules import check_rule
from metalearn.outer._solvers import CG, Solver
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Params, Problem

STRENGTHS = (
    "The paper's is Implicit(2.0); beside a regulariser of your own a small one does: "
    "Implicit(1e-3, CG(20))."
)
TRUSTED = 0.5
"""Relative inner gradient and residual above which a learner warns."""


@dataclass(frozen=True, eq=False)
class Proximal:
    """A support loss with (strength / 2) |params - init|^2 added.

    Attributes:
        loss: The support loss.
        init: Where the parameters are drawn to.
        strength: How strongly.
        alone_at: The step at which the added term is all there is, and before which it is absent;
            None adds it always.
    """

    loss: Callable[..., Tensor]
    init: Params
    strength: float
    alone_at: int | None = None

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        if self.alone_at is not None and step != self.alone_at:
            return self.loss(params, shared, episode, step)
        squares = [(param - self.init[name]).square().sum() for name, param in params.items()]
        distance = 0.5 * self.strength * torch.stack(squares).sum()
        return (
            distance
            if self.alone_at is not None
            else self.loss(params, shared, episode, step) + distance
        )


@dataclass(frozen=True)
class Implicit(MetaGradient, Checked):
    """The gradient at the inner problem's solution, whatever path led there: iMAML.

    The inner problem is the support loss plus (strength / 2) |params - init|^2, in training,
    `adapt` and `evaluate`. At its solution phi the gradient to `init` is v = (I + H / strength)^-1
    dquery/dphi, with H the support loss's Hessian, and that to `shared` is dquery/dshared - (d^2
    support / dphi dshared) v / strength; `system_strength` takes the place of `strength` in both,
    where given. Memory does not grow with the number of steps. What a rule learns has no influence
    on the solution, so it gets no gradient. The rule must rest where the gradient is zero: weight
    decay belongs into the support loss, and is refused in the rule.

    Its diagnostics say how far from exact the estimate is: "inner_gradient", the norm of the inner
    problem's gradient at phi relative to that at the start, and "residual", what the solver leaves
    of dquery/dphi, relative to it. Both are 0 at a solution and above 1 where things diverge. A
    learner warns at its first call if one is above 0.5.

    Args:
        strength: Weight lambda of the squared distance, positive.
        solver: `CG(num_steps)`, `Neumann(num_steps)` or `Direct()`.
        proximal: "every_step" as in the paper, or "last_step" as in its code: all steps but the
            last, at least one, descend the support loss, and the last one the squared distance. Its
            solution is not that of the paper.
        system_strength: lambda in the linear system, positive; `strength` if None. The code adds
            10.

    Raises:
        TypeError: If `solver` is not a solver.
        ValueError: If a strength is not positive, or `proximal` is unknown.

    References:
        Rajeswaran et al., "Meta-learning with implicit gradients", NeurIPS 2019.
    """

    strength: Annotated[Positive, STRENGTHS]
    solver: Annotated[Solver, Check(check_kind, Solver, "a solver", "outer.CG(num_steps=5)")] = CG()
    proximal: Annotated[str, Check(check_choice, ("every_step", "last_step"))] = "every_step"
    system_strength: Annotated[float | None, Check(check_positive), "None takes strength."] = None

    reaches = frozenset({"init", "shared"})
    traits = Traits(repeats_losses=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if no step descends the support loss, or the rule moves on at gradients of zero."""
        if self.proximal == "last_step" and problem.num_steps == 1:
            fix = (
                "The last one only returns towards the start: the paper's code takes num_steps=17."
            )
            raise invalid('num_steps with proximal="last_step"', "be at least 2", 1, fix)
        # Not at the start itself, which may be zero, where weight decay rests too, or have no
        # values yet.
        ones = tree_map(lambda start: torch.ones_like(start, device="cpu"), meta.init)
        with random_numbers_kept():
            updates = check_rule(problem, meta._replace(init=ones), torch.tensor(0, device="cpu"))
        if any(update.any() for update in updates.values()):
            fix = "Put a penalty into support_loss=: see docs/how_to/hyperparameters.md."
            got = f"{problem.rule}, whose update there is not zero"
            raise invalid(f"rule under {self}", "rest where the gradient is zero", got, fix)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        support_loss, last = _whole(problem.support_loss), problem.num_steps - 1
        start, pull_start = vjp(lambda meta: problem.start(meta, episode.support, key), meta)
        adapted = inner.adapt(self._inner_problem(problem, start), meta, episode, key)
        params = adapted.params
        at_end, query_loss = grad_and_value(problem.query_loss, argnums=(0, 1))(
            params, meta.shared, episode
        )
        target, unravel = tree_ravel(at_end[0])

        def gradient(params: Params, shared: Params) -> Params:
            return grad_and_value(support_loss)(params, shared, episode, last)[0]

        grads, pull = vjp(lambda params: gradient(params, meta.shared), params)
        strength = self.system_strength or self.strength

        def product(vector: Tensor) -> Tensor:
            return vector + tree_ravel(pull(unravel(vector))[0])[0] / strength

        solution, residual = self.solver(product, target)
        start_bar, shared_bar = unravel(solution), at_end[1]
        if meta.shared:
            _, pull_mixed = vjp(lambda shared: gradient(params, shared), meta.shared)
            through = tree_map(lambda bar: bar / -strength, pull_mixed(start_bar)[0])
            shared_bar = tree_add(shared_bar, through)
        of_start: Meta = pull_start(start_bar)[0]
        total = of_start._replace(shared=tree_add(of_start.shared, shared_bar))

        def slope(grad: Tensor, param: Tensor, first: Tensor) -> Tensor:
            return grad + self.strength * (param - first)

        at_last = tree_ravel(tree_map(slope, grads, params, start))[0]
        at_first = tree_ravel(gradient(start, meta.shared))[0]
        diagnostics = {
            "inner_gradient": _relative(at_last, at_first),
            "residual": _relative(residual, target),
        }
        return Estimate(total, query_loss, carry, diagnostics, params, adapted.state)

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt to one task's support set near the start."""
        problem = problem._replace(num_steps=num_steps)
        inside = self._inner_problem(problem, problem.start(meta, support, key))
        return super().adapt(inside, meta, support, key, num_steps)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt an inner problem that is far from solved, and a linear system that is."""
        fixes = {  # where it is slow, and where it diverges
            "inner_gradient": (
                "Take more inner steps, a larger rate, or a larger strength.",
                "Take a smaller rate.",
            ),
            "residual": (
                "Give the solver more steps, or take a larger strength.",
                "Take a larger strength, CG(damping=...), or Neumann with a smaller rate.",
            ),
        }
        if self.proximal == "last_step":
            del fixes["inner_gradient"]
        doubts = []
        for name, (slow, diverging) in fixes.items():
            value = diagnostics[name].item()
            if not value <= TRUSTED:  # NaN too
                fix = slow if value <= 1 else diverging
                doubts.append(
                    f"{self} has {name} = {value:.2g} at its first call, where 0 is exact. {fix}"
                )
        return doubts

    def _inner_problem(self, problem: Problem, init: Params) -> Problem:
        alone_at = problem.num_steps - 1 if self.proximal == "last_step" else None
        return problem._replace(
            support_loss=Proximal(problem.support_loss, init, self.strength, alone_at)
        )


def _whole(support_loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the loss on the whole support set, if the steps see parts of it."""
    return support_loss.whole() if isinstance(support_loss, OnSupport) else support_loss


def _relative(left: Tensor, whole: Tensor) -> Tensor:
    """Return the norm of what is left relative to that of the whole."""
    return left.norm() / whole.norm().clamp(min=torch.finfo(whole.dtype).tiny)
