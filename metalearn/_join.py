"""Joining several tasks' results: tensors are joined, plain values have to agree."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import message
from metalearn._tree import PLAIN, tree_flatten, tree_leaves, tree_map, tree_names

Join = Callable[[tuple[Tensor, ...]], Tensor]
"""Joins the tensors at one place of the trees, such as `torch.stack`."""


class OutputTypeError(TypeError):
    """An output of a wrong kind."""


class OutputValueError(ValueError):
    """Outputs on which tasks disagree."""


def joined(join: Join, trees: Sequence[Any]) -> Any:
    """Join several tasks' results into one tree.

    Args:
        join: What becomes of the tensors in one place.
        trees: The results, pytrees.

    Raises:
        TypeError: If a leaf is neither a tensor nor a plain value.
        ValueError: If the trees differ in structure, in a shape or in a plain value.
    """
    if torch.compiler.is_compiling():
        return tree_map(lambda *leaves: join(leaves), *trees)
    try:
        return tree_map(partial(_joined, join), *trees)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, _DisagreeError):
        _check_structure(trees)
        for name, *leaves in zip(tree_names(trees[0]), *map(tree_leaves, trees), strict=True):
            _check_leaves(_output(name), join, leaves)
        raise


def check_passed_on(tree: Any) -> None:
    """Raise for leaves other than tensors and plain values, which may hold one task's tensors."""
    if not all(isinstance(leaf, (Tensor, *PLAIN)) for leaf in tree_leaves(tree)):
        for name, leaf in zip(tree_names(tree), tree_leaves(tree), strict=True):
            _check_kind(_output(name), leaf)


class _DisagreeError(Exception):
    pass


def _joined(join: Join, *leaves: Any) -> Any:
    first = leaves[0]
    if isinstance(first, Tensor):
        return join(leaves)
    if not (isinstance(first, PLAIN) and all(_is_same(first, leaf) for leaf in leaves)):
        raise _DisagreeError
    return first


def _is_same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other or (one != one and other != other))


def _are_tensors(*leaves: Any) -> bool:
    return all(isinstance(leaf, Tensor) for leaf in leaves)


def _output(name: str) -> str:
    return f"output {name!r}" if name else "output"


def _check_structure(trees: Sequence[Any]) -> None:
    specs = [tree_flatten(tree)[1] for tree in trees]
    for spec, tree in zip(specs, trees, strict=True):
        if spec != specs[0]:
            fix = "Return as many outputs, of the same names, for every task."
            got = f"{brief(trees[0])} and {brief(tree)}"
            text = message("outputs", "be of one structure for all tasks", got, fix)
            raise OutputValueError(text)


def _check_kind(what: str, leaf: Any) -> None:
    if not isinstance(leaf, (Tensor, *PLAIN)):
        got = type(leaf).__name__
        fix = "Return a dict or a tuple of tensors in its place, or leave it out."
        raise OutputTypeError(message(what, "be a tensor, a number, a string or None", got, fix))


def _check_leaves(what: str, join: Join, leaves: Sequence[Any]) -> None:
    """Raise if tasks disagree on one output."""
    for leaf in leaves:
        _check_kind(what, leaf)
    got: Any
    if _are_tensors(*leaves):
        try:
            join(tuple(leaves))
        except RuntimeError as error:
            got, fix = (
                [tuple(leaf.shape) for leaf in leaves],
                "Pad it to one length, or leave it out.",
            )
            text = message(what, "have one shape for all tasks", got, fix)
            raise OutputValueError(text) from error
    for leaf in leaves:
        if not (_are_tensors(leaves[0], leaf) or _is_same(leaves[0], leaf)):
            got = f"{brief(leaves[0])} and {brief(leaf)}"
            fix = "Return it as a tensor for every task: torch.as_tensor(value)."
            raise OutputValueError(message(what, "be the same for all tasks", got, fix))
