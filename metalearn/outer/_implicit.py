"""The implicit function theorem at the end of the inner loop: iMAML."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp

from metalearn import inner
from metalearn._checks import check_choice, check_positive, invalid
from metalearn._tree import tree_map, tree_ravel, tree_zeros_like
from metalearn.functional import OnSupport
from metalearn.outer._base import MetaGradient
from metalearn.outer._solvers import CG, Solver
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Params, Problem, PyTree

TRUSTED = 0.5
"""Relative inner gradient and residual above which a learner warns."""


@dataclass(frozen=True, eq=False)
class Proximal:
    """A support loss with (strength / 2) |params - init|^2 added.

    Attributes:
        loss: The support loss.
        init: Where the parameters are drawn to.
        strength: How strongly.
        alone_at: The step at which the added term is all there is, and before which it is absent; None adds it always.
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
        return distance if self.alone_at is not None else self.loss(params, shared, episode, step) + distance


@dataclass(frozen=True)
class Implicit(MetaGradient):
    """The gradient at the inner problem's solution, whatever path led there: iMAML.

    The inner problem is the support loss plus (strength / 2) |params - init|^2, in training, `adapt` and `evaluate`.
    At its solution phi the gradient to `init` is v = (I + H / strength)^-1 dquery/dphi, with H the support loss's
    Hessian, and that to `shared` is dquery/dshared - (d^2 support / dphi dshared) v / strength. Memory does not grow
    with the number of steps. What a rule learns has no influence on the solution, so it gets no gradient.

    Its diagnostics say how far from exact the estimate is: "inner_gradient", the norm of the inner problem's gradient
    at phi relative to those of its two terms (0 at the solution, 1 at the start), and "residual", what the solver
    leaves of dquery/dphi, relative to it. A learner warns at its first call if either is above 0.5.

    Args:
        strength: Weight lambda of the squared distance, positive.
        solver: `CG(num_steps)`, `Neumann(num_steps)` or `Direct()`.
        proximal: "every_step" as in the paper, or "last_step" as in its code: all steps but the last descend the
            support loss, and the last one the squared distance.
        system_strength: lambda in the linear system, positive; `strength` if None. The code adds 10.

    Raises:
        TypeError: If `solver` is not a solver.
        ValueError: If a strength is not positive, or `proximal` is unknown.

    References:
        Rajeswaran et al., "Meta-learning with implicit gradients", NeurIPS 2019.
    """

    strength: float
    solver: Solver = CG()
    proximal: str = "every_step"
    system_strength: float | None = None

    reaches = frozenset({"init", "shared"})
    repeats_losses = True

    def __post_init__(self) -> None:
        check_positive("Implicit's strength", self.strength, fix="The paper's is Implicit(strength=2.0).")
        if self.system_strength is not None:
            check_positive("Implicit's system_strength", self.system_strength, fix="None takes strength.")
        check_choice("Implicit's proximal", self.proximal, ["every_step", "last_step"])
        if not isinstance(self.solver, Solver):
            fix = "Write Implicit(2.0, outer.CG(num_steps=5))."
            raise TypeError(invalid("Implicit's solver", "be a solver", repr(self.solver), fix))

    def __call__(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree) -> Estimate:
        """Estimate one task's meta-gradient."""
        support_loss, last = _whole(problem.support_loss), problem.num_steps
        params = inner.adapt(self._inner_problem(problem, meta.init), meta, episode, key).params
        at_end, query_loss = grad_and_value(problem.query_loss, argnums=(0, 1))(params, meta.shared, episode)
        target, unravel = tree_ravel(at_end[0])

        def gradient(params: Params, shared: Params) -> Params:
            return grad(support_loss)(params, shared, episode, last)

        grads, pull = vjp(lambda params: gradient(params, meta.shared), params)  # type: ignore[misc]
        strength = self.system_strength or self.strength

        def product(vector: Tensor) -> Tensor:
            return vector + tree_ravel(pull(unravel(vector))[0])[0] / strength

        solution, residual = self.solver(product, target)
        init_bar, shared_bar = unravel(solution), at_end[1]
        if meta.shared:
            _, pull_mixed = vjp(lambda shared: gradient(params, shared), meta.shared)  # type: ignore[misc]
            through = pull_mixed(init_bar)[0]
            shared_bar = tree_map(lambda direct, part: direct - part / strength, shared_bar, through)
        diagnostics = {
            "inner_gradient": _imbalance(grads, params, meta.init, self.strength),
            "residual": residual.norm() / target.norm().clamp(min=torch.finfo(target.dtype).tiny),
        }
        return Estimate(Meta(init_bar, shared_bar, tree_zeros_like(meta.rule)), query_loss, carry, diagnostics)

    def adapt(self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int) -> Adapted:
        """Adapt to one task's support set near the start."""
        problem = problem._replace(num_steps=num_steps)
        return super().adapt(self._inner_problem(problem, meta.init), meta, support, key, num_steps)

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt an inner problem that is far from solved, and a linear system that is."""
        fixes = {
            "inner_gradient": "Take more inner steps, a larger rate, or a larger strength.",
            "residual": "Give the solver more steps, or take a larger strength.",
        }
        return [
            f"{self} has {name} = {diagnostics[name].item():.2g} at its first call, where 0 is exact. {fix}"
            for name, fix in fixes.items()
            if diagnostics[name].item() > TRUSTED
        ]

    def _inner_problem(self, problem: Problem, init: Params) -> Problem:
        alone_at = problem.num_steps - 1 if self.proximal == "last_step" else None
        return problem._replace(support_loss=Proximal(problem.support_loss, init, self.strength, alone_at))


def _whole(support_loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the loss on the whole support set, if it is dealt to the steps in parts."""
    return support_loss.whole() if isinstance(support_loss, OnSupport) else support_loss


def _imbalance(grads: Params, params: Params, init: Params, strength: float) -> Tensor:
    """Return |a + b| / (|a| + |b|) for the support loss's gradient a and the squared distance's b."""
    pull = tree_map(lambda param, start: strength * (param - start), params, init)
    loss, distance = tree_ravel(grads)[0], tree_ravel(pull)[0]
    total = loss.norm() + distance.norm()
    return (loss + distance).norm() / total.clamp(min=torch.finfo(total.dtype).tiny)
