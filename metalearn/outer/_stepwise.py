"""Reverse mode one inner step at a time: the gradient of `Unrolled` without its memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from metalearn import inner
from metalearn._fields import CountOrNone
from metalearn._tree import tree_add, tree_zeros_like
from metalearn.functional import grad_and_value, vjp
from metalearn.outer._base import Traits
from metalearn.outer._reverse_mode import ReverseMode
from metalearn.types import Carry, Episode, Estimate, Meta, Params, Problem, PyTree


class _Record(NamedTuple):
    """What the backward pass needs of one inner step.

    Attributes:
        step: Its number.
        params: Parameters before it.
        state: The rule's state before it.
        constants: Gradient and loss, where they are constants; else the Hessian-vector product
            computes them anyway.
    """

    step: int
    params: Params
    state: PyTree
    constants: tuple[Params, Tensor] | None


@dataclass(frozen=True)
class Stepwise(ReverseMode):
    """The exact gradient, computed one inner step at a time. Memory grows with steps times
    parameters only.

    The forward pass keeps every step's parameters and rule state, at order 1 its gradient and loss
    too. At order 2 the backward pass computes the gradient again, pulls the cotangent back through
    `rule.update`, without the model in it, and then through the map from parameters to gradient
    with one Hessian-vector product.

    Args:
        order: 2 is exact; 1 takes support gradients and losses as constants.
        truncate: Number of last steps to differentiate, at least 0; the gradient before them is
            passed to `init` unchanged. None, or as many as there are, for all.
        multi_step: Weights of the query losses after each step, `MultiStep()`; None for the last
            one alone.
        segment: Number of steps, at least 1, of which only the start is kept until the backward
            pass computes them again: memory grows with num_steps / segment + segment copies of the
            parameters, in place of num_steps. None keeps all.

    Raises:
        TypeError: If `segment` is no int, and as `Unrolled`.
        ValueError: If `segment` is below 1, and as `Unrolled`.

    References:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter optimization", ICML
        2017 (eqs. 6-7). Chen et al., "Training deep nets with sublinear memory cost", arXiv 2016
        (segments).
    """

    segment: Annotated[CountOrNone, "None keeps all steps."] = None

    @property
    def traits(self) -> Traits:
        """All tasks at once, but nothing is known of subclasses; losses twice."""
        return Traits(leafwise=type(self) is Stepwise, repeats_losses=True)

    def __call__(
        self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: Carry
    ) -> Estimate:
        """Estimate one task's meta-gradient."""

        # torch.compile cannot evaluate a tuple[...] here
        def start(rule: PyTree, init: Params) -> Any:
            return problem.rule.init_state(rule, init, key), init

        (state, params), pull_start = vjp(start, meta.rule, meta.init)
        weights, next_carry = self.weights(carry, problem.num_steps)
        cut = self.num_constant(problem.num_steps)
        run = partial(_run, problem, meta, episode, self.order)
        judge = partial(_judge, problem, meta.shared, episode)
        losses: list[Tensor] = []
        shared_bar, passed_bar = tree_zeros_like(meta.shared), tree_zeros_like(meta.init)

        for step in range(cut):
            _, params, state = run(params, state, [step])
            passed_bar, shared_bar = judge(weights[step], params, (passed_bar, shared_bar), losses)
        records: list[_Record] = []
        kept, size = [], self.segment or problem.num_steps
        for first in range(cut, problem.num_steps, size):
            steps = range(first, min(first + size, problem.num_steps))
            kept.append((params, state, steps))
            records.clear()  # before the next are made
            records, params, state = run(params, state, steps)

        params_bar, state_bar, rule_bar = (
            tree_zeros_like(tree) for tree in (params, state, meta.rule)
        )
        while kept:
            at = kept.pop()
            records = records or run(*at)[0]
            while records:
                record = records.pop()
                params_bar, shared_bar = judge(
                    weights[record.step], params, (params_bar, shared_bar), losses
                )
                pulled = _pull_back(problem, meta, episode, record, params_bar, state_bar)
                params, (params_bar, state_bar, more_shared, more_rule) = record.params, pulled
                shared_bar, rule_bar = (
                    tree_add(shared_bar, more_shared),
                    tree_add(rule_bar, more_rule),
                )
        if cut:
            state_bar = tree_zeros_like(state_bar)
        start_rule_bar, init_bar = pull_start((state_bar, tree_add(params_bar, passed_bar)))
        gradient = Meta(init_bar, shared_bar, tree_add(rule_bar, start_rule_bar))
        return Estimate(gradient, torch.stack(losses).sum(0), next_carry, {})


def _run(
    problem: Problem,
    meta: Meta,
    episode: Episode,
    order: int,
    params: Params,
    state: PyTree,
    steps: Iterable[int],
) -> tuple[list[_Record], Params, PyTree]:
    """Take inner steps, and return their records beside the parameters and the state after them."""
    records = []
    for step in steps:
        before = params, state
        params, state, grads, loss = inner.step(problem, meta, params, state, episode, step)
        records.append(_Record(step, *before, (grads, loss) if order == 1 else None))
    return records, params, state


def _judge(
    problem: Problem,
    shared: Params,
    episode: Episode,
    weight: Tensor | float | None,
    params: Params,
    bars: tuple[Params, Params],
    losses: list[Tensor],
) -> tuple[Params, Params]:
    """Return gradients to params and shared with those of the weighted query loss added, and append
    its value.
    """
    if weight is None:
        return bars

    def loss(params: Params, shared: Params) -> Tensor:
        return weight * problem.query_loss(params, shared, episode)

    more, value = grad_and_value(loss, argnums=(0, 1))(params, shared)
    losses.append(value)
    return tree_add(bars, more)


def _pull_back(
    problem: Problem,
    meta: Meta,
    episode: Episode,
    record: _Record,
    params_bar: Params,
    state_bar: PyTree,
) -> tuple[Params, PyTree, Params, PyTree]:
    """Pull the cotangent of one step's result back to (params, state, shared, rule)."""

    def gradient(params: Params, shared: Params) -> Any:
        return grad_and_value(problem.support_loss)(params, shared, episode, record.step)

    update = partial(problem.rule.advance, step=record.step)
    if record.constants:
        grads, loss = record.constants
    else:
        (grads, loss), pull_gradient = vjp(gradient, record.params, meta.shared)
    _, pull_update = vjp(update, meta.rule, grads, record.state, record.params, loss)
    rule_bar, grads_bar, state_bar, params_bar, loss_bar = pull_update((params_bar, state_bar))
    if record.constants:
        return params_bar, state_bar, tree_zeros_like(meta.shared), rule_bar
    more_params_bar, shared_bar = pull_gradient((grads_bar, loss_bar))
    return tree_add(params_bar, more_params_bar), state_bar, shared_bar, rule_bar
