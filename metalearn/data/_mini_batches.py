"""Mini-batches of all classes together: what a classifier is pretrained on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metalearn._checks import check_count, invalid
from metalearn.data._augmentations import apply
from metalearn.data._class_images import ClassImages
from metalearn.data._episodes import TaskDistribution
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
        if not isinstance(self.classes, ClassImages):
            fix = "Pass MiniBatches(ClassImages(images), batch_size=16)."
            raise TypeError(invalid("classes", "be a ClassImages", type(self.classes), fix))
        check_count("batch_size", self.batch_size, fix="Pass MiniBatches(classes, batch_size=16).")
        if not (self.transform is None or callable(self.transform)):
            raise TypeError(invalid("transform", "be a function of images, or None", repr(self.transform)))

    def draw(self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None) -> Episode:
        """Draw images of any class."""
        home = self.classes.device
        source = home if generator is None else generator.device
        total, shape = len(self.classes.pixels), (num_tasks, self.batch_size)
        chosen = torch.randint(total, shape, generator=generator, device=source).to(home)
        labels = torch.searchsorted(self.classes.starts, chosen, right=True) - 1
        pixels = self.classes.pixels.index_select(0, chosen.flatten()).unflatten(0, shape)
        images = pixels.to(device or home).to(torch.get_default_dtype()).div_(255)
        if self.transform is not None:
            images = apply(self.transform, images, generator)
        batch = Batch(images, labels.to(device or home))
        return Episode(batch, batch)
