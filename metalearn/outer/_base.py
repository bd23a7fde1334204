"""The protocol of meta-gradient estimators: how the outer gradient of one task is estimated."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from metalearn import inner
from metalearn._attributes import attributes_kept
from metalearn._checks import check_count, check_function, check_kind
from metalearn.types import Adapted, Batch, Carry, Episode, Estimate, Meta, Params, Problem, PyTree


@dataclass(frozen=True)
class Traits:
    """What a learner may do with an estimator, and what it must ask of a model for it.

    Attributes:
        leafwise: Whether it can be given all tasks at once, without `vmap`: tensors with a leading
            task axis, losses of shape `[num_tasks]`. It must then mix elements of a tensor by the
            problem's losses and rule alone. What tasks share has no task axis, and its gradient is
            the sum over tasks.
        per_task: Whether it needs each task's own gradient to what tasks share, not their sum.
        one_backward: Whether one backward pass differentiates all of a task's losses, so that they
            may share a graph.
        repeats_losses: Whether it computes a loss twice at one point, so that a model that draws
            random numbers goes wrong.
        replays_draws: Whether PyTorch's generators draw the same the second time, in eager mode.
        one_by_one: Whether tasks must be computed in a loop.
        differentiates: Which losses, of "support" and "query", must have derivatives.
        joint: Whether it treats all tasks as one, so that labels must mean the same in all.
        order: How many times losses are differentiated, at most. At 1 models need no second
            derivative.
        anchored: Whether the gradient to `init` holds wherever the inner loop begins, since it is
            drawn to it.
        stepless: Whether it takes problems of no inner step, which a `start=` solves.
    """

    leafwise: bool = False
    per_task: bool = False
    one_backward: bool = False
    repeats_losses: bool = False
    replays_draws: bool = False
    one_by_one: bool = False
    differentiates: frozenset[str] = frozenset({"support", "query"})
    joint: bool = False
    order: int = 2
    anchored: bool = False
    stepless: bool = False


class MetaGradient(ABC):
    """How the gradient of one task's query loss with respect to everything learned is estimated.

    An estimator is a frozen dataclass. It returns gradients instead of a differentiable result, and
    runs under `vmap` over tasks and `torch.compile`. `metalearn.testing.check_meta_gradient` checks
    one of your own.
    """

    @property
    def reaches(self) -> frozenset[str]:
        """Which fields of `Meta` it gives a gradient to; the others must not be learned."""
        return frozenset(Meta._fields)

    @property
    def traits(self) -> Traits:
        """How it may be run."""
        return Traits()

    def check(self, problem: Problem, meta: Meta) -> None:
        """Raise a ValueError for a problem that it is not made for; learners call it when built."""
        return

    def doubts(self, diagnostics: dict[str, Tensor]) -> list[str]:
        """Say why diagnostics forbid to trust an estimate; learners warn at their first call."""
        return []

    def init_carry(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor) -> Carry:
        """Return what outlives a meta-step, at the start of training; nothing by default."""
        return Carry()

    def populate(self, problem: Problem, own: PyTree, places: Tensor) -> PyTree:
        """Return what all inner problems carry of their own at the start of training.

        Args:
            problem: What the inner loop minimises and the outer loop judges.
            own: What `init_carry` returns of each of them, with leading axes of problems.
            places: Their places in the population, i/n for i from 1 to n, of the last of these
                axes.
        """
        return own

    @abstractmethod
    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient.

        Args:
            problem: What the inner loop minimises and the outer loop judges, as
                `problem.of_task(key)`. The inner loop begins at `problem.begin(...)`.
            meta: Where the gradient is taken.
            episode: The task's data.
            key: The task's random key.
            carry: What outlived the last meta-step, shaped as `init_carry`.

        Returns:
            The gradient, zero where it does not reach; the query loss; the next carry; diagnostics.
        """

    def adapt(
        self, problem: Problem, meta: Meta, support: Batch, key: Tensor, num_steps: int
    ) -> Adapted:
        """Adapt to one task's support set as the estimator assumes: by default the inner loop."""
        episode = Episode(support, Batch(()))
        return inner.adapt(problem._replace(num_steps=num_steps), meta, episode, key)


def meta_gradient(
    support_loss: Callable[[Params, Params, Episode, int], Tensor],
    query_loss: Callable[[Params, Params, Episode], Tensor],
    rule: inner.UpdateRule,
    estimator: MetaGradient,
    num_steps: int,
) -> Callable[..., Estimate]:
    """Return one task's meta-gradient as a pure function.

    It is called as `(meta, episode, key, carry=None) -> Estimate`.

    It is what `MetaLearner` vectorises over tasks, for users who compose it themselves.

    Args:
        support_loss: `(params, shared, episode, step) -> scalar`, what the inner loop minimises.
        query_loss: `(params, shared, episode) -> scalar`, what the outer loop judges.
        rule: The update rule.
        estimator: How the gradient is estimated.
        num_steps: Number of inner steps, at least 1.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `num_steps` is below 1.

    >>> import torch
    >>> from metalearn import inner, outer
    >>> from metalearn.types import Batch, Episode, Meta
    >>> def loss(params, shared, batch):
    ...     return (params["w"] * batch.x - batch.y) ** 2
    >>> gradient = meta_gradient(
    ...     lambda params, shared, episode, step: loss(params, shared, episode.support),
    ...     lambda params, shared, episode: loss(params, shared, episode.query),
    ...     inner.SGD(0.01), outer.Unrolled(), num_steps=2)
    >>> meta = Meta({"w": torch.tensor(1.0, dtype=torch.float64)}, {}, {})
    >>> support = Batch(torch.tensor(2.0), torch.tensor(5.0))
    >>> episode = Episode(support, Batch(torch.tensor(4.0), torch.tensor(9.0)))
    >>> round(gradient(meta, episode, torch.tensor(0)).gradient.init["w"].item(), 8)
    -27.61566208
    """
    for what, loss in (("support_loss", support_loss), ("query_loss", query_loss)):
        check_function(what, loss, fix="Write (params, shared, episode, ...) -> scalar.")
    check_kind("rule", rule, inner.UpdateRule, "an update rule", "one: inner.SGD(lr=0.01)")
    check_kind("estimator", estimator, MetaGradient, "an estimator", "one: outer.Unrolled()")
    check_count("num_steps", num_steps)
    problem = Problem(support_loss, query_loss, rule, num_steps)

    def gradient(meta: Meta, episode: Episode, key: Tensor, carry: Carry | None = None) -> Estimate:
        with attributes_kept(support_loss, query_loss):
            if carry is None:
                carry = estimator.init_carry(problem, meta, episode, key)
            return estimator(problem.of_task(key), meta, episode, key, carry)

    return gradient
