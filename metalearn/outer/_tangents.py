"""Derivatives that travel along with the inner loop, in directions of what is learned."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vjp, vmap

from metalearn._checks import invalid
from metalearn._tree import tree_leaves, tree_map, tree_zeros_like
from metalearn.outer._directions import check_real, learned_of
from metalearn.types import Episode, Meta, Params, Problem, PyTree


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


def num_learned(problem: Problem, meta: Meta) -> int:
    """Return how many numbers are learned.

    Raises:
        TypeError: If one is complex.
        ValueError: If there are none.
    """
    check_real(meta, "forward mode")
    count = sum(leaf.numel() for leaf in tree_leaves(learned_of(problem, meta)))
    if count == 0:
        fix = "Learn a rate, say: inner.LearnedRate(inner.SGD(0.1))."
        raise invalid("learned numbers", "be at least 1 for forward mode", "none", fix)
    return count


def start(
    problem: Problem, meta: Meta, directions: Meta, episode: Episode, key: Tensor
) -> Progress:
    """Return where the inner loop begins, with its derivatives.

    Args:
        problem: What the inner loop minimises and the outer loop judges.
        meta: Where the derivatives are taken.
        directions: In which they are taken, `[num_directions, ...]`.
        episode: The task's data.
        key: The task's random key.
    """

    def begin(meta: Meta) -> Any:
        return problem.begin(meta, episode.support, key)

    return Progress(*begin(meta), *vmap(_pushforward(begin, (meta,)))(directions))


def advance(
    problem: Problem, meta: Meta, directions: Meta, episode: Episode, progress: Progress
) -> tuple[Tensor, Tensor, Progress]:
    """Take all inner steps and carry the derivatives along.

    Args:
        problem: What the inner loop minimises and the outer loop judges.
        meta: Where the derivatives are taken.
        directions: In which they are taken, `[num_directions, ...]`.
        episode: The task's data.
        progress: Where the inner loop stands.

    Returns:
        The query loss's slopes `[num_directions]`, the query loss, and where the inner loop stands.
    """
    for step in range(problem.num_steps):
        progress = _step(problem, meta, directions, episode, progress, step)
    at_end, loss = grad_and_value(problem.query_loss, argnums=(0, 1))(
        progress.params, meta.shared, episode
    )
    dots = (progress.params_dot, directions.shared)
    products = tree_map(lambda bar, dot: (dot * bar).reshape(len(dot), -1).sum(1), at_end, dots)
    return torch.stack(tree_leaves(products)).sum(0), loss, progress


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
