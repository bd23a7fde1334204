"""The protocol of every task distribution."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, final

import torch
from torch import Tensor

from metalearn._checks import as_device, check_count, check_generator, check_kind, invalid, mistyped
from metalearn._fields import Check
from metalearn._tree import tree_leaves
from metalearn.data._workers import seeded_batches
from metalearn.types import Batch, Episode


class TaskDistribution(ABC):
    """A distribution over tasks, each an episode.

    Subclasses implement `draw`; users call `sample` and `batches`, which check their arguments.

    >>> from metalearn.types import Batch
    >>> class Lines(TaskDistribution):
    ...     def draw(self, num_tasks, generator, device):
    ...         x, slope = torch.rand(2, num_tasks, 20, 1, generator=generator)
    ...         y = slope[:, :1] * x
    ...         return Episode(Batch(x[:, :5], y[:, :5]), Batch(x[:, 5:], y[:, 5:]))
    >>> Lines().sample(3).query.y.shape
    torch.Size([3, 15, 1])
    """

    @abstractmethod
    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw independent tasks; the arguments are already checked.

        Args:
            num_tasks: Number of tasks, at least 1.
            generator: The only source of randomness, on any device; None is the global one.
            device: Where the episodes will be used; drawing there saves a copy. None leaves the
                choice to the distribution.

        Returns:
            Episodes with a leading axis of `num_tasks` on every tensor.
        """

    @final
    def sample(
        self,
        num_tasks: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Episode:
        """Draw a batch of independent tasks.

        Numbers are drawn on the generator's device, so that a CPU generator gives the same tasks on
        any `device`. Without a generator they are drawn where they are needed.

        Args:
            num_tasks: Number of tasks, at least 1.
            generator: Source of all randomness; the global generator is then neither read nor
                advanced.
            device: Where the episodes go. By default they stay where they were made: with their
                images, if any, otherwise on the generator's device or the default one.

        Returns:
            Episodes with a leading axis of `num_tasks` on every tensor.

        Raises:
            TypeError: If `num_tasks` is not an int, `generator` not a `torch.Generator`, `device`
                not a device, or `draw` does not return episodes.
            ValueError: If `num_tasks` is below 1, `draw` returns another number of tasks, or no
                device has that name.
        """
        check_count("num_tasks", num_tasks, fix="Pass sample(num_tasks=25).")
        check_generator(generator)
        place = None if device is None else as_device(device)
        episodes = self.draw(num_tasks, generator, place)
        self._check_drawn(episodes, num_tasks)
        return episodes if place is None else episodes.to(place)

    @final
    def batches(
        self,
        meta_batch_size: int,
        *,
        num_batches: int | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        num_workers: int = 0,
    ) -> Iterator[Episode]:
        """Iterate over batches of tasks, drawn on demand or prefetched by workers.

        Workers are processes that draw on the CPU and end with the iterator. Each batch has its own
        seed, so that the batches do not depend on the number of workers. Tasks of images on a GPU,
        which workers cannot reach, are drawn there batch by batch, as by calls of `sample`.

        Args:
            meta_batch_size: Number of tasks in a batch, at least 1.
            num_batches: Number of batches, at least 0; None for endless batches.
            generator: Source of all randomness: one number, drawn at the first batch, determines
                all seeds. PyTorch's if not given.
            device: As in `sample`.
            num_workers: Number of worker processes, at least 0. On Linux they are forked and share
                images, memory-mapped caches included, with this process; elsewhere the distribution
                is pickled.

        Returns:
            Iterator over episodes with a leading axis of `meta_batch_size` on every tensor.

        Raises:
            TypeError: If a number is not an int, or `generator` not a `torch.Generator`.
            ValueError: If `meta_batch_size` is below 1, `num_batches` or `num_workers` below 0, no
                device has that name, or workers would draw from a GPU.
        """
        check_count("meta_batch_size", meta_batch_size, fix="Pass batches(meta_batch_size=4).")
        if num_batches is not None:
            fix = "Pass num_batches=None for no end."
            check_count("num_batches", num_batches, minimum=0, fix=fix)
        check_count("num_workers", num_workers, minimum=0, fix="Pass num_workers=2.")
        check_generator(generator)
        device = None if device is None else as_device(device)
        source = self.source_device
        if source is None or source.type == "cpu":
            return seeded_batches(
                self, meta_batch_size, num_batches, generator, device, num_workers
            )
        if num_workers:
            got = f"tasks on {source} for {num_workers} workers"
            moved = "EpisodeSampler(classes.to('cpu'), ...)"
            fix = f"Keep images on the CPU: {moved}, or leave num_workers out."
            raise invalid("worker processes", "draw on the CPU", got, fix)
        rounds = itertools.count() if num_batches is None else range(num_batches)
        return (self.sample(meta_batch_size, generator=generator, device=device) for _ in rounds)

    @property
    def source_device(self) -> torch.device | None:
        """Device of the data that tasks are made of; None if they are purely synthetic."""
        return None

    def _check_drawn(self, episodes: Any, num_tasks: int) -> None:
        """Raise unless `draw` has returned episodes of `num_tasks` tasks."""
        what = f"draw of {type(self).__name__}"
        is_episode = isinstance(episodes, Episode)
        if not (is_episode and all(isinstance(batch, Batch) for batch in episodes)):
            parts = [type(batch).__name__ for batch in episodes] if is_episode else None
            got = f"an Episode of {' and '.join(parts)}" if parts else type(episodes).__name__
            fix = "Write Episode(Batch(x, y), Batch(x, y))."
            raise mistyped(what, "return an Episode of two Batches", got, fix)
        leaves = tree_leaves(episodes)
        if any(not isinstance(leaf, Tensor) or leaf.shape[:1] != (num_tasks,) for leaf in leaves):
            shapes = [
                tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
                for leaf in leaves
            ]
            fix = "Every tensor begins with [num_tasks, num_examples]."
            raise invalid(what, f"return tensors of {num_tasks} tasks", shapes, fix)


Tasks = Annotated[
    TaskDistribution,
    Check(check_kind, TaskDistribution, "a task distribution", "data.Sinusoid(5, 5), say"),
]
"""A field that holds a task distribution."""
