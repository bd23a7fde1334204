"""The types that the three parts of the library exchange: plain pytrees of tensors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from metalearn._checks import as_device, mistyped
from metalearn._tree import tree_map

__all__ = [
    "Params",
    "PyTree",
    "Batch",
    "Indexed",
    "Episode",
    "Meta",
    "KeyedLoss",
    "Problem",
    "Carry",
    "Estimate",
    "Adapted",
]

Params: TypeAlias = dict[str, Tensor]
"""Parameters of a model, by name."""
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


class Indexed(NamedTuple):
    """Inputs that are held once, and which of the examples every step sees.

    It is the `x` of a support set under `functional.IndexedBatches`.

    Attributes:
        data: Inputs `[num_examples, ...]`, as those of a `Batch`.
        indices: Numbers of examples `[num_steps, batch_size]`, int64.
    """

    data: PyTree
    indices: Tensor


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


class KeyedLoss(ABC):
    """A support loss that is another one in every task, by the task's random key."""

    @abstractmethod
    def of_task(self, key: Tensor) -> Callable[[Params, Params, Episode, int], Tensor]:
        """Return the support loss of the task with this key."""


def learned_init(meta: Meta, support: Batch, key: Tensor) -> Params:
    """Start from what is learned."""
    return meta.init


def afresh(params: Params, state: PyTree) -> tuple[Params, PyTree]:
    """Begin at the start."""
    return params, state


class Problem(NamedTuple):
    """A bilevel problem: what the inner loop minimises and what the outer loop judges.

    Attributes:
        support_loss: `(params, shared, episode, step) -> scalar`, minimised by the rule.
        query_loss: `(params, shared, episode) -> scalar`, of the adapted parameters.
        rule: The `metalearn.inner.UpdateRule`.
        num_steps: Number of inner steps, at least 0.
        constant: Names of the fast parameters whose start is not learned, so that its gradient is
            not asked for.
        start: `(meta, support, key) -> params`, where an inner problem starts: by default at
            `meta.init`. Shaped and named as it.
        resume: `(params, state) -> (params, state)`, from the start and the rule's first state to
            where the inner loop begins: by default there. An inner problem that goes on begins
            where it was.
    """

    support_loss: Callable[[Params, Params, Episode, int], Tensor]
    query_loss: Callable[[Params, Params, Episode], Tensor]
    rule: Any
    num_steps: int
    constant: frozenset[str] = frozenset()
    start: Callable[[Meta, Batch, Tensor], Params] = learned_init
    resume: Callable[[Params, PyTree], tuple[Params, PyTree]] = afresh

    def begin(self, meta: Meta, support: Batch, key: Tensor) -> tuple[Params, PyTree]:
        """Return parameters and the rule's state where the inner loop begins."""
        params = self.start(meta, support, key)
        return self.resume(params, self.rule.init_state(meta.rule, params, key))

    def of_task(self, key: Tensor) -> "Problem":
        """Return the problem of the task with this random key, which draws its batches.

        An estimator is given the problem of one task, so that none needs to know of such draws.
        """
        loss = self.support_loss
        return (
            self._replace(support_loss=loss.of_task(key)) if isinstance(loss, KeyedLoss) else self
        )


class Carry(NamedTuple):
    """What outlives a meta-step.

    Attributes:
        common: What belongs to the learner, such as a count of iterations: the next step is given
            the mean over the tasks that are finite.
        own: What belongs to each inner problem, which the next step goes on with: entry i goes with
            entry i of every meta-batch.
    """

    common: PyTree = ()
    own: PyTree = ()


class Estimate(NamedTuple):
    """What a meta-gradient estimator returns.

    Attributes:
        gradient: Estimated gradient of the query loss, shaped as the `Meta` that it belongs to.
        loss: Query loss of the adapted parameters, scalar.
        carry: What outlives this meta-step, shaped as `init_carry`.
        diagnostics: Scalars that say how far to trust the estimate, by name.
        params: The adapted parameters; `{}` of an estimator that does not say.
        state: The rule's last state, likewise `()`.
    """

    gradient: Meta
    loss: Tensor
    carry: Carry
    diagnostics: dict[str, Tensor]
    params: Params = {}  # noqa: RUF012
    state: PyTree = ()


class Adapted(NamedTuple):
    """The outcome of adaptation to one task.

    Attributes:
        params: Adapted parameters, by name.
        shared: Parameters that did not adapt.
        state: The rule's last state.
    """

    params: Params
    shared: Params
    state: PyTree

    def __call__(self, *_: Any) -> Any:
        """Raise: parameters alone are no model; `learner.adapt` returns some that can be called."""
        fix = "Adapt with learner.adapt(support) instead of a pure function."
        raise mistyped("Adapted", "come from a learner to be called", "parameters alone", fix)
