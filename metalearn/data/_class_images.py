"""Images grouped by class, from which few-shot episodes are drawn."""

import copy
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import as_device, check_generator, check_path, invalid, mistyped
from metalearn.data._cache import Flat
from metalearn.data._dataset import read_dataset
from metalearn.data._layout import Layout, flatten
from metalearn.data._names import as_names, as_strings, check_known, label_of
from metalearn.data._readers import read_folder, read_npz
from metalearn.data._splits import part_sizes


class ClassImages:
    """Images of one size, grouped by class, in a single uint8 tensor.

    Instances are immutable: every method returns a new one. They may share memory with the images
    passed in, which must not be written to afterwards.

    Args:
        images: uint8 tensor or array `[classes, per_class, H, W]`, `[classes, per_class, H, W, C]`
            or `[classes, per_class, C, H, W]` with C 1, 3 or 4; or, where classes differ in size, a
            list with one such `[n, ...]` for each class.
        class_names: One distinct name for each class; by default "0", "1" and so on.
        layout: Axes of one image, "HW", "HWC" or "CHW". Needed only if the shape is ambiguous.

    Attributes:
        pixels: All images `[total, C, H, W]`, uint8, contiguous, ordered by class.
        starts: Index of each class's first image in `pixels`, int64 `[classes]`.
        counts: Number of images of each class, int64 `[classes]`.
        num_images: The same numbers as a tuple.
        class_names: Names of the classes, a tuple.

    Raises:
        TypeError: If images are not uint8, or names not a sequence of strings.
        ValueError: If shapes do not fit, a class is empty, names repeat, or their number is wrong.

    >>> ClassImages(torch.zeros(5, 20, 28, 28, dtype=torch.uint8))
    ClassImages(5 classes x 20 images, 1x28x28, cpu)
    """

    def __init__(
        self,
        images: Tensor | np.ndarray | Sequence[Tensor | np.ndarray],
        class_names: Sequence[str] | None = None,
        *,
        layout: Layout | None = None,
    ) -> None:
        pixels, num_images = flatten(images, layout)
        self._fill(pixels, num_images, as_names(class_names, len(num_images)))

    def _fill(self, pixels: Tensor, num_images: Sequence[int], class_names: Sequence[str]) -> None:
        self.pixels = pixels
        self.num_images = tuple(num_images)
        # cached: there can be thousands of classes, and draws are frequent
        self._largest = max(self.num_images)
        self.class_names = tuple(class_names)
        self.counts = torch.tensor(num_images, device=pixels.device)
        self.starts = self.counts.cumsum(0) - self.counts

    @classmethod
    def _from_flat(cls, images: Flat) -> Self:
        """Wrap images that are already laid out and checked; a memory map is not copied."""
        self = cls.__new__(cls)
        self._fill(torch.from_numpy(images.pixels), images.num_images, images.class_names)
        return self

    @classmethod
    def from_npz(cls, path: str | Path, split: str | None = None) -> Self:
        """Read an archive of `images`, `class_names` and `split`; nothing is unpickled.

        Args:
            path: An `.npz` file with `images`, uint8 `[classes, per_class, H, W]` or with channels,
                and strings `class_names` and `split`, both `[classes]`.
            split: Which classes to read, such as "train"; None reads all and needs no `split` in
                the file.

        Raises:
            FileNotFoundError: If the file does not exist.
            ValueError: If the file is damaged, lacks an entry, holds other data, or has no such
                split.
        """
        check_path("path", path)
        images, class_names = read_npz(Path(path), split)
        try:
            return cls(images, class_names)
        except (TypeError, ValueError) as error:
            raise ValueError(f"In {path}, {error}") from error

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        size: int | tuple[int, int],
        mode: str = "RGB",
        *,
        cache: str | Path | None = None,
    ) -> Self:
        """Read a folder with one subfolder per class, sorted by name.

        Images are decoded and resized once (Lanczos; the aspect ratio is not kept). Files are
        images by their extension: bmp, gif, jpeg, jpg, pgm, png, ppm, tif, tiff, webp. Other files
        and names that start with a dot are skipped; an unreadable image is an error.

        With `cache`, pixels are written to a file that later calls memory-map, so that the images
        may exceed memory. It is rewritten if the images, their modification times or the arguments
        change, or if it is damaged.

        Args:
            path: The folder.
            size: (height, width) in pixels, or one number for both.
            mode: "L" (grey), "RGB" or "RGBA".
            cache: Folder of the decoded pixels, created if needed; several calls can share it. None
                decodes into memory.

        Raises:
            FileNotFoundError: If the folder does not exist.
            OSError: If the cache cannot be written.
            TypeError: If `size` does not hold ints, `mode` is not a string, or `cache` not a path.
            ValueError: If a class or the folder is empty, an image is unreadable, or `mode` or
                `size` is invalid.
        """
        check_path("path", path)
        return cls._from_flat(read_folder(Path(path), size, mode, cache))

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        *,
        columns: tuple[str, str] | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Self:
        """Read a map-style data set whose items are (image, label) pairs or mappings.

        Args:
            dataset: Anything with `len(dataset)` and `dataset[i]`, such as
                `torchvision.datasets.CIFAR100` or a Hugging Face data set. Images are PIL images,
                or uint8 tensors or arrays, all of one size; labels are ints. Classes are the labels
                that occur, in ascending order, named by `dataset.classes`, or with columns by
                `dataset.features[label].names`, where it exists.
            columns: Keys of the image and the label in items that are mappings, such as ("image",
                "label").
            size: (height, width) in pixels, or one number for both, to which PIL images are resized
                (Lanczos; the aspect ratio is not kept). They become grey if all are grey, otherwise
                RGB: palettes are resolved and alpha is dropped. None leaves images unchanged.

        Raises:
            TypeError: If the data set is not map-style, an item is not a pair of uint8 image and
                int label, or `columns` is not a pair of strings.
            ValueError: If images differ in size and `size` is None, a column is missing, or a label
                has no name.

        >>> image = torch.zeros(3, 8, 8, dtype=torch.uint8)
        >>> ClassImages.from_dataset([(image, 7), (image, 2), (image, 7)]).num_images
        (1, 2)
        >>> items = [{"img": image, "fine": 4}]
        >>> ClassImages.from_dataset(items, columns=("img", "fine")).class_names
        ('4',)
        """
        images, class_names = read_dataset(dataset, columns, size)
        return cls(images, class_names, layout="CHW")

    def of_class(self, name: str) -> Tensor:
        """Return the images of one class, uint8 `[n, C, H, W]`, without a copy.

        Raises:
            TypeError: If the name is not a string.
            ValueError: If no class has this name.
        """
        label = label_of(name, self.class_names)
        return self.pixels[self.starts[label] :][: self.num_images[label]]

    def select(self, names: str | Iterable[str]) -> Self:
        """Return the classes with these names, in this order.

        Args:
            names: Some of `class_names`, each at most once; or a single one.

        Raises:
            TypeError: If `names` does not hold strings.
            ValueError: If a name is unknown or repeated, or `names` is empty.

        >>> images = ClassImages(torch.zeros(3, 20, 28, 28, dtype=torch.uint8), ["a", "b", "c"])
        >>> images.select(["c", "a"]).class_names
        ('c', 'a')
        """
        fix = "Pass select(['a', 'b'])."
        names = (names,) if isinstance(names, str) else as_strings("names", names, fix)
        if not names:
            raise invalid("names", "hold at least one name", "none", fix)
        check_known(names, self.class_names)
        return type(self)([self.of_class(name) for name in names], names, layout="CHW")

    def random_split(
        self, fractions: Sequence[float], generator: torch.Generator | None = None
    ) -> list[Self]:
        """Deal the classes at random into disjoint parts, as `torch.utils.data.random_split`.

        Args:
            fractions: What part of the classes each is to have, positive, together 1. Numbers of
                classes are rounded down, and what is left over goes to the first parts, one each.
            generator: Source of the order; PyTorch's by default. Pass one with a seed of its own,
                so that the test classes are the same in every run.

        Raises:
            TypeError: If `fractions` is not a sequence of numbers.
            ValueError: If they do not sum to 1, or a part would be empty.

        >>> images = ClassImages(torch.zeros(20, 5, 28, 28, dtype=torch.uint8))
        >>> parts = images.random_split([0.7, 0.15, 0.15], torch.Generator().manual_seed(0))
        >>> [len(part) for part in parts]
        [14, 3, 3]
        """
        check_generator(generator)
        sizes = part_sizes(fractions, len(self))
        device = "cpu" if generator is None else generator.device
        order = torch.randperm(len(self), generator=generator, device=device).tolist()
        names = iter(self.class_names[label] for label in order)
        return [self.select(list(itertools.islice(names, size))) for size in sizes]

    def rotated(self, angles: Sequence[int] = (0, 90, 180, 270)) -> Self:
        """Return all classes at each angle; every rotation of a class is a new class.

        Args:
            angles: Counterclockwise, in degrees, multiples of 90 and distinct modulo 360.

        Returns:
            `len(angles) * len(self)` classes, ordered by angle. Rotated ones have names such as
            "a/rot90".

        Raises:
            TypeError: If `angles` is not a sequence of ints.
            ValueError: If `angles` is empty, an angle repeats or is not a multiple of 90, or images
                are not square and an angle is 90 or 270.
        """
        turns = _checked_turns(angles)
        if self.image_shape[-2] != self.image_shape[-1] and any(turn % 180 for turn in turns):
            fix = "Pass rotated(angles=(0, 180))."
            raise invalid("images", "be square to be rotated by 90", self.image_shape, fix)
        rotations = [self.pixels.rot90(turn // 90, (-2, -1)) for turn in turns]
        images = [part for pixels in rotations for part in pixels.split(self.num_images)]
        names = [
            f"{name}/rot{turn}" if turn else name for turn in turns for name in self.class_names
        ]
        return type(self)(images, names, layout="CHW")

    def to(self, device: torch.device | str) -> Self:
        """Return the images on `device`, without a copy if they are already there.

        Raises:
            TypeError: If `device` is neither a device nor a name.
            ValueError: If no device has that name.
        """
        moved = copy.copy(self)
        moved._fill(self.pixels.to(as_device(device)), self.num_images, self.class_names)
        return moved

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of every image."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.class_names)

    def __repr__(self) -> str:
        fewest, most = min(self.num_images), max(self.num_images)
        images = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        shape = "x".join(map(str, self.image_shape))
        return f"ClassImages({len(self)} classes x {images} images, {shape}, {self.device})"


def _checked_turns(angles: Any) -> list[int]:
    """Return the angles modulo 360."""
    fix = "Pass rotated(angles=(0, 90, 180, 270))."
    if not (isinstance(angles, Sequence) and all(type(angle) is int for angle in angles)):
        raise mistyped("angles", "be a sequence of ints", brief(angles), fix)
    turns = [angle % 360 for angle in angles]
    if not turns or len(set(turns)) < len(turns) or any(turn % 90 for turn in turns):
        raise invalid("angles", "be distinct multiples of 90", tuple(angles), fix)
    return turns
