"""Losses of modules as pure functions of their parameters."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import torch.nn as nn
from torch import Tensor

from metalearn._checks import check_function, check_kind
from metalearn._fields import Check, Checked
from metalearn._layers import Memo, Network
from metalearn._modules import below, functional_call
from metalearn._tasks import vmap_tasks
from metalearn._tree import tree_leaves
from metalearn.functional._keys import derive_key
from metalearn.functional._known_criteria import is_known, known_losses
from metalearn.functional._support_batches import AllExamples, SupportBatches
from metalearn.types import Batch, Episode, KeyedLoss, Params

Module = Annotated[nn.Module, Check(check_kind, nn.Module, "an nn.Module", "the module itself")]
OF_BATCHES = 2
"""Which of the keys derived from a task's the batches of its support set are drawn by, as no rule
or estimator is."""


@dataclass(frozen=True, eq=False)
class ModelLoss(Checked):
    """The loss of a module on a batch as a function of its parameters.

    Calling it as `(params, shared, batch)` gives `criterion(model(batch.x), batch.y)`, with
    `batch.weight` as a further argument where the batch has weights. Weights reach
    `models.BatchNorm` layers too.

    Attributes:
        model: Any module; `params` replaces its parameters of the same names.
        criterion: `(output, y) -> scalar`, a function or a module.
        name: What the criterion is called: its parameters are `<name>.<parameter>` in `shared`,
            where the model's are `model.<parameter>`.
        network: The model as a function, and how it and the criterion are called.
    """

    model: Module
    criterion: Annotated[
        Callable[..., Any], Check(check_function), "Pass F.mse_loss or nn.MSELoss()."
    ]
    name: Annotated[str, Check(check_kind, str, "a string", "'criterion', say")] = "criterion"
    network: Network = field(default=None, repr=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network is None:
            object.__setattr__(self, "network", Network.of(self.model))

    def __call__(self, params: Params, shared: Params, batch: Batch, step: int = 0) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        output = self.network(self.model_tensors(params, shared), batch, None, step)
        return self.judge(output, batch, shared)

    def on_query(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set, which the support set may help to normalise."""
        tensors = self.model_tensors(params, shared)
        output = self.network(tensors, episode.query, episode.support)
        return self.judge(output, episode.query, shared)

    def of_tasks(
        self,
        params: Params,
        shared: Params,
        batch: Batch,
        support: Batch | None,
        step: int | None,
        own: bool,
        memo: Memo,
    ) -> Tensor:
        """Return the losses of all tasks, `[num_tasks]`.

        Args:
            params: Fast parameters, with a leading task axis.
            shared: The others, with one too if `own`.
            batch: What the losses are on.
            support: The support sets of query examples.
            step: Number of the inner step.
            own: Whether each task has shared parameters of its own.
            memo: Of what the network's layers without fast parameters have made of their inputs.
        """
        if self.network.knows(batch, support):
            tensors = self.model_tensors(params, shared)
            outputs = self.network.of_tasks(tensors, batch, support, params, memo)
            return self.judge_tasks(outputs, batch, shared, own)

        def of_one(params: Params, batch: Batch, support: Batch | None, shared: Params) -> Tensor:
            output = self.network(self.model_tensors(params, shared), batch, support, step)
            return self.judge(output, batch, shared)

        if own:
            return vmap_tasks(of_one, params, batch, support, shared)
        return vmap_tasks(partial(of_one, shared=shared), params, batch, support)

    def judge_tasks(self, outputs: Any, batch: Batch, shared: Params, own: bool = False) -> Tensor:
        """Return the criterion of what the models make of all tasks' batches, `[num_tasks]`."""
        if is_known(self.criterion, outputs, batch):
            return known_losses(self.criterion, outputs, batch.y)
        if own:
            return vmap_tasks(self.judge, outputs, batch, shared)
        return vmap_tasks(lambda output, batch: self.judge(output, batch, shared), outputs, batch)

    def judge(self, output: Any, batch: Batch, shared: Params) -> Tensor:
        """Return the criterion of what the model has made of a batch."""
        # By their leaves, since torch's default collate makes lists of the empty tuples of a
        # `Batch`.
        targets = [
            target
            for target in (batch.y, batch.weight)
            if isinstance(target, Tensor) or tree_leaves(target)
        ]
        if isinstance(self.criterion, nn.Module):
            return self.network.call(self.criterion, below(self.name, shared), (output, *targets))
        return self.criterion(output, *targets)

    def unchanged(self) -> "ModelLoss":
        """Return a loss for as long as the model's layers are what they are now."""
        network = Network.of(self.model, self.network.call, self.network.output)
        return replace(self, network=network.unchanged())

    def model_tensors(self, params: Params, shared: Params) -> Params:
        """Return what replaces the model's own parameters."""
        return {**params, **below("model", shared)} if shared else params


@dataclass(frozen=True, eq=False)
class ModuleLoss(Checked):
    """A module called as a loss of `Problem`, with its parameters taken from `shared`.

    Attributes:
        module: Called as `(params, shared, episode, step)` or `(params, shared, episode)`.
        name: Its parameters are `<name>.<parameter>` in `shared`.
    """

    module: Module
    name: Annotated[str, Check(check_kind, str, "a string", "'query_loss', say")]

    def __call__(self, params: Params, shared: Params, *rest: Any) -> Tensor:
        """Return the loss at `params` and `shared`, a scalar."""
        return functional_call(self.module, below(self.name, shared), (params, shared, *rest))


OfModel = Annotated[
    ModelLoss,
    Check(check_kind, ModelLoss, "a ModelLoss", "functional.ModelLoss(model, criterion)"),
]


@dataclass(frozen=True, eq=False)
class OnSupport(KeyedLoss, Checked):
    """A loss on a batch as a `Problem.support_loss`.

    Attributes:
        loss: The loss on a batch.
        batches: Which of the support examples a step sees, `DealtBatches(5)` or
            `SampledBatches(5)`; None for all.
        key: The task's random key, which batches are drawn by; `Problem.of_task` fills it in.
    """

    loss: OfModel
    batches: Annotated[
        SupportBatches | None,
        Check(check_kind, SupportBatches, "a SupportBatches", "functional.DealtBatches(5), say"),
    ] = None
    key: Tensor | None = None

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

    def of_tasks(
        self, params: Params, shared: Params, episodes: Episode, step: int, *, own: bool, memo: Memo
    ) -> Tensor:
        """Return the losses of all tasks `[num_tasks]`; arguments as for `ModelLoss.of_tasks`."""
        return self.loss.of_tasks(
            params, shared, self.batch(episodes, step), None, step, own=own, memo=memo
        )

    def of_task(self, key: Tensor) -> "OnSupport":
        """Return the loss whose batches are drawn by a task's key, or by those of all tasks."""
        return self if self.batches is None else replace(self, key=key)

    def whole(self) -> "OnSupport":
        """Return the loss on the whole support set at every step."""
        return self if self.batches is None else replace(self, batches=AllExamples(self.batches))

    def of_seen(self) -> "OnSupport":
        """Return the loss on support sets that are what a step sees, such as `batch` returns."""
        return self if self.batches is None else replace(self, batches=None)


@dataclass(frozen=True, eq=False)
class OnQuery(Checked):
    """A loss on a batch as a `Problem.query_loss`."""

    loss: OfModel

    def __call__(self, params: Params, shared: Params, episode: Episode) -> Tensor:
        """Return the loss on the query set."""
        return self.loss.on_query(params, shared, episode)

    def of_tasks(
        self, params: Params, shared: Params, episodes: Episode, *, own: bool, memo: Memo
    ) -> Tensor:
        """Return the losses of all tasks `[num_tasks]`; arguments as for `ModelLoss.of_tasks`."""
        support, query = episodes
        return self.loss.of_tasks(params, shared, query, support, None, own=own, memo=memo)


def is_of_model(loss: Any) -> bool:
    """Return whether a loss is one of these of a model's outputs; a subclass may differ."""
    return type(loss) in (OnSupport, OnQuery) and type(loss.loss) is ModelLoss
