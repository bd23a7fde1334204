"""An estimator applied to every task of a chunk: under `vmap`, one by one, or to all of them at
once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._derivatives import in_transform
from metalearn._layers import Memo, known_losses
from metalearn._tasks import map_tasks, vmap_tasks
from metalearn._tree import over_first_axes, tree_leaves, tree_map
from metalearn.functional import ModelLoss, OnQuery, OnSupport
from metalearn.functional._losses import is_of_model
from metalearn.inner import UpdateRule
from metalearn.outer._base import MetaGradient
from metalearn.types import Batch, Episode, Estimate, Meta, Params, Problem, PyTree


def estimate_each(
    estimator: MetaGradient,
    problem: Problem,
    meta: Meta,
    episodes: Episode,
    keys: Tensor,
    carry: PyTree,
    batching: str,
) -> Estimate:
    """Return the sum of all tasks' gradients, and loss, carry and diagnostics of every task,
    stacked.

    The diagnostic "finite" says which tasks' losses and gradients are. When all tasks are computed
    at once, gradients to shared parameters are known only as a sum; if that sum alone is not
    finite, every task is marked.

    Args:
        estimator: How the gradients are estimated.
        problem: What the inner loop minimises and the outer loop judges.
        meta: Where the gradients are taken.
        episodes: Tasks, with a leading task axis.
        keys: The tasks' random keys `[num_tasks]`.
        carry: What outlived the last meta-step.
        batching: "vmap" or "loop".
    """

    def estimate(episode: Episode, key: Tensor) -> Estimate:
        return estimator(problem.of_task(key), meta, episode, key, carry)

    summed: Params = {}
    if at_once(estimator, problem, len(keys), batching):
        carries = _expand(carry, len(keys))
        of_all = _of_all_tasks(problem.of_task(keys), False, estimator.one_backward)
        each = estimator(of_all, _expand_own(meta, len(keys)), episodes, keys, carries)
        summed, each = (
            each.gradient.shared,
            each._replace(gradient=each.gradient._replace(shared={})),
        )
    else:
        each = map_tasks(estimate, (episodes, keys), batching)
    total, finite = tree_map(lambda leaf: leaf.sum(0), each.gradient), _finite(each)
    if summed:
        together = torch.stack([leaf.sum() for leaf in tree_leaves(summed)]).sum().isfinite()
        total, finite = total._replace(shared=summed), finite & (together | ~finite.all())
    return each._replace(gradient=total, diagnostics={**each.diagnostics, "finite": finite})


def estimate_own(
    estimator: MetaGradient,
    problem: Problem,
    metas: Meta,
    carries: PyTree,
    episodes: Episode,
    keys: Tensor,
) -> Estimate:
    """Return every task's estimate, stacked, if each has a meta and a carry of its own: all have a
    leading task axis.

    The estimator must be one that takes all tasks at once.
    """
    of_all = _of_all_tasks(problem.of_task(keys), True, estimator.one_backward)
    each = estimator(of_all, metas, episodes, keys, carries)
    return each._replace(diagnostics={**each.diagnostics, "finite": _finite(each)})


def adapted_loss(
    estimator: MetaGradient, problem: Problem, meta: Meta, episode: Episode, key: Tensor
) -> Tensor:
    """Return one task's query loss after adaptation."""
    adapted = estimator.adapt(problem.of_task(key), meta, episode.support, key, problem.num_steps)
    return problem.query_loss(adapted.params, adapted.shared, episode)


def losses_each(
    estimator: MetaGradient,
    problem: Problem,
    meta: Meta,
    episodes: Episode,
    keys: Tensor,
    batching: str,
) -> Tensor:
    """Return every task's query loss after adaptation, without a gradient; arguments are as for
    `estimate_each`.
    """
    if at_once(estimator, problem, len(keys), batching):
        of_all = _of_all_tasks(problem.of_task(keys), False)
        return adapted_loss(estimator, of_all, _expand_own(meta, len(keys)), episodes, keys)
    return map_tasks(partial(adapted_loss, estimator, problem, meta), (episodes, keys), batching)


def losses_own(
    estimator: MetaGradient, problem: Problem, metas: Meta, episodes: Episode, keys: Tensor
) -> Tensor:
    """Return every task's query loss after adaptation, if each has a meta of its own, as for
    `estimate_own`.
    """
    return adapted_loss(
        estimator, _of_all_tasks(problem.of_task(keys), True), metas, episodes, keys
    )


def sum_carried(each: Estimate, axis: int = 0) -> PyTree:
    """Return the sum of what those tasks leave in the carry that have not diverged."""
    finite = each.diagnostics["finite"]
    return tree_map(
        lambda new: torch.where(over_first_axes(finite, new), new, 0).sum(axis), each.carry
    )


def mean_carried(total: PyTree, finite: Tensor, carry: PyTree) -> PyTree:
    """Return the mean of what `sum_carried` has summed, or what was carried before if all tasks
    have diverged.

    Args:
        total: The sum.
        finite: Which tasks have not, along the last axis.
        carry: What was carried before.
    """

    def mean(total: Tensor, old: Tensor) -> Tensor:
        count = over_first_axes(finite.sum(-1), total)
        return torch.where(count > 0, total / count.clamp(min=1), old)

    return tree_map(mean, total, carry)


def adapt_each(
    estimator: MetaGradient,
    problem: Problem,
    meta: Meta,
    support: Batch,
    keys: Tensor,
    num_steps: int,
    batching: str,
) -> tuple[Params, PyTree]:
    """Return every task's adapted parameters and state, stacked.

    Args:
        estimator: How a task is adapted to.
        problem: What the inner loop minimises.
        meta: What the outer loop has learned.
        support: The tasks' support sets, with a leading task axis.
        keys: The tasks' random keys `[num_tasks]`.
        num_steps: Number of inner steps.
        batching: "vmap" or "loop".
    """

    def adapt(problem: Problem, meta: Meta, support: Batch, keys: Tensor) -> Any:
        adapted = estimator.adapt(problem.of_task(keys), meta, support, keys, num_steps)
        return adapted.params, adapted.state

    if at_once(estimator, problem, len(keys), batching):
        return adapt(
            _of_all_tasks(problem.of_task(keys), False), _expand_own(meta, len(keys)), support, keys
        )
    return map_tasks(partial(adapt, problem, meta), (support, keys), batching)


def at_once(estimator: MetaGradient, problem: Problem, num_tasks: int, batching: str) -> bool:
    """Return whether the estimator is given all tasks at once."""
    losses: tuple[Any, ...] = problem.support_loss, problem.query_loss
    wanted = estimator.leafwise and batching == "vmap" and num_tasks > 1 and not in_transform()
    return wanted and all(
        loss.loss.differentiable_around_vmap for loss in losses if is_of_model(loss)
    )


def _finite(each: Estimate) -> Tensor:
    """Return which tasks' losses and gradients are finite."""
    # A sum is finite only if all terms are, and one reduction a tensor is cheaper than testing each
    # element.
    sums = [
        leaf.reshape(len(each.loss), -1).sum(1) for leaf in [*tree_leaves(each.gradient), each.loss]
    ]
    return torch.stack(sums).sum(0).isfinite()


def _expand(tree: Any, num_tasks: int) -> Any:
    return tree_map(lambda leaf: leaf.expand(num_tasks, *leaf.shape), tree)


def _expand_own(meta: Meta, num_tasks: int) -> Meta:
    """Give a task axis to what every task has of its own; a model costs less where its parameters
    have none.
    """
    return Meta(_expand(meta.init, num_tasks), meta.shared, _expand(meta.rule, num_tasks))


def _of_all_tasks(problem: Problem, shared_too: bool, share_graphs: bool = False) -> Problem:
    """Return a problem whose parameters, episodes and losses have a leading task axis.

    Args:
        problem: The problem of one task, but for its key, which is those of all.
        shared_too: Whether what is shared has one too.
        share_graphs: Whether losses at the same parameters may have a part of their graphs in
            common.
    """
    return problem._replace(
        support_loss=_over_tasks(problem.support_loss, shared_too, Memo(share_graphs)),
        query_loss=_over_tasks(problem.query_loss, shared_too, Memo(share_graphs)),
        rule=_OverTasks(problem.rule),
    )


def _over_tasks(of_part: Any, shared_too: bool, memo: Memo) -> Callable[..., Tensor]:
    loss = of_part.whole() if isinstance(of_part, OnSupport) else of_part

    def losses(params: Params, shared: Params, episodes: Episode, *step: int) -> Any:
        if loss is not of_part:  # a loss of the whole of what the step sees
            episodes = episodes._replace(support=of_part.batch(episodes, *step))
        if is_of_model(loss):
            batch = loss.batch(episodes, *step)
            support = episodes.support if isinstance(loss, OnQuery) else None
            outputs = loss.loss.by_layers(
                params, shared, batch, support=support, of_tasks=True, memo=memo
            )
            if outputs is not None:
                return _judged(loss.loss, outputs, batch, shared, shared_too)
        if shared_too:
            return vmap_tasks(lambda *task: loss(*task, *step), params, shared, episodes)
        return vmap_tasks(
            lambda params, episode: loss(params, shared, episode, *step), params, episodes
        )

    return losses


def _judged(
    loss: ModelLoss, outputs: Tensor, batch: Batch, shared: Params, shared_too: bool
) -> Tensor:
    known = known_losses(loss.criterion, outputs, batch.y)
    if known is not None:
        return known
    if shared_too:
        return vmap_tasks(loss.judge, outputs, batch, shared)
    return vmap_tasks(lambda output, batch: loss.judge(output, batch, shared), outputs, batch)


@dataclass(frozen=True)
class _OverTasks(UpdateRule):
    """A rule for parameters, meta-parameters and states with a leading task axis."""

    rule: UpdateRule

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        return vmap_tasks(self.rule.init_state, meta, params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        def of_one(meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor) -> Any:
            return self.rule.update(meta, grads, state, params, loss, step)

        return vmap_tasks(of_one, meta, grads, state, params, loss)
