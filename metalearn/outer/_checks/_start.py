"""What is refused of where inner problems start, and of models that go on."""

from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid, mistyped
from metalearn._tree import tree_map
from metalearn.outer._adapted import AdaptedModels
from metalearn.outer._checks._named import in_losses, shapes
from metalearn.types import Batch, Meta, Params, Problem


def check_start(start: Any, meta: Meta) -> None:
    """Raise unless a start is named, shaped and typed as what adapts."""
    fix = "Return {name: ... for name, param in meta.init.items()}."
    if not isinstance(start, dict) or not all(isinstance(leaf, Tensor) for leaf in start.values()):
        raise mistyped("start", "return a dict of tensors", type(start).__name__, fix)
    if (got := shapes(start)) != (wanted := shapes(meta.init)):
        raise invalid("start", f"return parameters of shapes {wanted}", got, fix)
    dtypes = {name: (leaf.dtype, meta.init[name].dtype) for name, leaf in start.items()}
    if other := {name: pair for name, pair in dtypes.items() if pair[0] != pair[1]}:
        name, (got_dtype, wanted_dtype) = next(iter(other.items()))
        fix = f"Write functional.normal(key, shape, dtype={wanted_dtype}), say."
        raise invalid(f"start's {name}", f"be of {wanted_dtype}", got_dtype, fix)


def reached_by_start(problem: Problem, meta: Meta, support: Batch, key: Tensor) -> set[str]:
    """Return the learner's names of what a start of the user's own depends on."""
    init, shared = tree_map(lambda leaf: leaf.detach().requires_grad_(), (meta.init, meta.shared))
    leaves = in_losses(Meta(init, shared, {}))
    with torch.enable_grad():
        params: Params = problem.start(Meta(init, shared, meta.rule), support, key)
        sums = [leaf.sum() for leaf in params.values() if leaf.requires_grad]
        if not sums:
            return set()
        total = torch.stack(sums).sum()
        grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {name for name, grad in zip(leaves, grads, strict=True) if grad is not None}


def check_models(models: Any, num_tasks: int, meta: Meta, problem: Problem, key: Tensor) -> None:
    """Raise unless models can go on: of as many tasks, of these parameters and this rule."""
    example = "learner.adapt(support), or learner.inner_models"
    if not isinstance(models, AdaptedModels):
        got, fix = type(models).__name__, f"Pass {example}."
        raise mistyped("models to go on from", "be adapted models", got, fix)
    if len(models) != num_tasks:
        fix = "Pass the models of these tasks, in their order."
        raise invalid("models to go on from", f"be those of {num_tasks} tasks", len(models), fix)
    state = problem.rule.init_state(meta.rule, meta.init, key)
    for what, tree, like in (
        ("parameters", models.params, meta.init),
        ("state of its rule", models.state, state),
    ):
        wanted = {name: (num_tasks, *(shape or ())) for name, shape in shapes(like).items()}
        if (found := shapes(tree)) != wanted:
            fix = f"Pass models of this learner: {example}."
            raise invalid(f"{what} to go on from", f"be of shapes {wanted}", found, fix)
    for name, param in models.params.items():
        wanted_kind = meta.init[name].dtype, meta.init[name].device
        if (got_kind := (param.dtype, param.device)) != wanted_kind:
            fix = "Adapt again, with the learner as it is now."
            raise invalid(
                f"{name} to go on from", f"be as the learner's, {wanted_kind}", got_kind, fix
            )
