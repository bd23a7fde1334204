"""Distributions over the tasks of an environment."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_range, invalid, mistyped
from metalearn._tasks import num_tasks as count_tasks
from metalearn._tree import tree_leaves, tree_map
from metalearn.data import TaskDistribution
from metalearn.data._synthetic import uniform
from metalearn.functional import draw_keys
from metalearn.types import Batch, Episode, PyTree


class Tasks(TaskDistribution):
    """Episodes of a task and random keys; subclasses implement `draw_tasks`.

    Support and query set are `Batch({"task": ..., "key": ...})`, with the same task and different
    keys.
    """

    @abstractmethod
    def draw_tasks(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> PyTree:
        """Draw tasks for `Environment.reset`, with a leading axis of `num_tasks`.

        Arguments are as for `draw`.
        """

    @final
    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw tasks and two keys for each."""
        task = self.draw_tasks(num_tasks, generator, device)
        place = tree_leaves(task)[0].device
        keys = (draw_keys(num_tasks, generator=generator, device=device) for _ in range(2))
        return Episode(*(Batch({"task": task, "key": key.to(place)}) for key in keys))


@dataclass(frozen=True)
class UniformTasks(Tasks):
    """Tasks that are uniform points in a box, such as goals in a square.

    Args:
        low: Lower bound of each coordinate.
        high: Upper bound of each coordinate.

    Raises:
        TypeError: If they are not tuples of numbers.
        ValueError: If their lengths differ, they are empty or infinite, or the box is empty.

    >>> UniformTasks((-0.5, -0.5), (0.5, 0.5)).sample(3).support.x["task"].shape
    torch.Size([3, 2])
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        fix = "Write UniformTasks((-0.5, -0.5), (0.5, 0.5))."
        for what in ("low", "high"):
            if not isinstance(getattr(self, what), tuple):
                got = brief(getattr(self, what))
                raise mistyped(f"UniformTasks's {what}", "be a tuple of numbers", got, fix)
        if len(self.low) != len(self.high) or not self.low:
            got = f"{self.low} and {self.high}"
            raise invalid("UniformTasks's low and high", "be as long, and not empty", got, fix)
        for bounds in zip(self.low, self.high, strict=True):
            check_range("UniformTasks's low and high", bounds, fix=fix)

    def draw_tasks(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Tensor:
        """Draw points `[num_tasks, len(low)]`."""
        bounds = zip(self.low, self.high, strict=True)
        columns = [uniform(bound, (num_tasks,), generator, device) for bound in bounds]
        return torch.stack(columns, -1)


@dataclass(frozen=True, eq=False)
class FiniteTasks(Tasks):
    """Tasks from a finite list, drawn with replacement.

    Args:
        tasks: A tensor of tasks with a leading axis, or a pytree of such tensors.

    Raises:
        TypeError: If it holds anything but tensors.
        ValueError: If it is empty, or tensors disagree on the number of tasks.

    >>> FiniteTasks(torch.tensor([[0.5, 0.0], [0.0, 0.5]])).sample(3).support.x["task"].shape
    torch.Size([3, 2])
    """

    tasks: Any

    def __post_init__(self) -> None:
        what, leaves = "FiniteTasks's tasks", tree_leaves(self.tasks)
        fix = "Write FiniteTasks(torch.tensor([[0.5, 0.0], [0.0, 0.5]]))."
        if not all(isinstance(leaf, Tensor) and leaf.dim() for leaf in leaves):
            condition = "be tensors with a leading axis of tasks"
            raise mistyped(what, condition, brief(self.tasks), fix)
        counts = {len(leaf) for leaf in leaves}
        if len(counts) != 1 or 0 in counts:
            shapes = [tuple(leaf.shape) for leaf in leaves]
            raise invalid(what, "be the same number of at least 1", shapes, fix)

    @property
    def source_device(self) -> torch.device | None:
        """Device of the list."""
        return tree_leaves(self.tasks)[0].device

    def draw_tasks(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> PyTree:
        """Draw entries from the list."""
        source = self.source_device if generator is None else generator.device
        count = count_tasks(self.tasks)
        chosen = torch.randint(count, (num_tasks,), generator=generator, device=source)
        return tree_map(lambda leaf: leaf[chosen.to(leaf.device)], self.tasks)
