"""An estimator applied to every task of a chunk: under `vmap`, one by one, or to all of them at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from metalearn._derivatives import in_transform
from metalearn._tasks import map_tasks, vmap_tasks
from metalearn._tree import tree_leaves, tree_map
from metalearn.inner import UpdateRule
from metalearn.outer._base import MetaGradient
from metalearn.types import Adapted, Batch, Episode, Estimate, Meta, Params, Problem, PyTree


def estimate_each(
    estimator: MetaGradient,
    problem: Problem,
    meta: Meta,
    episodes: Episode,
    keys: Tensor,
    carry: PyTree,
    batching: str,
) -> Estimate:
    """Return every task's estimate, stacked.

    Args:
        estimator: How the gradients are estimated.
        problem: What the inner loop minimises and the outer loop judges.
        meta: Where the gradients are taken.
        episodes: Tasks, with a leading task axis.
        keys: The tasks' random keys `[num_tasks]`.
        carry: What outlived the last meta-step.
        batching: "vmap" or "loop".
    """
    # Shared parameters would be expanded too, and a model's cost is far lower where all tasks have the same.
    if _at_once(estimator, len(keys), batching) and not meta.shared:
        meta, carry = (tree_map(lambda leaf: leaf.expand(len(keys), *leaf.shape), tree) for tree in (meta, carry))
        return estimator(_of_all_tasks(problem), meta, episodes, keys, carry)

    def estimate(episode: Episode, key: Tensor) -> Estimate:
        return estimator(problem, meta, episode, key, carry)

    return map_tasks(estimate, (episodes, keys), batching)


def adapt_each(
    estimator: MetaGradient,
    problem: Problem,
    meta: Meta,
    support: Batch,
    keys: Tensor,
    num_steps: int,
    batching: str,
) -> Adapted:
    """Return every task's adapted parameters and state, stacked, beside what the tasks share.

    Args:
        estimator: How a task is adapted to.
        problem: What the inner loop minimises.
        meta: What the outer loop has learned.
        support: The tasks' support sets, with a leading task axis.
        keys: The tasks' random keys `[num_tasks]`.
        num_steps: Number of inner steps.
        batching: "vmap" or "loop".
    """
    if _at_once(estimator, len(keys), batching):
        own = meta._replace(shared={})
        own = tree_map(lambda leaf: leaf.expand(len(keys), *leaf.shape), own)._replace(shared=meta.shared)
        return estimator.adapt(_of_all_tasks(problem), own, support, keys, num_steps)

    def adapt(support: Batch, key: Tensor) -> Any:
        adapted = estimator.adapt(problem, meta, support, key, num_steps)
        return adapted.params, adapted.state

    params, state = map_tasks(adapt, (support, keys), batching)
    return Adapted(params, meta.shared, state)


def _at_once(estimator: MetaGradient, num_tasks: int, batching: str) -> bool:
    return estimator.leafwise and batching == "vmap" and num_tasks > 1 and not in_transform()


def _of_all_tasks(problem: Problem) -> Problem:
    """Return a problem whose parameters, episodes and losses have a leading task axis; what is shared has none."""
    return problem._replace(
        support_loss=_over_tasks(problem.support_loss),
        query_loss=_over_tasks(problem.query_loss),
        rule=_OverTasks(problem.rule),
    )


def _over_tasks(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def losses(params: Params, shared: Params, episodes: Episode, *step: int) -> Any:
        return _vmap(lambda params, episode: loss(params, shared, episode, *step), params, episodes)

    return losses


def _vmap(function: Callable[..., Any], *args: Any) -> Any:
    """Return `vmap_tasks(function, *args)`, whose cost is lower for a flat list of tensors."""
    results = []

    def flat(*leaves: Tensor) -> list[Tensor]:
        rest = iter(leaves)
        results.append(function(*tree_map(lambda _: next(rest), args)))
        return tree_leaves(results[0])

    mapped = iter(vmap_tasks(flat, *tree_leaves(args)))
    return tree_map(lambda _: next(mapped), results[0])


@dataclass(frozen=True)
class _OverTasks(UpdateRule):
    """A rule for parameters, meta-parameters and states with a leading task axis."""

    rule: UpdateRule

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        return _vmap(self.rule.init_state, meta, params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        def of_one(meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor) -> Any:
            return self.rule.update(meta, grads, state, params, loss, step)

        return _vmap(of_one, meta, grads, state, params, loss)
