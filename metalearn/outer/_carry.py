"""What outlives a meta-step, kept by the learner."""

from typing import Any

import torch.nn as nn
from torch import Tensor

from metalearn._checks import invalid
from metalearn._modules import TensorTree
from metalearn._tree import tree_leaves, tree_map, tree_names
from metalearn.types import PyTree


class Carry(nn.Module):
    """Buffers that come into being with the first training step, if the estimator carries anything.

    Calling the module with the estimator's start returns what is carried: what the last training
    step left, or what was loaded, or that start. Its structure is known only then, so what is
    loaded waits for it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tree: TensorTree | None = None
        self._loaded: dict[str, Tensor] = {}

    @property
    def value(self) -> PyTree:
        """What the last training step left; None before the first one."""
        return None if self.tree is None else self.tree()

    def forward(self, start: PyTree) -> PyTree:
        """Return what is carried.

        Raises:
            ValueError: If it is not named and shaped as the start.
        """
        if carried := dict(self.tree.named_buffers()) if self.tree else self._loaded:
            _check_fits(start, carried)
        if self.tree is None and self._loaded:
            tree = TensorTree(start, learned=False)
            tree.load_state_dict(self._loaded)
            self.keep(tree())
        if self.tree is None:
            return start
        # learner.bfloat16() converts it too
        return tree_map(lambda kept, new: kept.to(new.dtype), self.tree(), start)

    def keep(self, carry: PyTree) -> None:
        """Carry this from now on."""
        if tree_leaves(carry):
            self.tree, self._loaded = TensorTree(carry, learned=False), {}

    def reset(self) -> None:
        """Start anew with the next training step."""
        self.tree, self._loaded = None, {}

    def part(self, index: int) -> "Carry":
        """Return one replica's part of what replicas carry."""
        part = Carry()
        part._loaded = {name: tensor[index].clone() for name, tensor in self._loaded.items()}
        if self.tree is not None:
            part.keep(tree_map(lambda leaf: leaf[index].clone(), self.tree()))
        return part

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination.update(
            {f"{prefix}tree.{name}": tensor for name, tensor in self._loaded.items()}
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        inside = f"{prefix}tree."
        self.tree = None
        self._loaded = {
            name.removeprefix(inside): tensor.clone()
            for name, tensor in state_dict.items()
            if name.startswith(inside)
        }


def _check_fits(start: PyTree, carried: dict[str, Tensor]) -> None:
    """Raise if what is carried is another estimator's or rule's."""
    wanted = {
        name or "value": tuple(leaf.shape)
        for name, leaf in zip(tree_names(start), tree_leaves(start), strict=True)
    }
    got = {name: tuple(tensor.shape) for name, tensor in carried.items()}
    if got != wanted:
        fix = (
            "Load what the same estimator and rule have saved, or start anew: "
            "learner.carry.reset()."
        )
        raise invalid("learner's carry", f"be shaped as {wanted or 'nothing'}", got, fix)
