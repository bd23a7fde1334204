"""The types that the three parts of the library exchange: plain pytrees of tensors."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modules import below, call_model, set_tensor
from metalearn._tasks import map_tasks, num_tasks, take
from metalearn._tree import tree_map

Params: TypeAlias = dict[str, Tensor]
T = TypeVar("T")
PyTree: TypeAlias = Any
"""Any nesting of dicts, lists and (named) tuples with tensors as leaves."""


class Batch(NamedTuple):
    """Examples that are processed together.

    Attributes:
        x: Inputs, a tensor `[num_examples, ...]` or any pytree of such tensors. A dict is passed to the model
            as keyword arguments, anything else as its one positional argument.
        y: Targets, likewise; `()` if there are none.
        weight: Weights `[num_examples]` that reach the criterion as its third argument; `()` if there are none.
    """

    x: PyTree
    y: PyTree = ()
    weight: PyTree = ()

    def to(self, device: torch.device | str) -> "Batch":
        """Return this batch on `device`."""
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
    """

    support_loss: Callable[[Params, Params, Episode, int], Tensor]
    query_loss: Callable[[Params, Params, Episode], Tensor]
    rule: Any
    num_steps: int


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
    """The outcome of adaptation: one task's, or with a leading task axis many tasks'. Detached from any graph.

    `learner.adapt` also fills in what is needed to call the adapted models.

    Attributes:
        params: Adapted parameters, by name.
        shared: Parameters that did not adapt, without a task axis.
        state: The rule's last state.
        support: What was adapted to.
        model: The module that the parameters belong to.
        query_loss: As in `Problem`.
        batching: "vmap" or "loop", how the models are called.
    """

    params: Params
    shared: Params
    state: PyTree
    support: Batch | None = None
    model: nn.Module | None = None
    query_loss: Callable[[Params, Params, Episode], Tensor] | None = None
    batching: str = "vmap"

    def __len__(self) -> int:
        """Return the number of tasks."""
        return num_tasks(self.params)

    def __call__(self, x: PyTree) -> Any:
        """Return each task's adapted model applied to its inputs.

        Args:
            x: Inputs `[num_tasks, num_examples, ...]`.

        Returns:
            Outputs `[num_tasks, num_examples, ...]`.
        """
        model, shared = self._of_learner(self.model), below("model", self.shared)
        with torch.no_grad():
            call = lambda params, x: call_model(model, {**params, **shared}, x)  # noqa: E731
            return map_tasks(call, (self.params, x), self.batching)

    def loss(self, batch: Batch) -> Tensor:
        """Return the query loss of each task's adapted model on its batch, `[num_tasks]`."""
        query_loss = self._of_learner(self.query_loss)

        def loss(params: Params, support: Batch, query: Batch) -> Tensor:
            return query_loss(params, self.shared, Episode(support, query))

        with torch.no_grad():
            return map_tasks(loss, (self.params, self.support, batch), self.batching)

    def _of_learner(self, part: T | None) -> T:
        if part is None:
            fix = "Adapt with learner.adapt(support) instead of a pure function."
            raise TypeError(invalid("Adapted", "come from a learner to be called", "parameters alone", fix))
        return part

    def __getitem__(self, index: int) -> nn.Module:
        """Return one task's adapted model as a plain module of its own, ready to train or save."""
        model = copy.deepcopy(self._of_learner(self.model))
        for name, tensor in {**below("model", self.shared), **take(self.params, index)}.items():
            set_tensor(model, name, nn.Parameter(tensor.detach().clone()))
        return model
