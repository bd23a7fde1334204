"""The estimates of many tasks as one: the mean gradient, who is finite, what is carried."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._tasks import over_chunks, take
from metalearn._tree import over_first_axes, tree_detach, tree_leaves, tree_map
from metalearn.outer._base import MetaGradient
from metalearn.outer._over_tasks import How, over_tasks, spread
from metalearn.types import Carry, Episode, Estimate, Meta, Problem, PyTree


@dataclass(frozen=True, eq=False)
class Setup:
    """What an estimate depends on beside tensors.

    Attributes:
        estimator: How the gradients are estimated.
        problem: What the inner loop minimises and the outer loop judges.
        how: How the estimator is applied to tasks.
        num_tasks: Number of tasks of which a mean is taken, in all chunks.
    """

    estimator: MetaGradient
    problem: Problem
    how: How
    num_tasks: int


def estimate_tasks(
    learner: Any,
    setup: Setup,
    meta: Meta,
    common: PyTree,
    own: PyTree,
    episodes: Episode,
    keys: Tensor,
) -> Any:
    """Estimate the meta-gradients of some of a meta-batch's tasks.

    Args:
        learner: Whose modules compute them; of use where kernels are recorded.
        setup: How.
        meta: Where the gradients are taken.
        common: What the learner carries.
        own: What these tasks carry.
        episodes: The tasks.
        keys: Their random keys.

    Returns:
        Their part of the mean gradient and the sum of what they leave in common; and what is of
        every task: loss, diagnostics and its own carry.
    """
    count = len(keys)
    if count == 1:
        return _estimate_one(setup, meta, common, take((episodes, keys, own), 0))
    how = setup.how.of(count)
    metas = spread(meta, count) if how.own else meta
    per_task = episodes, keys, Carry(spread(common, count), own)
    each = over_tasks(setup.estimator, setup.problem, metas, keys, per_task, how)
    each = marked(each, how.sums_shared)

    def part(leaf: Tensor) -> Tensor:
        return leaf.sum(0) / setup.num_tasks

    gradient: Meta = each.gradient
    if how.sums_shared:
        shared = tree_map(lambda leaf: leaf / setup.num_tasks, gradient.shared)
        gradient = tree_map(part, gradient._replace(shared={}))._replace(shared=shared)
    else:
        gradient = tree_map(part, gradient)
    return (gradient, sum_common(each)), (each.loss, each.diagnostics, each.carry.own)


def _estimate_one(setup: Setup, meta: Meta, common: PyTree, of_task: tuple[Any, ...]) -> Any:
    """Do the same for a single task, whose gradient needs no axis of tasks that is summed away."""
    episode, key, own = of_task
    problem = setup.problem.of_task(key)
    estimate = setup.estimator(problem, meta, episode, key, Carry(common, own))
    finite = are_finite((estimate.gradient, estimate.loss), ())
    gradient = estimate.gradient
    if setup.num_tasks > 1:
        gradient = tree_map(lambda leaf: leaf / setup.num_tasks, gradient)
    common = tree_map(lambda leaf: torch.where(finite, leaf, 0), estimate.carry.common)
    diagnostics = {**estimate.diagnostics, "finite": finite}
    return (gradient, common), spread((estimate.loss, diagnostics, estimate.carry.own), 1)


def whole(
    estimate: Callable[..., Any],
    chunk_size: int | None,
    learner: Any,
    setup: Setup,
    meta: Meta,
    common: PyTree,
    own: PyTree,
    episodes: Episode,
    keys: Tensor,
) -> Estimate:
    """Return the estimate of a whole meta-batch.

    Args:
        estimate: `estimate_tasks`, or what does the same otherwise.
        chunk_size: Number of tasks that it is given at once; None for all.
        learner: Its argument, as are the others.
        setup: How.
        meta: Where the gradients are taken.
        common: What the learner carries.
        own: What every task carries.
        episodes: The tasks.
        keys: Their random keys.
    """
    of_chunk = partial(estimate, learner, setup, tree_detach(meta), common)
    parts = over_chunks(of_chunk, (own, episodes, keys), chunk_size)
    before = Carry(common, own)
    (gradient, common), (loss, diagnostics, own) = parts
    finite = diagnostics["finite"]
    carry = Carry(mean_common(common, finite, before.common), kept_own(own, before.own, loss.shape))
    gradient = tree_map(lambda _, leaf: leaf, meta, gradient)  # in the order of what is learned
    return Estimate(gradient, loss, carry, diagnostics)


def marked(each: Estimate, is_summed: bool) -> Estimate:
    """Return the estimates of all tasks with the diagnostic "finite": whose loss and gradient are.

    Args:
        each: Estimates, with a leading task axis.
        is_summed: Whether gradients to what tasks share are a sum without that axis. Where it alone
            is not finite every task is marked, since nobody can tell whose fault it is.
    """
    gradient: Meta = each.gradient
    of_tasks = gradient._replace(shared={}) if is_summed else gradient
    finite = are_finite((of_tasks, each.loss), each.loss.shape)
    if is_summed and gradient.shared:
        finite = finite & (are_finite(gradient.shared, ()) | ~finite.all())
    return each._replace(diagnostics={**each.diagnostics, "finite": finite})


def sum_common(each: Estimate, axis: int = 0) -> PyTree:
    """Return the sum of what those tasks leave in common that have not diverged."""
    finite = each.diagnostics["finite"]
    return tree_map(
        lambda new: torch.where(over_first_axes(finite, new), new, 0).sum(axis), each.carry.common
    )


def mean_common(total: PyTree, finite: Tensor, before: PyTree) -> PyTree:
    """Return the mean of what `sum_common` has summed, or what was before if all tasks diverged.

    Args:
        total: The sum.
        finite: Which tasks have not diverged, along the last axis.
        before: What the tasks were given.
    """

    def mean(total: Tensor, old: Tensor) -> Tensor:
        count = over_first_axes(finite.sum(-1), total)
        return torch.where(count > 0, total / count.clamp(min=1), old)

    return tree_map(mean, total, before)


def kept_own(own: PyTree, before: PyTree, shape: tuple[int, ...]) -> PyTree:
    """Return what every task leaves of its own, or what was before where that is not finite."""
    if not tree_leaves(own):
        return own
    finite = are_finite(own, shape)
    return tree_map(
        lambda new, old: torch.where(over_first_axes(finite, new), new, old), own, before
    )


def are_finite(tree: Any, shape: tuple[int, ...]) -> Tensor:
    """Return whether all is finite of one task, shape `()`, or of each of `(num_tasks,)`."""
    # A sum is finite only if all terms are; one reduction a tensor is cheaper than every element.
    sums = [leaf.reshape(*shape, -1).sum(-1) for leaf in tree_leaves(tree)]
    return torch.stack(sums).sum(0).isfinite()
