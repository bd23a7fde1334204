"""Inner problems that go on from one meta-step to the next, in windows."""

from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from metalearn._checks import invalid
from metalearn._fields import CountOrNone, Flag
from metalearn._tree import over_first_axes, tree_leaves, tree_map
from metalearn.outer._base import Traits
from metalearn.outer._estimates import are_finite
from metalearn.outer._wrapper import Wrapper
from metalearn.types import (
    Batch,
    Carry,
    Episode,
    Estimate,
    Meta,
    Params,
    Problem,
    PyTree,
    afresh,
    learned_init,
)

ENDLESS = torch.iinfo(torch.int64).max
"""Number of steps of a run that never ends."""


class Run(NamedTuple):
    """Where an inner problem's training stands.

    Attributes:
        params: Fast parameters.
        state: The rule's state.
        age: Number of inner steps since it started, int64; 0 before it starts, or starts again.
        span: Number of steps after which it starts again, int64.
        num_diverged: How often it has started again because it diverged, int64.
        key: The random key of the window that it started in, int64, which its start is drawn by.
        own: What the wrapped estimator carries of it.
    """

    params: Params
    state: PyTree
    age: Tensor
    span: Tensor
    num_diverged: Tensor
    key: Tensor
    own: PyTree


@dataclass(frozen=True)
class Continued(Wrapper):
    """An estimator of windows: the inner loop begins where that of the last meta-step ended.

    The model of an inner problem goes on training, `num_steps` inner steps a meta-step, and every
    window of its training gives the gradient to `shared` and the rule. `init` gets one in windows
    that start afresh, from the learned start or the learner's `start=`; without a horizon there is
    one such window alone, and `init` must not be learned. Under `Implicit` with a positive
    strength, which draws to `init` at any age, it gets one in all windows.

    Problem i of every meta-batch is the same one: with a meta-batch of n, n models are trained. So
    that all ages are there at any time, problem i of n (from 1) first lives i/n of the horizon,
    unless `staggered=False`. A problem that diverges starts again. Calls in training mode, with
    gradients enabled, go on; `estimate`, `adapt`, `evaluate` and calls under `torch.no_grad()`
    leave the models where they are. `learner.inner_models` are these models;
    `learner.carry.reset()` starts all anew.

    A rule's step is its number in the window; a rule that needs the number in the whole run counts
    in its state, as `Adam` does. Diagnostics: "age", the number of steps that the model has been
    trained for, and "num_diverged", how often it has started again because it diverged.

    Args:
        estimator: The estimator of the gradient of one window, which begins at `problem.begin` and
            returns where it ended: `Unrolled()`, `Stepwise()`, `ForwardMode()`, `Implicit(...)`,
            `Penalty(...)`, `OneStep()`, `Joint()`.
        horizon: Number of inner steps after which a problem starts again, a multiple of
            `num_steps`; None for never.
        staggered: Whether first lives are of different lengths; else all problems always start
            together, for batches that stay the same for a whole horizon, say.

    Raises:
        TypeError: If `estimator` is no estimator, `horizon` no int, or `staggered` no bool.
        ValueError: If `horizon` is below 1.

    References:
        Calian et al., "DataRater: meta-learned dataset curation", arXiv 2025 (windows and a
        population of ages). Metz et al., "Understanding and correcting pathologies in the training
        of learned optimizers", ICML 2019 (truncated windows).
    """

    horizon: Annotated[CountOrNone, "None never starts again."] = None
    staggered: Flag = True

    @property
    def reaches(self) -> frozenset[str]:
        """What the wrapped estimator reaches, but no start that is never returned to."""
        keeps_init = self.horizon is not None or self.estimator.traits.anchored
        return self.estimator.reaches - (frozenset() if keeps_init else {"init"})

    @property
    def traits(self) -> Traits:
        """Those of the wrapped estimator; nothing is known of subclasses."""
        of_wrapped = self.estimator.traits
        leafwise = of_wrapped.leafwise and type(self) is Continued
        return replace(of_wrapped, leafwise=leafwise, stepless=False)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise as the wrapped estimator does, or for a horizon that no window ends at."""
        super().check(problem, meta)
        if self.horizon is not None and self.horizon % problem.num_steps:
            whole = max(round(self.horizon / problem.num_steps), 1) * problem.num_steps
            condition = f"be a multiple of num_steps={problem.num_steps}"
            raise invalid("horizon", condition, self.horizon, f"Write horizon={whole}.")

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Doubt nothing: a first window, which is what is judged, solves no inner problem."""
        return []

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return a run that has not started yet, beside what the wrapped estimator carries."""
        inside = super().init_carry(problem, meta, episode, key)
        # no views of what is learned, which changes before the run is read
        params, state = tree_map(torch.clone, problem.begin(meta, episode.support, key))
        age = torch.zeros_like(key, dtype=torch.int64)
        span = torch.full_like(age, self.horizon or ENDLESS)
        return Carry(inside.common, Run(params, state, age, span, age, age, inside.own))

    def populate(self, problem: Problem, own: PyTree, places: Tensor) -> PyTree:
        """Shorten every problem's first run, so that all ages will be there."""
        own = own._replace(own=super().populate(problem, own.own, places))
        if self.horizon is None or not self.staggered:
            return own
        windows = (places * (self.horizon // problem.num_steps)).round().clamp(min=1)
        return own._replace(
            span=(windows.to(own.span.dtype) * problem.num_steps).expand_as(own.span)
        )

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate the gradient of one window of one run."""
        run: Run = carry.own
        span = self._span(run)
        is_over = run.age >= span
        starts = is_over | (run.age == 0)
        resumed: list[bool] = []

        def resume(params: Params, state: PyTree) -> Any:
            resumed.append(True)
            return chosen(starts, (params, state), (run.params, run.state))

        own = run.own
        if tree_leaves(own):
            anew = problem._replace(resume=afresh)
            own = chosen(starts, super().init_carry(anew, meta, episode, key).own, own)
        born = torch.where(starts, key, run.key)

        def start(meta: Meta, support: Batch, _: Tensor) -> Params:
            return problem.start(meta, support, born)

        own_start = problem.start if problem.start is learned_init else start
        window = problem._replace(resume=resume, start=own_start)
        estimate = super().__call__(window, meta, episode, key, Carry(carry.common, own))
        self._check_goes_on(resumed, estimate)

        gradient = estimate.gradient
        if estimate.loss.dim():  # of all tasks at once, whose gradient to what they share is a sum
            gradient = gradient._replace(shared={})
        ended = estimate.params, estimate.state
        left = estimate.loss, gradient, ended, estimate.carry.own
        finite = are_finite(left, estimate.loss.shape)
        params, state = chosen(finite, ended, (run.params, run.state))
        own = chosen(finite, estimate.carry.own, own)
        age = torch.where(starts, 0, run.age) + problem.num_steps
        run = Run(
            params,
            state,
            torch.where(finite, age, 0),
            torch.where(is_over, self.horizon or ENDLESS, span),
            run.num_diverged + ~finite,
            born,
            own,
        )
        diagnostics = {"age": run.age, "num_diverged": run.num_diverged}
        return estimate._replace(
            carry=Carry(estimate.carry.common, run),
            diagnostics={**estimate.diagnostics, **diagnostics},
        )

    def _span(self, run: Run) -> Tensor:
        """Return a run's length, as this estimator's horizon bounds it: it may be a new one."""
        if self.horizon is None:
            return torch.full_like(run.span, ENDLESS)
        return run.span.clamp(max=self.horizon)

    def _check_goes_on(self, resumed: list[bool], estimate: Estimate) -> None:
        """Raise if the wrapped estimator begins elsewhere, or does not say where it ended."""
        if resumed and estimate.params:
            return
        got = f"{self.estimator}, which " + ("ends nowhere" if resumed else "begins elsewhere")
        fix = "Begin at problem.begin(meta, episode.support, key) and return Estimate(..., params, "
        fix += "state), or use outer.Unrolled(), Stepwise() or ForwardMode(). PersistentES and "
        fix += "OnlineForwardMode go on by themselves, without Continued."
        raise invalid("estimator of windows", "be one that can go on", got, fix)


def chosen(condition: Tensor, these: Any, others: Any) -> Any:
    """Return the leaves of one tree where a condition holds of the first axes, else the other's."""

    def choose(this: Tensor, other: Tensor) -> Tensor:
        return torch.where(over_first_axes(condition, this), this, other)

    return tree_map(choose, these, others)
