"""The types that the three parts of the library exchange: plain pytrees of tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._attributes import attributes_kept, deep_copied
from metalearn._checks import as_device, check_index, invalid, mistyped
from metalearn._computable import computable
from metalearn._modules import below, call_model, predict, set_tensor
from metalearn._tasks import in_chunks, map_tasks, num_tasks, take
from metalearn._tree import tree_leaves, tree_map
from metalearn.models._batch_norm import Norms
from metalearn.models._batch_statistics import freeze_at_support

__all__ = ["Params", "PyTree", "Batch", "Episode", "Meta", "Problem", "Estimate", "Adapted"]

Params: TypeAlias = dict[str, Tensor]
"""Parameters of a model, by name."""
T = TypeVar("T")
PyTree: TypeAlias = Any
"""Any nesting of dicts, lists and (named) tuples with tensors as leaves."""


class Batch(NamedTuple):
    """Examples that are processed together.

    Attributes:
        x: Inputs, a tensor `[num_examples, ...]` or any pytree of such tensors. A dict is passed to
            the model as keyword arguments, anything else as its one positional argument.
        y: Targets, likewise; `()` if there are none.
        weight: Weights `[num_examples]` that reach the criterion as a further argument; `()` if
            there are none.
    """

    x: PyTree
    y: PyTree = ()
    weight: PyTree = ()

    def to(self, device: torch.device | str) -> "Batch":
        """Return this batch on `device`."""
        device = as_device(device)
        return tree_map(lambda leaf: leaf.to(device), self)


class Episode(NamedTuple):
    """One task's data, or many tasks' with a leading task axis on every tensor.

    Attributes:
        support: What the task is learned from.
        query: What the learned task is judged on.
    """

    support: Batch
    query: Batch

    def to(self, device: torch.device | str) -> "Episode":
        """Return this episode on `device`."""
        return Episode(self.support.to(device), self.query.to(device))


class Meta(NamedTuple):
    """Everything that the outer loop learns, and the type of its gradient.

    Attributes:
        init: Start of all fast parameters, the ones that adapt, by name.
        shared: Parameters that do not adapt, by name.
        rule: The update rule's own meta-parameters, `rule.init_meta(init)`.
    """

    init: Params
    shared: Params
    rule: PyTree


class Problem(NamedTuple):
    """A bilevel problem: what the inner loop minimises and what the outer loop judges.

    Attributes:
        support_loss: `(params, shared, episode, step) -> scalar`, minimised by the rule.
        query_loss: `(params, shared, episode) -> scalar`, of the adapted parameters.
        rule: The `metalearn.inner.UpdateRule`.
        num_steps: Number of inner steps, at least 0.
        constant: Names of the fast parameters whose start is not learned, so that its gradient is
            not asked for.
    """

    support_loss: Callable[[Params, Params, Episode, int], Tensor]
    query_loss: Callable[[Params, Params, Episode], Tensor]
    rule: Any
    num_steps: int
    constant: frozenset[str] = frozenset()

    def of_task(self, key: Tensor) -> "Problem":
        """Return the problem of the task with this random key, by which it draws batches of the
        support set.

        An estimator is given the problem of one task, so that none needs to know of such draws.
        """
        from metalearn.functional import OnSupport  # which imports this module

        loss = self.support_loss
        return (
            self._replace(support_loss=loss.of_task(key)) if isinstance(loss, OnSupport) else self
        )


class Estimate(NamedTuple):
    """What a meta-gradient estimator returns.

    Attributes:
        gradient: Estimated gradient of the query loss, shaped as the `Meta` that it belongs to.
        loss: Query loss of the adapted parameters, scalar.
        carry: What outlives this meta-step; `()` for most estimators.
        diagnostics: Scalars that say how far to trust the estimate, by name.
    """

    gradient: Meta
    loss: Tensor
    carry: PyTree
    diagnostics: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outcome of adaptation: one task's, or with a leading task axis many tasks'.

    `learner.adapt` detaches it from any graph and fills in what is needed to call the adapted
    models.

    Attributes:
        params: Adapted parameters, by name.
        shared: Parameters that did not adapt, without a task axis.
        state: The rule's last state.
        support: What was adapted to.
        model: The module that the parameters belong to.
        query_loss: As in `Problem`.
        batching: "vmap" or "loop", how the models are called.
        chunk_size: Number of tasks called at once; None for all.
    """

    params: Params
    shared: Params
    state: PyTree
    support: Batch | None = None
    model: nn.Module | None = None
    query_loss: Callable[[Params, Params, Episode], Tensor] | None = None
    batching: str = "vmap"
    chunk_size: int | None = None

    def __repr__(self) -> str:
        of = "" if self.model is None else f"{len(self)} tasks, "
        return f"Adapted({of}{len(self.params)} parameter tensors)"

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
            TypeError: If this does not come from a learner.
            ValueError: If the inputs are not of as many tasks.
        """
        model, shared = self._of_learner(self.model), below("model", self.shared)
        norms, query = Norms.of(model), x if isinstance(x, Batch) else Batch(x)

        def call(params: Params, support: Batch, query: Batch) -> Any:
            return predict(model, {**params, **shared}, norms, query, support)

        return self._map(call, "inputs", x, (self.params, self.support, query), self._by_layers)

    def loss(self, batch: Batch) -> Tensor:
        """Return the query loss of each task's adapted model on its batch, `[num_tasks]`.

        Raises:
            TypeError: If this does not come from a learner, or the argument is no batch.
            ValueError: If the batch is not of as many tasks.
        """
        query_loss = self._of_learner(self.query_loss)
        if not isinstance(batch, Batch):
            fix = "Write adapted.loss(episodes.query)."
            raise mistyped("batch", "be a Batch", type(batch).__name__, fix)

        def loss(params: Params, support: Batch, query: Batch) -> Tensor:
            return query_loss(params, self.shared, Episode(support, query))

        def losses(params: Params, support: Batch, query: Batch) -> Any:
            outputs = self._by_layers(params, support, query)
            return (
                None if outputs is None else map_tasks(self._judge, (outputs, query), self.batching)
            )

        return self._map(loss, "batch", batch, (self.params, self.support, batch), losses)

    def judged(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the query losses on a batch, given what the adapted models make of it: `loss`
        without their work.

        A loss of the user's own, which does not tell outputs from their judgement, is computed
        anew.
        """
        if self._model_loss is None:
            return self.loss(batch)
        return self._map(self._judge, "batch", batch, (outputs, batch))

    def _judge(self, outputs: Any, batch: Batch) -> Tensor:
        """Return one task's query loss, given the adapted model's outputs."""
        loss: Tensor = self._model_loss.judge(outputs, batch, self.shared)
        return loss

    def _by_layers(self, params: Params, support: Batch, query: Batch) -> Tensor | None:
        """Return the outputs of all tasks without vmap, if the model's layers are known, or else
        None.
        """
        if self.batching == "loop" or self._model_loss is None:
            return None
        outputs: Tensor | None = self._model_loss.by_layers(
            params, self.shared, query, support=support, of_tasks=True
        )
        return outputs

    @property
    def _model_loss(self) -> Any:
        """The query loss as a `ModelLoss` of the model; None of a loss of the user's own."""
        from metalearn.functional._losses import is_of_model  # which imports this module

        loss = self.query_loss.loss if is_of_model(self.query_loss) else None  # type: ignore[union-attr]
        return loss if loss is not None and loss.model is self.model else None

    def _map(
        self,
        function: Callable[..., Any],
        what: str,
        data: PyTree,
        per_task: tuple[Any, ...],
        of_all: Callable[..., Any] = lambda *part: None,
    ) -> Any:
        """Return a function's results of every task, or what `of_all` returns of all of them if it
        is not None.
        """
        lengths = {
            len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else None
            for leaf in tree_leaves(data)
        }
        if lengths != {len(self)}:
            fix = "Pass those of the tasks that were adapted to: adapted(episodes.query.x)."
            got = [
                tuple(leaf.shape) if isinstance(leaf, Tensor) else leaf
                for leaf in tree_leaves(data)
            ]
            raise invalid(what, f"be tensors with a leading axis of {len(self)} tasks", got, fix)

        def chunk(*part: Any) -> Any:
            results = of_all(*part)
            return map_tasks(function, part, self.batching) if results is None else results

        kept = attributes_kept(self.model, self.query_loss)
        with torch.no_grad(), kept, computable(f"the adapted models' {what}", data):
            return in_chunks(chunk, per_task, self.chunk_size)

    def _of_learner(self, part: T | None) -> T:
        if part is None:
            fix = "Adapt with learner.adapt(support) instead of a pure function."
            raise mistyped("Adapted", "come from a learner to be called", "parameters alone", fix)
        return part

    def __getitem__(self, index: int) -> nn.Module:
        """Return one task's adapted model as a plain module of its own, ready to train or save.

        Layers that normalise by the support set are frozen at its statistics.

        Raises:
            TypeError: If the index is no int, or this does not come from a learner.
            IndexError: If there is no such task.
        """
        check_index("index", index, len(self))
        model, support = (
            deep_copied(self._of_learner(self.model)),
            take(self._of_learner(self.support), index),
        )
        for name, tensor in {**below("model", self.shared), **take(self.params, index)}.items():
            set_tensor(model, name, nn.Parameter(tensor.detach().clone()))
        buffers = Norms.of(model).buffers(model, support.weight)
        with attributes_kept(model):
            return freeze_at_support(model, lambda: call_model(model, buffers, support.x))
