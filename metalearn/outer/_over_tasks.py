"""A function of one task, applied to many: at once, by `vmap` or in a loop. Nothing else knows how.

All three give the same, to rounding. At once means that tensors have a leading task axis and losses
are `[num_tasks]`: the gradient of their sum is every task's own, and nothing is traced. It takes
functions that treat all elements of a tensor alike; others are vmapped, and in a loop where `vmap`
cannot trace them. A single task is always a loop of one. Derivation: docs/devdocs/at_once.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._join import joined
from metalearn._layers import Memo
from metalearn._modes import in_transform
from metalearn._tasks import take, vmap_tasks
from metalearn._tree import tree_map
from metalearn.functional import OnSupport
from metalearn.functional._losses import is_of_model
from metalearn.inner import UpdateRule
from metalearn.outer._base import MetaGradient
from metalearn.types import (
    Episode,
    KeyedLoss,
    Meta,
    Params,
    Problem,
    PyTree,
    learned_init,
)


class How(NamedTuple):
    """How a function of one task is applied to many.

    Attributes:
        way: "at once", "vmap" or "loop".
        own: Whether every task has a `Meta` of its own, all of whose tensors have a leading task
            axis.
        one_backward: Whether the losses of a task may share a graph, as in `Traits`.
    """

    way: str
    own: bool = False
    one_backward: bool = False

    def of(self, num_tasks: int) -> "How":
        """Return how it is done for so many tasks, here."""
        if num_tasks == 1 or self.way == "loop":
            return self._replace(way="loop")
        return self._replace(way="vmap") if in_transform() else self

    @property
    def sums_shared(self) -> bool:
        """Whether gradients to what tasks share come as their sum, without a task axis."""
        return self.way == "at once" and not self.own


def choose(estimator: MetaGradient, problem: Problem, batching: str, own: bool = False) -> How:
    """Return the fastest exact way to run an estimator over tasks.

    Args:
        estimator: The estimator.
        problem: What the inner loop minimises and the outer loop judges.
        batching: "vmap" or "loop", which the user has chosen.
        own: As in `How`.
    """
    traits, losses = estimator.traits, (problem.support_loss, problem.query_loss)
    batching = "loop" if traits.one_by_one else batching
    at_once = traits.leafwise and batching == "vmap" and all(map(_has_gradients_of_tasks, losses))
    # What is of every task, a changed gradient or a start, is of every task's own `Meta`.
    own = own or (at_once and (traits.per_task or problem.start is not learned_init))
    return How("at once" if at_once else batching, own, traits.one_backward)


def over_tasks(
    function: Callable[..., Any],
    problem: Problem,
    meta: Meta,
    keys: Tensor,
    per_task: tuple[Any, ...],
    how: How,
) -> Any:
    """Return `function(problem.of_task(key), meta, *of_task)` of every task, stacked.

    Args:
        function: Called with one task's problem, what is learned, and its part of `per_task`.
        problem: What the inner loop minimises and the outer loop judges.
        meta: What is learned; every task's, with a leading task axis, if `how.own`.
        keys: The tasks' random keys `[num_tasks]`.
        per_task: Pytrees whose tensors have a leading task axis.
        how: How it is done, `how.of(num_tasks)`.
    """
    if how.way == "at once":
        metas = meta if how.own else _spread_own(meta, len(keys))
        return function(_of_all_tasks(problem.of_task(keys), how), metas, *per_task)
    given: tuple[Any, ...] = () if how.own else (meta,)
    rows = keys, *((meta,) if how.own else ()), *per_task
    if how.way == "loop":
        results = []
        for index in range(len(keys)):
            key, *of_task = take(rows, index)
            results.append(function(problem.of_task(key), *given, *of_task))
        if len(results) == 1:
            return spread(results[0], 1)
        return joined(torch.stack, results)

    def of_one(key: Tensor, *of_task: Any) -> Any:
        return function(problem.of_task(key), *given, *of_task)

    return vmap_tasks(of_one, *rows)


def spread(tree: Any, num_tasks: int) -> Any:
    """Give every tensor a leading task axis, without copying it."""
    return tree_map(lambda leaf: leaf.expand(num_tasks, *leaf.shape), tree)


def has_tables_of_one(model: nn.Module) -> bool:
    """Return whether a model has an embedding that counts the indices of all tasks together."""
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return any(table.padding_idx is not None or table.scale_grad_by_freq for table in tables)


def _has_gradients_of_tasks(loss: Any) -> bool:
    """Return whether the gradient of the sum of all tasks' losses is every task's own."""
    if isinstance(loss, OnSupport) or not isinstance(loss, KeyedLoss):
        return not (is_of_model(loss) and has_tables_of_one(loss.loss.model))
    return False


def _spread_own(meta: Meta, num_tasks: int) -> Meta:
    """Give a task axis to what every task changes; layers cost less where parameters have none."""
    return Meta(spread(meta.init, num_tasks), meta.shared, spread(meta.rule, num_tasks))


def _of_all_tasks(problem: Problem, how: How) -> Problem:
    """Return a problem whose parameters, episodes and losses have a leading task axis."""
    return problem._replace(
        support_loss=_losses_of_tasks(problem.support_loss, how),
        query_loss=_losses_of_tasks(problem.query_loss, how),
        rule=problem.rule if problem.rule.elementwise else RuleOfTasks(problem.rule),
        start=learned_init if problem.start is learned_init else partial(vmap_tasks, problem.start),
    )


def _losses_of_tasks(loss: Any, how: How) -> Callable[..., Tensor]:
    """Return a loss that is `[num_tasks]` and remembers what layers that do not adapt make."""
    if is_of_model(loss):
        return partial(loss.of_tasks, own=how.own, memo=Memo(how.one_backward))
    seen = loss.of_seen() if isinstance(loss, OnSupport) else loss

    def losses(params: Params, shared: Params, episodes: Episode, *step: int) -> Any:
        if seen is not loss:  # a loss of the whole of what the step sees
            episodes = episodes._replace(support=loss.batch(episodes, *step))
        if how.own:
            return vmap_tasks(lambda *task: seen(*task, *step), params, shared, episodes)
        return vmap_tasks(
            lambda params, episode: seen(params, shared, episode, *step), params, episodes
        )

    return losses


@dataclass(frozen=True)
class RuleOfTasks(UpdateRule):
    """A rule for parameters, meta-parameters and states with a leading task axis."""

    rule: UpdateRule

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the states of all tasks."""
        return vmap_tasks(self.rule.init_state, meta, params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the updates and states of all tasks."""
        return vmap_tasks(partial(self.rule.update, step=step), meta, grads, state, params, loss)

    def advance(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the parameters and states of all tasks after the step."""
        return vmap_tasks(partial(self.rule.advance, step=step), meta, grads, state, params, loss)
