"""Parts of a problem by name, as checks compare them and errors call them."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from metalearn._tree import tree_leaves, tree_names
from metalearn.functional import OnQuery, OnSupport
from metalearn.types import Meta, Params, Problem


def losses_on_sets(problem: Problem) -> dict[str, OnSupport | OnQuery]:
    """Return by the set's name the losses that are a criterion on a set's examples."""
    losses: dict[str, Any] = {"support": problem.support_loss, "query": problem.query_loss}
    return {name: on for name, on in losses.items() if isinstance(on, OnSupport | OnQuery)}


def any_key(device: torch.device) -> Tensor:
    """Return a task's random key, for what is the same with every key."""
    return torch.zeros((), dtype=torch.int64, device=device)


def in_model(names: Iterable[str]) -> set[str]:
    """Return what a learner calls parameters of its model."""
    return {f"model.{name}" for name in names}


def in_losses(meta: Meta) -> Params:
    """Return all that losses are given, by the names that a learner gives it."""
    return {**{f"model.{name}": leaf for name, leaf in meta.init.items()}, **meta.shared}


def shapes(tree: Any) -> dict[str, tuple[int, ...] | None]:
    """Return the shape of every leaf by its path, None for what is no tensor."""
    return dict(zip(tree_names(tree), map(shape, tree_leaves(tree)), strict=True))


def shape(leaf: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor, None of anything else."""
    return tuple(leaf.shape) if isinstance(leaf, Tensor) else None
