"""The implicit function theorem at the end of the inner loop: iMAML, and single loops."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metalearn import inner
from metalearn._checks import check_choice, check_kind, check_not_negative, check_positive, invalid
from metalearn._fields import Check, Checked, Flag, NotNegative
from metalearn._tree import tree_add, tree_map, tree_ravel, tree_zeros_like
from metalearn.functional import grad_and_value, vjp
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._curvature import Curvature, curvature
from metalearn.outer._proximal import Proximal
from metalearn.outer._solution import approached, check_rests, relative, unsolved, whole
from metalearn.outer._solvers import CG, Direct, Solver
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Params, Problem

STRENGTHS = (
    "The paper's is Implicit(2.0); beside a regulariser of your own 0 does: Implicit(0.0, CG(20))."
)


@dataclass(frozen=True)
class Implicit(MetaGradient, Checked):
    """The gradient at the inner problem's solution, whatever path led there: iMAML.

    The inner problem is the support loss plus (strength / 2) |params - init|^2, in training,
    `adapt` and `evaluate`. At its solution phi the gradient to `init` is v = (I + H / strength)^-1
    dquery/dphi, with H the support loss's Hessian, and that to `shared` is dquery/dshared - (d^2
    support / dphi dshared) v / strength; `system_strength` takes the place of `strength` in both,
    where given. At a strength of 0 the support loss stands alone, and must have a curvature of its
    own: v = H^-1 dquery/dphi, the gradient to `shared` is dquery/dshared - (d^2 support / dphi
    dshared) v, and `init` gets none. Memory does not grow with the number of steps. What a rule
    learns has no influence on the solution, so it gets no gradient. The rule must rest where the
    gradient is zero: weight decay belongs into the support loss, and is refused in the rule.

    Where one problem is solved at every meta-step, `Continued(Implicit(..., warm_start=True))` goes
    on with its parameters and with v, so that few inner steps and few of the solver's do (AmIGO;
    SOBA with one of each, `SGD` and `Neumann(1, rate)`). Every problem keeps its place in the
    meta-batch then.

    Its diagnostics say how far from exact the estimate is: "inner_gradient", the norm of the inner
    problem's gradient at phi relative to that at the start, and "residual", what the solver leaves
    of dquery/dphi, relative to it. Both are 0 at a solution and above 1 where things diverge. A
    learner warns at its first call if one is above 0.5, but not of what a warm start is to mend.
    "num_steps" and "solver_steps" are how many steps a task took.

    Args:
        strength: Weight lambda of the squared distance, at least 0.
        solver: `CG(num_steps)`, `Neumann(num_steps)` or `Direct()`.
        proximal: "every_step" as in the paper, or "last_step" as in its code: all steps but the
            last, at least one, descend the support loss, and the last one the squared distance. Its
            solution is not that of the paper.
        system_strength: lambda in the linear system, at least 0; `strength` if None. The code adds
            10.
        epsilon: Norm of the steps over which gradients of the support loss are differenced in place
            of its second derivatives, positive, 0.01 as in DARTS, say; None for exact ones.
        warm_start: Whether the solver starts at the last meta-step's v of the same problem.
        tolerance: "inner_gradient" at which a task's inner loop stops, positive, in training,
            `adapt` and `evaluate`: `num_steps` is the most that it takes. None takes all. Where the
            support loss is convex, the distance to the solution is at most the gradient's norm over
            the strength, so that this is delta of the paper's algorithm 2, times strength over the
            gradient's norm at the start; delta' is `CG(num_steps, tolerance=...)`. A step on a part
            of the support set is judged by its own gradient.

    Raises:
        TypeError: If `solver` is not a solver, or `warm_start` no bool.
        ValueError: If a strength is negative, `epsilon` or `tolerance` is not positive, `epsilon`
            is given to `Direct`, or `proximal` is unknown, or "last_step" without a strength or
            with a tolerance.

    References:
        Rajeswaran et al., "Meta-learning with implicit gradients", NeurIPS 2019. Arbel and Mairal,
        "Amortized implicit differentiation for stochastic bilevel optimization", ICLR 2022.
        Dagreou et al., "A framework for bilevel optimization that enables stochastic and global
        variance reduction algorithms", NeurIPS 2022.
    """

    strength: Annotated[NotNegative, STRENGTHS]
    solver: Annotated[Solver, Check(check_kind, Solver, "a solver", "outer.CG(num_steps=5)")] = CG()
    proximal: Annotated[str, Check(check_choice, ("every_step", "last_step"))] = "every_step"
    system_strength: Annotated[float | None, Check(check_not_negative), "None takes strength."] = (
        None
    )
    epsilon: Annotated[float | None, Check(check_positive), "Write epsilon=0.01, or None."] = None
    warm_start: Flag = False
    tolerance: Annotated[float | None, Check(check_positive), "Write tolerance=1e-3, or None."] = (
        None
    )

    def __post_init__(self) -> None:
        """Check what fields say of one another."""
        super().__post_init__()
        if self.proximal == "last_step" and not self.strength:
            fix = 'Leave proximal="last_step" out.'
            raise invalid('strength with proximal="last_step"', "be positive", self.strength, fix)
        if self.proximal == "last_step" and self.tolerance is not None:
            fix = "It would stop before the last step: leave one of them out."
            raise invalid('tolerance with proximal="last_step"', "be None", self.tolerance, fix)
        if self.epsilon is not None and isinstance(self.solver, Direct):
            fix = "Write outer.CG(20), or leave epsilon out."
            raise invalid("solver with epsilon", "be iterative", self.solver, fix)

    @property
    def reaches(self) -> frozenset[str]:
        """The start if the solution is drawn to it, and what is shared."""
        is_drawn = self.strength and self._system_strength
        return frozenset({"init", "shared"} if is_drawn else {"shared"})

    @property
    def traits(self) -> Traits:
        """Losses twice, and at any age of an inner problem the same pull to its start."""
        order = 2 if self.epsilon is None else 1
        return Traits(repeats_losses=True, order=order, anchored="init" in self.reaches)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise if no step descends the support loss, or the rule moves on at gradients of zero."""
        if self.proximal == "last_step" and problem.num_steps == 1:
            fix = (
                "The last one only returns towards the start: the paper's code takes num_steps=17."
            )
            raise invalid('num_steps with proximal="last_step"', "be at least 2", 1, fix)
        check_rests(self, problem, meta)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return v of a system that has not been solved yet, if it is carried."""
        return Carry(own={"solution": tree_zeros_like(meta.init)} if self.warm_start else ())

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        start, pull_start = vjp(lambda meta: problem.start(meta, episode.support, key), meta)
        loss = self._loss(problem, episode)
        adapted, taken = self._adapted(problem, meta, episode, key, start)
        params = adapted.params
        (target, shared_bar), query_loss = grad_and_value(problem.query_loss, argnums=(0, 1))(
            params, meta.shared, episode
        )

        local = curvature(loss, params, meta.shared, self.epsilon)
        solution, residual, of_solver = self._solve(local, target, carry)
        if meta.shared:
            scale = -(self._system_strength or 1.0)
            through = tree_map(lambda bar: bar / scale, local.mixed(solution))
            shared_bar = tree_add(shared_bar, through)
        start_bar = solution if "init" in self.reaches else tree_zeros_like(solution)
        of_start: Meta = pull_start(start_bar)[0]
        total = of_start._replace(shared=tree_add(of_start.shared, shared_bar))

        def slope(grad: Tensor, param: Tensor, first: Tensor) -> Tensor:
            return grad + self.strength * (param - first)

        at_last = tree_map(slope, local.gradient, params, start)
        at_first = grad_and_value(loss)(start, meta.shared)[0]
        diagnostics = {
            "inner_gradient": relative(at_last, at_first),
            "residual": relative(residual, target),
            "num_steps": taken,
            "solver_steps": of_solver,
        }
        kept = Carry(carry.common, {"solution": solution}) if self.warm_start else carry
        return Estimate(total, query_loss, kept, diagnostics, params, adapted.state)

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt to one task's support set near the start."""
        problem, episode = problem._replace(num_steps=num_steps), Episode(support, Batch(()))
        start = problem.start(meta, support, key)
        return self._adapted(problem, meta, episode, key, start)[0]

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt an inner problem that is far from solved, and a linear system that is."""
        fixes = {  # where it is slow, and where it diverges
            "inner_gradient": (
                "Take more inner steps, a larger rate, or a larger strength"
                ", or let the problem go on: outer.Continued(outer.Implicit(...)).",
                "Take a smaller rate.",
            ),
            "residual": (
                "Give the solver more steps, or take a larger strength." * (not self.warm_start),
                "Take a larger strength, CG(damping=...), or Neumann with a smaller rate.",
            ),
        }
        if self.proximal == "last_step":
            del fixes["inner_gradient"]
        return unsolved(self, diagnostics, fixes)

    @property
    def _system_strength(self) -> float:
        return self.strength if self.system_strength is None else self.system_strength

    def _loss(self, problem: Problem, episode: Episode) -> Callable[[Params, Params], Tensor]:
        """Return the support loss as of the last step, on the whole support set."""
        support_loss, last = whole(problem.support_loss), max(problem.num_steps - 1, 0)
        return lambda params, shared: support_loss(params, shared, episode, last)

    def _adapted(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, start: Params
    ) -> tuple[Adapted, Tensor]:
        """Return what the inner loop leads to, and the number of its steps."""
        inside = self._inner_problem(problem, start)
        if self.tolerance is None:
            return inner.adapt(inside, meta, episode, key), torch.full_like(key, problem.num_steps)
        at_first = grad_and_value(self._loss(problem, episode))(start, meta.shared)[0]
        enough = self.tolerance * tree_ravel(at_first)[0].norm()
        return approached(inside, meta, episode, key, enough)

    def _solve(
        self, local: Curvature, target: Params, carry: Carry
    ) -> tuple[Params, Tensor, Tensor]:
        """Solve (strength I + H) v = strength dquery/dphi, or H v = dquery/dphi without one."""
        strength, (vector, unravel) = self._system_strength, tree_ravel(target)

        def product(vector: Tensor) -> Tensor:
            along = tree_ravel(local.hessian(unravel(vector)))[0]
            return (strength * vector + along) / (strength or 1.0)

        if not self.warm_start:
            solution, residual, taken = self.solver(product, vector)
        else:
            guess = {name: carry.own["solution"][name] for name in target}  # in this order
            solution, residual, taken = self.solver(product, vector, tree_ravel(guess)[0])
        return unravel(solution), residual, taken

    def _inner_problem(self, problem: Problem, init: Params) -> Problem:
        if not self.strength:
            return problem
        alone_at = problem.num_steps - 1 if self.proximal == "last_step" else None
        return problem._replace(
            support_loss=Proximal(problem.support_loss, init, self.strength, alone_at)
        )
