"""The one inner step, and the loop over it that adapts to a task."""

from typing import NamedTuple

from torch import Tensor

from metalearn._tree import tree_detach
from metalearn.functional._derivatives import loss_gradient
from metalearn.types import Adapted, Episode, Meta, Params, Problem, PyTree


class Step(NamedTuple):
    """The outcome of one inner step.

    Attributes:
        params: Fast parameters after the step.
        state: The rule's state after the step.
        grads: Gradient of the support loss before the step.
        loss: Support loss before the step, a scalar.
    """

    params: Params
    state: PyTree
    grads: Params
    loss: Tensor


def step(
    problem: Problem,
    meta: Meta,
    params: Params,
    state: PyTree,
    episode: Episode,
    step: int,
    *,
    order: int = 2,
) -> Step:
    """Take one inner step: params + rule.update(gradient of the support loss at params).

    Args:
        problem: What is minimised and by which rule.
        meta: What the outer loop has learned.
        params: Fast parameters.
        state: The rule's state.
        episode: The task's data.
        step: Number of the step, from 0.
        order: 1 makes gradient and loss constants to any derivative taken of the result; 2 keeps
            them functions.
    """
    return take_step(problem, meta, params, state, episode, step, order, fresh=False)


def take_step(
    problem: Problem,
    meta: Meta,
    params: Params,
    state: PyTree,
    episode: Episode,
    step: int,
    order: int = 2,
    *,
    fresh: bool,
) -> Step:
    """Take one inner step.

    Parameters are `fresh` if they have come out of the step before: nothing else can depend on
    them then, which spares views.
    """
    at, shared = (params, meta.shared) if order == 2 else tree_detach((params, meta.shared))
    grads, loss = loss_gradient(problem.support_loss, at, shared, episode, step, fresh=fresh)
    params, state = problem.rule.advance(meta.rule, grads, state, params, loss, step)
    return Step(params, state, grads, loss)


def adapt(problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Adapted:
    """Adapt to one task: `problem.num_steps` steps from `problem.begin`, at `meta.init` by default.

    Args:
        problem: What is minimised, by which rule, for how many steps.
        meta: What the outer loop has learned.
        episode: The task's data; only what the support loss reads is used.
        key: The task's random key.

    Returns:
        The adapted parameters and the rule's last state.
    """
    params, state = problem.begin(meta, episode.support, key)
    for index in range(problem.num_steps):
        params, state, *_ = take_step(problem, meta, params, state, episode, index, fresh=index > 0)
    return Adapted(params, meta.shared, state)
