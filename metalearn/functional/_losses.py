"""Losses of modules as pure functions of their parameters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_function, check_kind
from metalearn._derivatives import in_transform
from metalearn._layers import Inputs, Layers, Memo
from metalearn._modules import Call, below, call_model, functional_call, predict
from metalearn._tree import tree_leaves
from metalearn.functional._keys import derive_key
from metalearn.functional._support_batches import SupportBatches
from metalearn.models._batch_norm import Norms
from metalearn.types import Batch, Episode, Params

OF_BATCHES = 2
"""Which of the keys derived from a task's the batches of its support set are drawn by, as no rule
or estimator is."""


@dataclass(frozen=True, eq=False)
class ModelLoss:
    """The loss of a module on a batch as a function of its parameters.

    Calling it as `(params, shared, batch)` gives `criterion(model(batch.x), batch.y)`, with
    `batch.weight` as a further argument where the batch has weights. Weights reach
    `models.BatchNorm` layers too.

    Attributes:
        model: Any module; `params` replaces its parameters of the same names.
        criterion: `(output, y) -> scalar`, a function or a module.
        name: What the criterion is called: its parameters are `<name>.<parameter>` in `shared`,
            where the model's are `model.<parameter>`.
        call: How model and criterion are called with the parameters.
    """

    model: nn.Module
    criterion: Callable[..., Any]
    name: str = "criterion"
    call: Call = field(default=functional_call, repr=False)
    norms: Norms = field(init=False, repr=False)
    layers: Layers | None = field(init=False, repr=False)
    differentiable_around_vmap: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_kind("ModelLoss's model", self.model, nn.Module, "an nn.Module", "the module itself")
        check_function(
            "ModelLoss's criterion", self.criterion, fix="Pass F.mse_loss or nn.MSELoss()."
        )
        check_kind("ModelLoss's name", self.name, str, "a string", "'criterion', say")
        object.__setattr__(self, "norms", Norms.of(self.model))
        object.__setattr__(
            self, "layers", Layers.of(self.model) if self.call is functional_call else None
        )
        object.__setattr__(
            self, "differentiable_around_vmap", not has_tables_of_one(self.model.modules())
        )

    def __call__(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        output = self.by_layers(params, shared, batch)
        if output is None:
            buffers = self.norms.buffers(self.model, batch.weight, step)
            output = call_model(
                self.model, {**self.model_tensors(params, shared), **buffers}, batch.x, self.call
            )
        return self.judge(output, batch, shared)

    def on_query(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set, which the support set may help to normalise."""
        output = self.by_layers(params, shared, episode.query, support=episode.support)
        if output is None:
            tensors = self.model_tensors(params, shared)
            output = predict(
                self.model, tensors, self.norms, episode.query, episode.support, self.call
            )
        return self.judge(output, episode.query, shared)

    def by_layers(
        self,
        params: Params,
        shared: Params,
        batch: Batch,
        *,
        support: Batch | None = None,
        of_tasks: bool = False,
        memo: Memo | None = None,
    ) -> Tensor | None:
        """Return the model's output if its layers are known and it depends on parameters and `x`
        alone, or else None.

        Args:
            params: Fast parameters.
            shared: The others.
            batch: What the output is for.
            support: The support set of a query batch, which layers may normalise it by.
            of_tasks: Whether the batch is of all tasks, and so are parameters with an axis more
                than the model's.
            memo: Of what the layers without fast parameters made of their inputs at the last call.
        """
        if self.layers is None or tree_leaves(batch.weight) or in_transform():
            return None
        if not self.layers.take(batch.x, of_tasks):
            return None
        tensors = self.model_tensors(params, shared)
        if support is None or not self.norms.by_support:
            return self.layers(tensors, batch.x, Inputs(of_tasks), params, memo)
        if tree_leaves(support.weight) or not isinstance(support.x, Tensor):
            return None
        axis = int(of_tasks)
        both, num_support = torch.cat([support.x, batch.x], axis), support.x.shape[axis]
        output = self.layers(tensors, both, Inputs(of_tasks, num_support), params, memo)
        return output.narrow(axis, num_support, batch.x.shape[axis])

    def judge(self, output: Any, batch: Batch, shared: Params) -> Tensor:
        """Return the criterion of what the model has made of a batch."""
        # By their leaves, since torch's default collate makes lists of the empty tuples of a
        # `Batch`.
        targets = [target for target in (batch.y, batch.weight) if tree_leaves(target)]
        if isinstance(self.criterion, nn.Module):
            return self.call(self.criterion, below(self.name, shared), (output, *targets))
        return self.criterion(output, *targets)

    def model_tensors(self, params: Params, shared: Params) -> Params:
        """Return what replaces the model's own parameters."""
        return {**params, **below("model", shared)}


@dataclass(frozen=True, eq=False)
class ModuleLoss:
    """A module called as a loss of `Problem`, with its parameters taken from `shared`.

    Attributes:
        module: Called as `(params, shared, episode, step)` or `(params, shared, episode)`.
        name: Its parameters are `<name>.<parameter>` in `shared`.
    """

    module: nn.Module
    name: str

    def __post_init__(self) -> None:
        check_kind(
            "ModuleLoss's module", self.module, nn.Module, "an nn.Module", "the module itself"
        )
        check_kind("ModuleLoss's name", self.name, str, "a string", "'query_loss', say")

    def __call__(self, params: Params, shared: Params, *rest: Any) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        return functional_call(self.module, below(self.name, shared), (params, shared, *rest))


@dataclass(frozen=True, eq=False)
class OnSupport:
    """A loss on a batch as a `Problem.support_loss`.

    Attributes:
        loss: The loss on a batch.
        batches: Which of the support examples a step sees, `DealtBatches(5)` or
            `SampledBatches(5)`; None for all.
        key: The task's random key, which batches are drawn by; `Problem.of_task` fills it in.
    """

    loss: ModelLoss
    batches: SupportBatches | None = None
    key: Tensor | None = None

    def __post_init__(self) -> None:
        check_kind(
            "OnSupport's loss",
            self.loss,
            ModelLoss,
            "a ModelLoss",
            "functional.ModelLoss(model, criterion)",
        )
        if self.batches is not None:
            example = "functional.DealtBatches(5), say"
            check_kind(
                "OnSupport's batches", self.batches, SupportBatches, "a SupportBatches", example
            )

    def __call__(self, params: Params, shared: Params, episode: Episode, step: int) -> Tensor:
        """Return the loss on what the step sees of the support set."""
        return self.loss(params, shared, self.batch(episode, step), step)

    def batch(self, episode: Episode, step: int) -> Batch:
        """Return what the loss is of at a step: of one task, or of as many as it has keys of."""
        if self.batches is None:
            return episode.support
        if self.key is None:
            return self.batches.of_step(episode.support, None, step)
        return self.batches.of_step(
            episode.support, derive_key(self.key, OF_BATCHES), step, self.key.dim()
        )

    def of_task(self, key: Tensor) -> "OnSupport":
        """Return the loss whose batches are drawn by a task's key, or by those of all tasks,
        `[num_tasks]`.
        """
        return self if self.batches is None else replace(self, key=key)

    def whole(self) -> "OnSupport":
        """Return the loss on the whole support set at every step."""
        return self if self.batches is None else replace(self, batches=None)


@dataclass(frozen=True, eq=False)
class OnQuery:
    """A loss on a batch as a `Problem.query_loss`."""

    loss: ModelLoss

    def __post_init__(self) -> None:
        check_kind(
            "OnQuery's loss",
            self.loss,
            ModelLoss,
            "a ModelLoss",
            "functional.ModelLoss(model, criterion)",
        )

    def __call__(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set."""
        return self.loss.on_query(params, shared, episode)

    def batch(self, episodes: Episode) -> Batch:
        """Return what the loss is of, of all tasks."""
        return episodes.query


def has_tables_of_one(modules: Iterable[nn.Module]) -> bool:
    """Return whether one is an embedding whose derivative, if not vmapped as it is, takes all
    tasks' tables for one.
    """
    tables = (module for module in modules if isinstance(module, nn.Embedding))
    return any(table.padding_idx is not None or table.scale_grad_by_freq for table in tables)


def is_of_model(loss: Any) -> bool:
    """Return whether a loss of `Problem` is one of these of a model's outputs, and not a subclass,
    which may differ.
    """
    return type(loss) in (OnSupport, OnQuery) and type(loss.loss) is ModelLoss
