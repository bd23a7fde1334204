"""Losses by copies of the model, for models that the backward pass computes again."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from metalearn._calls import CallWithin, contexts_of
from metalearn._copies import copied
from metalearn._layers import Network
from metalearn._modules import below, call_holding, get_tensor
from metalearn.functional import ModelLoss
from metalearn.functional._losses import is_of_model
from metalearn.types import Batch, Episode, Params, Problem


@dataclass(frozen=True, eq=False)
class CopiedLoss(ModelLoss):
    """A loss by a new copy of model and criterion at every call, without the originals."""

    def __call__(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        return self._holding(params, shared)({}, {}, batch, step)

    def on_query(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set, which the support set may help to normalise."""
        return self._holding(params, shared).on_query({}, {}, episode)

    def _holding(self, params: Params, shared: Params) -> ModelLoss:
        """Return the loss of a copy whose own parameters are the given ones."""
        parts: Any = (
            (self.model, self.model_tensors(params, shared)),
            (self.criterion, below(self.name, shared)),
        )
        given = {
            get_tensor(module, name): tensor
            for module, tensors in parts
            for name, tensor in tensors.items()
        }
        model, criterion = copied(
            (self.model, self.criterion), lambda tensor: given.get(tensor, tensor)
        )
        contexts = contexts_of(self.network.call)
        call = CallWithin(contexts, call_holding) if contexts else call_holding
        return ModelLoss(model, criterion, self.name, Network(model, call, self.network.output))


def with_copies(problem: Problem) -> Problem:
    """Return the problem with losses of a model that is copied at every call."""

    def of_copies(on: Any) -> Any:
        return replace(on, loss=CopiedLoss(**vars(on.loss))) if is_of_model(on) else on

    return problem._replace(
        support_loss=of_copies(problem.support_loss), query_loss=of_copies(problem.query_loss)
    )


def are_copied(problem: Problem) -> bool:
    """Return whether a model is copied at every call."""
    return any(
        isinstance(getattr(on, "loss", None), CopiedLoss)
        for on in (problem.support_loss, problem.query_loss)
    )
