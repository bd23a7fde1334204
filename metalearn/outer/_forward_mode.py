"""Forward mode: the derivatives of the parameters travel along with them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import vmap

from metalearn._checks import invalid
from metalearn._fields import Checked, Count
from metalearn._tree import tree_map, tree_ravel
from metalearn.outer._base import MetaGradient, Traits
from metalearn.outer._directions import completed, learned_of, zeros_along
from metalearn.outer._tangents import Progress, advance, num_learned, start
from metalearn.types import Carry, Episode, Estimate, Meta, Problem


@dataclass(frozen=True)
class ForwardMode(MetaGradient, Checked):
    """The exact gradient by forward mode, for a few hyperparameters and any number of steps.

    Every learned number is a direction in which the fast parameters' derivative is carried along,
    with one Hessian-vector product a step, vmapped over directions. Memory is directions x
    (parameters + rule state + activations), whatever the number of steps; time is directions x
    steps. For hyperparameters: rates, momentum, strengths of regularisation.

    Args:
        max_directions: Number of learned numbers above which the estimator refuses, at least 1.

    Raises:
        TypeError: If `max_directions` is no int.
        ValueError: If it is below 1.

    References:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter optimization", ICML
        2017 (eqs. 13-15).
    """

    _what = "{field}"

    max_directions: Count = 300

    traits = Traits(repeats_losses=True, stepless=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise for more learned numbers than the estimator is made for, and for complex ones."""
        count = num_learned(problem, meta)
        if count > self.max_directions:
            fewer = "learn_init=False, " if learned_of(problem, meta).init else ""
            fix = (
                "Each costs a Hessian-vector product a step and a copy of the fast "
                f"parameters: use outer.Stepwise(), outer.ForwardGradient(num_directions=8), "
                f"{fewer}or max_directions={count} if you mean it."
            )
            condition = f"be at most {self.max_directions} for forward mode"
            raise invalid("learned numbers", condition, count, fix)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        progress = start(problem, meta, _units(problem, meta), episode, key)
        return self._advance(problem, meta, episode, progress)[0]._replace(carry=carry)

    def _advance(
        self, problem: Problem, meta: Meta, episode: Episode, progress: Progress
    ) -> tuple[Estimate, Progress]:
        """Take all inner steps, and return the estimate there and where the inner loop stands."""
        units = _units(problem, meta)
        slopes, loss, progress = advance(problem, meta, units, episode, progress)
        gradient = tree_map(lambda unit: torch.tensordot(slopes, unit, 1), units)
        estimate = Estimate(gradient, loss, Carry(), {}, progress.params, progress.state)
        return estimate, progress


@dataclass(frozen=True)
class OnlineForwardMode(ForwardMode):
    """Forward mode that goes on where the last meta-step stopped, within one run of each task.

    After every `num_steps` inner steps the gradient of the query loss there updates the
    hyperparameters, while parameters, rule state and their derivatives are carried on. Every call
    in training mode, with gradients enabled, goes on by `num_steps`. `learner.carry.value.own`
    says where the runs are, of each task in its place; `learner.carry.reset()` starts anew, and
    `adapt` starts at the initialisation. Every call takes the same tasks in the same order, as
    `fit(learner, [episode], ...)` does. A rule must not depend on the step's number, which starts
    at 0 in every call.

    References:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter optimization", ICML
        2017, section 3.3.
    """

    reaches = frozenset({"shared", "rule"})
    traits = Traits(repeats_losses=True)

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the start of the task's run."""
        return Carry(own=start(problem, meta, _units(problem, meta), episode, key))

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Go on from the carry and estimate the gradient there."""
        estimate, progress = self._advance(problem, meta, episode, carry.own)
        return estimate._replace(carry=Carry(own=progress))


def _units(problem: Problem, meta: Meta) -> Meta:
    """Return the unit vectors of all learned numbers, `[num_directions, ...]`; else zeros."""
    vector, unravel = tree_ravel(learned_of(problem, meta))
    units = vmap(unravel)(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))
    return completed(units, zeros_along(meta.init, len(vector)))
