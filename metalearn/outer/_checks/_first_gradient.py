"""What is wrong with the first task's meta-gradient, computed once, that losses do not show."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid, mistyped
from metalearn._random import generator_states, random_numbers_kept
from metalearn._tree import tree_detach, tree_leaves, tree_map, tree_names
from metalearn.outer._base import MetaGradient
from metalearn.outer._checks._derivative_errors import derivatives_explained
from metalearn.outer._checks._named import any_key, in_losses, in_model, shape, shapes
from metalearn.outer._checks._rules import check_rule
from metalearn.outer._checks._second_derivatives import (
    check_second_derivatives,
    differentiated_twice,
)
from metalearn.outer._checks._start import reached_by_start
from metalearn.outer._reverse_mode import ReverseMode
from metalearn.outer._wrapper import unwrapped
from metalearn.types import Episode, Estimate, Meta, Params, Problem, PyTree, learned_init


@torch.no_grad()
def check_gradient(learner: Any, episode: Episode) -> None:
    """Estimate one task's meta-gradient eagerly.

    Raises:
        ValueError: If a learned parameter gets no gradient, a constant requires grad, the model
            draws random numbers under an estimator that computes a loss twice, or has a function of
            autograd that can be differentiated once under one that differentiates twice.
    """
    _check_constants(learner)
    estimator, meta, key = learner.estimator, tree_detach(learner.meta), any_key(learner.device)
    problem = learner.problem.of_task(key)
    with random_numbers_kept(key.device):
        check_rule(problem, meta, key)
        unused = _unused(problem, estimator, meta, episode)
        if problem.start is not learned_init:
            reached = reached_by_start(problem, meta, episode.support, key)
            unused = {name: _unused_from(reached, meta, names) for name, names in unused.items()}
        before = generator_states(key.device)
        with derivatives_explained("second"):
            carry = estimator.init_carry(problem, meta, episode, key)
            estimate = estimator(problem, meta, episode, key, carry)
        _check_estimate(estimator, meta, carry, estimate)
        after = generator_states(key.device)
    for doubt in estimator.doubts(estimate.diagnostics):
        warnings.warn(doubt, stacklevel=2)
    of_torch, of_others = (one != other for one, other in zip(before, after, strict=True))
    if of_torch or of_others:
        _check_repeatable(learner, of_others)
    fix = "Call .requires_grad_(False) on them before building the learner"
    fix += ", or use them in the model."
    nowhere = unused["support"] & unused["query"]
    if problem.start is not learned_init:
        nowhere -= in_model(problem.constant)
        fix = "Write learn_init=False, or use them in start."
    if nowhere:
        raise invalid("learned parameters", "get a gradient", f"none for {sorted(nowhere)}", fix)
    reverse = unwrapped(estimator)
    if isinstance(reverse, ReverseMode) and (reverse.order == 1 or reverse.truncate is not None):
        with random_numbers_kept(key.device):
            _check_limited(problem, reverse, meta, key, unused["query"])


def _unused_from(reached: set[str], meta: Meta, unused: set[str]) -> set[str]:
    """Return what a loss does not depend on at a start that depends on `reached`.

    A learned initialisation acts through the start alone.
    """
    return (unused - reached) | (in_model(meta.init) - reached)


def _check_repeatable(learner: Any, is_of_others: bool) -> None:
    """Raise if losses draw that are computed twice, and would draw other numbers then."""
    traits = learner.estimator.traits
    if not traits.repeats_losses:
        return
    fix = "Use estimator=outer.Unrolled(), or switch dropout off with learner.eval()."
    got = "random draws in its forward pass"
    if traits.replays_draws:
        is_eager = learner.compile_options is False and not learner.cuda_graph
        if is_eager and not is_of_others:
            return
        if is_of_others:
            got, fix = f"{got} from NumPy or Python", "Draw by PyTorch: torch.rand(()), say."
        else:
            got = f"{got}, which a graph does not repeat"
            fix = f"Call learner.set_batching({learner.batching!r}), without compile or cuda_graph"
            fix += ", or use estimator=outer.Unrolled()."
    raise invalid(f"model under {learner.estimator}", "compute the same loss twice", got, fix)


def _check_constants(learner: Any) -> None:
    """Raise if a parameter requires grad that did not when the learner was built."""
    learned = {id(leaf) for leaf in tree_leaves(learner.meta)}
    wanted = {name: param for name, param in learner.named_parameters() if param.requires_grad}
    if constants := [name for name, param in wanted.items() if id(param) not in learned]:
        fix = "Call .requires_grad_(True) before you build the learner"
        fix += ", or .requires_grad_(False) now."
        raise invalid("constants of the learner", "not require grad", constants, fix)


def _check_limited(
    problem: Problem, estimator: ReverseMode, meta: Meta, key: Tensor, not_in_query: set[str]
) -> None:
    """Raise if an order of 1 or a truncation cuts something learned off from the query loss."""
    num_constant = estimator.num_constant(problem.num_steps)
    unreached: set[str] = set()
    if num_constant:
        unreached = _unreached_in_rule(problem, meta, key, num_constant)
        # What no step depends on gets no gradient without a truncation either.
        unreached -= _unreached_in_rule(problem, meta, key, 0)
    if estimator.order == 1 or num_constant == problem.num_steps:
        unreached |= not_in_query - in_model(problem.constant)
    if unreached:
        got = f"none for {sorted(unreached)}, which act through the rest of the inner loop alone"
        fix = f"Use outer.{type(estimator).__name__}(), of order 2 and not truncated."
        raise invalid(f"{estimator}", "give all that is learned a gradient", got, fix)


def _unreached_in_rule(problem: Problem, meta: Meta, key: Tensor, num_constant: int) -> set[str]:
    """Return the rule's meta-parameters on which no update after `num_constant` steps depends."""
    of_rule = _differentiable(meta.rule)
    paths = [f"rule.{path}" for path in tree_names(of_rule)]
    if not paths:
        return set()
    grads, loss = tree_map(torch.ones_like, meta.init), key.new_zeros((), dtype=torch.float)
    with torch.enable_grad():
        total, state = loss, problem.rule.init_state(of_rule, meta.init, key)
        for step in range(problem.num_steps):
            updates, state = problem.rule.update(of_rule, grads, state, meta.init, loss, step)
            if step < num_constant:
                state = tree_detach(state)
            else:
                total = total + sum(update.sum() for update in updates.values())
    return _unreached(total, dict(zip(paths, tree_leaves(of_rule), strict=True)))


def _differentiable(tree: Any) -> Any:
    """Return a tree of the same numbers, to differentiate by."""
    return tree_map(lambda leaf: leaf.detach().requires_grad_(), tree)


def _check_estimate(estimator: MetaGradient, meta: Meta, carry: PyTree, estimate: Any) -> None:
    """Raise unless an estimator returned an `Estimate` with the shapes of `meta` and `carry`."""
    if not (isinstance(estimate, Estimate) and isinstance(estimate.gradient, Meta)):
        fix = "Write Estimate(Meta(init, shared, rule), loss, carry, {})."
        raise mistyped(f"{estimator}", "return an Estimate of a Meta", type(estimate).__name__, fix)
    for field, gradient, learned in zip(Meta._fields, estimate.gradient, meta, strict=True):
        if (wanted := shapes(learned)) != (got := shapes(gradient)):
            fix = "Return torch.zeros_like of what it does not reach."
            raise invalid(f"gradient to {field} of {estimator}", f"be of shapes {wanted}", got, fix)
    if (wanted := shapes(carry)) != (got := shapes(estimate.carry)):
        fix = "Define init_carry to return what the first call is given."
        raise invalid(f"carry of {estimator}", f"be shaped as its init_carry, {wanted}", got, fix)
    if wrong := {name: leaf for name, leaf in estimate.diagnostics.items() if shape(leaf) != ()}:
        fix = "Write loss.new_tensor(3.0), say."
        raise mistyped(f"diagnostics of {estimator}", "be scalar tensors", wrong, fix)


def _unused(
    problem: Problem, estimator: MetaGradient, meta: Meta, episode: Episode
) -> dict[str, set[str]]:
    """Return by set the learned parameters that its loss does not depend on.

    Of a loss that needs no derivative nothing is known.

    Raises:
        ValueError: If the support loss needs a derivative, or one of its gradient, and has none.
    """
    init, shared = _differentiable((meta.init, meta.shared))
    leaves = in_losses(Meta(init, shared, {}))
    unused: dict[str, set[str]] = {"support": set(), "query": set()}
    with torch.enable_grad(), derivatives_explained("first"):
        if not problem.num_steps:
            unused["support"] = set(leaves)
        elif "support" in estimator.traits.differentiates:
            steps = range(problem.num_steps)  # of which each may have a loss of its own
            losses = (problem.support_loss(init, shared, episode, step) for step in steps)
            at = differentiated_twice(estimator, init, shared)
            unused["support"] = set.intersection(*(_unreached(loss, leaves, at) for loss in losses))
            if unused["support"] >= in_model(init):
                got = "none for any parameter that adapts"
                fix = "Use the model's output in it"
                fix += ", or estimator=outer.EvolutionStrategies(inner=True)."
                raise invalid("support loss", "have a derivative", got, fix)
        if "query" in estimator.traits.differentiates:
            unused["query"] = _unreached(problem.query_loss(init, shared, episode), leaves)
    return unused


def _unreached(loss: Tensor, leaves: Params, twice: Sequence[Tensor] = ()) -> set[str]:
    """Return the names that a loss has no gradient for, nor for another name of the same tensor.

    Raises:
        ValueError: If its gradient with respect to what is differentiated `twice` has none.
    """
    if not loss.requires_grad:
        return set(leaves)
    check_second_derivatives(loss, twice)
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    found = {name: grad for name, grad in zip(leaves, grads, strict=True) if grad is not None}
    if sparse := [name for name, grad in found.items() if grad.layout != torch.strided]:
        got = f"sparse ones of {sparse}"
        raise invalid("model", "have dense gradients", got, "Write sparse=False.")
    reached = {_place(leaves[name]) for name in found}
    return {name for name, leaf in leaves.items() if _place(leaf) not in reached}


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """Return what tensors that share their memory agree on."""
    return tensor.data_ptr(), tensor.shape, tensor.stride()
