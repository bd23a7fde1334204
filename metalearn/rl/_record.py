"""Recorded trajectories, for several outer steps on the same ones."""

from typing import Any

import torch
from torch import Tensor

from metalearn._attributes import attributes_kept
from metalearn._checks import check_kind, invalid, mistyped
from metalearn._tasks import in_chunks, map_tasks
from metalearn._tree import tree_map
from metalearn._walk import parts_of
from metalearn.outer import MetaLearner
from metalearn.outer._checks._episodes import check_episodes
from metalearn.outer._per_task import unwrapped
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
    check_kind(
        "learner", learner, MetaLearner, "a MetaLearner", "one: outer.MAML(policy, None, rule, ...)"
    )
    support, query = learner.problem.support_loss, learner.problem.query_loss
    if not (isinstance(support, SupportRollouts) and isinstance(query, QueryRollouts)):
        fix = (
            "Write outer.MAML(policy, None, rule, num_steps=1, **rl.policy_gradient(policy, "
            "environment))."
        )
        raise mistyped("learner's losses", "be those of rl.policy_gradient", support, fix)
    estimator = learner.estimator
    if "query" not in estimator.traits.differentiates or getattr(
        unwrapped(estimator), "multi_step", None
    ):
        condition, fix = (
            "differentiate the query loss after the last step alone",
            "Use outer.Unrolled().",
        )
        raise invalid("estimator on kept trajectories", condition, estimator, fix)
    check_episodes(episodes)
    episodes = Episode(*(_unrecorded(batch) for batch in episodes))
    keys = learner.check(episodes, keys)

    def kept(loss: PolicyLoss, batch: Batch, after: list[int]) -> Batch:
        steps = []
        for index, num_steps in enumerate(after):
            adapted = learner.adapt(episodes.support, num_steps, keys=keys)

            def trajectories(
                params: Params, batch: Batch, index: int = index, shared: Params = adapted.shared
            ) -> Any:
                return loss.rollout(params, shared, batch, index)

            def of_all(*part: Any, one: Any = trajectories) -> Any:
                return map_tasks(one, part, learner.batching)

            with torch.no_grad(), attributes_kept(*parts_of(learner)):
                steps.append(in_chunks(of_all, (adapted.params, batch), learner.chunk_size))
        recorded = tree_map(lambda *leaves: torch.stack(leaves, 1), *steps)
        return batch._replace(x={**batch.x, "recorded": recorded})

    of_support = kept(support.loss, episodes.support, list(range(learner.num_steps)))
    return Episode(of_support, kept(query.loss, episodes.query, [learner.num_steps]))


def _unrecorded(batch: Batch) -> Batch:
    """Return a batch without an earlier call's trajectories, which adaptation would use."""
    if not isinstance(batch.x, dict):
        return batch  # the learner raises
    return batch._replace(x={name: leaf for name, leaf in batch.x.items() if name != "recorded"})
