"""N-way k-shot episodes of images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalearn._checks import check_count, check_kind, invalid, mistyped
from metalearn.data._class_images import ClassImages
from metalearn.data._episodes import TaskDistribution
from metalearn.data._gather import check_transform, gather
from metalearn.types import Batch, Episode


@dataclass(frozen=True)
class EpisodeSampler(TaskDistribution):
    """N-way k-shot classification: each task draws its own classes, in random order.

    Classes and images are drawn without replacement, so that support and query sets share no image.
    An episode's x is `[tasks, n, C, H, W]` in [0, 1], in the default dtype, and its y `[tasks, n]`,
    int64, with n = n_way * k_shot in the support set and n = n_way * num_query in the query set.
    Both are ordered by class: example `label * k_shot + shot` of the support set is image `shot` of
    the class with that label.

    With ranges of ways and shots, every task draws its own; smaller tasks are padded with further
    images of weight 0 in `Batch.weight`. The criterion `functional.cross_entropy`, the metric
    `functional.accuracy` and `models.BatchNorm` layers then ignore the padding.

    Images are gathered as bytes on their own device and converted where the episodes go. With
    `classes.to("cuda")`, whole batches of episodes are made on the GPU.

    Args:
        classes: The images.
        n_way: Number of classes in a task, at least 1; or a range (fewest, most).
        k_shot: Number of support images per class, at least 1; or a range.
        num_query: Number of query images per class, at least 1.
        transform: Maps images `[tasks, n, C, H, W]` to images of the same tasks and n, such as
            `torchvision.transforms.v2.Normalize(mean, std)`. Called once, with each task's support
            images before its query images, on the device where the episodes go. An `Augmentation`
            draws from the sampler's generator.

    Raises:
        TypeError: If `classes` is not a `ClassImages`, a count not an int, or `transform` not
            callable.
        ValueError: If a count is below 1, a range descends, or there are too few classes or images
            for an episode.

    References:
        Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching networks for one shot
        learning", NeurIPS 2016.

    >>> classes = ClassImages(torch.zeros(10, 20, 28, 28, dtype=torch.uint8))
    >>> episodes = EpisodeSampler(classes, n_way=5, k_shot=2, num_query=15).sample(4)
    >>> episodes.support.x.shape, episodes.query.y.shape
    (torch.Size([4, 10, 1, 28, 28]), torch.Size([4, 75]))
    >>> episodes.support.y[0]
    tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    """

    classes: ClassImages
    n_way: int | tuple[int, int]
    k_shot: int | tuple[int, int]
    num_query: int
    transform: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        example = "EpisodeSampler(ClassImages(images), ...)"
        check_kind("classes", self.classes, ClassImages, "a ClassImages", example)
        check_transform(self.transform)
        fix = "Pass EpisodeSampler(classes, n_way=5, k_shot=1, num_query=15)."
        _check_counts("n_way", self.n_way, fix)
        _check_counts("k_shot", self.k_shot, fix)
        check_count("num_query", self.num_query, fix=fix)
        self._check_enough_classes()
        self._check_enough_images()

    @property
    def source_device(self) -> torch.device | None:
        """Device of the images."""
        return self.classes.device

    def draw(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device | None
    ) -> Episode:
        """Draw classes and their images."""
        device = device or self.classes.device
        chosen = self._draw_indices(num_tasks, generator)
        images = gather(self.classes, chosen, self.transform, generator, device)
        n_way, k_shot = _most(self.n_way), _most(self.k_shot)
        support, query = images.split([n_way * k_shot, n_way * self.num_query], dim=1)

        def labels(num_images: int) -> Tensor:
            of_task = torch.arange(n_way, device=device).repeat_interleave(num_images)
            return of_task.repeat(num_tasks, 1)

        weights = self._draw_weights(num_tasks, generator, device)
        return Episode(
            Batch(support, labels(k_shot), weights[0]),
            Batch(query, labels(self.num_query), weights[1]),
        )

    def _draw_weights(
        self, num_tasks: int, generator: torch.Generator | None, device: torch.device
    ) -> Any:
        """Draw each task's size, as weights `[tasks, n]` of both sets; none if sizes are fixed."""
        if isinstance(self.n_way, int) and isinstance(self.k_shot, int):
            return (), ()
        source = self.classes.device if generator is None else generator.device

        def counted(bounds: int | tuple[int, int]) -> Tensor:
            low, high = (bounds, bounds) if isinstance(bounds, int) else bounds
            drawn = torch.randint(low, high + 1, (num_tasks, 1), generator=generator, device=source)
            return torch.arange(high, device=source) < drawn

        has_class, has_shot = counted(self.n_way), counted(self.k_shot)
        support = (has_class[:, :, None] & has_shot[:, None, :]).flatten(1)
        query = has_class.repeat_interleave(self.num_query, 1)
        dtype = torch.get_default_dtype()
        return support.to(device, dtype), query.to(device, dtype)

    def _draw_indices(self, num_tasks: int, generator: torch.Generator | None) -> Tensor:
        """Draw each task's images as indices `[tasks, n]` into the pixels, support first."""
        device = self.classes.device if generator is None else generator.device
        starts, counts = self.classes.starts.to(device), self.classes.counts.to(device)

        def keys(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device, dtype=torch.float32)

        # The k largest of independent uniform keys are a random subset in random order.
        k_shot = _most(self.k_shot)
        labels = keys(num_tasks, len(counts)).topk(_most(self.n_way)).indices
        slots = torch.arange(self.classes._largest, device=device)
        empty = slots >= counts[labels].unsqueeze(-1)
        shots = keys(*empty.shape).masked_fill(empty, -1).topk(k_shot + self.num_query).indices
        indices = starts[labels].unsqueeze(-1) + shots
        support, query = indices.split([k_shot, self.num_query], dim=-1)
        return torch.cat([support.flatten(1), query.flatten(1)], dim=1)

    def _check_enough_classes(self) -> None:
        if _most(self.n_way) > len(self.classes):
            condition = f"be at most {len(self.classes)}, the number of classes"
            raise invalid("n_way", condition, self.n_way, self._call(n_way=len(self.classes)))

    def _check_enough_images(self) -> None:
        k_shot, num_images = _most(self.k_shot), self.classes.num_images
        needed = k_shot + self.num_query
        fewest = min(num_images)
        if needed <= fewest:
            return
        label = next(label for label, number in enumerate(num_images) if number < needed)
        name = self.classes.class_names[label]
        condition = f"be at most {num_images[label]}, the number of images of class {name!r}"
        fix = "Pass classes.select(names) with classes of at least 2 images."
        if fewest >= 2:
            shots = min(k_shot, fewest - 1)
            fix = self._call(k_shot=shots, num_query=min(self.num_query, fewest - shots))
        got = f"{k_shot} + {self.num_query} = {needed}"
        raise invalid("k_shot + num_query", condition, got, fix)

    def _call(self, **changes: int) -> str:
        counts = {name: getattr(self, name) for name in ("n_way", "k_shot", "num_query")} | changes
        arguments = ", ".join(f"{name}={count}" for name, count in counts.items())
        return f"Pass EpisodeSampler(classes, {arguments})."


def _most(count: int | tuple[int, int]) -> int:
    """Return a count, or the upper end of a range."""
    return count if isinstance(count, int) else count[1]


def _check_counts(name: str, counts: Any, fix: str) -> None:
    """Raise unless this is a count of at least 1 or an ascending pair of counts."""
    if not isinstance(counts, tuple):
        check_count(name, counts, fix=fix)
        return
    if len(counts) != 2:
        raise mistyped(name, "be a number or a pair (fewest, most)", counts, fix)
    for count in counts:
        check_count(name, count, fix=fix)
    if counts[0] > counts[1]:
        raise invalid(name, "be a pair (fewest, most)", counts, f"Pass {name}={counts[::-1]}.")
