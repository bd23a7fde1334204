"""Forward mode: the derivatives of the parameters travel along with them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp, vmap

from metalearn._checks import invalid, mistyped
from metalearn._fields import Checked, Count
from metalearn._tree import tree_leaves, tree_map, tree_ravel, tree_zeros_like
from metalearn.outer._base import MetaGradient, Traits
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem, PyTree


class Progress(NamedTuple):
    """Where the inner loop stands, and how that depends on what is learned.

    Attributes:
        params: Fast parameters.
        state: The rule's state.
        params_dot: Derivatives of `params`, one for each direction `[num_directions, ...]`.
        state_dot: Derivatives of `state`, likewise.
    """

    params: Params
    state: PyTree
    params_dot: Params
    state_dot: PyTree


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

    traits = Traits(repeats_losses=True)

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise for more learned numbers than the estimator is made for, and for complex ones."""
        if any(leaf.is_complex() for leaf in tree_leaves(meta)):
            raise mistyped(
                "parameters", "be real for forward mode", "complex ones", "Use outer.Stepwise()."
            )
        count = sum(leaf.numel() for leaf in tree_leaves(_learned(problem, meta)))
        if count == 0:
            fix = "Learn a rate, say: inner.LearnedRate(inner.SGD(0.1))."
            raise invalid("learned numbers", "be at least 1 for forward mode", "none", fix)
        if count > self.max_directions:
            start = "learn_init=False, " if _learned(problem, meta).init else ""
            fix = (
                "Each costs a Hessian-vector product a step and a copy of the fast "
                f"parameters: use outer.Stepwise(), "
                f"{start}or max_directions={count} if you mean it."
            )
            condition = f"be at most {self.max_directions} for forward mode"
            raise invalid("learned numbers", condition, count, fix)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""
        progress = _start(problem, meta, episode, key)
        return self._advance(problem, meta, episode, progress)[0]._replace(carry=carry)

    def _advance(
        self, problem: Problem, meta: Meta, episode: Episode, progress: Progress
    ) -> tuple[Estimate, Progress]:
        """Take all inner steps, and return the estimate there and where the inner loop stands."""
        directions = _directions(problem, meta)
        for step in range(problem.num_steps):
            progress = _step(problem, meta, directions, episode, progress, step)
        at_end, loss = grad_and_value(problem.query_loss, argnums=(0, 1))(
            progress.params, meta.shared, episode
        )
        dots = (progress.params_dot, directions.shared)
        products = tree_map(lambda bar, dot: (dot * bar).reshape(len(dot), -1).sum(1), at_end, dots)
        slopes = torch.stack(tree_leaves(products)).sum(0)
        gradient = tree_map(lambda dot: torch.tensordot(slopes, dot, 1), directions)
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

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return the start of the task's run."""
        return Carry(own=_start(problem, meta, episode, key))

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Go on from the carry and estimate the gradient there."""
        estimate, progress = self._advance(problem, meta, episode, carry.own)
        return estimate._replace(carry=Carry(own=progress))


def _learned(problem: Problem, meta: Meta) -> Meta:
    init = {name: param for name, param in meta.init.items() if name not in problem.constant}
    return meta._replace(init=init)


def _directions(problem: Problem, meta: Meta) -> Meta:
    """Return the unit vectors of all learned numbers, `[num_directions, ...]`; else zeros."""
    learned = _learned(problem, meta)
    vector, unravel = tree_ravel(learned)
    units = vmap(unravel)(torch.eye(len(vector), dtype=vector.dtype, device=vector.device))
    zeros = {name: param.new_zeros(len(vector), *param.shape) for name, param in meta.init.items()}
    return units._replace(init={**zeros, **units.init})


def _start(problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Progress:
    def begin(meta: Meta) -> Any:
        return problem.begin(meta, episode.support, key)

    dots = vmap(_pushforward(begin, (meta,)))(_directions(problem, meta))
    return Progress(*begin(meta), *dots)


def _step(
    problem: Problem, meta: Meta, directions: Meta, episode: Episode, progress: Progress, step: int
) -> Progress:
    """Take one inner step and carry the derivatives along."""

    def gradient(params: Params, shared: Params) -> Any:
        return grad_and_value(problem.support_loss, argnums=(0, 1))(params, shared, episode, step)

    # The Hessian of params and shared together is symmetric, so its product is a vjp: no jvp
    # through the model.
    (grads_of_both, loss), pull = vjp(  # type: ignore[misc]
        gradient, progress.params, meta.shared
    )
    grads, shared_grads = grads_of_both
    zero = torch.zeros_like(loss)
    at = (meta.rule, grads, progress.state, progress.params, loss)
    update = partial(problem.rule.advance, step=step)
    push = _pushforward(update, at)

    def derivative(
        rule_dot: PyTree, shared_dot: Params, params_dot: Params, state_dot: PyTree
    ) -> Any:
        grads_dot = pull(((params_dot, shared_dot), zero))[0]
        slopes = tree_map(
            lambda bar, dot: (bar * dot).sum(), (grads, shared_grads), (params_dot, shared_dot)
        )
        return push(
            rule_dot, grads_dot, state_dot, params_dot, torch.stack(tree_leaves(slopes)).sum()
        )

    dots = vmap(derivative)(
        directions.rule, directions.shared, progress.params_dot, progress.state_dot
    )
    return Progress(*update(*at), *dots)


def _pushforward(function: Callable[..., Any], at: tuple[Any, ...]) -> Callable[..., Any]:
    """Return the map from derivatives of the arguments to that of the result, at a point.

    It is the transpose of the transpose: a vjp of the vjp, which is linear. Dynamo cannot trace
    `jvp` under `vmap`.
    """

    def transpose(bar: Any) -> Any:
        return vjp(function, *at)[1](bar)

    _, push = vjp(transpose, tree_zeros_like(function(*at)))  # type: ignore[misc]
    return lambda *dots: push(dots)[0]
