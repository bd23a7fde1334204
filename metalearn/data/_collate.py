"""Collation of tasks of any sizes into a batch of episodes, for a `DataLoader` of tasks."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from metalearn._brief import brief
from metalearn._checks import invalid, mistyped
from metalearn._tree import tree_flatten, tree_leaves, tree_map, tree_names
from metalearn.types import Batch, Episode

UNEQUAL = ("equal size", "resize storage")
"""Parts of PyTorch's errors for tensors that cannot be stacked, here and in a worker."""


def collate(episodes: Sequence[Episode]) -> Episode:
    """Stack tasks into a batch of episodes, padding smaller ones.

    `DataLoader(tasks, batch_size=4, collate_fn=data.collate)` yields what `fit` and `evaluate`
    take.

    Support and query sets are padded separately, each to the largest, with copies of the task's
    first example, so that labels are valid and losses finite. Padding has weight 0 in
    `Batch.weight`; other examples keep their weights, 1 by default. Either both sets have weights
    or neither: tasks of one size without weights are stacked unchanged.

    A criterion or metric that takes the weights, such as `functional.cross_entropy`,
    `functional.accuracy` or `lambda o, y, w: (w * (o - y).square().mean(-1)).sum() / w.sum()`, then
    gives each task the value that it has alone. With weights, `functional.cross_entropy` counts
    only the classes among a task's examples.

    Args:
        episodes: Tasks without a task axis: tensors `[num_examples, ...]` or NumPy arrays, in trees
            of one structure, equal in dtype, device and shape except for `num_examples`.

    Returns:
        Episodes with a leading task axis on every tensor. New weights have the default dtype.

    Raises:
        TypeError: If a task is not an episode, or a leaf not a tensor.
        ValueError: If there are no tasks, tasks differ in more than their number of examples, or an
            empty one needs padding.

    >>> from metalearn.types import Batch, Episode
    >>> query = Batch(torch.zeros(3, 1), torch.zeros(3, 1))
    >>> tasks = [Episode(Batch(torch.zeros(n, 1), torch.zeros(n, 1)), query) for n in (1, 2)]
    >>> collate(tasks).support.weight
    tensor([[1., 0.],
            [1., 1.]])
    """
    tasks = _checked(episodes)
    sets = {name: [getattr(task, name) for task in tasks] for name in Episode._fields}
    for name, batches in sets.items():
        _check_alike(name, batches)
    weighted = any(_differ(batches) or any(map(_has_weights, batches)) for batches in sets.values())
    return Episode(*(_stacked(name, batches, weighted) for name, batches in sets.items()))


def _checked(episodes: Any) -> list[Episode]:
    """Return the tasks with tensors as leaves; raise for anything else."""
    fix = "Return Episode(Batch(x, y), Batch(x, y)) of one task from the data set."
    if not isinstance(episodes, list | tuple) or isinstance(episodes, Episode):
        got = type(episodes).__name__
        raise mistyped("episodes to collate", "be a list of tasks", got, fix)
    if not episodes:
        raise invalid("episodes to collate", "be at least 1 task", "none", fix)
    for task in episodes:
        if not (isinstance(task, Episode) and all(isinstance(batch, Batch) for batch in task)):
            got = type(task).__name__
            raise mistyped("a task to collate", "be an Episode of two Batches", got, fix)
    return [tree_map(_tensor, task) for task in episodes]


def _tensor(leaf: Any) -> Tensor:
    try:
        return torch.as_tensor(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        fix = "Write torch.as_tensor(x)."
        raise mistyped("a task's data", "be tensors", brief(leaf), fix) from error


def _check_alike(name: str, batches: list[Batch]) -> None:
    """Raise unless inputs and targets of tasks differ only in their number of examples."""
    first, *others = [Batch(batch.x, batch.y) for batch in batches]
    spec, names = tree_flatten(first)[1], tree_names(first)
    for index, other in enumerate(others, 1):
        try:
            leaves = spec.flatten_up_to(other)
        except ValueError as error:
            got = f"{names} in task 0 and {tree_names(other)} in task {index}: {error}"
            raise invalid(f"{name} sets", "be trees of one structure", got) from error
        for path, one, another in zip(names, tree_leaves(first), leaves, strict=True):
            _check_leaf(f"{name}.{path}", one, another, index)


def _check_leaf(what: str, one: Tensor, another: Any, index: int) -> None:
    """Raise unless a task's tensor matches that of task 0, except in its number of examples."""

    def differs(condition: str, ours: Any, theirs: Any, fix: str) -> ValueError:
        got = f"{ours} in task 0 and {theirs} in task {index}"
        return invalid(f"{what} of all tasks", condition, got, fix)

    if not isinstance(another, Tensor):
        fix = "Return the same tree for every task."
        raise differs("be a tensor", "one", type(another).__name__, fix)
    if one.dtype != another.dtype:
        raise differs("have one dtype", one.dtype, another.dtype, f"Write x.to({one.dtype}).")
    if one.device != another.device:
        fix = f"Write x.to({str(one.device)!r})."
        raise differs("be on one device", one.device, another.device, fix)
    if one.dim() != another.dim() or one.shape[1:] != another.shape[1:]:
        fix = "Pad or crop the other axes in the data set."
        condition = "have one shape but for the number of examples, the first axis"
        raise differs(condition, tuple(one.shape), tuple(another.shape), fix)


def _differ(batches: list[Batch]) -> bool:
    """Return whether tasks differ in their number of examples."""
    leaves = zip(*(tree_leaves((batch.x, batch.y)) for batch in batches), strict=True)
    return any(len({leaf.shape[:1] for leaf in of_all}) > 1 for of_all in leaves)


def _has_weights(batch: Batch) -> bool:
    return bool(tree_leaves(batch.weight))


def _stacked(name: str, batches: list[Batch], weighted: bool) -> Batch:
    """Return one set of all tasks, padded and weighted if `weighted`."""
    batches = [batch if _has_weights(batch) else Batch(batch.x, batch.y) for batch in batches]
    if weighted and tree_leaves(batches[0]):
        sizes = [_num_examples(name, index, batch) for index, batch in enumerate(batches)]
        most = max(sizes)
        batches = [_padded(batch, size, most) for batch, size in zip(batches, sizes, strict=True)]
    return Batch(*tree_map(lambda *leaves: torch.stack(leaves), *batches))


def _num_examples(name: str, index: int, batch: Batch) -> int:
    """Return a task's number of examples; raise unless all its tensors agree."""
    if _has_weights(batch) and not (isinstance(batch.weight, Tensor) and batch.weight.dim() == 1):
        what, fix = f"{name}.weight of task {index}", "Give every example one weight."
        got = [tuple(leaf.shape) for leaf in tree_leaves(batch.weight)]
        raise invalid(what, "be [num_examples]", got, fix)
    sizes = {leaf.shape[0] for leaf in tree_leaves(batch) if leaf.dim()}
    if len(sizes) != 1 or 0 in sizes:
        what, fix = f"{name} tensors of task {index}", "Every tensor begins with [num_examples]."
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(batch)]
        by_name = dict(zip(tree_names(batch), shapes, strict=True))
        condition = "agree on a number of examples of at least 1, to be padded"
        raise invalid(what, condition, by_name, fix)
    return sizes.pop()


def _padded(batch: Batch, size: int, most: int) -> Batch:
    """Return a task of `most` examples; those after the first `size` have weight 0."""
    device = tree_leaves(batch)[0].device
    weight = batch.weight if _has_weights(batch) else torch.ones(size, device=device)

    def longer(leaf: Tensor) -> Tensor:
        if not leaf.dim():
            return leaf
        return torch.cat([leaf, leaf[:1].expand(most - size, *leaf.shape[1:])])

    x, y = tree_map(longer, (batch.x, batch.y))
    return Batch(x, y, F.pad(weight, (0, most - size)))


def explained(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield batches; if a loader cannot stack its tasks, say what to write."""
    try:
        # `yield from` would close a user's generator together with this one.
        for batch in batches:  # noqa: UP028
            yield batch
    except RuntimeError as error:
        last = str(error).strip().rpartition("\n")[2]
        stacks = isinstance(batches, DataLoader) and batches.collate_fn is default_collate
        if not (stacks and any(text in last for text in UNEQUAL)):
            raise
        fix = "Write DataLoader(tasks, batch_size=4, collate_fn=data.collate)."
        what, condition = "tasks of a DataLoader", "be of one size, or padded"
        raise invalid(what, condition, last, fix) from error
