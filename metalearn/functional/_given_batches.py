"""Batches of the inner steps that an episode gives: those of a window of a training run."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import invalid, mistyped
from metalearn._tree import tree_leaves, tree_map, tree_names
from metalearn.functional._support_batches import SupportBatches, chosen
from metalearn.types import Batch, Indexed


@dataclass(frozen=True)
class GivenBatches(SupportBatches):
    """Batches that the support set is made of, one for every step: step t sees row t.

    A support set's tensors are `[num_steps, batch_size, ...]`, those of all tasks
    `[num_tasks, num_steps, batch_size, ...]`. `data.windows` makes such episodes of a `DataLoader`.
    Training takes exactly as many steps as there are batches; `adapt` and `evaluate` may be told to
    take fewer.

    >>> window = Batch(torch.arange(6).reshape(3, 2))
    >>> GivenBatches().of_step(window, None, step=1).x
    tensor([2, 3])
    """

    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return the step's row."""
        return tree_map(lambda leaf: leaf.select(axis, step), support)

    def check(self, support: Batch) -> None:
        """Raise unless all tensors have one number of steps, and batches."""
        leaves = tree_leaves(support)
        if len({leaf.shape[1:2] for leaf in leaves}) != 1 or any(leaf.dim() < 3 for leaf in leaves):
            condition = "be [num_tasks, num_steps, batch_size, ...], with one number of steps"
            fix = "Of one task's batches write torch.stack(batches)[None], or leave out "
            fix += "support_batches if all steps see the same examples."
            raise invalid("support tensors", condition, _shapes(support), fix)

    def examples(self, support: Batch, axis: int = 0) -> Batch:
        """Return the examples of all steps."""
        return tree_map(lambda leaf: leaf.flatten(axis, axis + 1), support)

    def steps_of(self, support: Batch) -> int | None:
        """Return the number of rows."""
        return tree_leaves(support)[0].shape[1]


@dataclass(frozen=True)
class IndexedBatches(SupportBatches):
    """Batches of a data set that the support set holds once: step t sees the examples `indices[t]`.

    A support set is `Batch(types.Indexed(x, indices), y)`, with tensors `[num_examples, ...]` and
    indices `[num_steps, batch_size]` of int64; those of all tasks have a leading task axis. A data
    set that tasks share takes no memory for each: `x.expand(num_tasks, *x.shape)`. Steps are
    counted as by `GivenBatches`. A learner checks the range of the indices in its first call of a
    kind alone, since to look at them waits for the device.

    >>> data = Indexed(torch.arange(10, 15), torch.tensor([[0, 1], [4, 0]]))
    >>> IndexedBatches().of_step(Batch(data), None, step=1).x
    tensor([14, 10])
    """

    def of_step(self, support: Batch, key: Tensor | None, step: int, axis: int = 0) -> Batch:
        """Return the examples that the step's row of indices names."""
        return chosen(self.examples(support), support.x.indices.select(axis, step), axis)

    def check(self, support: Batch) -> None:
        """Raise unless there are indices, into data of one number of examples."""
        if not isinstance(support.x, Indexed):
            fix = "Write Batch(types.Indexed(x, indices), y)."
            kind = type(support.x)
            raise mistyped("support.x of IndexedBatches", "be a types.Indexed", kind, fix)
        indices, leaves = support.x.indices, tree_leaves(self.examples(support))
        what, axes = "indices of IndexedBatches", "[num_tasks, num_steps, batch_size]"
        if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
            raise mistyped(what, "be int64", _kind(indices), "Write indices.long().")
        if indices.dim() != 3 or not indices.numel():
            fix = "Of those that tasks share write indices.expand(num_tasks, *indices.shape)."
            condition = f"be {axes}, at least one a step"
            raise invalid(what, condition, f"shape {tuple(indices.shape)}", fix)
        sizes = {leaf.shape[1:2] for leaf in leaves}
        if len(sizes) != 1 or () in sizes:
            condition = "be [num_tasks, num_examples, ...], with one number of examples"
            raise invalid("data of IndexedBatches", condition, _shapes(support))
        (count,) = sizes.pop()
        if not torch.compiler.is_compiling() and not (indices.min() >= 0 and indices.max() < count):
            got = f"from {indices.min()} to {indices.max()}"
            raise invalid(what, f"be from 0 to {count - 1}", got)

    def examples(self, support: Batch, axis: int = 0) -> Batch:
        """Return the whole data set."""
        return support._replace(x=support.x.data)

    def steps_of(self, support: Batch) -> int | None:
        """Return the number of rows of indices."""
        return support.x.indices.shape[1]


def _kind(leaf: Any) -> Any:
    return leaf.dtype if isinstance(leaf, Tensor) else type(leaf)


def _shapes(support: Batch) -> dict[str, Any]:
    leaves = tree_leaves(support)
    shapes = [(*leaf.shape, leaf.dtype) for leaf in leaves]
    return dict(zip(tree_names(support), shapes, strict=True))
