"""The one vectorisation over tasks: `vmap` or a loop, in chunks."""

from collections.abc import Callable, Iterable
from functools import partial
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from metalearn._join import check_passed_on, joined
from metalearn._slices import part
from metalearn._tree import tree_add, tree_leaves, tree_map


def num_tasks(per_task: Any) -> int:
    """Return the length of the leading axis of a pytree's tensors."""
    return _tensors(per_task)[0].shape[0]


def take(per_task: Any, index: int | slice) -> Any:
    """Index the leading axis of every tensor."""
    get = partial(part, index=index) if isinstance(index, slice) else itemgetter(index)
    return tree_map(lambda leaf: get(leaf) if isinstance(leaf, Tensor) else leaf, per_task)


def map_tasks(
    function: Callable[..., Any], per_task: tuple[Any, ...], batching: str = "vmap"
) -> Any:
    """Apply a function to every task and stack the results.

    Args:
        function: Takes one task's part of every argument; returns a pytree of tensors and of plain
            values that agree between tasks.
        per_task: Arguments, pytrees whose tensors have a leading task axis.
        batching: "vmap" or "loop". A single task is always computed without vmap, which is faster.

    Raises:
        TypeError: If a result is neither a tensor nor a plain value.
        ValueError: If tasks disagree on a plain value, or on the structure or shape of their
            results.
    """
    count = num_tasks(per_task)
    if batching == "vmap" and count > 1:
        return vmap_tasks(function, *per_task)
    return joined(torch.stack, [function(*take(per_task, index)) for index in range(count)])


def vmap_tasks(function: Callable[..., Any], *per_task: Any) -> Any:
    """Return `vmap(function)(*per_task)` with random numbers for every task.

    Arguments and results other than tensors are passed on unchanged. Errors get a note on what to
    do.
    """
    if torch.compiler.is_compiling():
        # errors there say where the graph breaks
        return vmap(function, randomness="different")(*per_task)
    results = []

    def flat(*leaves: Tensor) -> list[Tensor]:  # vmap is faster for lists than for trees
        results.append(function(*_with_tensors(per_task, leaves)))
        return _tensors(results[0])

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        # Under vmap no tensor seems to require grad, and attention would take its fast path, which
        # has no derivative.
        torch.backends.mha.set_fastpath_enabled(False)
        mapped = vmap(flat, randomness="different")(*_tensors(per_task))
    except RuntimeError as error:
        error.add_note(
            "What cannot be vmapped over tasks, model, loss or rule, needs a learner with "
            'batching="loop".'
        )
        raise
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    check_passed_on(results[0])
    return _with_tensors(results[0], mapped)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _with_tensors(tree: Any, tensors: Iterable[Tensor]) -> Any:
    """Return a tree with its tensors replaced."""
    rest = iter(tensors)
    return tree_map(lambda leaf: next(rest) if isinstance(leaf, Tensor) else leaf, tree)


def in_chunks(
    function: Callable[..., Any], per_task: tuple[Any, ...], chunk_size: int | None
) -> Any:
    """Apply a function to `chunk_size` tasks at a time and concatenate the results."""
    return over_chunks(lambda *part: ((), function(*part)), per_task, chunk_size)[1]


def over_chunks(
    function: Callable[..., Any], per_task: tuple[Any, ...], chunk_size: int | None
) -> Any:
    """Apply a function to chunks of tasks, keeping only one chunk's temporaries alive.

    Args:
        function: Takes one chunk of every argument; returns `(summed, stacked)`, a pytree to add up
            over chunks and one with a leading task axis.
        per_task: Arguments, pytrees with a leading task axis.
        chunk_size: Number of tasks in a chunk; None for all at once.

    Returns:
        The sum of all `summed` and the concatenation of all `stacked`.
    """
    count = num_tasks(per_task)
    size = min(chunk_size or count, count)
    if size == count:
        return function(*per_task)
    summed, stacked = function(*take(per_task, slice(0, size)))
    parts = [stacked]
    for start in range(size, count, size):
        more, stacked = function(*take(per_task, slice(start, start + size)))
        summed = tree_add(summed, more)
        parts.append(stacked)
    return summed, joined(torch.cat, parts)
