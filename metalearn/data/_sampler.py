"""Episodes of N-way k-shot classification from images grouped by class."""

from collections.abc import Callable

import torch
from torch import Tensor

from metalearn._checks import check_count, invalid
from metalearn.data._class_images import ClassImages
from metalearn.data._episodes import TaskDistribution
from metalearn.types import Batch, Episode


class EpisodeSampler(TaskDistribution):
    """N-way k-shot classification: N classes of a task, k support images and some query images of each.

    Classes, and the images of a class, are drawn without replacement, so support and query share none. Labels are given
    in the order in which the classes are drawn. An episode's x is `[tasks, n_way * n, C, H, W]` in [0, 1] in the
    default dtype and its y int64 `[tasks, n_way * n]`, with n = k_shot in the support and n = num_query in the query
    set; examples of one class stand together, in ascending order of labels.

    Args:
        classes: The images. They stay on their device, and episodes are made there.
        n_way: Number of classes in a task, at least 1.
        k_shot: Number of support images of each class, at least 1.
        num_query: Number of query images of each class, at least 1.
        transform: Function of images `[tasks, n, C, H, W]` that returns such images, applied to support and query
            each, on their device.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If there are fewer classes than `n_way`, or a class has fewer than `k_shot + num_query` images.

    >>> classes = ClassImages(torch.zeros(8, 20, 28, 28, dtype=torch.uint8))
    >>> episodes = EpisodeSampler(classes, n_way=5, k_shot=1, num_query=15).sample(4)
    >>> episodes.query.x.shape, episodes.support.y[0].tolist()
    (torch.Size([4, 75, 1, 28, 28]), [0, 1, 2, 3, 4])
    """

    def __init__(
        self,
        classes: ClassImages,
        n_way: int,
        k_shot: int,
        num_query: int,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        fix = "Write EpisodeSampler(classes, n_way=5, k_shot=1, num_query=15)."
        if not isinstance(classes, ClassImages):
            raise TypeError(invalid("classes", "be ClassImages", type(classes).__name__, "Write ClassImages(images)."))
        for name, count in (("n_way", n_way), ("k_shot", k_shot), ("num_query", num_query)):
            check_count(name, count, fix=fix)
        if transform is not None and not callable(transform):
            raise TypeError(invalid("transform", "be a function of images", repr(transform), "Pass a function."))
        if n_way > len(classes):
            fix = f"Write EpisodeSampler(classes, n_way={len(classes)}, ...)."
            raise ValueError(invalid("n_way", f"be at most the {len(classes)} classes", n_way, fix))
        for name, count in zip(classes.class_names, classes.counts.tolist(), strict=True):
            if k_shot + num_query > count:
                got = f"{k_shot} + {num_query} = {k_shot + num_query}"
                fix = f"Write EpisodeSampler(..., num_query={count - k_shot})." if count > k_shot else ""
                condition = f"be at most the {count} images of class {name!r}"
                raise ValueError(invalid("k_shot + num_query", condition, got, fix))
        self.classes, self.transform = classes, transform
        self.n_way, self.k_shot, self.num_query = n_way, k_shot, num_query

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw classes and images, and gather these."""
        source = self.classes.device if generator is None else generator.device
        counts, starts = self.classes.counts.to(source), self.classes.starts.to(source)
        labels = torch.rand(num_tasks, len(self.classes), generator=generator, device=source)
        drawn = labels.topk(self.n_way).indices
        order = torch.rand(num_tasks, self.n_way, int(self.classes.counts.max()), generator=generator, device=source)
        # Slots behind a class's last image are never among the largest.
        slots = torch.arange(order.shape[-1], device=source)
        order = order.masked_fill(slots >= counts[drawn, None], -1)
        picked = starts[drawn, None] + order.topk(self.k_shot + self.num_query).indices
        return Episode(self._batch(picked[..., : self.k_shot]), self._batch(picked[..., self.k_shot :]))

    def _batch(self, index: Tensor) -> Batch:
        """Gather images by their index `[tasks, n_way, n]`."""
        num_tasks, n_way, num_images = index.shape
        pixels = self.classes.pixels[index.flatten(1).to(self.classes.device)]
        x = pixels.to(torch.get_default_dtype()) / 255
        labels = torch.arange(n_way, device=x.device).repeat_interleave(num_images)
        return Batch(x if self.transform is None else self.transform(x), labels.expand(num_tasks, -1).clone())
