"""Tasks as groups of channels, and which tensors the convolutions and norms here are for."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from metalearn._modes import in_transform


class Geometry(NamedTuple):
    """What a convolution is told beside its tensors."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def of_tasks(self, num_tasks: int) -> "Geometry":
        """Return the geometry of all tasks' convolutions as one grouped convolution."""
        return self._replace(groups=self.groups * num_tasks)


def fold(x: Tensor) -> Tensor:
    """Return `[num_tasks, n, C, ...]` as `[n, num_tasks * C, ...]`."""
    return x.movedim(0, 1).flatten(1, 2)


def unfold(x: Tensor, num_tasks: int) -> Tensor:
    """Return `[n, num_tasks * C, ...]` as `[num_tasks, n, C, ...]`."""
    return x.unflatten(1, (num_tasks, -1)).movedim(1, 0)


def channels_last(images: Tensor) -> Tensor:
    """Return images `[n, C, H, W]`, or weights, in memory as `[n, H, W, C]`."""
    return images.contiguous(memory_format=torch.channels_last)


def strictly_channels_last(images: Tensor) -> Tensor:
    """Return them with the strides of that layout, without a derivative.

    Of axes of size one any stride would do. But PyTorch takes images of one channel for the other
    layout, and its convolution of float64 reads the stride of a single image.
    """
    _, channels, height, width = images.shape
    strides = (channels * height * width, 1, channels * width, channels)
    return channels_last(images).as_strided(images.shape, strides)


def are_ours(x: Tensor, *params: Tensor | None) -> bool:
    """Return whether we take these tensors' derivatives, faster than PyTorch: in full precision."""
    device = x.device.type
    return (
        device in ("cpu", "cuda")
        and x.dtype in (torch.float32, torch.float64)
        and all(param is None or param.dtype == x.dtype for param in params)
        and not torch.is_autocast_enabled(device)
        and not left_to_pytorch()
    )


def left_to_pytorch() -> bool:
    """Return whether derivatives are taken in forward mode or by a transform such as `vmap`."""
    return forward_ad._current_level >= 0 or in_transform()
