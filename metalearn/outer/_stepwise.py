"""Reverse mode one inner step at a time: the gradient of `Unrolled` without its memory."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalearn import inner
from metalearn._derivatives import grad_and_value, vjp
from metalearn._tree import tree_add, tree_zeros_like
from metalearn.outer._reverse_mode import ReverseMode
from metalearn.types import Episode, Estimate, Meta, Params, Problem, PyTree


class _Record(NamedTuple):
    """What the backward pass needs of one inner step."""

    step: int
    params: Params
    state: PyTree
    grads: Params
    loss: Tensor
    query_bar: Params | None


@dataclass(frozen=True)
class Stepwise(ReverseMode):
    """The exact gradient, computed one inner step at a time. Memory grows with steps times parameters only.

    The forward pass keeps parameters, rule state, gradients and loss of every step. The backward pass pulls the
    cotangent back through `rule.update`, without the model in it, and then through the map from parameters to
    gradient with one Hessian-vector product.

    Args:
        order: 2 is exact; 1 takes support gradients and losses as constants.
        truncate: Number of last steps to differentiate, at least 0; the gradient before them is passed to `init`
            unchanged. None for all.
        multi_step: Weights of the query losses after each step, `MultiStep()`; None for the last one alone.

    References:
        Franceschi et al., "Forward and reverse gradient-based hyperparameter optimization", ICML 2017 (eqs. 6-7).
    """

    repeats_losses = True

    @property
    def leafwise(self) -> bool:
        """Yes, but nothing is known of subclasses."""
        return type(self) is Stepwise

    def __call__(self, problem: Problem, meta: Meta, episode: Episode, key: Tensor, carry: PyTree) -> Estimate:
        """Estimate one task's meta-gradient."""
        cut = self.num_constant(problem.num_steps)

        def start(rule: PyTree, init: Params) -> Any:  # torch.compile cannot evaluate a tuple[...] here
            return problem.rule.init_state(rule, init, key), init

        (state, params), pull_start = vjp(start, meta.rule, meta.init)
        weights, next_carry = self.weights(carry, problem.num_steps)
        records, losses = [], []
        shared_bar, passed_bar = tree_zeros_like(meta.shared), tree_zeros_like(meta.init)
        for step, weight in enumerate(weights):
            before, query_bar = (params, state), None
            params, state, grads, loss = inner.step(problem, meta, params, state, episode, step)
            if weight is not None:
                (query_bar, more_shared), value = _weighted(problem, weight, params, meta.shared, episode)
                losses.append(value)
                shared_bar = tree_add(shared_bar, more_shared)
            if step >= cut:
                records.append(_Record(step, *before, grads, loss, query_bar))
            elif query_bar is not None:
                passed_bar = tree_add(passed_bar, query_bar)

        params_bar, state_bar, rule_bar = (tree_zeros_like(tree) for tree in (params, state, meta.rule))
        while records:
            record = records.pop()
            if record.query_bar is not None:
                params_bar = tree_add(params_bar, record.query_bar)
            pulled = _pull_back(problem, meta, episode, record, params_bar, state_bar, self.order)
            params_bar, state_bar, more_shared, more_rule = pulled
            shared_bar, rule_bar = tree_add(shared_bar, more_shared), tree_add(rule_bar, more_rule)
        if cut:
            state_bar = tree_zeros_like(state_bar)
        start_rule_bar, init_bar = pull_start((state_bar, tree_add(params_bar, passed_bar)))
        gradient = Meta(init_bar, shared_bar, tree_add(rule_bar, start_rule_bar))
        return Estimate(gradient, torch.stack(losses).sum(0), next_carry, {})


def _weighted(problem: Problem, weight: Tensor | float, params: Params, shared: Params, episode: Episode) -> Any:
    """Return gradients to params and shared, and value, of the query loss times its weight."""

    def loss(params: Params, shared: Params) -> Tensor:
        return weight * problem.query_loss(params, shared, episode)

    return grad_and_value(loss, argnums=(0, 1))(params, shared)


def _pull_back(
    problem: Problem,
    meta: Meta,
    episode: Episode,
    record: _Record,
    params_bar: Params,
    state_bar: PyTree,
    order: int,
) -> tuple[Params, PyTree, Params, PyTree]:
    """Pull the cotangent of one step's result back to (params, state, shared, rule)."""

    def update(rule: PyTree, grads: Params, state: PyTree, params: Params, loss: Tensor) -> Any:
        updates, state = problem.rule.update(rule, grads, state, params, loss, record.step)
        return tree_add(params, updates), state

    def gradient(params: Params, shared: Params) -> Any:
        return grad_and_value(problem.support_loss)(params, shared, episode, record.step)

    _, pull_update = vjp(update, meta.rule, record.grads, record.state, record.params, record.loss)
    rule_bar, grads_bar, state_bar, params_bar, loss_bar = pull_update((params_bar, state_bar))
    if order == 1:
        return params_bar, state_bar, tree_zeros_like(meta.shared), rule_bar
    _, pull_gradient = vjp(gradient, record.params, meta.shared)
    more_params_bar, shared_bar = pull_gradient((grads_bar, loss_bar))
    return tree_add(params_bar, more_params_bar), state_bar, shared_bar, rule_bar
