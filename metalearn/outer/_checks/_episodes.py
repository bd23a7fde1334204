"""What a learner refuses of the tasks it is called on, by their shapes alone."""

import warnings
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import invalid, message, mistyped
from metalearn._tree import tree_leaves, tree_names
from metalearn.outer._checks._named import losses_on_sets
from metalearn.types import Batch, Episode, Problem


def check_episodes(episodes: Any) -> int:
    """Return the number of tasks; raise unless the episodes' shapes agree."""
    if not (isinstance(episodes, Episode) and all(isinstance(batch, Batch) for batch in episodes)):
        got = type(episodes).__name__
        if isinstance(episodes, Episode):
            got += " of " + " and ".join(type(batch).__name__ for batch in episodes)
        fix = (
            "Pass tasks.sample(25), or Episode(Batch(x, y), Batch(x, y)) with a leading task axis."
        )
        raise mistyped("episodes", "be an Episode of two Batches", got, fix)
    return check_task_axis(episodes._asdict())


def check_task_axis(batches: dict[str, Batch]) -> int:
    """Return the number of tasks; raise unless tensors agree on it, and batches on examples."""
    sizes = set()
    for name, batch in batches.items():
        for field, part in batch._asdict().items():
            for leaf in tree_leaves(part):
                _check_leaf(f"{name}.{field}", leaf)
                sizes.add(leaf.shape[0])
        _check_examples(name, *batch)
    if len(sizes) != 1 or 0 in sizes:
        got = dict(zip(tree_names(batches), map(len, tree_leaves(batches)), strict=True))
        fix = (
            "Every tensor begins with [num_tasks, num_examples]; for one task that is tensor[None]."
        )
        raise invalid("episodes", "agree on a number of tasks of at least 1", got, fix)
    return sizes.pop()


def check_batch(name: str, batch: Any) -> None:
    """Raise unless this is a batch."""
    if not isinstance(batch, Batch):
        fix = "Write learner.adapt(episodes.support)."
        raise mistyped(name, "be a Batch", type(batch).__name__, fix)


def _check_leaf(place: str, leaf: Any) -> None:
    """Raise unless this is a tensor with a leading axis that does not require grad."""
    if not isinstance(leaf, Tensor) or leaf.dim() == 0:
        fixes = {
            "Leave it out: Batch(x).": leaf is None,
            "Write torch.as_tensor(x).": hasattr(leaf, "__array__"),
            "Make it a dict: dict(encoding).": isinstance(leaf, Mapping),
            "Make it a dict: vars(inputs).": is_dataclass(leaf),
            "Stack the tasks' tensors: torch.stack([...]).": True,
        }
        fix = next(fix for fix, helps in fixes.items() if helps)
        condition, got = "hold tensors with a leading task axis", f"{brief(leaf)} in {place}"
        raise mistyped("episodes", condition, got, fix)
    if leaf.requires_grad:
        got = f"{place}, whose gradient would be lost"
        fix = "Detach it, or learn it as a model parameter or in a support_criterion."
        raise invalid("episodes", "not require grad", got, fix)


def _check_examples(name: str, x: Any, y: Any, weight: Any) -> None:
    """Raise unless inputs, targets and weights agree on tasks and examples, at least one."""
    axes = "[num_tasks, num_examples]"
    if isinstance(weight, Tensor) and weight.is_complex():
        fix = "Leave it out to weigh all alike."
        raise mistyped(f"{name}.weight", "hold real numbers", weight.dtype, fix)
    if isinstance(x, Tensor):
        sizes = tuple(x.shape[:2])
        # Of batches of steps an example has an axis more; a learner knows whether they are such.
        if isinstance(weight, Tensor) and weight.shape not in (sizes, x.shape[:3]):
            raise _wrong_weights(name, x, weight)
        if isinstance(y, Tensor) and min(x.dim(), y.dim()) > 1 and y.shape[:2] != sizes:
            got = f"{name}.x {tuple(x.shape)} and {name}.y {tuple(y.shape)}"
            fix = f"Both begin with {axes}; for one task write x[None], y[None]."
            raise invalid("inputs and targets", "agree on tasks and examples", got, fix)
    if {leaf.shape[1] for leaf in tree_leaves(x) if leaf.dim() > 1} == {0}:
        shapes = [tuple(leaf.shape) for leaf in tree_leaves(x)]
        fix = f"Every tensor begins with {axes}."
        raise invalid(f"{name}.x", "have at least 1 example", shapes, fix)


def check_weights(batches: dict[str, Batch]) -> None:
    """Raise unless weights are of examples, where batches are no longer those of steps."""
    for name, (x, _, weight) in batches.items():
        if isinstance(weight, Tensor) and isinstance(x, Tensor) and weight.dim() > 2:
            raise _wrong_weights(name, x, weight)


def _wrong_weights(name: str, x: Tensor, weight: Tensor) -> ValueError:
    condition = f"be of shape {tuple(x.shape[:2])}, [num_tasks, num_examples]"
    fix = f"Give {name}.weight one number an example."
    return invalid("weights", condition, f"{name}.weight {tuple(weight.shape)}", fix)


def check_sets(problem: Problem, batches: dict[str, Batch]) -> None:
    """Raise if a set is left out that a loss is measured on."""
    for name in losses_on_sets(problem):
        if name in batches and not tree_leaves(batches[name]):
            fix = "Pass data.SupportAsQuery(tasks), or Episode(support, support)."
            condition = f"have the examples that the {name} loss is measured on"
            raise invalid(f"{name} set", condition, "none", fix if name == "query" else "")


def check_keys(keys: Any, num_tasks: int) -> None:
    """Raise unless there is one int64 key a task."""
    if not isinstance(keys, Tensor) or keys.dtype != torch.int64 or keys.shape != (num_tasks,):
        got = f"{tuple(keys.shape)} of {keys.dtype}" if isinstance(keys, Tensor) else brief(keys)
        fix = f"Write keys=functional.draw_keys({num_tasks})."
        raise invalid("keys", f"be int64 of shape ({num_tasks},)", got, fix)


def check_device(batches: Any, device: torch.device) -> None:
    """Raise unless the data are on the learner's device."""
    for leaf in tree_leaves(batches):
        if leaf.device != device:
            fix = f"Write episodes.to({str(device)!r}), or sample(..., device={str(device)!r})."
            raise invalid("episodes", f"be on the learner's device {device}", leaf.device, fix)


def warn_of_single_examples(episodes: Episode) -> None:
    """Warn of tasks of one example without features, which may be the examples of one task."""
    # Adaptation has no query set. Without targets it is no regression.
    parts = [part for batch in episodes if tree_leaves(batch) for part in (batch.x, batch.y)]
    num_tasks = len(tree_leaves(parts)[0])
    are_numbers = all(isinstance(part, Tensor) and part.is_floating_point() for part in parts)
    if are_numbers and num_tasks > 1 and {part.shape for part in parts} == {(num_tasks, 1)}:
        got = f"{(num_tasks, 1)}, {num_tasks} tasks of one example each"
        fix = f"For one task of {num_tasks} examples write x[None], y[None]."
        text = message("x and y", "be [num_tasks, num_examples, ...]", got, fix)
        warnings.warn(text, stacklevel=2)
