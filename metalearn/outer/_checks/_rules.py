"""What an update rule returns, checked by one call."""

from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn._random import random_numbers_kept
from metalearn._tree import tree_flatten, tree_leaves, tree_map, tree_zeros_like
from metalearn.inner import UpdateRule
from metalearn.outer._checks._captured import captured
from metalearn.outer._checks._named import shapes
from metalearn.types import Meta, Params, Problem


def check_rule(problem: Problem, meta: Meta, key: Tensor) -> Params:
    """Call the update rule once on gradients of zero, and return its updates.

    Raises:
        TypeError: If it does not return a dict of updates and the next state, of tensors.
        ValueError: If the updates are not named and shaped as the parameters, the state changes its
            structure, or the rule depends on a parameter of its own that is not in `init_meta`.
    """
    rule, zeros = problem.rule, tree_zeros_like(meta.init)
    loss = key.new_zeros((), dtype=torch.float)

    def update() -> Any:
        state = rule.init_state(meta.rule, meta.init, key)
        return rule.update(meta.rule, zeros, state, meta.init, loss, 0), state

    (returned, state), foreign = captured(update)
    what, of_state = f"update of {rule}", f"state of {rule}"
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], dict)):
        condition, fix = (
            "return a dict of updates and the next state",
            "Write `return updates, state`.",
        )
        raise mistyped(what, condition, type(returned).__name__, fix)
    updates, following = returned
    if (wanted := shapes(meta.init)) != (got := shapes(updates)):
        fix = "Return {name: ... for name, grad in grads.items()}."
        raise invalid(what, f"be named and shaped as the parameters, {wanted}", got, fix)
    if wrong := [leaf for leaf in tree_leaves(following) if not isinstance(leaf, Tensor)]:
        fix = "Write param.new_tensor(0.0), say."
        raise mistyped(of_state, "be a pytree of tensors", f"{brief(wrong[0])} in it", fix)
    if (structure := tree_flatten(following)[1]) != tree_flatten(state)[1]:
        fix = "Return the state as init_state shapes it."
        raise invalid(of_state, "keep its structure", structure, fix)
    if foreign:
        own = f"one of shape {tuple(foreign[0].shape)}, which nothing would learn"
        condition = "hold no parameters but those of init_meta"
        fix = "Return it from init_meta and take it from meta, or detach it."
        raise invalid(type(rule).__name__, condition, own, fix)
    if type(rule).advance is not UpdateRule.advance:
        _check_advance(rule, meta, loss, state)
    return updates


def _check_advance(rule: UpdateRule, meta: Meta, loss: Tensor, state: Any) -> None:
    """Raise unless a rule's own `advance` is its update, added to the parameters."""
    grads = tree_map(torch.ones_like, meta.init)
    seen = meta.rule, grads, state, meta.init, loss, 0
    with random_numbers_kept(loss.device):
        expected = UpdateRule.advance(rule, *seen)[0]
    with random_numbers_kept(loss.device):
        params = rule.advance(*seen)[0]
    fix = "Return new parameters of all names, or leave advance out."
    if (wanted := shapes(expected)) != (got := shapes(params)):
        raise invalid(f"advance of {rule}", f"return parameters {wanted}", got, fix)
    if not all(_are_close(params[name], expected[name]) for name in expected):
        raise invalid(f"advance of {rule}", "add the rule's update", "other parameters", fix)


def _are_close(left: Tensor, right: Tensor) -> bool:
    """Return whether tensors differ by rounding, with NaN in the same places."""
    tolerance = torch.finfo(right.dtype).eps ** 0.5
    return torch.allclose(left, right, tolerance, tolerance, equal_nan=True)
