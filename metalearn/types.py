"""The types that the three parts of the library exchange: plain pytrees of tensors."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from metalearn._tree import tree_map

Params: TypeAlias = dict[str, Tensor]
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
        return tree_map(lambda leaf: leaf.to(device, non_blocking=True), self)


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
