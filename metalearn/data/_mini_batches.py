"""Mini-batches from the joint data of all tasks, for pretraining."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_count, check_kind, invalid
from metalearn._tree import tree_leaves, tree_map
from metalearn.data._augmentations import uniform
from metalearn.data._class_images import ClassImages
from metalearn.data._episodes import TaskDistribution
from metalearn.data._gather import check_transform, gather
from metalearn.data._sampler import EpisodeSampler
from metalearn.types import Batch, Episode


@dataclass(frozen=True)
class MiniBatches(TaskDistribution):
    """Mini-batches from the joint data of all tasks, drawn with replacement.

    An episode is one mini-batch, as both its support and query set. For images, x is
    `[tasks, batch_size, C, H, W]` in [0, 1], in the default dtype, and y `[tasks, batch_size]`,
    int64, below `len(source)`: their classes. For a task distribution, every example comes from a
    new task, drawn uniformly from its support and query set without padding.

    Args:
        source: The images, or a distribution of tasks whose targets mean the same in all tasks, as
            in regression but not in N-way classification.
        batch_size: Number of examples in a mini-batch, at least 1.
        transform: As in `EpisodeSampler`, for images only.

    Raises:
        TypeError: If `source` is neither of the two, `batch_size` not an int, or `transform` not
            callable.
        ValueError: If `batch_size` is below 1, `transform` is given for a task distribution, or
            that is an `EpisodeSampler`; when drawing, if support and query sets cannot be
            concatenated.

    References:
        Huisman, "Revisiting learned optimizers in few-shot settings", 2021, appendix A.1 (the joint
        data).

    >>> classes = ClassImages(torch.zeros(64, 20, 32, 32, 3, dtype=torch.uint8))
    >>> MiniBatches(classes, batch_size=16).sample(1).query.x.shape
    torch.Size([1, 16, 3, 32, 32])
    >>> from metalearn.data import Sinusoid
    >>> MiniBatches(Sinusoid(k_shot=5, num_query=50), batch_size=16).sample(1).query.y.shape
    torch.Size([1, 16, 1])
    """

    source: ClassImages | TaskDistribution
    batch_size: int
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        kinds, expected = ClassImages | TaskDistribution, "a ClassImages or a task distribution"
        example = "MiniBatches(ClassImages(images), 16) or MiniBatches(data.Sinusoid(5, 50), 16)"
        check_kind("source", self.source, kinds, expected, example)
        if isinstance(self.source, TaskDistribution):
            _check_tasks(self.source, self.transform)
        check_transform(self.transform)
        check_count("batch_size", self.batch_size, fix="Pass MiniBatches(classes, batch_size=16).")

    @property
    def source_device(self) -> torch.device | None:
        """Device of the images, or of the data that tasks are made of."""
        source = self.source
        return source.device if isinstance(source, ClassImages) else source.source_device

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw examples from all classes or tasks."""
        source, shape = self.source, (num_tasks, self.batch_size)
        if isinstance(source, TaskDistribution):
            batch = _joint(source, shape, generator, device)
        else:
            home = source.device if generator is None else generator.device
            chosen = torch.randint(len(source.pixels), shape, generator=generator, device=home)
            images = gather(source, chosen, self.transform, generator, device)
            labels = torch.searchsorted(source.starts.to(home), chosen, right=True) - 1
            batch = Batch(images, labels.to(images.device))
        return Episode(batch, batch)


def _check_tasks(tasks: TaskDistribution, transform: Any) -> None:
    inside = tasks
    while isinstance(getattr(inside, "tasks", None), TaskDistribution):  # of `Shard` and its like
        inside = inside.tasks  # type: ignore[attr-defined]
    if isinstance(inside, EpisodeSampler):
        condition = "have targets that mean the same in all tasks"
        fix = "Pass its images: MiniBatches(sampler.classes, 16)."
        raise invalid("MiniBatches' source", condition, "N-way tasks", fix)
    if transform is not None:
        fix = "Change what its draw returns."
        raise invalid("transform", "be left out for a task distribution", brief(transform), fix)


def _joint(
    tasks: TaskDistribution,
    shape: tuple[int, int],
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Batch:
    """Draw a task for every example and take one of its examples."""
    count = math.prod(shape)
    episodes = tasks.sample(count, generator=generator, device=device)
    try:
        sets = [(batch.x, batch.y) for batch in episodes]
        joined = tree_map(lambda *leaves: torch.cat(leaves, 1), *sets)
    except (RuntimeError, ValueError, IndexError) as error:
        condition = "have support and query sets of one kind, to be joined"
        raise invalid("tasks of MiniBatches", condition, error) from error
    is_there = torch.cat([_is_there(batch) for batch in episodes], 1)
    chosen = uniform(is_there.shape, is_there, generator).masked_fill(~is_there, -1).argmax(1)
    rows = torch.arange(count, device=chosen.device)
    return Batch(*tree_map(lambda leaf: leaf[rows, chosen].unflatten(0, shape), joined))


def _is_there(batch: Batch) -> Tensor:
    """Return which examples are not padding, `[tasks, num_examples]`."""
    first = tree_leaves(batch)[0]
    if tree_leaves(batch.weight):
        return batch.weight > 0
    return torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
