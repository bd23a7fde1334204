"""Ensembles of learners, whose output is the members' mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_one_device, invalid
from metalearn._join import joined
from metalearn.functional import OnQuery
from metalearn.outer import AdaptedModels, MetaLearner
from metalearn.types import Batch, Episode, PyTree


class Ensemble:
    """Several learners that `evaluate` can use as one.

    Args:
        learners: At least one learner.

    Raises:
        ValueError: If there are none, they are on different devices, or a query loss does not judge
            outputs.
    """

    def __init__(self, learners: Sequence[MetaLearner]) -> None:
        if not learners:
            raise invalid("learner", "be at least one", "[]", "Pass [learner].")
        check_one_device("all learners", learners)
        for learner in learners:
            if not isinstance(learner.problem.query_loss, OnQuery):
                fix = "Build them with a criterion, or evaluate them one by one."
                what, condition = "learners of an ensemble", "be judged by a criterion"
                raise invalid(what, condition, "a query_loss", fix)
        self._learners = learners
        self.device = learners[0].device

    @property
    def model(self) -> nn.Module:
        """All models."""
        return nn.ModuleList([learner.model for learner in self._learners])

    @property
    def num_steps(self) -> int:
        """Number of inner steps in training, if all learners agree."""
        counts = {learner.num_steps for learner in self._learners}
        if len(counts) > 1:
            fix = "Write num_steps=5, say, for all of them."
            condition = "be given for learners that differ in it"
            raise invalid("num_steps", condition, sorted(counts), fix)
        return counts.pop()

    def check_episodes(self, episodes: Episode, keys: Tensor) -> None:
        """Raise if the episodes or the losses of their first task are ill posed."""
        for learner in self._learners:
            learner.check_episodes(episodes, keys)

    def adapt(self, support: Batch, num_steps: int, *, keys: Tensor) -> "AdaptedEnsemble":
        """Adapt every learner to many tasks, all with the same keys."""
        members = [learner.adapt(support, num_steps, keys=keys) for learner in self._learners]
        return AdaptedEnsemble(members)


@dataclass(frozen=True, eq=False)
class AdaptedEnsemble:
    """The adapted models of several learners.

    Attributes:
        members: The members' adapted models; the first one's criterion is used.
    """

    members: list[AdaptedModels]

    def __call__(self, x: PyTree | Batch) -> Any:
        """Return the mean of the members' outputs `[num_tasks, num_examples, ...]`."""
        outputs = [member(x) for member in self.members]
        return joined(lambda leaves: torch.stack(leaves).mean(0), outputs)

    def loss(self, batch: Batch) -> Tensor:
        """Return the criterion of the mean outputs, `[num_tasks]`."""
        return self.loss_of(self(batch), batch)

    def loss_of(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the criterion of the members' mean outputs on a batch, `[num_tasks]`."""
        return self.members[0].loss_of(outputs, batch)
