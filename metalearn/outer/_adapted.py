"""What a learner has made of its model for every task."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import attributes_kept, deep_copied
from metalearn._checks import check_index, invalid, mistyped
from metalearn._computable import computable
from metalearn._layers import Memo, Network
from metalearn._modules import below, call_model, set_tensor
from metalearn._tasks import in_chunks, map_tasks, num_tasks, take
from metalearn._tree import tree_leaves
from metalearn.functional import OnQuery
from metalearn.functional._losses import is_of_model
from metalearn.models._batch_statistics import freeze_at_support
from metalearn.types import Batch, Episode, Params, PyTree


@dataclass(frozen=True, eq=False)
class AdaptedModels:
    """The adapted models of many tasks, called together; detached from any graph.

    Attributes:
        params: Adapted parameters, by name, with a leading task axis.
        shared: Parameters that did not adapt, without one.
        state: The rule's last states.
        support: What was adapted to.
        model: The module that the parameters belong to.
        query_loss: As in `Problem`.
        age: Number of inner steps that each model has been trained for, `[num_tasks]`.
        batching: "vmap" or "loop", how the models are called.
        chunk_size: Number of tasks called at once; None for all.
    """

    params: Params
    shared: Params
    state: PyTree
    support: Batch
    model: nn.Module
    query_loss: Callable[[Params, Params, Episode], Tensor]
    age: Tensor
    batching: str = "vmap"
    chunk_size: int | None = None

    def __repr__(self) -> str:
        return f"AdaptedModels({len(self)} tasks, {len(self.params)} parameter tensors)"

    def __len__(self) -> int:
        """Return the number of tasks."""
        return num_tasks(self.params)

    def __call__(self, x: PyTree) -> Any:
        """Return each task's adapted model applied to its inputs.

        Args:
            x: Inputs `[num_tasks, num_examples, ...]`, or a `Batch` of them if they have weights.

        Returns:
            Outputs `[num_tasks, num_examples, ...]`.

        Raises:
            ValueError: If the inputs are not of as many tasks.
        """
        network, shared = self._network, below("model", self.shared)

        def of_one(params: Params, support: Batch, query: Batch) -> Any:
            return network({**params, **shared}, query, support)

        def of_tasks(params: Params, support: Batch, query: Batch) -> Any:
            if network.knows(query, support):
                return network.of_tasks({**params, **shared}, query, support)
            return map_tasks(of_one, (params, support, query))

        query = x if isinstance(x, Batch) else Batch(x)
        return self._map("inputs", x, (self.params, self.support, query), of_one, of_tasks)

    def loss(self, batch: Batch) -> Tensor:
        """Return the query loss of each task's adapted model on its batch, `[num_tasks]`.

        Raises:
            TypeError: If the argument is no batch.
            ValueError: If the batch is not of as many tasks.
        """
        if not isinstance(batch, Batch):
            fix = "Write adapted.loss(episodes.query)."
            raise mistyped("batch", "be a Batch", type(batch).__name__, fix)
        loss: Any = self.query_loss

        def of_one(params: Params, support: Batch, query: Batch) -> Tensor:
            return loss(params, self.shared, Episode(support, query))

        def of_tasks(params: Params, support: Batch, query: Batch) -> Tensor:
            episodes = Episode(support, query)
            if is_of_model(loss):
                return loss.of_tasks(params, self.shared, episodes, own=False, memo=Memo())
            return map_tasks(of_one, (params, support, query))

        return self._map("batch", batch, (self.params, self.support, batch), of_one, of_tasks)

    def loss_of(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the query losses, given the models' outputs: `loss` without computing them.

        A loss of the user's own, which does not tell outputs from their judgement, is computed
        anew.
        """
        loss: Any = self.query_loss
        if not (isinstance(loss, OnQuery) and is_of_model(loss) and loss.loss.model is self.model):
            return self.loss(batch)
        of_one, of_tasks = (
            partial(judge, shared=self.shared) for judge in (loss.loss.judge, loss.loss.judge_tasks)
        )
        return self._map("batch", batch, (outputs, batch), of_one, of_tasks)

    @property
    def _network(self) -> Network:
        loss: Any = self.query_loss
        is_the_models = is_of_model(loss) and loss.loss.model is self.model
        return loss.loss.network if is_the_models else Network.of(self.model)

    def _map(
        self,
        what: str,
        data: PyTree,
        per_task: tuple[Any, ...],
        of_one: Callable[..., Any],
        of_tasks: Callable[..., Any],
    ) -> Any:
        """Return what a function of one task gives for every task, by that of all where it can."""
        _check_lengths(what, data, len(self))
        self._check_support()

        def chunk(*part: Any) -> Any:
            if self.batching == "loop" or num_tasks(part) == 1:
                return map_tasks(of_one, part, "loop")
            return of_tasks(*part)

        kept = attributes_kept(self.model, self.query_loss)
        with torch.no_grad(), kept, computable(f"the adapted models' {what}", data):
            return in_chunks(chunk, per_task, self.chunk_size)

    def _check_support(self) -> None:
        """Raise if models normalise by support sets that are not there."""
        if not tree_leaves(self.support) and self._network.norms.by_support:
            got = "models of inner problems that go on, whose support sets are gone"
            fix = "Write learner.adapt(support, 0, start=learner.inner_models)."
            raise invalid("models that normalise by the support set", "have one", got, fix)

    def __getitem__(self, index: int) -> nn.Module:
        """Return one task's adapted model as a plain module of its own, ready to train or save.

        It returns all of the model's output, whatever a learner's `output=` makes of it. Layers
        that normalise by the support set are frozen at its statistics.

        Raises:
            TypeError: If the index is no int.
            IndexError: If there is no such task.
        """
        check_index("index", index, len(self))
        self._check_support()
        model, support = deep_copied(self.model), take(self.support, index)
        for name, tensor in {**below("model", self.shared), **take(self.params, index)}.items():
            set_tensor(model, name, nn.Parameter(tensor.detach().clone()))
        buffers = self._network.norms.buffers(model, support.weight)
        with attributes_kept(model):
            return freeze_at_support(model, lambda: call_model(model, buffers, support.x))


def _check_lengths(what: str, data: PyTree, num_tasks: int) -> None:
    """Raise unless all data have a leading axis of so many tasks."""
    leaves = tree_leaves(data)
    lengths = {len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else None for leaf in leaves}
    if lengths != {num_tasks}:
        fix = "Pass those of the tasks that were adapted to: adapted(episodes.query.x)."
        got = [tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        raise invalid(what, f"be tensors with a leading axis of {num_tasks} tasks", got, fix)
