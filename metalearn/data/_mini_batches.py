"""Mini-batches of all classes together: what a classifier is pretrained on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._checks import check_count
from metalearn.data._class_images import ClassImages
from metalearn.data._episodes import TaskDistribution
from metalearn.data._gather import check_source, gather
from metalearn.types import Batch, Episode


@dataclass(frozen=True)
class MiniBatches(TaskDistribution):
    """Images of all classes with the numbers of their classes as labels, drawn with replacement.

    An episode is one mini-batch, as its support and as its query set: x is `[tasks, batch_size, C, H, W]` in [0, 1], in
    the default dtype, and y `[tasks, batch_size]`, int64, below `len(classes)`.

    Args:
        classes: The images.
        batch_size: Number of images in a mini-batch, at least 1.
        transform: As in `EpisodeSampler`.

    Raises:
        TypeError: If `classes` is not a `ClassImages`, `batch_size` no int, or `transform` not callable.
        ValueError: If `batch_size` is below 1.

    >>> classes = ClassImages(torch.zeros(64, 20, 32, 32, 3, dtype=torch.uint8))
    >>> MiniBatches(classes, batch_size=16).sample(1).query.x.shape
    torch.Size([1, 16, 3, 32, 32])
    """

    classes: ClassImages
    batch_size: int
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_source("MiniBatches", self.classes, self.transform)
        check_count("batch_size", self.batch_size, fix="Pass MiniBatches(classes, batch_size=16).")

    @property
    def source_device(self) -> torch.device | None:
        """Where the images are."""
        return self.classes.device

    def draw(self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None) -> Episode:
        """Draw images of any class."""
        source = self.classes.device if generator is None else generator.device
        total = len(self.classes.pixels)
        chosen = torch.randint(total, (num_tasks, self.batch_size), generator=generator, device=source)
        images = gather(self.classes, chosen, self.transform, generator, device)
        labels = torch.searchsorted(self.classes.starts.to(source), chosen, right=True) - 1
        batch = Batch(images, labels.to(images.device))
        return Episode(batch, batch)
