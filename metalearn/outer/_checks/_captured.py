"""Tensors that a function depends on without being given them, which would not be learned."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metalearn._tree import tree_leaves


def captured(compute: Callable[[], Any]) -> tuple[Any, list[Tensor]]:
    """Return the result of `compute`, and the tensors it closes over that require grad.

    Args:
        compute: Returns a pytree, of tensors that do not require grad and of those it closes over;
            called once more if its tensors require grad.
    """
    with torch.enable_grad():
        computed = compute()
        found = _sources(computed)
        # A function may make tensors to differentiate by; those are new at every call.
        again = {id(leaf) for leaf in _sources(compute())} if found else set()
    return computed, [leaf for leaf in found if id(leaf) in again]


def _sources(computed: Any) -> list[Tensor]:
    """Return the leaves of the graph of all tensors in a pytree."""
    tensors = [leaf for leaf in tree_leaves(computed) if getattr(leaf, "requires_grad", False)]
    sources = [tensor for tensor in tensors if tensor.grad_fn is None]
    nodes = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if isinstance(source := getattr(node, "variable", None), Tensor):
            sources.append(source)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return sources
