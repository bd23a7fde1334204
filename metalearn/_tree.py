"""Pytrees: PyTorch's functions, faster where they are hot, and arithmetic."""

from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils import _pytree

tree_flatten, tree_unflatten = _pytree.tree_flatten, _pytree.tree_unflatten

LEAVES = (Tensor, str, int, float)
"""Types of leaves that need no look-up: PyTorch's functions take a quarter of an eager meta-step's
time."""
EXACT = {*LEAVES, nn.Parameter}
"""Those that most leaves are of exactly, which a set tells faster than `isinstance`."""
PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)
"""Values that hold no tensor."""


def tree_map(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply a function to every leaf, and to the leaves of other trees of the same structure."""
    if rest:
        return _map_together(function, tree, rest)
    kind = type(tree)
    if kind is dict:
        return {
            key: function(child) if type(child) in EXACT else tree_map(function, child)
            for key, child in tree.items()
        }
    if kind in EXACT or isinstance(tree, LEAVES):
        return function(tree)
    if kind is tuple or hasattr(tree, "_fields"):  # and none of torch.return_types
        mapped = [
            function(child) if type(child) in EXACT else tree_map(function, child) for child in tree
        ]
        return tuple(mapped) if kind is tuple else type(tree)(*mapped)
    return _pytree.tree_map(function, tree)


def _map_together(function: Callable[..., Any], tree: Any, rest: tuple[Any, ...]) -> Any:
    if isinstance(tree, LEAVES):
        return function(tree, *rest)
    kind = type(tree)
    is_tuple = kind is tuple or hasattr(tree, "_fields")
    if not (kind is dict or is_tuple) or not _are_alike(tree, rest):
        return _pytree.tree_map(function, tree, *rest)
    if kind is dict:
        return {
            key: _map_together(function, child, tuple([other[key] for other in rest]))
            for key, child in tree.items()
        }
    mapped = [
        _map_together(function, child, tuple(others))
        for child, *others in zip(tree, *rest, strict=True)
    ]
    return tuple(mapped) if kind is tuple else type(tree)(*mapped)


def _are_alike(tree: Any, rest: tuple[Any, ...]) -> bool:
    """Return whether these are dicts of the same keys, or (named) tuples of one kind."""
    if type(tree) is dict:
        return all(type(other) is dict and other.keys() == tree.keys() for other in rest)
    return all(type(other) is type(tree) and len(other) == len(tree) for other in rest)


def tree_leaves(tree: Any) -> list[Any]:
    """Return all leaves, those of dicts in insertion order."""
    leaves: list[Any] = []
    _collect((tree,), leaves)
    return leaves


def _collect(tree: Any, leaves: list[Any]) -> None:
    for child in tree.values() if isinstance(tree, dict) else tree:
        kind = type(child)
        if kind in EXACT:
            leaves.append(child)
        elif kind is dict or isinstance(child, tuple):
            _collect(child, leaves)
        elif isinstance(child, LEAVES):
            leaves.append(child)
        else:
            leaves += _pytree.tree_leaves(child)


def tree_filled(tree: Any, leaves: Iterable[Any]) -> Any:
    """Return a tree of the same structure with other leaves, in the order of `tree_leaves`."""
    return tree_map(partial(next, iter(leaves)), tree)  # each leaf as the default, which none needs


def tree_add(left: Any, right: Any) -> Any:
    """Add two trees of the same structure leaf by leaf."""
    return tree_map(torch.add, left, right)


def tree_detach(tree: Any) -> Any:
    """Detach every leaf."""
    return tree_map(Tensor.detach, tree)


def tree_zeros_like(tree: Any) -> Any:
    """Return zeros shaped as the tree."""
    return tree_map(torch.zeros_like, tree)


def over_first_axes(values: Tensor, tensor: Tensor) -> Tensor:
    """Reshape values of the first axes of `tensor` to broadcast over its other axes."""
    others = tensor.dim() - values.dim()
    return values.reshape(values.shape + (1,) * others) if values.dim() and others else values


def tree_pairs(left: Any, right: Any) -> list[tuple[Any, Any]]:
    """Pair the leaves of two trees of the same structure, in whatever order their dicts are."""
    pairs: list[tuple[Any, Any]] = []
    tree_map(lambda *pair: pairs.append(pair), left, right)
    return pairs


def tree_ravel(tree: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """Return all leaves as one real vector, and the function that turns a vector back into a tree.

    Complex numbers are pairs in it: Hessians are linear over the real numbers alone.
    """
    leaves, spec = tree_flatten(tree)
    reals = [as_real(leaf) for leaf in leaves]

    def unravel(vector: Tensor) -> Any:
        parts = zip(vector.split([real.numel() for real in reals]), leaves, reals, strict=True)
        shaped = ((part.reshape(real.shape), leaf) for part, leaf, real in parts)
        # no view as complex: the vector need not be contiguous
        return tree_unflatten(
            [
                torch.complex(*part.unbind(-1)) if leaf.is_complex() else part
                for part, leaf in shaped
            ],
            spec,
        )

    return torch.cat([real.reshape(-1) for real in reals]), unravel


def as_real(tensor: Tensor) -> Tensor:
    """Return complex numbers as pairs of real ones, `[..., 2]`, and real ones as they are."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def tree_names(tree: Any) -> list[str]:
    """Name every leaf by its path, such as `rate.0.weight`, in the order of `tree_leaves`."""
    return [".".join(_part(key) for key in path) for path, _ in _pytree.tree_leaves_with_path(tree)]


def _part(key: Any) -> str:
    if isinstance(key, _pytree.MappingKey):
        return str(key.key)
    return str(key.idx) if isinstance(key, _pytree.SequenceKey) else str(key.name)
