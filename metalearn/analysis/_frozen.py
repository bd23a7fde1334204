"""A learner whose adaptation leaves some fast parameters unchanged."""

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn.inner import UpdateRule
from metalearn.outer import MetaLearner
from metalearn.outer._select import Selection, select
from metalearn.types import Params, PyTree


@dataclass(frozen=True)
class Frozen(UpdateRule):
    """A rule that does not update some parameters, although it sees their gradients.

    It is made for existing learners, with the wrapped rule's meta-parameters.
    """

    rule: UpdateRule
    names: frozenset[str]

    @property
    def as_values(self) -> frozenset[str]:
        """As the wrapped rule."""
        return self.rule.as_values

    def init_state(self, meta: PyTree, params: Params, key: Tensor) -> PyTree:
        """Return the wrapped rule's state."""
        return self.rule.init_state(meta, params, key)

    def update(
        self, meta: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor, step: int
    ) -> tuple[Params, PyTree]:
        """Return the wrapped rule's updates, zero for frozen parameters."""
        updates, state = self.rule.update(meta, grads, state, params, loss, step)
        kept = {
            name: torch.zeros_like(update) if name in self.names else update
            for name, update in updates.items()
        }
        return kept, state


def frozen(learner: MetaLearner, names: Collection[str]) -> MetaLearner:
    """Return a new learner that shares all tensors but does not adapt some fast parameters."""
    other = copy.copy(learner)
    other.problem = learner.problem._replace(rule=Frozen(learner.problem.rule, frozenset(names)))
    return other


def select_fast(what: str, selection: Selection, learner: MetaLearner) -> list[str]:
    """Return the selected fast parameters; raise if the selection matches none."""
    return select(what, selection, {name: [name] for name in learner.meta.init})
