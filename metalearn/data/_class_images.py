"""Images grouped by class, kept as one uint8 tensor on any device."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from metalearn._checks import check_count, did_you_mean, invalid
from metalearn.data._layout import Layout, flatten
from metalearn.data._readers import read_dataset, read_folder, read_npz


class ClassImages:
    """Images grouped by class, as many of each as there are, kept as one uint8 tensor.

    Methods return new objects and share memory where they can.

    Args:
        images: uint8 tensor or array `[classes, per_class, H, W]`, `[classes, per_class, H, W, C]` or
            `[classes, per_class, C, H, W]` with C of 1, 3 or 4; or a list with one such `[n, ...]` for each class.
        class_names: One name a class, all different; "0", "1", ... if not given.
        layout: Axes of one image, "HW", "HWC" or "CHW"; recognised if not given.

    Attributes:
        pixels: uint8 `[num_images, C, H, W]`, class after class.
        counts: Number of images of every class, int64 `[classes]`, on the device of `pixels`.
        starts: Index of every class's first image in `pixels`, int64 `[classes]`.
        class_names: One name a class.

    Raises:
        TypeError: If the images are not uint8, or of the wrong kind.
        ValueError: If shapes are inconsistent or ambiguous, a class is empty, or the names do not fit.

    >>> images = ClassImages(torch.zeros(3, 20, 28, 28, dtype=torch.uint8), ["a", "b", "c"])
    >>> images
    ClassImages(3 classes, 60 images of 1x28x28, on cpu)
    >>> len(images.rotated())
    12
    """

    def __init__(
        self, images: Any, class_names: Sequence[str] | None = None, *, layout: Layout | None = None
    ) -> None:
        pixels, counts = flatten(images, layout)
        names = [str(label) for label in range(len(counts))] if class_names is None else list(class_names)
        if len(names) != len(counts):
            fix = "Leave class_names out to number them."
            got = f"{len(names)} for {len(counts)} classes"
            raise ValueError(invalid("class_names", "name every class once", got, fix))
        if repeated := sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ()):
            raise ValueError(invalid("class_names", "differ", f"{repeated} more than once"))
        self.pixels = pixels
        self.counts = torch.tensor(counts, device=pixels.device)
        self.starts = self.counts.cumsum(0) - self.counts
        self.class_names = names

    @classmethod
    def from_npz(cls, path: str | Path, split: str | None = None) -> Self:
        """Read an `.npz` archive with `images`, `class_names` and, if a split is asked for, `split`.

        Args:
            path: The archive. Nothing in it is unpickled.
            split: Take only the classes whose entry of the array `split` is this; None takes all.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is damaged or lacks an array, or no class is of the split.
        """
        return cls(*read_npz(Path(path), split))

    @classmethod
    def from_folder(cls, path: str | Path, size: int | tuple[int, int], *, mode: str = "RGB") -> Self:
        """Decode a folder with one sub-folder of images a class, once.

        Args:
            path: The folder; sub-folders and files are taken in the order of their names.
            size: (height, width) in pixels that every image is resized to, or one number for both.
            mode: Pillow's mode of the result: "L", "RGB" or "RGBA".

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it has no sub-folders, one of them holds no images, or an image cannot be read.
        """
        height, width = (size, size) if isinstance(size, int) else size
        for extent in (height, width):
            check_count("size", extent, fix="Pass size=84, or size=(height, width).")
        return cls(*read_folder(Path(path), (height, width), mode), layout="HW" if mode == "L" else "HWC")

    @classmethod
    def from_dataset(cls, dataset: Any) -> Self:
        """Read a map-style data set of pairs (image, label) once.

        Args:
            dataset: Gives pairs of a PIL image, or a uint8 tensor or array, and an int. Its `classes`, if it has any,
                are the names.

        Raises:
            TypeError: If it is not map-style, or an item is not such a pair.
            ValueError: If images differ in shape, or a label has no name.
        """
        return cls(*read_dataset(dataset), layout="CHW")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.class_names)

    def __repr__(self) -> str:
        shape = "x".join(str(extent) for extent in self.image_shape)
        return f"ClassImages({len(self)} classes, {len(self.pixels)} images of {shape}, on {self.device})"

    def of_class(self, name: str) -> Tensor:
        """Return one class's images, uint8 `[n, C, H, W]`."""
        label = self._labels([name])[0]
        return self.pixels[self.starts[label] :][: self.counts[label]]

    def select(self, names: Iterable[str]) -> Self:
        """Return the named classes, in that order.

        Raises:
            ValueError: If there is no class of a name.
        """
        names = [names] if isinstance(names, str) else list(names)
        self._labels(names)
        return type(self)([self.of_class(name) for name in names], names, layout="CHW")

    def rotated(self, angles: Sequence[int] = (0, 90, 180, 270)) -> Self:
        """Return rotated copies of every class as classes of their own, named `<name>/rot90` and so on.

        Args:
            angles: Counter-clockwise, in degrees, multiples of 90; 0 keeps the class as it is.

        Raises:
            ValueError: If an angle is no multiple of 90 or given twice, or the images are not square.
        """
        turns = [angle // 90 % 4 for angle in angles]
        if not turns or any(angle % 90 for angle in angles) or len(set(turns)) < len(turns):
            fix = "Write rotated((0, 90, 180, 270))."
            raise ValueError(invalid("angles", "be different multiples of 90 degrees", tuple(angles), fix))
        if self.image_shape[1] != self.image_shape[2] and any(turn % 2 for turn in turns):
            fix = "Write rotated((0, 180)), or resize them."
            raise ValueError(invalid("images", "be square to be turned by 90 degrees", self.image_shape, fix))
        parts = self.pixels.split(self.counts.tolist())
        images = [part.rot90(turn, (2, 3)) for turn in turns for part in parts]
        names = [name + (f"/rot{90 * turn}" if turn else "") for turn in turns for name in self.class_names]
        return type(self)(images, names, layout="CHW")

    def to(self, device: torch.device | str) -> Self:
        """Return the images on `device`."""
        parts = self.pixels.to(device).split(self.counts.tolist())
        return type(self)(list(parts), self.class_names, layout="CHW")

    def _labels(self, names: list[str]) -> list[int]:
        labels = {name: label for label, name in enumerate(self.class_names)}
        for name in names:
            if name not in labels:
                known = f"one of the {len(self)} classes, {', '.join(self.class_names[:3])}, ..."
                raise ValueError(invalid("class name", f"be {known}", repr(name), did_you_mean(name, labels)))
        return [labels[name] for name in names]
