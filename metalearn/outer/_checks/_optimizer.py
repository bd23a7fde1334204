"""What is asked of optimizers: by training, and by steps that are compiled with theirs."""

from typing import Any

import torch

from metalearn._brief import brief
from metalearn._checks import check_positive, invalid, mistyped
from metalearn._tree import tree_leaves
from metalearn.outer._capture import has_hooks
from metalearn.outer._optimizers import KINDS

NOT_ELEMENTWISE = {"LBFGS", "Adafactor", "Muon", "Shampoo", "SOAP", "LAMB", "LARS"}
"""Optimizers, of PyTorch and others, that mix the elements of a tensor."""
BY_HAND = "Write optimizer.zero_grad(), learner(episodes).backward() and optimizer.step()."


def check_optimizer(learner: Any, optimizer: Any, is_of_replicas: bool) -> None:
    """Raise unless the optimizer holds all that is learned and keeps replicas apart."""
    fix = "Write torch.optim.Adam(learner.parameters(), lr=1e-3), say."
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise mistyped("optimizer", "be a torch.optim.Optimizer", brief(optimizer), fix)
    if is_of_replicas and type(optimizer).__name__ in NOT_ELEMENTWISE:
        condition = "work on each element by itself, or replicas would influence one another"
        raise invalid("optimizer of replicas", condition, type(optimizer).__name__, fix)
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    learned = {name: id(param) for name, param in learner.named_parameters() if param.requires_grad}
    if not learned:
        fix = "There is nothing to fit: evaluate(learner, tasks, num_tasks=600)."
        raise invalid("learner", "have something to learn", "no parameter that requires grad", fix)
    if left_out := [name for name, param in learned.items() if param not in held]:
        condition, got = "hold all of the learner's parameters", f"one without {left_out}"
        fix += " Call .requires_grad_(False) on what shall not be learned."
        raise invalid("optimizer", condition, got, fix)


def check_can_be_compiled(learner: Any, inside: Any, optimizer: Any, max_grad_norm: Any) -> None:
    """Raise unless a graph can hold the optimizer's step, and nothing else is to happen in it.

    Args:
        learner: The learner, or replicas.
        inside: The learner, or that of the replicas.
        optimizer: The optimizer.
        max_grad_norm: Bound on the gradient's norm; None for none.
    """
    check_optimizer(learner, optimizer, is_of_replicas=learner is not inside)
    if max_grad_norm is not None:
        check_positive("max_grad_norm", max_grad_norm)
    what = "optimizer of a compiled step"
    if type(optimizer) not in KINDS:
        got = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
        raise invalid(what, "be SGD, Adam or AdamW of torch.optim", got, BY_HAND)
    meta = [leaf for leaf in tree_leaves(inside.meta) if leaf.requires_grad]
    if len({id(leaf) for leaf in meta}) < len(meta):
        got = "a tensor that is learned in two places, as of one module for two criteria"
        raise invalid("learner of a compiled step", "hold what is learned once", got, BY_HAND)
    if has_hooks(optimizer):
        got = "hooks on its steps or on gradients"
        raise invalid(what, "have no hooks, which would not run", got, BY_HAND)
    if learner.cuda_graph:
        fix = "Call set_batching again, without cuda_graph."
        raise invalid("learner of a compiled step", "record nothing", "cuda_graph=True", fix)
    _check_groups(what, learner, optimizer)


def _check_groups(what: str, learner: Any, optimizer: torch.optim.Optimizer) -> None:
    own = {id(param) for param in learner.parameters()}
    for group in optimizer.param_groups:
        for name, value in KINDS[type(optimizer)].refused.items():
            if group[name] != value:
                raise invalid(what, f"have {name}={value}", group[name], BY_HAND)
        for param in group["params"]:
            if param.is_complex():
                raise invalid(what, "hold real parameters", param.dtype, BY_HAND)
            if param.requires_grad and id(param) not in own:
                got = f"another, of shape {tuple(param.shape)}"
                raise invalid(what, "hold the learner's parameters alone", got, BY_HAND)
