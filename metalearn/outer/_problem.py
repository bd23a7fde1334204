"""The problem that a learner's model, criteria and losses make, and what they share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from torch import Tensor

from metalearn._layers import Network
from metalearn._modules import below, functional_call, get_tensor
from metalearn.functional import ModelLoss, ModuleLoss, OnQuery, OnSupport
from metalearn.inner import UpdateRule
from metalearn.outer._checks._construction import check_owns
from metalearn.outer._select import trainable
from metalearn.types import Batch, Meta, Params, Problem, learned_init

OWNERS = ("criterion", "support_criterion", "support_loss", "query_loss", "start")
"""The learner's parts beside its model; those that are modules may own what is shared."""


def problem_of(learner: Any, rule: UpdateRule, num_steps: int) -> Problem:
    """Return the problem of a learner that has its parts."""
    in_support = "criterion" if learner.support_criterion is None else "support_criterion"
    return Problem(
        support_loss=_given(learner, "support_loss")
        or OnSupport(_of_model(learner, in_support), learner.support_batches),
        query_loss=_given(learner, "query_loss") or OnQuery(_of_model(learner, "criterion")),
        rule=rule,
        num_steps=num_steps,
        start=_start(learner.start),
    )


def shared_names(learner: Any, fast: list[str]) -> list[str]:
    """Return the names in `Meta.shared`: all that is trainable in the parts, but for `fast`.

    Raises:
        ValueError: If a criterion holds parameters that adapt.
    """
    adapting = {id(get_tensor(learner.model, name)) for name in fast}
    names = [f"model.{name}" for name in trainable(learner.model) if name not in fast]
    for part in OWNERS:
        if isinstance(module := getattr(learner, part), nn.Module):
            owned = {name: id(get_tensor(module, name)) in adapting for name in trainable(module)}
            if part.endswith("criterion"):
                check_owns(part, [name for name, adapts in owned.items() if adapts])
            names += [f"{part}.{name}" for name, adapts in owned.items() if not adapts]
    return names


@dataclass(frozen=True, eq=False)
class ModuleStart:
    """A module called as the start of `Problem`, with its parameters taken from `shared`."""

    module: nn.Module

    def __call__(self, meta: Meta, support: Batch, key: Tensor) -> Params:
        """Return where the inner problem starts."""
        return functional_call(self.module, below("start", meta.shared), (meta, support, key))


def _start(start: Any) -> Callable[..., Params]:
    if start is None:
        return learned_init
    return ModuleStart(start) if isinstance(start, nn.Module) else start


def _of_model(learner: Any, name: str) -> ModelLoss:
    network = Network.of(learner.model, output=learner.output)
    return ModelLoss(learner.model, getattr(learner, name), name, network)


def _given(learner: Any, name: str) -> Callable[..., Tensor] | None:
    loss = getattr(learner, name)
    return ModuleLoss(loss, name) if isinstance(loss, nn.Module) else loss
