"""An update rule, called once: whether it returns what it must."""

from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn._tree import tree_flatten, tree_leaves
from metalearn.outer._checks._captured import captured
from metalearn.types import Meta, Params, Problem


def check_rule(problem: Problem, meta: Meta, key: Tensor) -> Params:
    """Call the update rule once on gradients of zero, and return its updates.

    Raises:
        TypeError: If it does not return a dict of updates and the next state.
        ValueError: If the updates are not named and shaped as the parameters, the state changes its
            structure, or the rule depends on a parameter of its own that is not in `init_meta`.
    """
    zeros = {name: torch.zeros_like(param) for name, param in meta.init.items()}
    loss = key.new_zeros((), dtype=torch.float)

    def update() -> Any:
        state = problem.rule.init_state(meta.rule, meta.init, key)
        return problem.rule.update(meta.rule, zeros, state, meta.init, loss, 0), state

    (returned, state), foreign = captured(update)
    what = f"update of {problem.rule}"
    if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], dict)):
        fix = "Write `return updates, state`."
        raise mistyped(
            what, "return a dict of updates and the next state", type(returned).__name__, fix
        )
    wanted, got = (
        {name: tuple(leaf.shape) for name, leaf in tree.items()}
        for tree in (meta.init, returned[0])
    )
    if wanted != got:
        fix = "Return {name: ... for name, grad in grads.items()}."
        raise invalid(what, f"be named and shaped as the parameters, {wanted}", got, fix)
    if wrong := [leaf for leaf in tree_leaves(returned[1]) if not isinstance(leaf, Tensor)]:
        fix = "Write param.new_tensor(0.0), say."
        raise mistyped(
            f"state of {problem.rule}", "be a pytree of tensors", f"{brief(wrong[0])} in it", fix
        )
    if tree_flatten(returned[1])[1] != tree_flatten(state)[1]:
        fix = "Return the state as init_state shapes it."
        got_spec = tree_flatten(returned[1])[1]
        raise invalid(f"state of {problem.rule}", "keep its structure", got_spec, fix)
    if foreign:
        own = f"one of shape {tuple(foreign[0].shape)}, which nothing would learn"
        fix = "Return it from init_meta and take it from meta, or detach it."
        raise invalid(
            type(problem.rule).__name__, "hold no parameters but those of init_meta", own, fix
        )
    return returned[0]
