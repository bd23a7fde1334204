"""Image augmentations, drawn per image and vectorised on the images' device, and normalisation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import check_function, check_generator, check_number, invalid, mistyped
from metalearn._fields import Checked, Count


class Augmentation(ABC):
    """A random change of images, for `EpisodeSampler(transform=)`.

    >>> class Negative(Augmentation):
    ...     def __call__(self, images, generator=None):
    ...         chosen = torch.rand(images.shape[:2], generator=generator).to(images.device) < 0.5
    ...         return torch.where(chosen[:, :, None, None, None], 1 - images, images)
    """

    @abstractmethod
    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return changed images.

        Args:
            images: Images in [0, 1], `[tasks, n, C, H, W]`.
            generator: The only source of randomness, on any device; None is the global one.
        """


@dataclass(frozen=True)
class RandomFlip(Augmentation):
    """Flip each image left to right with probability 1/2.

    >>> RandomFlip()(torch.zeros(2, 5, 3, 32, 32)).shape
    torch.Size([2, 5, 3, 32, 32])
    """

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the images, about half of them flipped."""
        _check_images("RandomFlip", images, ("tasks", "n"))
        chosen = uniform(images.shape[:2], images, generator) < 0.5
        return torch.where(chosen[:, :, None, None, None], images.flip(-1), images)


@dataclass(frozen=True)
class RandomCrop(Augmentation, Checked):
    """Pad each image with black and crop it at random: a shift of up to `padding` pixels.

    Args:
        padding: Number of pixels, at least 1.

    Raises:
        TypeError: If `padding` is not an int.
        ValueError: If `padding` is below 1.
    """

    padding: Annotated[Count, "Write RandomCrop(padding=4), say."]

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return randomly shifted images."""
        _check_images("RandomCrop", images, ("tasks", "n"))
        *leading, channels, height, width = images.shape
        padded = F.pad(images.flatten(0, 1), [self.padding] * 4)
        places = 2 * self.padding + 1
        moves = (uniform((len(padded), 2), images, generator) * places).long()
        rows = (moves[:, :1] + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (moves[:, 1:] + torch.arange(width, device=images.device))[:, None, None, :]
        each = torch.arange(len(padded), device=images.device)[:, None, None, None]
        of_image = torch.arange(channels, device=images.device)[None, :, None, None]
        return padded[each, of_image, rows, columns].unflatten(0, leading)


@dataclass(frozen=True)
class Normalize:
    """Subtract a mean from each channel and divide by a standard deviation.

    Args:
        mean: One number per channel, or one for all.
        std: One positive number per channel, or one for all.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If they differ in length, or a standard deviation is not positive.

    >>> normalize = Normalize(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    >>> normalize(torch.full((1, 1, 3, 2, 2), 0.7)).mean().round(decimals=4)
    tensor(1.)
    """

    mean: float | Sequence[float]
    std: float | Sequence[float]

    def __post_init__(self) -> None:
        fix = "Write Normalize(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)), say."
        means, stds = _numbers(self.mean), _numbers(self.std)
        for name, numbers in (("mean", means), ("std", stds)):
            for number in numbers:
                check_number(f"Normalize's {name}", number, fix=fix)
        if not means:
            raise invalid("Normalize's mean", "be at least one number", self.mean, fix)
        if len(means) != len(stds) or min(stds) <= 0:
            raise invalid("Normalize's std", "be positive, one for each mean", self.std, fix)

    def __call__(self, images: Tensor) -> Tensor:
        """Return normalised images `[..., C, H, W]`.

        Raises:
            TypeError: If `images` is not a floating tensor.
            ValueError: If the number of channels differs.
        """
        _check_images("Normalize", images)
        num_channels = len(_numbers(self.mean))
        if num_channels not in (1, images.shape[-3]):
            fix = "Write Normalize(0.5, 0.25), one number for all channels, or one for each."
            got = f"{images.shape[-3]} in images of shape {tuple(images.shape)}"
            raise invalid("Normalize's images", f"have {num_channels} channels", got, fix)
        mean, std = (_of_channels(numbers, images) for numbers in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True, init=False)
class Compose(Augmentation):
    """Apply transforms in order, augmentations or plain functions of images.

    Args:
        transforms: At least one.

    Raises:
        TypeError: If one of them is not a function.

    >>> transform = Compose(RandomCrop(4), RandomFlip(), Normalize(0.5, 0.25))
    >>> transform(torch.rand(2, 5, 3, 32, 32)).shape
    torch.Size([2, 5, 3, 32, 32])
    """

    transforms: tuple[Callable[..., Tensor], ...]

    def __init__(self, *transforms: Callable[..., Tensor]) -> None:
        object.__setattr__(self, "transforms", transforms)
        fix = "Write Compose(RandomFlip(), Normalize(0.5, 0.25)), say."
        for transform in transforms or [None]:
            check_function("Compose's transforms", transform, "be functions of images", fix=fix)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the images after all transforms."""
        for transform in self.transforms:
            images = apply(transform, images, generator)
        return images


def apply(transform: Callable[..., Any], images: Tensor, generator: torch.Generator | None) -> Any:
    """Return transformed images; an augmentation draws from the generator."""
    draws = (generator,) if isinstance(transform, Augmentation) else ()
    return transform(images, *draws)


def uniform(shape: Sequence[int], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from U[0, 1) on the generator's device and move the numbers to the images'."""
    check_generator(generator)
    source = images.device if generator is None else generator.device
    drawn = torch.rand(tuple(shape), generator=generator, device=source, dtype=torch.float32)
    return drawn.to(images.device)


def _check_images(what: str, images: Any, leading: tuple[str, ...] = ()) -> None:
    """Raise unless these are floating images `[*leading, C, H, W]`; () allows any leading axes."""
    axes = ", ".join((*leading, "C", "H", "W")) if leading else "..., C, H, W"
    fix = "Pass it to data.EpisodeSampler(transform=), which gives such images."
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        got = images.dtype if isinstance(images, Tensor) else brief(images)
        raise mistyped(f"{what}'s images", f"be a floating tensor [{axes}]", got, fix)
    if images.dim() < 3 or (leading and images.dim() != len(leading) + 3):
        raise invalid(f"{what}'s images", f"be [{axes}]", f"shape {tuple(images.shape)}", fix)


def _of_channels(numbers: float | Sequence[float], images: Tensor) -> Tensor:
    """Return one number per channel `[C, 1, 1]`, filled on the device: a copy would sync a GPU."""
    return torch.stack([images.new_full((1, 1), number) for number in _numbers(numbers)])


def _numbers(numbers: Any) -> tuple[Any, ...]:
    are_many = isinstance(numbers, Sequence) and not isinstance(numbers, str)
    return tuple(numbers) if are_many else (numbers,)
