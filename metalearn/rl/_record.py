"""Recorded trajectories, for several outer steps on the same ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from metalearn._attributes import attributes_kept
from metalearn._checks import check_kind, invalid, mistyped
from metalearn._tasks import in_chunks, map_tasks
from metalearn._tree import tree_map
from metalearn._walk import holders_of
from metalearn.outer import MetaLearner
from metalearn.outer._checks._episodes import check_episodes
from metalearn.outer._wrapper import unwrapped
from metalearn.rl._losses import PolicyLoss, QueryRollouts, SupportRollouts
from metalearn.types import Batch, Episode, Params


def record(learner: MetaLearner, episodes: Episode, *, keys: Tensor | None = None) -> Episode:
    """Return episodes that hold the trajectories of all inner steps and of the adapted policy.

    The learner's losses then use these instead of new ones, and `clipped` in the outer loss allows
    several outer steps on them: `kept = rl.record(learner, episodes, keys=keys)`, then
    `learner(kept, keys=keys).backward()` repeatedly. The keys matter to rules that draw random
    numbers. The loss's value remains minus the return of the recorded trajectories.

    Args:
        learner: A learner with the losses of `policy_gradient`.
        episodes: Tasks, with a leading task axis.
        keys: The tasks' random keys `[num_tasks]`, int64; drawn from PyTorch's generator if not
            given.

    Raises:
        TypeError: If the learner has other losses, or the episodes have the wrong type.
        ValueError: As `MetaLearner.forward`.

    References:
        Rothfuss et al., "ProMP: proximal meta-policy search", ICLR 2019.
    """
    example = "one: outer.MAML(policy, None, rule, ...)"
    check_kind("learner", learner, MetaLearner, "a MetaLearner", example)
    support, query = learner.problem.support_loss, learner.problem.query_loss
    if not (isinstance(support, SupportRollouts) and isinstance(query, QueryRollouts)):
        losses = "**rl.policy_gradient(policy, environment)"
        fix = f"Write outer.MAML(policy, None, rule, num_steps=1, {losses})."
        raise mistyped("learner's losses", "be those of rl.policy_gradient", support, fix)
    estimator = learner.estimator
    multi_step = getattr(unwrapped(estimator), "multi_step", None)
    if multi_step or "query" not in estimator.traits.differentiates:
        condition = "differentiate the query loss after the last step alone"
        fix = "Use outer.Unrolled()."
        raise invalid("estimator on kept trajectories", condition, estimator, fix)
    check_episodes(episodes)
    episodes = Episode(*(_unrecorded(batch) for batch in episodes))
    keys = learner.check(episodes, keys)

    def at_step(loss: PolicyLoss, batch: Batch, index: int, num_steps: int) -> Any:
        adapted = learner.adapt(episodes.support, num_steps, keys=keys)

        def one(params: Params, batch: Batch) -> Any:
            return loss.rollout(params, adapted.shared, batch, index)

        def many(*part: Any) -> Any:
            return map_tasks(one, part, learner.batching)

        with torch.no_grad(), attributes_kept(*holders_of(learner)):
            return in_chunks(many, (adapted.params, batch), learner.chunk_size)

    def recorded(loss: PolicyLoss, batch: Batch, after: Iterable[int]) -> Batch:
        steps = [at_step(loss, batch, index, num_steps) for index, num_steps in enumerate(after)]
        stacked = tree_map(lambda *leaves: torch.stack(leaves, 1), *steps)
        return batch._replace(x={**batch.x, "recorded": stacked})

    of_support = recorded(support.loss, episodes.support, range(learner.num_steps))
    return Episode(of_support, recorded(query.loss, episodes.query, [learner.num_steps]))


def _unrecorded(batch: Batch) -> Batch:
    """Return a batch without an earlier call's trajectories, which adaptation would use."""
    if not isinstance(batch.x, dict):
        return batch  # the learner raises
    return batch._replace(x={name: leaf for name, leaf in batch.x.items() if name != "recorded"})
